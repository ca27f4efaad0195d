"""The same feature in two models, and how much of an answer is the instrument's own noise."""
