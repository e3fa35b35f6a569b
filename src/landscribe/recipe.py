"""Recipe: all settings of a run, as TOML that is validated before anything runs.

A recipe is the specs of the steps, put together. A setting that is left out has its spec's default; `to_toml` writes
all settings with comments, so that a run can be read, changed and repeated.
"""

import math
import os
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import tomlkit
from pydantic import BeforeValidator, model_validator
from tomlkit.exceptions import ConvertError
from tomlkit.items import AoT, Table

from landscribe.assessment.spec import AssessSpec
from landscribe.data.batches.augment_spec import AugmentSpec, is_long
from landscribe.data.chips.spec import ChipSpec
from landscribe.data.scenes.pairing import expand_scenes
from landscribe.data.scenes.scene import class_rows
from landscribe.data.scenes.spec import ClassSpec, SceneSpec
from landscribe.data.splits.spec import SplitSpec
from landscribe.errors import MissingPartsError, OutputError, RecipeError, counted, first_line, shortened
from landscribe.examples import EXAMPLES
from landscribe.geo.access import is_local
from landscribe.geo.classes import Classes
from landscribe.outputs import write_text
from landscribe.polygons.spec import VectorizeSpec
from landscribe.prediction.spec import PredictSpec
from landscribe.spec import (
    WINDOWS_PATHS,
    InputPath,
    InTable,
    NotInRun,
    Seed,
    SharedName,
    Spec,
    is_marked,
    keywords_of,
    nearest,
    other_names,
    why_not_in_run,
)
from landscribe.training.spec import ModelsSpec, TrainSpec

if TYPE_CHECKING:
    ExampleName = str
else:
    # As `prediction.spec.Engine`.
    ExampleName = Literal[*EXAMPLES]


def _as_preset(value: Any) -> Any:
    """Read the name of a preset of augmentation as its table."""
    return {"preset": value} if isinstance(value, str) else value


