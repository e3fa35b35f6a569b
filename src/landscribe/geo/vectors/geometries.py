"""Geometries of a table of features: their types, and what is null, empty or invalid."""

import logging
import warnings
from collections.abc import Sequence

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray

from landscribe.errors import LabelError, counted
from landscribe.geo.vectors.columns import column

log = logging.getLogger(__name__)

POLYGONS = ("Polygon", "MultiPolygon")
POINTS = ("Point",)

_COLLECTION = shapely.GeometryType.GEOMETRYCOLLECTION


def usable_geometries(
    table: gpd.GeoDataFrame, name: str, types: Sequence[str], field: str | None, *, fix: bool
) -> gpd.GeoDataFrame:
    """The features whose geometries can be used; a warning says how many are dropped. MultiPoints become points.

    Args:
        table: features.
        name: of the file, for messages.
        types: the accepted types.
        field: the column of labels, which the warning counts; None without one.
        fix: make invalid geometries valid, take the polygons out of collections, and drop what is null or empty.

    Raises:
        LabelError: a geometry cannot be used.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of coordinates that are nan
        table, dropped = _valid(table, name, types, fix=fix)
    if len(dropped):
        _report_dropped(dropped, len(table) + len(dropped), name, types, field)
    if tuple(types) == POINTS and (table.geom_type == "MultiPoint").any():
        table = table.explode(ignore_index=True)
    counts = table.geometry.geom_type.value_counts(sort=False)
    others = {kind: int(count) for kind, count in counts.items() if kind not in types}
    if others:
        listed = ", ".join(f"{count} {kind}" for kind, count in others.items())
        raise LabelError(f"{name} holds {listed}. Expected {' or '.join(types)}. {_remedy(set(others), types)}")
    return table


def _remedy(kinds: set[str], types: Sequence[str]) -> str:
    """What to do about types that are not accepted."""
    if tuple(types) == POINTS:
        return "Give polygons and points in files of their own."
    if kinds == {"GeometryCollection"}:
        return "For labels, pass --fix-geometries to use the polygons in them; else save these alone."
    if kinds <= {"Point", "MultiPoint"}:
        return "Points can be a reference of assess; for labels, draw polygons around them (in QGIS: Buffer)."
    return "Turn lines into polygons (in QGIS: Lines to polygons if they are closed, else Buffer), or remove these."


def _report_dropped(dropped: gpd.GeoDataFrame, count: int, name: str, types: Sequence[str], field: str | None) -> None:
    """Warn of the dropped ones of so many features, by label."""
    # As text: lists and objects cannot be counted.
    counts = {} if field is None else column(dropped, field, name).map(str).value_counts().to_dict()
    labels = ", ".join(f"{label} {count}" for label, count in counts.items())
    log.warning(
        "%s: --fix-geometries drops %d of %d features, which have no %s%s", name, len(dropped), count,
        "position" if tuple(types) == POINTS else "area", f" ({labels})" if labels else "",
    )  # fmt: skip


def _valid(
    table: gpd.GeoDataFrame, name: str, types: Sequence[str], *, fix: bool
) -> tuple[gpd.GeoDataFrame, gpd.GeoDataFrame]:
    """The features with valid geometries, and those that are dropped."""
    geometry = table.geometry
    null = geometry.isna()
    empty = ~null & geometry.is_empty
    invalid = ~null & ~empty & ~(geometry.is_valid & _is_finite(geometry.to_numpy()))
    collection = ~null & (geometry.geom_type == "GeometryCollection")
    if not (null | empty | invalid | (collection if fix else False)).any():
        return table, table[:0]
    problems = "; ".join(
        f"{int(rows.sum())} {problem} (feature {rows.to_numpy().argmax()})"
        for problem, rows in (("null", null), ("empty", empty), ("invalid", invalid))
        if rows.any()
    )
    if not fix:
        raise LabelError(
            f"{name} has bad geometries in its {counted(len(table), 'feature')}: {problems}. Correct the file (in "
            "QGIS: Fix geometries), or, for labels, pass --fix-geometries to make invalid ones valid and drop null "
            "and empty ones."
        )
    fixed = table.copy()
    fixed.geometry = gpd.GeoSeries(
        _fixed(geometry.to_numpy(), (invalid | collection).to_numpy(), types), index=table.index, crs=table.crs
    )
    is_dropped = fixed.geometry.isna() | fixed.geometry.is_empty
    if is_dropped.all():
        raise LabelError(
            f"{name} has bad geometries in its {counted(len(table), 'feature')}: "
            f"{problems or 'collections without polygons'}. None of them can be fixed. Correct the file."
        )
    return fixed[~is_dropped], fixed[is_dropped]


def _is_finite(geometries: NDArray[np.object_]) -> NDArray[np.bool_]:
    """True for geometries whose coordinates are all finite."""
    xy, index = shapely.get_coordinates(geometries, return_index=True)
    finite = np.ones(len(geometries), bool)
    finite[index[~np.isfinite(xy).all(axis=1)]] = False
    return finite


def _fixed(geometries: NDArray[np.object_], bad: NDArray[np.bool_], types: Sequence[str]) -> NDArray[np.object_]:
    """Geometries with the bad ones made valid; None where a coordinate is not finite."""
    fixed = geometries.copy()
    fixed[~_is_finite(geometries)] = None
    # A polygon without area, such as one that runs to and fro on a line, becomes empty rather than a line.
    fixed[bad] = shapely.make_valid(fixed[bad], method="structure", keep_collapsed=False)
    for index in np.flatnonzero(shapely.get_type_id(fixed) == _COLLECTION):
        fixed[index] = _only(fixed[index], types)
    return fixed


def _only(collection: shapely.GeometryCollection, types: Sequence[str]) -> shapely.Geometry:
    """The parts of a collection that are of these types, as one geometry."""
    parts = list(shapely.get_parts(collection))
    while any(part.geom_type == "GeometryCollection" for part in parts):
        parts = [inner for part in parts for inner in shapely.get_parts(part)]
    return shapely.union_all([part for part in parts if part.geom_type in types])
