"""Chips that networks train on, cut and indexed."""
