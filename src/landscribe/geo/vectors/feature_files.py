"""Feature files: polygons are written as a stream, so that memory does not grow with their number."""

import json
import logging
import sqlite3
import string
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pyproj
from pyogrio.errors import DataLayerError, DataSourceError, FeatureError, GeometryError
from pyogrio.util import vsi_path
from rasterio.crs import CRS

from landscribe.errors import OutputError
from landscribe.geo.grid import crs_label, is_local_crs
from landscribe.outputs import atomic_files

log = logging.getLogger(__name__)
_STYLE_MARK = "Landscribe wrote this style for "

GEOMETRY = "geometry"
"""The column of geometries, as WKB."""
GEOMETRY_FIELD = pa.field(GEOMETRY, pa.binary(), metadata={"ARROW:extension:name": "geoarrow.wkb"})

METADATA_URI = "urn:landscribe:layer"
"""Names our metadata among those of a GeoPackage."""

_DATE = "OGR_CURRENT_DATE"
_RESERVED = ("gpkg", "rtree_", "sqlite_", "layer_styles")
"""First letters of the tables that a GeoPackage has itself, and its table of styles."""
_SHAPEFILE_NAME = 10
"""Characters of the longest column name of a Shapefile."""
_SHAPEFILE_BYTES = 254
"""Bytes of the longest words in a Shapefile."""
_ERRORS = (DataSourceError, DataLayerError, FeatureError, GeometryError, RuntimeError, OSError, pa.ArrowException)


@dataclass(frozen=True)
class FeatureStream:
    """A stream of features with one table layout."""

    schema: pa.Schema
    """Of the columns; the last is `GEOMETRY_FIELD`."""
    batches: Callable[[], Iterator[pa.RecordBatch]]
    """Starts the stream."""
    geometry_type: str
    """Polygon, MultiPolygon or Point."""
    crs: str | None
    """WKT."""
    layer: str
    """Name of the layer."""
    style: str | None = None
    """A QGIS style."""
    metadata: str | None = None
    """JSON about the layer; only a GeoPackage holds it."""


def write_features(features: FeatureStream, path: Path) -> None:
    """Write features; the suffix chooses the format.

    Law: the same features give the same bytes.

    Raises:
        OutputError: the suffix is unknown, the format cannot hold the features, or the file cannot be written.
    """
    write = FEATURE_FORMATS[require_feature_suffix(path)]
    with atomic_files(path) as temporary:
        write(features, temporary)
        own_style = path.with_suffix(".qml")
        if features.style is not None and path.suffix.lower() != ".gpkg" and may_write_style(own_style, features.style):
            temporary.with_suffix(".qml").write_text(features.style, encoding="utf-8")


def require_feature_suffix(path: Path) -> str:
    """The suffix of a path, in small letters; OutputError if no format has it, or GDAL would write another path."""
    suffix = path.suffix.lower()
    if suffix not in FEATURE_FORMATS:
        raise OutputError(f"{path} has no suffix for polygons. Give it one of {', '.join(FEATURE_FORMATS)}.")
    if suffix != ".parquet" and vsi_path(path) != str(path):
        raise OutputError(
            f"{path} would be written as {vsi_path(path)}, for GDAL reads ! and ; as parts of an address. Choose a "
            "path without them."
        )
    return suffix


def style_mark(kind: str) -> str:
    """The comment by which a QGIS style is known as written by Landscribe, for files of a kind."""
    return f"<!-- {_STYLE_MARK}{kind} -->"


def may_write_style(path: Path, style: str) -> bool:
    """False, with a warning, where a QGIS style lies that is of a user or of files of another kind.

    Args:
        path: of the style. Files of one name and different suffixes share it.
        style: with its `style_mark`.
    """
    mark = next(line for line in style.splitlines() if _STYLE_MARK in line)
    if not path.is_file() or mark in path.read_text(encoding="utf-8", errors="replace"):
        return True
    log.warning("%s is another style, so it stays and no style was written. Choose another name, or remove it", path)
    return False


def _write_geopackage(features: FeatureStream, path: Path) -> None:
    layer = _table_name(features.layer)
    _write_by_gdal(replace(features, layer=layer), path, "GPKG", {"GEOMETRY_NAME": "geom"})
    if features.style is not None:
        _store_style(path, layer, features.style)
    if features.metadata is not None:
        _store_metadata(path, layer, features.metadata)


def _table_name(layer: str) -> str:
    """A name that a layer of a GeoPackage may have: no leading special character, not of a table of its own.

    >>> [_table_name(name) for name in ("fields 2", "(1) map", "GPKG_map", "-")]
    ['fields 2', '1) map', 'map_GPKG_map', 'map_']
    """
    name = layer.lstrip(string.punctuation.replace("_", ""))
    is_reserved = not name or name.lower().startswith(_RESERVED)
    return f"map_{name}" if is_reserved else name


