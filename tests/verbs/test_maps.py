"""Maps from Python: paths and models, alone or in lists."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine

import landscribe as ls
from landscribe.errors import (
    OutputError,
    OutsideError,
    RasterError,
    RecipeError,
    ResourceError,
    ServerError,
    UnfinishedError,
)
from landscribe.geo.rasters import open_file
from landscribe.geo.rasters.raster import Raster
from landscribe.outputs import claim
from landscribe.prediction import mapping
from landscribe.preflight import pixels
from networks import Identity
from worlds import METRE, noise, pixel_box, write_polygons, write_raster

SMALL = {"tile": 32, "margin": 0, "unit": 64}


@pytest.fixture
def model() -> ls.Model:
    return ls.Model.wrap(Identity(), bands=["grey"], classes=["a", "b", "c", "d"])


def tiles(folder: Path, *names: str) -> list[Path]:
    """Rasters of 100 x 128 pixels and four units, the second with none but nodata, one to the east of another."""
    written = []
    for index, name in enumerate(names):
        pixels = np.full((100, 128), 9, np.uint8) if index == 1 else noise(1, 100, 128) % 4
        transform = METRE @ Affine.translation(128 * index, 0)
        written.append(write_raster(folder / f"{name}.tif", pixels, nodata=9, transform=transform, compress="deflate",
                                    tiled=True, blockxsize=32, blockysize=32))  # fmt: skip
    return written


def names(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.tif"))


@pytest.mark.parametrize("kind", [str, Path, lambda path: [path], lambda path: (each for each in [path])])
def test_a_single_raster_and_a_single_further_model_need_no_list(kind, tmp_path):
    scene = write_raster(tmp_path / "scene.tif", noise(1, 40, 50) % 4)
    model = ls.Model.wrap(Identity(), bands=["grey"], classes=["a", "b", "c", "d"])
    (written,) = ls.predict(model, kind(scene), ensemble=model, out=tmp_path / "map.tif", tile=32, margin=0)
    truth, _ = ls.Raster.open(scene).read(ls.Window(0, 0, 40, 50))
    np.testing.assert_array_equal(ls.Raster.open(written).read(ls.Window(0, 0, 40, 50))[0], truth)


def test_images_that_are_no_paths_are_refused_with_their_type(tmp_path, model):
    with rasterio.open(write_raster(tmp_path / "scene.tif", noise(1, 40, 50))) as opened:
        array = opened.read()
        for images, kind in (
            (opened, "DatasetReader"), ([[opened]], "DatasetReader"), (array, "ndarray"), (5, "int"),
            ([[["a"]]], "list"), (b"a.tif", "bytes"), ({"image": "a.tif"}, "dict"), (io.BytesIO(), "BytesIO"),
            (os.scandir(tmp_path), "ScandirIterator"),
        ):  # fmt: skip
            with pytest.raises(RecipeError, match=rf"given as {kind} \(.*Expected a path.*its \.name") as refused:
                ls.predict(model, images, out=tmp_path / "map.tif")
            assert "\n" not in str(refused.value)


def test_a_network_that_is_being_trained_stays_in_its_modes_and_is_mapped_in_eval_mode(tmp_path):
    scene = write_raster(tmp_path / "scene.tif", noise(1, 40, 50) % 4)
    # In training mode, the normalisation would move the pixels' values by their mean, and dropout would remove half.
    network = torch.nn.Sequential(torch.nn.BatchNorm2d(1, eps=0), torch.nn.Dropout(), Identity())
    network[1].eval()
    model = ls.Model.wrap(network, bands=["grey"], classes=["a", "b", "c", "d"])
    (written,) = ls.predict(model, scene, out=tmp_path / "map.tif", **SMALL)
    assert [network.training, network[0].training, network[1].training] == [True, True, False]
    assert network[0].num_batches_tracked == 0
    window = ls.Window(0, 0, 40, 50)
    np.testing.assert_array_equal(ls.Raster.open(written).read(window)[0], ls.Raster.open(scene).read(window)[0])


def test_a_raster_without_a_valid_pixel_is_named_and_the_others_are_mapped(tmp_path, model):
    rasters = tiles(tmp_path, "left", "empty", "right")
    with pytest.raises(
        RasterError, match=r"^1 of 3 rasters are not mapped \(\S*empty\.tif\); the others are\. .*no valid"
    ):
        ls.predict(model, rasters, out=tmp_path / "maps", **SMALL)
    assert names(tmp_path / "maps") == ["left", "right"]
    assert not (tmp_path / "maps" / "empty.tif.parts").exists()


def test_a_damaged_raster_does_not_stop_the_others_and_can_be_finished(tmp_path, model):
    left, empty, right = tiles(tmp_path, "left", "empty", "right")
    whole, changed = left.read_bytes(), left.stat().st_mtime_ns
    left.write_bytes(whole[: len(whole) * 2 // 3].ljust(len(whole), b"\0"))
    os.utime(left, ns=(changed, changed))
    summary = r"^2 of 3 rasters are not mapped \(\S*left\.tif, \S*empty\.tif\); .* For example: left\.tif is not"
    with pytest.raises(UnfinishedError, match=summary):
        ls.predict(model, [left, empty, right], out=tmp_path / "maps", **SMALL)
    assert names(tmp_path / "maps") == ["right"]
    left.write_bytes(whole)
    os.utime(left, ns=(changed, changed))
    with pytest.raises(RasterError, match=r"^1 of 3"):
        ls.predict(model, [left, empty, right], out=tmp_path / "maps", **SMALL)
    assert names(tmp_path / "maps") == ["left", "right"]


def test_rasters_outside_the_area_of_interest_are_skipped_with_a_note(tmp_path, model, caplog):
    left, _, right = tiles(tmp_path, "left", "empty", "right")
    area = write_polygons(tmp_path / "area.gpkg", [pixel_box(10, 266, 20, 20), pixel_box(10.6, 20, 0.3, 9)])
    with caplog.at_level("INFO"):
        maps = ls.predict(model, [left, right], out=tmp_path / "maps", area=area, **SMALL)
    assert maps == [tmp_path / "maps" / "right.tif"]
    assert f"outside of {area}, so skipped: {left}" in caplog.messages
    far = write_polygons(tmp_path / "far.gpkg", [pixel_box(900, 900, 9, 9)])
    with pytest.raises(OutsideError, match=r"^all 2 rasters lie outside of .*For example: no polygon of"):
        ls.predict(model, [left, right], out=tmp_path / "far", area=far, **SMALL)


@pytest.mark.parametrize("error", [ServerError("the server is down"), ResourceError("the disk is full")])
def test_an_error_that_would_meet_all_rasters_stops_at_the_first(tmp_path, model, monkeypatch, error):
    tried = []

    def write_map(plan, **_):
        tried.append(plan.raster.name)
        raise UnfinishedError(f"not finished: {error}") from error

    monkeypatch.setattr(mapping, "write_map", write_map)
    with pytest.raises(UnfinishedError, match=r"^not finished"):
        ls.predict(model, tiles(tmp_path, "left", "empty", "right"), out=tmp_path / "maps", **SMALL)
    assert tried == ["left"]


def test_a_lost_server_stops_the_other_rasters(tmp_path, model, monkeypatch):
    rasters, read, of = tiles(tmp_path, "left", "empty", "right"), [], Raster.read

    def lost(self, window):
        read.append(self.name)
        if len(read) > 1:
            raise ServerError("the server is down")
        return of(self, window)

    # Pixels of a server are not sampled.
    monkeypatch.setattr(pixels, "warn_undeclared_nodata", lambda _: None)
    monkeypatch.setattr(Raster, "read", lost)
    with pytest.raises(UnfinishedError, match=r"left\.tif is not finished: 3 of 4 units failed"):
        ls.predict(model, rasters, out=tmp_path / "maps", **SMALL)
    assert set(read) == {"left"}


def test_a_data_type_of_probabilities_that_are_not_written_is_refused(tmp_path, model):
    (left,) = tiles(tmp_path, "left")
    with pytest.raises(
        RecipeError, match=r"probabilities_as is float32, but no probabilities are written; name their file"
    ):
        ls.predict(model, left, out=tmp_path / "map.tif", probabilities_as="float32")
    ls.predict(model, left, out=tmp_path / "map.tif", probabilities=tmp_path / "p.tif", probabilities_as="float32")


def test_an_unknown_setting_is_answered_with_those_of_all_specs_of_the_verb(tmp_path, model):
    (left,) = tiles(tmp_path, "left")
    for call, known in (
        (lambda **wrong: ls.assess(left, reference=left, **wrong), ("label_field", "confidence", "regions")),
        (lambda **wrong: ls.assess_objects(left, reference=left, **wrong), ("label_field", "score_field")),
        (lambda **wrong: ls.predict(model, left, out=tmp_path / "map.tif", **wrong), ("nodata_rule", "tile")),
    ):
        with pytest.raises(RecipeError, match=r"^unknown setting 'classes'.* Known: ") as raised:
            call(classes=["field"])
        assert set(known) <= set(str(raised.value).partition("Known: ")[2].split(", "))


@pytest.mark.parametrize("name", ["truth.tif", "labels.csv", "points.design.json", "area.json", "chips.json"])
def test_measures_replace_no_file_but_earlier_measures(name, tmp_path):
    truth = write_raster(tmp_path / "truth.tif", noise(1, 40, 50) % 4)
    taken = tmp_path / name
    before = truth.read_bytes() if taken == truth else b'{"type": "FeatureCollection", "features": []}'
    taken.write_bytes(before)
    with pytest.raises(OutputError, match=r"Nothing was changed\. Choose another"):
        ls.assess(truth, reference=truth, out=taken)
    with pytest.raises(OutputError, match=r"Nothing was changed\. Choose another"):
        ls.assess_objects(truth, reference=truth, out=taken)
    assert taken.read_bytes() == before
    for _ in range(2):
        assert ls.assess(truth, reference=truth, out=tmp_path / "measures.json").overall_accuracy == 1


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are counted by Linux")
def test_more_rasters_than_open_files_are_cut_and_mapped(tmp_path, monkeypatch):
    import resource

    monkeypatch.setattr(open_file, "_most_open", lambda: len(already_open) + 4)
    for folder in ("scenes", "labels"):
        (tmp_path / folder).mkdir()
    scenes = [write_raster(tmp_path / f"scenes/{index}.tif", noise(1, 32, 32) % 2) for index in range(40)]
    labels = [write_raster(tmp_path / f"labels/{index}.tif", noise(1, 32, 32) % 2) for index in range(40)]
    model = ls.Model.wrap(Identity(2), bands=["grey"], classes=["a", "b"])
    already_open = set(open_file._OPEN)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + 20, hard))
    try:
        chips = ls.chip(images=scenes, labels=labels, size=32, out=tmp_path / "chips", virtual=True)
        written = ls.predict(model, scenes, out=tmp_path / "maps/", tile=32, margin=0, overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(chips) == len(written) == 40


def test_no_map_replaces_an_input_of_another_raster(tmp_path, model):
    (tmp_path / "maps").mkdir()
    first, second = (write_raster(tmp_path / f"{name}.tif", noise(1, 100, 128)) for name in ("one", "two"))
    input_of_second = write_raster(tmp_path / "maps" / "one.tif", noise(1, 100, 128))
    before = input_of_second.read_bytes()
    with pytest.raises(OutputError, match=r"maps/one\.tif is an input\. Nothing was changed"):
        ls.predict(model, [first, [second, input_of_second]], out=tmp_path / "maps", bands=[1], overwrite=True, **SMALL)
    assert input_of_second.read_bytes() == before


def test_the_layers_of_a_map_are_claimed_with_it(tmp_path, model):
    (scene,) = tiles(tmp_path, "one")
    layer = tmp_path / "probabilities.tif"
    with claim(layer), pytest.raises(OutputError, match=r"probabilities\.tif is being written by this process"):
        ls.predict(model, scene, out=tmp_path / "map.tif", probabilities=layer, **SMALL)
