"""References: what maps are compared with, and which comparison fits."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from landscribe.assessment.accuracy import (
    Assessment,
    assess_chips,
    assess_labels,
    assess_points,
    pooled_by_map,
    sum_of_covered,
)
from landscribe.assessment.blocks import bootstrap
from landscribe.assessment.calibration import Probabilities
from landscribe.assessment.counting import Counting, PixelCounts
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
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.vectors.geometries import POINTS
from landscribe.geo.vectors.vector_files import VECTOR_SUFFIXES, is_vector
from landscribe.maps.class_map import (
    ClassMap,
    is_trained_on,
    read_tags,
    scene_in_name,
    trained_splits_in,
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
    _refuse_features(paths)
    kind, where = _kind_of(reference), str(reference.folder if isinstance(reference, Chips) else reference)
    read = _Reading(labels, nodata_as, spec.class_table)
    _require_fields_of_kind(kind, where, split, read, spec)
    counting = _counting(spec, paths)
    _refuse_twice(paths)
    maps = {path: ClassMap.open(path).raster for path in paths}
    if kind == "sample":
        refuse_for_points(spec.model_copy(update={"confidence": IntervalSpec().confidence}), seed, Path(where).name)
        return assess_sample(_single_map([*maps.values()]), Path(where), spec)
    if kind == "chips":
        refuse_for_chips(spec, Path(where).name)
        compared = _compare_chips(maps, Chips.of(reference), split or "test", nodata_as, counting)
    else:
        compared = _compare_files(maps, kind, where, read, counting)
    return _assessment(compared, paths, spec, seed)


_Kind = Literal["chips", "sample", "folder", "file"]


def _kind_of(reference: Chips | str | Path) -> _Kind:
    """Chips, the file of a reference sample, a folder with a file for each map, or a file."""
    if isinstance(reference, Chips) or (Path(reference) / "chips.json").exists():
        return "chips"
    if holds_design(Path(reference)):
        return "sample"
    return "folder" if Path(reference).is_dir() and not is_vector(str(reference)) else "file"


@dataclass(frozen=True)
class _Reading:
    """How a reference is read, and which classes it shares with the maps."""

    labels: dict[str, Any]
    """Fields of SceneSpec."""
    nodata_as: str | None
    class_table: str | None
    """As of `AccuracySpec`."""

    def spec_of(self, mapped: Raster, reference: str) -> SceneSpec:
        """For the reference of a map. The class table is that of the map: it says nothing about its nodata."""
        fields = {"image": mapped.paths, "labels": reference, "label_nodata_as": NODATA_IGNORED}
        return SceneSpec.of(fields | self.labels)

    def classes(self, maps: Sequence[Raster], references: Sequence[str]) -> Classes:
        """The class table of maps and the reference of each; with the background, if that is the maps' nodata."""
        is_background = self.nodata_as == BACKGROUND

        def reference_values() -> set[int]:
            pairs = zip(maps, references, strict=True)
            values = {value for mapped, each in pairs for value in values_in(mapped, self.spec_of(mapped, each))}
            return values - {0} if is_background else values

        own = self.class_table
        classes = common_classes(maps, reference_values) if own is None else Classes.read(own)
        return with_background(classes, maps[0]) if is_background else classes


@dataclass(frozen=True, eq=False)
class _Compared:
    """Counts of maps and a reference, and the fields of an Assessment that the kind of the reference decides."""

    counts: PixelCounts
    reference: str
    split: str | None = None
    trained_splits: tuple[str, ...] = ()
    scenes: int | None = None
    is_of_training: bool = False


def _assessment(compared: _Compared, paths: Sequence[Path], spec: AccuracySpec, seed: int | None) -> Assessment:
    """The measures of compared maps, with intervals; warns if much of the reference was not compared."""
    counts = compared.counts
    if counts.blocks is None:
        refuse_for_points(spec, seed, compared.reference)
    if spec.regions is not None and not counts.groups:
        log.warning("no compared pixel lies in a region of %s. Check extents and CRS", spec.regions)
    names = tuple(path.name for path in paths)
    # Maps of one name are named by their paths.
    names = names if len(set(names)) == len(names) else tuple(map(str, paths))
    whole, *of_groups = (
        None if own.blocks is None else bootstrap(own.blocks, spec.confidence, seed or 0)
        for own in (counts, *counts.groups.values())
    )
    return _warned(
        Assessment(
            counts.confusion, names, compared.reference, compared.split,
            {group: own.confusion for group, own in counts.groups.items()},
            whole, counts.edges, counts.calibration,
            {group: own for group, own in zip(counts.groups, of_groups, strict=True) if own is not None},
            compared.trained_splits, compared.scenes, compared.is_of_training,
        )
    )  # fmt: skip


def _refuse_features(paths: Sequence[Path]) -> None:
    features = [path for path in paths if is_vector(str(path))]
    if features:
        raise RecipeError(
            f"{features[0]} holds features, not pixels. Expected a class map; or pass --objects to compare polygons "
            "with reference polygons."
        )


