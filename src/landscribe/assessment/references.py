"""References: what maps are compared with, and which comparison fits."""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

from landscribe.assessment.accuracy import MOST_APART, Assessment, assess_chips, assess_labels, assess_points
from landscribe.assessment.blocks import bootstrap
from landscribe.assessment.calibration import Probabilities
from landscribe.assessment.counting import Counting, PixelCounts, pooled
from landscribe.assessment.regions import Regions
from landscribe.assessment.samples import SampleAssessment, assess_sample
from landscribe.assessment.spec import AccuracySpec, AssessSpec, IntervalSpec, refuse_for_chips, refuse_for_points
from landscribe.data.chips.chips import Chips
from landscribe.data.scenes.label_formats import label_warnings
from landscribe.data.scenes.label_raster import NODATA_IGNORED
from landscribe.data.scenes.pairing import require_same_sizes
from landscribe.data.scenes.polygon_files import PolygonFiles, label_options, require_stated_crs
from landscribe.data.scenes.scene import open_labels
from landscribe.data.scenes.spec import SceneSpec
from landscribe.data.splits.groups import Split
from landscribe.errors import ChipError, ClassError, LabelError, RecipeError, counted, listed
from landscribe.estimation.reference_sample import holds_design, refuse_lost_design
from landscribe.geo.classes import BACKGROUND, Classes
from landscribe.geo.features import Features
from landscribe.geo.inputs import RASTER_SUFFIXES, files_in
from landscribe.geo.rasters.metadata import stem
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.vectors.geometries import POINTS
from landscribe.geo.vectors.vector_files import VECTOR_SUFFIXES, is_vector
from landscribe.maps.class_map import (
    ClassMap,
    is_trained_on,
    read_tags,
    scene_in_name,
    trained_splits_in,
    warn_of_overlaps,
)
from landscribe.maps.class_tables import (
    as_in_features,
    as_in_raster,
    common_classes,
    holds_points,
    refuse_labels,
    require_zero_is_decided,
    values_in,
    with_background,
    with_class,
)

log = logging.getLogger(__name__)

_UNMAPPED = 0.01
"""Share of the reference from which a warning says that the map has no class there."""


