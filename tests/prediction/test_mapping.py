"""Maps by networks with known logits."""

import json
import re
import resource
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rio_cogeo.cogeo import cog_validate

import forked
from landscribe.errors import LabelError, NetworkError, OutputError, RasterError, UnfinishedError
from landscribe.fingerprint import Fingerprint
from landscribe.geo.classes import ClassEntry, Classes
from landscribe.geo.grid import Window
from landscribe.geo.rasters.overviews import halved
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.tiling import units
from landscribe.inference.predictor import Predictor
from landscribe.maps.class_map import ClassMap
from landscribe.maps.layers import CLASS
from landscribe.maps.unit_store import UnitStore
from landscribe.model import Model
from landscribe.prediction import finish as finishing
from landscribe.prediction import run as missing
from landscribe.prediction.spec import PredictSpec
from landscribe.prediction.unit import UnitOptions, compute_unit, predict_unit, send_unit
from networks import Blur, Brightness, Identity, OneLayer, predict
from worlds import pixel_box, write_polygons

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
    predictor = Predictor([model_of(Identity(), 4)])
    result = np.full(shape, 255, np.uint8)
    planned = list(units(*shape, size=tile, margin=margin, side=unit))
    for place in reversed(planned):
        with torch.inference_mode():
            layers = predict_unit(predictor, place, *raster.read(place.read), UnitOptions(batch=batch))
        result[place.keep.slices] = layers["class"][0]
    assert (result == array).all()


@pytest.mark.parametrize("values", [(0, 1, 2, 3), (7, 200, 3, 254)])
def test_the_counts_of_a_unit_are_those_of_its_class_values(values):
    pixels = np.random.default_rng(0).integers(0, 4, (1, 96, 64)).astype(np.uint8)
    valid = np.random.default_rng(1).random((96, 64)) < 0.9
    entries = [ClassEntry(value, f"class {value}", "#000000", value) for value in values]
    predictor = Predictor([Model.wrap(Identity(), bands=["b"], classes=Classes(tuple(entries)))])
    (unit,) = units(96, 64, size=32, margin=0, side=200)
    with torch.inference_mode():
        output = compute_unit(predictor, unit, send_unit(predictor, unit, pixels, valid), UnitOptions(batch=2))
    layers, counts = output.arrays()
    assert (layers["class"][0] == np.where(valid, np.array(values, np.uint8)[pixels[0]], 255)).all()
    assert (counts == np.bincount(layers["class"].ravel(), minlength=256)).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (33, 70), (150, 217)])
def test_the_map_of_an_identity_network_is_its_input(tmp_path, shape):
    array = np.random.default_rng(2).integers(0, 4, shape).astype(np.uint8)
    raster = write(tmp_path / "image.tif", array)
    predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=PredictSpec(tile=64, margin=8, unit=100))
    assert (read(tmp_path / "map.tif") == array).all()


def test_a_network_that_returns_row_numbers_shows_no_seam(tmp_path):
    rows = np.repeat(np.arange(200, dtype=np.uint8)[:, None], 90, axis=1)
    raster = write(tmp_path / "image.tif", rows)
    predict(model_of(Identity(200), 200), raster, tmp_path / "map.tif", spec=PredictSpec(tile=48, margin=9, unit=64))
    assert (read(tmp_path / "map.tif") == rows).all()


def test_tiles_are_aligned_to_the_stride_of_the_network(tmp_path, numbers):
    # Each 2 x 2 cell of the raster has one mean; a tile that starts at an odd pixel would mix two cells.
    even = numbers[:150, :216]
    raster = write(tmp_path / "image.tif", even)
    predict(model_of(Brightness(), 4), raster, tmp_path / "map.tif", spec=PredictSpec(tile=38, margin=5, unit=60))
    single = Brightness()(torch.from_numpy(even)[None, None].float()).argmax(1)[0].numpy()
    assert (read(tmp_path / "map.tif") == single).all()


@pytest.mark.parametrize(("margin", "agrees"), [(3, True), (0, False)])
def test_a_margin_of_the_receptive_field_gives_the_single_pass_map(tmp_path, margin, agrees):
    image = np.random.default_rng(3).integers(0, 2, (120, 130)).astype(np.uint8)
    raster = write(tmp_path / "image.tif", image)
    predict(model_of(Blur(3), 2), raster, tmp_path / "map.tif", spec=PredictSpec(tile=40, margin=margin, unit=60))
    single = Blur(3)(torch.from_numpy(image)[None, None].float()).argmax(1)[0].numpy()
    assert (read(tmp_path / "map.tif") == single).all() == agrees


