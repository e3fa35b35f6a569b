"""Side files: what other programs keep beside a file about it, and would read as if it were about its successor."""

import glob
import os
from pathlib import Path

_OF_STEM = {
    ".shp": (
        ".shx", ".dbf", ".prj", ".qpj", ".cpg", ".cst", ".shp.xml", ".qix", ".sbn", ".sbx", ".fbn", ".fbx", ".ain",
        ".aih", ".ixs", ".mxs", ".idm", ".ind",
    ),
    ".tif": (".tfw",),
}  # fmt: skip
"""Ends of side files after the stem of a file, by its suffix: columns, CRS, indices, georeferences. The log of a
GeoPackage is that of SQLite (`locks.remove_log`); styles are of users, who may want to keep them."""
_OF_NAME = {".tif": (".aux.xml", ".ovr", ".msk", ".msk.ovr", ".vat.dbf", ".vat.cpg", ".xml")}
"""Ends after the whole name: statistics and tags, overviews, masks, names of values, descriptions."""
_ATTRIBUTE_INDEX = ".*.atx"
"""ArcGIS has one for each indexed column of a Shapefile."""


def side_files(path: Path) -> list[Path]:
    """The side files of a file, or of one that was there; their suffixes are in small or capital letters."""
    suffix = path.suffix.lower().replace(".tiff", ".tif")
    ends = [(path.stem, end) for end in _OF_STEM.get(suffix, ())]
    ends += [(path.name, end) for end in _OF_NAME.get(suffix, ())]
    names = [path.with_name(start + end) for start, small in ends for end in (small, small.upper())]
    indices = path.parent.glob(glob.escape(path.stem) + _ATTRIBUTE_INDEX) if suffix == ".shp" else ()
    return [*filter(os.path.lexists, names), *indices]
