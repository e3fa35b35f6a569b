"""Options: one flag for each field of a spec, and the flags that commands share.

A field gives its flag's name, type, choices, default and help (its docstring, with flags in place of names of fields).
The flags of a command are created when it is called, so that `landscribe --help` loads no spec.
"""

import inspect
import re
from copy import copy
from functools import cache, cached_property
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from typer.core import TyperCommand

from landscribe.commands.terminal import UsageError
from landscribe.errors import LandscribeError

Images = Annotated[
    list[str] | None,
    typer.Option(
        "--image",
        metavar="<path>",
        help="Image of a scene, or a folder or pattern of images; repeat for more. Commas stack files as bands.",
    ),
]
Labels = Annotated[
    list[str] | None,
    typer.Option(
        "--labels",
        metavar="<path>",
        help="Polygons or label raster: one for all scenes, or repeat for each; a folder for a folder of images.",
    ),
]
ClassTable = Annotated[
    Path | None,
    typer.Option(
        help="Class table: a CSV file with the columns value, name and, if there are any, colour (#rrggbb) and label "
        "(the class in the label data). [default: the classes of the labels, or of the recipe]",
        show_default=False,
    ),
]
Rasters = Annotated[
    list[str],
    typer.Argument(
        metavar="image...",
        help="Rasters, folders, patterns, lists (@files.txt), URLs, STAC items; commas stack files as bands.",
    ),
]
Seed = Annotated[int | None, typer.Option(help="Random seed. [default: 0]")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Output folder.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Overwrite existing output.")]
TrustCode = Annotated[
    list[str] | None,
    typer.Option(
        "--trust-code",
        metavar="<module:Class>",
        help="A class of your own that the model folder names and that may be imported; repeat for more.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
MARKUP: Literal["markdown"] = "markdown"
"""Rich's own markup would read a default such as [auto] as a style."""

# Sections as they are headed in help, with the module and class of their spec.
_SECTIONS = {
    "scenes": ("Scenes", "data.scenes.spec", "SceneSpec"),
    "chips": ("Chips", "data.chips.spec", "ChipSpec"),
    "split": ("Split", "data.splits.spec", "SplitSpec"),
    "augment": ("Augmentation", "data.batches.augment_spec", "AugmentSpec"),
    "train": ("Training", "training.spec", "TrainSpec"),
    "models": ("Models", "training.spec", "ModelsSpec"),
    "predict": ("Prediction", "prediction.spec", "PredictSpec"),
    "vectorize": ("Polygons", "polygons.spec", "VectorizeSpec"),
    "assess": ("Assessment", "assessment.spec", "AssessSpec"),
    "sample": ("Reference sample", "sampling.spec", "SampleSpec"),
    "accuracy": ("Accuracy", "assessment.spec", "AccuracySpec"),
    "objects": ("Objects", "assessment.spec", "ObjectAssessmentSpec"),
    "imagery": ("Imagery", "geo.spec", "ImagerySpec"),
}
_COMMAND_OF = {
    "scenes": "chip", "chips": "chip", "split": "chip", "train": "train", "augment": "train", "predict": "predict",
    "vectorize": "vectorize", "accuracy": "assess", "sample": "sample",
}  # fmt: skip
"""The command that has the flags of a section, if another one is given them."""
LABEL_SETTINGS = (
    "label_field", "label_layer", "label_crs", "label_priority", "label_zero", "all_touched", "label_threshold",
    "label_objects", "label_nodata_as", "label_ignore", "labelled_area", "sparse", "fix_geometries",
)  # fmt: skip
"""Fields of scenes that say how labels are read: those of a reference."""
OBJECT_SETTINGS = ("object_field", "score_field", "tolerance")
"""Fields that say how objects are compared."""
_WITHOUT_VALUE = {"--instances": "--instances=beside", "--all-touched": "--all-touched=all"}
"""Flags that may come without a value, and what they mean then."""
ACCURACY_SETTINGS = (
    "confidence", "block_size", "regions", "region_field", "edges", "edge_tolerance", "probabilities", "class_table",
    "sample_labels", "skip_unlabelled", "dask",
)  # fmt: skip
"""Fields that say how pixels are compared, and how their measures get intervals."""
_WORDS = {int: "int", float: "float", str: "text", Path: "path"}
_CITATION = re.compile(r" \([^()]*(arXiv|doi):[^()]*\)")
_LONG_METAVAR = 20
"""Characters from which the choices of a flag are set apart by spaces, so that no line breaks within a word."""
_LONG_NAMES = 24
"""Characters of the names of a flag, beyond which help of 80 columns would cut them."""
_IN_HELP, _HELP_ALL = "in_help", "help_all"
"""Keys of a context that shows its help, and of one whose help shows all flags."""


class Command(TyperCommand):
    """A command that refuses empty arguments: an empty path would be the working folder."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments; raise LandscribeError for an empty one."""
        for before, argument in pairwise(["", *args]):
            if not argument or re.fullmatch("--[a-z-]+=", argument):
                name = (argument or before).rstrip("=")
                raise LandscribeError(
                    f"{name if name.startswith('-') else 'an argument'} is empty. Give a value, or leave it out."
                )
        ends = [index + 1 == len(args) or args[index + 1].startswith("-") for index in range(len(args))]
        valued = [_WITHOUT_VALUE.get(each, each) if is_end else each for each, is_end in zip(args, ends, strict=True)]
        try:
            parsed: list[str] = super().parse_args(ctx, valued)
        except UsageError as error:
            _name_its_command(error)
            # Click leaves out the command where a flag lacks its value.
            error.ctx = getattr(error, "ctx", None) or ctx  # type: ignore[attr-defined]
            raise
        return parsed

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Show the files of a command as paths, which typer would call list[Path]."""
        for parameter in self.params:
            if parameter.nargs == -1:
                parameter.display_type_rich = lambda ctx: "<path>"  # type: ignore[attr-defined]  # noqa: ARG005
        super().format_help(ctx, formatter)


def _name_its_command(error: Any) -> None:
    """Of a flag that this command lacks and another has, name that one in place of flags with similar names."""
    from landscribe.spec import NoFlag, is_marked

    flag = getattr(error, "option_name", None)
    if not flag or not hasattr(error, "possibilities"):
        return
    for section, command in _COMMAND_OF.items():
        flags = {name: field for name, field in spec_of(section).model_fields.items() if not is_marked(field, NoFlag)}
        if any(flag in flag_names(*each) for each in flags.items()):
            error.message, error.possibilities = f"No such option: {flag}, which landscribe {command} has", None
            return


def _show_all_help(ctx: typer.Context, is_asked: bool) -> None:  # noqa: FBT001  as typer calls it
    if is_asked:
        ctx.meta[_HELP_ALL] = True
        typer.echo(ctx.get_help())
        raise typer.Exit


def _in_help(flag: Any) -> Any:
    """A flag without --no-FLAG, which only turns off what a recipe has turned on, and with names that fit its column.

    Further names that do not fit stand before its text.
    """
    shown = copy(flag)
    shown.secondary_opts = []
    if len(",".join(shown.opts)) > _LONG_NAMES:
        first, *others = shown.opts
        shown.opts, shown.help = [first], f"Also {', '.join(others)}. {shown.help}"
    return shown


_HelpAll = Annotated[
    bool,
    typer.Option(
        "--help-all",
        help="Show all settings, not only the frequent ones, and exit.",
        callback=_show_all_help,
        is_eager=True,
    ),
]


def with_settings(
    *sections: str,
    only: tuple[str, ...] | None = None,
    in_run: bool = False,
    frequent: tuple[str, ...] = (),
    panels: dict[str, str] | None = None,
    also: dict[str, tuple[str, ...]] | None = None,
) -> type[Command]:
    """A class of commands with a flag for each field of these sections; `ctx.obj` holds {section: {name: value}}.

    Args:
        sections: names of sections; their flags appear in this order.
        only: the fields that get a flag; all if None.
        in_run: leave out the fields that a run refuses or has in a table only, and let a shared name set all sections.
        frequent: the fields that --help shows, and --help-all all; --help shows all if empty.
        panels: headings of sections in help, where they differ from the usual ones.
        also: further names of the flags of fields.
    """

    class SettingsCommand(Command):
        @cached_property
        def flags(self) -> dict[str, Any]:
            parameters = _parameters(sections, only, panels or {}, also or {}, in_run=in_run)
            return {parameter.name: parameter for parameter in _typer_options(parameters)}

        @cached_property
        def help_all(self) -> list[Any]:
            return _typer_options({_HELP_ALL: _HelpAll}) if frequent else []

        def get_params(self, ctx: Any) -> list[Any]:
            *own, help_option = super().get_params(ctx)
            flags = self.flags
            if _IN_HELP in ctx.meta:
                are_all = not frequent or _HELP_ALL in ctx.meta
                flags = {key: _in_help(flags[key]) for key in flags if are_all or key.split("__")[1] in frequent}
            return [*own, *flags.values(), *self.help_all, help_option]

        def format_help(self, ctx: Any, formatter: Any) -> None:
            ctx.meta[_IN_HELP] = True
            super().format_help(ctx, formatter)

        def invoke(self, ctx: Any) -> Any:
            ctx.obj = {}
            ctx.params.pop(_HELP_ALL, None)
            for key in self.flags:
                value = ctx.params.pop(key)
                if value is not None and value != ():
                    first, name = key.split("__")
                    for section in _sharing(first, name, sections) if in_run else (first,):
                        ctx.obj.setdefault(section, {})[name] = value
            return super().invoke(ctx)

    return SettingsCommand


def _sharing(first: str, name: str, sections: tuple[str, ...]) -> tuple[str, ...]:
    """The sections that the flag of a field sets in a run: all that share its name, or its own."""
    from landscribe.spec import SharedName, is_marked

    if not is_marked(spec_of(first).model_fields[name], SharedName):
        return (first,)
    return tuple(section for section in sections if name in spec_of(section).model_fields)


def _parameters(
    sections: tuple[str, ...],
    only: tuple[str, ...] | None,
    panels: dict[str, str],
    also: dict[str, tuple[str, ...]],
    *,
    in_run: bool,
) -> dict[str, Any]:
    """Typer's annotation of each flag by `section__field`."""
    from landscribe.spec import InTable, NoFlag, NotInRun, is_marked

    without_flag = (NoFlag, InTable, NotInRun) if in_run else (NoFlag,)

    parameters, taken = {}, dict[str, str]()
    for section in sections:
        for name, field in spec_of(section).model_fields.items():
            is_flag = only is None or name in only
            is_first = not in_run or _sharing(section, name, sections)[0] == section
            if not is_flag or not is_first or is_marked(field, *without_flag):
                continue
            names = (*flag_names(name, field), *also.get(name, ()))
            for flag in names:
                if flag in taken:
                    raise ValueError(f"{flag} is a flag of {taken[flag]} and of {section}; mark one of them")
                taken[flag] = section
            panel = panels.get(section, _SECTIONS[section][0])
            parameters[f"{section}__{name}"] = _annotation(names, field, panel)
    return parameters


def spec_of(section: str) -> Any:
    """The spec class of a section."""
    _, module, name = _SECTIONS[section]
    return getattr(import_module(f"landscribe.{module}"), name)


def flag_names(name: str, field: Any) -> tuple[str, ...]:
    """The names of a field's flag, such as ("--split-by",)."""
    from landscribe.spec import Flag, other_names

    stated = next((mark.names for mark in field.metadata if isinstance(mark, Flag)), None)
    return stated or tuple(f"--{own.replace('_', '-')}" for own in (name, *other_names(name, field)))


def _typer_options(annotations: dict[str, Any]) -> list[Any]:
    """The options that typer makes of a function with these parameters."""

    def flags(**_: Any) -> None: ...

    parameters = [
        inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for key, annotation in annotations.items()
    ]
    flags.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    flags.__annotations__ = annotations
    scratch = typer.Typer(add_completion=False, rich_markup_mode=MARKUP)
    scratch.command()(flags)
    return list(typer.main.get_command(scratch).params)


def _annotation(names: tuple[str, ...], field: Any, panel: str) -> Any:
    from landscribe.spec import TextMark

    is_text = any(isinstance(mark, TextMark) for mark in field.metadata)
    kind = str if is_text else _command_line_type(field.annotation)
    choices = [word for kind in _kinds(field.annotation) if get_origin(kind) is Literal for word in get_args(kind)]
    if kind is bool:
        names = tuple(f"{flag}/--no-{flag.removeprefix('--')}" for flag in names)
    option = typer.Option(
        *names,
        help=help_of(field),
        rich_help_panel=panel,
        metavar=_breakable(_metavar(field.annotation)) if choices or kind in (str, list[str]) else None,
        case_sensitive=False,
        autocompletion=(lambda: choices) if is_text and choices else None,
    )
    return Annotated[kind | None, option]


def help_of(field: Any) -> str:
    """A field's docstring without citations, with flags in place of names of fields, and its default in brackets."""
    text, _, default = _CITATION.sub("", " ".join((field.description or "").split())).partition("Default: ")
    # "Default: …" says what happens when the setting is left out.
    shown = default.rstrip(".")
    # 0 is a default, and equals False.
    is_empty = field.default is False or field.default in (None, "", ())
    if not (shown or field.default_factory or is_empty):
        shown = _default_text(field.default)
    help_text = text.strip() + (f" [default: {shown}]" if shown else "")
    flags = _flag_by_field()
    return re.sub(r"\w+", lambda word: flags.get(word[0], word[0]), help_text).replace("*", r"\*")


@cache
def _flag_by_field() -> dict[str, str]:
    """The flag of each field whose name is no word of the language: it has an underscore."""
    from landscribe.spec import NoFlag

    fields = (item for section in _SECTIONS for item in spec_of(section).model_fields.items())
    return {
        name: flag_names(name, field)[0]
        for name, field in fields
        if "_" in name and not any(isinstance(mark, NoFlag) for mark in field.metadata)
    }


def _breakable(metavar: str) -> str:
    return f"<{metavar if len(metavar) < _LONG_METAVAR else metavar.replace('|', ' | ')}>"


def _default_text(default: Any) -> str:
    return f"{default:g}" if isinstance(default, float) else str(default)


def _kinds(annotation: Any) -> list[Any]:
    """The types of a union, without None and metadata; Path for a path."""
    from landscribe.spec import PathMark

    if get_origin(annotation) is Annotated:
        kind, *marks = get_args(annotation)
        return [Path] if any(isinstance(mark, PathMark) for mark in marks) else _kinds(kind)
    if get_origin(annotation) is None or get_origin(annotation) in (Literal, tuple, dict):
        return [annotation]
    return [kind for part in get_args(annotation) if part is not type(None) for kind in _kinds(part)]


def _command_line_type(annotation: Any) -> Any:
    """A Literal gives choices, a number a number, a bool a switch; the spec reads anything else from text."""
    kinds = _kinds(annotation)
    if len(kinds) > 1:
        return str
    if get_origin(kinds[0]) is dict:
        return list[str]
    return kinds[0] if kinds[0] in (int, float, bool) or get_origin(kinds[0]) is Literal else str


def _metavar(annotation: Any) -> str:
    """What the text of a flag may be, such as int|auto."""
    words: list[str] = []
    for kind in _kinds(annotation):
        if get_origin(kind) is Literal:
            words += map(str, get_args(kind))
        elif get_origin(kind) is dict:
            words.append("NAME=VALUE")
        elif get_origin(kind) is tuple:
            words.append(f"{_metavar(get_args(kind)[0])},...")
        else:
            words.append(_WORDS[kind])
    return "|".join(words)


def given(**settings: Any) -> dict[str, Any]:
    """The settings that were given on the command line."""
    return {name: value for name, value in settings.items() if value is not None}


def settings_of(ctx: typer.Context) -> dict[str, Any]:
    """The settings of a command by their plain names; those of augmentation as the table `augment`."""
    sections = dict(ctx.obj)
    augment = sections.pop("augment", None)
    settings = {name: value for section in sections.values() for name, value in section.items()}
    return settings | given(augment=augment)


def image_files(images: list[str] | None) -> list[list[str]]:
    """The files of each image."""
    from landscribe.geo.inputs import split_files

    return [split_files(image) for image in images or []]