class Recipe(Spec):
    """All settings of a run."""

    landscribe: Literal[1] = 1
    """Version of the recipe's layout."""
    seed: Seed = 0
    """Random seed."""
    like: ExampleName | None = None
    """Example of the lecture that the recipe follows: check names the files that its folder lacks, in the publisher's
    words, and the report shows the published numbers."""
    data: InputPath | None = None
    """Folder of that example, as its publisher distributes it."""
    scenes: tuple[SceneSpec, ...]
    """Imagery with labels. Paths are relative to the recipe's folder."""
    classes: tuple[ClassSpec, ...] = ()
    """The class table. Where polygons overlap, later classes lie on top. Default: the classes of the labels."""
    chips: ChipSpec = ChipSpec()
    """How scenes are cut into chips."""
    split: SplitSpec = SplitSpec()
    """How chips are split into train, val and test."""
    augment: Annotated[AugmentSpec, BeforeValidator(_as_preset)] = AugmentSpec()
    """How chips are augmented in training; the name of a preset is taken, too."""
    train: TrainSpec = TrainSpec()
    """How a network is trained."""
    models: ModelsSpec = ModelsSpec()
    """Which models a run trains."""
    predict: PredictSpec = PredictSpec()
    """How the images are mapped."""
    vectorize: VectorizeSpec = VectorizeSpec()
    """How the map becomes polygons."""
    assess: AssessSpec = AssessSpec()
    """How the map is assessed."""

    @model_validator(mode="after")
    def _has_settings_of_a_run(self) -> Self:
        for section in SECTIONS.keys() - {"scenes"}:
            spec = getattr(self, section)
            for name, field in type(spec).model_fields.items():
                reason, value = why_not_in_run(field), getattr(spec, name)
                if reason is not None and value != field.default:
                    raise ValueError(f"{section}.{name} is {value!r}, but {reason}. Leave it out")
        return self

    @model_validator(mode="after")
    def _data_are_of_an_example(self) -> Self:
        if self.data is not None and self.like is None:
            raise ValueError(
                f'data is {self.data}, but like names no example. Add like, such as "{next(iter(EXAMPLES))}", or leave '
                "out data"
            )
        return self

    @model_validator(mode="after")
    def _final_training_needs_no_validation(self) -> Self:
        if self.models.final == "all" and self.train.schedule == "plateau":
            raise ValueError(
                "final is all, but schedule = plateau follows validation chips, and the final training has none. "
                "Choose another schedule, or leave out final"
            )
        return self

    def has_final(self, train: TrainSpec, *, pass_length: int, holds_out: bool) -> bool:
        """True if a final model, trained on all labelled ground, makes the map.

        Args:
            train: the resolved settings of the training.
            pass_length: windows or chips of a pass over the train chips.
            holds_out: True if some of the chips are not of split train.
        """
        if self.models.final != "auto":
            return self.models.final == "all"
        # Who names the scenes of val and test means them to be seen by no model.
        is_given = self.split.by in ("attribute", "list") or any(scene.split for scene in self.scenes)
        is_single = self.models.folds is None and train.devices in ("auto", 1)
        if is_given or not is_single or train.schedule == "plateau" or not holds_out:
            return False
        return is_long(train.passes(pass_length), train.total_steps(train.steps_a_pass(pass_length)))

    @classmethod
    def load(cls, path: str | Path) -> "Recipe":
        """Read a recipe; its paths become absolute.

        Raises:
            RecipeError: no TOML, an unknown name (the nearest is offered), a value out of range.
        """
        # GDAL loads for a second; nobody waits for it who only asks for help.
        from landscribe.geo.access import require_file

        path = Path(path)
        require_file(str(path))
        if path.is_dir():
            raise RecipeError(_what_folder(path))
        try:
            # Programs of Windows begin a text in UTF-8 with a byte order mark.
            text = path.read_text(encoding="utf-8-sig")
            settings = tomllib.loads(text)
        except UnicodeDecodeError as error:
            raise RecipeError(
                f"{path} is no TOML: it is not text in UTF-8. Save a recipe as UTF-8. Imagery is given with --image, "
                "and labels with --labels."
            ) from error
        except OSError as error:
            raise RecipeError(f'{path} cannot be read: {error.strerror}. "landscribe new" writes a recipe.') from error
        except tomllib.TOMLDecodeError as error:
            line = re.search(r"\(at line (\d+), column \d+\)$", str(error))
            remedy = 'Correct that line; "landscribe new" writes a recipe to start from'
            if line is not None and "\\" in text.split("\n")[int(line[1]) - 1]:
                remedy = WINDOWS_PATHS
            raise RecipeError(f"{path} is no TOML: {first_line(error)}. {remedy}.") from error
        return cls.of(settings, str(path)).with_absolute_paths(path.parent)

    @classmethod
    def of_files(
        cls,
        images: list[Any],
        labels: Any,
        settings: dict[str, Any],
        *,
        sections: tuple[str, ...],
    ) -> "Recipe":
        """Build a recipe from files and settings; paths are relative to the working folder.

        Args:
            images: one entry per scene: a file, or a list of files to stack.
            labels: one file for all scenes, or one for each.
            settings: as `into_sections` takes them.
            sections: the sections that a setting may belong to.

        Raises:
            RecipeError: as `load`.
        """
        stacks = [[image] if isinstance(image, (str, Path)) else image for image in images]
        for stack in stacks:
            if not isinstance(stack, (list, tuple)) or not all(isinstance(file, (str, Path)) for file in stack):
                raise RecipeError(
                    f"images has {shortened(repr(stack))}. Expected a path for each scene, or a list of paths to stack."
                )
        per_scene = list(labels) if isinstance(labels, (list, tuple)) else [labels] * len(images)
        for label in per_scene:
            if label is not None and not isinstance(label, (str, Path)):
                raise RecipeError(f"labels has {shortened(repr(label))}. Expected a path, or None, for each scene.")
        if len(per_scene) == 1:
            per_scene = per_scene * len(images)
        if len(per_scene) != len(images):
            raise RecipeError(
                f"{counted(len(images), 'image')} and {counted(len(per_scene), 'label file')} were given. "
                "Give one label file for all images, or one for each."
            )
        by_section = into_sections(settings, sections)
        common = by_section.pop("scenes", {})
        scenes = [
            {
                "image": [str(file) for file in stack],
                "labels": None if label is None else str(label),
            }
            | common
            for stack, label in zip(stacks, per_scene, strict=True)
        ]
        return cls.of(by_section | {"scenes": scenes}).with_absolute_paths(Path.cwd())

    @classmethod
    def of_example(cls, name: str, folder: Path) -> "Recipe":
        """The recipe of an example of the lecture, with paths relative to its folder, which need not exist.

        Raises:
            RecipeError: there is no such example (the nearest is offered).
        """
        if name not in EXAMPLES:
            raise RecipeError(f"there is no example '{name}'{nearest(name, list(EXAMPLES))}")
        return cls.of({"like": name, "data": "."} | EXAMPLES[name].settings(folder))

    def with_absolute_paths(self, folder: Path) -> "Recipe":
        """The same recipe with every local path absolute, from `folder`."""
        return self.with_paths(lambda path: _absolute(folder / path) if is_local(path) else path)

    def listed(self) -> "Recipe":
        """The same recipe with every scene on its own, where a folder or pattern stands for many.

        Raises:
            MissingPartsError: the folder of an example lacks files.
            LandscribeError: a folder or pattern has no images, or an image no labels.
        """
        if self.like is not None and self.data is not None:
            missing = EXAMPLES[self.like].missing(Path(self.data))
            if missing:
                raise MissingPartsError(missing)
        scenes, classes = expand_scenes(self.scenes, self.classes)
        return self.model_copy(update={"scenes": scenes, "classes": classes})

    def with_settings(self, settings: dict[str, Any]) -> "Recipe":
        """The same recipe with other settings, by section; settings of `scenes` change each scene."""
        changed = self.model_dump()
        of_scenes = settings.get("scenes", {})
        changed["scenes"] = [scene | of_scenes for scene in changed["scenes"]]
        for name, value in settings.items():
            if name != "scenes":
                changed[name] = changed[name] | value if isinstance(value, dict) else value
        return Recipe.of(changed)

    def with_classes(self, classes: Classes) -> "Recipe":
        """The same recipe with its class table written out."""
        return self.model_copy(update={"classes": tuple(class_rows(classes))})

    def to_toml(self) -> str:
        """The whole recipe as commented TOML.

        Law: `Recipe.of(tomllib.loads(r.to_toml())) == r`, unless a nodata value is nan, which equals no number.
        """
        document = tomlkit.document()
        document.add(tomlkit.comment("A Landscribe recipe. Run it with: landscribe run RECIPE.toml --out FOLDER"))
        for name in ("landscribe", "seed", *(("like", "data") if self.like else ())):
            _add(document, self, name)
        for name in ("scenes", "classes"):
            rows: tuple[Spec, ...] = getattr(self, name)
            if rows:
                document.add(name, _array(rows))
        for name in [section for section in SECTIONS if section != "scenes"]:
            document.add(tomlkit.nl())
            document.add(name, _table(getattr(self, name)))
        return tomlkit.dumps(document)

    def save(self, path: Path) -> None:
        """Write the recipe, whole or not at all.

        Raises:
            OutputError: the suffix is not .toml, as of a folder.
        """
        if path.suffix.lower() != ".toml":
            raise OutputError(f"{path} has no suffix .toml. Expected a file such as {path / 'recipe.toml'}.")
        write_text(path, self.to_toml())


