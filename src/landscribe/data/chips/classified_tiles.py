"""ArcGIS *Classified Tiles*: the folder that "Export Training Data For Deep Learning" makes and arcgis.learn reads.

`images/` and `labels/` of numbered tiles, `map.txt` (the pairs), `esri_model_definition.emd` (classes and statistics)
and `esri_accumulated_stats.json`. Value 0 is what nobody labelled: a class of value 0 moves up to be kept.
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
from landscribe.data.scenes.scene import ClassSpec
from landscribe.errors import ChipError, LabelError
from landscribe.geo.classes import IGNORE, Classes, rgb
from landscribe.geo.grid import Grid, Window
from landscribe.geo.rasters.raster import Pixels, Valid
from landscribe.geo.rasters.whole_files import write_raster
from landscribe.outputs import whole_folder

log = logging.getLogger(__name__)

TEMPLATE = "esri_model_definition.emd"
STATISTICS = "esri_accumulated_stats.json"
NODATA = 0
"""In ArcGIS's labels: not labelled."""
KIND = "Classified_Tiles"
BAND_NAMES = "WellKnownBandNames (FYI, these band names can be used in ExtractBands)"
"""The key as ArcGIS spells it, and as arcgis.learn looks for it."""


def read_classes(definition: Path) -> list[ClassSpec]:
    """The class table of Classified Tiles; value 0 is not known unless the table names it.

    Raises:
        LabelError: no such table in the file.
    """
    try:
        rows = json.loads(definition.read_text(encoding="utf-8-sig"))["Classes"]
        # Older exports spell the keys differently.
        named = [
            (int(row.get("Value", row.get("ClassValue"))), str(row.get("Name", row.get("ClassName")))) for row in rows
        ]
        colours = [_colour(row.get("Color")) for row in rows]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise LabelError(
            f"{definition} has no readable class table ({type(error).__name__}: {error}). One as ArcGIS exports it was "
            "expected. Export the tiles again, or write a class table into a recipe."
        ) from error
    table = [
        ClassSpec.of({"name": name, "value": value, "label": value, "colour": colour}, str(definition))
        for (value, name), colour in zip(named, colours, strict=True)
    ]
    if NODATA not in {value for value, _ in named}:
        table.append(ClassSpec(name="not labelled", value=IGNORE, label=NODATA))
    return table


def _colour(channels: Any) -> str | None:
    """From [red, green, blue]; None where ArcGIS wrote no colour."""
    if not isinstance(channels, list) or len(channels) < 3 or min(channels[:3]) < 0:
        return None
    return "#" + "".join(f"{int(channel):02x}" for channel in channels[:3])


def write_classified_tiles(chips: Chips, out: Path, *, overwrite: bool = False) -> Path:
    """Write chips as ArcGIS Classified Tiles.

    Args:
        chips: all of them become tiles: choose a split first to leave others out.
        out: the folder to make.
        overwrite: replace what stands there.

    Raises:
        ChipError: there are none, or a class value that ArcGIS cannot hold once it is moved up.
        OutputError: `out` holds something, or cannot be written.
    """
    if not len(chips):
        raise ChipError(
            f"{chips.folder} has no chips of that split. At least one was expected. Choose another --split."
        )
    table = _shifted(chips.classes)
    with whole_folder(out, overwrite=overwrite) as folder:
        tiles = _Tiles(chips, table, folder)
        with progress.task("tiles", len(chips)) as advance:
            for number in range(len(chips)):
                tiles.write(number)
                advance()
        names = [f"{number:09d}.tif" for number in range(len(chips))]
        pairs = "".join(f"images\\{name}  labels\\{name} \r\n" for name in names)
        (folder / "map.txt").write_bytes(pairs.encode())
        _write_json(folder / TEMPLATE, _definition(chips, table, tiles))
        _write_json(folder / STATISTICS, _accumulated(chips, table, tiles))
        (folder / "stats.txt").write_text(_as_text(chips, table), encoding="utf-8")
    return out


@dataclass(frozen=True)
class _Table:
    """The class table as ArcGIS has it."""

    names: tuple[str, ...]
    colours: tuple[str, ...]
    values: tuple[int, ...]
    shift: int
    """What was added to our values."""


def _shifted(classes: Classes) -> _Table:
    shift = int(NODATA in classes.values)
    values = tuple(value + shift for value in classes.values)
    if max(values) > IGNORE:
        raise ChipError(
            f"class value {max(classes.values)} cannot move up by {shift} to keep 0 free. Use smaller values."
        )
    if shift:
        log.info("class values are 1 higher than ours, because 0 means not labelled in ArcGIS")
    return _Table(classes.names, tuple(entry.colour for entry in classes), values, shift)


