"""Label polygons on a scene: what masks leave out, and how class codes become values."""

import logging
from datetime import date

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine

from landscribe import verbs
from landscribe.data.scenes.label_formats import label_warnings
from landscribe.data.scenes.scene import open_scenes
from landscribe.data.scenes.spec import ClassSpec, SceneSpec
from landscribe.errors import ClassError, LabelError, OutsideError
from landscribe.geo.classes import default_colour
from landscribe.geo.grid import Window
from worlds import METRE, UTM, noise, pixel_box, write_polygons, write_raster

H, W = 64, 64
ALL = Window(0, 0, H, W)
LOWER, UPPER, FAR = pixel_box(0, 0, 20, 20), pixel_box(10, 10, 20, 20), pixel_box(40, 40, 8, 8)
THIN = [pixel_box(50, 2.1 + 4 * n, 10, 0.3) for n in range(3)]
"""Ten pixels long, and between the centres of two columns."""


@pytest.fixture
def image(tmp_path) -> str:
    return str(write_raster(tmp_path / "scene.tif", noise(3, H, W)))


def spec(image, tmp_path, boxes=(LOWER, UPPER, FAR), table=(), name="labels.gpkg", **settings):
    """A scene with boxes, whose class column is `kind`."""
    columns = {"kind": settings.pop("kind", ["a", "b", "a"])} | settings.pop("columns", {})
    path = write_polygons(tmp_path / name, list(boxes), **columns)
    return SceneSpec(image=(image,), labels=str(path), label_field="kind", **settings)


def opened(source: SceneSpec, table=()):
    """The mask, classes and warnings of a scene."""
    (scene,), classes = open_scenes([source], table)
    return scene.read(ALL).mask, classes, list(label_warnings([scene.labels]))


def counts(mask, classes) -> dict[str, int]:
    return {entry.name: int((mask == entry.value).sum()) for entry in classes if entry.value}


# Overlaps -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "priority", "a", "b"),
    [
        (["a", "b", "a"], None, 300 + 64, 400), (["b", "a", "a"], None, 300 + 64, 400),
        (["a", "b", "a"], "file-order", 300 + 64, 400), (["b", "a", "a"], "file-order", 400 + 64, 300),
        (["a", "b", "a"], "level", 400 + 64, 300),
    ],
)  # fmt: skip
def test_the_class_table_or_a_column_decides_which_polygon_lies_on_top(image, tmp_path, kind, priority, a, b):
    columns = {"level": [2.5, 1.0, 0.0]}
    mask, classes, _ = opened(spec(image, tmp_path, kind=kind, columns=columns, label_priority=priority))
    assert counts(mask, classes) == {"a": a, "b": b}


@pytest.mark.parametrize("name", ["labels.gpkg", "labels.shp", "labels.geojson", "labels.fgb"])
@pytest.mark.parametrize(
    ("taken", "a", "b"), [(["2019-07-01", "2023-07-01"], 300, 400), (["2023-07-01", "2019-07-01"], 400, 300)]
)
def test_the_newest_polygon_lies_on_top_by_a_column_of_dates(image, tmp_path, name, taken, a, b):
    dates = [date.fromisoformat(text) for text in taken]
    source = spec(image, tmp_path, [LOWER, UPPER], kind=["a", "b"], name=name, columns={"taken": dates})
    mask, classes, warnings = opened(source.model_copy(update={"label_priority": "taken"}))
    assert counts(mask, classes) == {"a": a, "b": b}
    assert warnings == []


def test_overlaps_of_classes_are_counted_with_both_classes_unless_a_priority_decides(image, tmp_path):
    _, _, (text,) = opened(spec(image, tmp_path))
    assert "overlap" in text
    assert "in 100 pixels" in text
    assert "b over a 100" in text
    assert "--label-priority" in text
    _, _, warnings = opened(spec(image, tmp_path, label_priority="file-order", kind=["b", "a", "a"]))
    assert warnings == []


