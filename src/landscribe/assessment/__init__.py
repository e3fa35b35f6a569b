"""From a map and a reference to measures of accuracy."""
