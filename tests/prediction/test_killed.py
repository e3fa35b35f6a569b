"""A map that is killed at any moment resumes to the same bytes."""

import random
import signal
import sys
import time

import numpy as np
import pytest
from test_mapping import write

import forked
from landscribe.model import Model
from landscribe.prediction.spec import PredictSpec
from networks import Identity, predict


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_map_killed_at_twenty_random_moments_has_the_same_bytes(tmp_path):
    raster = write(tmp_path / "image.tif", np.random.default_rng(0).integers(0, 4, (128, 192)).astype(np.uint8))
    model = Model.wrap(Identity(), bands=["v"], classes=["a", "b", "c", "d"])
    spec = PredictSpec(tile=32, margin=4, unit=32)

    def started(name: str):
        layers = {"spec": spec, "probabilities": tmp_path / f"p{name}"}
        return forked.start(predict, model, raster, tmp_path / name, **layers)

    def ended(process) -> int:
        process.join()
        return process.exitcode

    # The first process also waits for the fork server to start.
    assert ended(started("first.tif")) == 0
    began = time.perf_counter()
    assert ended(started("whole.tif")) == 0
    lasts = time.perf_counter() - began
    chance, killed = random.Random(1), []
    for _ in range(20):
        process = started("map.tif")
        time.sleep(chance.random() * 0.3 * lasts)
        process.kill()
        killed.append(ended(process))
    # A process may have been done before it was killed; none may have failed.
    assert set(killed) <= {-signal.SIGKILL, 0}
    assert -signal.SIGKILL in killed
    assert ended(started("map.tif")) == 0
    for prefix in ("", "p"):
        assert (tmp_path / f"{prefix}map.tif").read_bytes() == (tmp_path / f"{prefix}whole.tif").read_bytes()
    assert not (tmp_path / "map.tif.parts").exists()
    assert not list(tmp_path.glob(".*partial*"))
