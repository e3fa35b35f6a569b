"""Are there seams? Where tiles meet, a map is compared with one whose tiles meet elsewhere."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from landscribe.geo.classes import IGNORE
from landscribe.geo.grid import Window
from landscribe.geo.rasters.raster import Raster, Valid
from landscribe.geo.tiling import Tile, Unit, units
from landscribe.inference.predictor import Predictor
from landscribe.maps.layers import CLASS
from landscribe.prediction.tiling import Tiling
from landscribe.prediction.unit import Way, predict_unit

# Pixels that the network may read for it, but for the first place.
_MOST_PIXELS = 8e6
# Seams along each axis of the raster, of whose crossings those with the most detail are taken.
_LATTICE = 4
_LOOK = 256


@dataclass(frozen=True)
class Seams:
    """How often two maps of the same ground differ whose tiles meet at different places."""

    within: int
    """Pixels from a seam of either map that count as at a seam."""
    places: int
    """Crossings of seams that were looked at; 0 if one tile holds the raster, or its pixels are all alike."""
    pixels_at_seams: int
    pixels_inside: int
    differ_at_seams: int
    differ_inside: int

    @property
    def share_at_seams(self) -> float:
        """Of the pixels at seams, those whose class differs."""
        return self.differ_at_seams / max(1, self.pixels_at_seams)

    @property
    def share_inside(self) -> float:
        """Of the other pixels, those whose class differs."""
        return self.differ_inside / max(1, self.pixels_inside)

    @property
    def factor(self) -> float | None:
        """How many times as often pixels differ at seams as inside; None if inside none does."""
        return self.share_at_seams / self.share_inside if self.differ_inside else None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        shares = {"share_at_seams": self.share_at_seams, "share_inside": self.share_inside, "factor": self.factor}
        return asdict(self) | shares

    def __str__(self) -> str:
        if not self.places:
            return "seams: nothing to compare: one tile holds the raster, or its pixels are all alike"
        factor = "" if self.factor is None else f", {self.factor:.3g} times as often"
        places = f"{self.places} place{'' if self.places == 1 else 's'}"
        return (
            f"seams: with other tiles, {self.share_at_seams:.3%} of {self.pixels_at_seams} pixels within {self.within} "
            f"of a seam are of another class, {self.share_inside:.3%} of {self.pixels_inside} elsewhere{factor} "
            f"({places})"
        )


def check_seams(predictor: Predictor, raster: Raster, tiling: Tiling, *, within: int = 16) -> Seams:
    """Map some crossings of the map's seams twice: with the tiles that meet there, and with one tile around.

    What is compared has the context of the tiling's margin in both. So nothing differs, neither at seams nor
    elsewhere, where the network sees no farther than the margin. Where it sees farther, pixels differ at seams more
    than elsewhere; where its answer depends on the tile as a whole, they differ everywhere.

    Args:
        predictor: as the map is made with it.
        raster: the map's raster, with the bands and the nodata value that the model is to see.
        tiling: of the map; blended maps are checked as if their tiles were cut.
        within: pixels from a seam that count as at the seam.

    Returns:
        Counts of places with much detail, at which the network reads about 8 million pixels, of one place at least.
    """
    axes = [_Axis.of(length, tiling, predictor.reduction) for length in raster.grid.shape]
    places = max(1, int(_MOST_PIXELS // (5 * tiling.tile**2))) if any(axis.seams for axis in axes) else 0
    counts = np.zeros((2, 2), np.int64)
    taken = _with_most_detail(raster, axes, places)
    for row, col in taken:
        rows, cols = axes[0].around(row), axes[1].around(col)
        ours, other = _mapped_twice(predictor, raster, rows, cols, Way(batch=tiling.batch))
        near = rows.is_near(within)[:, None] | cols.is_near(within)[None]
        known = (ours != IGNORE) & (other != IGNORE)
        differs = known & (ours != other)
        counts += np.array([[(known & part).sum(), (differs & part).sum()] for part in (~near, near)])
    (inside, differ_inside), (at_seams, differ_at_seams) = counts.tolist()
    return Seams(within, len(taken), at_seams, inside, differ_at_seams, differ_inside)


@dataclass(frozen=True)
class _Crossing:
    """Along one axis: the tiles that meet at a seam, or the one that there is, and another tile across."""

    reads: tuple[tuple[int, int], ...]
    """(start, stop) of what each tile reads."""
    keeps: tuple[tuple[int, int], ...]
    """Of each, what is compared."""
    other: tuple[int, int]
    """What the tile across reads."""
    seams: tuple[int, ...]
    """Of both tilings, the ends of what is compared included; not the raster's own edges."""

    @property
    def compared(self) -> tuple[int, int]:
        return self.keeps[0][0], self.keeps[-1][1]

    def is_near(self, within: int) -> Valid:
        """Of what is compared, the pixels at most so far from a seam."""
        pixels = np.arange(*self.compared)
        near = np.zeros(len(pixels), bool)
        for seam in self.seams:
            near |= (pixels >= seam - within) & (pixels < seam + within)
        return near