def _what_folder(path: Path) -> str:
    """Why a folder is no recipe, and what to give instead."""
    recipe, chips = path / "recipe.toml", path / "chips"
    if (path / "chips.json").exists():
        return f'{path} is a chips folder. Expected a recipe (TOML). "landscribe check" audits chips.'
    if recipe.exists():
        audited = f', or {chips} to "landscribe check", which audits chips' if chips.exists() else ""
        return f"{path} is a folder. Expected a recipe (TOML). Give {recipe}{audited}."
    return (
        f"{path} is a folder, but no chips folder (it has no chips.json). Expected a recipe (TOML), or for "
        '"landscribe check" a chips folder. Imagery is given with --image, also a folder of it.'
    )


def _absolute(path: Path) -> str:
    """An absolute path without "..", so that one file has one path; ".." after a link to a folder stays."""
    plain = path.absolute()
    if ".." not in plain.parts:
        return str(plain)
    short = os.path.normpath(plain)
    return short if os.path.realpath(short) == os.path.realpath(plain) else str(plain)


SECTIONS: dict[str, type[Spec]] = {
    "scenes": SceneSpec,
    **{name: type(field.default) for name, field in Recipe.model_fields.items() if isinstance(field.default, Spec)},
}
"""Spec of each section of a recipe by name; that of `scenes` is for each scene."""

_TOP = ("seed", "classes")


