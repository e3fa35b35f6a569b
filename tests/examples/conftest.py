"""Small data sets in the publishers' layouts."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from landscribe.synthetic.layouts import LAYOUTS

DRAWN = {
    "topodl": {"maps": 4, "size": 128},
    "inria": {"cities": ("austin", "vienna", "tyrol-w"), "size": 96},
    "landcoverai": {"images": 4, "size": 128},
    "wvlcdl": {"images": 3, "size": 480},
}
"""Sizes that are drawn within a second or two."""


@pytest.fixture(scope="session")
def drawn(tmp_path_factory) -> Callable[..., Path]:
    """A copy of the small data set of an example, which is drawn once."""
    originals: dict[str, Path] = {}

    def copy(name: str, folder: Path) -> Path:
        if name not in originals:
            originals[name] = LAYOUTS[name].write(tmp_path_factory.mktemp("drawn") / name, **DRAWN[name])
        return shutil.copytree(originals[name], folder)

    return copy
