"""References: what maps are compared with, and which comparison fits."""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from landscribe.assessment.accuracy import MOST_APART, Assessment, assess_chips, assess_labels, assess_points
from landscribe.assessment.blocks import bootstrap
from landscribe.assessment.calibration import Probabilities
from landscribe.assessment.counting import Counting, PixelCounts, pooled
from landscribe.assessment.regions import Regions
from landscribe.assessment.samples import SampleAssessment, assess_sample
from landscribe.assessment.spec import AccuracySpec, AssessSpec, IntervalSpec
from landscribe.data.chips.chips import Chips
from landscribe.data.scenes.label_formats import label_warnings
from landscribe.data.scenes.label_raster import NODATA_IGNORED
from landscribe.data.scenes.polygon_files import PolygonFiles, label_options
from landscribe.data.scenes.scene import open_labels
from landscribe.data.scenes.spec import SceneSpec
from landscribe.errors import ClassError, LabelError, RecipeError, counted, listed
from landscribe.estimation.reference_sample import holds_design, refuse_lost_design
from landscribe.geo.classes import BACKGROUND, ClassEntry, Classes, default_colour, has_numbers, label_key
from landscribe.geo.features import Features, geometry_type
from landscribe.geo.inputs import RASTER_SUFFIXES, files_in
from landscribe.geo.rasters.derived.converted import filled
from landscribe.geo.rasters.metadata import stem
from landscribe.geo.rasters.nodata import nodata_label
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.vectors.geometries import POINTS
from landscribe.geo.vectors.vector_files import VECTOR_SUFFIXES, is_vector
from landscribe.maps.class_map import CLASSES_TAG, ClassMap, classes_from_tag, read_tags, trained_splits_in
from landscribe.runs import scene_in_name

log = logging.getLogger(__name__)

_UNMAPPED = 0.01
"""Share of the reference from which a warning says that the map has no class there."""


def assess_maps(
    paths: Sequence[Path],
    reference: Chips | str | Path,
    *,
    split: str = "test",
    nodata_as: str | None = None,
    labels: dict[str, Any] | None = None,
    spec: AccuracySpec | None = None,
    seed: int = 0,
) -> Assessment | SampleAssessment:
    """Compare maps with chips, polygons, points or a label raster; or estimate from a reference sample.

    Args:
        paths: class maps. With polygons or a label raster, pixels of two maps that overlap count in both.
        reference: chips, a chips folder, a file, or a folder with a file for each map, which has its name.
        split: split of the chips.
        nodata_as: name of the class that pixels without a class have in the maps; they are left out if None.
        labels: how to read a file: fields of SceneSpec.
        spec: settings of the measures.
        seed: of the resamples from which intervals follow.

    Raises:
        LabelError: a map has no file in the folder.
        SampleError: units of a reference sample have no reference class.
        RecipeError: a map is no raster, maps have different class tables, or several classes have no class column.
    """
    features = [path for path in paths if is_vector(str(path))]
    if features:
        raise RecipeError(
            f"{features[0]} holds features, not pixels. Expected a class map; or pass --objects to compare polygons "
            "with reference polygons."
        )
    spec = spec or AccuracySpec()
    of_reference = (labels or {}) | ({} if nodata_as is None else {"nodata_as": nodata_as})
    _require_fields_of_reference(spec, reference, of_reference)
    counting = _counting(spec, paths)
    maps = [Raster.open([path]) for path in paths]
    of_split: str | None = None
    if isinstance(reference, Chips) or (Path(reference) / "chips.json").exists():
        chips, of_split = Chips.of(reference), split
        _refuse_for_chips(spec, chips.folder.name)
        _warn_of_trained_chips(paths, chips, split)
        maps = [_with_class(mapped, chips.classes, nodata_as) for mapped in maps]
        name, counts = chips.folder.name, assess_chips(maps, chips.of_split(split), counting)
    elif holds_design(Path(reference)):
        _refuse_for_points(spec, Path(reference).name)
        return assess_sample(_only(maps), Path(reference), spec)
    elif Path(reference).is_dir() and not is_vector(str(reference)):
        name, counts = Path(reference).name, _assess_folder(maps, Path(reference), labels or {}, nodata_as, counting)
    else:
        name, counts = Path(reference).name, _assess_file(maps, str(reference), labels or {}, nodata_as, counting)
    if counts.blocks is None:
        _refuse_for_points(spec, name)
    if counting.regions is not None and not counts.groups:
        log.warning("no compared pixel lies in a region of %s. Check extents and CRS", spec.regions)
    names = tuple(path.name for path in paths)
    by_group = {group: own.confusion for group, own in counts.groups.items()}
    intervals, *group_intervals = (
        None if own.blocks is None else bootstrap(own.blocks, spec.confidence, seed)
        for own in (counts, *counts.groups.values())
    )
    of_groups = {group: own for group, own in zip(by_group, group_intervals, strict=True) if own is not None}
    return _warned(Assessment(counts.confusion, names, name, of_split, by_group, intervals, counts.edges,
                              counts.calibration, of_groups))  # fmt: skip


