"""Ensembles, test-time augmentation and overlapping tiles: which probabilities a pixel gets."""

import math
import os
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_mapping import model_of, read, write

from landscribe.errors import ModelError
from landscribe.geo.grid import Window
from landscribe.geo.rasters.encoding import Encoding
from landscribe.geo.tiling import units
from landscribe.inference.backends import BACKENDS, BackendKind
from landscribe.inference.backends.torch_backend import Backend
from landscribe.inference.predictor import Predictor, _local_device, mapping_processes
from landscribe.model import Model
from landscribe.prediction.spec import PredictSpec
from networks import Blur, Identity, predict


class Constant(torch.nn.Module):
    """The same logits everywhere."""

    reduction = 1

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, x):
        return self.logits[None, :, None, None].expand(len(x), -1, *x.shape[-2:])


class LeftToRight(torch.nn.Module):
    """Class 1 on the left of a tile and class 0 on the right, less certain towards the middle."""

    reduction = 1

    def forward(self, x):
        across = torch.linspace(4, -4, x.shape[-1]).expand_as(x)
        return torch.cat([-across, across], dim=1)


def probabilities_of(path):
    with rasterio.open(path) as source:
        return source.read()


def test_the_probabilities_of_several_models_are_averaged(tmp_path):
    raster = write(tmp_path / "image.tif", np.zeros((40, 50), np.uint8))
    first, second, third = (model_of(Constant(*logits), 2) for logits in ((0, 0), (2, 0), (0, 5)))
    expected = np.mean([1 / (1 + np.exp(-score)) for score in (0, -2, 5)])
    predict(
        first, raster, tmp_path / "map.tif", spec=PredictSpec(probabilities_as="float32"), ensemble=[second, third],
        probabilities=tmp_path / "p.tif",
    )  # fmt: skip
    assert probabilities_of(tmp_path / "p.tif")[1] == pytest.approx(np.full((40, 50), expected), abs=1e-6)
    with rasterio.open(tmp_path / "p.tif") as source:
        assert source.dtypes == ("float32", "float32")
        assert np.isnan(source.nodata)
    with rasterio.open(tmp_path / "map.tif") as source:
        assert source.tags()["LANDSCRIBE_MODEL_SHA256"].count(",") == 2


def test_models_of_other_classes_are_not_averaged():
    other = Model.wrap(Identity(2), bands=["v"], classes=["a", "b"])
    with pytest.raises(ModelError, match=r"other classes \(0 a, 1 b\) than the first \(0 class 0, 1 class 1\)"):
        Predictor([model_of(Identity(2), 2), other])


def test_models_that_were_trained_on_other_encodings_are_not_averaged():
    old, new, rounded, none = (
        model_of(Identity(2), 2, encoding=encoding)
        for encoding in ((Encoding(1e-4),), (Encoding(1e-4, -0.1),), (Encoding(np.float32(1e-4)),), ())
    )
    Predictor([old, rounded])
    both = r"band v with scale 0\.0001, offset -0\.1, the first on scale 0\.0001, offset 0\."
    with pytest.raises(ModelError, match=both):
        Predictor([old, new])
    with pytest.raises(ModelError, match=r"with scale 1, offset 0, the first on scale 0\.0001, offset 0"):
        Predictor([old, none])


def test_models_with_different_strides_share_their_least_common_multiple():
    class Coarse(Identity):
        reduction = 6

    class Coarser(Identity):
        reduction = 4

    assert Predictor([model_of(Coarse(2), 2), model_of(Coarser(2), 2)]).reduction == 12


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    tile=st.integers(32, 96),
    margin=st.integers(0, 15),
    side=st.integers(32, 200),
)
def test_a_unit_of_overlapping_tiles_has_all_tiles_that_read_its_pixels(shape, tile, margin, side):
    layout = {"size": tile, "margin": margin, "side": side}
    every = {cut.read for unit in units(*shape, **layout) for cut in unit.tiles}
    whole = Window(0, 0, *shape)
    mapped = np.zeros(shape, int)
    for unit in units(*shape, **layout, overlapping=True):
        mapped[unit.keep.slices] += 1
        theirs = {cut.read for cut in unit.tiles}
        assert theirs == {read for read in every if not (read & unit.keep).is_empty}
        assert all((read & unit.read) == read for read in theirs)
        assert not (unit.keep & whole).is_empty
    assert (mapped == 1).all()


def test_blended_tiles_do_not_depend_on_the_units(tmp_path):
    raster = write(tmp_path / "image.tif", np.random.default_rng(0).integers(0, 2, (150, 170)).astype(np.uint8))
    maps = []
    for unit in (48, 96, 400):
        spec = PredictSpec(tile=48, margin=8, unit=unit, blend="gaussian", probabilities_as="float32")
        outputs = {"probabilities": tmp_path / f"p{unit}.tif"}
        predict(model_of(Blur(3), 2), raster, tmp_path / f"{unit}.tif", spec=spec, **outputs)
        maps.append(probabilities_of(tmp_path / f"p{unit}.tif"))
    assert np.abs(maps[0] - maps[1]).max() < 1e-6
    assert np.abs(maps[0] - maps[2]).max() < 1e-6