@pytest.mark.parametrize("shape", [(33, 70), (130, 41), (5, 40), (1, 1)])
def test_tiles_that_reach_beyond_the_raster_see_it_mirrored(tmp_path, shape):
    image = np.random.default_rng(3).integers(0, 2, shape).astype(np.uint8)
    network = Blur(3)
    network.reduction = 32
    spec = PredictSpec(tile=160, margin=0)
    predict(model_of(network, 2), write(tmp_path / "image.tif", image), tmp_path / "map.tif", spec=spec)
    mirrored = np.pad(image, [(0, -side % 32) for side in shape], mode="reflect")
    single = Blur(3)(torch.from_numpy(mirrored)[None, None].float()).argmax(1)[0].numpy()
    assert (read(tmp_path / "map.tif") == single[: shape[0], : shape[1]]).all()


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
    model = model_of(Counting(), 4)
    Counting.calls = 0  # a network is tried when it is wrapped
    predict(model, raster, tmp_path / "map.tif", spec=PredictSpec(tile=64, margin=0, unit=64))
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
        assert source.tags()["LANDSCRIBE_MODEL_SHA256"] == model.sha256
    assert ClassMap.open(tmp_path / "map.tif").classes == model.classes
    assert "class 2" in (tmp_path / "map.qml").read_text()
    assert "<Category>class 2</Category>" in (tmp_path / "map.tif.aux.xml").read_text()