def _require_fields_of_reference(spec: AccuracySpec, reference: Chips | str | Path, labels: dict[str, Any]) -> None:
    """Raise RecipeError for settings of samples with another reference, and of other references with a sample."""
    if not isinstance(reference, Chips) and holds_design(Path(reference)):
        odd = next(iter(labels), None)
        if odd is not None:
            raise RecipeError(f"--{odd.replace('_', '-')} is about labels, but {reference} is a sample. Leave it out.")
        return
    if spec.sample_labels is None and not spec.skip_unlabelled:
        return
    flag = "--skip-unlabelled" if spec.sample_labels is None else "--sample-labels"
    name = reference.folder if isinstance(reference, Chips) else reference
    raise RecipeError(f"{flag} is about a reference sample, but {name} holds no sampling design. Leave it out.")


def _counting(spec: AccuracySpec, maps: Sequence[Path]) -> Counting:
    if spec.probabilities is not None and len(maps) > 1:
        raise RecipeError(f"--probabilities is one file, but {len(maps)} maps were given. Assess them one by one.")
    return Counting(
        spec.block_size,
        None if spec.regions is None else Regions(spec.regions, spec.region_field),
        spec.edge_tolerance if spec.edges else None,
        None if spec.probabilities is None else Probabilities(Raster.open([spec.probabilities])),
        spec.dask,
    )


def _warn_of_trained_chips(paths: Sequence[Path], chips: Chips, split: str) -> None:
    """Warn of maps whose models were trained on held-out chips: a final model's, or a folds' ensemble's."""
    trained = [path for path in paths if split in trained_splits_in(read_tags(path), chips.sha256)]
    if trained and split != "train":
        log.warning(
            "the model of %s was trained on split %s of %s too: the measures are not its accuracy on other ground. "
            "Assess the map of a model that has not seen these chips; a run keeps it in assessed/ or folds/",
            trained[0], split, chips.folder,
        )  # fmt: skip


def _refuse_for_chips(spec: AccuracySpec, name: str) -> None:
    """Raise RecipeError for settings that need a reference without borders in it."""
    if spec.edges:
        raise RecipeError(
            f"{name} holds chips, whose borders cut edges. Expected polygons or a label raster for --edges. Leave it "
            "out."
        )
    _refuse_dask(spec, name, "chips")


def _refuse_dask(spec: AccuracySpec, name: str, content: str) -> None:
    if spec.dask is not None:
        raise RecipeError(
            f"--dask counts the strips of a map against polygons or a label raster, but {name} holds {content}. Leave "
            "it out."
        )


def _refuse_for_points(spec: IntervalSpec, name: str) -> None:
    """Raise RecipeError for settings that need a reference of more than points."""
    of_pixels: dict[str, Any] = {"--regions": spec.regions}
    if isinstance(spec, AccuracySpec):
        of_pixels |= {"--edges": spec.edges, "--probabilities": spec.probabilities}
        _refuse_dask(spec, name, "points")
    for flag, setting in of_pixels.items():
        if setting:
            raise RecipeError(
                f"{flag} needs polygons, a label raster or chips as the reference, but {name} holds points. Leave it "
                "out."
            )


def _assess_folder(
    maps: Sequence[Raster], folder: Path, labels: dict[str, Any], nodata_as: str | None, counting: Counting
) -> PixelCounts:
    """Compare each map with the file of a folder that has its name; each map is a group."""
    files = {file.stem: file for file in files_in(str(folder), VECTOR_SUFFIXES | RASTER_SUFFIXES)}
    stems = {mapped.name: scene_in_name(mapped.name, files) for mapped in maps}
    absent = [name for name, stem in stems.items() if stem is None]
    if absent:
        raise LabelError(
            f"{folder} has no reference for {listed(absent)} ({len(absent)} of {counted(len(maps), 'map')}). Expected "
            f"a file with the map's name for each, such as {absent[0]}.shp. Name a file, or add the missing ones."
        )
    _common_classes(maps)
    by_map = {
        mapped.name: _assess_file([mapped], str(files[str(stems[mapped.name])]), labels, nodata_as, counting)
        for mapped in maps
    }
    counts = pooled(by_map.values())
    return replace(counts, groups=counts.groups or by_map)


