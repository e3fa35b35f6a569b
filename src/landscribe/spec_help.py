"""The help of a spec in Python: each setting with its type in plain words, its range, default and description."""

import inspect
import textwrap
import types
from collections.abc import Iterable, Mapping
from inspect import Parameter, Signature
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

_WORDS = {int: "whole number", float: "number", bool: "True or False", str: "text", Any: "any value"}
_PLURALS = {int: "whole numbers", float: "numbers", str: "names"}
_MOST_SHOWN = 2**31 - 1
"""Limits from here on are those of the computer, which nobody meets."""


def doc_with_settings(doc: str, fields: Mapping[str, FieldInfo]) -> str:
    """A docstring, followed by the settings of the spec as its arguments."""
    entries = [f"{name}: {_summary(field)}\n{_description(field)}" for name, field in fields.items()]
    doc = inspect.cleandoc(doc)
    return f"{doc}\n\nArgs:\n" + textwrap.indent("\n".join(entries), "    ") if entries else doc


def plain_signature(fields: Mapping[str, FieldInfo]) -> Signature:
    """The names and defaults of a spec's settings; their types stand in its docstring."""
    return Signature([
        Parameter(name, Parameter.KEYWORD_ONLY, default=Parameter.empty if field.is_required() else _default(field))
        for name, field in fields.items()
    ])  # fmt: skip


def kind_text(annotation: Any, marks: Iterable[Any] = (), *, plural: bool = False) -> str:
    """A type in plain words, with the range of its numbers.

    Args:
        annotation: a type, also a union or `Annotated`.
        marks: metadata of the type, such as limits.
        plural: name several of them.

    >>> from annotated_types import Ge
    >>> kind_text(Annotated[int | None, Ge(1)] | Literal["auto"])
    "whole number (at least 1) or 'auto'"
    >>> kind_text(tuple[float, ...])
    'list of numbers'
    """
    origin, parts, marks = get_origin(annotation), get_args(annotation), tuple(marks)
    if origin is Annotated:
        return kind_text(parts[0], (*marks, *parts[1:]), plural=plural)
    if origin in (Union, types.UnionType):
        kinds = (kind_text(part, marks, plural=plural) for part in parts if part is not type(None))
        return " or ".join(dict.fromkeys(kinds))
    if origin is Literal:
        return " or ".join(map(repr, parts))
    if origin in (tuple, list):
        return f"list of {kind_text(parts[0], plural=True)}"
    if origin is dict:
        return "dict of values by name"
    words = _PLURALS if plural else _WORDS
    own = next((f"{mark.word}{'s' if plural else ''}" for mark in marks if hasattr(mark, "word")), None)
    word = own or words.get(annotation) or annotation.__name__
    limits = _limits(marks) if annotation in (int, float) else ""
    return f"{word} ({limits})" if limits else word


def _limits(marks: Iterable[Any]) -> str:
    flat = [part for mark in marks for part in (mark.metadata if isinstance(mark, FieldInfo) else [mark])]
    texts = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    limits = [(text, getattr(mark, name)) for name, text in texts.items() for mark in flat if hasattr(mark, name)]
    return ", ".join(f"{text} {limit:,.15g}" for text, limit in limits if abs(limit) < _MOST_SHOWN)


def _default(field: FieldInfo) -> Any:
    return field.get_default(call_default_factory=True, validated_data={})


def _summary(field: FieldInfo) -> str:
    kind = kind_text(field.annotation, field.metadata)
    if field.is_required():
        return f"{kind}. Required."
    default, is_described = _default(field), "Default: " in (field.description or "")
    return f"{kind}." if is_described or default in (None, (), {}) else f"{kind}. Default: {default!r}."


def _description(field: FieldInfo) -> str:
    lines = (field.description or "").split("\n")
    return textwrap.indent("\n".join(map(str.strip, lines)), "    ")