def test_in_overlaps_the_tile_with_the_nearer_centre_weighs_more(tmp_path):
    # Two tiles of 64, at columns 0 and 32: their overlap is columns 32 to 64, its middle 47.5.
    raster = write(tmp_path / "image.tif", np.zeros((64, 96), np.uint8))
    spec = PredictSpec(tile=64, margin=16, blend="gaussian", probabilities_as="float32")
    predict(model_of(LeftToRight(), 2), raster, tmp_path / "map.tif", spec=spec, probabilities=tmp_path / "p.tif")
    found = probabilities_of(tmp_path / "p.tif")[1][10]
    left, right = (1 / (1 + np.exp(-2 * np.linspace(4, -4, 64))) for _ in range(2))
    weights = np.exp(-(((np.arange(64) - 31.5) / 8) ** 2) / 2)
    total = np.zeros(96)
    weight = np.zeros(96)
    for start, part in ((0, left), (32, right)):
        total[start : start + 64] += part * weights
        weight[start : start + 64] += weights
    assert found == pytest.approx(total / weight, abs=1e-5)


def test_blended_maps_of_an_identity_network_are_its_input(tmp_path):
    numbers = np.random.default_rng(1).integers(0, 4, (100, 130)).astype(np.uint8)
    numbers[:30, :40] = 9
    raster = write(tmp_path / "image.tif", numbers, nodata=9)
    spec = PredictSpec(tile=64, margin=12, unit=64, blend="gaussian")
    predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=spec)
    assert (read(tmp_path / "map.tif") == np.where(numbers == 9, 255, numbers)).all()


def test_cores_are_divided_among_processes_and_gpus_are_not(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert mapping_processes(torch.device("cuda")) == 3
    assert mapping_processes(torch.device("cuda", 1)) == 1
    assert mapping_processes(torch.device("mps")) == 1
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 3, 4}, raising=False)
    assert mapping_processes(torch.device("cpu")) == 3


@pytest.mark.parametrize(("ours", "device"), [(True, "cuda:2"), (False, "cuda")])
def test_workers_of_our_cluster_share_gpus_and_other_workers_do_not(monkeypatch, ours, device):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr("distributed.get_worker", lambda: SimpleNamespace(name=6))
    monkeypatch.setattr("landscribe.inference.predictor.is_own_worker", lambda: ours)
    assert str(_local_device(torch.device("cuda"))) == device


def test_backends_are_built_once_when_several_threads_call_first(monkeypatch):
    built = []

    def build(model: Model, device: torch.device, heads: tuple[str, ...]) -> Backend:
        built.append(device)
        time.sleep(0.1)
        return lambda images: {"classes": model.network(images)}

    monkeypatch.setitem(BACKENDS, "torch", BackendKind(build))
    predictor = Predictor([model_of(Constant(0, 1), 2)])
    images, valid = torch.zeros(1, 1, 8, 8), torch.ones(1, 8, 8, dtype=torch.bool)
    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(lambda _: predictor.logits(images, valid)[None], range(4)))
    assert len(built) == 1
    assert all(logits.equal(results[0]) for logits in results)


def test_a_model_that_has_mapped_can_still_be_trained(tmp_path):
    raster = write(tmp_path / "image.tif", np.zeros((40, 40), np.uint8))
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.BatchNorm2d(4))
    predict(model_of(network, 4), raster, tmp_path / "map.tif", spec=PredictSpec(tile=32, margin=0))
    network(torch.zeros(1, 1, 8, 8)).sum().backward()
    assert network[0].weight.grad is not None


@pytest.mark.parametrize("logits", [(0.0, math.nan), (math.inf, 0.0), (-math.inf, -math.inf)])
def test_logits_that_are_not_finite_are_refused(tmp_path, logits):
    raster = write(tmp_path / "image.tif", np.zeros((32, 32), np.uint8))
    with pytest.raises(ModelError, match="logits that are not finite for 1,024 pixels of a unit"):
        predict(model_of(Constant(*logits), 2), raster, tmp_path / "map.tif", spec=PredictSpec(tile=32, margin=0))
    assert not (tmp_path / "map.tif").exists()


def test_a_class_may_be_impossible(tmp_path):
    raster = write(tmp_path / "image.tif", np.zeros((32, 32), np.uint8))
    predict(model_of(Constant(-math.inf, 0.0), 2), raster, tmp_path / "map.tif", spec=PredictSpec(tile=32, margin=0))
    assert (probabilities_of(tmp_path / "map.tif") == 1).all()
