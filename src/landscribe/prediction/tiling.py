"""Tiling: tile, margin and batch, chosen together for the least work at a given tolerance, within memory."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from landscribe.geo.rasters.raster import Raster
from landscribe.geo.tiling import aligned, rounded_up, units
from landscribe.inference.device import place_network
from landscribe.inference.memory import budget, estimated_memory
from landscribe.inference.predictor import Predictor, mapping_processes
from landscribe.inference.receptive_field import ReceptiveField, cached_receptive_field
from landscribe.prediction.spec import PredictSpec

log = logging.getLogger(__name__)

# Below it, the cost of a tile beyond the network's own begins to count.
_SMALLEST = 512
# Where memory cannot be estimated, or the receptive field cannot be measured.
_SAFE_TILE, _COMMON_MARGIN = 512, 64
# Tilings whose work differs by less take the same time.
_SAME_WORK = 1.01
# Overlap overhead that is warned about; automatic choices hardly exceed two.
_WASTEFUL = 4
# Pixels in a batch that keep a GPU busy.
_GPU_PIXELS = 4 * 1024**2
# Work relative to batches of one that may go into filling a unit's last batch.
_FILLING = 1.05


@dataclass(frozen=True)
class Tiling:
    """How a raster is cut into tiles, and what that costs."""

    tile: int
    """Side of what the network reads at once, in pixels; a multiple of its stride."""
    margin: int
    """Pixels of context between a tile's edge and what is kept of it."""
    batch: int
    """Tiles at once."""
    overlap_overhead: float
    """Pixels that the network reads for each pixel of the raster."""
    mismatch: float | None = None
    """Expected fraction of pixels whose class differs from that of a single pass; None if not measured."""
    memory: int | None = None
    """Estimated peak bytes of a batch and of the unit around it; None if not estimated."""
    note: str = ""
    """Why this tiling was chosen."""

    def __str__(self) -> str:
        mismatch = "" if self.mismatch is None else f"{self.mismatch:.2%} mismatch vs untiled, "
        memory = "" if self.memory is None else f", up to {self.memory / 1e9:.1f} GB"
        return (
            f"tile {self.tile}, margin {self.margin} px: {mismatch}{self.overlap_overhead:.2f}x overlap "
            f"overhead{memory}{self.note}"
        )


def choose_tiling(predictor: Predictor, raster: Raster, spec: PredictSpec) -> Tiling:
    """Choose tile, margin and batch where they are auto; given numbers are kept.

    Candidates are all tiles that fit in memory, each with the smallest margin whose mismatch is below the tolerance.
    The one with which the network reads the fewest pixels of this raster wins. A network with a global receptive field
    gets tiles of its training size.

    Args:
        predictor: its networks are moved to its device if they are measured.
        raster: to be mapped.
        spec: tile, margin, batch, unit, tolerance. A tile is no larger than a unit.
    """
    tiling = _TilingChoice(predictor, raster, spec).tiling()
    if "auto" in (spec.tile, spec.margin):
        # One tile for all of the raster is not worth a line, unless the user asked.
        is_asked = not spec.model_fields_set.isdisjoint(("tile", "margin"))
        log.log(logging.INFO if is_asked or max(raster.grid.shape) > tiling.tile else logging.DEBUG, "%s", tiling)
    if tiling.overlap_overhead > _WASTEFUL and not spec.model_fields_set.isdisjoint(("tile", "margin", "unit")):
        log.warning(
            "the overlap overhead is %.1fx: the network reads so many pixels for each pixel kept, and takes as many "
            "times as long. Leave out --tile, --unit and --margin, or choose larger tiles and units",
            tiling.overlap_overhead,
        )  # fmt: skip
    return tiling


def overlap_overhead(tile: int, margin: int) -> float:
    """Pixels that the network reads for each pixel that is kept, ignoring the raster's edges."""
    return (tile / (tile - 2 * margin)) ** 2


