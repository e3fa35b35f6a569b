"""Preflight: what `check` finds in files before a run."""

import re
from dataclasses import replace

import numpy as np
import pytest
import rasterio
from affine import Affine

from landscribe import executor, machine, verbs
from landscribe.data.scenes.spec import SceneSpec
from landscribe.geo.rasters.raster import Raster
from landscribe.model import Model
from landscribe.nn import build
from landscribe.preflight import pixels
from landscribe.preflight.check import check
from landscribe.recipe import Recipe
from landscribe.training import checks
from worlds import METRE, noise, pixel_box, write_polygons, write_raster

H, W = 60, 80


@pytest.fixture
def texts(tmp_path):
    """Checks scenes and returns the findings as "severity: text"."""

    def checked(*images, labels=None, **settings):
        labels = labels or write_polygons(tmp_path / "labels.gpkg", [pixel_box(5, 5, 20, 30)])
        found = verbs.check(images=[str(image) for image in images], labels=str(labels), trial=False, **settings)
        return "\n".join(f"{finding.severity}: {finding.text}" for finding in found.findings)

    return checked


@pytest.mark.parametrize(
    ("dtype", "value"),
    [("float32", -9999), ("float32", -3.4028234663852886e38), ("int16", -32768), ("int16", -9999), ("int32", -(2**31))],
)
def test_a_patch_of_a_common_nodata_value_in_one_band_is_warned_about(tmp_path, texts, dtype, value):
    array = noise(3, H, W, dtype)
    array[1, 10:30, 20:50] = value
    image = write_raster(tmp_path / "scene.tif", array)
    words = f"scene.tif declares no nodata, but about 12.5% of its pixels are {value:.10g} in a band."
    assert words in texts(image)
    assert f"pass --nodata {value:.10g}" in texts(image)
    assert "declares no nodata" not in texts(image, nodata=value)


def test_black_in_all_bands_is_warned_about_and_in_one_band_it_is_not(tmp_path, texts):
    array = noise(3, H, W)
    array[1, 10:30, 20:50] = 0
    assert "declares no nodata" not in texts(write_raster(tmp_path / "one.tif", array))
    array[:, 10:30, 20:50] = 0
    assert "12.5% of its pixels are 0 in all bands" in texts(write_raster(tmp_path / "all.tif", array))


def test_chip_and_predict_warn_of_undeclared_nodata_as_check_does(tmp_path, caplog):
    # A white collar: 20 of 80 columns.
    array = noise(3, H, W)
    array[:, :, :20] = 255
    image = write_raster(tmp_path / "scene.tif", array)
    labels = write_polygons(tmp_path / "labels.gpkg", [pixel_box(5, 25, 20, 30)])
    scenes = {"images": [image], "labels": labels, "size": 20}
    (warning,) = [f.text for f in verbs.check(**scenes, trial=False).findings if "declares no nodata" in f.text]
    assert "scene.tif declares no nodata, but about 25.0% of its pixels are 255 in all bands" in warning

    def warns(verb, *args, **settings):
        caplog.clear()
        verb(*args, **settings)
        return warning in caplog.messages

    assert warns(verbs.chip, **scenes, out=tmp_path / "chips")
    assert not warns(verbs.chip, **scenes, nodata=255, out=tmp_path / "declared")
    network = build("unet", encoder="plain", encoder_widths=[4, 8], bands=3, classes=2)
    for nodata in (None, 255):
        model = Model.wrap(network, bands=["a", "b", "c"], classes=["no", "yes"], pixel_size=1.0, nodata=nodata)
        is_warned = warns(verbs.predict, model, [image], out=tmp_path / f"{nodata}.tif", tile=32, margin=8)
        assert is_warned == (nodata is None)


def test_a_warning_of_undeclared_nodata_looks_at_few_windows_of_few_local_images(tmp_path, monkeypatch, caplog):
    array = noise(3, H, W)
    array[:, :, :20] = 255
    image = Raster.open([write_raster(tmp_path / "scene.tif", array)])
    monkeypatch.setattr(pixels, "_SIDE", 5)
    looked = []
    monkeypatch.setattr(pixels, "_findings", lambda image, values, windows: looked.append(windows) or iter(()))
    far = replace(image, source=replace(image.source, paths=("https://example.org/scene.tif",)))
    declared, single = replace(image, nodata=0), image.select([1])
    pixels.warn_undeclared_nodata([far, declared, single])
    assert not looked
    pixels.warn_undeclared_nodata([replace(image, title=str(index)) for index in range(33)])
    assert [len(windows) for windows in looked] == [9] * 17


