"""One feature in all models: what it detects, what it causes, where it is found again."""
