"""Label rasters: class maps whose pixels are the labels of the training masks, such as 0 and 255.

This is what contests and other programs expect beside their own masks: one band, no palette, no nodata value, the file
name of the map.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscribe import progress
from landscribe.errors import ClassError, RecipeError, counted, listed
from landscribe.geo.classes import IGNORE, Classes, label_key
from landscribe.geo.grid import size_label
from landscribe.geo.inputs import repeated
from landscribe.geo.rasters.whole_files import write_raster
from landscribe.machine import require_memory
from landscribe.maps.class_map import ClassMap, class_values
from landscribe.maps.class_tables import value_of_nodata
from landscribe.outputs import atomic_folder

_BYTES_PER_PIXEL = 8
"""Map, validity, indices and codes, each alive once."""


def write_label_rasters(
    maps: Sequence[Path], out: Path, *, nodata_as: str | None = None, overwrite: bool = False
) -> Path:
    """Write class maps as rasters of labels.

    Args:
        maps: class maps; each becomes a file of the same name.
        out: the folder to write.
        nodata_as: name of the class of pixels without one; they are refused if None.
        overwrite: replace a folder that is not empty.

    Raises:
        RasterError: a file is no class map.
        ClassError: a label is no whole number, or pixels have no class.
        OutputError: `out` is not empty, or cannot be written.
    """
    if same := repeated([path.name for path in maps]):
        raise RecipeError(
            f"the rasters of {listed(sorted(same))} would have one name, at least on Windows and macOS. Rename one."
        )
    with atomic_folder(out, overwrite=overwrite) as folder, progress.task("maps", len(maps)) as advance:
        for path in maps:
            _write(ClassMap.open(path), folder / path.name, nodata_as)
            advance()
        (folder / ".landscribe-labels").touch()
    return out


def _write(mapped: ClassMap, path: Path, nodata_as: str | None) -> None:
    raster, source = mapped.raster, mapped.raster.paths[0]
    height, width = raster.grid.shape
    remedy = "Export a part of the map (gdal_translate -srcwin)."
    require_memory(height * width * _BYTES_PER_PIXEL, f"{source} ({size_label(raster.grid.shape)} pixels)", remedy)
    codes = _codes(mapped.classes, source)
    values = class_values(*raster.read(raster.grid.window))
    if nodata_as is not None:
        values[values == IGNORE] = value_of_nodata(mapped.classes, nodata_as)
    indices = mapped.classes.to_indices(values)
    missing = int((indices == IGNORE).sum())
    if missing:
        raise ClassError(
            f"{source} has {counted(missing, 'pixel')} without a class. Expected a class for each. Pass --nodata-as "
            "with the name of the class that they get."
        )
    write_raster(path, codes[indices][None], raster.grid, compress="deflate")


def _codes(classes: Classes, source: str) -> NDArray[Any]:
    """(classes,) label of each class, in the smallest type of whole numbers."""
    keys = [label_key(entry.label) for entry in classes]
    words = [entry.name for entry, key in zip(classes, keys, strict=True) if not key.removeprefix("-").isdecimal()]
    if words:
        raise ClassError(
            f"{source}: the labels of {listed(words)} are words. Expected whole numbers to write into pixels. The map "
            "itself has whole numbers, the class values: use it as it is."
        )
    codes = [int(key) for key in keys]
    smallest = np.result_type(*(np.min_scalar_type(code) for code in codes))
    if smallest.kind not in "iu" or smallest.itemsize > 4:
        raise ClassError(f"{source}: codes from {min(codes)} to {max(codes)} need more than 32 bits.")
    return np.array(codes, smallest)
