"""Library behind the companion to Horn & Elliott, *Tracking Universal Features* (2024).

One module per idea, in the order in which data flows: `runs`, then `corpora`, `stories`, `tokens`,
then `language_model`, `merging`, then `activations`, `autoencoder`, then `features`, `matching`,
`labels`, and `charts` at the end. A later module may import an earlier one, never the reverse.
Importing the package imports nothing else: each notebook names the modules that it uses.
"""
