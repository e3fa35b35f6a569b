"""The split of each chip: train, val or test."""
