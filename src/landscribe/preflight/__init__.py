"""Preflight: problems and cost of a run, before it starts. Nothing is written."""