@dataclass(frozen=True)
class _Axis:
    """How the tiling cuts one axis of the raster."""

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
        """Where a look around a seam begins, or around the middle without one."""
        return max(0, (self.length // 2 if seam is None else seam) - _LOOK // 2)

    def around(self, seam: int | None) -> _Crossing:
        """What is compared around a seam, or along all of an axis without one."""
        if seam is None:
            (read, keep), *_ = self.tiles
            return _Crossing((read,), (keep,), read, ())
        number = self.seams.index(seam)
        (before, first), (after, second) = self.tiles[number : number + 2]
        side = after[1] - after[0]
        covered = self.tiles[-1][0][1]
        start = min(max(0, (seam - side // 2) // self.align * self.align), covered - side)
        # The other tile's answer counts where it has its margin of context, too, or the raster ends.
        core = (start + (self.margin if start else 0), start + side - (self.margin if start + side < covered else 0))
        begin, end = max(first[0], core[0]), min(second[1], core[1], self.length)
        ends = tuple(place for place in (begin, end) if 0 < place < self.length)
        return _Crossing((before, after), ((begin, seam), (seam, end)), (start, start + side), (seam, *ends))


def _with_most_detail(raster: Raster, axes: list[_Axis], count: int) -> list[tuple[int | None, int | None]]:
    """Crossings of a coarse lattice, those first around which pixels vary most."""
    rows, cols = (_some(axis.seams) for axis in axes)
    found = []
    for row in rows:
        for col in cols:
            pixels, valid = raster.read(Window(axes[0].before(row), axes[1].before(col), _LOOK, _LOOK))
            found.append((float(valid.mean() * (pixels[:, valid].std() if valid.any() else 0)), row, col))
    ranked = sorted(found, key=lambda place: -place[0])
    return [(row, col) for worth, row, col in ranked[:count] if worth > 0]


def _some(seams: tuple[int, ...]) -> list[int | None]:
    if not seams:
        return [None]
    places = np.linspace(0, len(seams) - 1, min(_LATTICE, len(seams)))
    return [seams[round(place)] for place in places]


def _mapped_twice(
    predictor: Predictor, raster: Raster, rows: _Crossing, cols: _Crossing, way: Way
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Class values of what is compared, by the tiles that meet there and by the one across."""
    reads, keeps = _pairs(rows.reads, cols.reads), _pairs(rows.keeps, cols.keeps)
    tiles = tuple(Tile(_window(*read), _window(*keep)) for read, keep in zip(reads, keeps, strict=True))
    keep = _window(rows.compared, cols.compared)
    across = (Tile(_window(rows.other, cols.other), keep),)
    return _mapped(predictor, raster, tiles, keep, way), _mapped(predictor, raster, across, keep, way)


def _mapped(predictor: Predictor, raster: Raster, tiles: tuple[Tile, ...], keep: Window, way: Way) -> NDArray[np.uint8]:
    """Class values of `keep`, which the tiles keep together; all unknown where nothing is valid."""
    first, last = tiles[0].read, tiles[-1].read
    read = Window(first.row, first.col, last.row_stop - first.row, last.col_stop - first.col)
    pixels, valid = raster.read(read)
    with torch.inference_mode():
        layers = predict_unit(predictor, Unit(0, 0, tiles, read, keep), pixels, valid, way)
    unknown: NDArray[np.uint8] = np.full(keep.shape, IGNORE, np.uint8)
    return unknown if layers is None else layers[CLASS.kind][0]


def _pairs(rows: tuple[tuple[int, int], ...], cols: tuple[tuple[int, int], ...]) -> list[tuple[tuple[int, int], ...]]:
    return [(row, col) for row in rows for col in cols]


def _window(rows: tuple[int, int], cols: tuple[int, int]) -> Window:
    return Window(rows[0], cols[0], rows[1] - rows[0], cols[1] - cols[0])
