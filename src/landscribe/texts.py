"""Texts: areas and lengths for people, without exponents, colours, and JSON."""

import json
import math
import re
from typing import Any

AREA_UNITS = {"m²": 1.0, "ha": 1e4, "km²": 1e6}
"""Units of areas, in m²."""
_FROM = {"km²": 1e8, "ha": 1e4}
"""Areas in m² from which a unit is used; m² below."""

_COLOUR = re.compile("#[0-9a-fA-F]{6}")


def area_unit(square_metres: float) -> str:
    """The unit in which an area is easy to read: km² from 100 km² on, ha from 1 ha on, m² below."""
    return next((unit for unit, least in _FROM.items() if square_metres >= least), "m²")


def area_decimals(area: float) -> int:
    """Decimals of an area and of its interval: four digits, and no exponents for the areas of countries.

    >>> [f"{area:,.{area_decimals(area)}f}" for area in (0.027234, 10.3, 12345.6, 0)]
    ['0.02723', '10.30', '12,346', '0']
    """
    return max(0, 3 - math.floor(math.log10(area))) if area > 0 else 0


def four_digits(value: float) -> str:
    """A number with four digits, thousands separated, and no exponent.

    >>> [four_digits(value) for value in (48.1, 12345.6, -0.027234, 0)]
    ['48.10', '12,346', '-0.02723', '0']
    """
    return f"{value:,.{area_decimals(abs(value))}f}"


def area_text(square_metres: float, unit: str = "") -> str:
    """An area with four digits and no exponent, in a unit, or else in that in which it is easy to read.

    >>> [area_text(area) for area in (0, 30, 25_600, 123_456_789)], area_text(30, "ha")
    (['0 m²', '30.00 m²', '2.560 ha', '123.5 km²'], '0.003000 ha')
    """
    unit = unit or area_unit(square_metres)
    return f"{four_digits(square_metres / AREA_UNITS[unit])} {unit}"


def length_text(metres: float) -> str:
    """A length on the ground in metres, or in kilometres from 1000 m on.

    >>> [length_text(metres) for metres in (500, 2000, 1017.6)]
    ['500 m', '2 km', '1.02 km']
    """
    return f"{metres / 1000:.3g} km" if metres >= 1000 else f"{metres:.3g} m"


def json_text(value: Any) -> str:
    """JSON of plain values; a number that is not finite is null, for JSON has none and readers refuse Python's NaN."""
    finite = json.loads(json.dumps(value), parse_constant=lambda _: None)
    return json.dumps(finite, indent=1)


def is_colour(label: object) -> bool:
    """True for "#rrggbb".

    >>> [is_colour(label) for label in ("#3C1098", "#forest", "#3c10", 398)]
    [True, False, False, False]
    """
    return isinstance(label, str) and _COLOUR.fullmatch(label) is not None