def _only(maps: Sequence[Raster]) -> Raster:
    """The map that a reference sample was drawn from."""
    if len(maps) > 1:
        raise RecipeError(f"a reference sample is that of one map, but there are {len(maps)}. Assess them one by one.")
    return maps[0]


def _warned(assessment: Assessment) -> Assessment:
    """The assessment, after a warning if much of the reference lies where the map has no class."""
    share = assessment.confusion.unmapped_share
    if share > _UNMAPPED:
        log.warning(
            "%.1f %% of the labelled reference lies where the map has no class (nodata): it is left out. If nodata is "
            "a class of the map, pass --nodata-as with its name, such as background", 100 * share,
        )  # fmt: skip
    return assessment


def _with_class(mapped: Raster, classes: Classes, name: str | None) -> Raster:
    """The map with the value of a class wherever it has none; as it is if the name is None."""
    if name is None:
        return mapped
    if name not in classes.names:
        raise RecipeError(f"--nodata-as is '{name}', but the classes are {', '.join(classes.names)}. Name one of them.")
    return filled(mapped, classes.values[classes.names.index(name)])


def _with_background(classes: Classes, mapped: Raster) -> Classes:
    """The class table of a map whose nodata is background: of a map of others, it may not list that class."""
    if BACKGROUND in classes.names:
        return classes
    value = int(mapped.nodata) if isinstance(mapped.nodata, (int, float)) and 0 <= mapped.nodata <= 254 else 0
    if value in classes.values:
        return classes
    entry = ClassEntry(value, BACKGROUND, default_colour(0, background=True), value)
    return Classes(tuple(sorted((entry, *classes), key=lambda row: row.value)), classes.ignore, classes.unknown)


def _assess_file(
    maps: Sequence[Raster], reference: str, labels: dict[str, Any], nodata_as: str | None, counting: Counting
) -> PixelCounts:
    classes, nodata = _common_classes(maps), maps[0].nodata
    if nodata_as == BACKGROUND:
        classes = _with_background(classes, maps[0])
    maps = [_with_class(mapped, classes, nodata_as) for mapped in maps]
    # The class table is that of the map: it says nothing about the reference's nodata.
    settings = {"labels": reference, "label_nodata_as": NODATA_IGNORED} | labels
    specs = [SceneSpec.of({"image": mapped.paths} | settings) for mapped in maps]
    try:
        if is_vector(reference):
            return _assess_vector(maps, specs, classes, counting)
        return _sum(maps, [partial(_assess_raster, *pair, classes, counting) for pair in zip(maps, specs, strict=True)])
    except ClassError as error:
        if nodata is None or nodata_as is not None:
            raise
        raise ClassError(
            f"{error} If nodata ({nodata_label(nodata)}) is a class of the map, pass --nodata-as with its name."
        ) from error


def _common_classes(maps: Sequence[Raster]) -> Classes:
    """The class table of all maps.

    Raises:
        RecipeError: two maps have different ones.
    """
    first, *others = (ClassMap.of(mapped).classes for mapped in maps)
    for mapped, classes in zip(maps[1:], others, strict=True):
        if (classes.names, classes.values) != (first.names, first.values):
            raise RecipeError(
                f"{mapped.paths[0]} has the classes {', '.join(classes.names)}, but {maps[0].paths[0]} has "
                f"{', '.join(first.names)}. Assess maps with different class tables one by one."
            )
    return first


def _sum(maps: Sequence[Raster], assessments: Sequence[Callable[[], PixelCounts]]) -> PixelCounts:
    """The sum over the maps that the reference covers, each of them a group; the others are named in a warning.

    Raises:
        LabelError: it covers none.
    """
    by_map, errors = {}, []
    for mapped, assess in zip(maps, assessments, strict=True):
        try:
            by_map[mapped.paths[0]] = assess()
        except LabelError as error:
            errors.append(error)
    if not by_map:
        raise errors[0]
    if errors:
        log.warning("left out: %d of %d maps: %s", len(errors), len(maps), errors[0])
    counts = pooled(by_map.values())
    if counts.groups or not 1 < len(by_map) <= MOST_APART:
        return counts
    names = [stem(path) for path in by_map]
    names = names if len(set(names)) == len(names) else list(by_map)
    return replace(counts, groups=dict(zip(names, by_map.values(), strict=True)))


