"""Objects of two files in one CRS, without those that the edge of the labelled area cuts."""

import logging
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from pandas.api.types import is_string_dtype
from rasterio.crs import CRS

from landscribe.assessment.objects.boundaries import rings_of
from landscribe.assessment.objects.matching import Pairs
from landscribe.assessment.spec import ObjectAssessmentSpec
from landscribe.data.scenes.polygon_files import require_stated_crs
from landscribe.data.scenes.spec import SceneSpec
from landscribe.errors import ClassError, LabelError, RecipeError, listed
from landscribe.geo.classes import label_key
from landscribe.geo.features import Features, extent_label
from landscribe.geo.grid import Grid, crs_label
from landscribe.geo.pixel_area import metres_per_unit
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.vectors.columns import column, labels_of
from landscribe.geo.vectors.geometries import POLYGONS, usable_geometries
from landscribe.geo.vectors.vector_files import is_vector, read_layer

log = logging.getLogger(__name__)

Floats = NDArray[np.float64]

_SCORE_FIELDS = ("score", "probability", "prob")
"""Of these columns the first one is used; vectorize writes the last one in a Shapefile, whose names are short."""
_PIXELS_A_SIDE = 20
"""Reprojected edges are exact to a tenth of a pixel, of which a typical object has this many on each side."""
_ON_EDGE = 0.2
"""Pixels from the edge of the labelled area up to which a polygon touches it: both may be reprojected."""
_MANY_PARTS = 10
"""Parts of a typical feature from which features seem to be dissolved."""
_LEAST_IOU = 0.5
"""The lowest IoU of a match."""


