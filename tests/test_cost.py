"""The forecast of a run's cost, against what the run does."""

import numpy as np
import pytest

from landscribe import verbs
from landscribe.training.parallel import chip_sampler
from landscribe.training.spec import TrainSpec
from worlds import noise, write_raster

SIDE = 256


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    labels = np.tile(np.repeat([1, 2], 8), (SIDE, SIDE // 16)).astype(np.uint8)
    return {
        "images": [write_raster(folder / "scene.tif", noise(2, SIDE, SIDE))],
        "labels": write_raster(folder / "labels.tif", labels),
    }


@pytest.mark.parametrize("stride", [8, 32])
@pytest.mark.parametrize("sampling", ["auto", "all"])
def test_the_forecast_counts_the_steps_of_epochs_as_the_training(scene, tmp_path, stride, sampling):
    cut = {"size": 32, "stride": stride, "seed": 1}
    forecast = verbs.check(**scene, **cut, epochs=2, sampling=sampling, trial=False).forecast
    spec = TrainSpec(epochs=2, sampling=sampling)
    training = verbs.chip(**scene, **cut, out=tmp_path / "chips").of_split("train")
    steps = spec.total_steps(spec.steps_a_pass(chip_sampler(training, spec, 1).pass_length))
    assert forecast.steps == pytest.approx(steps, rel=0.25)