def assess_maps(
    paths: Sequence[Path],
    reference: Chips | str | Path,
    *,
    split: str | None,
    nodata_as: str | None,
    labels: dict[str, Any],
    spec: AccuracySpec,
    seed: int | None,
) -> Assessment | SampleAssessment:
    """Compare maps with chips, polygons, points or a label raster; or estimate from a reference sample.

    Args:
        paths: class maps. With polygons or a label raster, pixels where two maps overlap count in both (warned of).
        reference: chips, a chips folder, a file, or a folder with a file for each map, which has its name.
        split: split of the chips; None for test. Other references have none.
        nodata_as: name of the class that pixels without a class have in the maps; they are left out if None.
        labels: how to read a file: fields of SceneSpec.
        spec: settings of the measures.
        seed: of the resamples from which intervals follow; None for 0. Points and samples have no resamples.

    Raises:
        LabelError: a map has no file in the folder, or its files are of two kinds.
        SampleError: units of a reference sample have no reference class.
        RasterError: a map is no class raster.
        RecipeError: a map is no raster or given twice, maps have different class tables, several classes have no class
            column, or a setting means nothing with this reference.
    """
    features = [path for path in paths if is_vector(str(path))]
    if features:
        raise RecipeError(
            f"{features[0]} holds features, not pixels. Expected a class map; or pass --objects to compare polygons "
            "with reference polygons."
        )
    of_reference = labels | ({} if nodata_as is None else {"nodata_as": nodata_as})
    _require_fields_of_reference(spec, reference, of_reference)
    counting = _counting(spec, paths)
    _refuse_twice(paths)
    maps = [ClassMap.open(path).raster for path in paths]
    of_split, facts = None, dict[str, Any]()
    if isinstance(reference, Chips) or (Path(reference) / "chips.json").exists():
        chips, of_split = Chips.of(reference), split or "test"
        refuse_for_chips(spec, chips.folder.name)
        compared = _chips_of(chips, of_split)
        facts = _facts_of_chips(paths, compared, of_split)
        maps = [with_class(mapped, chips.classes, nodata_as) for mapped in maps]
        name, counts = chips.folder.name, assess_chips(maps, compared, counting)
    elif split is not None:
        raise RecipeError(f"--split is '{split}', but {reference} holds no chips. Leave it out.")
    elif holds_design(Path(reference)):
        refuse_for_points(spec.model_copy(update={"confidence": IntervalSpec().confidence}), seed, Path(reference).name)
        return assess_sample(_single_map(maps), Path(reference), spec)
    elif Path(reference).is_dir() and not is_vector(str(reference)):
        name = Path(reference).name
        counts = _assess_folder(maps, Path(reference), labels, nodata_as, counting, spec.class_table)
    else:
        name = Path(reference).name
        classes = _classes(maps, [str(reference)] * len(maps), labels, nodata_as, spec.class_table)
        counts = _assess_file(maps, str(reference), labels, nodata_as, counting, classes)
    if not isinstance(reference, Chips) and of_split is None:
        facts = {"is_of_training": any(is_trained_on(path, Path(reference)) for path in paths)}
    if counts.blocks is None:
        refuse_for_points(spec, seed, name)
    if counting.regions is not None and not counts.groups:
        log.warning("no compared pixel lies in a region of %s. Check extents and CRS", spec.regions)
    names = tuple(path.name for path in paths)
    # Maps of one name are named by their paths.
    names = names if len(set(names)) == len(names) else tuple(map(str, paths))
    by_group = {group: own.confusion for group, own in counts.groups.items()}
    intervals, *group_intervals = (
        None if own.blocks is None else bootstrap(own.blocks, spec.confidence, seed or 0)
        for own in (counts, *counts.groups.values())
    )
    of_groups = {group: own for group, own in zip(by_group, group_intervals, strict=True) if own is not None}
    return _warned(Assessment(counts.confusion, names, name, of_split, by_group, intervals, counts.edges,
                              counts.calibration, of_groups, **facts))  # fmt: skip


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


def _chips_of(chips: Chips, split: str) -> Chips:
    own = chips.of_split(split)
    if not len(own):
        raise ChipError(
            f"{chips.folder} has no chips of split {split}: its splits are "
            f"{', '.join(dict.fromkeys(chips.splits.tolist()))}. Choose another --split, or hold out more (val, test)."
        )
    return own


def _facts_of_chips(paths: Sequence[Path], chips: Chips, split: str) -> dict[str, Any]:
    """Scenes of the compared chips, and on which splits of the chips models of the maps were trained.

    Warns of maps whose models were trained on held-out chips: a final model's, or a folds' ensemble's.
    """
    by_map = {path: trained_splits_in(read_tags(path), chips.sha256) for path in paths}
    trained = [path for path, splits in by_map.items() if split in splits]
    if trained and split != "train":
        log.warning(
            "the model of %s was trained on split %s of %s too: the measures are not its accuracy on other ground. "
            "Assess the map of a model that has not seen these chips; a run keeps it in assessed/ or folds/",
            trained[0], split, chips.folder,
        )  # fmt: skip
    trained_splits = tuple(name for name in get_args(Split) if any(name in splits for splits in by_map.values()))
    return {"trained_splits": trained_splits, "scenes": len(set(chips.scene_names.tolist()))}


def _refuse_twice(paths: Sequence[Path]) -> None:
    counts = Counter(path.resolve() for path in paths)
    twice = next((path for path in paths if counts[path.resolve()] > 1), None)
    if twice is not None:
        raise RecipeError(f"{twice} is given {counts[twice.resolve()]} times. Name each map once.")


