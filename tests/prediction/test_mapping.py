"""Maps by networks whose answer is known."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rio_cogeo.cogeo import cog_validate

from landscribe.errors import ModelError, OutputError
from landscribe.geo.raster import Raster
from landscribe.geo.style import CLASSES_TAG, classes_of_tag
from landscribe.geo.tiling import units
from landscribe.model import Model
from landscribe.prediction import mapping
from landscribe.prediction.mapping import predict
from landscribe.prediction.spec import PredictSpec
from landscribe.prediction.unit import predict_unit
from networks import Blur, Brightness, Identity

PLACE = {"crs": "EPSG:32617", "transform": Affine(1, 0, 500_000, 0, -1, 4_000_000)}


def write(path: Path, array: np.ndarray, **options) -> Raster:
    bands = array if array.ndim == 3 else array[None]
    count, height, width = bands.shape
    shape = {"count": count, "height": height, "width": width, "dtype": bands.dtype}
    with rasterio.open(path, "w", driver="GTiff", **shape, **(PLACE | options)) as target:
        target.write(bands)
    return Raster.open([path])


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as source:
        return source.read(1)


def model_of(network: torch.nn.Module, classes: int, **known) -> Model:
    return Model.wrap(network, bands=["v"], classes=[f"class {k}" for k in range(classes)], **known)


@pytest.fixture
def numbers() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 4, (150, 217)).astype(np.uint8)


@settings(max_examples=40)
@given(
    shape=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    tile=st.integers(32, 96),
    margin=st.integers(0, 15),
    unit=st.integers(32, 200),
    batch=st.integers(1, 3),
)
def test_the_units_of_an_identity_network_hold_its_input(tmp_path_factory, shape, tile, margin, unit, batch):
    array = np.random.default_rng(1).integers(0, 4, shape).astype(np.uint8)
    raster = write(tmp_path_factory.mktemp("world") / "image.tif", array)
    model = model_of(Identity(), 4)
    result = np.full(shape, 255, np.uint8)
    planned = list(units(*shape, size=tile, margin=margin, side=unit))
    for place in reversed(planned):
        with torch.inference_mode():
            prediction = predict_unit(model, raster, place, batch=batch, probabilities=False)
        result[place.keep.slices] = prediction.values
    assert (result == array).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (33, 70), (150, 217)])
def test_the_map_of_an_identity_network_is_its_input(tmp_path, shape):
    array = np.random.default_rng(2).integers(0, 4, shape).astype(np.uint8)
    raster = write(tmp_path / "image.tif", array)
    predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=PredictSpec(tile=64, margin=8, unit=100))
    assert (read(tmp_path / "map.tif") == array).all()


def test_a_network_that_answers_with_the_row_shows_no_seam(tmp_path):
    rows = np.repeat(np.arange(200, dtype=np.uint8)[:, None], 90, axis=1)
    raster = write(tmp_path / "image.tif", rows)
    predict(model_of(Identity(200), 200), raster, tmp_path / "map.tif", spec=PredictSpec(tile=48, margin=9, unit=64))
    assert (read(tmp_path / "map.tif") == rows).all()


def test_tiles_keep_to_the_lattice_of_the_network(tmp_path, numbers):
    # Each 2 x 2 cell of the raster has one mean; a tile that starts at an odd pixel would mix two cells.
    even = numbers[:150, :216]
    raster = write(tmp_path / "image.tif", even)
    predict(model_of(Brightness(), 4), raster, tmp_path / "map.tif", spec=PredictSpec(tile=38, margin=5, unit=60))
    single = Brightness()(torch.from_numpy(even)[None, None].float()).argmax(1)[0].numpy()
    assert (read(tmp_path / "map.tif") == single).all()


@pytest.mark.parametrize(("margin", "agrees"), [(3, True), (0, False)])
def test_a_margin_as_large_as_the_network_sees_gives_the_single_pass_map(tmp_path, margin, agrees):
    image = np.random.default_rng(3).integers(0, 2, (120, 130)).astype(np.uint8)
    raster = write(tmp_path / "image.tif", image)
    predict(model_of(Blur(3), 2), raster, tmp_path / "map.tif", spec=PredictSpec(tile=40, margin=margin, unit=60))
    single = Blur(3)(torch.from_numpy(image)[None, None].float()).argmax(1)[0].numpy()
    assert (read(tmp_path / "map.tif") == single).all() == agrees


def test_nodata_in_is_nodata_out(tmp_path, numbers):
    numbers[:60, :80] = 9
    raster = write(tmp_path / "image.tif", numbers, nodata=9)
    predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=PredictSpec(tile=64, margin=8, unit=64))
    assert (read(tmp_path / "map.tif") == np.where(numbers == 9, 255, numbers)).all()


def test_units_without_valid_pixels_do_not_run_the_network(tmp_path):
    image = np.zeros((64, 640), np.uint8)
    image[:, 600:] = 1

    class Counting(Identity):
        calls = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            Counting.calls += len(x)
            return super().forward(x)

    raster = write(tmp_path / "image.tif", image, nodata=0)
    predict(model_of(Counting(), 4), raster, tmp_path / "map.tif", spec=PredictSpec(tile=64, margin=0, unit=64))
    assert Counting.calls == 1  # of ten units only the last, columns 576 to 640, has valid pixels


def test_the_map_is_a_valid_cog_with_names_colours_and_provenance(tmp_path):
    big = np.random.default_rng(4).integers(0, 3, (700, 900)).astype(np.uint8)
    model = model_of(Identity(3), 3)
    predict(model, write(tmp_path / "image.tif", big), tmp_path / "map.tif", spec=PredictSpec())
    valid, errors, _ = cog_validate(tmp_path / "map.tif", strict=True)
    assert valid, errors
    with rasterio.open(tmp_path / "map.tif") as source:
        assert (source.nodata, source.dtypes, source.overviews(1)) == (255, ("uint8",), [2])
        assert source.colormap(1)[2][:3] == tuple(bytes.fromhex(model.classes.entries[2].colour[1:]))
        assert classes_of_tag(source.tags()[CLASSES_TAG]) == model.classes
        assert source.tags()["LANDSCRIBE_MODEL_SHA256"] == model.sha256
    assert "class 2" in (tmp_path / "map.qml").read_text()
    assert "<Category>class 2</Category>" in (tmp_path / "map.tif.aux.xml").read_text()


def test_overviews_show_the_most_common_class(tmp_path):
    # 2 x 2 cells of three 2s and one 0: their mean and their nearest pixel may be another class, the mode is 2.
    cell = np.array([[0, 2], [2, 2]], np.uint8)
    raster = write(tmp_path / "image.tif", np.tile(cell, (300, 300)))
    predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=PredictSpec())
    with rasterio.open(tmp_path / "map.tif", overview_level=0) as source:
        assert (source.read(1) == 2).all()


def test_probabilities_are_softmax_in_steps_of_a_254th(tmp_path, numbers):
    numbers[:5] = 9
    raster = write(tmp_path / "image.tif", numbers, nodata=9)
    model = model_of(Identity(), 4)
    spec = PredictSpec(tile=64, margin=8, unit=64)
    predict(model, raster, tmp_path / "map.tif", spec=spec, probabilities=tmp_path / "p.tif")
    pixels = torch.from_numpy(numbers.astype(np.float32))[None, None]
    expected = Identity()(pixels).softmax(1)[0].numpy()
    with rasterio.open(tmp_path / "p.tif") as source:
        stored = source.read()
        assert source.descriptions == tuple(f"class {k}" for k in range(4))
        assert source.scales[0] == pytest.approx(1 / 254)
    assert (stored[:, :5] == 255).all()
    assert np.abs(stored[:, 5:] / 254 - expected[:, 5:]).max() <= 0.5 / 254 + 1e-6


def test_the_bytes_are_the_same_after_any_interruption(tmp_path, numbers, monkeypatch):
    raster = write(tmp_path / "image.tif", numbers)
    spec = PredictSpec(tile=32, margin=4, unit=32)
    predict(model_of(Identity(), 4), raster, tmp_path / "whole.tif", spec=spec)
    real, left = mapping.predict_unit, iter([3, 0, 5, 99])
    budget = {"left": next(left)}

    def interrupted(*arguments, **settings):
        if budget["left"] == 0:
            raise KeyboardInterrupt
        budget["left"] -= 1
        return real(*arguments, **settings)

    monkeypatch.setattr(mapping, "predict_unit", interrupted)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=spec)
        assert not (tmp_path / "map.tif").exists()
        budget["left"] = next(left)
    predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=spec)
    # 150 x 217 pixels in units of one tile each: 8 of them were done before the last start.
    assert 99 - budget["left"] == sum(1 for _ in units(150, 217, size=32, margin=4, side=32)) - 8
    assert (tmp_path / "map.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()
    assert not (tmp_path / "map.tif.parts").exists()


def test_a_finished_map_is_left_as_it_is(tmp_path, numbers):
    raster, model = write(tmp_path / "image.tif", numbers), model_of(Identity(), 4)
    predict(model, raster, tmp_path / "map.tif", spec=PredictSpec())
    before = (tmp_path / "map.tif").stat().st_mtime_ns
    predict(model, raster, tmp_path / "map.tif", spec=PredictSpec())
    assert (tmp_path / "map.tif").stat().st_mtime_ns == before


def test_the_parts_of_another_map_are_refused_and_kept(tmp_path, numbers, monkeypatch):
    raster = write(tmp_path / "image.tif", numbers)
    spec = PredictSpec(tile=32, margin=4, unit=32)
    monkeypatch.setattr(mapping, "predict_unit", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=spec)
    with pytest.raises(OutputError, match="another tiling"):
        predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=PredictSpec(tile=64, margin=4, unit=64))
    assert (tmp_path / "map.tif.parts" / "plan.json").exists()


def test_a_network_of_other_channels_than_classes_is_refused(tmp_path, numbers):
    raster = write(tmp_path / "image.tif", numbers)
    with pytest.raises(ModelError, match="2 classes"):
        predict(model_of(Identity(4), 2), raster, tmp_path / "map.tif", spec=PredictSpec())


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_every_dtype_is_mapped_by_its_numbers(tmp_path, numbers, dtype):
    raster = write(tmp_path / "image.tif", numbers.astype(dtype))
    predict(model_of(Identity(), 4, dtype=dtype), raster, tmp_path / "map.tif", spec=PredictSpec())
    assert (read(tmp_path / "map.tif") == numbers).all()


MEMORY = """
import resource, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import torch
from networks import OneLayer
from landscribe.geo.raster import Raster
from landscribe.model import Model
from landscribe.prediction.mapping import predict
from landscribe.prediction.spec import PredictSpec
torch.manual_seed(0)
model = Model.wrap(OneLayer(), bands=["v"], classes=["a", "b"])
predict(model, Raster.open([{image!r}]), Path({out!r}), spec=PredictSpec())
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def _peak_kilobytes(tmp_path: Path, height: int) -> int:
    """Peak memory of mapping a sparse raster: most blocks are not stored, but all hold valid zeros."""
    image, out = tmp_path / f"{height}.tif", tmp_path / f"{height}.map.tif"
    shape = {"count": 1, "height": height, "width": 600, "dtype": "uint8"}
    layout = {"driver": "GTiff", "tiled": True, "sparse_ok": True, "compress": "deflate"}
    with rasterio.open(image, "w", **shape, **layout, **PLACE) as target:
        target.write(np.full((1, 512, 600), 7, np.uint8), window=((0, 512), (0, 600)))
    script = MEMORY.format(tests=str(Path(__file__).parents[1]), image=str(image), out=str(out))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(resource, "getrusage"), reason="peak memory is read from the kernel")
def test_peak_memory_does_not_grow_with_the_height_of_the_raster(tmp_path):
    low, high = _peak_kilobytes(tmp_path, 4_000), _peak_kilobytes(tmp_path, 40_000)
    assert high < 1.1 * low, json.dumps({"4 000 rows": low, "40 000 rows": high})
