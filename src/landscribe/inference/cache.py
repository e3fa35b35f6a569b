"""Cache: results of trials on a model, stored in the user's cache folder, so that each trial runs once.

They are `tuning.json`, exports and engines of TensorRT, in a folder for each model, whose name is the model's hash.
Nothing of this is read from the model folder, which may come from a stranger. They decide how fast and how exactly a
map is predicted, never the network's logits, so a model is the same with or without them.
"""

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import platformdirs

from landscribe.errors import OutputError
from landscribe.model import Model
from landscribe.outputs import write_text

VARIABLE = "LANDSCRIBE_CACHE"
"""Environment variable with another folder for the cache."""
TUNING = "tuning.json"
MAX_MODELS = 16
"""Models whose results are stored; those that were not used for longest are deleted."""


def load(model: Model, key: str) -> Any | None:
    """The value stored under `key`; None if there is none, or the model has no folder."""
    folder = folder_of(model)
    return None if folder is None else _read(folder).get(key)


def store(model: Model, key: str, value: Any) -> None:
    """Store a value of JSON's types under `key`; without a model folder, or if the cache is read-only, do nothing."""
    folder = folder_of(model)
    if folder is not None:
        text = json.dumps(_read(folder) | {key: value}, indent=1, sort_keys=True)
        with suppress(OutputError):
            write_text(folder / TUNING, text + "\n")
            remove_unused(folder)


def folder_of(model: Model) -> Path | None:
    """The folder of a model's results, which need not exist; None for a model without a folder.

    The code of a network that only exists in memory may change while its weights stay.
    """
    if model.folder is None:
        return None
    folder = _root() / "models" / model.sha256[:32]
    with suppress(OSError):
        # The time of the last use.
        os.utime(folder)
    return folder


def remove_unused(folder: Path) -> None:
    """Delete the results of models that were not used for longest, beside the folder of a model."""
    with suppress(OSError):
        by_use = sorted(folder.parent.iterdir(), key=lambda each: each.stat().st_mtime, reverse=True)
        for unused in by_use[MAX_MODELS:]:
            shutil.rmtree(unused, ignore_errors=True)


def _root() -> Path:
    """The folder of landscribe in the user's cache."""
    given = os.environ.get(VARIABLE)
    return Path(given) if given else platformdirs.user_cache_path("landscribe", appauthor=False)


def _read(folder: Path) -> dict[str, Any]:
    try:
        values = json.loads((folder / TUNING).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        # A damaged file counts as an empty one: its values are measured again.
        return {}
    return values if isinstance(values, dict) else {}
