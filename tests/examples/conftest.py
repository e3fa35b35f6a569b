"""Small data sets in the publishers' layouts."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from landscribe.synthetic.layouts import LAYOUTS

DRAWN = {
    "topodl": {"maps": 4, "size": 128},
    "inria": {"cities": ("austin", "vienna", "tyrol-w"), "size": 96},
    "landcoverai": {"images": 4, "size": 128},
    "wvlcdl": {"images": 3, "size": 480},
}
"""Sizes that are drawn within a second or two."""


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory) -> Path:
    """A folder of all processes of this call of pytest."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "examples"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def drawn(shared_folder) -> Callable[..., Path]:
    """A copy of the small data set of an example, which is drawn once."""

    def copy(name: str, folder: Path) -> Path:
        original = shared_folder / "drawn" / name
        with FileLock(shared_folder / f"{name}.drawn.lock"):
            if not original.exists():
                LAYOUTS[name].write(original.with_suffix(".new"), **DRAWN[name]).rename(original)
        return shutil.copytree(original, folder)

    return copy
