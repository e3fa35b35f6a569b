"""Recipe: what a person writes, TOML, checked before anything runs.

A recipe is nothing but the specs of the steps, put together. What it leaves out has the specs' defaults;
`to_toml` writes all of it, with comments, so that a run can be read, changed and repeated.
"""

import math
import tomllib
from pathlib import Path
from typing import Any, Literal

import tomlkit
from pydantic import Field
from tomlkit.items import AoT, Table

from landscribe.data.batches.augment_spec import AugmentSpec
from landscribe.data.chips.chips import ChipSpec
from landscribe.data.scenes.pairing import expand_scenes
from landscribe.data.scenes.scene import ClassSpec, SceneSpec, class_rows
from landscribe.data.splits.split import SplitSpec
from landscribe.errors import RecipeError
from landscribe.geo.access import is_local
from landscribe.geo.classes import Classes
from landscribe.outputs import write_text
from landscribe.prediction.spec import PredictSpec
from landscribe.spec import Spec, nearest
from landscribe.training.spec import TrainSpec


class Recipe(Spec):
    """All settings of a run."""

    landscribe: Literal[1] = 1
    """Version of the recipe's layout."""
    seed: int = Field(0, ge=0)
    """Of everything that chance decides."""
    scenes: tuple[SceneSpec, ...]
    """Imagery with labels; paths are relative to this file."""
    classes: tuple[ClassSpec, ...] = ()
    """The class table, from bottom to top where polygons overlap; made from the labels if left out."""
    chips: ChipSpec = ChipSpec()
    split: SplitSpec = SplitSpec()
    augment: AugmentSpec = AugmentSpec()
    train: TrainSpec = TrainSpec()
    predict: PredictSpec = PredictSpec()

    @classmethod
    def load(cls, path: str | Path) -> "Recipe":
        """Read a recipe; its paths become absolute.

        Raises:
            RecipeError: no TOML, an unknown name (the nearest is offered), a value out of range.
        """
        path = Path(path)
        try:
            settings = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise RecipeError(
                f'{path} cannot be read: {error.strerror}. A recipe was expected; "landscribe new" writes one.'
            ) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise RecipeError(
                f'{path} is no TOML: {error}. Correct that line; "landscribe new" writes a recipe to start from.'
            ) from error
        return cls.of(settings, str(path)).placed(path.parent)

    @classmethod
    def of_files(
        cls,
        images: list[Any],
        labels: str | list[str | None] | None,
        settings: dict[str, Any],
        *,
        sections: tuple[str, ...],
    ) -> "Recipe":
        """The recipe that a command line or a call stands for; paths are relative to the working folder.

        Args:
            images: one entry per scene: a file, or a list of files to stack.
            labels: one file for all scenes, or one for each.
            settings: by their plain names, from the sections named in `sections` and of scenes.
            sections: where names are looked up, in this order.

        Raises:
            RecipeError: as `load`.
        """
        per_scene = labels if isinstance(labels, list) else [labels] * len(images)
        if len(per_scene) == 1:
            per_scene = per_scene * len(images)
        if len(per_scene) != len(images):
            raise RecipeError(
                f"{len(images)} images and {len(per_scene)} label files were given. "
                "One for all, or one for each, was expected."
            )
        sorted_in = into_sections(settings, sections)
        common = sorted_in.pop("scenes", {})
        scenes = [
            {
                "image": [str(file) for file in ([image] if isinstance(image, (str, Path)) else image)],
                "labels": None if label is None else str(label),
            }
            | common
            for image, label in zip(images, per_scene, strict=True)
        ]
        return cls.of(sorted_in | {"scenes": scenes}).placed(Path.cwd())

    def placed(self, folder: Path) -> "Recipe":
        """The same recipe with paths made absolute from `folder`."""
        scenes = tuple(
            scene.model_copy(
                update={
                    "image": tuple(_absolute(path, folder) for path in scene.image),
                    "labels": None if scene.labels is None else _absolute(scene.labels, folder),
                    "labelled_area": None if scene.labelled_area is None else _absolute(scene.labelled_area, folder),
                }
            )
            for scene in self.scenes
        )
        lists = {f"{split}_list": _absolute(path, folder) for split, path in self.split.lists.items()}
        split, train = self.split.model_copy(update=lists), self.train.placed(lambda path: _absolute(path, folder))
        return self.model_copy(update={"scenes": scenes, "split": split, "train": train})

    def listed(self) -> "Recipe":
        """The same recipe with every scene on its own, where a folder or pattern stands for many."""
        scenes, classes = expand_scenes(self.scenes, self.classes)
        return self.model_copy(update={"scenes": scenes, "classes": classes})

    def with_settings(self, settings: dict[str, Any]) -> "Recipe":
        """The same recipe with settings, sorted into sections, laid over it; those of scenes over each scene."""
        laid = self.model_dump()
        over_scenes = settings.get("scenes", {})
        laid["scenes"] = [scene | over_scenes for scene in laid["scenes"]]
        for name, value in settings.items():
            if name != "scenes":
                laid[name] = laid[name] | value if isinstance(value, dict) else value
        return Recipe.of(laid)

    def with_classes(self, classes: Classes) -> "Recipe":
        """The same recipe with its class table written out."""
        return self.model_copy(update={"classes": tuple(class_rows(classes))})

    def to_toml(self) -> str:
        """The whole recipe as commented TOML. Law: `Recipe.of(tomllib.loads(r.to_toml())) == r`."""
        document = tomlkit.document()
        document.add(tomlkit.comment("A Landscribe recipe. Run it with: landscribe run RECIPE.toml --out FOLDER"))
        for name in ("landscribe", "seed"):
            _add(document, self, name)
        for name in ("scenes", "classes"):
            rows: tuple[Spec, ...] = getattr(self, name)
            if rows:
                document.add(name, _array(rows))
        for name in ("chips", "split", "augment", "train", "predict"):
            document.add(tomlkit.nl())
            document.add(name, _table(getattr(self, name)))
        return tomlkit.dumps(document)

    def save(self, path: Path) -> None:
        """Write the recipe, whole or not at all."""
        write_text(path, self.to_toml())