@pytest.mark.parametrize(
    ("dtype", "value", "is_named"),
    [
        *[("float32", value, value != 0) for value in (0, -9999, -10000, -32767)],
        ("int16", -32767, True),
        ("uint16", 65535, True),
        ("uint16", 0, False),
        ("uint8", 255, False),
    ],
)
def test_one_band_is_warned_of_for_values_that_no_imagery_has(tmp_path, caplog, dtype, value, is_named):
    # A sea of 0 m and snow of 255 are imagery.
    array = noise(1, H, W, dtype)
    array[:, :, :20] = value
    pixels.warn_undeclared_nodata([Raster.open([write_raster(tmp_path / "dem.tif", array)])])
    assert ("declares no nodata" in caplog.text) == is_named


def test_scenes_in_another_band_order_or_encoding_are_notes(tmp_path, texts):
    array = noise(3, H, W, "uint16")
    first = write_raster(tmp_path / "a.tif", array, descriptions=("red", "green", "nir"))
    other = write_raster(tmp_path / "b.tif", array, descriptions=("nir", "red", "green"))
    for path, offset in ((first, 0.0), (other, -0.1)):
        with rasterio.open(path, "r+") as dataset:
            dataset.scales, dataset.offsets = (1e-4,) * 3, (offset,) * 3
    found = texts(first, other)
    assert "note: " in found
    assert "b.tif has bands nir, red, green; they are read in the order of" in found
    assert "b.tif has scale 0.0001, offset -0.1; its numbers become those of" in found


def test_scenes_of_other_pixels_are_a_warning_also_if_their_area_is_the_same(tmp_path, texts):
    array = noise(3, H, W)
    first = write_raster(tmp_path / "a.tif", array, transform=METRE @ Affine.scale(8))
    similar = write_raster(tmp_path / "b.tif", array, transform=METRE @ Affine.scale(9, 7))
    other = write_raster(tmp_path / "c.tif", array, transform=METRE @ Affine.scale(4, 16))
    assert "Objects then differ" not in texts(first, similar)
    assert "c.tif has pixels of 4 x 16 m (width x height), " in texts(first, other)


def test_nodata_of_a_label_raster_is_a_note_with_the_way_to_make_it_a_class(tmp_path, texts):
    mask = np.zeros((H, W), np.uint8)
    mask[:30, :40], mask[:10] = 1, 2
    image, labels = (
        write_raster(tmp_path / "scene.tif", noise(3, H, W)),
        write_raster(tmp_path / "m.tif", mask, nodata=0),
    )
    assert "m.tif: about 66.7% of its pixels are nodata (0) or transparent" in texts(image, labels=labels)
    assert "background 66.7%" in texts(image, labels=labels, label_nodata_as="background")


