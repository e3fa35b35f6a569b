"""Where pixels are: grids, tiles, classes, rasters, features. Never torch."""
