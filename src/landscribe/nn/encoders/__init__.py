"""Encoders: pyramids of features, their pretrained weights, and freezing."""
