"""Training data: scenes, chips, splits, statistics, batches."""
