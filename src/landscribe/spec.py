"""Spec: the settings of one step, frozen and validated. An unknown name is refused with the nearest known one.

A step takes one small spec, defined beside it. A field's name, type, range, default and docstring give the flag of
the command line, the keyword of the verb, and the key and comment of the recipe.
"""

import csv
import difflib
import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from landscribe.errors import RecipeError, is_printable, shortened
from landscribe.spec_help import doc_with_settings, plain_signature


@dataclass(frozen=True)
class Flag:
    """Names of a field's command-line flag, where they differ from the field's own name."""

    names: tuple[str, ...]

    def __init__(self, *names: str) -> None:
        object.__setattr__(self, "names", names)


@dataclass(frozen=True)
class NoFlag:
    """Marks a field that has no command-line flag."""

    reason: str


@dataclass(frozen=True)
class NotInRun:
    """Marks a field that a run refuses: a recipe, flag or keyword of a run does not have it."""

    reason: str
    """Follows "but": what a run does instead."""


class InTable:
    """Marks a field that a run sets in the table of its section only: its plain name is that of another setting."""


class SharedName:
    """Marks a field that a run sets in every section that has it, by one flag and one plain name."""


@dataclass(frozen=True)
class AlsoCalled:
    """Other names of a field, which certainly mean it, such as lr for learning_rate."""

    names: tuple[str, ...]

    def __init__(self, *names: str) -> None:
        object.__setattr__(self, "names", names)


class TextMark:
    """Marks a number or choice that a command line gives as text, which the spec reads."""


class PathMark:
    """Marks a text that is a path."""

    word = "path"
    """What help calls such a text."""


# A drive, and later what \a, \b, \t, \n, \v, \f or \r stands for, as of "C:\temp\new.tif".
_ESCAPED = re.compile("[A-Za-z]:.*[\a-\r]", re.DOTALL)
WINDOWS_PATHS = (
    r"In double quotes, a backslash begins an escape: write C:/data/scene.tif, or in a recipe 'C:\data\scene.tif' in "
    "single quotes"
)
"""How to write a path of Windows, for messages."""


def _as_path(value: Any) -> Any:
    if isinstance(value, str) and not value.strip():
        # An empty path would be the working folder.
        raise ValueError("expected a path, not an empty text")
    if isinstance(value, str) and _ESCAPED.match(value):
        raise ValueError(f"expected a path without control characters. {WINDOWS_PATHS}")
    return str(value) if isinstance(value, Path) else value


InputPath = Annotated[str, PathMark(), BeforeValidator(_as_path)]
"""A path or URL. In a recipe, a local path is relative to the recipe's folder."""


def split_at_commas(text: str) -> list[str]:
    """Cut a text at its commas; a name in double quotes may contain commas.

    >>> split_at_commas('red, green'), split_at_commas('"north, 2024.tif", south.tif')
    (['red', 'green'], ['north, 2024.tif', 'south.tif'])
    """
    try:
        parts = next(csv.reader([text], skipinitialspace=True), [])
    except csv.Error:  # a line break between names: no line of CSV
        return [text]
    return [part.strip() for part in parts] or [text]


def _names(value: Any) -> Any:
    return tuple(split_at_commas(value)) if isinstance(value, str) else value


def _require_printable(name: str) -> str:
    if not is_printable(name):
        raise ValueError("expected a name without control characters")
    return name


StoredName = Annotated[str, AfterValidator(_require_printable)]
"""A name that is written into files, of a class or a band: XML cannot hold control characters, and terminals obey
them."""


