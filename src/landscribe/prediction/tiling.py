"""Tile, margin and batch, chosen together: the least work at the stated tolerance, in the memory there is."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from landscribe.geo.rasters.raster import Raster
from landscribe.geo.tiling import units
from landscribe.inference.device import place_network
from landscribe.inference.memory import budget, estimated_memory, has_global_context
from landscribe.inference.predictor import Predictor, processes
from landscribe.prediction.receptive_field import TOLERANCE, Reach, known_reach
from landscribe.prediction.spec import PredictSpec

log = logging.getLogger(__name__)

# Below it the work for each tile that is not the network's begins to count.
_SMALLEST = 512
# Where nothing can be foreseen or measured.
_SAFE_TILE, _COMMON_MARGIN = 512, 64
# Tilings whose work differs by less take the same time.
_ALIKE = 1.01
# Pixels that are read for each that is kept: of what is chosen here, hardly more than two.
_WASTEFUL = 4
# Pixels at once that keep a GPU busy.
_GPU_PIXELS = 4 * 1024**2
# Share of the work that may go into filling up a unit's last batch.
_FILLING = 1.05


@dataclass(frozen=True)
class Tiling:
    """How a raster is cut for a network, and what that costs."""

    tile: int
    """Side of what the network reads at once, in pixels; a multiple of its stride."""
    margin: int
    """Pixels of context between a tile's edge and what is kept of it."""
    batch: int
    """Tiles at once."""
    redundancy: float
    """Pixels that the network reads for each of the raster's."""
    differs: float | None = None
    """Share of the pixels whose class is expected to be another than that of a single pass; None if not known."""
    foreseen_bytes: int | None = None
    """Peak memory of a batch and of the unit around it; None if it was not asked, or cannot be foreseen."""
    remark: str = ""
    """What else there is to say of the choice."""

    def __str__(self) -> str:
        known = "" if self.differs is None else f" ({self.differs:.2%} of the pixels differ from a single pass)"
        memory = "" if self.foreseen_bytes is None else f", tiles take up to {self.foreseen_bytes / 1e9:.1f} GB"
        return (
            f"margin: {self.margin} pixels of tiles of {self.tile}{known}, {self.redundancy:.2f} pixels are read for "
            f"each that is kept{memory}{self.remark}"
        )


def chosen(predictor: Predictor, raster: Raster, spec: PredictSpec, *, tolerance: float = TOLERANCE) -> Tiling:
    """Choose what of tile, margin and batch is left open; numbers that are given are kept.

    Of all tiles that memory holds, each with the smallest margin at which less than `tolerance` of its kept pixels
    differ from a single pass, those are taken with which the network reads the fewest pixels of this raster: large
    ones, and such as fit the raster's sides. A network that looks at tiles as a whole gets tiles of its training size.

    Args:
        predictor: its networks are moved to its device where they are to be measured.
        raster: what is to be mapped.
        spec: tile and margin are numbers or auto, batch a number or None; a tile is no larger than a unit.
        tolerance: share of the pixels.
    """
    planner = _Planner(predictor, raster, spec, tolerance)
    tiling = planner.tiling()
    if "auto" in (spec.tile, spec.margin):
        # Where one tile holds all, people who did not ask need not know.
        is_asked = not spec.model_fields_set.isdisjoint(("tile", "margin"))
        log.log(logging.INFO if is_asked or max(raster.grid.shape) > tiling.tile else logging.DEBUG, "%s", tiling)
    if tiling.redundancy > _WASTEFUL and not spec.model_fields_set.isdisjoint(("tile", "margin", "unit")):
        log.warning(
            "the network reads %.1f pixels for each that is kept, and takes so many times as long. Leave out --tile, "
            "--unit and --margin, or ask for larger tiles and units", tiling.redundancy,
        )  # fmt: skip
    return tiling


