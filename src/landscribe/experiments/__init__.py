"""Experiments: several models of the same chips, and what each measures on chips that it has not seen."""
