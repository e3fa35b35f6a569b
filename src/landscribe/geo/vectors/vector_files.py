"""Vector files as tables: formats and containers, the layer that holds the features, and their CRS."""

import hashlib
import json
import logging
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyogrio
import pyproj
from pyproj.exceptions import ProjError
from shapely.errors import ShapelyError

from landscribe.errors import EmptyError, LabelError, counted
from landscribe.geo.access import require_file
from landscribe.geo.vectors.columns import normal

log = logging.getLogger(__name__)

VECTOR_SUFFIXES = {
    ".geojson", ".json", ".geojsonl", ".geojsons", ".topojson", ".gpkg", ".shp", ".fgb", ".parquet", ".geoparquet",
    ".feather", ".gml", ".kml", ".kmz", ".sqlite", ".tab", ".mif", ".gdb", ".dxf", ".dgn",
}  # fmt: skip
"""Suffixes of vector files."""
_ARCHIVES = {".zip", ".shz"}
_CONTAINERS = (".gpkg", ".gdb", ".sqlite", ".gpkg.zip", ".gdb.zip")
"""Formats whose layers have names that people choose, also a single one."""
_TABLES = {".csv", ".tsv"}
_ARROW: dict[str, Callable[..., Any]] = {
    ".parquet": gpd.read_parquet, ".geoparquet": gpd.read_parquet, ".feather": gpd.read_feather
}  # fmt: skip

# Layers that QGIS and GDAL keep in a file beside those of features.
_SYSTEM_LAYERS = {"layer_styles", "qgis_projects", "layer_metadata"}

_COORDINATES = (
    ("lon", "lat"), ("longitude", "latitude"), ("long", "lat"), ("lng", "lat"), ("x", "y"), ("easting", "northing"),
    ("east", "north"), ("e", "n"), ("point_x", "point_y"), ("xcoord", "ycoord"), ("x_coord", "y_coord"),
)  # fmt: skip
_DEGREES = 4
"""The first pairs are in degrees (EPSG:4326)."""
_WKT = ("wkt", "geometry", "geom", "the_geom", "wkt_geom")

# Digits in the name of an encoding (.cpg), or its number in a table of dBASE, after "LDID".
_LATIN = {"1252", "88591", "28591", "LDID3", "LDID87", "LDID88"}
_DOS = {"437", "850", "LDID1", "LDID2"}

# pyogrio's errors are RuntimeErrors; a table of Arrow with unexpected metadata ends in the others.
_LIBRARY_ERRORS = (RuntimeError, ShapelyError, ValueError, OSError, KeyError, TypeError, AttributeError, MemoryError)


def is_vector(path: str) -> bool:
    """True if a file holds features, as its suffix says; of a .zip its content, and of a .vrt its first words."""
    suffix = Path(path).suffix.lower()
    if suffix in _ARCHIVES:
        return suffix == ".shz" or bool(_members(path))
    return suffix in VECTOR_SUFFIXES | _TABLES or (suffix == ".vrt" and _is_vector_vrt(path))


def _is_vector_vrt(path: str) -> bool:
    try:
        if not Path(path).is_file():
            return False  # a pipe would be waited for
        with Path(path).open("rb") as file:
            return b"<OGRVRTDataSource" in file.read(2000)
    except OSError:
        return False


def _members(path: str) -> list[str]:
    """The vector files in an archive."""
    try:
        if not Path(path).is_file():
            return []
        with zipfile.ZipFile(path) as archive:
            names = [name.rstrip("/") for name in archive.namelist() if not _is_of_mac(name)]
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return []
    folders = {str(parent) for name in names for parent in Path(name).parents if parent.suffix.lower() == ".gdb"}
    inside = [name for name in names if not any(f"{folder}/" in name for folder in folders)]
    return sorted({*folders, *(name for name in inside if Path(name).suffix.lower() in VECTOR_SUFFIXES | _TABLES)})


def _is_of_mac(member: str) -> bool:
    """True for what a Mac adds to an archive: icons and flags of each file, with ._ before its name."""
    return member.startswith("__MACOSX/") or Path(member).name.startswith("._")


@dataclass(frozen=True)
class LayerTable:
    """A table of features, and the layers of its file."""

    table: gpd.GeoDataFrame
    name: str
    others: tuple[str, ...] = ()
    """Names of layers of the file that are not read."""


