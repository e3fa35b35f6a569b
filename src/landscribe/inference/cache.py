"""What was found out about a model by trying it: kept beside it, so that it is found out once.

`tuning.json` in the model folder holds it. It decides how fast and how exactly a map is made, never what the network
answers, so a model is the same with or without it.
"""

import json
from contextlib import suppress
from typing import Any

from landscribe.errors import OutputError
from landscribe.model import Model
from landscribe.outputs import write_text

TUNING = "tuning.json"


def remembered(model: Model, key: str) -> Any | None:
    """What was noted under `key`; None if nothing was, or the model has no folder."""
    return _notes(model).get(key)


def remember(model: Model, key: str, found: Any) -> None:
    """Note what was found, in JSON's types; a model without a folder, or with one that is read-only, forgets it."""
    if model.folder is not None:
        notes = json.dumps(_notes(model) | {key: found}, indent=1, sort_keys=True)
        with suppress(OutputError):
            write_text(model.folder / TUNING, notes + "\n")


def _notes(model: Model) -> dict[str, Any]:
    if model.folder is None:
        return {}
    try:
        notes = json.loads((model.folder / TUNING).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        # Notes that cannot be read are as good as none: they are made again.
        return {}
    return notes if isinstance(notes, dict) else {}