SECTIONS: dict[str, type[Spec]] = {
    "chips": ChipSpec, "split": SplitSpec, "train": TrainSpec, "predict": PredictSpec, "scenes": SceneSpec,
}  # fmt: skip


def into_sections(settings: dict[str, Any], sections: tuple[str, ...]) -> dict[str, Any]:
    """Sort plain names into the sections of a recipe that have them; `seed` and `classes` stand at the top.

    >>> into_sections({"size": 128, "seed": 1}, ("chips",))
    {'chips': {'size': 128}, 'seed': 1}
    """
    result: dict[str, Any] = {}
    for name, value in settings.items():
        home = next((section for section in (*sections, "scenes") if name in SECTIONS[section].model_fields), None)
        if home is not None:
            result.setdefault(home, {})[name] = value
        elif name in ("seed", "classes"):
            result[name] = value
        elif name == "augment":
            # A preset's name, or a table.
            result[name] = value if isinstance(value, dict) else {"preset": value}
        else:
            known = [
                "seed",
                "classes",
                "augment",
                *(field for section in sections for field in SECTIONS[section].model_fields),
            ]
            raise RecipeError(f"unknown setting '{name}'{nearest(name, known)}")
    return result


def _absolute(path: str, folder: Path) -> str:
    """A local path from `folder`; anything with a scheme or in GDAL's own file systems is kept."""
    return str((folder / path).absolute()) if is_local(path) else path


def _array(rows: tuple[Spec, ...]) -> AoT:
    array = tomlkit.aot()
    for number, row in enumerate(rows):
        array.append(_table(row, commented=number == 0))
    return array


def _table(spec: Spec, *, commented: bool = True) -> Table:
    table = tomlkit.table()
    for name in type(spec).model_fields:
        _add(table, spec, name, commented=commented)
    return table


def _add(target: Any, spec: Spec, name: str, *, commented: bool = True) -> None:
    """One setting with its description above; a setting that is left out stands as a comment."""
    description = type(spec).model_fields[name].description or ""
    value = getattr(spec, name)
    if commented and description:
        target.add(tomlkit.comment(" ".join(description.split())))
    if value is None:
        if commented:
            target.add(tomlkit.comment(f"{name} ="))
    elif isinstance(value, float) and math.isnan(value):
        target.add(name, tomlkit.float_("nan"))
    elif isinstance(value, dict):
        # Within the line: a table of its own would take all settings that follow into it.
        table = tomlkit.inline_table()
        table.update(value)
        target.add(name, table)
    else:
        target.add(name, list(value) if isinstance(value, tuple) else value)