def read_layer(
    path: str,
    *,
    field: str | None,
    layer: str | None,
    types: Sequence[str],
    crs: str | None = None,
    may_be_empty: bool = False,
) -> LayerTable:
    """Read the layer of a file that holds the features.

    Args:
        path: of a vector file, or of a zip archive with one.
        field: a column that the layer has; None if any will do.
        layer: its name; None for the only layer with geometries of `types` and the column.
        types: the expected geometry types.
        crs: of features whose file has none.
        may_be_empty: True if the file may hold no features.

    Raises:
        EmptyError: the file holds no features.
        LabelError: the file cannot be read, has no such layer or several, or has no CRS.
    """
    require_file(path)
    if any(mark in path for mark in "!;") and Path(path).exists() and Path(path).suffix.lower() not in _ARROW:
        raise LabelError(
            f"{path} would be read as another path, for GDAL reads ! and ; as parts of an address. Rename it, or "
            "copy it to a path without them."
        )
    with _one_line_errors(path):
        if Path(path).suffix.lower() in _ARROW:
            _require_layer(path, layer, [Path(path).stem], (Path(path).name,))
            read = LayerTable(_ARROW[Path(path).suffix.lower()](path), Path(path).stem)
        else:
            read = _read_by_gdal(path, field, layer, types)
    if not isinstance(read.table, gpd.GeoDataFrame):
        raise LabelError(f"{path} is a table without geometries. Expected polygons or points.")
    if read.table.empty and not may_be_empty:
        raise EmptyError(f"{path} holds no features. Expected at least one.")
    return LayerTable(_with_crs(read.table, path, crs), read.name, read.others)


