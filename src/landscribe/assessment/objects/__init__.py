"""Objects of a map against reference polygons, one to one."""
