"""Seams: how often classes differ where tiles meet, compared with tiles that meet elsewhere."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from landscribe.errors import counted
from landscribe.geo.classes import IGNORE
from landscribe.geo.grid import Window
from landscribe.geo.rasters.raster import Raster, Valid
from landscribe.geo.tiling import Tile, Unit, units
from landscribe.inference.predictor import Predictor
from landscribe.maps.layers import CLASS, Layer
from landscribe.prediction.tiling import Tiling
from landscribe.prediction.unit import UnitOptions, predict_unit, read_unit

# Pixels that the network reads at most; the first crossing is always compared.
_MOST_PIXELS = 8e6
# Seams along each axis of the raster, of whose crossings those with the most detail are compared.
_SAMPLES_PER_AXIS = 4
_WINDOW = 256


@dataclass(frozen=True)
class Seams:
    """Mismatch of two maps of the same ground whose tiles meet at different pixels."""

    within: int
    """Pixels from a seam of either map that count as at the seam."""
    crossings: int
    """Compared crossings of seams; 0 if one tile holds the raster, or all its pixels are equal."""
    pixels_at_seams: int
    pixels_inside: int
    differ_at_seams: int
    differ_inside: int

    @property
    def mismatch_at_seams(self) -> float:
        """Fraction of the pixels at seams whose class differs."""
        return self.differ_at_seams / max(1, self.pixels_at_seams)

    @property
    def mismatch_inside(self) -> float:
        """Fraction of the other pixels whose class differs."""
        return self.differ_inside / max(1, self.pixels_inside)

    @property
    def factor(self) -> float | None:
        """Mismatch at seams relative to that inside; None if no pixel inside differs."""
        return self.mismatch_at_seams / self.mismatch_inside if self.differ_inside else None

    def __str__(self) -> str:
        if not self.crossings:
            return "seams: nothing to compare: one tile holds the raster, or all its pixels are equal"
        factor = "" if self.factor is None else f", {self.factor:.3g}x"
        return (
            f"seams: class mismatch with other tiles is {self.mismatch_at_seams:.3%} of {self.pixels_at_seams} pixels "
            f"within {self.within} px of a seam, {self.mismatch_inside:.3%} of {self.pixels_inside} elsewhere{factor} "
            f"({counted(self.crossings, 'crossing')})"
        )


def check_seams(
    predictor: Predictor, raster: Raster, tiling: Tiling, *, layer: Layer = CLASS, within: int = 16
) -> Seams:
    """Predict some crossings of the map's seams twice: with the tiles that meet there, and with one tile around.

    The compared pixels have the margin's context in both. So none differs if the receptive field is no larger than the
    margin. If it is larger, pixels differ at seams more than elsewhere; if it is global, they differ everywhere.

    Args:
        predictor: of the map.
        raster: of the map, as the networks see it.
        tiling: of the map; blended maps are checked as if their tiles were cropped.
        layer: the class layer of the map.
        within: pixels from a seam that count as at the seam.

    Returns:
        Counts over the crossings with the most detail, for which the network reads about 8 million pixels; over one
        crossing at least.
    """
    axes = [_Axis.of(length, tiling, predictor.reduction) for length in raster.grid.shape]
    count = max(1, int(_MOST_PIXELS // (5 * tiling.tile**2))) if any(axis.seams for axis in axes) else 0
    counts = np.zeros((2, 2), np.int64)
    crossings = _with_most_detail(raster, axes, count)
    for row, col in crossings:
        rows, cols = axes[0].around(row), axes[1].around(col)
        ours, other = _predicted_twice(predictor, raster, rows, cols, UnitOptions((layer,), tiling.batch))
        near = rows.is_near(within)[:, None] | cols.is_near(within)[None]
        mapped = (ours != IGNORE) & (other != IGNORE)
        differs = mapped & (ours != other)
        counts += np.array([[(mapped & part).sum(), (differs & part).sum()] for part in (~near, near)])
    (inside, differ_inside), (at_seams, differ_at_seams) = counts.tolist()
    return Seams(within, len(crossings), at_seams, inside, differ_at_seams, differ_inside)


@dataclass(frozen=True)
class _Crossing:
    """Along one axis: the tiles that meet at a seam (or the only tile), and another tile across it."""

    reads: tuple[tuple[int, int], ...]
    """(start, stop) of the pixels that each tile reads."""
    keeps: tuple[tuple[int, int], ...]
    """(start, stop) of the compared pixels of each tile."""
    other: tuple[int, int]
    """(start, stop) of the pixels that the tile across reads."""
    seams: tuple[int, ...]
    """Seams of both tilings, with the ends of the compared pixels, without the raster's own edges."""

    @property
    def compared(self) -> tuple[int, int]:
        return self.keeps[0][0], self.keeps[-1][1]

    def is_near(self, within: int) -> Valid:
        """(pixels,) of the compared ones, True within that distance of a seam."""
        pixels = np.arange(*self.compared)
        near = np.zeros(len(pixels), bool)
        for seam in self.seams:
            near |= (pixels >= seam - within) & (pixels < seam + within)
        return near


