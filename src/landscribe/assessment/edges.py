"""Accuracy near the edges between classes, and how well edges of map and reference agree."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from landscribe.agreement import plain, ratio
from landscribe.assessment.spec import MOST_EDGE_PIXELS
from landscribe.errors import RecipeError
from landscribe.geo.classes import IGNORE
from landscribe.geo.grid import Window
from landscribe.geo.rasters.raster import Raster

DISTANCES = (1, 2, 4, 8, 16)
"""Upper ends of the classes of distance, in pixels; the last class is beyond."""
SCALE = 1.002
"""Lengths of a projection differ from those on the ground: in a zone of UTM by up to a thousandth. Two pixels of a
metre, or outlines two metres apart, then are within two metres."""
_SQUARE = 1.01
"""Ratio of the sides of a pixel up to which it counts as square."""


@dataclass(frozen=True)
class EdgeTolerance:
    """The distance between centres of edge pixels up to which edges agree."""

    distance: float
    """In pixels, or in metres if `pixel` is given."""
    pixel: tuple[float, float] | None = None
    """Height and width of a pixel in metres, if the distance is in metres."""

    @classmethod
    def on(cls, mapped: Raster, setting: float | str) -> "EdgeTolerance":
        """The tolerance on a map, whose pixels are measured on the ground at its centre.

        Args:
            mapped: the map.
            setting: of `AccuracySpec.edge_tolerance`.

        Raises:
            RecipeError: metres without a CRS, or more of them than `MOST_EDGE_PIXELS`.
            GridError: the centre of the map is not on Earth.
        """
        if not isinstance(setting, str):
            return cls(float(setting))
        sides = mapped.grid.pixel_sides
        if sides is None:
            raise RecipeError(
                f"--edge-tolerance is {setting}, but {mapped.paths[0]} has no CRS, so that its pixels have no size. "
                "Give the tolerance in pixels, such as 2."
            )
        tolerance = cls(float(setting.removesuffix("m")), sides)
        if tolerance.reach > MOST_EDGE_PIXELS:
            raise RecipeError(
                f"--edge-tolerance is {setting}, which is {tolerance.reach} pixels of {mapped.paths[0]}. Expected at "
                f"most {MOST_EDGE_PIXELS} pixels, {math.floor(MOST_EDGE_PIXELS * min(sides) * 100) / 100:g}m."
            )
        return tolerance

    @property
    def reach(self) -> int:
        """The most pixels within the tolerance, along a row or a column."""
        return math.ceil(self.distance / (1 if self.pixel is None else min(self.pixel)))

    @property
    def halo(self) -> int:
        """Pixels around a window that are read too, so that no edge within the largest distance is missed."""
        return max(DISTANCES[-1], self.reach) + 1

    def contains(self, edges: NDArray[np.bool_], in_pixels: NDArray[np.float32]) -> NDArray[np.bool_]:
        """True for pixels within the tolerance of an edge pixel.

        Args:
            edges: (rows, cols) True for edge pixels.
            in_pixels: (rows, cols) the distance to the nearest one in pixels.
        """
        if self.pixel is None:
            return in_pixels <= self.distance
        height, width = self.pixel
        if max(self.pixel) <= _SQUARE * min(self.pixel):
            return in_pixels <= SCALE * self.distance / math.sqrt(height * width)
        return _distances(edges, self.pixel) <= SCALE * self.distance

    def as_dict(self) -> dict[str, Any]:
        """The distance, its unit and the sides of a pixel in JSON's types."""
        sides = {} if self.pixel is None else {"pixel_metres": list(self.pixel)}
        return {"tolerance": self.distance, "tolerance_unit": "pixels" if self.pixel is None else "metres"} | sides