def named_values(values: Any) -> Any:
    """Read texts NAME=VALUE as a dict. VALUE is TOML; text without quotes is a string.

    >>> named_values(["depth=3", "activation=swish"])
    {'depth': 3, 'activation': 'swish'}

    Raises:
        ValueError: a text without "=".
    """
    if not isinstance(values, (list, tuple)):
        return values
    result: dict[str, Any] = {}
    for text in values:
        name, equals, value = str(text).partition("=")
        if not equals or not name.strip():
            raise ValueError(f"expected NAME=VALUE such as depth=3, got {text}")
        try:
            result[name.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            result[name.strip()] = value.strip()
    return result


MOST_PIXELS = 2**31 - 1
"""Largest side of a raster that GDAL can count."""

AnyFloat = Annotated[float, Field(allow_inf_nan=True)]
"""A nodata value: any number that a file may hold, also nan."""
Count = Annotated[int, Field(ge=1, le=10**9)]
"""A number of things, at least one."""
Pixels = Annotated[int, Field(ge=1, le=MOST_PIXELS)]
"""A length in pixels."""
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
"""A random seed. numpy and Lightning take 32 bits."""


def checked(name: str, value: Any, allowed: Any) -> Any:
    """An argument of a verb that is no field of a spec, if it is of the annotated type `allowed`.

    >>> checked("seed", "7", Seed)
    7

    Raises:
        RecipeError: it is of another type, or out of range.
    """
    if isinstance(value, bool) and _takes_only_numbers(allowed):
        raise RecipeError(f"'{name}' is {value!r}; {_NO_NUMBER}.")
    try:
        return TypeAdapter(allowed, config=ConfigDict(allow_inf_nan=False)).validate_python(value)
    except ValidationError as error:
        messages = dict.fromkeys(_in_our_words(finding, []) for finding in error.errors())
        raise RecipeError(f"'{name}' is {shortened(repr(value))}; {', or '.join(messages)}.") from None


def words(**meanings: str) -> BeforeValidator:
    """Lets a field take other words, which certainly mean one of its values: `words(jpeg="jpg")`."""
    return BeforeValidator(lambda value: meanings.get(value.lower(), value) if isinstance(value, str) else value)


def _read_fraction(value: Any) -> Any:
    """Read "20 %" as 0.2; refuse 20, which may be per cent or a number of chips."""
    if isinstance(value, str) and value.rstrip().endswith("%"):
        return float(value.rstrip().removesuffix("%")) / 100
    try:
        number = float(value)
    except (TypeError, ValueError):
        return value
    if 1 < number <= 100:
        raise ValueError(f"expected a fraction below 1: write {number / 100:g}, or {number:g}% for per cent")
    return value


FractionText = BeforeValidator(_read_fraction)
"""Lets a fraction be given as per cent."""


def _numbers(value: Any) -> Any:
    return split_at_commas(value) if isinstance(value, str) and "," in value else value


NumberList = BeforeValidator(_numbers)
"""Lets a field of a number or a tuple of numbers take one text with commas."""
CommaList = BeforeValidator(_names)
"""Lets a field of a tuple take one text with commas, as a command line gives it."""
NamedValues = BeforeValidator(named_values)
"""Lets a field of a dict take texts NAME=VALUE, as a command line gives them."""


class Spec(BaseModel):
    """Frozen, checked settings of one step. Numbers are finite, unless a field is `AnyFloat`."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, ser_json_inf_nan="strings", use_attribute_docstrings=True
    )

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Let `help` list the settings: pydantic's own signature shows types as their validators."""
        super().__pydantic_init_subclass__(**kwargs)
        cls.__doc__ = doc_with_settings(cls.__doc__ or "", cls.model_fields)
        cls.__signature__ = plain_signature(cls.model_fields)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Of `repr`: the settings that are not the default."""
        for name, field in type(self).model_fields.items():
            if getattr(self, name) != field.get_default(call_default_factory=True, validated_data={}):
                yield name, getattr(self, name)

    @model_validator(mode="before")
    @classmethod
    def _by_usual_names(cls, values: Any) -> Any:
        """Other names of fields become their own, and other cases of a choice its own."""
        if not isinstance(values, dict):
            return values
        named = dict(values)
        for name, field in cls.model_fields.items():
            for other in other_names(name, field):
                if other in named:
                    if name in named:
                        raise ValueError(f"{name} and {other}, which is the same, are both given; give one of them")
                    named[name] = named.pop(other)
            value = named.get(name)
            if (
                isinstance(value, str)
                and path_in(field) is None
                and value not in (known := keywords_of(field.annotation))
            ):
                named[name] = value.lower() if value.lower() in known else value
        return named

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_truth_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Python would count true as 1."""
        if isinstance(value, bool) and _takes_only_numbers(cls.model_fields[str(info.field_name)].annotation):
            raise ValueError(_NO_NUMBER)
        return value

    @classmethod
    def of(cls, settings: dict[str, Any], where: str = "") -> Self:
        """Check `settings` and freeze them.

        Args:
            settings: values by name, nested for nested specs.
            where: what the settings come from, for the error line.

        Raises:
            RecipeError: an unknown name (the nearest known one is offered) or a value out of range.
        """
        try:
            return cls.model_validate(settings)
        except ValidationError as error:
            raise RecipeError(_one_line(cls, error, where)) from None

    def with_paths(self, change: Callable[[str], str]) -> Self:
        """Return a copy in which `change` is applied to each path, also those of nested specs."""
        fields = type(self).model_fields
        values = {name: _with_paths(getattr(self, name), path_in(fields[name]), change) for name in fields}
        return self.model_copy(
            update={name: value for name, value in values.items() if value is not getattr(self, name)}
        )


def other_names(name: str, field: Any) -> tuple[str, ...]:
    """Other names of the field `name`, which certainly mean it; that of its flag is one of them."""
    marks = (mark for mark in field.metadata if isinstance(mark, (AlsoCalled, Flag)))
    others = (other.removeprefix("--").replace("-", "_") for mark in marks for other in mark.names)
    return tuple(other for other in others if other != name)


def is_marked(field: Any, *kinds: type) -> bool:
    """True if a field has a mark of one of these kinds."""
    return any(isinstance(mark, kinds) for mark in field.metadata)


def why_not_in_run(field: Any) -> str | None:
    """The reason of a field that a run refuses; None for all others."""
    return next((mark.reason for mark in field.metadata if isinstance(mark, NotInRun)), None)


def path_in(field: Any) -> frozenset[str] | None:
    """The keywords that a path field takes besides a path, such as "auto"; None if the field holds no path."""
    if not any(isinstance(mark, PathMark) for mark in (*field.metadata, *_marks(field.annotation))):
        return None
    return frozenset(keywords_of(field.annotation))


def _marks(annotation: Any) -> list[Any]:
    """All metadata of `Annotated` types within an annotation."""
    own = list(getattr(annotation, "__metadata__", ()))
    return own + [mark for part in get_args(annotation) if part not in own for mark in _marks(part)]


def keywords_of(annotation: Any) -> list[str]:
    """The words that a setting takes: the values of all `Literal` types within an annotation."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [word for part in get_args(annotation) for word in keywords_of(part)]


def _takes_only_numbers(annotation: Any) -> bool:
    """True for a type that takes numbers, but neither true or false nor anything."""
    kinds = set(_plain_types(annotation))
    return not kinds.isdisjoint({int, float}) and kinds.isdisjoint({bool, Any})


def _plain_types(annotation: Any) -> list[Any]:
    """All types within an annotation."""
    return [annotation, *(kind for part in get_args(annotation) for kind in _plain_types(part))]


def _with_paths(value: Any, keywords: frozenset[str] | None, change: Callable[[str], str]) -> Any:
    if isinstance(value, Spec):
        return value.with_paths(change)
    if isinstance(value, tuple):
        return tuple(_with_paths(part, keywords, change) for part in value)
    return change(value) if keywords is not None and isinstance(value, str) and value not in keywords else value


# pydantic names the types that a setting may have as parts of its location.
_BRANCH = re.compile(r"(constrained-|literal\[|tuple\[|list\[|dict\[|function-|(int|float|str|bool)$)")
_NO_NUMBER = "expected a number, not true or false"
_OUR_WORDS = {
    "string_type": "expected text",
    "tuple_type": "expected a list",
    "list_type": "expected a list",
    "dict_type": "expected a table",
    "model_type": "expected a table of settings",
    "model_attributes_type": "expected a table of settings",
    "bool_type": "expected true or false",
    "bool_parsing": "expected true or false",
}
"""By pydantic's type of a finding whose message has words of Python."""


def _one_line(spec: type[BaseModel], error: ValidationError, where: str) -> str:
    """All findings of pydantic as one line in the reader's words."""
    lines: dict[str, str] = {}
    for finding in error.errors(include_url=False):
        name = ".".join(str(part) for part in finding["loc"] if not _BRANCH.match(str(part)))
        if finding["type"] == "extra_forbidden":
            known = _names_at(spec, finding["loc"][:-1])
            lines[name] = f"unknown setting '{name}'{nearest(str(finding['loc'][-1]), known)}"
        elif finding["type"] == "missing":
            lines[name] = f"'{name}' is missing; add it"
        else:
            message = _in_our_words(finding, _names_at(spec, finding["loc"]))
            subject = f"'{name}' is {shortened(repr(finding['input']))}; " if name else ""
            if name and finding["type"] == "value_error" and isinstance(finding["input"], dict):
                # Settings of a table that do not fit together: the message names them.
                subject = f"'{name}': "
            # What may be of several kinds has a finding for each.
            lines[name] = f"{lines[name]}, or {message}" if name in lines else subject + message
    return (f"{where}: " if where else "") + "; ".join(lines.values())


def _in_our_words(finding: Any, known: list[str]) -> str:
    """The message of one finding of pydantic; `known` are the settings of the table that is missing."""
    kind, name = finding["type"], finding["loc"][-1] if finding["loc"] else ""
    if kind in _OUR_WORDS:
        message = _OUR_WORDS[kind]
        if message == "expected a list" and isinstance(finding["input"], dict):
            return f"expected a list of tables: write [[{name}]] in place of [{name}]"
        return f"{message}, such as {', '.join(known[:3])}" if kind.startswith("model") and known else message
    if kind in ("too_long", "too_short"):
        limit = finding["ctx"].get("max_length", finding["ctx"].get("min_length"))
        return f"expected at {'most' if kind == 'too_long' else 'least'} {limit} of them"
    message = finding["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if kind == "literal_error":
        message += _meant(finding["input"], finding["ctx"]["expected"])
    return message


def _names_at(spec: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """The settings that the spec at `path` inside `spec` knows."""
    fields = spec.model_fields
    for part in path:
        if isinstance(part, int) or part not in fields:
            continue
        inner = _inner_spec(fields[part].annotation)
        if inner is None:
            return []
        fields = inner.model_fields
    return list(fields)


def _inner_spec(annotation: Any) -> type[BaseModel] | None:
    """The spec class in an annotation such as `Spec`, `Spec | None` or `tuple[Spec, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_inner_spec(part) for part in getattr(annotation, "__args__", ()))
    return next((spec for spec in found if spec), None)


def _meant(given: Any, expected: str) -> str:
    """A question that offers the nearest of the choices in pydantic's text; empty if none is near."""
    close = difflib.get_close_matches(str(given), re.findall(r"'([^']*)'", expected), n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else ""


def nearest(name: str, known: list[str]) -> str:
    """A hint that names what may have been meant.

    >>> nearest("strid", ["size", "stride"])
    "; did you mean 'stride'? Known: size, stride"
    """
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    meant = f"; did you mean '{close[0]}'?" if close else "."
    return f"{meant} Known: {', '.join(known)}"
