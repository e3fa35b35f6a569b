"""The verbs: one function each, from nouns or paths to nouns, and each leaves ordinary files.

They open what they are given, sort plain settings into the specs of the steps, and call one step. The
command line is nothing but these with flags.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landscribe.errors import OutputError, RecipeError
from landscribe.outputs import refuse_existing, require_place
from landscribe.recipe import Recipe, into_sections

if TYPE_CHECKING:
    from collections.abc import Sequence

    from landscribe.assessment.accuracy import Assessment
    from landscribe.data.batches.augment_spec import AugmentSpec
    from landscribe.data.chips.chips import Chips
    from landscribe.inference.benchmark import Bench
    from landscribe.model import Model
    from landscribe.nn.summary import Summary
    from landscribe.preflight import Check
    from landscribe.pruning import Branch
    from landscribe.report.description import Description

log = logging.getLogger(__name__)

Source = str | Path


def check(
    recipe: Recipe | Chips | Source | None = None,
    *,
    images: Sequence[Any] = (),
    labels: Any = None,
    trial: bool = True,
    **settings: Any,
) -> Check:
    """Look for problems and foretell chips, disk, memory and time; nothing is written.

    Args:
        recipe: a recipe or its path; or give `images` and `labels`. Or chips or their folder: then leaks between
            their splits are looked for.
        images: one file per scene, or a list of files to stack for each.
        labels: polygons or a label raster: one for all scenes, or a list with one for each.
        trial: time one training step and one tile with the real network.
        settings: any of a recipe's, by plain name.
    """
    from landscribe.data.chips.chips import Chips
    from landscribe.preflight import check, check_chips

    if isinstance(recipe, Chips) or (isinstance(recipe, (str, Path)) and (Path(recipe) / "chips.json").exists()):
        if images or labels or settings:
            raise RecipeError("chips were given with images, labels or settings. Chips are checked as they are.")
        return check_chips(recipe if isinstance(recipe, Chips) else Chips.open(recipe))
    return check(recipe_of(recipe, images, labels, settings, ("chips", "split", "train", "predict")), trial=trial)


def chip(*, images: Sequence[Any], labels: Any, out: Source, overwrite: bool = False, **settings: Any) -> Chips:
    """Cut scenes into image chips and masks.

    Args:
        images: one file per scene, or a list of files to stack for each.
        labels: polygons or a label raster: one for all scenes, or a list with one for each.
        out: the chips folder to make.
        overwrite: replace what stands there.
        settings: of ChipSpec, SplitSpec and SceneSpec, and `seed` and `classes`.
    """
    return chip_scenes(recipe_of(None, images, labels, settings, ("chips", "split")), Path(out), overwrite=overwrite)


def chip_scenes(recipe: Recipe, out: Path, *, overwrite: bool = False) -> Chips:
    """Cut the scenes of a recipe into chips."""
    from landscribe.data.chips.cutting import chip
    from landscribe.data.scenes.scene import open_scenes

    require_place(out, mark="chips.json", overwrite=overwrite)
    scenes, classes = open_scenes(recipe.scenes, recipe.classes)
    return chip(
        scenes, classes, recipe.scenes, out,
        spec=recipe.chips, split=recipe.split, seed=recipe.seed, overwrite=overwrite,
    )  # fmt: skip


def describe(
    chips: Chips | Source, *, sheet: Source | None = None, augment: Any = "none", seed: int = 0, overwrite: bool = False
) -> Description:
    """Say what chips hold: class shares, statistics, weights; and draw a sheet of them.

    Args:
        chips: a chips folder.
        sheet: also write a PNG of some chips under their labels, with examples of their augmentation, and a legend.
        augment: a preset's name, or a table of AugmentSpec.
        seed: of the sheet.
        overwrite: replace the sheet.
    """
    from landscribe.data.chips.chips import Chips
    from landscribe.report.description import describe
    from landscribe.report.sheet import contact_sheet

    opened = chips if isinstance(chips, Chips) else Chips.open(chips)
    described = describe(opened)
    if sheet is not None:
        contact_sheet(opened, Path(sheet), augmentation=augmentation_of(augment), seed=seed, overwrite=overwrite)
    return described


def augmentation_of(wanted: Any) -> AugmentSpec:
    """From a preset's name, or a table."""
    from landscribe.data.batches.augment_spec import AugmentSpec

    return AugmentSpec.of(wanted if isinstance(wanted, dict) else {"preset": wanted}, "augment")