def into_sections(settings: dict[str, Any], sections: tuple[str, ...]) -> dict[str, Any]:
    """Sort plain names into the sections of a recipe. A plain name means the same setting as the flag of that name.

    A section's own name takes a table of its settings, or its spec, of which only the settings that were given count.
    `seed` and `classes` belong to no section; `augment` also takes a preset's name.

    >>> into_sections({"size": 128, "seed": 1, "train": {"batch": 4}}, ("chips", "train"))
    {'chips': {'size': 128}, 'seed': 1, 'train': {'batch': 4}}

    Raises:
        RecipeError: an unknown name (the nearest is offered), one that several sections have, or two of one setting.
    """
    result: dict[str, Any] = {}
    given: dict[str, str] = {}
    for name, value in settings.items():
        if name in _TOP:
            result[name] = value
        elif (table := _table_in(name, value, sections)) is not None:
            result[name] = result.get(name, {}) | table
        else:
            own = _own_name(name, sections)
            if given.setdefault(own, name) != name:
                raise RecipeError(f"{given[own]} and {name}, which is the same, are both given. Give one of them.")
            for section in _sections_of(own, value, sections):
                result[section] = result.get(section, {}) | {own: value}
    return result


def _table_in(name: str, value: Any, sections: tuple[str, ...]) -> dict[str, Any] | None:
    """The settings in the value of a section's own name; None for the plain name of a setting."""
    if name != "augment" and name not in sections:
        return None
    spec = SECTIONS[name]
    if isinstance(value, dict):
        return value
    # A scene has files, which would become those of all scenes.
    if isinstance(value, spec) and spec is not SceneSpec:
        return value.model_dump(exclude_unset=True)
    if name == "augment" and isinstance(value, str):
        return {"preset": value}
    if name == "split" and (value is None or isinstance(value, str)):
        _require_split(value)
        return None
    example = next(field for field in spec.model_fields if field not in ("image", "labels"))
    kinds = f"a table of settings{'' if spec is SceneSpec else f' or a {spec.__name__}'}"
    raise RecipeError(f"'{name}' is {shortened(repr(value))}. Expected {kinds}, such as {name}={{'{example}': ...}}.")


def _require_split(value: str | None) -> None:
    """Raise RecipeError for a way to split chips in place of the split of whole scenes."""
    if value is not None and value.lower() in keywords_of(SplitSpec.model_fields["by"].annotation):
        raise RecipeError(
            f"'split' is '{value}'. Expected train, val or test, into which whole scenes go. Write "
            f"split_by='{value}' to say how chips are split."
        )


def _own_name(name: str, sections: tuple[str, ...]) -> str:
    """The name of the field that is also called `name`; `name` itself if it is called nothing else."""
    fields = (field for section in sections for field in SECTIONS[section].model_fields.items())
    return next((own for own, field in fields if name in other_names(own, field)), name)


def _sections_of(name: str, value: Any, sections: tuple[str, ...]) -> list[str]:
    """The section that has a setting; all of them for a name that they share."""
    plain = [section for section in sections if section != "augment"]
    fields = {each: SECTIONS[each].model_fields[name] for each in plain if name in SECTIONS[each].model_fields}
    if not fields:
        known = [*_TOP, "augment", *(field for section in plain for field in SECTIONS[section].model_fields)]
        raise RecipeError(f"unknown setting '{name}'{nearest(name, known)}")
    # A plain name means the setting that has a flag; where none has, the recipe says why a run refuses it.
    homes = [each for each, field in fields.items() if not is_marked(field, InTable, NotInRun)] or list(fields)
    if len(homes) > 1 and not all(is_marked(fields[each], SharedName) for each in homes):
        choices = " or ".join(f"{section}={{'{name}': {value!r}}}" for section in homes)
        raise RecipeError(f"'{name}' is a setting of {' and of '.join(homes)}. Say which: {choices}.")
    return homes


def _array(rows: tuple[Spec, ...]) -> AoT:
    array = tomlkit.aot()
    for index, row in enumerate(rows):
        array.append(_table(row, commented=index == 0))
    return array


def _table(spec: Spec, *, commented: bool = True) -> Table:
    table = tomlkit.table()
    for name, field in type(spec).model_fields.items():
        if why_not_in_run(field) is not None:
            continue
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
        try:
            table.update(value)
        except ConvertError:
            raise RecipeError(f"{name} is {value!r}. Expected text, numbers and lists, as TOML can hold.") from None
        target.add(name, table)
    else:
        target.add(name, list(value) if isinstance(value, tuple) else value)
