"""Inria aerial image labelling: buildings of cities that a network has not seen (Maggiori et al. 2017, IGARSS)."""

from pathlib import Path
from typing import Any

from landscribe.examples.example import Example, Part

TRAINED = ("austin", "vienna")
"""Cities to train on; the first five tiles of each are for validation, as the authors advise."""
TESTED = "tyrol-w"
"""The city whose tiles are the test."""


def _settings(folder: Path) -> dict[str, Any]:  # noqa: ARG001 every copy has the same cities
    scenes: list[dict[str, Any]] = []
    for city in TRAINED:
        first = [f"{city}{tile}" for tile in range(1, 6)]
        scenes.append(_scenes(f"{city}*.tif", city) | {"split": "train", "without": first})
        scenes.append(_scenes(f"{city}[1-5].tif", city) | {"split": "val"})
    scenes.append(_scenes(f"{TESTED}*.tif", TESTED) | {"split": "test"})
    return {
        "scenes": scenes,
        "classes": [
            {"name": "background", "value": 0, "label": 0, "colour": "#f2efe9"},
            {"name": "building", "value": 1, "label": 255, "colour": "#b3261e"},
        ],
        # The pixels of 5000 x 5000 tiles are read where they are.
        "chips": {"size": 256, "virtual": True},
        "split": {"by": "scene"},
        "train": {"architecture": "deeplabv3plus", "encoder": "resnet18", "loss": "dice+ce", "epochs": 10, "batch": 10},
    }


def _scenes(pattern: str, city: str) -> dict[str, Any]:
    return {"image": f"train/images/{pattern}", "labels": "train/gt", "group": city}


INRIA = Example(
    title="the Inria aerial image labelling data set (AerialImageDataset)",
    parts=tuple(
        Part(f"train/images/{city}*.tif", f"images of {city}", partners=(f"train/gt/{city}*.tif",))
        for city in (*TRAINED, TESTED)
    ),
    settings=_settings,
    published=(),
)
