"""Maps from Python: paths and models, alone or in lists."""

from pathlib import Path

import numpy as np
import pytest

import landscribe as ls
from networks import Identity
from worlds import noise, write_raster


@pytest.mark.parametrize("kind", [str, Path, lambda path: [path]])
def test_a_single_raster_and_a_single_further_model_need_no_list(kind, tmp_path):
    scene = write_raster(tmp_path / "scene.tif", noise(1, 40, 50) % 4)
    model = ls.Model.wrap(Identity(), bands=["grey"], classes=["a", "b", "c", "d"])
    (written,) = ls.predict(model, kind(scene), ensemble=model, out=tmp_path / "map.tif", tile=32, margin=0)
    truth, _ = ls.Raster.open(scene).read(ls.Window(0, 0, 40, 50))
    np.testing.assert_array_equal(ls.Raster.open(written).read(ls.Window(0, 0, 40, 50))[0], truth)
