"""The verbs of maps and objects: predict, assess and assess_objects."""

from __future__ import annotations

import json
import logging
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from landscribe.errors import OutputError, RecipeError, listed
from landscribe.outputs import claim, output_path, require_replaceable
from landscribe.spec import Seed, checked
from landscribe.verbs.keywords import LabelKeywords, ObjectKeywords, PredictKeywords
from landscribe.verbs.sources import PathLike, image_paths, map_files, open_models, require_known

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from landscribe.assessment.accuracy import Assessment
    from landscribe.assessment.objects.objects import ObjectAssessment
    from landscribe.assessment.samples import SampleAssessment
    from landscribe.data.chips.chips import Chips
    from landscribe.model import Model

log = logging.getLogger(__name__)

REFERENCE_SETTINGS = ("label_field", "label_layer", "label_crs", "labelled_area", "fix_geometries")
"""Fields of SceneSpec that say how reference objects are read."""


def predict(
    model: Model | PathLike,
    images: PathLike | Sequence[Any],
    *,
    out: PathLike,
    probabilities: PathLike | None = None,
    uncertainty: PathLike | None = None,
    suggest_labels: PathLike | None = None,
    ensemble: Model | PathLike | Sequence[Model | PathLike] = (),
    overwrite: bool = False,
    trust_code: str | Sequence[str] = (),
    **settings: Unpack[PredictKeywords],
) -> list[Path]:
    """Map rasters.

    Args:
        model: a model or its folder; or the folder of a cross-validation, whose models are an ensemble.
        images: one file per raster, or a list of files to stack for each. A folder, a pattern or a list of files stands
            for many; a STAC item stands for its chosen assets. A single path needs no list.
        out: the map; for several rasters a folder, in which each map is named like its raster.
        probabilities: like `out`, for the class probabilities.
        uncertainty: like `out`, for the normalised entropy, 0 to 1.
        suggest_labels: like `out`, for polygons of the most uncertain areas to label next (.gpkg or .geojson).
        ensemble: further models or their folders, or one, to average their probabilities with the first's.
        overwrite: replace existing output.
        trust_code: "module:Class" of the model's network, if it is a class of your own that may be imported; or several
            for an ensemble.
        settings: fields of PredictSpec and ImagerySpec; and object_probabilities, like `out`, for the probabilities of
            a segment, a border and an inner part of objects (models of unet_id).

    Returns:
        The maps, in the rasters' order; of several rasters, those outside of `area` have none.

    Raises:
        RecipeError: an unknown setting, one out of range, or images that are no paths.
        ModelError: a model folder that cannot be used, or a raster that does not fit its model.
        RasterError: a raster that cannot be read.
        OutputError: a map of other settings exists, or a file cannot be written.
        UnfinishedError: a part of the map failed; the same call resumes it.

    >>> import landscribe as ls
    >>> from tempfile import TemporaryDirectory
    >>> from landscribe.synthetic import draw, write
    >>> network = ls.nn.build("unet", encoder="plain", encoder_widths=[8, 16], bands=3, classes=2)
    >>> model = ls.Model.wrap(network, bands=["red", "green", "blue"], classes=["field", "house"], pixel_size=0.5)
    >>> with TemporaryDirectory() as folder:
    ...     scene, _, _ = write(draw(256, 192, seed=0), Path(folder))
    ...     maps = ls.predict(model, [scene], out=f"{folder}/map.tif", tile=64, margin=8)
    ...     raster = ls.Raster.open(maps)
    ...     pixels, valid = raster.read(raster.grid.window)
    >>> pixels.shape, pixels.dtype  # class values, on the grid of the scene
    ((1, 256, 192), dtype('uint8'))
    """
    from landscribe.geo.spec import ImagerySpec
    from landscribe.prediction.spec import PredictSpec

    fields: dict[str, Any] = dict(settings)
    require_known(fields, PredictKeywords)
    object_probabilities = fields.pop("object_probabilities", None)
    imagery = ImagerySpec.of({name: fields.pop(name) for name in ImagerySpec.model_fields if name in fields})
    spec = PredictSpec.of(fields)
    if "probabilities_as" in spec.model_fields_set and probabilities is None:
        raise RecipeError(
            f"probabilities_as is {spec.probabilities_as}, but no probabilities are written; name their file "
            "(--probabilities)"
        )

    from landscribe.geo.inputs import open_rasters

    rasters = open_rasters(image_paths(images), imagery, resample=spec.resample)

    # These imports take seconds, so a wrong setting or raster is refused before them.
    from landscribe.inference.backends.choice import require_engine
    from landscribe.inference.device import resolve_device
    from landscribe.maps.output_paths import OutputPaths
    from landscribe.model import Model
    from landscribe.prediction.compatibility import require_compatible
    from landscribe.prediction.mapping import write_maps
    from landscribe.prediction.plan import Planner, input_files
    from landscribe.preflight.pixels import warn_undeclared_nodata

    require_engine(spec.engine, spec.precision, resolve_device(spec.device))
    further = [ensemble] if isinstance(ensemble, (str, Path, Model)) else ensemble
    opened, *others = open_models([model, *further], trust_code)
    for raster in rasters:
        require_compatible(opened, raster, spec)  # before the first of them is mapped
    requested = {
        "map": (out, ".tif"),
        "probabilities": (probabilities, ".tif"),
        "uncertainty": (uncertainty, ".tif"),
        "suggested_labels": (suggest_labels, ".gpkg"),
        "object_probabilities": (object_probabilities, ".tif"),
    }
    paths = {
        name: _output_paths(output_path(path), rasters, suffix)
        for name, (path, suffix) in requested.items()
        if path is not None
    }
    outputs = [OutputPaths(**{name: each[index] for name, each in paths.items()}) for index in range(len(rasters))]
    # The map of one raster may be an input of another.
    inputs = set[Path]().union(*(input_files(raster, spec) for raster in rasters))
    for output in outputs:
        output.require_distinct(inputs)
    # Of a raster without nodata, that of the model is nodata.
    has_nodata = (raster if raster.nodata is not None else raster.with_nodata(opened.nodata) for raster in rasters)
    warn_undeclared_nodata([*has_nodata])
    return write_maps(Planner.of(opened, spec, outputs[0], others), rasters, outputs, overwrite=overwrite)


