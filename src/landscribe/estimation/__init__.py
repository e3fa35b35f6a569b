"""Estimates of accuracy and area from a reference sample, by the design that drew it; tables in, numbers out."""
