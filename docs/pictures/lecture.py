"""The pictures of docs/lecture.md. What they show is computed by networks and functions of Landscribe.

Draw them all into this folder by: python docs/pictures/lecture.py (or make pictures), or some: … unet aspp
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

import lecture_maps
import lecture_networks
from lecture_style import STYLE, save

PICTURES: dict[str, Callable[[], Figure]] = {
    "upsampling": lecture_networks.upsampling,
    "unet": lecture_networks.unet,
    "unetplusplus": lecture_networks.unetplusplus,
    "receptive_field": lecture_maps.receptive_field,
    "dilation": lecture_networks.dilation,
    "aspp": lecture_networks.aspp,
    "chip_and_mask": lecture_maps.chip_and_mask,
    "augmentation": lecture_maps.augmentation,
    "margins": lecture_maps.margins,
}
"""By the names of their files, in the page's order."""


def main(names: Sequence[str]) -> None:
    """Draw pictures into the folder of this file."""
    for name in names or PICTURES:
        path = Path(__file__).with_name(f"{name}.png")
        with mpl.rc_context(STYLE):
            save(PICTURES[name](), path)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
