"""Exports for other programs: CHIP_EXPORTS lists the formats of chips, MAP_EXPORTS those of maps.

A new format is a file with a function like `write_classified_tiles` or `write_label_rasters`, and a line here. Writers
are imported when they write, so that a command's help needs no GDAL. The package is not called `export`: importing it
would replace the verb `landscribe.export`.
"""

import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from landscribe.data.chips.chips import Chips


@dataclass(frozen=True)
class ChipExport:
    """A format of exported chips."""

    description: str
    """For the command's help."""
    mark: str
    """A file that every export of this format has: only a folder that holds it is overwritten."""
    writer: str
    """Module of this package and its function `(chips, out, *, overwrite)`, which returns `out`."""

    def write(self, chips: "Chips", out: Path, *, overwrite: bool = False) -> Path:
        """Write chips.

        Args:
            chips: all are exported; use `of_split` to export one split.
            out: the folder to write.
            overwrite: replace a folder that is not empty.

        Raises:
            ChipError: there are no chips, or the format cannot hold them.
            OutputError: `out` is not empty, or cannot be written.
        """
        writer: Callable[..., Path] = pkgutil.resolve_name(f"{__name__}.{self.writer}")
        return writer(chips, out, overwrite=overwrite)


CHIP_EXPORTS: dict[str, ChipExport] = {
    "esri": ChipExport(
        "ArcGIS Classified Tiles", "esri_model_definition.emd", "classified_tiles:write_classified_tiles"
    ),
}


@dataclass(frozen=True)
class MapExport:
    """A format of exported maps."""

    description: str
    """For the command's help."""
    mark: str
    """A file that every export of this format has: only a folder that holds it is overwritten."""
    writer: str
    """Module of this package and its function `(maps, out, *, nodata_as, overwrite)`, which returns `out`."""

    def write(self, maps: Sequence[Path], out: Path, *, nodata_as: str | None = None, overwrite: bool = False) -> Path:
        """Write maps.

        Args:
            maps: class maps.
            out: the folder to write.
            nodata_as: name of the class of pixels without one.
            overwrite: replace a folder that is not empty.

        Raises:
            ClassError: the format cannot hold the classes.
            OutputError: `out` is not empty, or cannot be written.
        """
        writer: Callable[..., Path] = pkgutil.resolve_name(f"{__name__}.{self.writer}")
        return writer(maps, out, nodata_as=nodata_as, overwrite=overwrite)


MAP_EXPORTS: dict[str, MapExport] = {
    "labels": MapExport(
        "maps as rasters of the training labels, such as 0 and 255",
        ".landscribe-labels",
        "label_rasters:write_label_rasters",
    ),
}
