"""From a model and rasters to maps."""
