"""Files on one grid, read by window."""