def _output_paths(out: Path, rasters: Sequence[Any], suffix: str) -> list[Path]:
    """The path of each raster's map."""
    from landscribe.geo.inputs import repeated

    if len(rasters) == 1 and not out.is_dir():
        return [out]
    if len(rasters) > 1 and out.suffix.lower() in (suffix, ".tiff") and not out.is_dir():
        raise OutputError(
            f"{out} is a name for one file, but {len(rasters)} rasters are to be mapped. Name a folder, or pass "
            "--mosaic for one map of all rasters."
        )
    names = [raster.name for raster in rasters]
    if same := repeated(names):
        raise OutputError(
            f"the maps of {listed(sorted(same))} would have one name, at least on Windows and macOS. "
            "Map them one by one."
        )
    return [out / f"{name}{suffix}" for name in names]


def assess(
    maps: PathLike | Sequence[PathLike],
    *,
    reference: Chips | PathLike,
    split: str | None = None,
    nodata_as: str | None = None,
    seed: int | None = None,
    out: PathLike | None = None,
    **settings: Unpack[LabelKeywords],
) -> Assessment | SampleAssessment:
    """Compare maps with a reference; or estimate accuracy and areas from a labelled reference sample.

    Args:
        maps: one class map, several, or a folder of maps (.tif); of any program, with whole numbers from 0 to 254.
        reference: polygons, points with a class column, a label raster, a folder with such a file for each map, which
            has its name, or a chips folder; or the file of `sample`, whose column reference was filled in.
        split: split of the chips, if the reference is a chips folder; default: test.
        nodata_as: class of pixels that are nodata in the maps, such as "background"; they are left out if None.
        seed: of the resamples from which intervals follow; default: 0. Points and samples have none.
        out: also write the measures as JSON (.json). It may replace earlier measures, but no other file.
        settings: how to read the reference (fields of SceneSpec about labels), and fields of AccuracySpec.

    Returns:
        An Assessment of counted pixels, points or chips; of a reference sample, a SampleAssessment with intervals.

    Raises:
        RecipeError: a setting that does not fit to the reference.
        RasterError, LabelError: a map or the reference cannot be read, or they do not overlap.
        ClassError: the reference has a class that the map does not have, or polygons of an undecided class 0.
        SampleError: a reference sample that is not labelled, or is of another map.
        OutputError: `out` exists and holds no measures, or cannot be written.

    >>> import landscribe as ls
    >>> from tempfile import TemporaryDirectory
    >>> from landscribe.synthetic import draw, write
    >>> with TemporaryDirectory() as folder:
    ...     _, _, truth = write(draw(256, 192, seed=0), Path(folder))
    ...     assessment = ls.assess(truth, reference=truth)  # a perfect map
    >>> assessment.confusion.counts.shape  # pixels, by class of the reference and of the map
    (5, 5)
    >>> assessment.overall_accuracy, assessment.confusion.mean_f1
    (1.0, 1.0)
    """
    from landscribe.assessment.spec import AccuracySpec

    fields: dict[str, Any] = dict(settings)
    require_known(fields, LabelKeywords)
    spec = AccuracySpec.of({name: fields.pop(name) for name in AccuracySpec.model_fields if name in fields})
    if seed is not None:
        checked("seed", seed, Seed)

    from landscribe.assessment.references import assess_maps

    paths = map_files([maps] if isinstance(maps, (str, Path)) else maps)
    with _measures_file(out) as saved:
        result = assess_maps(
            paths, reference, split=split, nodata_as=nodata_as, labels=fields, spec=spec, seed=seed,
        )  # fmt: skip
        if saved is not None:
            result.save(saved)
    return result


