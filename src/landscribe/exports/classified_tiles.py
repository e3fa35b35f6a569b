"""ArcGIS *Classified Tiles*: the chips folder that ArcGIS Pro exports and arcgis.learn reads.

`images/` and `labels/` with numbered tiles, `map.txt` (the pairs), `esri_model_definition.emd` (classes and statistics)
and `esri_accumulated_stats.json`. Value 0 is unlabelled in ArcGIS: if a class has value 0, all values are raised by 1,
and lowered when the tiles are read.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscribe import progress
from landscribe.data.chips.chips import ChipReader, Chips
from landscribe.data.chips.stats import band_statistics
from landscribe.data.scenes.arcgis_classes import NODATA, SHIFT, TEMPLATE
from landscribe.errors import ChipError
from landscribe.geo.classes import IGNORE, Classes, rgb
from landscribe.geo.grid import Grid
from landscribe.geo.rasters.raster import Pixels, Valid
from landscribe.geo.rasters.whole_files import write_raster
from landscribe.outputs import atomic_folder

log = logging.getLogger(__name__)

STATISTICS = "esri_accumulated_stats.json"
KIND = "Classified_Tiles"
BAND_NAMES = "WellKnownBandNames (FYI, these band names can be used in ExtractBands)"
"""The key as ArcGIS writes it and arcgis.learn reads it."""


def write_classified_tiles(chips: Chips, out: Path, *, overwrite: bool = False) -> Path:
    """Write chips as ArcGIS Classified Tiles.

    Args:
        chips: all become tiles; use `of_split` to export one split.
        out: the folder to write.
        overwrite: replace a folder that is not empty.

    Raises:
        ChipError: there are no chips, or a raised class value exceeds 255.
        OutputError: `out` is not empty, or cannot be written.
    """
    if not len(chips):
        raise ChipError(f"{chips.folder} has no chips of that split. Expected at least one. Choose another --split.")
    table = _shifted(chips.classes)
    with atomic_folder(out, overwrite=overwrite) as folder:
        tiles = _Tiles(chips, table, folder)
        with progress.task("tiles", len(chips)) as advance:
            for index in range(len(chips)):
                tiles.write(index)
                advance()
        names = [f"{index:09d}.tif" for index in range(len(chips))]
        pairs = "".join(f"images\\{name}  labels\\{name} \r\n" for name in names)
        (folder / "map.txt").write_bytes(pairs.encode())
        _write_json(folder / TEMPLATE, _definition(chips, table, tiles))
        _write_json(folder / STATISTICS, _accumulated(chips, table, tiles))
        (folder / "stats.txt").write_text(_as_text(chips, table), encoding="utf-8")
    return out


@dataclass(frozen=True)
class _Table:
    """The class table of ArcGIS."""

    names: tuple[str, ...]
    colours: tuple[str, ...]
    values: tuple[int, ...]
    shift: int
    """Number added to our class values, 0 or 1."""


def _shifted(classes: Classes) -> _Table:
    shift = int(NODATA in classes.values)
    values = tuple(value + shift for value in classes.values)
    if max(values) > IGNORE:
        raise ChipError(
            f"class value {max(classes.values)} cannot be raised by {shift}, which keeps 0 free for unlabelled. "
            f"Expected at most {IGNORE - shift}. Use smaller values."
        )
    if shift:
        log.info("class values are raised by 1, because 0 means unlabelled in ArcGIS")
    return _Table(classes.names, tuple(entry.colour for entry in classes), values, shift)


class _Tiles:
    """Writes tiles, and collects the minimum and maximum of each band."""

    def __init__(self, chips: Chips, table: _Table, folder: Path) -> None:
        self.chips = chips
        self.reader = ChipReader(chips)
        self.images = chips.images()
        self.scenes, self.windows = chips.scene_names.tolist(), chips.windows
        self.values = np.full(256, NODATA, np.uint8)
        self.values[list(chips.classes.values)] = table.values
        self.folder = folder
        bands = len(chips.metadata.bands)
        self.minimum, self.maximum = np.full(bands, np.inf), np.full(bands, -np.inf)
        for name in ("images", "labels"):
            (folder / name).mkdir()

    def write(self, index: int) -> None:
        """Write one pair, with world files for readers without GeoTIFF tags."""
        pixels, valid, mask = self.reader.read(index)
        grid = self.images[self.scenes[index]].grid[self.windows[index]]
        name = f"{index:09d}"
        self._write(self.folder / "images" / name, pixels, grid, valid)
        self._write(self.folder / "labels" / name, self.values[mask][None], grid, None)
        if valid.any():
            self.minimum = np.minimum(self.minimum, pixels[:, valid].min(axis=1))
            self.maximum = np.maximum(self.maximum, pixels[:, valid].max(axis=1))

    def _write(self, stem: Path, array: Pixels | NDArray[np.uint8], grid: Grid, valid: Valid | None) -> None:
        mask = None if valid is None or valid.all() else valid
        write_raster(stem.with_suffix(".tif"), array, grid, mask, driver="GTiff", compress="lzw")
        stem.with_suffix(".tfw").write_text(_world_file(grid), encoding="ascii")


def _world_file(grid: Grid) -> str:
    """The six lines of a world file: pixel sizes and rotation, and the centre of the upper left pixel."""
    x, y = grid.xy(0.5, 0.5)
    linear = (grid.transform.a, grid.transform.d, grid.transform.b, grid.transform.e)
    return "".join(f"{value:.12f}\n" for value in (*linear, x, y))


def _definition(chips: Chips, table: _Table, tiles: _Tiles) -> dict[str, Any]:
    metadata = chips.metadata
    grid = next(iter(tiles.images.values())).grid
    cell = {
        "x": abs(grid.transform.a), "y": abs(grid.transform.e),
        "spatialReference": {"wkid": grid.crs.to_epsg() if grid.crs else None},
    }  # fmt: skip
    means, deviations = band_statistics(chips)
    statistics = zip(metadata.bands, tiles.minimum, tiles.maximum, means, deviations, strict=True)
    return {
        "Framework": "e.g. PyTorch",
        "ModelType": "ImageClassification",
        "MetaDataMode": KIND,
        "ImageSpaceUsed": "MAP_SPACE" if grid.crs else "PIXEL_SPACE",
        "ImageHeight": metadata.size,
        "ImageWidth": metadata.size,
        "MinCellSize": cell,
        "MaxCellSize": cell,
        "Classes": [
            {"Value": value, "Name": name, "Color": list(rgb(colour))}
            for value, name, colour in zip(table.values, table.names, table.colours, strict=True)
        ],
        "InputRastersProps": {"RasterCount": 1, "SensorName": "Raster Dataset", "BandNames": list(metadata.bands)},
        BAND_NAMES: [],
        "AllTilesStats": [
            {"BandName": name, "Min": float(low), "Max": float(high), "Mean": float(mean), "StdDev": float(deviation)}
            for name, low, high, mean, deviation in statistics
        ],
        "IsMultidimensional": False,
        SHIFT: table.shift,
    }


def _accumulated(chips: Chips, table: _Table, tiles: _Tiles) -> dict[str, Any]:
    counts = chips.counts
    has_class = counts > 0
    pixels = int(chips.table["valid_pixels"].sum())
    means, deviations = band_statistics(chips)
    return {
        "Version": 1,
        "NumBands": len(chips.metadata.bands),
        "TileSizeX": chips.metadata.size,
        "TileSizeY": chips.metadata.size,
        "NumClasses": len(table.names),
        "NumTiles": len(chips),
        "OutputFeatures": False,
        "MetaDataMode": KIND,
        "Classes": [
            {"ClassValue": value, "ClassName": name} for value, name in zip(table.values, table.names, strict=True)
        ],
        "ClassPixelStats": {
            "NumClasses": len(table.names),
            "NumImagesTotal": len(chips),
            "NumImagesPerClass": has_class.sum(axis=0).tolist(),
            "NumPixelsPerClass": counts.sum(axis=0).tolist(),
            "NumClassesPerImage": _spread(has_class.sum(axis=1)),
            "PixelsPerClass": [_spread(counts[has_class[:, k], k]) for k in range(len(table.names))],
        },
        "BandStatsState": [
            {
                "Min": float(low),
                "Max": float(high),
                "M1": float(mean),
                "M2": float(deviation**2 * pixels),
                "Num": pixels,
            }
            for low, high, mean, deviation in zip(tiles.minimum, tiles.maximum, means, deviations, strict=True)
        ],
    }


def _spread(numbers: NDArray[Any]) -> dict[str, float]:
    """Minimum, maximum, mean, sum and count."""
    if not numbers.size:
        return {"Min": 0, "Max": 0, "Mean": 0.0, "Sum": 0, "Count": 0}
    return {
        "Min": int(numbers.min()), "Max": int(numbers.max()), "Mean": float(numbers.mean()),
        "Sum": int(numbers.sum()), "Count": int(numbers.size),
    }  # fmt: skip


def _as_text(chips: Chips, table: _Table) -> str:
    """`stats.txt`, which ArcGIS shows."""
    counts, bands, size = chips.counts, len(chips.metadata.bands), chips.metadata.size
    per_image = _spread((counts > 0).sum(axis=1))
    lines = [
        f"images = {len(chips)} *{bands}*{size}*{size}",
        f"classes = {len(table.names)}",
        f"classes per image = [min = {per_image['Min']}, mean = {per_image['Mean']:.2f}, max = {per_image['Max']}]",
        f"{'cls name':<24}{'cls value':>10}{'images':>10}{'pixels':>14}",
    ]
    rows = zip(table.names, table.values, (counts > 0).sum(axis=0), counts.sum(axis=0), strict=True)
    lines += [f"{name:<24}{value:>10}{images:>10}{pixels:>14}" for name, value, images, pixels in rows]
    return "\n".join(lines) + "\n"


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
