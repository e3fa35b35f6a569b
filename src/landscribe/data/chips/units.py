"""Units of chips: neighbouring chips that are cut together, where their raster may hold a valid pixel.

Chips lie on a lattice of rows and columns. A part of the lattice in which no pixel is valid is found by halving, and
none of its chips is listed: a sparse raster of any size costs what it stores.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from landscribe.data.chips.spec import ChipSpec
from landscribe.data.scenes.scene import Scene
from landscribe.data.scenes.spec import SceneSpec
from landscribe.errors import ResourceError
from landscribe.geo.grid import Window
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.tiling import ChipLattice, kept_squares
from landscribe.machine import require_disk, require_memory

_UNIT_SIDE = 1024
"""Side of a unit in pixels: its window is read and burned once for all its chips. A larger chip is its own unit."""
_BYTES_PER_CHIP = 1000
"""Of a row of the index in memory, at least."""
_BEST_COMPRESSION = 20
_MOST_PARTS = 2**14
"""About as many parts of a raster are searched for valid pixels to count its chips."""


@dataclass(frozen=True)
class ChipUnit:
    """Neighbouring chips that are read and written together."""

    scene: int
    """Index of the scene."""
    windows: tuple[Window, ...]
    indices: tuple[int, ...]
    """The index of each window among all windows of all scenes."""

    @cached_property
    def window(self) -> Window:
        """The smallest window that contains all windows."""
        return Window.around(self.windows)


def units_of(scenes: Sequence[Scene], spec: ChipSpec) -> list[ChipUnit]:
    """The chips of all scenes that may hold a valid pixel, grouped into squares of about `_UNIT_SIDE` pixels."""
    units: list[ChipUnit] = []
    first = 0
    for index, scene in enumerate(scenes):
        lattice = lattice_of(scene.image, spec)
        parts = sorted(_parts(scene.image, lattice, 1), key=lambda part: (part[0].start, part[1].start))
        for rows, cols in parts:
            cells = [(row, col) for row in rows for col in cols]
            windows = tuple(lattice.window(row, col) for row, col in cells)
            units.append(ChipUnit(index, windows, tuple(first + row * lattice.cols + col for row, col in cells)))
        first += lattice.rows * lattice.cols
    return units


def lattice_of(image: Raster, spec: ChipSpec) -> ChipLattice:
    """All chips of an image, whether they hold valid pixels or not."""
    return ChipLattice(*image.grid.shape, size=spec.size, stride=spec.stride or spec.size, edge=spec.edge)


def _parts(image: Raster, lattice: ChipLattice, units: int) -> Iterator[tuple[range, range]]:
    """Rows and columns of chips, up to `units` units a side, among which a pixel may be valid."""
    side = units * _chips_a_unit(lattice)

    def may_hold_valid(rows: range, cols: range) -> bool:
        corners = lattice.window(rows[0], cols[0]), lattice.window(rows[-1], cols[-1])
        return image.may_hold_valid(Window.around(corners))

    return kept_squares(range(lattice.rows), range(lattice.cols), may_hold_valid, side=side)


def require_feasible(scenes: Sequence[Scene], sources: Sequence[SceneSpec], spec: ChipSpec, out: Path) -> None:
    """Raise ResourceError if the index of the chips needs more memory, or their pixels more disk, than there is.

    Only chips that may hold a valid pixel count. Their pixels are counted as if they were compressed twentyfold, and
    only where all of a scene is labelled. Background chips that `background_share` removes are written first.
    """
    stride = spec.stride or spec.size
    is_partly_labelled = any(source.sparse or source.labelled_area or source.image_area for source in sources)
    is_partly_cut = is_partly_labelled or spec.mode == "positive"
    image = scenes[0].image
    bytes_per_pixel = len(image.bands) * np.dtype(image.dtype).itemsize + 1
    written = 0 if spec.virtual or is_partly_cut else spec.size**2 * bytes_per_pixel / _BEST_COMPRESSION

    lattices = [lattice_of(scene.image, spec) for scene in scenes]
    all_chips = sum(lattice.rows * lattice.cols for lattice in lattices)

    def require(chips: int, words: str) -> None:
        purpose = f"cutting {words} chips of {spec.size} x {spec.size} pixels (one each {stride})"
        require_memory(chips * _BYTES_PER_CHIP, purpose, "Use a larger --stride or --size, or crop the scenes.")
        require_disk(out, chips * written, purpose, "Pass --virtual, use a larger --stride, or write to another disk.")

    try:
        require(all_chips, f"{all_chips:,}")
    except ResourceError:
        # Nodata costs nothing. It is searched for only here: that takes time on a large raster.
        chips = 0
        for scene, lattice in zip(scenes, lattices, strict=True):
            for rows, cols in _parts(scene.image, lattice, _units_a_part(lattice)):
                chips += len(rows) * len(cols)
                require(chips, f"{chips:,} or more of {all_chips:,}")


def _units_a_part(lattice: ChipLattice) -> int:
    """Units along a side of a part, so that a raster has about `_MOST_PARTS`."""
    chips_a_part = math.sqrt(lattice.rows * lattice.cols / _MOST_PARTS)
    return max(1, math.ceil(chips_a_part / _chips_a_unit(lattice)))


def _chips_a_unit(lattice: ChipLattice) -> int:
    """Chips along a side of a unit."""
    return max(1, 1 + (_UNIT_SIDE - lattice.size) // lattice.stride)