def train(chips: Chips | Source, *, out: Source, seed: int = 0, overwrite: bool = False, **settings: Any) -> Model:
    """Train a network on chips and save the best epoch as a model folder.

    Args:
        chips: a chips folder.
        out: the model folder to make.
        seed: of weights, order and augmentation.
        overwrite: replace what stands there.
        settings: of TrainSpec, and `augment`: a preset's name, a table of AugmentSpec, or a pipeline such as a Compose
            of Albumentations, called with image (height, width, bands) and masks; what it fills masks with, 0, is
            not known.
    """
    from landscribe.data.chips.chips import Chips
    from landscribe.training.spec import TrainSpec

    wanted = settings.pop("augment", {})
    change = wanted if callable(wanted) else None
    augmentation = augmentation_of("none" if change else wanted)
    spec = TrainSpec.of(settings)

    # These take seconds, for which nobody who mistyped a setting should wait.
    from landscribe.preflight import require_two_classes
    from landscribe.training.parallel import processes
    from landscribe.training.train_loop import train

    opened, out = chips if isinstance(chips, Chips) else Chips.open(chips), Path(out)
    require_two_classes(opened)
    if processes(spec.devices).leads:
        require_place(out, mark="config.json", overwrite=overwrite)
    return train(opened, out, spec=spec, augmentation=augmentation, change=change, seed=seed, overwrite=overwrite)


def predict(
    model: Model | Source,
    images: Sequence[Any],
    *,
    out: Source,
    probabilities: Source | None = None,
    uncertainty: Source | None = None,
    label_next: Source | None = None,
    ensemble: Sequence[Model | Source] = (),
    overwrite: bool = False,
    **settings: Any,
) -> list[Path]:
    """Map rasters.

    Args:
        model: a model or its folder.
        images: one file per raster, or a list of files to stack for each; a folder, a pattern or a text file that lists
            them stands for many, a STAC item for those of its assets that are chosen.
        out: the map; with several rasters a folder, in which each map is named like its raster.
        probabilities: likewise, for the probabilities of the classes.
        uncertainty: likewise, for the entropy of these, from 0 to 1.
        label_next: likewise, for polygons of the places where a label would teach most (.gpkg or .geojson).
        ensemble: further models, or their folders, whose probabilities are averaged with those of the first.
        overwrite: replace what stands there.
        settings: of PredictSpec, and of ImagerySpec: nodata, nodata_rule, assets, mosaic.

    Returns:
        The maps, in the rasters' order.
    """
    from landscribe.geo.inputs import ImagerySpec, open_rasters
    from landscribe.prediction.spec import PredictSpec

    imagery = ImagerySpec.of({name: settings.pop(name) for name in ImagerySpec.model_fields if name in settings})
    spec = PredictSpec.of(settings)

    # These take seconds, for which nobody who mistyped a setting should wait.
    from landscribe.model import Model
    from landscribe.prediction.compatibility import fitted
    from landscribe.prediction.mapping import predict

    opened, *others = [one if isinstance(one, Model) else Model.load(one) for one in (model, *ensemble)]
    rasters = open_rasters(images, imagery, resample=spec.resample)
    for raster in rasters:
        fitted(opened, raster, spec)  # before the first of them is mapped
    asked = {"probabilities": probabilities, "uncertainty": uncertainty, "label_next": label_next}
    suffixes = {"label_next": ".gpkg"}
    places = {
        name: _places(Path(place), rasters, suffixes.get(name, ".tif"))
        for name, place in asked.items()
        if place is not None
    }
    return [
        predict(
            opened, raster, place, spec=spec, others=others, overwrite=overwrite,
            **{name: each[number] for name, each in places.items()},
        )
        for number, (raster, place) in enumerate(zip(rasters, _places(Path(out), rasters), strict=True))
    ]  # fmt: skip


def _places(out: Path, rasters: Sequence[Any], suffix: str = ".tif") -> list[Path]:
    """Where each raster's map goes."""
    if len(rasters) == 1 and not out.is_dir():
        return [out]
    if len(rasters) > 1 and out.suffix.lower() in (suffix, ".tiff") and not out.is_dir():
        raise OutputError(
            f"{out} is a name for one file, but {len(rasters)} rasters are to be mapped. A folder was expected. Name "
            "one, or pass --mosaic for one map of all of them."
        )
    names = [raster.name for raster in rasters]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise OutputError(
            f"two rasters are called {', '.join(sorted(twice))}, so that their maps would have one name. "
            "Map them one by one."
        )
    return [out / f"{name}{suffix}" for name in names]


