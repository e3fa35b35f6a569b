"""From the units of a map to one Cloud Optimized GeoTIFF: sources are read, blocks compressed, the file is composed."""