def test_overlaps_within_a_class_are_not_reported(image, tmp_path):
    mask, classes, warnings = opened(spec(image, tmp_path, kind=["a", "a", "b"]))
    assert counts(mask, classes) == {"a": 700, "b": 64}
    assert warnings == []


def test_a_label_that_begins_with_a_hash_is_no_colour(image, tmp_path):
    source = spec(image, tmp_path, kind=["#forest", "b", "#3C1098"])
    mask, classes, _ = opened(source)
    assert classes.names == ("background", "#3C1098", "#forest", "b")
    assert [entry.colour for entry in classes if entry.name != "#3C1098"] == [
        default_colour(index, background=index == 0) for index in (0, 2, 3)
    ]
    table = [
        ClassSpec(name="forest", value=7, label="#forest"),
        ClassSpec(name="b", value=2, label="b"),
        ClassSpec(name="roof", value=3, label="#3c1098"),
    ]
    again, named, _ = opened(source, table)
    assert counts(again, named) | {"background": 0} == {
        "forest": counts(mask, classes)["#forest"], "b": counts(mask, classes)["b"],
        "roof": counts(mask, classes)["#3C1098"], "background": 0,
    }  # fmt: skip


# Thin polygons --------------------------------------------------------------------------------------------------


def thin(image, tmp_path, **settings):
    return spec(image, tmp_path, boxes=[FAR, *THIN], kind=["field", "ditch", "ditch", "path"], **settings)


def test_polygons_without_a_pixel_centre_are_counted_by_class(image, tmp_path):
    mask, classes, (text,) = opened(thin(image, tmp_path))
    assert counts(mask, classes) == {"ditch": 0, "field": 64, "path": 0}
    assert "the labels lack 3 polygons without a pixel centre" in text
    assert "ditch 2, path 1" in text
    assert "--all-touched ditch,path" in text


@pytest.mark.parametrize(
    ("touched", "ditch", "path"), [(("ditch",), 20, 0), (("ditch", "path"), 20, 10), (("all",), 20, 10)]
)
def test_touched_classes_get_every_pixel_that_their_polygons_touch(image, tmp_path, touched, ditch, path):
    mask, classes, warnings = opened(thin(image, tmp_path, all_touched=touched))
    assert counts(mask, classes)["ditch"] == ditch
    assert counts(mask, classes)["path"] == path
    assert len(warnings) == (path == 0)


def test_a_touched_class_that_does_not_exist_is_refused(image, tmp_path):
    with pytest.raises(ClassError, match=r"all_touched = dich is no class. Expected background, ditch, field, path"):
        opened(thin(image, tmp_path, all_touched=("dich",)))


def test_every_command_that_reads_labels_says_what_it_leaves_out(image, tmp_path, caplog):
    source = thin(image, tmp_path)
    settings = {"label_field": "kind", "size": 16}
    found = verbs.check(images=[image], labels=source.labels, trial=False, **settings)
    assert any("without a pixel centre" in finding.text for finding in found.findings)
    with caplog.at_level(logging.WARNING):
        verbs.chip(images=[image], labels=source.labels, out=tmp_path / "chips", **settings)
    assert caplog.text.count("without a pixel centre") == 1


# Codes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", [["1", "10", "2"], [1.0, 10.0, 2.0], ["1.0", "10.0", "2.0"], ["01", "10", "02"], [1, 10, 2]],
    ids=["words", "floats", "floats as words", "zeros before", "numbers"],
)  # fmt: skip
def test_whole_numbers_are_values_however_they_are_written(image, tmp_path, kind):
    mask, classes, _ = opened(spec(image, tmp_path, boxes=(LOWER, FAR, THIN[0].buffer(1)), kind=kind))
    assert (classes.values, classes.names) == ((0, 1, 2, 10), ("background", "1", "2", "10"))
    assert (mask[0, 0], mask[40, 40]) == (1, 10)