def assess(
    maps: Source | Sequence[Source],
    *,
    reference: Chips | Source,
    label_field: str | None = None,
    split: str = "test",
    out: Source | None = None,
    **labels: Any,
) -> Assessment:
    """Compare maps with a reference.

    Args:
        maps: one class map; or several, with chips as the reference.
        reference: polygons, points with a class column, a label raster, or a chips folder.
        label_field: the class column of polygons or points.
        split: which chips, if the reference is a chips folder.
        out: also write the measures as JSON.
        labels: how the reference is labelled: `repair`, `sparse` and `labelled_area` of SceneSpec.
    """
    from landscribe.assessment.accuracy import Assessment, assess_chips
    from landscribe.data.chips.chips import Chips
    from landscribe.geo.rasters.raster import Raster

    paths = [maps] if isinstance(maps, (str, Path)) else list(maps)
    if out is not None and Path(out).resolve() in {Path(str(path)).resolve() for path in (*paths, reference)}:
        raise OutputError(f"{out} is what is to be assessed. Nothing was changed. Choose another place.")
    mapped = [Raster.open([path]) for path in paths]
    names = tuple(Path(path).name for path in paths)
    if isinstance(reference, Chips) or (Path(reference) / "chips.json").exists():
        chips = reference if isinstance(reference, Chips) else Chips.open(reference)
        counted = assess_chips(mapped, chips.of_split(split))
        result = Assessment(counted, names, chips.folder.name, split)
    elif len(mapped) > 1:
        raise RecipeError(
            f"{len(mapped)} maps were given with one reference. One map was expected, or chips as the reference."
        )
    else:
        counted = _assess_one(mapped[0], str(reference), label_field, labels)
        result = Assessment(counted, names, Path(reference).name)
    if out is not None:
        result.save(Path(out))
    return result


def _assess_one(mapped: Any, reference: str, label_field: str | None, labels: dict[str, Any]) -> Any:
    from landscribe.assessment.accuracy import assess_labels, assess_points, map_classes
    from landscribe.data.scenes.scene import SceneSpec, is_vector, open_labels
    from landscribe.geo.features import POINTS, Features, geometry_type

    classes = map_classes(mapped)
    points_given = is_vector(reference) and geometry_type(reference) in POINTS
    if label_field is None and is_vector(reference) and (points_given or len(classes.foreground) > 1):
        raise RecipeError(f"{reference} holds features of several classes. Name their class column with --label-field.")
    if points_given:
        points = Features.read(reference, field=label_field, geometry_types=POINTS).to_crs(
            mapped.grid.crs, mapped.paths[0]
        )
        table = classes if isinstance(points.labels[0], str) else classes.with_numeric_labels()
        values = table.values_of(points.labels, f"{reference}, column '{label_field}',")
        return assess_points(mapped, points, values, classes)
    if not is_vector(reference):
        classes = classes.with_numeric_labels()
    spec = SceneSpec.of({"image": mapped.paths, "labels": reference, "label_field": label_field} | labels)
    return assess_labels(mapped, open_labels(spec, mapped, classes), classes)


def report(folder: Source, *, out: Source | None = None) -> Path:
    """Write one self-contained HTML page about a run folder.

    Args:
        folder: what `run` made.
        out: the page; `report.html` in the folder if left out.
    """
    from landscribe.report.page import write_report
    from landscribe.report.run_folder import read_run

    folder = Path(folder)
    return write_report(read_run(folder), Path(out) if out is not None else folder / "report.html")


def summary(
    model: Model | Source | None = None,
    *,
    architecture: str = "unet",
    encoder: str = "resnet18",
    bands: int = 3,
    classes: int = 2,
    size: int = 256,
    **options: Any,
) -> Summary:
    """Describe a network block by block: output shapes, parameters, receptive fields, operations.

    Args:
        model: a model or its folder; or name a network by what follows.
        architecture: as in `nn.build`.
        encoder: as in `nn.build`.
        bands: input channels.
        classes: outputs.
        size: side in pixels of the image that the shapes are for.
        options: the architecture's own.
    """
    from landscribe.model import Model
    from landscribe.nn import build
    from landscribe.nn.summary import summary

    if model is None:
        network = build(architecture, bands=bands, classes=classes, encoder=encoder, **options)
        return summary(network, bands=bands, size=size)
    opened = model if isinstance(model, Model) else Model.load(model)
    return summary(opened.network, bands=len(opened.bands), size=size)


