"""The contract of a format of labels, held by each in LABEL_FORMATS."""

import pickle

import numpy as np
import pytest

from landscribe import verbs
from landscribe.data.scenes.label_formats import LABEL_FILES, LABEL_FORMATS, label_format
from landscribe.data.scenes.polygon_files import PolygonFiles
from landscribe.data.scenes.scene import open_scenes
from landscribe.data.scenes.spec import SceneSpec
from landscribe.geo.classes import IGNORE, ClassEntry, Classes
from landscribe.geo.grid import Window
from landscribe.geo.rasters.raster import Raster
from worlds import noise, pixel_box, write_polygons, write_raster

H, W = 8, 10
HOUSE = 3
TRUTH = np.full((H, W), IGNORE, np.uint8)
TRUTH[2:5, 1:4] = HOUSE


def _polygons(folder):
    return write_polygons(folder / "labels.gpkg", [pixel_box(2, 1, 3, 3)], kind=["house"])


def _raster(folder):
    return write_raster(folder / "labels.tif", TRUTH, nodata=255)


FILES = {"polygons": _polygons, "raster": _raster}
"""Writes TRUTH in each format."""


@pytest.fixture(params=LABEL_FORMATS)
def spec(request, tmp_path) -> SceneSpec:
    """A scene with labels in each format."""
    image = write_raster(tmp_path / "scene.tif", noise(3, H, W))
    labels = FILES[request.param](tmp_path)
    assert label_format(str(labels)) is LABEL_FORMATS[request.param]
    return SceneSpec(image=(str(image),), labels=str(labels), label_field="kind", sparse=True)


@pytest.fixture
def opened(spec):
    return label_format(spec.labels).open(spec.labels, Raster.open([spec.image[0]]), spec, PolygonFiles())


@pytest.fixture
def source(opened):
    (label,) = opened.labels(colours=opened.has_colours)
    return opened.with_classes(Classes((ClassEntry(HOUSE, "house", "#ff0000", label),)))


def test_all_labels_are_listed_once_and_of_one_kind(opened):
    (label,) = opened.labels(colours=False)
    assert isinstance(label, str) == opened.has_names


def test_a_window_inside_the_grid_has_the_class_values_and_ignore_where_unlabelled(source):
    values = source.read(Window(0, 0, H, W))
    assert values.dtype == np.uint8
    np.testing.assert_array_equal(values, TRUTH)
    np.testing.assert_array_equal(source.read(Window(3, 2, 4, 5)), TRUTH[3:7, 2:7])


def test_a_window_across_the_edge_of_the_grid_agrees_inside(source):
    values = source.read(Window(-2, -3, H, W))
    assert values.shape == (H, W)
    np.testing.assert_array_equal(values[2:, 3:], TRUTH[:-2, :-3])
    assert (values[:2] == IGNORE).all()
    assert (values[:, :3] == IGNORE).all()


def test_a_window_outside_the_grid_is_ignore(source):
    assert (source.read(Window(2 * H, 0, 3, 4)) == IGNORE).all()


def test_opened_labels_read_the_same_after_pickling(source):
    restored = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(restored.read(Window(0, 0, H, W)), TRUTH)


def test_a_scene_reads_the_labels_without_a_class_table(spec):
    (scene,), classes = open_scenes([spec])
    sample = scene.read(Window(0, 0, H, W))
    np.testing.assert_array_equal(sample.mask == IGNORE, TRUTH == IGNORE)
    assert len(classes) == 1


def test_a_check_of_a_scene_can_read_the_labels(spec):
    settings = {"label_field": "kind", "sparse": True, "size": 8}
    check = verbs.check(images=[spec.image[0]], labels=spec.labels, trial=False, **settings)
    assert [finding for finding in check.findings if "cannot be read" in finding.text] == []


def test_a_suffix_belongs_to_one_format():
    suffixes = [suffix for own in LABEL_FORMATS.values() for suffix in own.suffixes]
    assert len(suffixes) == len(set(suffixes)) == len(LABEL_FILES)
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in suffixes)


@pytest.mark.parametrize("path", ["labels.unknown", "labels", "/vsicurl/https://e.org/labels"])
def test_other_suffixes_are_rasters(path):
    assert label_format(path) is LABEL_FORMATS["raster"]
