"""References: what maps are compared with, and which comparison fits."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from landscribe.assessment.accuracy import Assessment, assess_chips, assess_labels, assess_points
from landscribe.confusion import Confusion
from landscribe.data.chips.chips import Chips
from landscribe.data.scenes.label_formats import label_warnings
from landscribe.data.scenes.polygon_files import PolygonFiles, label_options
from landscribe.data.scenes.scene import open_labels
from landscribe.data.scenes.spec import SceneSpec
from landscribe.errors import ClassError, RecipeError
from landscribe.geo.classes import Classes, has_numbers, label_key
from landscribe.geo.features import Features, geometry_type
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.vectors.geometries import POINTS
from landscribe.geo.vectors.vector_files import is_vector
from landscribe.maps.class_map import CLASSES_TAG, ClassMap, classes_from_tag, read_tags

log = logging.getLogger(__name__)


def assess_maps(
    paths: Sequence[Path], reference: Chips | str | Path, *, split: str = "test", labels: dict[str, Any] | None = None
) -> Assessment:
    """Compare maps with chips, or one map with polygons, points or a label raster.

    Args:
        paths: class maps.
        reference: chips, a chips folder, or a file.
        split: split of the chips.
        labels: how to read a file: fields of SceneSpec.

    Raises:
        RecipeError: several maps with a file, or no class column for several classes.
    """
    maps, names = [Raster.open([path]) for path in paths], tuple(path.name for path in paths)
    if isinstance(reference, Chips) or (Path(reference) / "chips.json").exists():
        chips = Chips.of(reference)
        return Assessment(assess_chips(maps, chips.of_split(split)), names, chips.folder.name, split)
    if len(maps) > 1:
        raise RecipeError(
            f"{len(maps)} maps were given with one reference file. Give one map, or chips as the reference."
        )
    return Assessment(_assess_file(maps[0], str(reference), labels or {}), names, Path(reference).name)


def _assess_file(mapped: Raster, reference: str, labels: dict[str, Any]) -> Confusion:
    classes = ClassMap.of(mapped).classes
    spec = SceneSpec.of({"image": mapped.paths, "labels": reference} | labels)
    if not is_vector(reference):
        source = open_labels(spec, mapped, _as_in_raster(classes, reference))
        return assess_labels(mapped, source, classes)
    kind = geometry_type(reference, field=spec.label_field, layer=spec.label_layer, crs=spec.label_crs)
    is_points = kind in (*POINTS, "MultiPoint")
    if spec.label_field is None and (is_points or len(classes.foreground) > 1):
        raise RecipeError(f"{reference} holds features of several classes. Name their class column with --label-field.")
    if is_points:
        points = Features.read(reference, **label_options(spec), geometry_types=POINTS)
        points = points.on(mapped.grid, mapped.paths[0])
        table = _as_in(classes, points)
        values = table.values_of(points.labels, f"{reference}, column '{spec.label_field}',")
        return assess_points(mapped, points, values, classes)
    polygons = PolygonFiles()
    features = polygons.read(reference, **label_options(spec))
    table = classes if spec.label_field is None else _as_in(classes, features)
    _require_zero_is_decided(features, table, spec)
    source = open_labels(spec, mapped, table, polygons)
    for warning in label_warnings([source]):
        log.warning(warning)
    return assess_labels(mapped, source, classes)


def _as_in(classes: Classes, features: Features) -> Classes:
    """The class table for the labels of features: values replace words if the features hold numbers."""
    return classes.with_numeric_labels() if has_numbers(features.labels) else classes


def _as_in_raster(classes: Classes, reference: str) -> Classes:
    """The class table for a label raster: a map of Landscribe holds values, any other raster labels."""
    text = read_tags(Path(reference)).get(CLASSES_TAG)
    values = {entry.name: entry.value for entry in classes_from_tag(text)} if text else {}
    if not values.keys() >= set(classes.names):
        return classes.with_numeric_labels()
    return Classes(tuple(replace(entry, label=values[entry.name]) for entry in classes), classes.ignore)


def _require_zero_is_decided(features: Features, classes: Classes, spec: SceneSpec) -> None:
    """Raise ClassError if polygons have class 0, and the area between polygons would count as that class."""
    zero = next((entry for entry in classes if label_key(entry.label) == "0" == str(entry.value)), None)
    zeros = sum(label_key(label) == "0" for label in features.labels)
    if zero is None or not zeros or spec.sparse or spec.label_zero == "background":
        return
    raise ClassError(
        f"{features.name} has {zeros} polygons of class 0 ('{zero.name}'), and 0 is the value of the area between "
        "polygons. Pass --sparse if only polygons are the reference, or --label-zero background if the area between "
        "them is of class 0 too."
    )
