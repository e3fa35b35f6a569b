"""From a map to a reference sample: sizes, allocation, and the random choice of sampling units."""