def test_numbers_as_names_of_classes_are_a_note_with_the_way_to_name_them(tmp_path, texts):
    image = write_raster(tmp_path / "scene.tif", noise(3, H, W))
    labels = write_raster(tmp_path / "m.tif", np.tile(np.repeat([1, 2], W // 2), (H, 1)).astype(np.uint8))
    words = "note: classes have numbers as names (1, 2): name them by --class-table."
    assert words in texts(image, labels=labels)
    (tmp_path / "names.csv").write_text("value,name\n1,forest\n2,other\n")
    assert "numbers as names" not in texts(image, labels=labels, class_table=tmp_path / "names.csv")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"options": {"encoder_widths": [30_000, 30_000]}}, "error: training unet with .* needs at least .* has 8 GB"),
        ({"workers": 1024}, "error: workers is 1024"),
        ({"train": {"batch": "auto", "devices": 2}}, "error: batch = auto needs one process, but there are 2"),
        ({"final": "all", "devices": 2}, "error: the models are trained one after the other in one process, but 2"),
        ({"class_weights": (1, 2, 3)}, "error: class_weights has 3 numbers for 2 classes"),
        ({"class_weights": (0, 0)}, "error: class_weights are all 0"),
        (
            {"schedule": "plateau", "val": 0},
            "error: schedule = plateau follows .* but split val has no labelled pixels",
        ),
        ({"patience": 3, "val": 0}, "error: patience = 3 follows .* but split val has no labelled pixels"),
        ({"threshold": "val", "val": 0}, "error: threshold is val, but split val has no chips"),
        ({"final": "all", "val": 0, "test": 0}, "error: final is all, but val and test are 0"),
        ({"split": "test"}, "error: every scene has split val or test, so nothing is left to train on"),
    ],
)
def test_a_training_that_is_not_possible_is_an_error_before_chips_are_cut(
    tmp_path, texts, monkeypatch, settings, words
):
    monkeypatch.setattr(machine, "total_memory", lambda: 8 * 10**9)
    monkeypatch.setattr(checks, "cores", lambda: 2)
    if "train" in settings:
        monkeypatch.setattr(checks.torch.cuda, "is_available", lambda: True)
    image = write_raster(tmp_path / "scene.tif", noise(3, H, W))
    found = texts(image, encoder="plain", weights="none", size=16, **settings)
    assert re.search(words, found), found


