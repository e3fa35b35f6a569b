"""Class tables that maps and a reference share."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from landscribe.data.scenes.polygon_files import label_options
from landscribe.data.scenes.scene import open_labels
from landscribe.data.scenes.spec import SceneSpec
from landscribe.errors import ClassError, LandscribeError, RecipeError, counted, listed
from landscribe.geo.classes import (
    BACKGROUND,
    IGNORE,
    ClassEntry,
    Classes,
    default_colour,
    has_numbers,
    label_key,
    values_that_occur,
)
from landscribe.geo.features import Features, geometry_type
from landscribe.geo.rasters.derived.converted import filled
from landscribe.geo.rasters.nodata import nodata_label
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.spec import NodataValue
from landscribe.geo.vectors.geometries import POINTS, POLYGONS
from landscribe.geo.vectors.vector_files import is_vector
from landscribe.maps.class_map import ClassMap, class_table_of, require_values
from landscribe.maps.legends.attribute_tables import AttributeTable

_STRIP_PIXELS = 2**23


def common_classes(maps: Sequence[Raster], reference_values: Callable[[], Iterable[int]]) -> Classes:
    """The class table of all maps. Maps without one have the values that occur in any of them and in the reference.

    They have the names that other programs keep beside the maps. A class that such maps miss entirely has a producer's
    accuracy of 0, and is not left out. The nodata value of a map is not among them: the user says if it is a class.

    Args:
        maps: class maps.
        reference_values: finds the class values of the reference; called only if no map has a table.

    Raises:
        RecipeError: two maps have different tables, or names of a value.
        RasterError: a tag holds no class table, or nothing has a value.
    """
    opened = [ClassMap.of(mapped) for mapped in maps]
    if not any(own.table for own in opened):
        nodata = {mapped.nodata for mapped in maps}
        values = {value for own in opened for value in own.values}
        values |= {value for value in reference_values() if value not in nodata}
        require_values(values, *maps)
        return _common_names(opened).classes(values)
    first, *others = (own.classes for own in opened)
    for mapped, classes in zip(maps[1:], others, strict=True):
        if (classes.names, classes.values) != (first.names, first.values):
            raise RecipeError(
                f"{mapped.paths[0]} has the classes {', '.join(classes.names)}, but {maps[0].paths[0]} has "
                f"{', '.join(first.names)}. Assess maps with different class tables one by one."
            )
    return first


def _common_names(maps: Sequence[ClassMap]) -> AttributeTable:
    """The names and colours of the values of all maps."""
    names, colours = dict[int, str](), dict[int, str]()
    for own in maps:
        odd = [value for value, name in own.attributes.names.items() if names.get(value, name) != name]
        if odd:
            raise RecipeError(
                f"{own.raster.paths[0]} has '{own.attributes.names[odd[0]]}' as the name of value {odd[0]}, but "
                f"{maps[0].raster.paths[0]} or another map has '{names[odd[0]]}'. Assess maps with different classes "
                "one by one, or pass one table for all (--class-table)."
            )
        names |= own.attributes.names
        colours |= own.attributes.colours
    return AttributeTable(names, colours)


def values_in(mapped: Raster, spec: SceneSpec) -> set[int]:
    """The class values in a reference of numbers: of all features, or of a label raster where the map lies.

    There are none in a reference of words, or of one class, or in one that cannot be read, which the comparison says.

    Args:
        mapped: the map.
        spec: how its reference is read.
    """
    reference, ignored = str(spec.labels), {label_key(label) for label in spec.label_ignore or ()}
    values = [value for value in range(IGNORE) if str(value) not in ignored]
    try:
        if is_vector(reference):
            if spec.label_field is None:
                return set()
            types = POINTS if holds_points(spec) else POLYGONS
            labels = Features.read(reference, **label_options(spec), geometry_types=types).labels
            keys = {label_key(label) for label in labels} if has_numbers(labels) else set()
            return {value for value in values if str(value) in keys}
        table = as_in_raster(Classes.from_labels(values, background=False), reference)
        source = open_labels(spec, mapped, table)
        return set(values_that_occur(map(source.read, mapped.grid.strips(_STRIP_PIXELS))))
    except LandscribeError:
        return set()


def holds_points(spec: SceneSpec) -> bool:
    """Whether the features of a reference are points, not polygons.

    Raises:
        LabelError: it cannot be read.
    """
    kind = geometry_type(str(spec.labels), field=spec.label_field, layer=spec.label_layer, crs=spec.label_crs)
    return kind in (*POINTS, "MultiPoint")


def refuse_labels(error: ClassError, nodata: NodataValue, classes: Classes, spec: SceneSpec) -> None:
    """Raise the error of labels that are no classes with what to do about a class that the map lacks.

    Args:
        error: of the reference.
        nodata: of the map, which may be a class; None if it is none, or the user has named its class.
        classes: of the map.
        spec: how the reference is read.
    """
    if not error.labels:
        return
    # Only the background, or the class of the nodata value, may be the nodata of a map.
    may_be_nodata = {"0", BACKGROUND, nodata_label(nodata)}
    if nodata is not None and [label_key(label) in may_be_nodata for label in error.labels] == [True]:
        raise ClassError(
            f"{error} If nodata ({nodata_label(nodata)}) is a class of the map, pass --nodata-as with its name."
        ) from error
    column, names = spec.label_field, [entry.name for entry in classes.foreground]
    # Without a column, all polygons are of the only class besides the background.
    if column is not None and len(names) == 1 and not holds_points(spec):
        raise ClassError(
            f"{spec.labels}, column '{column}', holds {listed(map(repr, error.labels))}, but '{names[0]}' is the only "
            "class of the map besides the background. Leave out --label-field: all polygons are then of this class."
        ) from error
    raise ClassError(f"{error} The table is a CSV file of value and name: --class-table.") from error


def require_zero_is_decided(features: Features, classes: Classes, spec: SceneSpec) -> None:
    """Raise ClassError if polygons have class 0, and the area between polygons would count as that class."""
    zero = next((entry for entry in classes if label_key(entry.label) == "0" == str(entry.value)), None)
    zeros = sum(count for label, count in Counter(features.labels).items() if label_key(label) == "0")
    if zero is None or not zeros or spec.sparse or spec.label_zero == "background":
        return
    raise ClassError(
        f"{features.name} has {counted(zeros, 'polygon')} of class 0 ('{zero.name}'), and 0 is the value of the area "
        "between polygons. Pass --sparse if only polygons are the reference, or --label-zero background if the area "
        "between them is of class 0 too."
    )


def with_class(mapped: Raster, classes: Classes, name: str | None) -> Raster:
    """The map with the value of a class wherever it has none; as it is if the name is None.

    Raises:
        RecipeError: no class has the name.
    """
    return mapped if name is None else filled(mapped, value_of_nodata(classes, name))


def value_of_nodata(classes: Classes, name: str) -> int:
    """The value of the class `name`, which pixels without a value get.

    Raises:
        RecipeError: no class has the name.
    """
    if name not in classes.names:
        raise RecipeError(f"--nodata-as is '{name}', but the classes are {', '.join(classes.names)}. Name one of them.")
    return classes.values[classes.names.index(name)]


def with_background(classes: Classes, mapped: Raster) -> Classes:
    """The class table of a map whose nodata is background: of a map of others, it may not list that class."""
    if BACKGROUND in classes.names:
        return classes
    value = int(mapped.nodata) if isinstance(mapped.nodata, (int, float)) and 0 <= mapped.nodata <= 254 else 0
    if value in classes.values:
        return classes
    entry = ClassEntry(value, BACKGROUND, default_colour(0, background=True), value)
    return Classes(tuple(sorted((entry, *classes), key=lambda row: row.value)), classes.ignore, classes.unknown)


def as_in_features(classes: Classes, features: Features) -> Classes:
    """The class table for the labels of features: values replace words if they are numbers, names numbers if not."""
    return classes.with_numeric_labels() if has_numbers(features.labels) else classes.with_named_labels()


def as_in_raster(classes: Classes, reference: str) -> Classes:
    """The class table for a label raster: one that gives names of these classes to other values has them by name.

    Any other raster holds labels that are numbers, or values.
    """
    table, numeric = class_table_of(reference), classes.with_numeric_labels()
    names = AttributeTable.of(reference).names if table is None else {entry.value: entry.name for entry in table}
    by_name = {name.casefold(): value for value, name in names.items()}
    if all(by_name.get(entry.name.casefold(), entry.label) == entry.label for entry in numeric):
        return numeric
    taken = set(map(label_key, names))
    entries = (
        # The value of a class that the reference lacks is that of another class there: nothing has the word as label.
        replace(
            entry,
            label=by_name.get(entry.name.casefold(), entry.name if label_key(entry.label) in taken else entry.label),
        )
        for entry in numeric
    )
    return Classes(tuple(entries), classes.ignore, classes.unknown)
