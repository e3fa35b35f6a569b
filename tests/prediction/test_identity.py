"""The same command is the same map, whatever this machine would choose today."""

import numpy as np
import pytest
from test_mapping import model_of, read, write

from landscribe.errors import OutputError
from landscribe.prediction import mapping, missing
from landscribe.prediction.mapping import predict
from landscribe.prediction.spec import PredictSpec
from networks import Identity


@pytest.fixture
def raster(tmp_path):
    return write(tmp_path / "image.tif", np.random.default_rng(0).integers(0, 4, (150, 217)).astype(np.uint8))


def choosing(monkeypatch, **other):
    """Let this machine choose otherwise from now on."""
    real = mapping._choice

    def choice(*arguments):
        chosen = real(*arguments)
        return chosen | {"tiling": chosen["tiling"] | other}

    monkeypatch.setattr(mapping, "_choice", choice)


def test_an_unfinished_map_goes_on_with_what_was_chosen_for_it(tmp_path, raster, monkeypatch):
    real, left = missing.predict_unit, iter(range(3))

    def interrupted(*arguments, **settings):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return real(*arguments, **settings)

    spec = PredictSpec(tile="auto", margin="auto", unit=64)
    choosing(monkeypatch, size=64, margin=8)
    with monkeypatch.context() as patched:
        patched.setattr(missing, "predict_unit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=spec)
    done = len(list((tmp_path / "map.tif.parts").glob("[0-9]*.json")))
    assert done > 0
    choosing(monkeypatch, size=96, margin=4)
    predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=spec)
    assert (read(tmp_path / "map.tif") == read(tmp_path / "image.tif")).all()


def test_a_finished_map_is_the_same_map_though_another_tile_would_be_chosen_now(tmp_path, raster, monkeypatch):
    spec = PredictSpec(tile="auto", margin="auto")
    predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=spec)
    before = (tmp_path / "map.tif").stat().st_mtime_ns
    choosing(monkeypatch, size=64, margin=8)
    predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=spec)
    assert (tmp_path / "map.tif").stat().st_mtime_ns == before


def test_what_is_asked_for_is_not_overruled_by_an_earlier_choice(tmp_path, raster):
    predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=PredictSpec(margin="auto"))
    with pytest.raises(OutputError, match="exists"):
        predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=PredictSpec(margin=16, tile=64))