class _Tiles:
    """Writes tiles, and remembers the extremes of the bands."""

    def __init__(self, chips: Chips, table: _Table, folder: Path) -> None:
        self.chips = chips
        self.reader = ChipReader(chips)
        self.images = chips.images()
        self.values = np.full(256, NODATA, np.uint8)
        self.values[list(chips.classes.values)] = table.values
        self.folder = folder
        bands = len(chips.head.bands)
        self.least, self.most = np.full(bands, np.inf), np.full(bands, -np.inf)
        for name in ("images", "labels"):
            (folder / name).mkdir()

    def write(self, number: int) -> None:
        """One pair, with world files for readers that take no GeoTIFF tags."""
        pixels, valid, mask = self.reader.read(number)
        row = self.chips.table.iloc[number]
        window = Window(*(int(row[name]) for name in ("row", "col", "height", "width")))
        place = self.images[row["scene"]].grid[window]
        name = f"{number:09d}"
        self._write(self.folder / "images" / name, pixels, place, valid)
        self._write(self.folder / "labels" / name, self.values[mask][None], place, None)
        if valid.any():
            self.least = np.minimum(self.least, pixels[:, valid].min(axis=1))
            self.most = np.maximum(self.most, pixels[:, valid].max(axis=1))

    def _write(self, stem: Path, array: Pixels | NDArray[np.uint8], place: Grid, valid: Valid | None) -> None:
        masked = None if valid is None or valid.all() else valid
        write_raster(stem.with_suffix(".tif"), array, place, masked, driver="GTiff", compress="lzw")
        stem.with_suffix(".tfw").write_text(_world_file(place), encoding="ascii")


def _world_file(grid: Grid) -> str:
    """Six lines: steps, and the centre of the upper left pixel."""
    x, y = grid.xy(0.5, 0.5)
    steps = (grid.transform.a, grid.transform.d, grid.transform.b, grid.transform.e)
    return "".join(f"{number:.12f}\n" for number in (*steps, x, y))


def _definition(chips: Chips, table: _Table, tiles: _Tiles) -> dict[str, Any]:
    head = chips.head
    grid = next(iter(tiles.images.values())).grid
    cell = {
        "x": abs(grid.transform.a), "y": abs(grid.transform.e),
        "spatialReference": {"wkid": grid.crs.to_epsg() if grid.crs else None},
    }  # fmt: skip
    means, deviations = band_statistics(chips)
    statistics = zip(head.bands, tiles.least, tiles.most, means, deviations, strict=True)
    return {
        "Framework": "e.g. PyTorch",
        "ModelType": "ImageClassification",
        "MetaDataMode": KIND,
        "ImageSpaceUsed": "MAP_SPACE" if grid.crs else "PIXEL_SPACE",
        "ImageHeight": head.size,
        "ImageWidth": head.size,
        "MinCellSize": cell,
        "MaxCellSize": cell,
        "Classes": [
            {"Value": value, "Name": name, "Color": list(rgb(colour))}
            for value, name, colour in zip(table.values, table.names, table.colours, strict=True)
        ],
        "InputRastersProps": {"RasterCount": 1, "SensorName": "Raster Dataset", "BandNames": list(head.bands)},
        BAND_NAMES: [],
        "AllTilesStats": [
            {"BandName": name, "Min": float(least), "Max": float(most), "Mean": float(mean), "StdDev": float(deviation)}
            for name, least, most, mean, deviation in statistics
        ],
        "IsMultidimensional": False,
        "LandscribeValueShift": table.shift,
    }


def _accumulated(chips: Chips, table: _Table, tiles: _Tiles) -> dict[str, Any]:
    counts = chips.counts
    holds = counts > 0
    pixels = int(chips.table["valid_pixels"].sum())
    means, deviations = band_statistics(chips)
    return {
        "Version": 1,
        "NumBands": len(chips.head.bands),
        "TileSizeX": chips.head.size,
        "TileSizeY": chips.head.size,
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
            "NumImagesPerClass": holds.sum(axis=0).tolist(),
            "NumPixelsPerClass": counts.sum(axis=0).tolist(),
            "NumClassesPerImage": _spread(holds.sum(axis=1)),
            "PixelsPerClass": [_spread(counts[holds[:, k], k]) for k in range(len(table.names))],
        },
        "BandStatsState": [
            {
                "Min": float(least),
                "Max": float(most),
                "M1": float(mean),
                "M2": float(deviation**2 * pixels),
                "Num": pixels,
            }
            for least, most, mean, deviation in zip(tiles.least, tiles.most, means, deviations, strict=True)
        ],
    }


def _spread(numbers: NDArray[Any]) -> dict[str, float]:
    """Of the chips that hold something."""
    if not numbers.size:
        return {"Min": 0, "Max": 0, "Mean": 0.0, "Sum": 0, "Count": 0}
    return {
        "Min": int(numbers.min()), "Max": int(numbers.max()), "Mean": float(numbers.mean()),
        "Sum": int(numbers.sum()), "Count": int(numbers.size),
    }  # fmt: skip


def _as_text(chips: Chips, table: _Table) -> str:
    """What ArcGIS shows people."""
    counts, bands, size = chips.counts, len(chips.head.bands), chips.head.size
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