def _assess_raster(mapped: Raster, spec: SceneSpec, classes: Classes, counting: Counting) -> PixelCounts:
    labels = open_labels(spec, mapped, _as_in_raster(classes, str(spec.labels)))
    return assess_labels(mapped, labels, classes, counting)


def _assess_vector(
    maps: Sequence[Raster], specs: Sequence[SceneSpec], classes: Classes, counting: Counting
) -> PixelCounts:
    spec = specs[0]
    reference, options = str(spec.labels), label_options(spec)
    if _is_points(spec, classes):
        points = Features.read(reference, **options, geometry_types=POINTS)
        log.warning(
            "%s holds no sampling design: accuracy is that of its points, without intervals and areas. Draw points "
            "with landscribe sample, or pass their strata to ls.estimate", points.name,
        )  # fmt: skip
        values = _as_in(classes, points).values_of(points.labels, f"{reference}, column '{spec.label_field}',")
        return assess_points(maps, points, values, classes)
    polygons = PolygonFiles()
    features = polygons.read(reference, **options)
    table = classes if spec.label_field is None else _as_in(classes, features)
    _require_zero_is_decided(features, table, spec)
    compare = partial(_assess_polygons, classes=table, polygons=polygons, counting=counting)
    return _sum(maps, [partial(compare, *pair) for pair in zip(maps, specs, strict=True)])


def _is_points(spec: SceneSpec, classes: Classes) -> bool:
    """Whether the reference is points, not polygons.

    Raises:
        RecipeError: features of several classes, and no column with the class.
    """
    reference = str(spec.labels)
    if spec.label_field is None:
        refuse_lost_design(Path(reference))
    kind = geometry_type(reference, field=spec.label_field, layer=spec.label_layer, crs=spec.label_crs)
    is_points = kind in (*POINTS, "MultiPoint")
    if spec.label_field is None and (is_points or len(classes.foreground) > 1):
        raise RecipeError(
            f"{reference} holds features of several classes. Name their class column with --label-field (in a run: "
            "--reference-field)."
        )
    return is_points


def counts_strips(spec: AssessSpec) -> bool:
    """True if the independent reference is compared strip by strip, which Dask can do: points are not."""
    if spec.reference is None or not is_vector(spec.reference):
        return spec.reference is not None
    return geometry_type(spec.reference, field=spec.reference_field) not in (*POINTS, "MultiPoint")


def require_reference(spec: AssessSpec, classes: Classes) -> None:
    """Refuse an independent reference or regions before anything is trained; whether they lie on a map shows later.

    Raises:
        LandscribeError: it cannot be read, names no class column, has labels that are no classes, or polygons of class
            0 between which is background.
    """
    if spec.regions is not None:
        Regions(spec.regions, spec.region_field)
    if spec.reference is None:
        return
    if holds_design(Path(spec.reference)):
        raise RecipeError(
            f"{spec.reference} is a sample of a map that exists, so it cannot be the reference of a new one. Finish "
            "the run without it, draw and label a sample of its map, and pass that to landscribe assess."
        )
    if not is_vector(spec.reference):
        Raster.open([spec.reference])
        return
    source = SceneSpec.of({"image": spec.reference, "labels": spec.reference, "label_field": spec.reference_field})
    options = label_options(source)
    if _is_points(source, classes):
        _refuse_for_points(spec, Path(spec.reference).name)
        options["geometry_types"] = POINTS
    features = Features.read(spec.reference, **options)
    if spec.reference_field is not None:
        where, table = f"{spec.reference}, column '{spec.reference_field}',", _as_in(classes, features)
        table.values_of(features.labels, where)
        if "geometry_types" not in options:
            _require_zero_is_decided(features, table, source)


def _assess_polygons(
    mapped: Raster, spec: SceneSpec, classes: Classes, polygons: PolygonFiles, counting: Counting
) -> PixelCounts:
    source = open_labels(spec, mapped, classes, polygons)
    for warning in label_warnings([source]):
        log.warning(warning)
    return assess_labels(mapped, source, classes, counting)


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
    zeros = sum(count for label, count in Counter(features.labels).items() if label_key(label) == "0")
    if zero is None or not zeros or spec.sparse or spec.label_zero == "background":
        return
    raise ClassError(
        f"{features.name} has {counted(zeros, 'polygon')} of class 0 ('{zero.name}'), and 0 is the value of the area "
        "between polygons. Pass --sparse if only polygons are the reference, or --label-zero background if the area "
        "between them is of class 0 too."
    )