def test_numbers_as_words_agree_with_a_label_raster(image, tmp_path):
    truth = np.zeros((H, W), np.uint8)
    truth[:20, :20], truth[40:48, 40:48] = 2, 10
    raster = SceneSpec(image=(image,), labels=str(write_raster(tmp_path / "truth.tif", truth)))
    polygons = spec(image, tmp_path, boxes=(LOWER, FAR), kind=["2", "10"])
    scenes, classes = open_scenes([polygons, raster])
    assert classes.values == (0, 2, 10)
    for scene in scenes:
        np.testing.assert_array_equal(scene.read(ALL).mask, truth)


def test_codes_outside_a_byte_get_values_and_stay_labels(image, tmp_path):
    _, classes, _ = opened(spec(image, tmp_path, boxes=(LOWER, FAR, THIN[0].buffer(1)), kind=["311", "-1", "7"]))
    assert [(entry.value, entry.label) for entry in classes] == [(0, "background"), (1, -1), (2, 7), (3, 311)]


def test_true_and_false_are_two_classes(image, tmp_path):
    mask, classes, _ = opened(spec(image, tmp_path, boxes=(LOWER, FAR), kind=[True, False]))
    assert counts(mask, classes) == {"False": 64, "True": 400}


def test_class_0_of_polygons_is_refused_with_both_choices(image, tmp_path):
    with pytest.raises(ClassError, match=r"labels\.gpkg has 1 polygon of class 0.*--label-zero class.*background"):
        opened(spec(image, tmp_path, boxes=(LOWER, FAR), kind=[0, 1]))


@pytest.mark.parametrize("kind", [[0, 1], ["0", "1"]])
def test_class_0_can_be_a_class_or_the_background(image, tmp_path, kind):
    two = {"boxes": (LOWER, FAR), "kind": kind}
    mask, classes, _ = opened(spec(image, tmp_path, label_zero="class", **two))
    assert [(entry.value, entry.label) for entry in classes] == [(0, "background"), (1, 0), (2, 1)]
    assert (mask[0, 0], mask[40, 40], mask[30, 0]) == (1, 2, 0)
    mask, classes, _ = opened(spec(image, tmp_path, label_zero="background", **two))
    assert classes.values == (0, 1)
    assert (mask[0, 0], mask[40, 40], mask[30, 0]) == (0, 1, 0)
    mask, classes, _ = opened(spec(image, tmp_path, sparse=True, **two))
    assert (mask[0, 0], mask[40, 40], mask[30, 0]) == (0, 1, 255)


def test_class_0_is_a_class_also_beside_class_255(image, tmp_path):
    two = {"boxes": (LOWER, FAR), "kind": [0, 255]}
    mask, classes, _ = opened(spec(image, tmp_path, label_zero="class", **two))
    assert [(entry.value, entry.label) for entry in classes] == [(0, "background"), (1, 0), (2, 255)]
    assert (mask[0, 0], mask[40, 40], mask[30, 0]) == (1, 2, 0)
    mask, classes, _ = opened(spec(image, tmp_path, label_zero="background", **two))
    assert [entry.label for entry in classes] == [0, 255]
    assert (mask[0, 0], mask[40, 40], mask[30, 0]) == (0, 1, 0)
    mask, classes, _ = opened(spec(image, tmp_path, sparse=True, **two))
    assert len(classes) == len({mask[0, 0], mask[40, 40]}) == 2
    assert mask[30, 0] == 255


@pytest.mark.parametrize("stated", ["EPSG:32632", "epsg:32632", "+proj=utm +zone=32 +datum=WGS84"])
def test_a_stated_crs_may_be_that_of_the_file(image, tmp_path, stated):
    assert "a" in opened(spec(image, tmp_path, label_crs=stated))[1].names


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ("EPSG:4326", r"labels\.gpkg is in EPSG:32632, but --label-crs is EPSG:4326, .* for files without a CRS"),
        ("EPSG:99999", "which is no CRS"),
    ],
)
def test_a_stated_crs_that_is_not_that_of_the_file_is_refused(image, tmp_path, stated, message):
    with pytest.raises(LabelError, match=message):
        opened(spec(image, tmp_path, label_crs=stated))


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ("EPSG:32633", "on the image in its own CRS: try --label-crs EPSG:32632."),
        ("EPSG:4326", "on the image in its own CRS: try --label-crs EPSG:32632."),
    ],
)
def test_a_wrong_crs_of_labels_without_one_is_named_with_that_of_the_image(image, tmp_path, stated, words):
    (tmp_path / "labels.csv").write_text(f'wkt,kind\n"{LOWER}",a\n')
    source = SceneSpec(image=(image,), labels=str(tmp_path / "labels.csv"), label_field="kind", label_crs=stated)
    with pytest.raises(OutsideError) as error:
        opened(source)
    assert str(error.value).endswith(f" --label-crs is {stated}. The coordinates would lie {words}")


