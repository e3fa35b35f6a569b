"""From a map to polygons and objects."""
