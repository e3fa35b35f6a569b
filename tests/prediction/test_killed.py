"""A map that is killed at any moment resumes to the same bytes."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_mapping import write

# Each try runs in a child of its own, which begins where the imports are done.
SCRIPT = """
import json, os, random, signal, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
import torch
from networks import Identity
from landscribe.geo.rasters.raster import Raster
from landscribe.model import Model
from networks import predict
from landscribe.prediction.spec import PredictSpec

torch.set_num_threads(1)
folder = Path({folder!r})
model = Model.wrap(Identity(), bands=["v"], classes=["a", "b", "c", "d"])
spec = PredictSpec(tile=32, margin=4, unit=32)

def child(out):
    pid = os.fork()
    if pid == 0:
        try:
            raster = Raster.open([folder / "image.tif"])
            predict(model, raster, folder / out, spec=spec, probabilities=folder / ("p" + out))
        except BaseException as error:
            print(error, file=sys.stderr)
            os._exit(3)
        os._exit(0)
    return pid

def ended(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

started = time.perf_counter()
assert ended(child("whole.tif")) == 0
lasts = time.perf_counter() - started
rng = random.Random({seed})
codes = []
for _ in range(20):
    pid = child("map.tif")
    time.sleep(rng.random() * 0.3 * lasts)
    os.kill(pid, signal.SIGKILL)
    codes.append(ended(pid))
codes.append(ended(child("map.tif")))
print(json.dumps(codes))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_map_killed_at_twenty_random_moments_has_the_same_bytes(tmp_path):
    write(tmp_path / "image.tif", np.random.default_rng(0).integers(0, 4, (200, 300)).astype(np.uint8))
    script = SCRIPT.format(tests=str(Path(__file__).parents[1]), folder=str(tmp_path), seed=1)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    *killed, last = json.loads(done.stdout.splitlines()[-1])
    # A child may have been done before it was killed; none may have failed.
    assert set(killed) <= {-9, 0}
    assert -9 in killed
    assert last == 0
    for prefix in ("", "p"):
        assert (tmp_path / f"{prefix}map.tif").read_bytes() == (tmp_path / f"{prefix}whole.tif").read_bytes()
    assert not (tmp_path / "map.tif.parts").exists()
    assert not list(tmp_path.glob(".*partial*"))
