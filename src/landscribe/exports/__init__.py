"""Exports for other programs: CHIP_EXPORTS lists the formats of chips, MAP_EXPORTS those of maps.

A new format is a file with a function like `write_classified_tiles` or `write_label_rasters`, and a line here. Writers
are imported when they write, so that a command's help needs no GDAL. The package is not called `export`: importing it
would replace the verb `landscribe.export`.
"""

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Export:
    """A format of exported chips or maps."""

    description: str
    """For the command's help."""
    mark: str
    """A file that every export of this format has: only a folder that holds it is overwritten."""
    writer: str
    """Module of this package and its function: `(chips, out, *, overwrite)` of chips, `(maps, out, *, nodata_as,
    overwrite)` of maps. It returns `out`."""

    def write(self, content: Any, out: Path, **settings: Any) -> Path:
        """Write chips or the paths of maps with the keywords of the writer.

        Raises:
            ChipError: there are no chips, or the format cannot hold them.
            ClassError: the format cannot hold the classes.
            OutputError: `out` is not empty, or cannot be written.
        """
        writer: Callable[..., Path] = pkgutil.resolve_name(f"{__name__}.{self.writer}")
        return writer(content, out, **settings)


CHIP_EXPORTS: dict[str, Export] = {
    "esri": Export("ArcGIS Classified Tiles", "esri_model_definition.emd", "classified_tiles:write_classified_tiles"),
}
MAP_EXPORTS: dict[str, Export] = {
    "labels": Export(
        "maps as rasters of the training labels, such as 0 and 255",
        ".landscribe-labels",
        "label_rasters:write_label_rasters",
    ),
}