class _Planner:
    """A choice in the making."""

    def __init__(self, predictor: Predictor, raster: Raster, spec: PredictSpec, tolerance: float) -> None:
        self._predictor = predictor
        self._raster = raster
        self._spec = spec
        self._tolerance = tolerance
        self._align = predictor.reduction
        self._budget = budget(predictor.device, processes(predictor.device) if spec.dask == "auto" else 1)

    def tiling(self) -> Tiling:
        spec = self._spec
        largest = self._largest() if spec.tile == "auto" else self._aligned(spec.tile)
        if "auto" not in (spec.tile, spec.margin):
            return self._told(largest, spec.foreseen_margin)
        is_whole = max(self._raster.grid.shape) <= largest
        if is_whole and not self._may_differ_from_training():
            return self._whole(largest)
        reach = self._reach(largest)
        if is_whole and (reach is None or not reach.is_global):
            return self._whole(largest)
        if reach is None:
            return self._unmeasured(largest)
        measured = f"; measured on {reach.raster}, {reach.day}"
        if reach.is_global:
            return self._as_trained(reach, largest, measured)
        tile, margin = self._cheapest(reach, largest)
        if margin is None:
            measured += f"; no margin of such tiles keeps to the tolerance of {self._tolerance:g}"
        return self._told(tile, self._or_given(margin, tile), reach, measured)

    def _may_differ_from_training(self) -> bool:
        """True if the raster is larger than the chips of the training and a network may look at all of a tile."""
        models = self._predictor.models
        trained = models[0].chip_size
        return trained is not None and max(self._raster.grid.shape) > trained and any(map(has_global_context, models))

    def _or_given(self, margin: int | None, tile: int) -> int:
        """The margin that was given, else this one; where none is enough, half of each side is kept."""
        if self._spec.margin != "auto":
            return self._spec.margin
        return tile // 4 if margin is None else margin

    def _aligned(self, side: int) -> int:
        return max(self._align, side // self._align * self._align)

    def _sides(self, tile: int) -> tuple[int, int]:
        """(rows, cols) of the tiles: of a smaller raster they are as small as it is."""
        rows, cols = (min(tile, -(-length // self._align) * self._align) for length in self._raster.grid.shape)
        return rows, cols

    def _bytes(self, tile: int, batch: int) -> int | None:
        """Of tiles and of a unit, which is read and written while another is computed."""
        predictor, spec = self._predictor, self._spec
        averaged = predictor.tta or len(predictor.models) > 1
        tiles = estimated_memory(predictor.models, (batch, *self._sides(tile)), averaged=averaged)
        model = predictor.models[0]
        read = 2 * (len(model.bands) * np.dtype(model.dtype).itemsize + 1)
        # Classes and probabilities; where tiles are blended, the sums of these and a tile's share, too.
        written = (2 + (8 if spec.blend != "none" else 0)) * (len(model.classes) + 1)
        rows, cols = (min(length, spec.unit + tile // 4) for length in self._raster.grid.shape)
        return None if tiles is None else tiles + rows * cols * (read + written)

    def _fits(self, tile: int, batch: int) -> bool:
        needed = self._bytes(tile, batch)
        return needed is not None and needed <= self._budget

    def _largest(self) -> int:
        """The largest tile that memory holds, no larger than the raster or a unit."""
        longest = -(-max(self._raster.grid.shape) // self._align) * self._align
        most = min(longest, self._aligned(self._spec.unit))
        batch = self._spec.batch or 1
        if self._bytes(self._align, batch) is None and self._bytes(most, batch) is None:
            return min(most, self._aligned(_SAFE_TILE))
        low, high = 1, most // self._align
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self._fits(middle * self._align, batch) else (low, middle - 1)
        return low * self._align

    def _reach(self, largest: int) -> Reach | None:
        """Of all networks; None if the raster does not show it."""
        window = next((side for side in (1024, 512) if self._fits(self._aligned(side), 1)), largest)
        reaches = []
        for model in self._predictor.models:
            place_network(model.network, self._predictor.device)
            reach = known_reach(model, self._raster, largest=window)
            if reach is None:
                return None
            reaches.append(reach)
        return Reach.largest(reaches)

    def _cheapest(self, reach: Reach, largest: int) -> tuple[int, int | None]:
        """Tile and margin with the least work; no margin if none is enough."""
        found = list(self._candidates(reach, largest))
        if not found:
            return largest, None
        least = min(work for work, _, _ in found)
        _, tile, margin = next(candidate for candidate in found if candidate[0] <= _ALIKE * least)
        return tile, margin

    def _candidates(self, reach: Reach, largest: int) -> Iterator[tuple[float, int, int]]:
        """(work, tile, margin), smaller tiles first."""
        step = -(-32 // self._align) * self._align
        tiles = range(largest, min(_SMALLEST, largest) - 1, -step) if self._spec.tile == "auto" else [largest]
        for tile in reversed(tiles):
            margin = reach.margin(tile, tolerance=self._tolerance, align=self._align)
            if self._spec.margin != "auto":
                margin = self._spec.margin if tile - 2 * self._spec.margin >= self._align else None
            if margin is not None:
                yield self._work(tile, margin, self._spec.batch or 1), tile, margin

    def _as_trained(self, reach: Reach, largest: int, measured: str) -> Tiling:
        size, remark = self._predictor.models[0].chip_size, "this network looks at tiles as a whole"
        if self._spec.tile != "auto" and largest != size:
            tile, remark = largest, f"{remark}; the size of its training would be {size or 'best'}"
        elif size is None:
            tile, remark = min(largest, self._aligned(_SAFE_TILE)), f"{remark}, and its training size is not known"
        else:
            tile, remark = self._aligned(size), f"{remark}, so they are as large as in training"
        margin = reach.margin(tile, tolerance=self._tolerance, align=self._align)
        return self._told(tile, self._or_given(margin, tile), reach, f"{measured}; {remark}")

    def _whole(self, tile: int) -> Tiling:
        """The raster as one tile: nothing is cut, but a margin that is given must leave a core."""
        margin = self._or_given(0, tile)
        if self._spec.tile == "auto":
            tile = max(tile, -(-2 * margin // self._align) * self._align + self._align)
        return self._told(tile, margin, remark="; one tile holds all")

    def _unmeasured(self, tile: int) -> Tiling:
        remark = "; not measured: the network sees one class wherever it was tried"
        return self._told(tile, self._or_given(min(_COMMON_MARGIN, tile // 4), tile), remark=remark)

    def _told(self, tile: int, margin: int, reach: Reach | None = None, remark: str = "") -> Tiling:
        batch = self._batch(tile, margin)
        height, width = self._raster.grid.shape
        needed = self._bytes(tile, batch) if self._spec.tile == "auto" else None
        if self._spec.tile == "auto" and needed is None:
            remark += "; what memory its network takes cannot be foreseen, so tiles are small"
        return Tiling(
            tile, margin, batch,
            redundancy=self._work(tile, margin, batch) / (height * width),
            differs=None if reach is None else reach.share(margin, tile),
            foreseen_bytes=needed,
            remark=remark,
        )  # fmt: skip

    def _batch(self, tile: int, margin: int) -> int:
        """One on a CPU; on a GPU as many as keep it busy, memory holds, and units are filled with."""
        if self._spec.batch is not None:
            return self._spec.batch
        if self._predictor.device.type == "cpu":
            return 1
        single = self._work(tile, margin, 1)
        most = max(1, _GPU_PIXELS // tile**2)
        return next(
            batch
            for batch in range(most, 0, -1)
            if batch == 1 or (self._work(tile, margin, batch) <= _FILLING * single and self._fits(tile, batch))
        )

    def _work(self, tile: int, margin: int, batch: int) -> float:
        """Pixels that the network reads for the raster, those included that fill up batches."""
        rows, cols = (self._tiles(length, tile, margin) for length in self._raster.grid.shape)
        batches = np.ceil(np.outer(rows, cols) / batch).sum()
        return float(batches * batch * np.prod(self._sides(tile)))

    def _tiles(self, length: int, tile: int, margin: int) -> list[int]:
        """Along one axis, how many tiles each unit has: both axes together make all of them."""
        spec, align = self._spec, self._align
        strip = units(
            length, align, size=tile, margin=margin, align=align, side=spec.unit, overlapping=spec.blend != "none"
        )
        return [len(unit.tiles) for unit in strip]