def _write_flatgeobuf(features: FeatureStream, path: Path) -> None:
    _write_by_gdal(features, path, "FlatGeobuf", {})


def _write_geojson(features: FeatureStream, path: Path) -> None:
    crs = None if features.crs is None else CRS.from_wkt(features.crs)
    if crs is None or is_local_crs(crs):
        lacks = "no CRS" if crs is None else f"a CRS without a position on Earth ({crs_label(crs)})"
        raise OutputError(
            f"{path.name} would be in longitude and latitude (RFC 7946), but the raster has {lacks}. Write .gpkg, or "
            "assign the CRS with rio edit-info --crs."
        )
    _write_by_gdal(features, path, "GeoJSON", {"RFC7946": "YES"})


def _write_shapefile(features: FeatureStream, path: Path) -> None:
    names = {name: _SHORT.get(name, name[:_SHAPEFILE_NAME]) for name in features.schema.names}
    changed = [f"{name} is {short}" for name, short in names.items() if name not in (short, GEOMETRY)]
    if changed:
        log.warning(
            "a Shapefile has column names of at most %d characters: %s. It holds at most 2 GB. .gpkg has no such "
            "limits", _SHAPEFILE_NAME, ", ".join(changed),
        )  # fmt: skip
    schema = pa.schema([field.with_name(names[field.name]) for field in features.schema])
    renamed = FeatureStream(
        schema, lambda: (_shortened(batch.rename_columns(schema.names), schema) for batch in features.batches()),
        features.geometry_type, features.crs, features.layer,
    )  # fmt: skip
    written = path.with_suffix(".shp")  # GDAL writes no .SHP
    _write_by_gdal(renamed, written, "ESRI Shapefile", {"ENCODING": "UTF-8"})
    written.rename(path)