@contextmanager
def _one_line_errors(path: str) -> Iterator[None]:
    """Turn the errors of the libraries into one line; their warnings are hidden, for what they say is checked."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except _LIBRARY_ERRORS as error:
        if "SHAPE_RESTORE_SHX" in str(error):
            raise LabelError(
                f"{path} cannot be read without its .shx file. Copy the .shx beside the .shp, or save the layer again."
            ) from error
        reason = (str(error).splitlines() or [type(error).__name__])[0].partition("; It might help")[0].rstrip(".;")
        raise LabelError(
            f"{path} cannot be read as vector features: {reason}. Expected a GeoJSON, GeoPackage, Shapefile or "
            "GeoParquet. Check the path, or copy the file again."
        ) from error


def _with_crs(table: gpd.GeoDataFrame, path: str, crs: str | None) -> gpd.GeoDataFrame:
    if table.crs is not None:
        return table
    if crs is None:
        is_table = Path(path).suffix.lower() in _TABLES
        may_be_degrees = bool((np.abs(table.total_bounds) <= (180, 90, 180, 90)).all())
        example = (
            "for example --label-crs EPSG:4326" if may_be_degrees else "often that of the image (--label-crs EPSG:CODE)"
        )
        code = "EPSG:4326" if may_be_degrees else "EPSG:CODE"
        assign = "" if is_table else f'; or assign it: "ogr2ogr -a_srs {code} out.gpkg {path}"'
        raise LabelError(f"{path} has no CRS. Pass the one of its coordinates, {example}{assign}.")
    return table.set_crs(stated_crs(crs))


def stated_crs(text: str) -> pyproj.CRS:
    """The CRS that a user states for features.

    Raises:
        LabelError: it is no CRS.
    """
    try:
        return pyproj.CRS.from_user_input(text)
    except (ProjError, ValueError) as error:
        raise LabelError(f"--label-crs is {text!r}, which is no CRS. Expected a code such as EPSG:32632.") from error


def _read_by_gdal(path: str, field: str | None, layer: str | None, types: Sequence[str]) -> LayerTable:
    source = _source(path, layer)
    options = _table_options(source) if Path(source).suffix.lower() in _TABLES else {}
    name, others = _choose_layer(source, path, field, layer, types)
    crs = options.pop("crs", None)
    info = pyogrio.read_info(source, layer=name, **options)
    table = _read_words(source, path, info["encoding"], layer=name, on_invalid="ignore", **options)
    if len(table) < info["features"]:
        raise LabelError(
            f"{path} is damaged: {len(table)} of its {counted(info['features'], 'feature')} can be read. Copy the "
            "file again."
        )
    for column, subtype in zip(info["fields"], info.get("ogr_subtypes", ()), strict=False):
        # A GeoJSON column of words and numbers keeps both types, rather than all as words.
        if subtype == "OFSTJSON":
            table[column] = [_from_json(value) if isinstance(value, str) else value for value in table[column]]
    if crs is not None and isinstance(table, gpd.GeoDataFrame) and table.crs is None:
        table = table.set_crs(crs)
    return LayerTable(table, name, others)


def _read_words(source: str, path: str, encoding: str | None, **options: Any) -> Any:
    """Read a table whose words are UTF-8, or in the encoding that a Shapefile declares.

    Args:
        source: what GDAL opens.
        path: of the file, or of the archive that holds it.
        encoding: what words are after GDAL has recoded them; not UTF-8 if it does not know from what.
        options: of pyogrio.
    """
    declared = _declared_encoding(source, path) if encoding == "UTF-8" else ""
    expected = _encodings(declared)
    for attempt in (*expected, "CP1252", "ISO-8859-1"):
        try:
            table = pyogrio.read_dataframe(source, encoding=attempt, **options)
        except UnicodeDecodeError:
            continue
        if attempt not in expected:
            log.warning(
                "the words of %s are not UTF-8, and it declares no other encoding. They are read as %s. If they look "
                "wrong, save the file in UTF-8, or name the encoding of a Shapefile in a .cpg file", path, attempt,
            )  # fmt: skip
        return table
    raise AssertionError("every byte is a character of ISO-8859-1")


def _encodings(declared: str) -> tuple[str | None, ...]:
    """The encodings to try, in this order; None: GDAL recodes from the declared one.

    Files that declare a western encoding often are UTF-8, and western words are never UTF-8 by chance. Words of other
    encodings can be, such as one for water in GBK, so their declaration is taken first.
    """
    name = declared if declared.startswith("LDID") else re.sub(r"\D", "", declared)
    if name in _LATIN:
        return "UTF-8", "CP1252", "ISO-8859-1"
    if name in _DOS:
        return "UTF-8", None
    is_other = declared and name != "65001" and not declared.upper().startswith("UTF")
    return (None,) if is_other else ("UTF-8",)


def _declared_encoding(source: str, path: str) -> str:
    """What the .cpg file of a Shapefile says, else "LDID" and the number in its table; empty if neither says it."""
    shapefile: Path | zipfile.Path = Path(path)
    if shapefile.suffix.lower() in _ARCHIVES:
        members = [name for name in _members(path) if source in (path, f"/vsizip/{Path(path).resolve()}/{name}")]
        shapefile = zipfile.Path(path, members[0]) if members else shapefile
    if Path(shapefile.name).suffix.lower() != ".shp":
        return ""
    if written := _start_of(shapefile, ".cpg").decode("latin-1").strip():
        return written
    number = _start_of(shapefile, ".dbf")[29:30]
    return f"LDID{number[0]}" if number not in (b"", b"\0") else ""


def _start_of(shapefile: Path | zipfile.Path, suffix: str) -> bytes:
    """The first bytes of the file with another suffix beside a Shapefile; empty if there is none."""
    folder: Any = shapefile.parent
    for name in (suffix, suffix.upper()):
        try:
            with (folder / f"{Path(shapefile.name).stem}{name}").open("rb") as file:
                start: bytes = file.read(32)
                return start
        except (OSError, KeyError, ValueError):
            continue
    return b""


def _source(path: str, layer: str | None) -> str:
    """What GDAL opens: the file, or the vector file in an archive."""
    if Path(path).suffix.lower() not in _ARCHIVES or path.lower().endswith((".shz", ".gpkg.zip", ".gdb.zip")):
        return path  # GDAL reads these archives by itself
    members = _members(path)
    if len(members) > 1 and layer is not None:
        members = [name for name in members if layer in (Path(name).stem, Path(name).name)] or members
    if len(members) != 1:
        listed = f"holds {', '.join(members[:5])}" if members else "holds no vector file"
        raise LabelError(
            f"{path} {listed}. Expected one vector file. Name one with --label-layer {Path(members[0]).stem}, or "
            "unpack the archive." if members else f"{path} {listed}. Unpack the archive, or check the path."
        )  # fmt: skip
    return f"/vsizip/{Path(path).resolve()}/{members[0]}"


def _choose_layer(
    source: str, path: str, field: str | None, layer: str | None, types: Sequence[str]
) -> tuple[str, tuple[str, ...]]:
    """The name of the layer with the features, and the names of the others."""
    kinds = dict(pyogrio.list_layers(source).tolist())
    names = [name for name in kinds if name not in _SYSTEM_LAYERS]
    # The only layer of a GeoJSON or Shapefile has a name that GDAL makes up, or one from before the file was renamed;
    # and the name may be that of a file in an archive.
    of_file = [each for file in {source, path} for each in (Path(file).stem, Path(file).name)]
    is_file = source != path and layer in (Path(source).stem, Path(source).name)
    has_names = len(names) > 1 or (names and source.lower().endswith(_CONTAINERS) and not is_file)
    _require_layer(path, layer, names, () if has_names else of_file)
    if layer is not None and has_names:
        return layer, tuple(name for name in names if name != layer)
    spatial = [name for name in names if kinds[name] is not None]
    if len(spatial) <= 1:
        # Of tables without geometries too, so that the reader says what the file is.
        return (spatial or names or list(kinds) or [""])[0], ()
    fitting = [name for name in spatial if _fits(source, name, str(kinds[name]), field, types)]
    if len(fitting) == 1:
        return fitting[0], tuple(name for name in names if name != fitting[0])
    sought = " or ".join(types) + (f" and column '{field}'" if field else "")
    if not fitting:
        raise LabelError(
            f"{path} has no layer with {sought}. Its layers are {', '.join(spatial)}. Check the column, or name the "
            "layer with --label-layer."
        )
    raise LabelError(
        f"{path} has {len(fitting)} layers with {sought}: {', '.join(fitting)}. Expected one. Name it with "
        f"--label-layer (of labels and references), or save it alone "
        f'("ogr2ogr only.gpkg {Path(path).name} {fitting[0]}").'
    )


def _require_layer(path: str, layer: str | None, names: Sequence[str], also: Sequence[str]) -> None:
    """Refuse a layer that is none of `names`, those of a file; `also` are other names by which they may be called."""
    if layer is None or not names or layer in (*names, *also):
        return
    layers = "layers are" if len(names) > 1 else "only layer is"
    raise LabelError(f"{path} has no layer '{layer}'. Its {layers} {', '.join(names)}. Choose one.")


def _fits(source: str, name: str, kind: str, field: str | None, types: Sequence[str]) -> bool:
    """True if a layer has geometries of `types` and the column."""
    if field is not None and normal(field) not in map(normal, pyogrio.read_info(source, layer=name)["fields"]):
        return False
    plain = kind.removeprefix("2.5D ").removeprefix("3D ").removesuffix(" ZM").removesuffix(" Z").removesuffix(" M")
    if plain not in ("Unknown", "GeometryCollection"):
        return any(plain in (each, f"Multi{each}", f"Curve{each}", "MultiSurface") for each in types)
    table = pyogrio.read_dataframe(source, layer=name, columns=[], on_invalid="ignore")
    return bool(table.geom_type.isin([*types, *(f"Multi{each}" for each in types), "GeometryCollection"]).any())


def _table_options(path: str) -> dict[str, Any]:
    """GDAL's options for the geometry columns of a text table, and its CRS ("crs") where they name degrees."""
    fields = {str(field).strip().lower(): str(field) for field in pyogrio.read_info(path)["fields"]}
    options: dict[str, Any] = {"AUTODETECT_TYPE": "YES", "EMPTY_STRING_AS_NULL": "YES"}
    words = [name for name in _WKT if name in fields]
    if words:
        return options | {"GEOM_POSSIBLE_NAMES": fields[words[0]], "KEEP_GEOM_COLUMNS": "NO"}
    for index, (x, y) in enumerate(_COORDINATES):
        if x in fields and y in fields:
            degrees = {"crs": "EPSG:4326"} if index < _DEGREES else {}
            return options | {"X_POSSIBLE_NAMES": fields[x], "Y_POSSIBLE_NAMES": fields[y]} | degrees
    raise LabelError(
        f"{path} is a table without geometries. Its columns are {', '.join(fields.values())}. Expected x and y, lon "
        "and lat, or WKT. Rename the columns of the coordinates."
    )


def features_sha256(path: str) -> str:
    """Hash of the geometries, columns and CRS of all layers. QGIS changes a database that it opens, but not these.

    Raises:
        LabelError: the file cannot be read.
    """
    digest = hashlib.sha256()
    with _one_line_errors(path):
        for name in sorted({name for name, _ in pyogrio.list_layers(path)} - _SYSTEM_LAYERS):
            meta, table = pyogrio.read_arrow(path, layer=name)
            digest.update(f"{name} {meta['crs']}".encode())
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, table.schema) as stream:
                stream.write_table(table.combine_chunks())
            digest.update(sink.getvalue())
    return digest.hexdigest()


def _from_json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text
