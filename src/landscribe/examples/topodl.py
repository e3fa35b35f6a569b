"""topoDL: surface mines on scanned historic topographic maps (Maxwell et al. 2020, doi:10.3390/rs12244145)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from landscribe.examples.example import Example, Part, Published

_REGIONS = {"ky": "Kentucky", "oh": "Ohio", "va": "Virginia"}
"""The first letters of the folders of a state."""
_SOURCE = "Maxwell et al. 2020"


def _settings(folder: Path) -> dict[str, Any]:
    """Train, val and test are whole quadrangles of Kentucky; the other states are test areas."""
    others = [state for state in ("oh", "va") if (folder / f"{state}_topos").is_dir()]
    kentucky, held_out = (_count_quadrangles(folder, states) for states in (["ky"], others))
    # Fractions are of all quadrangles, and those of the other states are test, too.
    val, test = (round((part + 0.15 * kentucky) / max(1, kentucky + held_out), 3) for part in (0, held_out))
    return {
        "scenes": [_scenes("ky"), *(_scenes(state) | {"split": "test"} for state in others)],
        "classes": [
            {"name": "background", "value": 0, "colour": "#f2efe9"},
            {"name": "mine", "value": 1, "colour": "#b5651d"},
        ],
        # To train on: all chips with a mine, and a drawn fifth of the others. Val and test keep all chips.
        "chips": {"size": 256, "background_share": 0.2},
        "split": {"by": "scene"} | ({"val": val, "test": test} if others else {}),
        "train": {"architecture": "unet", "encoder": "resnet18", "loss": "dice+ce", "epochs": 10, "batch": 10},
    }


def _count_quadrangles(folder: Path, states: Sequence[str]) -> int:
    """Maps are named STATE_QUADRANGLE_SCAN_YEAR_SCALE_geo.tif; a quadrangle may have maps of several years."""
    files = (file for state in states for file in folder.glob(f"{state}_topos/*.tif"))
    return len({tuple(file.stem.split("_")[:2]) for file in files})


def _scenes(state: str) -> dict[str, Any]:
    """All maps of a state. The collar around the quadrangle, with legend and text, is no part of the map."""
    return {
        "image": f"{state}_topos",
        "labels": f"{state}_mines",
        "image_area": f"{state}_quads",
        "group": _REGIONS[state],
    }


TOPODL = Example(
    title="topoDL",
    parts=(
        Part("ky_topos/*.tif", "scanned topographic maps", partners=("ky_mines/*.shp", "ky_quads/*.shp")),
        Part("ky_mines/*.shp", "polygons of surface mines", partners=("ky_topos/*.tif",)),
        Part("ky_quads/*.shp", "the quadrangle of each map"),
    ),
    settings=_settings,
    published=(
        Published(0.902, _SOURCE, "f1", "mine", "Kentucky"),
        Published(0.837, _SOURCE, "f1", "mine", "Ohio"),
        Published(0.763, _SOURCE, "f1", "mine", "Virginia"),
    ),
)
