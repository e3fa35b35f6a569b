"""A finished map and what it is assembled from."""