def test_labels_whose_file_has_a_wrong_crs_are_named_with_that_of_the_image(image, tmp_path):
    path = write_polygons(tmp_path / "labels.gpkg", [LOWER], crs=32633, kind=["a"])
    words = r'would lie on the image in its own CRS \(EPSG:32632\)\. .* "ogr2ogr -a_srs EPSG:32632 out\.gpkg .*labels'
    with pytest.raises(OutsideError, match=words):
        opened(SceneSpec(image=(image,), labels=str(path), label_field="kind"))


def test_a_stated_crs_of_labels_without_one_is_not_that_of_the_labelled_area(image, tmp_path):
    area = gpd.GeoSeries([pixel_box(0, 0, 32, 64)], crs=UTM).to_crs(4326)
    area.to_file(tmp_path / "area.gpkg")
    (x, y) = METRE @ (10, 10)
    (tmp_path / "labels.csv").write_text(f'wkt,kind\n"{shapely.box(x - 5, y - 5, x + 5, y + 5)}",a\n')
    source = SceneSpec(
        image=(image,), labels=str(tmp_path / "labels.csv"), label_field="kind", label_crs="EPSG:32632",
        labelled_area=str(tmp_path / "area.gpkg"),
    )  # fmt: skip
    mask, classes, _ = opened(source)
    assert counts(mask, classes) == {"a": 100}
    assert (mask[32:] == 255).all()


def test_a_class_table_decides_about_class_0(image, tmp_path):
    table = [ClassSpec(name="sea", value=1, label=0), ClassSpec(name="land", value=2, label=1)]
    mask, _, _ = opened(spec(image, tmp_path, boxes=(LOWER, FAR), kind=[0, 1], sparse=True), table)
    assert (mask[0, 0], mask[40, 40]) == (1, 2)


# Outside -------------------------------------------------------------------------------------------------------


def test_polygons_outside_all_images_are_counted_by_class(image, tmp_path):
    east = str(write_raster(tmp_path / "east.tif", noise(3, H, W), transform=METRE @ Affine.translation(100, 0)))
    boxes = [LOWER, pixel_box(0, 110, 5, 5), pixel_box(0, 500, 5, 5), pixel_box(500, 0, 5, 5)]
    first = spec(image, tmp_path, boxes=boxes, kind=["a", "b", "c", "b"])
    second = first.model_copy(update={"image": (east,)})
    scenes, _ = open_scenes([first, second])
    (text,) = label_warnings(scene.labels for scene in scenes)
    assert "2 of 4 polygons of" in text
    assert "outside all 2 images and are not used: c 1, b 1" in text
    *_, text = label_warnings([scenes[0].labels])
    assert "3 of 4 polygons" in text


def test_classes_that_differ_in_capital_letters_only_are_reported(image, tmp_path):
    labels = spec(image, tmp_path, kind=["Forest", "road", "forest"]).labels
    found = verbs.check(images=[image], labels=labels, label_field="kind", size=16, trial=False)
    assert any("classes Forest, forest of" in finding.text for finding in found.findings)


def test_what_many_scenes_leave_out_is_one_warning_for_each_reason(image, tmp_path):
    source = spec(image, tmp_path, boxes=[LOWER, UPPER, THIN[0]])
    scenes, _ = open_scenes([source, source, source])
    first, second = label_warnings(scene.labels for scene in scenes)
    assert "scene.tif and 2 more images: the labels lack" in first
    assert "overlap in 300 pixels: b over a 300" in second
