"""Vector files: read, reprojected and burned onto grids."""