@dataclass(frozen=True, eq=False)
class Objects:
    """Polygons of a file, each an object. All arrays have one entry for each object."""

    name: str
    """Path of the file."""
    geometries: NDArray[np.object_]
    classes: NDArray[np.intp]
    """Index of the class."""
    vertices: NDArray[np.int64]
    """Vertices of all rings as they are in the file, the closing ones not counted."""
    metres: Floats
    """(n, 2, 2) `metres_per_unit` at the object."""
    scores: Floats | None = None
    """Larger for more certain objects."""

    def __len__(self) -> int:
        return len(self.geometries)

    def take(self, chosen: NDArray[Any]) -> "Objects":
        """The objects with these indices, or where a mask is True."""
        return replace(
            self,
            geometries=self.geometries[chosen],
            classes=self.classes[chosen],
            vertices=self.vertices[chosen],
            metres=self.metres[chosen],
            scores=None if self.scores is None else self.scores[chosen],
        )

    @property
    def square_metres(self) -> Floats:
        """Area of a square unit of the CRS at each object."""
        return np.linalg.det(self.metres)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Predicted and reference objects in the CRS of the predicted ones."""

    predicted: Objects
    reference: Objects
    class_names: tuple[str, ...]
    left_out: tuple[int, int] = (0, 0)
    """Predicted and reference objects that are not compared."""
    score_field: str | None = None


def read_comparison(objects: str, reference: str, labels: SceneSpec, spec: ObjectAssessmentSpec) -> Comparison:
    """Read two files of objects, and leave out those that cannot be compared.

    An object is left out that touches or crosses the edge of the labelled area, or lies outside, for its true shape is
    unlabelled there; and one that could match such an object of its class in the other file: its IoU with the part of
    that object inside the area is at least 0.5. Below that the two match at no threshold, whatever lies outside, so the
    object is missed or false: a wrong object that merges many and touches the edge excuses none of them.

    Args:
        objects: the predicted polygons.
        reference: the true polygons.
        labels: how the reference is read, and its labelled area.
        spec: class and score column of the objects.

    Raises:
        LabelError: a file cannot be used, or the two do not overlap.
        ClassError: no class is in both.
        RecipeError: the class column of the objects is named, but not that of the reference.
    """
    if spec.object_field is not None and labels.label_field is None:
        raise RecipeError(
            f"object_field is '{spec.object_field}', but the class column of the reference has no name. Expected both "
            "or neither. Name it with --label-field."
        )
    predicted, own_table, (scores, score_field) = _read(
        objects, spec.object_field or labels.label_field, labels, spec, own=True
    )
    true, table, _ = _read(reference, labels.label_field, labels, spec, own=False)
    require_stated_crs(true, labels)
    if labels.label_field is None:
        _report_classes(own_table, table)
    grid = _fine_grid(predicted if len(predicted) else true)
    reprojected = true.on(grid, objects)
    if shapely.is_empty(reprojected.geometries).any():
        raise LabelError(
            f"{reference} has objects outside the domain of {crs_label(grid.crs)}, the CRS of {objects}. Expected "
            "objects of the same ground. Clip them (ogr2ogr -clipsrc)."
        )
    if not len(predicted):
        predicted = replace(predicted, crs=true.crs)
    if len(predicted) and not shapely.box(*grid.bounds).intersects(
        shapely.box(*shapely.total_bounds(reprojected.geometries))
    ):
        raise LabelError(
            f"{objects} and {reference} do not overlap: the objects cover {extent_label(predicted.geometries)}, the "
            f"reference covers {extent_label(reprojected.geometries)}, both in the CRS of the objects. Check that the "
            "files belong together, and the CRS of each."
        )
    names, (predicted_classes, true_classes) = _classes(predicted, true, labels.label_field)
    comparison = Comparison(
        _objects(predicted, predicted.geometries, predicted_classes, grid, scores),
        _objects(true, reprojected.geometries, true_classes, grid),
        names,
        score_field=score_field,
    )
    if labels.labelled_area is None:
        return comparison
    area = _area(labels.labelled_area, labels.label_crs, grid, objects)
    return _within(comparison, area, grid, labels.labelled_area)


def _read(
    path: str, field: str | None, labels: SceneSpec, spec: ObjectAssessmentSpec, *, own: bool
) -> tuple[Features, gpd.GeoDataFrame, tuple[Floats | None, str | None]]:
    """The polygons of a file, and its table; of our `own` objects also the scores, and the name of their column."""
    read = read_layer(
        path,
        field=field,
        layer=None if own else labels.label_layer,
        types=POLYGONS,
        crs=labels.label_crs,
        may_be_empty=own,
    )
    table = usable_geometries(read.table, path, POLYGONS, field, fix=labels.fix_geometries)
    crs = CRS.from_wkt(table.crs.to_wkt())
    score_field = spec.score_field or next((name for name in _SCORE_FIELDS if name in table.columns), None)
    if table.empty:
        log.warning("%s holds no objects, so all reference objects are missed", path)
        scores = None if score_field is None else np.zeros(0)
        return Features(path, np.zeros(0, object), (), crs), table, (scores, score_field)
    features = Features(path, table.geometry.to_numpy(), labels_of(table, field, path), crs)
    _report_dissolved(features)
    return features, table, _scores(table, score_field, spec, path) if own and score_field else (None, None)


def _scores(
    table: gpd.GeoDataFrame, score_field: str, spec: ObjectAssessmentSpec, path: str
) -> tuple[Floats | None, str | None]:
    """The scores of objects and the name of their column; none if a column that nobody named does not hold numbers."""
    raw = column(table, score_field, path)
    try:
        scores = raw.astype(np.float64).to_numpy()
    except (ValueError, TypeError):
        scores = np.full(len(raw), np.nan)
    if np.isfinite(scores).all():
        return scores, score_field
    first = int((~np.isfinite(scores)).argmax())
    problem = f"{path}: the score column '{score_field}' holds {raw.tolist()[first]!r} in feature {first}"
    if spec.score_field is not None:
        raise LabelError(
            f"{problem}. Expected a number in each feature. Correct the column, or name another with --score-field."
        )
    log.warning("%s, so there is no average precision. Name another column with --score-field", problem)
    return None, None


def _report_classes(predicted: gpd.GeoDataFrame, true: gpd.GeoDataFrame) -> None:
    """Warn of a column of both files that seems to hold classes, which are compared as one."""
    for name in sorted(set(predicted.columns) & set(true.columns), key=lambda name: name != "class"):
        if name != "class" and not all(is_string_dtype(table[name]) for table in (predicted, true)):
            continue
        own, other = (set(map(label_key, table[name].dropna())) for table in (predicted, true))
        # The values of a column of ids do not repeat.
        is_repeated = name == "class" or len(own) < len(predicted) or len(other) < len(true)
        if own & other and len(own | other) > 1 and is_repeated:
            log.warning(
                "all objects are compared as one class, but both files have a column '%s' with %s. To compare class by "
                "class, pass --label-field %s", name, listed(sorted(own | other)), name,
            )  # fmt: skip
            return


def _report_dissolved(features: Features) -> None:
    """Warn of features that are the objects of a whole class."""
    parts = shapely.get_num_geometries(features.geometries)
    is_class_each = len(features) == len(set(features.labels)) and parts.min() > 1
    if is_class_each or np.median(parts) >= _MANY_PARTS:
        log.warning(
            "%s: %d features have %d parts, and each feature counts as one object. If each part is an object, run "
            "vectorize without --dissolve, or split the features (in QGIS: Multipart to singleparts)",
            features.name, len(features), parts.sum(),
        )  # fmt: skip


def _fine_grid(features: Features) -> Grid:
    """A grid over features, with pixels much smaller than a typical one of them."""
    left, bottom, right, top = shapely.total_bounds(features.geometries).tolist()
    side = math.sqrt(float(np.median(shapely.area(features.geometries)))) / _PIXELS_A_SIDE
    height, width = (max(1, math.ceil(length / side)) for length in (top - bottom, right - left))
    return Grid(features.crs, Affine(side, 0, left, 0, -side, top), height, width)


def _classes(
    predicted: Features, true: Features, field: str | None
) -> tuple[tuple[str, ...], tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """The names of the classes of both files, sorted, and the index of each object's class."""
    if field is None:
        both = np.zeros(len(predicted), np.intp), np.zeros(len(true), np.intp)
        return (Path(true.name).stem,), both
    keys = [[label_key(label) for label in features.labels] for features in (predicted, true)]
    if keys[0] and not set(keys[0]) & set(keys[1]):
        raise ClassError(
            f"{predicted.name} and {true.name} have no class in common: {listed(sorted(set(keys[0])))} and "
            f"{listed(sorted(set(keys[1])))}. Expected the same names. Check --label-field, and name the class column "
            "of the objects with --object-field."
        )
    names, indices = np.unique(np.concatenate(keys), return_inverse=True)
    return tuple(names.tolist()), (indices[: len(predicted)], indices[len(predicted) :])


