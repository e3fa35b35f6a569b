"""Plan: everything that is decided before a raster becomes polygons, once."""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landscribe.errors import RasterError
from landscribe.geo.grid import ASSIGN_CRS, Window
from landscribe.geo.ground import Ground
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.vectors.feature_files import require_feature_suffix
from landscribe.maps.class_map import bands_of_classes
from landscribe.outputs import require_output_file
from landscribe.polygons.boundaries.simplify import CUT
from landscribe.polygons.boundaries.tracing import Grouping, Tracing
from landscribe.polygons.class_codes import ClassCodes
from landscribe.polygons.spec import VectorizeSpec

log = logging.getLogger(__name__)

STRIP_PIXELS = 2**21
"""Pixels of a strip that is traced at once."""
_STEPS = 1.0
"""Tolerance in pixels that turns the steps of any slanting boundary into a line: corners of steps of one pixel lie less
than a pixel from the line through the opposite corners."""
_WALLS = 1.5
"""Tolerance in pixels of squaring, which needs walls without steps to see their direction."""


@dataclass(frozen=True)
class PolygonPlan:
    """How one raster becomes polygons. The file's bytes depend on nothing else."""

    codes: ClassCodes
    spec: VectorizeSpec
    out: Path
    probabilities: Raster | None
    """Class probabilities on the same grid."""
    bands: NDArray[np.int64]
    """Index of the band of each class in `probabilities`; empty without."""
    strip_rows: int

    @property
    def strips(self) -> Iterator[Window]:
        """Whole rows of the raster, from north to south."""
        grid = self.codes.raster.grid
        return grid.strips(self.strip_rows * grid.width, block=1)

    @property
    def tracing(self) -> Tracing:
        """How strips are traced."""
        grouping: Grouping = "touching" if self.spec.square else "diagonal" if self.spec.connectivity == 8 else "region"
        return Tracing(grouping, CUT if self.tolerance or self.spec.smooth else None)

    @cached_property
    def ground(self) -> Ground | None:
        """Metric of the raster; None if it has no CRS."""
        return Ground.of(self.codes.raster.grid)

    @property
    def pixel(self) -> tuple[float, float]:
        """Height and width of a pixel in metres; (1, 1) without a CRS."""
        return (1.0, 1.0) if self.ground is None else self.ground.pixel_sides

    @property
    def tolerance(self) -> float:
        """Of the simplification, in the unit of `pixel`; 0 for none."""
        if not isinstance(self.spec.simplify, str):
            return self.spec.simplify
        pixels = _WALLS if self.spec.square else _STEPS if self.spec.simplify == "auto" else 0.0
        return pixels * math.sqrt(math.prod(self.pixel))

    @property
    def is_multiple(self) -> bool:
        """True if features are MultiPolygons."""
        return self.spec.dissolve or self.spec.connectivity == 8


def plan_polygons(
    codes: ClassCodes,
    spec: VectorizeSpec,
    out: Path,
    probabilities: Raster | None = None,
    *,
    strip_rows: int | None = None,
) -> PolygonPlan:
    """Decide how a raster becomes polygons; nothing is written.

    Args:
        codes: the raster.
        spec: classes, simplification, areas.
        out: the file to write; its suffix chooses the format.
        probabilities: of the classes, on the grid of the raster.
        strip_rows: rows that are traced at once; as many as fit in little memory if None.

    Raises:
        RasterError: probabilities do not fit the raster, or metres are asked of a raster without a CRS.
        OutputError: the suffix is unknown, or the file cannot be written.
    """
    require_feature_suffix(out)
    require_output_file(out)
    grid = codes.raster.grid
    if strip_rows is None:
        # Strips of as many pixels for every width: they are what memory depends on.
        strip_rows = max(1, STRIP_PIXELS // grid.width)
    bands = np.zeros(0, np.int64)
    if probabilities is not None:
        bands = bands_of_classes(probabilities, codes.raster, [entry.name for entry in codes.classes])
    plan = PolygonPlan(codes, spec, out, probabilities, bands, strip_rows)
    in_metres = {
        "--simplify": not isinstance(spec.simplify, str),
        "--minimum-area": spec.minimum_area is not None,
        "--fill-holes": spec.fill_holes is not None,
    }
    asked = [flag for flag, is_asked in in_metres.items() if is_asked]
    if plan.ground is None and asked:
        raise RasterError(
            f"{codes.raster.paths[0]} has no CRS, or one without positions on Earth, so that {asked[0]} cannot be "
            f"measured in metres. {ASSIGN_CRS}, or leave it out."
        )
    return plan