def _require_fields_of_kind(kind: _Kind, where: str, split: str | None, read: _Reading, spec: AccuracySpec) -> None:
    """Raise RecipeError for settings of samples with another reference, and of other references with a sample."""
    if kind == "sample":
        odd = next(iter(read.labels | ({} if read.nodata_as is None else {"nodata_as": read.nodata_as})), None)
        if odd is not None:
            raise RecipeError(f"--{odd.replace('_', '-')} is about labels, but {where} is a sample. Leave it out.")
    elif spec.sample_labels is not None or spec.skip_unlabelled:
        flag = "--skip-unlabelled" if spec.sample_labels is None else "--sample-labels"
        raise RecipeError(f"{flag} is about a reference sample, but {where} holds no sampling design. Leave it out.")
    if kind != "chips" and split is not None:
        raise RecipeError(f"--split is '{split}', but {where} holds no chips. Leave it out.")


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


def _compare_chips(
    maps: dict[Path, Raster], chips: Chips, split: str, nodata_as: str | None, counting: Counting
) -> _Compared:
    """Compare maps, by their paths, with the chips of a split.

    Warns of maps whose models were trained on held-out chips: a final model's, or a folds' ensemble's.
    """
    own = chips.of_split(split)
    if not len(own):
        raise ChipError(
            f"{chips.folder} has no chips of split {split}: its splits are "
            f"{', '.join(dict.fromkeys(chips.splits.tolist()))}. Choose another --split, or hold out more (val, test)."
        )
    by_map = {path: trained_splits_in(read_tags(path), chips.sha256) for path in maps}
    trained = [path for path, splits in by_map.items() if split in splits]
    if trained and split != "train":
        log.warning(
            "the model of %s was trained on split %s of %s too: the measures are not its accuracy on other ground. "
            "Assess the map of a model that has not seen these chips; a run keeps it in assessed/ or folds/",
            trained[0], split, chips.folder,
        )  # fmt: skip
    counts = assess_chips([with_class(mapped, chips.classes, nodata_as) for mapped in maps.values()], own, counting)
    trained_splits = tuple(name for name in get_args(Split) if any(name in splits for splits in by_map.values()))
    return _Compared(counts, chips.folder.name, split, trained_splits, scenes=len(set(own.scene_names.tolist())))


def _refuse_twice(paths: Sequence[Path]) -> None:
    counts = Counter(path.resolve() for path in paths)
    twice = next((path for path in paths if counts[path.resolve()] > 1), None)
    if twice is not None:
        raise RecipeError(f"{twice} is given {counts[twice.resolve()]} times. Name each map once.")


def _compare_files(maps: dict[Path, Raster], kind: _Kind, where: str, read: _Reading, counting: Counting) -> _Compared:
    """Compare maps, by their paths, with one file, or each with its file of a folder."""
    rasters = [*maps.values()]
    if kind == "folder":
        counts = _assess_folder(rasters, Path(where), read, counting)
    else:
        counts = _assess_file(rasters, where, read, counting, read.classes(rasters, [where] * len(rasters)))
    return _Compared(counts, Path(where).name, is_of_training=any(is_trained_on(path, Path(where)) for path in maps))


def _assess_folder(maps: Sequence[Raster], folder: Path, read: _Reading, counting: Counting) -> PixelCounts:
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
    specs = [read.spec_of(mapped, reference) for mapped, reference in zip(maps, references, strict=True)]
    require_same_sizes(specs, maps, ", or assess the other maps alone")
    classes = read.classes(maps, references)
    by_map: dict[str, PixelCounts] = {}
    for mapped, reference in zip(maps, references, strict=True):
        counts = _assess_file([mapped], reference, read, counting, classes)
        if any((own.blocks is None) != (counts.blocks is None) for own in by_map.values()):
            raise LabelError(
                f"{folder} holds points and polygons or rasters ({references[0]}, {reference}). Expected one kind, for "
                "their counts are summed. Assess the maps one by one."
            )
        by_map[mapped.paths[0]] = counts
    return pooled_by_map(by_map)


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
    maps: Sequence[Raster], reference: str, read: _Reading, counting: Counting, classes: Classes
) -> PixelCounts:
    """Compare maps with one file; `classes` is the class table of all maps and references."""
    nodata = maps[0].nodata
    maps = [with_class(mapped, classes, read.nodata_as) for mapped in maps]
    specs = [read.spec_of(mapped, reference) for mapped in maps]
    try:
        if is_vector(reference):
            return _assess_vector(maps, specs, classes, counting)
        return sum_of_covered(
            maps, [partial(_assess_raster, *pair, classes, counting) for pair in zip(maps, specs, strict=True)]
        )
    except ClassError as error:
        refuse_labels(error, nodata if read.nodata_as is None else None, classes, specs[0])
        raise


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
    return sum_of_covered(maps, [partial(compare, *pair) for pair in zip(maps, specs, strict=True)])


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
