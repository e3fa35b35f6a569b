"""Class codes as polygons, traced in strips."""

import numpy as np
from affine import Affine

from landscribe.polygons.boundaries import simplify
from landscribe.polygons.boundaries.regions import RegionJoiner
from landscribe.polygons.boundaries.rings import Polygons, geometries, polygons_of
from landscribe.polygons.boundaries.tracing import Tracing

PIXEL = (1.0, 1.0)


def all_points(arcs):
    return arcs.points.astype(float), arcs.start


def polygons_in_strips(codes, rows, *, grouping="region", weights=None, tolerance=None, is_smooth=False) -> Polygons:
    """The polygons of class codes that are traced in strips of so many rows; simplified if there is a tolerance."""
    height, width = codes.shape
    simplifier = None if tolerance is None else simplify.Simplifier(tolerance, PIXEL, is_smooth)
    tracing = Tracing(grouping, None if simplifier is None else simplify.CUT)
    joiner = RegionJoiner(width, simplifier or all_points)
    padded, parts = np.pad(codes, ((1, 0), (0, 0))), []
    for row in range(0, height, rows):
        stop = min(row + rows, height)
        own = None if weights is None else weights[row:stop]
        trace = tracing.trace(padded[row : stop + 1], row, is_last=stop == height, weights=own)
        if simplifier is not None:
            simplifier.add(trace.lines, row)
        parts.append(polygons_of(joiner.add(trace, row, is_last=stop == height)))
    return Polygons.join(parts)


def shapes_of(polygons):
    return geometries(polygons, Affine.identity())
