"""How it is shown: the frame of a figure, a small grammar of charts, the flow, token strips."""
