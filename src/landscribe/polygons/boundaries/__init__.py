"""Boundaries of regions as arrays of points in pixels; never files."""
