"""Chips as batches of tensors."""
