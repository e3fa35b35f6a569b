"""Numbers: measures, estimates and areas as text for people."""

import math
from typing import Any

from landscribe.texts import area_decimals


def number(value: float | None, form: str = ".3f") -> str:
    """A number, or "-" for one that is undefined."""
    # z: no minus before zeros.
    return "-" if value is None or math.isnan(value) else f"{value:z{form}}"


def with_interval(measures: dict[str, Any], intervals: dict[str, Any], name: str) -> str:
    """A measure as 0.853 (0.812 to 0.884)."""
    lower, upper = intervals.get(name) or (None, None)
    value = number(measures[name])
    return value if lower is None or upper is None else f"{value} ({number(lower)} to {number(upper)})"


def confidence_text(confidence: float) -> str:
    """A confidence in per cent.

    >>> confidence_text(0.95), confidence_text(0.999)
    ('95 %', '99.9 %')
    """
    return f"{100 * confidence:g} %"


def area_form(estimated: dict[str, float | None]) -> str:
    """Form of an estimated area and of its interval."""
    return f",.{area_decimals(estimated['value'] or estimated['upper'] or 0)}f"


def estimated_text(estimated: dict[str, float | None], form: str = ".3f") -> str:
    """An estimate and its interval: never "± 0"."""
    value, lower, upper = (number(estimated[name], form) for name in ("value", "lower", "upper"))
    return value if value == "-" else f"{value} ({lower} to {upper})"


def error_text(estimated: dict[str, float | None], form: str = ".3f") -> str:
    """A standard error; "-" where no unit differs from the others, for then it is not known."""
    return number(estimated["se"] or None, form)