def _objects(
    features: Features,
    geometries: NDArray[np.object_],
    classes: NDArray[np.intp],
    grid: Grid,
    scores: Floats | None = None,
) -> Objects:
    """The objects of a file, reprojected to a grid."""
    assert grid.crs is not None
    rings, owners = rings_of(features.geometries)
    counts = np.bincount(owners, shapely.get_num_coordinates(rings) - 1, len(features)).astype(np.int64)
    left, bottom, right, top = shapely.bounds(geometries).T
    centres = np.column_stack([left + right, bottom + top]) / 2
    # Of the smallest objects, steps of their size would be lost in rounding errors of coordinates.
    steps = np.maximum(np.sqrt(shapely.area(geometries)) / 2, grid.transform.a)
    metres = metres_per_unit(grid.crs, centres, steps)
    return Objects(features.name, geometries, classes, counts, metres, scores)


def _area(path: str, crs: str | None, grid: Grid, objects: str) -> Any:
    """The labelled area in the CRS of a grid: the polygons of a file, or the extent of a raster."""
    if is_vector(path):
        features = Features.read(path, crs=crs)
    else:
        raster = Raster.open([path])
        if raster.grid.crs is None:
            raise LabelError(f"{path} has no CRS, so it cannot be the labelled area of {objects}. Give polygons.")
        corners = [(0, 0), (0, raster.grid.width), raster.grid.shape, (raster.grid.height, 0)]
        extent = shapely.Polygon([raster.grid.xy(row, col) for row, col in corners])
        features = Features(path, np.array([extent], dtype=object), (path,), raster.grid.crs)
    return shapely.union_all(features.on(grid, objects).geometries)


