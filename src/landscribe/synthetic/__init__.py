"""Scenes that are drawn by code: the world of the demo and of tests, and small data sets in publishers' layouts."""

from landscribe.synthetic.world import BYTES_PER_PIXEL, CLASSES, NODATA, World, WorldSide, draw, write

__all__ = ["BYTES_PER_PIXEL", "CLASSES", "NODATA", "World", "WorldSide", "draw", "write"]
