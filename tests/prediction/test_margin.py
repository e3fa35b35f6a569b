"""The margin that tiles need, measured on networks that see a known distance."""

import numpy as np
import pytest
import torch
from test_mapping import model_of, read, write
from torch import Tensor, nn

from landscribe.geo.raster import Raster
from landscribe.model import Model
from landscribe.prediction.mapping import predict
from landscribe.prediction.margin import TOLERANCE, Reach, measure_reach, redundancy
from landscribe.prediction.spec import PredictSpec
from networks import Blur, Identity


class AboveTheMean(nn.Module):
    """Class 1 where a pixel is above the mean of all that the network is given: sees everything."""

    reduction = 1

    def forward(self, x: Tensor) -> Tensor:
        higher = x[:, 0] - x[:, 0].mean(dim=(1, 2), keepdim=True)
        return torch.stack([-higher, higher], dim=1)


@pytest.fixture
def raster(tmp_path) -> Raster:
    """Noise that is brighter from left to right, its last rows nodata."""
    slope = np.linspace(0, 100, 160)[None] + np.random.default_rng(0).integers(0, 80, (160, 160))
    slope[150:] = 255
    return write(tmp_path / "image.tif", slope.astype(np.uint8), nodata=255)


@pytest.mark.parametrize("radius", [1, 5, 12])
def test_answers_differ_no_farther_from_an_edge_than_the_network_sees(tmp_path, radius):
    binary = np.random.default_rng(radius).integers(0, 2, (160, 160)).astype(np.uint8)
    reach = measure_reach(model_of(Blur(radius), 2), write(tmp_path / "image.tif", binary))
    assert len(reach.differs) == 80
    assert (reach.differs[radius:] == 0).all()
    assert reach.differs[:radius].sum() > 0
    assert not reach.is_global
    assert 0 < reach.margin(64) <= -(-radius // 8) * 8
    assert reach.share(reach.margin(64), 64) < TOLERANCE <= reach.share(0, 64)


def test_a_network_that_sees_one_pixel_needs_no_margin(raster):
    assert measure_reach(model_of(Identity(), 4), raster).margin(64) == 0


def test_a_network_that_averages_over_the_tile_is_known_for_it(raster):
    assert measure_reach(model_of(AboveTheMean(), 2), raster).is_global


def test_the_share_is_that_of_the_rings_that_are_kept():
    # A tile of 10 pixels: rings of 36, 28, 20, ... pixels; the approximation counts the corners a little otherwise.
    reach = Reach(np.array([1.0, 0.5, 0, 0, 0]))
    assert reach.share(0, 10) == pytest.approx((4 * 10 * 1 + 4 * 8 * 0.5) / 100)
    assert reach.share(1, 10) == pytest.approx(4 * 8 * 0.5 / 64)
    assert reach.share(2, 10) == 0


@pytest.mark.parametrize(("tile", "margin", "expected"), [(1024, 0, 1.0), (1024, 64, (8 / 7) ** 2), (256, 64, 4.0)])
def test_redundancy_is_what_is_read_for_what_is_kept(tile, margin, expected):
    assert redundancy(tile, margin) == pytest.approx(expected)


def test_a_map_with_a_measured_margin_is_that_of_a_single_pass(tmp_path, caplog):
    binary = np.random.default_rng(3).integers(0, 2, (150, 170)).astype(np.uint8)
    raster = write(tmp_path / "image.tif", binary)
    with caplog.at_level("INFO", logger="landscribe"):
        predict(model_of(Blur(5), 2), raster, tmp_path / "map.tif", spec=PredictSpec(tile=64, margin="auto", unit=64))
    single = Blur(5)(torch.from_numpy(binary)[None, None].float()).argmax(1)[0].numpy()
    assert (read(tmp_path / "map.tif") != single).mean() < TOLERANCE
    assert "margin: 8 pixels of tiles of 64" in caplog.text
    assert "1.78 pixels are read for each that is kept" in caplog.text


def test_a_network_that_sees_all_of_a_tile_is_mapped_at_its_training_size(tmp_path, raster, caplog):
    model = Model.wrap(AboveTheMean(), bands=["v"], classes=["a", "b"], chip_size=48)
    with caplog.at_level("INFO", logger="landscribe"):
        predict(model, raster, tmp_path / "map.tif", spec=PredictSpec(tile=96, margin="auto"))
    assert "of tiles of 48" in caplog.text
    assert "as large as in training" in caplog.text


def test_a_raster_of_one_tile_needs_no_margin(tmp_path, raster):
    predict(model_of(AboveTheMean(), 2), raster, tmp_path / "map.tif", spec=PredictSpec(margin="auto"))
    with pytest.raises(ValueError, match="margin"):
        PredictSpec(margin="lots")
