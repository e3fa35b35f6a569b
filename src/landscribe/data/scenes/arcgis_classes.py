"""The class table of ArcGIS *Classified Tiles*."""

import json
from pathlib import Path
from typing import Any

from landscribe.data.scenes.spec import ClassSpec
from landscribe.errors import LabelError
from landscribe.geo.access import require_file
from landscribe.geo.classes import IGNORE, hex_colour

TEMPLATE = "esri_model_definition.emd"
SHIFT = "LandscribeValueShift"
"""The key of the number that our export adds to class values; ArcGIS has no such key."""
NODATA = 0
"""Unlabelled, in labels of ArcGIS."""


def read_classes(definition: Path) -> list[ClassSpec]:
    """The class table of Classified Tiles, without the shift of our export.

    Value 0 of labels is unlabelled unless the table has it.

    Raises:
        LabelError: the file has no class table.
    """
    require_file(str(definition))
    try:
        content = json.loads(definition.read_text(encoding="utf-8-sig"))
        rows, shift = content["Classes"], int(content.get(SHIFT, 0))
        # Older exports spell the keys differently.
        named = [
            (int(row.get("Value", row.get("ClassValue"))), str(row.get("Name", row.get("ClassName")))) for row in rows
        ]
        colours = [_colour(row.get("Color")) for row in rows]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise LabelError(
            f"{definition} has no readable class table ({type(error).__name__}: {error}). Expected one exported by "
            "ArcGIS. Export the tiles again, or write a class table into a recipe."
        ) from error
    table = [
        ClassSpec.of({"name": name, "value": label - shift, "label": label, "colour": colour}, str(definition))
        for (label, name), colour in zip(named, colours, strict=True)
    ]
    if NODATA not in {label for label, _ in named}:
        table.append(ClassSpec(name="unlabelled", value=IGNORE, label=NODATA))
    return table


def _colour(channels: Any) -> str | None:
    """The colour "#rrggbb" of [red, green, blue]; None where ArcGIS wrote no colour."""
    if not isinstance(channels, list) or len(channels) < 3 or min(channels[:3]) < 0:
        return None
    return hex_colour([int(channel) for channel in channels[:3]])
