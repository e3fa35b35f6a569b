"""Side files: what other programs keep beside a file about it, and would read as if it were about its successor."""

import glob
import os
from pathlib import Path

_OF_SHAPEFILE = (
    ".shx", ".dbf", ".prj", ".qpj", ".cpg", ".cst", ".shp.xml", ".qix", ".sbn", ".sbx", ".fbn", ".fbx", ".ain", ".aih",
    ".ixs", ".mxs", ".idm", ".ind",
)  # fmt: skip
"""Ends after the stem of a Shapefile: columns, CRS, indices."""
_OF_TABLE = (".idm", ".ind")
"""Those that a table of MapInfo with the same stem has, too."""
_OF_RASTER = (".aux.xml", ".ovr", ".msk", ".msk.ovr", ".vat.dbf", ".vat.cpg", ".xml")
"""Ends after the whole name of a GeoTIFF: statistics and tags, overviews, masks, names of values, descriptions. Its own
georeference counts more than a world file, which may be that of another image."""


def side_files(path: Path) -> list[Path]:
    """The side files of a file: of a Shapefile that is there, or of a GeoTIFF that is or was there.

    The log of a GeoPackage is that of SQLite (`locks.remove_log`); styles are of users, who may want to keep them.
    """
    suffix, beside = path.suffix.lower(), list[Path]()
    if suffix in (".tif", ".tiff"):
        beside = [path.with_name(path.name + end) for end in _OF_RASTER]
    # Without the Shapefile, files with its stem may be those of another one, such as H.SHP for h.shp.
    elif suffix == ".shp" and os.path.lexists(path):
        has_table = any(path.with_suffix(end).exists() for end in (".tab", ".TAB"))
        ends = [end for end in _OF_SHAPEFILE if not (has_table and end in _OF_TABLE)]
        beside = [path.with_name(path.stem + (end if path.suffix.islower() else end.upper())) for end in ends]
        # ArcGIS has an index for each column. That of a Shapefile a.b.shp is not one of a.shp.
        beside += path.parent.glob(f"{glob.escape(path.stem)}.*.atx")
        beside = [side for side in beside if side.suffix != ".atx" or side.stem.count(".") == path.stem.count(".") + 1]
    return [side for side in beside if os.path.lexists(side)]