def _assess_folder(
    maps: Sequence[Raster],
    folder: Path,
    labels: dict[str, Any],
    nodata_as: str | None,
    counting: Counting,
    class_table: str | None,
) -> PixelCounts:
    """Compare each map with the file of a folder that has its name."""
    files = files_in(str(folder), VECTOR_SUFFIXES | RASTER_SUFFIXES)
    stems = [scene_in_name(mapped.name, [file.stem for file in files]) for mapped in maps]
    absent = [mapped.name for mapped, stem in zip(maps, stems, strict=True) if stem is None]
    if absent:
        raise LabelError(
            f"{folder} has no reference for {listed(absent)} ({len(absent)} of {counted(len(maps), 'map')}). Expected "
            f"a file with the map's name for each, such as {absent[0]}.shp. Name a file, or add the missing ones."
        )
    references = [str(_file_of_map(files, str(stem))) for stem in stems]
    # Before any pixel is counted.
    specs = [_spec(mapped, reference, labels) for mapped, reference in zip(maps, references, strict=True)]
    require_same_sizes(specs, maps, ", or assess the other maps alone")
    classes = _classes(maps, references, labels, nodata_as, class_table)
    by_map: dict[str, PixelCounts] = {}
    for mapped, reference in zip(maps, references, strict=True):
        counts = _assess_file([mapped], reference, labels, nodata_as, counting, classes)
        if any((own.blocks is None) != (counts.blocks is None) for own in by_map.values()):
            raise LabelError(
                f"{folder} holds points and polygons or rasters ({references[0]}, {reference}). Expected one kind, for "
                "their counts are summed. Assess the maps one by one."
            )
        by_map[mapped.paths[0]] = counts
    return _pooled_by_map(by_map)


def _file_of_map(files: Sequence[Path], stem: str) -> Path:
    """The file with this stem.

    Raises:
        LabelError: there are several.
        RecipeError: it is a reference sample.
    """
    own = [file for file in files if file.stem == stem]
    if len(own) > 1:
        raise LabelError(
            f"{listed(own)} have one name. Expected one reference for a map. Move the others to another folder."
        )
    if holds_design(own[0]):
        raise RecipeError(f"{own[0]} is a sample of one map. Assess that map with it alone.")
    return own[0]


def _single_map(maps: Sequence[Raster]) -> Raster:
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


def _assess_file(
    maps: Sequence[Raster],
    reference: str,
    labels: dict[str, Any],
    nodata_as: str | None,
    counting: Counting,
    classes: Classes,
) -> PixelCounts:
    """Compare maps with one file.

    Args:
        maps: class maps.
        reference: the file.
        labels: how it is read: fields of SceneSpec.
        nodata_as: as of `assess_maps`.
        counting: which parts are counted apart.
        classes: the class table.
    """
    nodata = maps[0].nodata
    maps = [with_class(mapped, classes, nodata_as) for mapped in maps]
    specs = [_spec(mapped, reference, labels) for mapped in maps]
    try:
        if is_vector(reference):
            return _assess_vector(maps, specs, classes, counting)
        return _sum_of_covered(
            maps, [partial(_assess_raster, *pair, classes, counting) for pair in zip(maps, specs, strict=True)]
        )
    except ClassError as error:
        refuse_labels(error, nodata if nodata_as is None else None, classes, specs[0])
        raise


def _spec(mapped: Raster, reference: str, labels: dict[str, Any]) -> SceneSpec:
    """How the reference of a map is read. The class table is that of the map: it says nothing about its nodata."""
    return SceneSpec.of({"image": mapped.paths, "labels": reference, "label_nodata_as": NODATA_IGNORED} | labels)


def _classes(
    maps: Sequence[Raster],
    references: Sequence[str],
    labels: dict[str, Any],
    nodata_as: str | None,
    class_table: str | None,
) -> Classes:
    """The class table of maps and the reference of each; with the background, if that is the maps' nodata."""
    is_background = nodata_as == BACKGROUND

    def reference_values() -> set[int]:
        specs = [_spec(mapped, reference, labels) for mapped, reference in zip(maps, references, strict=True)]
        values = {value for mapped, spec in zip(maps, specs, strict=True) for value in values_in(mapped, spec)}
        return values - {0} if is_background else values

    classes = common_classes(maps, reference_values) if class_table is None else Classes.read(class_table)
    return with_background(classes, maps[0]) if is_background else classes