@dataclass(frozen=True, eq=False)
class EdgeCounts:
    """Pixels by their distance to an edge, and edge pixels that agree. Adding merges windows and maps.

    An edge pixel has a neighbour of another class to its left or right, above or below. Edges to unlabelled pixels and
    to nodata are none.
    """

    by_distance: NDArray[np.int64]
    """(6, 2) compared pixels, and those mapped correctly, by distance of their centre to the nearest edge in the
    reference: up to 1, 2, 4, 8, 16 pixels, and beyond."""
    matched: NDArray[np.int64]
    """(2, 2) edge pixels of the map (first row) and of the reference: all, and those with an edge pixel of the other
    within the tolerance."""
    tolerance: EdgeTolerance
    """Of a sum of several maps: that of the first."""

    @classmethod
    def zeros(cls, tolerance: EdgeTolerance) -> "EdgeCounts":
        """Counts without pixels, to which others are added."""
        return cls(np.zeros((len(DISTANCES) + 1, 2), np.int64), np.zeros((2, 2), np.int64), tolerance)

    @classmethod
    def of(
        cls,
        reference: NDArray[np.uint8],
        predicted: NDArray[np.uint8],
        tolerance: EdgeTolerance,
        inner: Window | None = None,
    ) -> "EdgeCounts":
        """Count the pixels of two arrays.

        Args:
            reference: (rows, cols) class indices, or 255 for ignore.
            predicted: (rows, cols) class indices, or 255 for nodata.
            tolerance: of edges.
            inner: the pixels of the arrays that are counted; None for all. Law: with the tolerance's halo around them,
                the counts of windows sum to those of the whole.
        """
        counted = (Window(0, 0, *reference.shape) if inner is None else inner).slices
        edges = [_edge_pixels(predicted), _edge_pixels(reference)]
        to_edges = [_distances(each) for each in edges]
        near_map, near_reference = (
            tolerance.contains(each, distance)[counted] for each, distance in zip(edges, to_edges, strict=True)
        )
        compared = ((reference != IGNORE) & (predicted != IGNORE))[counted]
        correct = (reference == predicted)[counted][compared]
        # From an edge pixel's centre, the edge itself is half a pixel away.
        near = np.searchsorted(DISTANCES, to_edges[1][counted][compared] + 0.5)
        size = len(DISTANCES) + 1
        by_distance = np.stack([np.bincount(near, minlength=size), np.bincount(near[correct], minlength=size)], axis=1)
        matched = [
            [np.count_nonzero(own), np.count_nonzero(own & is_near)]
            for own, is_near in zip(
                (edge[counted] & compared for edge in edges), (near_reference, near_map), strict=True
            )
        ]  # fmt: skip
        return cls(by_distance, np.array(matched, np.int64), tolerance)

    def __add__(self, other: "EdgeCounts") -> "EdgeCounts":
        return EdgeCounts(self.by_distance + other.by_distance, self.matched + other.matched, self.tolerance)

    @property
    def boundary_f1(self) -> float:
        """Harmonic mean of precision and recall of edge pixels (Csurka et al. 2013; Perazzi et al. 2016).

        Precision is the share of the map's edge pixels with an edge pixel of the reference within the tolerance, recall
        that of the reference's. 0 where one of them has no edge: none is found. NaN where both have none.
        """
        precision, recall = ratio(self.matched[:, 1], self.matched[:, 0]).tolist()
        if math.isnan(precision) or math.isnan(recall):
            return math.nan if not self.matched.any() else 0.0
        return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Measures in JSON's types; NaN is None."""
        precision, recall = ratio(self.matched[:, 1], self.matched[:, 0]).tolist()
        accuracy = ratio(self.by_distance[:, 1], self.by_distance[:, 0]).tolist()
        names = [f"{low}-{high}" for low, high in zip((0, *DISTANCES), DISTANCES, strict=False)] + [f">{DISTANCES[-1]}"]
        measures = {"precision": precision, "recall": recall, "f1": self.boundary_f1}
        return {
            "by_edge_distance": [
                {"distance": name, "pixels": int(pixels), "overall_accuracy": plain(value)}
                for name, pixels, value in zip(names, self.by_distance[:, 0], accuracy, strict=True)
            ],
            "boundary": self.tolerance.as_dict() | {name: plain(value) for name, value in measures.items()},
        }


def _edge_pixels(indices: NDArray[np.uint8]) -> NDArray[np.bool_]:
    edges = np.zeros(indices.shape, np.bool_)
    has_class = indices != IGNORE
    for axis in (0, 1):
        length = indices.shape[axis]
        before, after = ((slice(None),) * axis + (slice(start, start + length - 1),) for start in (0, 1))
        differs = (indices[before] != indices[after]) & has_class[before] & has_class[after]
        edges[before] |= differs
        edges[after] |= differs
    return edges


def _distances(edges: NDArray[np.bool_], sides: tuple[float, float] = (1, 1)) -> NDArray[np.float32]:
    """Of each pixel to the nearest edge pixel, in the unit of the sides of a pixel; infinite without an edge."""
    if not edges.any():
        return np.full(edges.shape, np.inf, np.float32)
    return np.asarray(ndimage.distance_transform_edt(~edges, sides), np.float32)
