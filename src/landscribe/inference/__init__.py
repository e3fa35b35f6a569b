"""A network run fast on any device."""
