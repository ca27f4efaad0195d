"""Language models: building, training, loading, one forward pass for all, and merging."""
