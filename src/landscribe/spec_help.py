"""The help of a spec in Python: each setting with its type in plain words, its range, default and description."""

import textwrap
import types
from collections.abc import Iterable, Mapping
from inspect import Parameter, Signature
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

_WORDS = {int: "whole number", float: "number", bool: "True or False", str: "text", Any: "any value"}


def with_settings(doc: str, fields: Mapping[str, FieldInfo]) -> str:
    """A docstring, followed by the settings of the spec as its arguments."""
    entries = [f"{name}: {_summary(field)}\n{_description(field)}" for name, field in fields.items()]
    return f"{doc.rstrip()}\n\nArgs:\n" + textwrap.indent("\n".join(entries), "    ") if entries else doc


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
        return "table"
    word = next((mark.word for mark in marks if hasattr(mark, "word")), _WORDS.get(annotation)) or annotation.__name__
    limits = _limits(marks) if annotation in (int, float) else ""
    return f"{word}{'s' if plural else ''}{f' ({limits})' if limits else ''}"


def _limits(marks: Iterable[Any]) -> str:
    flat = [part for mark in marks for part in (mark.metadata if isinstance(mark, FieldInfo) else [mark])]
    texts = {
        Ge: "at least {0.ge:,.15g}",
        Gt: "above {0.gt:,.15g}",
        Le: "at most {0.le:,.15g}",
        Lt: "below {0.lt:,.15g}",
    }
    return ", ".join(text.format(mark) for kind, text in texts.items() for mark in flat if isinstance(mark, kind))


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