def _within(comparison: Comparison, area: Any, grid: Grid, path: str) -> Comparison:
    """The comparison without the objects that are cut by the edge of an area or lie outside of it."""
    # A polygon that a map's edge cuts touches that edge, so it does not count as inside.
    interior = area.buffer(-_ON_EDGE * grid.transform.a, join_style="mitre")
    shapely.prepare(interior)
    sides = comparison.predicted, comparison.reference
    inside = [shapely.contains_properly(interior, objects.geometries) for objects in sides]
    excused = [
        _could_match(objects, own, other, ~whole, area)
        for objects, own, other, whole in zip(sides, inside, sides[::-1], inside[::-1], strict=True)
    ]
    kept = [own & ~other for own, other in zip(inside, excused, strict=True)]
    if not any(own.any() for own in kept):
        raise LabelError(
            f"none of the {len(sides[0])} polygons of {sides[0].name} and of the {len(sides[1])} of {sides[1].name} "
            f"lies within {path} without touching its edge. Check that the files belong together, and the CRS of each."
        )
    for objects, own, effect in zip(
        sides, kept, ("all reference objects are missed", "no object is right"), strict=True
    ):
        if len(own) and not own.any():
            log.warning(
                "none of the %d polygons of %s lies within %s without touching its edge: %s", len(objects),
                objects.name, path, effect,
            )  # fmt: skip
    left_out = tuple(int((~own).sum()) for own in kept)
    log.info(
        "%d of %d objects and %d of %d reference polygons are left out: the edge of %s cuts %d and %d of them, or "
        "they lie outside; %d and %d whole ones could match a polygon that is cut (IoU with its inner part >= %g)",
        left_out[0], len(sides[0]), left_out[1], len(sides[1]), path, *(int((~own).sum()) for own in inside),
        *(int(own.sum()) for own in excused), _LEAST_IOU,
    )  # fmt: skip
    predicted, reference = (objects.take(own) for objects, own in zip(sides, kept, strict=True))
    return replace(comparison, predicted=predicted, reference=reference, left_out=(left_out[0], left_out[1]))


def _could_match(
    objects: Objects, own: NDArray[np.bool_], others: Objects, cut: NDArray[np.bool_], area: Any
) -> NDArray[np.bool_]:
    """True for the objects of the mask `own` that could match a `cut` one of their class in the other file."""
    indices, cut_indices = np.flatnonzero(own), np.flatnonzero(cut)
    geometries, parts = objects.geometries[indices], others.geometries[cut_indices]
    pairs = Pairs.overlapping(geometries, parts)
    # A house inside a field that is cut cannot be a part of it: it is false.
    pairs = pairs.take(objects.classes[indices][pairs.first] == others.classes[cut_indices][pairs.second])
    # Of no other part is the area asked, and the edge may have many vertices.
    paired = np.unique(pairs.second)
    parts[paired] = shapely.intersection(parts[paired], area)
    # An object inside the area shares nothing with the rest of a cut one, so this IoU is no less than that of the two.
    iou = pairs.iou(shapely.area(geometries), shapely.area(parts))
    could = np.zeros(len(objects), bool)
    could[indices[pairs.first[iou >= _LEAST_IOU]]] = True
    return could
