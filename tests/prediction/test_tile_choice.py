"""Tile, margin and batch, chosen together."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_mapping import model_of, write
from test_memory import Deciding, Wide
from test_receptive_field import noise
from torch import Tensor, nn

from landscribe.errors import TilingError
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.tiling import units
from landscribe.inference.memory import budget
from landscribe.inference.predictor import Predictor
from landscribe.model import Model
from landscribe.prediction.spec import PredictSpec
from landscribe.prediction.tiling import choose_tiling, overlap_overhead
from networks import AboveTheMean, Blur, Identity, OneLayer


class Halving(nn.Module):
    """A network with a stride of 16 pixels."""

    reduction = 16

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, -x], dim=1)


@pytest.fixture
def strip(tmp_path) -> Raster:
    """Four times as wide as it is high."""
    return noise(tmp_path / "strip.tif", (268, 1072))


def cut(network: nn.Module, raster: Raster, *, tolerance: float = 1e-3, **settings):
    classes = 4 if isinstance(network, Identity) else 2
    predictor = Predictor([model_of(network, classes)])
    return choose_tiling(predictor, raster, PredictSpec(**settings, tolerance=tolerance))


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 700), st.integers(1, 700)),
    tile=st.integers(4, 12),
    margin=st.integers(0, 24),
    unit=st.integers(32, 400),
    batch=st.integers(1, 5),
    blend=st.sampled_from(["none", "gaussian"]),
)
def test_the_work_of_a_tiling_is_its_read_pixels(tmp_path_factory, shape, tile, margin, unit, batch, blend):
    raster = noise(tmp_path_factory.mktemp("world") / "image.tif", shape)
    settings = {"tile": 16 * tile, "margin": min(margin, 8 * tile - 8), "unit": unit, "batch": batch, "blend": blend}
    choice = cut(Halving(), raster, **settings)
    tiling = {"size": choice.tile, "margin": choice.margin, "align": 16, "side": unit}
    read = 0
    for part in units(*shape, **tiling, overlapping=blend == "gaussian"):
        first = part.tiles[0].read
        read += math.ceil(len(part.tiles) / batch) * batch * first.height * first.width
    assert choice.overlap_overhead == pytest.approx(read / math.prod(shape))


def test_given_tile_and_margin_are_kept(strip, caplog):
    with caplog.at_level("INFO", logger="landscribe"):
        choice = cut(Blur(5), strip, tile=96, margin=3, batch=2)
    assert (choice.tile, choice.margin, choice.batch) == (96, 3, 2)
    assert not caplog.text
    assert cut(Blur(5), strip, tile=96, margin="auto").tile == 96
    assert cut(Blur(5), strip, tile="auto", margin=3, unit=600).margin == 3


def test_tiles_that_fit_the_sides_of_the_raster_are_chosen(strip):
    # 600 - 2 x 32 = 536 is half of 1072: two tiles and not a pixel more. One is as high as the raster.
    choice = cut(Identity(), strip, tile="auto", margin="auto", unit=600)
    assert (choice.tile, choice.margin) == (536, 0)
    assert choice.overlap_overhead == 1


def test_of_tilings_with_equal_work_the_smaller_tile_is_chosen(tmp_path):
    raster = noise(tmp_path / "image.tif", (1152, 1152), classes=4)
    assert cut(Identity(), raster, tile="auto", margin="auto", unit=1152 // 2).tile == 576
    assert cut(Identity(), raster, tile="auto", margin="auto", unit=1100).tile == 588


def test_a_raster_that_memory_holds_is_one_tile(strip):
    choice = cut(Blur(5), strip, tile="auto", margin="auto")
    assert (choice.tile, choice.margin, choice.overlap_overhead, choice.mismatch) == (1072, 0, 1, None)
    assert cut(Blur(5), strip, tile="auto", margin=600).overlap_overhead == 1


@pytest.mark.parametrize(("margin", "is_warned"), [(96, True), (16, False)])
def test_tiles_with_little_to_keep_are_warned_about(strip, caplog, margin, is_warned):
    cut(Blur(5), strip, tile=256, margin=margin)
    assert ("so many pixels for each pixel kept" in caplog.text) == is_warned


def test_tiles_stay_within_the_memory_budget(tmp_path):
    raster = noise(tmp_path / "image.tif", (1200, 1200))
    # 1.6 kB for each pixel.
    choice = cut(Wide(400), raster, tile="auto", margin=16, unit=1200)
    assert choice.tile < 1200
    assert 0.9 * budget(torch.device("cpu")) < choice.memory <= budget(torch.device("cpu"))


def test_without_a_memory_estimate_tiles_are_small_and_a_note_is_logged(tmp_path):
    choice = cut(Deciding(), noise(tmp_path / "image.tif", (600, 600)), tile="auto", margin="auto")
    assert choice.tile == 512
    assert choice.memory is None
    assert "memory cannot be estimated" in str(choice)


def test_a_lower_tolerance_chooses_a_larger_margin(strip):
    margins = [cut(Blur(10), strip, tile=256, margin="auto", tolerance=share).margin for share in (0.2, 0.05, 1e-6)]
    assert margins == [0, 8, 16]


def test_an_insufficient_margin_is_reported(strip):
    choice = cut(Blur(10), strip, tile=32, margin="auto", tolerance=1e-6)
    assert choice.margin == 8
    assert choice.mismatch > 1e-6
    assert "no margin reaches the tolerance of 1e-06" in str(choice)


@pytest.mark.parametrize(
    ("trained", "tile", "expected", "said"),
    [
        (128, "auto", 128, "so tiles have the training size"),
        (None, "auto", 512, "its training size is unknown"),
        (128, 256, 256, "tiles of its training size (128) fit it best"),
    ],
)
def test_global_context_is_reported(tmp_path, trained, tile, expected, said):
    values = np.linspace(0, 100, 640)[None] + np.random.default_rng(0).integers(0, 80, (640, 640))
    raster = write(tmp_path / "image.tif", values.astype(np.uint8))
    model = Model.wrap(AboveTheMean(), bands=["v"], classes=["a", "b"], chip_size=trained)
    choice = choose_tiling(Predictor([model]), raster, PredictSpec(tile=tile, margin="auto", unit=600))
    assert choice.tile == expected
    assert said in str(choice)


def test_global_context_is_reported_for_a_raster_of_one_tile(tmp_path):
    values = np.linspace(0, 100, 640)[None] + np.random.default_rng(0).integers(0, 80, (640, 640))
    raster = write(tmp_path / "image.tif", values.astype(np.uint8))
    model = Model.wrap(AboveTheMean(), bands=["v"], classes=["a", "b"], chip_size=128)
    choice = choose_tiling(Predictor([model]), raster, PredictSpec())
    assert choice.tile == 128
    assert "so tiles have the training size" in str(choice)
    # Networks that see only what is near have no reason to.
    near = Model.wrap(Blur(5), bands=["v"], classes=["a", "b"], chip_size=128)
    assert choose_tiling(Predictor([near]), raster, PredictSpec()).tile == 640


def test_without_a_measured_margin_the_default_is_chosen(tmp_path):
    plain = write(tmp_path / "plain.tif", np.full((300, 300), 7, np.uint8))
    choice = cut(Blur(3), plain, tile=256, margin="auto")
    assert (choice.margin, choice.mismatch) == (64, None)
    assert "not measured" in str(choice)


def test_an_ensemble_gets_the_margin_of_its_largest_receptive_field(strip):
    together = Predictor([model_of(Blur(3), 2), model_of(Blur(10), 2)])
    margin = choose_tiling(together, strip, PredictSpec(tile=256, margin="auto")).margin
    assert margin > cut(Blur(3), strip, tile=256).margin


def test_a_margin_without_a_core_is_refused(strip):
    with pytest.raises(TilingError, match="leaves no core"):
        cut(OneLayer(), strip, tile=64, margin=32)
    with pytest.raises(TilingError, match="leaves no core"):
        cut(OneLayer(), strip, tile="auto", margin=300, unit=512)


@pytest.mark.parametrize(("tile", "margin", "expected"), [(1024, 0, 1.0), (1024, 64, (8 / 7) ** 2), (256, 64, 4.0)])
def test_overlap_overhead_is_pixels_read_for_each_pixel_kept(tile, margin, expected):
    assert overlap_overhead(tile, margin) == pytest.approx(expected)