@contextmanager
def _measures_file(out: PathLike | None) -> Iterator[Path | None]:
    """Claim the file of the measures, which may replace nothing but earlier measures; None without one."""
    if out is None:
        yield None
        return
    path = output_path(out)
    with claim(path):
        require_replaceable(path, "measures", (".json",), _holds_measures)
        yield path
        log.info("measures: %s", path)


def _holds_measures(text: str) -> bool:
    """True for measures of pixels, of a reference sample or of objects, as `save` writes them."""
    try:
        fields = json.loads(text)
    except ValueError:
        return False
    return isinstance(fields, dict) and "reference" in fields and not {"maps", "map", "objects"}.isdisjoint(fields)


def assess_objects(
    objects: PathLike,
    *,
    reference: PathLike,
    out: PathLike | None = None,
    **settings: Unpack[ObjectKeywords],
) -> ObjectAssessment:
    """Compare objects with reference polygons: one-to-one matches, panoptic quality, outlines.

    Args:
        objects: polygons, each an object.
        reference: polygons, each a true object, in any CRS.
        out: also write the measures as JSON (.json). It may replace earlier measures, but no other file.
        settings: how to read the reference (fields of SceneSpec), and fields of ObjectAssessmentSpec.
            `labelled_area` may also be a raster, whose extent it is; objects that its edge cuts take no part.

    Returns:
        Counts and measures of objects by class, at ten thresholds of IoU.

    Raises:
        RecipeError: a setting that is not about objects, or is out of range.
        LabelError: a file that cannot be read, or that holds no polygons.
        ClassError: the two files have no class in common.
        OutputError: `out` exists and holds no measures, or cannot be written.

    >>> import geopandas as gpd, landscribe as ls, shapely
    >>> from tempfile import TemporaryDirectory
    >>> houses = gpd.GeoSeries([shapely.box(x, 0, x + 10, 10) for x in (0, 20, 40)], crs="EPSG:32632")
    >>> with TemporaryDirectory() as folder:
    ...     houses.to_file(f"{folder}/truth.gpkg")
    ...     houses.iloc[:2].translate(2).to_file(f"{folder}/found.gpkg")  # two of three, moved by a fifth
    ...     result = ls.assess_objects(f"{folder}/found.gpkg", reference=f"{folder}/truth.gpkg")
    >>> result.precision.shape  # at IoU 0.50, 0.55 ... 0.95
    (10,)
    >>> result.f1.round(2).tolist()[:5], round(result.classes[0].segmentation_quality, 3)  # IoU = 8 / 12
    ([0.8, 0.8, 0.8, 0.8, 0.0], 0.667)
    """
    from landscribe.assessment.spec import ObjectAssessmentSpec
    from landscribe.data.scenes.spec import SceneSpec

    fields: dict[str, Any] = dict(settings)
    of_pixels = [name for name in fields if name in SceneSpec.model_fields and name not in REFERENCE_SETTINGS]
    if of_pixels:
        raise RecipeError(
            f"'{of_pixels[0]}' says which pixels have labels, but objects are polygons. Expected of the reference's "
            f"settings only {', '.join(REFERENCE_SETTINGS)}. Leave it out."
        )
    require_known(fields, ObjectKeywords)
    spec = ObjectAssessmentSpec.of({name: fields.pop(name) for name in tuple(fields) if name not in REFERENCE_SETTINGS})
    labels = SceneSpec.of({"image": objects, "labels": reference} | fields)

    from landscribe.assessment.objects import objects as object_assessment

    with _measures_file(out) as saved:
        result = object_assessment.assess_objects(str(objects), str(reference), labels, spec)
        if saved is not None:
            result.save(saved)
    return result