def branches(model: Model | Source, *, chips: Chips | Source | None = None, split: str = "val") -> list[Branch]:
    """Measure what each branch of a UNet++ costs and is worth, so that one can be chosen.

    Args:
        model: a model or its folder.
        chips: a chips folder to score on; that beside the model's folder, as `run` leaves it, if left out.
        split: which of the chips.
    """
    from landscribe.data.chips.chips import Chips
    from landscribe.model import Model
    from landscribe.pruning import branches

    opened = model if isinstance(model, Model) else Model.load(model)
    if chips is None:
        beside = None if isinstance(model, Model) else Path(model).resolve().parent / "chips"
        if beside is None or not beside.exists():
            raise RecipeError("no chips were given to score the branches on. Pass --chips, such as those of its run.")
        chips = beside
    return branches(opened, (chips if isinstance(chips, Chips) else Chips.open(chips)).of_split(split))


def prune(model: Model | Source, *, branch: int, out: Source, overwrite: bool = False) -> Model:
    """Keep one branch of a UNet++ and leave out the rest: a smaller model with that branch's maps.

    Args:
        model: a model or its folder.
        branch: 1 (the smallest) to the number of branches.
        out: the model folder to make.
        overwrite: replace what stands there.
    """
    from landscribe.model import Model
    from landscribe.pruning import prune

    require_place(Path(out), mark="config.json", overwrite=overwrite)
    small = prune(model if isinstance(model, Model) else Model.load(model), branch)
    small.save(out, overwrite=overwrite)
    return small


def bench(
    model: Model | Source, *, tile: int = 512, batch: int = 1, seconds: float = 10.0, device: str = "auto"
) -> Bench:
    """Time the engines that can run a model on this machine, and compare their answers.

    Args:
        model: a model or its folder.
        tile: side of the images in pixels.
        batch: images at once.
        seconds: how long the engines take turns; three turns at least.
        device: auto, cpu, cuda, mps, …
    """
    from landscribe.inference.backends import device_of, timings
    from landscribe.model import Model

    opened = model if isinstance(model, Model) else Model.load(model)
    return timings(opened, tile=tile, batch=batch, seconds=seconds, device=device_of(device))


def export(
    chips: Chips | Source, *, out: Source, to: str = "esri", split: str | None = None, overwrite: bool = False
) -> Path:
    """Write chips as other programs take them.

    Args:
        chips: a chips folder.
        out: the folder to make.
        to: esri for ArcGIS Classified Tiles.
        split: which of the chips; all if left out.
        overwrite: replace what stands there.
    """
    from landscribe.data.chips.chips import Chips
    from landscribe.data.chips.classified_tiles import TEMPLATE, write_classified_tiles

    if to != "esri":
        raise RecipeError(f"chips cannot be exported to '{to}'. Known: esri.")
    opened, out = chips if isinstance(chips, Chips) else Chips.open(chips), Path(out)
    require_place(out, mark=TEMPLATE, overwrite=overwrite)
    return write_classified_tiles(opened if split is None else opened.of_split(split), out, overwrite=overwrite)


def new(out: Source, *, overwrite: bool = False) -> Path:
    """Write a complete, commented recipe to start from."""
    out = Path(out)
    refuse_existing(out, overwrite=overwrite)
    example = {"scenes": [{"image": ["scene.tif"], "labels": "labels.geojson"}]}
    Recipe.of(example).save(out)
    return out


def recipe_of(
    recipe: Recipe | Source | None,
    images: Sequence[Any],
    labels: Any,
    settings: dict[str, Any],
    sections: tuple[str, ...],
) -> Recipe:
    """The recipe that a call stands for: a recipe with settings on top, or images and labels; its scenes one by one."""
    if recipe is None:
        if not images:
            raise RecipeError("neither a recipe nor an image was given. Give RECIPE.toml, or --image and --labels.")
        return Recipe.of_files(list(images), labels, settings, sections=sections).listed()
    if images or labels:
        raise RecipeError("a recipe and images or labels were given. Give one or the other.")
    opened = recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)
    # What a recipe names is relative to its file; what is laid over it, to where one stands.
    return opened.with_settings(into_sections(settings, sections)).placed(Path.cwd()).listed()
