"""A damaged part of an unfinished map: it is named, and the same command writes it alone anew."""

import re

import numpy as np
import pytest
from test_mapping import model_of, write

from landscribe.errors import ReadError, UnfinishedError
from landscribe.geo.rasters.raster import Raster
from landscribe.prediction import finish
from landscribe.prediction.spec import PredictSpec
from networks import Identity, predict

SMALL = {"tile": 32, "margin": 4, "unit": 64}
UNIT = "00000_00000"
"""Name of the first unit."""


@pytest.fixture
def raster(tmp_path) -> Raster:
    return write(tmp_path / "image.tif", np.random.default_rng(0).integers(0, 4, (150, 217)).astype(np.uint8))


@pytest.fixture
def windows(monkeypatch) -> list:
    """The windows that are read of the raster, in turn."""
    result, real = [], Raster.read
    monkeypatch.setattr(Raster, "read", lambda self, window: (result.append(window), real(self, window))[1])
    return result


def damage(path, how):
    """Cut a file, empty it, fill it with other bytes, or delete it."""
    content = path.read_bytes()
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "other": b"\xff" * len(content)}[how])


@pytest.mark.parametrize("settings", [{}, {"minimum_area": 60.0}, {"shards": True}], ids=["plain", "sieved", "shards"])
@pytest.mark.parametrize(
    ("part", "how"),
    [
        (f"{UNIT}.class.tif", "cut"),
        (f"{UNIT}.class.tif", "empty"),
        (f"{UNIT}.class.tif", "other"),
        (f"{UNIT}.class.tif", "missing"),
        (f"{UNIT}.json", "cut"),
        (f"{UNIT}.json", "empty"),
    ],
)
def test_a_damaged_unit_is_predicted_again(tmp_path, raster, windows, settings, part, how):
    model, settings = model_of(Identity(), 4), dict(settings)
    is_of_shards = settings.pop("shards", False)
    spec = PredictSpec(**SMALL, **settings)
    whole = predict(model, raster, tmp_path / "whole.tif", spec=spec).read_bytes()
    out = tmp_path / "map.tif"
    if is_of_shards:
        for shard in ("1/2", "2/2"):
            predict(model, raster, out, spec=spec.model_copy(update={"shard": shard}))
    else:
        _map_but_the_last_unit(model, raster, out, spec)
    damage(tmp_path / "map.tif.parts" / part, how)
    with pytest.raises(
        UnfinishedError, match=f"^{re.escape(str(out))} is not finished: .*{part}.* Repeat the same command"
    ):
        predict(model, raster, out, spec=spec)
    windows.clear()
    assert predict(model, raster, out, spec=spec).read_bytes() == whole
    assert [(window.row, window.col) for window in windows] == [(0, 0)]
    assert not (tmp_path / "map.tif.parts").exists()


@pytest.mark.parametrize("how", ["cut", "empty", "other"])
def test_a_damaged_group_of_blocks_is_compressed_again(tmp_path, raster, windows, monkeypatch, how):
    model, spec, out = model_of(Identity(), 4), PredictSpec(**SMALL), tmp_path / "map.tif"
    whole = predict(model, raster, tmp_path / "whole.tif", spec=spec).read_bytes()
    real = finish._Assembler.write

    def write_damaged(self):
        damage(self.store.folder / f"class.0.{UNIT}.blocks", how)
        real(self)

    with monkeypatch.context() as patch:
        patch.setattr(finish._Assembler, "write", write_damaged)
        with pytest.raises(UnfinishedError, match=f"class.0.{UNIT}.blocks, a part of the map, is damaged. Repeat"):
            predict(model, raster, out, spec=spec)
    assert not out.exists()
    windows.clear()
    assert predict(model, raster, out, spec=spec).read_bytes() == whole
    assert not windows


def _map_but_the_last_unit(model, raster, out, spec):
    real = Raster.read

    def read(self, window):
        if window.row_stop == 150 and window.col_stop == 217:
            raise ReadError("a block is damaged")
        return real(self, window)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Raster, "read", read)
        with pytest.raises(UnfinishedError, match="1 of 15 units failed"):
            predict(model, raster, out, spec=spec)