def test_a_network_of_objects_without_a_background_is_an_error(tmp_path, texts):
    image = write_raster(tmp_path / "scene.tif", noise(3, H, W))
    labels = write_raster(tmp_path / "labels.tif", np.tile([1, 2], (H, W // 2)).astype(np.uint8))
    found = texts(image, labels=labels, architecture="unet_id", encoder="plain", weights="none", size=16)
    assert "error: unet_id learns the objects of all classes but the first, which is '1' (value 1)" in found


def test_the_disk_of_the_output_folder_must_hold_the_chips(tmp_path, monkeypatch):
    labels = write_polygons(tmp_path / "labels.gpkg", [pixel_box(5, 5, 20, 30)])
    scene = SceneSpec(image=(str(write_raster(tmp_path / "scene.tif", noise(3, H, W))),), labels=str(labels))
    recipe = Recipe(scenes=(scene,), chips={"size": 32})
    full = tmp_path / "full"
    monkeypatch.setattr(machine, "free_disk", lambda folder: (folder, 10 if folder == full else 10**12))
    assert not check(recipe, trial=False).errors
    assert "of disk, but" in check(recipe, trial=False, out=full).errors[0]


def test_a_single_polygon_is_counted_in_the_singular(tmp_path, texts):
    boxes = [pixel_box(5, 5, 20, 30), pixel_box(40.6, 3.6, 0.2, 0.2)]
    labels = write_polygons(tmp_path / "two.gpkg", boxes, **{"class": ["a", "b"]})
    found = texts(write_raster(tmp_path / "scene.tif", noise(3, H, W)), labels=labels, label_field="class")
    assert "the labels lack 1 polygon without a pixel centre: b 1" in found


def test_a_run_whose_map_could_not_be_assessed_with_its_chips_is_an_error(tmp_path, texts):
    image = write_raster(tmp_path / "scene.tif", noise(3, H, W))
    settings = {"encoder": "plain", "weights": "none", "size": 16}
    found = texts(image, crs="EPSG:4326", **settings)
    with rasterio.open(image) as scene:
        own = scene.crs.to_string()
    assert (
        f"error: crs is EPSG:4326, but a run assesses its maps with the chips, on the grid of the scenes ({own})"
        in found
    )
    assert "error" not in texts(image, crs=own, **settings)


def test_a_class_column_of_a_reference_that_is_a_raster_is_an_error_before_the_training(tmp_path, texts):
    image = write_raster(tmp_path / "scene.tif", noise(3, H, W))
    reference = write_raster(tmp_path / "truth.tif", np.ones((H, W), np.uint8))
    found = texts(image, encoder="plain", weights="none", size=16, reference=str(reference), reference_field="kind")
    assert "error: the independent reference: reference_field is 'kind', but" in found
    assert "truth.tif is a label raster" in found


@pytest.mark.parametrize(("split", "is_warned"), [(None, True), ("test", False)])
def test_a_reference_that_is_the_labels_of_the_training_is_warned_about(tmp_path, split, is_warned):
    scenes = []
    for name, own in (("a", "train"), ("b", "val"), ("c", split)):
        labels = str(write_raster(tmp_path / f"{name}_labels.tif", np.indices((H, W)).sum(0) % 2 + np.uint8(1)))
        image = write_raster(tmp_path / f"{name}.tif", noise(3, H, W))
        scenes.append(SceneSpec(image=(str(image),), labels=labels, split=own))
    recipe = Recipe(
        scenes=scenes, chips={"size": 16}, train={"encoder": "plain"}, assess={"reference": scenes[-1].labels}
    )
    warnings = [finding.text for finding in check(recipe, trial=False).findings if finding.severity == "warning"]
    assert any("c_labels.tif, has the labels of the training" in text for text in warnings) == is_warned


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"device": "foo"}, "error: device 'foo' cannot be used"),
        ({"device": "cuda"}, "error: device 'cuda' cannot be used"),
        ({"engine": "tensorrt"}, "error: --engine tensorrt"),
        ({"area": "nothere.gpkg"}, "error: .*nothere.gpkg cannot be read"),
        ({"area": "elsewhere.gpkg"}, "error: no polygon of .*elsewhere.gpkg lies on .*scene.tif"),
        ({"minimum_area": 1e9}, "error: the minimum area is 1e.09 m², but all of .*scene.tif is 4804 m²"),
        ({"vectorize": {"classes": ["nope"]}}, "error: the map has no class 'nope'. Known: background, labels"),
        ({"vectorize": {"classes": []}}, "error: no class of the map is to become polygons"),
        ({"log": "scene.tif"}, "error: .*scene.tif is a file. Expected a folder"),
        ({"log": "scene.tif/log"}, "error: cannot write .*scene.tif/log"),
        ({"dask": "nothere.json"}, "error: --dask nothere.json is neither a scheduler file nor an address"),
        ({"predict": {"dask": "tcp://127.0.0.1:1"}}, "error: no Dask scheduler answers at tcp://127.0.0.1:1"),
    ],
)
def test_a_setting_of_the_map_that_a_run_refuses_is_an_error_of_check(tmp_path, texts, monkeypatch, settings, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(executor, "_TIMEOUT_S", 0.1)
    write_polygons(tmp_path / "elsewhere.gpkg", [pixel_box(900, 900, 20, 30)])
    image = write_raster(tmp_path / "scene.tif", noise(3, H, W))
    before = sorted(tmp_path.rglob("*"))
    found = texts(image, encoder="plain", weights="none", size=16, **settings)
    assert re.search(words, found), found
    assert sorted({*tmp_path.rglob("*")} - {tmp_path / "labels.gpkg"}) == before


def test_every_mistake_in_the_settings_of_the_map_is_reported_at_once(tmp_path, texts):
    image = write_raster(tmp_path / "scene.tif", noise(3, H, W))
    found = texts(
        image, encoder="plain", weights="none", size=16, device="foo", area="nothere.gpkg", vectorize={"classes": ["x"]}
    )
    assert found.count("error: ") == 3


def test_a_run_that_holds_nothing_out_is_warned_about(tmp_path, texts):
    image = write_raster(tmp_path / "scene.tif", noise(3, H, W))
    settings = {"encoder": "plain", "weights": "none", "size": 16}
    assert "warning: no chip is held out (every scene has split train)" in texts(image, split="train", **settings)
    assert "warning: no chip is held out (val and test are 0)" in texts(image, val=0, test=0, **settings)
    (tmp_path / "train.txt").write_text("scene\n")
    listed = settings | {"split_by": "list", "train_list": tmp_path / "train.txt"}
    assert "warning: no chip is held out (only train_list is given)" in texts(image, **listed)
    assert "error: final is all, but only train_list is given" in texts(image, final="all", **listed)
    assert "held out" not in texts(image, **settings)


def test_check_says_that_the_classes_of_folds_are_not_known_yet(tmp_path, texts):
    image = write_raster(tmp_path / "scene.tif", noise(3, H, W))
    found = texts(image, encoder="plain", weights="none", size=16, folds=3)
    assert (
        "note: folds is 3: each class must occur in several folds, which is known only when the chips are cut" in found
    )