def unit_bytes_per_pixel(predictor: Predictor, spec: PredictSpec) -> int:
    """Bytes for each pixel of a unit while one is read, one is computed, and one is written."""
    model = predictor.models[0]
    read = 2 * (len(model.bands) * np.dtype(model.dtype).itemsize + 1)
    # Classes and probabilities; blending also holds their sums and weights.
    return read + (2 + (8 if spec.is_blended else 0)) * (len(model.classes) + 1)


class _TilingChoice:
    """Chooses the tiling of one raster."""

    def __init__(self, predictor: Predictor, raster: Raster, spec: PredictSpec) -> None:
        self._predictor = predictor
        self._raster = raster
        self._spec = spec
        self._align = predictor.reduction
        self._budget = budget(predictor.device, mapping_processes(predictor.device) if spec.dask == "auto" else 1)

    def tiling(self) -> Tiling:
        spec = self._spec
        largest = self._largest() if spec.tile == "auto" else self._aligned(spec.tile)
        if "auto" not in (spec.tile, spec.margin):
            return self._tiling(largest, spec.nominal_margin)
        is_whole = max(self._raster.grid.shape) <= largest
        if is_whole and not self._may_differ_from_training():
            return self._whole(largest)
        field = self._receptive_field(largest)
        if is_whole and (field is None or not field.is_global):
            return self._whole(largest)
        if field is None:
            return self._unmeasured(largest)
        measured = f"; measured on {field.raster}, {field.day}"
        if field.is_global:
            return self._as_trained(field, largest, measured)
        tile, margin = self._cheapest(field, largest)
        if margin is None:
            measured += f"; no margin reaches the tolerance of {self._spec.tolerance:g}"
        return self._tiling(tile, self._or_given(margin, tile), field, measured)

    def _may_differ_from_training(self) -> bool:
        """True if the raster is larger than the training chips and a network has global context."""
        models = self._predictor.models
        trained = models[0].chip_size
        if trained is None or max(self._raster.grid.shape) <= trained:
            return False
        return any(model.has_global_context for model in models)

    def _or_given(self, margin: int | None, tile: int) -> int:
        """The given margin, else this one; if None, half of each side is kept."""
        if self._spec.margin != "auto":
            return self._spec.margin
        return tile // 4 if margin is None else margin

    def _aligned(self, side: int) -> int:
        return aligned(side, self._align)

    def _sides(self, tile: int) -> tuple[int, int]:
        """(rows, cols) of the tiles, which are no larger than the raster."""
        rows, cols = (min(tile, rounded_up(length, self._align)) for length in self._raster.grid.shape)
        return rows, cols

    def _bytes(self, tile: int, batch: int) -> int | None:
        """Peak bytes of tiles, and of the units that are read and written meanwhile."""
        predictor, spec = self._predictor, self._spec
        averaged = predictor.tta or len(predictor.models) > 1
        tiles = estimated_memory(predictor.models, (batch, *self._sides(tile)), averaged=averaged)
        rows, cols = (min(length, spec.unit + tile // 4) for length in self._raster.grid.shape)
        return None if tiles is None else tiles + rows * cols * unit_bytes_per_pixel(predictor, spec)

    def _fits(self, tile: int, batch: int) -> bool:
        needed = self._bytes(tile, batch)
        return needed is not None and needed <= self._budget

    def _largest(self) -> int:
        """The largest tile that fits in memory, no larger than the raster or a unit."""
        most = min(rounded_up(max(self._raster.grid.shape), self._align), self._aligned(self._spec.unit))
        batch = self._spec.batch or 1
        if self._bytes(self._align, batch) is None and self._bytes(most, batch) is None:
            return min(most, self._aligned(_SAFE_TILE))
        low, high = 1, most // self._align
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self._fits(middle * self._align, batch) else (low, middle - 1)
        return low * self._align

    def _receptive_field(self, largest: int) -> ReceptiveField | None:
        """Of all networks; None if it cannot be measured on this raster."""
        window = next((side for side in (1024, 512) if self._fits(self._aligned(side), 1)), largest)
        fields = []
        for model in self._predictor.models:
            place_network(model.network, self._predictor.device)
            field = cached_receptive_field(
                model, self._raster, tolerance=self._spec.tolerance, largest=window,
                threshold=self._spec.class_threshold,
            )  # fmt: skip
            if field is None:
                return None
            fields.append(field)
        return ReceptiveField.largest(fields)

    def _cheapest(self, field: ReceptiveField, largest: int) -> tuple[int, int | None]:
        """Tile and margin with the least work; no margin if none is enough."""
        candidates = list(self._candidates(field, largest))
        if not candidates:
            return largest, None
        least = min(work for work, _, _ in candidates)
        _, tile, margin = next(candidate for candidate in candidates if candidate[0] <= _SAME_WORK * least)
        return tile, margin

    def _candidates(self, field: ReceptiveField, largest: int) -> Iterator[tuple[float, int, int]]:
        """(work, tile, margin), smaller tiles first."""
        step = rounded_up(32, self._align)
        tiles = range(largest, min(_SMALLEST, largest) - 1, -step) if self._spec.tile == "auto" else [largest]
        for tile in reversed(tiles):
            margin = field.margin(tile, align=self._align)
            if self._spec.margin != "auto":
                margin = self._spec.margin if tile - 2 * self._spec.margin >= self._align else None
            if margin is not None:
                yield self._work(tile, margin, self._spec.batch or 1), tile, margin

    def _as_trained(self, field: ReceptiveField, largest: int, measured: str) -> Tiling:
        size, note = self._predictor.models[0].chip_size, "the network has a global receptive field"
        if self._spec.tile != "auto" and largest != size:
            tile, note = largest, f"{note}; tiles of its training size ({size or 'unknown'}) fit it best"
        elif size is None:
            tile, note = min(largest, self._aligned(_SAFE_TILE)), f"{note}, and its training size is unknown"
        else:
            tile, note = self._aligned(size), f"{note}, so tiles have the training size"
        margin = field.margin(tile, align=self._align)
        return self._tiling(tile, self._or_given(margin, tile), field, f"{measured}; {note}")

    def _whole(self, tile: int) -> Tiling:
        """The raster as one tile: nothing is cut, but a given margin must leave a core."""
        margin = self._or_given(0, tile)
        if self._spec.tile == "auto":
            tile = max(tile, rounded_up(2 * margin, self._align) + self._align)
        return self._tiling(tile, margin, note="; one tile for all of the raster")

    def _unmeasured(self, tile: int) -> Tiling:
        note = "; margin not measured: sampled windows contain one class only"
        return self._tiling(tile, self._or_given(min(_COMMON_MARGIN, tile // 4), tile), note=note)

    def _tiling(self, tile: int, margin: int, field: ReceptiveField | None = None, note: str = "") -> Tiling:
        batch = self._batch(tile, margin)
        height, width = self._raster.grid.shape
        needed = self._bytes(tile, batch) if self._spec.tile == "auto" else None
        if self._spec.tile == "auto" and needed is None:
            note += "; memory cannot be estimated, so tiles are small"
        return Tiling(
            tile, margin, batch,
            overlap_overhead=self._work(tile, margin, batch) / (height * width),
            mismatch=None if field is None else field.mismatch_of(margin, tile),
            memory=needed,
            note=note,
        )  # fmt: skip

    def _batch(self, tile: int, margin: int) -> int:
        """1 on a CPU; on a GPU as many tiles as keep it busy, fit in memory, and hardly pad a unit's last batch."""
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
        """Pixels that the network reads for the raster, padded batches included."""
        rows, cols = (self._tiles(length, tile, margin) for length in self._raster.grid.shape)
        batches = np.ceil(np.outer(rows, cols) / batch).sum()
        return float(batches * batch * np.prod(self._sides(tile)))

    def _tiles(self, length: int, tile: int, margin: int) -> list[int]:
        """Number of tiles of each unit along one axis."""
        spec, align = self._spec, self._align
        strip = units(length, align, size=tile, margin=margin, align=align, side=spec.unit, overlapping=spec.is_blended)
        return [len(unit.tiles) for unit in strip]