@pytest.mark.parametrize("shape", [(1300, 1100), (2061, 700)])
@pytest.mark.parametrize(("tile", "margin"), [(96, 8), (97, 8), (1024, 32)])
def test_overviews_are_halves_of_halves_however_a_map_is_cut(tmp_path, shape, tile, margin):
    rng = np.random.default_rng(3)
    array = np.repeat(np.repeat(rng.integers(0, 4, (-(-shape[0] // 5), -(-shape[1] // 5))), 5, 0), 5, 1)
    array = array[: shape[0], : shape[1]].astype(np.uint8)
    raster = write(tmp_path / "image.tif", array, nodata=3)
    spec = PredictSpec(tile=tile, margin=margin, unit=200)
    predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=spec)
    assert cog_validate(str(tmp_path / "map.tif"), quiet=True)[0]
    expected, sizes = np.where(array == 3, 255, array).astype(np.uint8), []
    with rasterio.open(tmp_path / "map.tif") as source:
        count = len(source.overviews(1))
    for level in range(count):
        expected = halved(expected, 255)
        with rasterio.open(tmp_path / "map.tif", overview_level=level) as source:
            sizes.append(source.shape)
            assert (source.read(1) == expected).all()
    assert max(sizes[-1]) <= 512 < max(sizes[-2])


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


def test_an_interrupted_map_has_the_same_bytes(tmp_path, numbers, monkeypatch):
    raster = write(tmp_path / "image.tif", numbers)
    spec = PredictSpec(tile=32, margin=4, unit=32)
    predict(model_of(Identity(), 4), raster, tmp_path / "whole.tif", spec=spec)
    real, left = missing.compute_unit, iter([3, 0, 5, 99])
    budget = {"left": next(left)}

    def interrupted(*arguments, **settings):
        if budget["left"] == 0:
            raise KeyboardInterrupt
        budget["left"] -= 1
        return real(*arguments, **settings)

    monkeypatch.setattr(missing, "compute_unit", interrupted)
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


def test_a_finished_map_is_not_written_again(tmp_path, numbers):
    raster, model = write(tmp_path / "image.tif", numbers), model_of(Identity(), 4)
    predict(model, raster, tmp_path / "map.tif", spec=PredictSpec())
    before = (tmp_path / "map.tif").stat().st_mtime_ns
    predict(model, raster, tmp_path / "map.tif", spec=PredictSpec())
    assert (tmp_path / "map.tif").stat().st_mtime_ns == before


def test_the_units_of_another_map_are_refused_and_kept(tmp_path, numbers, monkeypatch):
    raster = write(tmp_path / "image.tif", numbers)
    spec = PredictSpec(tile=32, margin=4, unit=32)
    monkeypatch.setattr(missing, "compute_unit", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=spec)
    with pytest.raises(OutputError, match=r"another tile .* and unit"):
        predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=PredictSpec(tile=64, margin=4, unit=64))
    assert (tmp_path / "map.tif.parts" / "plan.json").exists()


def test_a_network_of_other_channels_than_classes_is_refused():
    with pytest.raises(NetworkError, match="4 output channels, but the number of classes is 2"):
        model_of(Identity(4), 2)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_every_dtype_is_mapped_by_its_values(tmp_path, numbers, dtype):
    raster = write(tmp_path / "image.tif", numbers.astype(dtype))
    predict(model_of(Identity(), 4, dtype=dtype), raster, tmp_path / "map.tif", spec=PredictSpec())
    assert (read(tmp_path / "map.tif") == numbers).all()


def map_and_measure(image: Path, out: Path) -> int:
    """Peak memory in kilobytes of this process, after a map."""
    torch.manual_seed(0)
    model = Model.wrap(OneLayer(), bands=["v"], classes=["a", "b"])
    # Only of large rasters are other engines tried, which are loaded for it.
    predict(model, Raster.open([image]), out, spec=PredictSpec(engine="torch"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _peak_kilobytes(tmp_path: Path, height: int) -> int:
    """Peak memory of mapping a sparse raster: most blocks are not stored, but all hold valid zeros."""
    image, out = tmp_path / f"{height}.tif", tmp_path / f"{height}.map.tif"
    shape = {"count": 1, "height": height, "width": 600, "dtype": "uint8"}
    layout = {"driver": "GTiff", "tiled": True, "sparse_ok": True, "compress": "deflate"}
    with rasterio.open(image, "w", **shape, **layout, **PLACE) as target:
        target.write(np.full((1, 512, 600), 7, np.uint8), window=((0, 512), (0, 600)))
    return forked.call(map_and_measure, image, out)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(resource, "getrusage"), reason="peak memory is read from the kernel")
def test_peak_memory_does_not_grow_with_the_height_of_the_raster(tmp_path):
    low, high = _peak_kilobytes(tmp_path, 4_000), _peak_kilobytes(tmp_path, 160_000)
    # GDAL's cache holds up to 256 MiB of blocks, and so much freed memory stays in the heap.
    assert high < low + 2**19, json.dumps({"4 000 rows": low, "160 000 rows": high})


class Corner(torch.nn.Module):
    """Class 1 in the upper left quarter of whatever it is given: tells how the image was turned."""

    reduction = 1

    def forward(self, x):
        height, width = x.shape[-2:]
        inside = torch.zeros_like(x[:, 0])
        inside[:, : height // 2, : width // 2] = 1
        return torch.stack([torch.zeros_like(inside), inside], dim=1)


def test_a_map_with_tta_is_the_same_for_a_rotated_raster(tmp_path):
    raster = write(tmp_path / "image.tif", np.ones((32, 32), np.uint8))
    spec = PredictSpec(tta=True)
    predict(model_of(Corner(), 2), raster, tmp_path / "map.tif", spec=spec, probabilities=tmp_path / "p.tif")
    with rasterio.open(tmp_path / "p.tif") as source:
        first = source.read(2)
    expected = (2 * (1 / (1 + np.exp(-1))) + 6 * 0.5) / 8  # each pixel is in that quarter in two of eight symmetries
    assert np.abs(first / 254 - expected).max() <= 0.5 / 254 + 1e-6


def test_tta_does_not_change_the_map_of_a_symmetric_network(tmp_path, numbers):
    raster = write(tmp_path / "image.tif", numbers)
    spec = PredictSpec(tile=64, margin=4, unit=64, tta=True)
    predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=spec)
    assert (read(tmp_path / "map.tif") == numbers).all()


def test_the_area_of_interest_is_mapped_with_the_context_around_it(tmp_path):
    image = np.random.default_rng(3).integers(0, 2, (120, 130)).astype(np.uint8)
    raster = write(tmp_path / "image.tif", image)
    area = write_polygons(
        tmp_path / "area.gpkg", [pixel_box(10, 20, 50, 60, transform=PLACE["transform"])], crs=PLACE["crs"]
    )
    inside = np.zeros(image.shape, bool)
    inside[10:60, 20:80] = True
    model, way = model_of(Blur(3), 2), {"tile": 40, "margin": 3, "unit": 60}
    predict(model, raster, tmp_path / "all.tif", spec=PredictSpec(**way))
    predict(model, raster, tmp_path / "map.tif", spec=PredictSpec(**way, area=str(area)))
    np.testing.assert_array_equal(read(tmp_path / "map.tif"), np.where(inside, read(tmp_path / "all.tif"), 255))


def test_only_the_units_of_the_area_of_interest_are_read(tmp_path, numbers, monkeypatch):
    raster, real, asked = write(tmp_path / "image.tif", numbers), Raster.read, []
    area = write_polygons(
        tmp_path / "area.gpkg", [pixel_box(5, 5, 9, 9, transform=PLACE["transform"])], crs=PLACE["crs"]
    )
    monkeypatch.setattr(Raster, "read", lambda self, window: asked.append(window) or real(self, window))
    spec = PredictSpec(tile=64, margin=4, unit=64, area=str(area))
    predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=spec)
    assert asked == [Window(0, 0, 64, 64)]


def test_an_area_of_interest_outside_the_raster_is_refused(tmp_path, numbers):
    raster = write(tmp_path / "image.tif", numbers)
    area = write_polygons(tmp_path / "area.gpkg", [pixel_box(900, 900, 9, 9)], crs=PLACE["crs"])
    with pytest.raises(LabelError, match=r"no polygon of .*area\.gpkg lies on .*image\.tif"):
        predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=PredictSpec(area=str(area)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["area.gpkg", "image.tif"]


def test_polygons_between_pixel_centres_are_named_as_the_cause_and_no_file_is_left(tmp_path, numbers):
    raster = write(tmp_path / "image.tif", numbers, nodata=9)
    thin = pixel_box(10.6, 20, 0.3, 60, transform=PLACE["transform"])
    area = write_polygons(tmp_path / "thin.gpkg", [thin], crs=PLACE["crs"])
    with pytest.raises(LabelError, match=r"^no polygon of \S*thin\.gpkg holds the centre of a pixel of \S*image\.tif"):
        predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=PredictSpec(area=str(area)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image.tif", "thin.gpkg"]


def test_the_area_of_each_class_is_reported_in_one_unit(tmp_path, caplog):
    array = np.repeat(np.array([0, 1, 1, 3], np.uint8), 50)[None].repeat(100, axis=0)
    raster = write(tmp_path / "image.tif", array)
    with caplog.at_level("INFO", logger="landscribe"):
        predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=PredictSpec(tile=64, margin=4, unit=64))
    # 100 x 200 pixels of one metre of the grid, on which all is 0.04 % shorter than on the ground there.
    areas = "class 0 0.5004 ha (25.0 %), class 1 1.001 ha (50.0 %), class 2 0 ha (0 %), class 3 0.5004 ha"
    assert areas in caplog.text


@pytest.mark.parametrize("unit", [64, 1024])
def test_areas_in_degrees_depend_on_the_latitude(tmp_path, caplog, unit):
    array = np.zeros((600, 10), np.uint8)
    array[300:] = 1
    degrees = {"crs": "EPSG:4326", "transform": Affine(0.1, 0, 10, 0, -0.1, 70)}  # from 70 to 10 degrees north
    raster = write(tmp_path / "image.tif", array, **degrees)
    with caplog.at_level("INFO", logger="landscribe"):
        predict(model_of(Identity(2), 2), raster, tmp_path / "map.tif", spec=PredictSpec(tile=64, margin=4, unit=unit))
    areas = [float(number.replace(",", "")) for number in re.findall(r"class \d (\S+) km²", caplog.text)]
    # Between two parallels the sphere has 2 pi R^2 (sin a - sin b) of ground all around; one degree is a 360th of it.
    sphere = [2 * np.pi * 6371.0**2 * (np.sin(np.radians(a)) - np.sin(np.radians(a - 30))) / 360 for a in (70, 40)]
    assert areas == pytest.approx(sphere, rel=0.01)


def test_a_raster_replaced_during_the_run_is_refused(tmp_path, numbers, monkeypatch):
    raster = write(tmp_path / "image.tif", numbers)
    real, asked = Raster.read, []

    def read_once_replaced(self: Raster, window):
        asked.append(window)
        if len(asked) == 3:
            write(tmp_path / "other.tif", 3 - numbers[:, ::-1])
            (tmp_path / "other.tif").replace(tmp_path / "image.tif")
        return real(self, window)

    monkeypatch.setattr(Raster, "read", read_once_replaced)
    with pytest.raises(RasterError, match=r"image\.tif changed while it was mapped"):
        predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=PredictSpec(tile=64, margin=4, unit=64))
    assert [path.name for path in tmp_path.iterdir()] == ["image.tif"]


def test_a_virtual_raster_whose_file_was_replaced_is_another_raster(tmp_path, numbers):
    write(tmp_path / "image.tif", numbers)
    virtual = tmp_path / "image.vrt"
    rasterio.shutil.copy(tmp_path / "image.tif", virtual, driver="VRT")
    model, small = model_of(Identity(), 4), {"tile": 64, "margin": 4, "unit": 64}
    predict(model, Raster.open([virtual]), tmp_path / "map.tif", spec=PredictSpec(**small, shard="1/2"))
    write(tmp_path / "image.tif", 3 - numbers)
    with pytest.raises(OutputError, match="unfinished map with another raster"):
        predict(model, Raster.open([virtual]), tmp_path / "map.tif", spec=PredictSpec(**small))


def test_a_run_killed_between_map_and_probabilities_resumes(tmp_path, numbers, monkeypatch):
    raster, model = write(tmp_path / "image.tif", numbers), model_of(Identity(), 4)
    probabilities = tmp_path / "p.tif"
    with monkeypatch.context() as patched:
        patched.setattr(finishing, "move_into_place", _killed_after(1, finishing.move_into_place))
        with pytest.raises(KeyboardInterrupt):
            predict(model, raster, tmp_path / "map.tif", spec=PredictSpec(), probabilities=probabilities)
    assert probabilities.exists()
    assert not (tmp_path / "map.tif").exists()
    predict(model, raster, tmp_path / "map.tif", spec=PredictSpec(), probabilities=probabilities)
    assert (read(tmp_path / "map.tif") == numbers).all()


def test_a_full_disk_of_the_probabilities_leaves_no_style_without_a_map(tmp_path, numbers, monkeypatch, caplog):
    raster, probabilities, real = (
        write(tmp_path / "image.tif", numbers),
        tmp_path / "other" / "p.tif",
        finishing.move_into_place,
    )

    def placed(built: Path, out: Path, side_files: dict[Path, str]) -> None:
        if out == probabilities:
            raise OutputError("no room.")
        real(built, out, side_files)

    monkeypatch.setattr(finishing, "move_into_place", placed)
    with caplog.at_level("INFO", "landscribe"), pytest.raises(UnfinishedError, match="no room"):
        predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=PredictSpec(), probabilities=probabilities)
    assert sorted(path.name for path in tmp_path.glob("map*")) == ["map.tif.parts"]
    assert "map.tif: class 0" not in caplog.text
    monkeypatch.setattr(finishing, "move_into_place", real)
    with caplog.at_level("INFO", "landscribe"):
        predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=PredictSpec(), probabilities=probabilities)
    assert "map.tif: class 0" in caplog.text


def test_an_overwritten_map_is_not_seen_through_overviews_and_a_mask_of_the_old_one(tmp_path, numbers):
    out = tmp_path / "map.tif"
    predict(model_of(Identity(), 4), write(tmp_path / "a.tif", numbers), out, spec=PredictSpec())
    broken = {"mode": "r+", "IGNORE_COG_LAYOUT_BREAK": "YES"}
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(out, **broken) as old:
        old.build_overviews([2])
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(out, **broken) as old:
        old.write_mask(np.zeros(numbers.shape, bool))
    assert {path.name for path in tmp_path.glob("map.*")} >= {"map.tif.ovr", "map.tif.msk"}
    predict(model_of(Identity(), 4), write(tmp_path / "b.tif", 3 - numbers), out, spec=PredictSpec(), overwrite=True)
    assert {path.name for path in tmp_path.glob("map.*")} == {"map.tif", "map.qml", "map.tif.aux.xml"}
    with rasterio.open(out) as new:
        assert (new.read(1) == 3 - numbers).all()
        assert new.dataset_mask().all()
        assert new.overviews(1) == []


@pytest.mark.parametrize("calls", [1, 4, 7, 9])
def test_a_unit_is_not_done_while_its_files_are_removed(tmp_path, numbers, monkeypatch, calls):
    raster, model = write(tmp_path / "image.tif", numbers), model_of(Identity(), 4)
    spec = PredictSpec(tile=128, margin=4, unit=128)
    monkeypatch.setattr(finishing, "assemble", _killed_after(0, finishing.assemble))
    with pytest.raises(KeyboardInterrupt):
        predict(model, raster, tmp_path / "map.tif", spec=spec)
    planned = list(units(150, 217, size=128, margin=4, side=128))
    parts = UnitStore(tmp_path / "map.tif.parts", Fingerprint((tmp_path / "map.tif.parts" / "plan.json").read_text()))
    assert all(parts.is_done(unit) for unit in planned)
    monkeypatch.setattr(Path, "unlink", _killed_after(calls, Path.unlink))
    monkeypatch.setattr("shutil.rmtree", _killed_after(0, None))
    with pytest.raises(KeyboardInterrupt):
        parts.remove()
    left = [unit for unit in planned if parts.is_done(unit)]
    assert all(parts.path(unit, CLASS.kind).exists() for unit in left)
    assert parts.exists() or not left


def _killed_after(calls: int, real):
    """`real` for so many calls, then an interruption."""
    left = iter(range(calls))

    def call(*arguments, **settings):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return real(*arguments, **settings)

    return call
