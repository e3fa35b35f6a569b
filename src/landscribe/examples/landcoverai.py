"""LandCover.ai: buildings, woodland, water and roads of Poland (Boguszewski et al. 2021, arXiv:2005.02264)."""

from pathlib import Path
from typing import Any

from landscribe.examples.example import Example, Part, Published

_LISTS = tuple(Part(f"{name}.txt", f"the list of {name} chips") for name in ("train", "val", "test"))


def _settings(folder: Path) -> dict[str, Any]:
    """The publisher's chips, whose numbers its lists name: read from the orthophotos, or as its script wrote them."""
    are_chips = LANDCOVERAI.is_alternative(folder)
    return {
        "scenes": [{"image": "output"} if are_chips else {"image": "images", "labels": "masks"}],
        "classes": [
            {"name": "other", "value": 0, "colour": "#f2efe9"},
            {"name": "building", "value": 1, "colour": "#b3261e"},
            {"name": "woodland", "value": 2, "colour": "#2f6b3a"},
            {"name": "water", "value": 3, "colour": "#3b7dd8"},
            {"name": "road", "value": 4, "colour": "#7b8794"},
        ],
        "chips": {"size": 512, "edge": "drop", "virtual": True},
        "split": {"by": "list", "train_list": "train.txt", "val_list": "val.txt", "test_list": "test.txt"},
        "train": {"architecture": "unetplusplus", "encoder": "resnet18", "loss": "dice", "epochs": 10, "batch": 8},
    }


LANDCOVERAI = Example(
    title="LandCover.ai",
    parts=(
        Part("images/*.tif", "orthophotos", partners=("masks/*.tif",)),
        Part("masks/*.tif", "masks", partners=("images/*.tif",)),
        *_LISTS,
    ),
    alternative=(Part("output/*_m.png", "masks of chips, beside their images"), *_LISTS),
    settings=_settings,
    published=(Published(0.718, "M. Tabaka on GitHub, the best of 13 trainings of DeepLabv3+", "mean_iou"),),
)