def _shortened(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """A batch whose words fit in a Shapefile; warns of those that do not."""
    columns = batch.columns
    for index, field in enumerate(schema):
        if field.type != pa.string():
            continue
        words = columns[index].dictionary_encode()
        whole = words.dictionary.to_pylist()
        short = [word.encode()[:_SHAPEFILE_BYTES].decode(errors="ignore") for word in whole]
        if short != whole:
            log.warning(
                "a Shapefile holds words of at most %d bytes: %s %r ends after %d characters. .gpkg has no such limit",
                _SHAPEFILE_BYTES, field.name, *next((b, len(b)) for a, b in zip(whole, short, strict=True) if a != b),
            )  # fmt: skip
            columns[index] = pa.array(short, pa.string()).take(words.indices)
    return pa.RecordBatch.from_arrays(columns, schema=schema)


_SHORT = {"perimeter_m": "perim_m", "probability": "prob", GEOMETRY: GEOMETRY}
"""Column names of a Shapefile."""


def _write_by_gdal(features: FeatureStream, path: Path, driver: str, options: dict[str, str]) -> None:
    stream = _Stream(features)
    with fixed_date(), _output_errors(path, stream), warnings.catch_warnings():
        # A raster without a CRS has polygons without one.
        warnings.filterwarnings("ignore", message="'crs' was not provided")
        pyogrio.raw.write_arrow(
            stream.reader(), path, layer=features.layer, driver=driver, geometry_name=GEOMETRY,
            geometry_type=features.geometry_type, crs=features.crs, layer_options=options,
        )  # fmt: skip


def _write_geoparquet(features: FeatureStream, path: Path) -> None:
    """GeoParquet 1.0.0."""
    crs = None if features.crs is None else json.loads(pyproj.CRS.from_wkt(features.crs).to_json())
    column = {"encoding": "WKB", "geometry_types": [features.geometry_type], "crs": crs}
    about = {"version": "1.0.0", "primary_column": GEOMETRY, "columns": {GEOMETRY: column}}
    schema = features.schema.with_metadata({"geo": json.dumps(about)})
    stream = _Stream(features)
    with _output_errors(path, stream), pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in stream.batches():
            writer.write_batch(batch)


FEATURE_FORMATS: dict[str, Callable[[FeatureStream, Path], None]] = {
    ".gpkg": _write_geopackage,
    ".fgb": _write_flatgeobuf,
    ".parquet": _write_geoparquet,
    ".geojson": _write_geojson,
    ".shp": _write_shapefile,
}
"""How features are written, by suffix."""


class _Stream:
    """The batches of features; keeps the error that ended them, which does not pass through GDAL."""

    def __init__(self, features: FeatureStream) -> None:
        self.features = features
        self.error: BaseException | None = None

    def batches(self) -> Iterator[pa.RecordBatch]:
        try:
            yield from self.features.batches()
        except BaseException as error:
            self.error = error
            raise

    def reader(self) -> pa.RecordBatchReader:
        return pa.RecordBatchReader.from_batches(self.features.schema, self.batches())


@contextmanager
def _output_errors(path: Path, stream: _Stream) -> Iterator[None]:
    """Raise the error that ended the stream; turn one of the writing library into an OutputError."""
    try:
        yield
    except BaseException as error:
        if stream.error is not None and not isinstance(stream.error, GeneratorExit):
            raise stream.error from None
        if not isinstance(error, _ERRORS):
            raise
        reason = " ".join(str(error).split())
        raise OutputError(
            f"{path.name} could not be written whole ({reason}), most often because the disk is full. Free some space, "
            "or write to another disk."
        ) from error


@contextmanager
def fixed_date() -> Iterator[None]:
    """Let a GeoPackage hold a fixed date of its last change, so that the same features give the same bytes."""
    before = pyogrio.get_gdal_config_option(_DATE)
    pyogrio.set_gdal_config_options({_DATE: "2000-01-01T00:00:00Z"})
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options({_DATE: before})


def _store_style(path: Path, layer: str, style: str) -> None:
    """Store a QGIS style as the default of a layer, in the table in which QGIS keeps them."""
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(
            "CREATE TABLE layer_styles (id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, f_table_catalog TEXT(256), "
            "f_table_schema TEXT(256), f_table_name TEXT(256), f_geometry_column TEXT(256), styleName TEXT(30), "
            "styleQML TEXT, styleSLD TEXT, useAsDefault BOOLEAN, description TEXT, owner TEXT(30), ui TEXT(30), "
            "update_time DATETIME)"
        )
        database.execute(
            "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, f_geometry_column, styleName, "
            "styleQML, styleSLD, useAsDefault, description, owner) VALUES ('', '', ?, 'geom', 'classes', ?, '', 1, "
            "'Colours of the classes', '')",
            (layer, style),
        )
        database.execute(
            "INSERT INTO gpkg_contents (table_name, data_type, identifier, description, last_change) "
            "VALUES ('layer_styles', 'attributes', 'layer_styles', '', '2000-01-01T00:00:00Z')"
        )


def _store_metadata(path: Path, layer: str, metadata: str) -> None:
    """Store JSON about a layer, in the tables of the GeoPackage extension for metadata (OGC 12-128r18, annex F.8)."""
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(
            "CREATE TABLE gpkg_metadata (id INTEGER CONSTRAINT m_pk PRIMARY KEY ASC NOT NULL, md_scope TEXT NOT NULL "
            "DEFAULT 'dataset', md_standard_uri TEXT NOT NULL, mime_type TEXT NOT NULL DEFAULT 'text/xml', metadata "
            "TEXT NOT NULL DEFAULT '')"
        )
        database.execute(
            "CREATE TABLE gpkg_metadata_reference (reference_scope TEXT NOT NULL, table_name TEXT, column_name TEXT, "
            "row_id_value INTEGER, timestamp DATETIME NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ','now')), "
            "md_file_id INTEGER NOT NULL, md_parent_id INTEGER, "
            "CONSTRAINT crmr_mfi_fk FOREIGN KEY (md_file_id) REFERENCES gpkg_metadata(id), "
            "CONSTRAINT crmr_mpi_fk FOREIGN KEY (md_parent_id) REFERENCES gpkg_metadata(id))"
        )
        database.executemany(
            "INSERT INTO gpkg_extensions VALUES (?, NULL, 'gpkg_metadata', "
            "'http://www.geopackage.org/spec121/#extension_metadata', 'read-write')",
            [("gpkg_metadata",), ("gpkg_metadata_reference",)],
        )
        database.execute(
            "INSERT INTO gpkg_metadata VALUES (1, 'dataset', ?, 'application/json', ?)", (METADATA_URI, metadata)
        )
        database.execute(
            "INSERT INTO gpkg_metadata_reference VALUES ('table', ?, NULL, NULL, '2000-01-01T00:00:00Z', 1, NULL)",
            (layer,),
        )


def read_layer_metadata(path: Path) -> tuple[str, str] | None:
    """The layer of a GeoPackage that `FeatureStream.metadata` was stored of, and the JSON; None without it."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            row: tuple[str, str] | None = database.execute(
                "SELECT table_name, metadata FROM gpkg_metadata JOIN gpkg_metadata_reference ON md_file_id = id "
                "WHERE md_standard_uri = ? AND reference_scope = 'table'",
                (METADATA_URI,),
            ).fetchone()
    except sqlite3.Error:  # not a GeoPackage, or one without metadata
        return None
    return row


def record_batch(columns: Iterable[Any], schema: pa.Schema) -> pa.RecordBatch:
    """A batch of features from arrays in the order of the schema; NaN is null."""
    arrays = [pa.array(column, field.type, from_pandas=True) for column, field in zip(columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
