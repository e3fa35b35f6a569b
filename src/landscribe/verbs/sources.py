"""What verbs are given: chips, models and recipes, open or as paths."""

from __future__ import annotations

from collections.abc import Iterable
from io import IOBase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landscribe.errors import RecipeError, listed, shortened
from landscribe.geo.classes import read_class_table
from landscribe.recipe import Recipe, into_sections
from landscribe.spec import InputPath, checked, nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from landscribe.data.batches.augment_spec import AugmentSpec
    from landscribe.data.chips.chips import Chips
    from landscribe.model import Model
    from landscribe.training.spec import TrainSpec

PathLike = str | Path


def require_known(settings: dict[str, Any], keywords: type) -> None:
    """Raise RecipeError for a setting that a verb of several specs does not take, with all that it takes."""
    known = list(keywords.__annotations__)
    for name in settings:
        if name not in known:
            raise RecipeError(f"unknown setting '{name}'{nearest(name, known)}")


def recipe_of(
    recipe: Recipe | PathLike | None,
    images: Sequence[Any],
    labels: Any,
    settings: dict[str, Any],
    sections: tuple[str, ...],
) -> Recipe:
    """The recipe of a call, with one entry per scene: a recipe with settings on top, or images and labels."""
    settings = _with_rows_of_table(settings)
    images = [] if images is None else image_paths(images)
    if recipe is None:
        if not images:
            raise RecipeError("neither a recipe nor an image was given. Give RECIPE.toml, or --image and --labels.")
        found = Recipe.of_files(images, labels, settings, sections=sections)
    else:
        if images or labels:
            given = "a recipe" if isinstance(recipe, Recipe) else f"{recipe} as the recipe"
            raise RecipeError(
                f"{given} and {'images' if images else 'labels'} were both given. Give one or the other: "
                "imagery and labels with --image and --labels (images and labels in Python), without a recipe."
            )
        _require_source(recipe, Recipe, "the recipe", "a Recipe or its path; Recipe.of makes one of a dict")
        opened = recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)
        # Paths of a recipe are relative to its folder; paths of settings on top, to the working folder.
        found = opened.with_settings(into_sections(settings, sections)).with_absolute_paths(Path.cwd())
    return _with_objects(found.listed())


def _with_objects(recipe: Recipe) -> Recipe:
    """The recipe with object numbers in the chips, if its network learns from them."""
    if not recipe.train.learns_objects:
        return recipe
    return recipe.model_copy(update={"chips": recipe.chips.model_copy(update={"objects": True})})


def _with_rows_of_table(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with the rows of a class table, `classes`, in place of its file, `class_table`."""
    rest = {name: value for name, value in settings.items() if name != "class_table"}
    path = settings.get("class_table")
    if path is None:
        return rest
    if "classes" in rest:
        raise RecipeError(f"classes and class_table ({path}) were both given. Give one of them.")
    path = checked("class_table", path, InputPath)
    return rest | {"classes": [row._asdict() for row in read_class_table(path)]}


def _require_source(given: Any, noun: type, name: str, expected: str) -> None:
    """Raise RecipeError for an argument of a verb that is neither the noun nor a path."""
    if not isinstance(given, (noun, str, Path)):
        raise RecipeError(f"{name} is {shortened(repr(given))}. Expected {expected}.")


def image_paths(images: Any) -> list[Any]:
    """The images of a call as a list; raises RecipeError unless they are a path, paths, or lists of paths."""
    found = []
    for image in _items(images):
        files = _items(image)
        for file in files:
            if not isinstance(file, (str, Path)):
                odd = next((each for each in (images, image) if not isinstance(each, (list, tuple))), file)
                raise RecipeError(
                    f"an image is given as {type(odd).__name__} ({shortened(repr(odd))}). Expected a path, or a list "
                    "of paths. Of an open file, give its .name; write an array to a file first, with its CRS."
                )
        found.append(image if isinstance(image, (str, Path)) else files)
    return found


def _items(given: Any) -> list[Any]:
    """What a list or an iterator holds; anything else alone, such as a path or an open file."""
    is_one = isinstance(given, (str, Path, bytes, dict, IOBase)) or not isinstance(given, Iterable)
    return [given] if is_one else list(given)


def augmentation_of(augment: Any) -> AugmentSpec:
    """The settings of augmentation from a preset's name or a table."""
    from landscribe.data.batches.augment_spec import AugmentSpec

    if isinstance(augment, AugmentSpec):
        return augment
    return AugmentSpec.of(augment if isinstance(augment, dict) else {"preset": augment}, "augment")


def training_specs(settings: dict[str, Any]) -> tuple[TrainSpec, AugmentSpec]:
    """The specs of a training from the fields of TrainSpec and `augment`."""
    from landscribe.training.spec import TrainSpec

    fields = {name: value for name, value in settings.items() if name != "augment"}
    return TrainSpec.of(fields), augmentation_of(settings.get("augment", {}))


def open_chips(chips: Chips | PathLike) -> Chips:
    """Chips, or those of a folder."""
    from landscribe.data.chips.chips import Chips

    _require_source(chips, Chips, "chips", "Chips, or the path of a chips folder")
    return Chips.of(chips)


def map_files(maps: Sequence[Chips | PathLike]) -> list[Path]:
    """Class maps: those given, and those of the folders given (.tif).

    Raises:
        RecipeError: there are none, or chips are among them.
    """
    from landscribe.geo.inputs import files_in

    paths = [Path(each) for each in maps if isinstance(each, (str, Path))]
    if len(paths) < len(maps) or any((path / "chips.json").exists() for path in paths):
        raise RecipeError("chips were given. Expected class maps, or a folder of maps.")
    files = [file for path in paths for file in (files_in(str(path), {".tif"}) if path.is_dir() else [path])]
    if not files:
        raise RecipeError(f"{listed(map(str, paths))} has no maps (.tif). Expected class maps, or a folder of maps.")
    return files


def open_model(model: Model | PathLike, trust_code: str | Sequence[str] = ()) -> Model:
    """A model, or that of a folder; `trust_code` names the classes, as "module:Class", that may be imported for it."""
    from landscribe.model import Model

    _require_source(model, Model, "the model", "a Model, or the path of a model folder")
    return Model.of(model, trust=trust_code)


def open_models(models: Sequence[Model | PathLike], trust_code: str | Sequence[str] = ()) -> list[Model]:
    """Models, or those of folders; the folder of a cross-validation stands for the models of all its folds."""
    from landscribe.runs import fold_models

    opened: list[Model] = []
    for each in models:
        folds: Sequence[Model | PathLike] = fold_models(Path(each)) if isinstance(each, (str, Path)) else ()
        opened += [open_model(own, trust_code) for own in folds or [each]]
    return opened
