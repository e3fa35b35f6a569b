"""What the network sees: scenes, chips, splits, statistics, batches."""
