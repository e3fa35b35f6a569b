"""A run on one page: what was made, how good it is, and how that is known."""
