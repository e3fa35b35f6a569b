"""Scenes in a report: the chips, their scenes and maps, and how they are drawn."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from landscribe.data.chips.chips import Chips
from landscribe.errors import LandscribeError
from landscribe.geo.rasters.raster import Pixels, Raster, Valid
from landscribe.maps.class_map import match_maps
from landscribe.reports import figures
from landscribe.reports.description import Description
from landscribe.reports.figures import Colours
from landscribe.reports.folds import Folds


class Scenes:
    """The chips, their scenes and maps, and how to draw them."""

    def __init__(self, chips: Chips, maps: Sequence[Path], folds: Folds | None, described: Description) -> None:
        self.chips = chips
        self.windows = chips.windows
        self.splits = np.array(folds.splits, str) if folds else chips.splits
        self.colours = folds.colours if folds else figures.SPLIT_COLOURS
        self.used = folds.names if folds else ["train", "val", "test"]
        # Each fold is held out once, and assessed then.
        self.held_out = folds.names if folds else next(([name] for name in ("test", "val") if name in self.splits), [])
        self.of_chip = chips.scene_names
        self.problem = ""
        self.images: dict[str, Raster] = {}
        try:
            self.images = chips.images()
        except LandscribeError as error:
            if chips.metadata.virtual:
                raise
            # A run folder may be copied without its imagery: chips with copied pixels can still be shown.
            self.problem = str(error)
        self.shown = figures.shown_bands(chips.metadata.bands)
        self.bands = self._band_names()
        self.maps = [Raster.open([path]) for path in maps]
        self.map_of = match_maps(self.maps, self.images)
        quantiles = [described.bands[band].quantiles for band in self.shown]
        ends = np.array([[each[percent] for each in quantiles] for percent in ("2", "98")], float)
        # One stretch for all scenes and chips: the same colour means the same pixel values.
        self._limits = figures.usable_limits(ends)

    def _band_names(self) -> list[str]:
        """Names of the bands; their numbers where the files name them differently."""
        names = list(self.chips.metadata.bands)
        has_one_naming = len({raster.bands for raster in self.images.values()}) <= 1
        return names if has_one_naming else [f"band {number}" for number in range(1, len(names) + 1)]

    def picture(self, scene: str, side: int) -> tuple[Colours, Valid]:
        """A scene in colours, its longer side at most `side` pixels, and its valid pixels."""
        pixels, valid = read_small(self.images[scene], self.shown, side)
        return figures.stretched(pixels, self._limits), valid

    def chip(self, pixels: Pixels) -> Colours:
        """A chip in colours, stretched like all scenes."""
        return figures.stretched(pixels[list(self.shown)], self._limits)


def read_small(raster: Raster, bands: Sequence[int], side: int) -> tuple[Pixels, Valid]:
    """Selected bands of a raster (bands, rows, cols), the longer side at most `side`, and the valid pixels."""
    raster = raster.take_bands(bands)
    if max(raster.grid.shape) <= side:
        return raster.overview(side)
    # Twice the size and averaged: nearest pixels alone would look grainy.
    height, width = (max(1, round(side / max(raster.grid.shape) * length)) for length in raster.grid.shape)
    return figures.halved(*raster.read_decimated(raster.grid.window, (2 * height, 2 * width)))