@dataclass(frozen=True)
class _Axis:
    """The tiles along one axis of the raster."""

    length: int
    margin: int
    align: int
    tiles: tuple[tuple[tuple[int, int], tuple[int, int]], ...]
    """(read, keep) of each, as (start, stop)."""

    @classmethod
    def of(cls, length: int, tiling: Tiling, align: int) -> "_Axis":
        # A strip one tile wide has the tiles of the axis, and no others.
        strip = units(length, align, size=tiling.tile, margin=tiling.margin, align=align, side=length)
        tiles = [tile for unit in strip for tile in unit.tiles]
        return cls(
            length, tiling.margin, align,
            tuple(((t.read.row, t.read.row_stop), (t.keep.row, t.keep.row_stop)) for t in tiles),
        )  # fmt: skip

    @property
    def seams(self) -> tuple[int, ...]:
        return tuple(keep[0] for _, keep in self.tiles[1:])

    def before(self, seam: int | None) -> int:
        """First pixel of a window around a seam, or around the middle without one."""
        return max(0, (self.length // 2 if seam is None else seam) - _WINDOW // 2)

    def around(self, seam: int | None) -> _Crossing:
        """The compared pixels around a seam, or along all of an axis without one."""
        if seam is None:
            (read, keep), *_ = self.tiles
            return _Crossing((read,), (keep,), read, ())
        index = self.seams.index(seam)
        (before, first), (after, second) = self.tiles[index : index + 2]
        side = after[1] - after[0]
        covered = self.tiles[-1][0][1]
        start = min(max(0, (seam - side // 2) // self.align * self.align), covered - side)
        # The other tile's classes count where it has its margin of context too, or the raster ends.
        core = (start + (self.margin if start else 0), start + side - (self.margin if start + side < covered else 0))
        begin, end = max(first[0], core[0]), min(second[1], core[1], self.length)
        ends = tuple(pixel for pixel in (begin, end) if 0 < pixel < self.length)
        return _Crossing((before, after), ((begin, seam), (seam, end)), (start, start + side), (seam, *ends))


def _with_most_detail(raster: Raster, axes: list[_Axis], count: int) -> list[tuple[int | None, int | None]]:
    """Crossings of a coarse lattice, those with the most detail around them first."""
    rows, cols = (_sampled(axis.seams) for axis in axes)
    crossings = {
        Window(axes[0].before(row), axes[1].before(col), _WINDOW, _WINDOW): (row, col) for row in rows for col in cols
    }
    return [crossings[window] for window in raster.rank_by_detail(crossings)[:count]]


def _sampled(seams: tuple[int, ...]) -> list[int | None]:
    if not seams:
        return [None]
    indices = np.linspace(0, len(seams) - 1, min(_SAMPLES_PER_AXIS, len(seams)))
    return [seams[round(index)] for index in indices]


def _predicted_twice(
    predictor: Predictor, raster: Raster, rows: _Crossing, cols: _Crossing, options: UnitOptions
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Class values of the compared pixels, by the tiles that meet there and by the one across."""
    reads, keeps = _pairs(rows.reads, cols.reads), _pairs(rows.keeps, cols.keeps)
    tiles = tuple(Tile(_window(*read), _window(*keep)) for read, keep in zip(reads, keeps, strict=True))
    keep = _window(rows.compared, cols.compared)
    across = (Tile(_window(rows.other, cols.other), keep),)
    return _predicted(predictor, raster, tiles, keep, options), _predicted(predictor, raster, across, keep, options)


def _predicted(
    predictor: Predictor, raster: Raster, tiles: tuple[Tile, ...], keep: Window, options: UnitOptions
) -> NDArray[np.uint8]:
    """Class values of `keep`, which the tiles keep together; ignore if no pixel is valid."""
    read = Window.around(tile.read for tile in tiles)
    unit = Unit(0, 0, tiles, read, keep)
    with torch.inference_mode():
        layers = predict_unit(predictor, unit, *read_unit(raster, unit), options)
    empty: NDArray[np.uint8] = np.full(keep.shape, IGNORE, np.uint8)
    return empty if layers is None else layers[CLASS.kind][0]


def _pairs(rows: tuple[tuple[int, int], ...], cols: tuple[tuple[int, int], ...]) -> list[tuple[tuple[int, int], ...]]:
    return [(row, col) for row in rows for col in cols]


def _window(rows: tuple[int, int], cols: tuple[int, int]) -> Window:
    return Window(rows[0], cols[0], rows[1] - rows[0], cols[1] - cols[0])
