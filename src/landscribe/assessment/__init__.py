"""Accuracy of class maps against reference labels."""
