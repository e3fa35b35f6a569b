"""Pyramids of features, and where their weights come from."""
