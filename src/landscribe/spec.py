"""What every spec is: frozen settings, checked when made, unknown names refused with the nearest one.

A step takes one small spec, defined beside it. A recipe is an assembly of specs, so that a setting has
one name, one default, one range and one description wherever it is met.
"""

import difflib
import re
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from landscribe.errors import RecipeError


class Spec(BaseModel):
    """Frozen, checked settings of one step."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings", use_attribute_docstrings=True)

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


# pydantic names the kinds that a setting may have as parts of its place.
_BRANCH = re.compile(r"(constrained-|literal\[|tuple\[|list\[|dict\[|(int|float|str|bool)$)")


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
            message = finding["msg"].removeprefix("Value error, ")
            message = message[0].lower() + message[1:]
            subject = f"'{name}' is {finding['input']!r}; " if name else ""
            # What may be of several kinds has a finding for each.
            lines[name] = f"{lines[name]}, or {message}" if name in lines else subject + message
    return (f"{where}: " if where else "") + "; ".join(lines.values())


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


def nearest(name: str, known: list[str]) -> str:
    """A hint that names what may have been meant.

    >>> nearest("strid", ["size", "stride"])
    "; did you mean 'stride'? Known: size, stride"
    """
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    meant = f"; did you mean '{close[0]}'?" if close else "."
    return f"{meant} Known: {', '.join(known)}"
