"""References: what maps are compared with, and which comparison fits."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from landscribe.assessment.accuracy import Assessment, assess_chips, assess_labels, assess_points
from landscribe.confusion import Confusion
from landscribe.data.chips.chips import Chips
from landscribe.data.scenes.label_polygons import is_vector
from landscribe.data.scenes.scene import open_labels
from landscribe.data.scenes.spec import SceneSpec
from landscribe.errors import RecipeError
from landscribe.geo.features import POINTS, Features, geometry_type
from landscribe.geo.rasters.raster import Raster
from landscribe.maps.class_map import ClassMap


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
    classes, label_field = ClassMap.of(mapped).classes, labels.get("label_field")
    is_points = is_vector(reference) and geometry_type(reference) in POINTS
    if label_field is None and is_vector(reference) and (is_points or len(classes.foreground) > 1):
        raise RecipeError(f"{reference} holds features of several classes. Name their class column with --label-field.")
    if is_points:
        points = Features.read(reference, field=label_field, geometry_types=POINTS).to_crs(
            mapped.grid.crs, mapped.paths[0]
        )
        table = classes if isinstance(points.labels[0], str) else classes.with_numeric_labels()
        values = table.values_of(points.labels, f"{reference}, column '{label_field}',")
        return assess_points(mapped, points, values, classes)
    if not is_vector(reference):
        classes = classes.with_numeric_labels()
    spec = SceneSpec.of({"image": mapped.paths, "labels": reference} | labels)
    return assess_labels(mapped, open_labels(spec, mapped, classes), classes)
