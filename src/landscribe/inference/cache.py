"""Cache: results of trials on a model, stored in its folder, so that each trial runs once.

They are in `tuning.json` in the model folder. They decide how fast and how exactly a map is predicted, never the
network's logits, so a model is the same with or without them.
"""

import json
from contextlib import suppress
from typing import Any

from landscribe.errors import OutputError
from landscribe.model import Model
from landscribe.outputs import write_text

TUNING = "tuning.json"


def load(model: Model, key: str) -> Any | None:
    """The value stored under `key`; None if there is none, or the model has no folder."""
    return _read(model).get(key)


def store(model: Model, key: str, value: Any) -> None:
    """Store a value of JSON's types under `key`; without a folder, or if it is read-only, nothing is stored."""
    if model.folder is not None:
        text = json.dumps(_read(model) | {key: value}, indent=1, sort_keys=True)
        with suppress(OutputError):
            write_text(model.folder / TUNING, text + "\n")


def _read(model: Model) -> dict[str, Any]:
    if model.folder is None:
        return {}
    try:
        values = json.loads((model.folder / TUNING).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        # A damaged file counts as an empty one: its values are measured again.
        return {}
    return values if isinstance(values, dict) else {}
