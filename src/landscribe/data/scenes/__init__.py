"""Imagery and labels on one grid."""
