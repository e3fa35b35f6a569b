"""wvlcDL: land cover of West Virginia from NAIP imagery and polygons that cover only a part of the ground."""

from pathlib import Path
from typing import Any

from landscribe.examples.example import Example, Part, Published

_CLASSES = {
    "barren": "#c2a878", "cropland": "#e3c34a", "forest": "#2f6b3a", "grass": "#9ccb6b", "impervious": "#7b8794",
    "mixed developed": "#b3261e", "water": "#3b7dd8",
}  # fmt: skip
"""In the order of their values in the column classvalue, from 1."""


_IMAGERY = "wv_60cm_2016"
"""NAIP quarter quadrangles, in a folder for each degree square."""


def _settings(folder: Path) -> dict[str, Any]:
    points = folder / "validation_points.shp"
    return {
        "scenes": [
            {
                "image": f"{_IMAGERY}/**/*.tif",
                "labels": "training_polys.shp",
                "label_field": "classvalue",
                # The ground between polygons may be anything.
                "sparse": True,
                # NAIP has 0.6 m.
                "pixel_size": 3.0,
                "bands": ["red", "green", "blue", "nir"],
            }
        ],
        "classes": [
            {"name": name, "value": value, "label": value, "colour": colour}
            for value, (name, colour) in enumerate(_CLASSES.items(), 1)
        ],
        "chips": {"size": 256},
        "train": {"architecture": "unetplusplus", "encoder": "resnet34", "loss": "dice+ce", "epochs": 20, "batch": 10},
    } | ({"assess": {"reference": points.name, "reference_field": "GrndTruth"}} if points.exists() else {})


WVLCDL = Example(
    title="wvlcDL",
    parts=(
        Part(f"{_IMAGERY}/**/*.tif", "NAIP imagery of four bands"),
        Part("training_polys.shp", "training polygons with the column classvalue"),
    ),
    settings=_settings,
    published=(
        Published(
            0.967,
            "Maxwell et al. 2019, random forest and image objects over the whole state",
            "overall_accuracy",
            on_reference=True,
        ),
    ),
)