def _sum_of_covered(maps: Sequence[Raster], assessments: Sequence[Callable[[], PixelCounts]]) -> PixelCounts:
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
    warn_of_overlaps([mapped for mapped in maps if mapped.paths[0] in by_map])
    return _pooled_by_map(by_map)


def _pooled_by_map(by_map: dict[str, PixelCounts]) -> PixelCounts:
    """The sum over maps, by their paths; each is a group with its name, or with its path where two have one name."""
    counts = pooled(by_map.values())
    if counts.groups or not 1 < len(by_map) <= MOST_APART:
        return counts
    names = [stem(path) for path in by_map]
    names = names if len(set(names)) == len(names) else list(by_map)
    return replace(counts, groups=dict(zip(names, by_map.values(), strict=True)))


def _assess_raster(mapped: Raster, spec: SceneSpec, classes: Classes, counting: Counting) -> PixelCounts:
    labels = open_labels(spec, mapped, as_in_raster(classes, str(spec.labels)))
    return assess_labels(mapped, labels, classes, counting)


def _assess_vector(
    maps: Sequence[Raster], specs: Sequence[SceneSpec], classes: Classes, counting: Counting
) -> PixelCounts:
    spec = specs[0]
    reference, options = str(spec.labels), label_options(spec)
    if _is_points(spec, classes):
        points = Features.read(reference, **options, geometry_types=POINTS)
        require_stated_crs(points, spec)
        log.warning(
            "%s holds no sampling design: accuracy is that of its points, without intervals and areas. Draw points "
            "with landscribe sample, or pass their strata to ls.estimate", points.name,
        )  # fmt: skip
        values = as_in_features(classes, points).values_of(points.labels, f"{reference}, column '{spec.label_field}',")
        return assess_points(maps, points, values, classes)
    polygons = PolygonFiles()
    features = polygons.read(reference, **options)
    table = classes if spec.label_field is None else as_in_features(classes, features)
    require_zero_is_decided(features, table, spec)
    compare = partial(_assess_polygons, classes=table, polygons=polygons, counting=counting)
    return _sum_of_covered(maps, [partial(compare, *pair) for pair in zip(maps, specs, strict=True)])


def _is_points(spec: SceneSpec, classes: Classes) -> bool:
    """Whether the reference is points, not polygons.

    Raises:
        RecipeError: features of several classes, and no column with the class.
    """
    reference = str(spec.labels)
    if spec.label_field is None:
        refuse_lost_design(Path(reference))
    is_points = holds_points(spec)
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
    return not holds_points(_source(spec))


def _source(spec: AssessSpec) -> SceneSpec:
    return SceneSpec.of({"image": spec.reference, "labels": spec.reference, "label_field": spec.reference_field})


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
    source = _source(spec)
    options = label_options(source)
    if _is_points(source, classes):
        refuse_for_points(IntervalSpec(regions=spec.regions), None, Path(spec.reference).name)
        options["geometry_types"] = POINTS
    features = Features.read(spec.reference, **options)
    if spec.reference_field is not None:
        where, table = f"{spec.reference}, column '{spec.reference_field}',", as_in_features(classes, features)
        table.values_of(features.labels, where)
        if "geometry_types" not in options:
            require_zero_is_decided(features, table, source)


def _assess_polygons(
    mapped: Raster, spec: SceneSpec, classes: Classes, polygons: PolygonFiles, counting: Counting
) -> PixelCounts:
    source = open_labels(spec, mapped, classes, polygons)
    for warning in label_warnings([source]):
        log.warning(warning)
    return assess_labels(mapped, source, classes, counting)
