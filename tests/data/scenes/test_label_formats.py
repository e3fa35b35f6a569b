"""The contract of a format of labels, held by each in LABEL_FORMATS."""

import pickle
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from landscribe import verbs
from landscribe.data.scenes.label_formats import (
    LABEL_FILES,
    LABEL_FORMATS,
    LabelFormat,
    label_format,
    label_warnings,
    require_fitting_settings,
)
from landscribe.data.scenes.polygon_files import PolygonFiles
from landscribe.data.scenes.scene import open_scenes
from landscribe.data.scenes.spec import SceneSpec
from landscribe.errors import EmptyError, OutsideError, RecipeError
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
    of_polygons = {"label_field": "kind", "sparse": True} if request.param == "polygons" else {}
    return SceneSpec(image=(str(image),), labels=str(labels), **of_polygons)


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
    settings = {name: value for name, value in spec.model_dump(exclude_defaults=True).items() if name != "image"}
    check = verbs.check(images=[spec.image[0]], trial=False, size=8, **settings)
    assert [finding for finding in check.findings if "cannot be read" in finding.text] == []


def test_a_suffix_belongs_to_one_format():
    suffixes = [suffix for own in LABEL_FORMATS.values() for suffix in own.suffixes]
    assert len(suffixes) == len(set(suffixes)) == len(LABEL_FILES)
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in suffixes)


@pytest.mark.parametrize("path", ["labels.unknown", "labels", "/vsicurl/https://e.org/labels"])
def test_other_suffixes_are_rasters(path):
    assert label_format(path) is LABEL_FORMATS["raster"]


OTHERS = {
    "raster": {
        "label_field": "x", "label_layer": "a", "label_crs": "EPSG:4326", "label_priority": "y", "label_zero": "class",
        "all_touched": ("ditch",), "sparse": True, "fix_geometries": True,
    },
    "polygons": {"label_threshold": 3.0, "label_objects": True, "label_nodata_as": "background"},
}  # fmt: skip
"""Settings that labels of a format do not have."""


def scene_of(folder, format_name, **settings) -> SceneSpec:
    return SceneSpec(image=("scene.tif",), labels=str(FILES[format_name](folder)), **settings)


@pytest.mark.parametrize(("format_name", "name"), [(key, name) for key in OTHERS for name in OTHERS[key]])
def test_a_setting_that_labels_of_a_format_do_not_have_is_refused(tmp_path, format_name, name):
    spec = scene_of(tmp_path, format_name, **{name: OTHERS[format_name][name]})
    with pytest.raises(RecipeError) as refused:
        require_fitting_settings([spec])
    message = str(refused.value)
    assert message.startswith(name)
    assert (
        f"labels.{'tif' if format_name == 'raster' else 'gpkg'}. Leave it out (--{name.replace('_', '-')})" in message
    )


def test_a_setting_of_polygons_fits_where_one_of_its_scenes_has_polygons(tmp_path):
    settings = {"label_field": "kind", "label_threshold": 3.0}
    require_fitting_settings([scene_of(tmp_path, name, **settings) for name in FILES])


def test_labels_that_do_not_exist_are_not_taken_for_rasters():
    require_fitting_settings([SceneSpec(image=("a.tif",), labels="no/labels.geojsn", label_field="kind")])


def test_the_crs_of_an_area_without_one_fits_label_rasters(tmp_path):
    area = {"labelled_area": "area.csv", "label_crs": "EPSG:32632", "fix_geometries": True}
    require_fitting_settings([scene_of(tmp_path, "raster", **area)])


def test_every_setting_of_labels_belongs_to_a_format():
    named = {name for name in SceneSpec.model_fields if name.startswith("label_")}
    assert named < set().union(*(each.settings for each in LABEL_FORMATS.values())) < set(SceneSpec.model_fields)


# A new format ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NumberText:
    """One label of a whole image, in a text file."""

    has_background: ClassVar[bool] = False
    is_one_class: ClassVar[bool] = False
    has_colours: ClassVar[bool] = False
    zero_is_class: ClassVar[bool] = False
    is_thresholded: ClassVar[bool] = False
    has_names: ClassVar[bool] = False
    separates_objects: ClassVar[bool] = False
    file_grid: ClassVar[None] = None

    label: int | None
    value: int = IGNORE

    @classmethod
    def open(cls, path, image, spec, polygons):
        """The label in a file, which names the images that it is of."""
        label, *names = Path(path).read_text().split() or [None]
        if label is None:
            raise EmptyError(f"{path} holds no number.")
        if image.name not in names:
            raise OutsideError(f"{path} is not of {image.name}.")
        return cls(int(label))

    def labels(self, *, colours):
        return set() if self.label is None else {self.label}

    def with_classes(self, classes):
        return self if self.label is None else replace(self, value=int(classes.values_of([self.label], "text")[0]))

    def read(self, window):
        return np.full(window.shape, self.value, np.uint8)

    def objects(self, window):
        return (self.read(window) != IGNORE).astype(np.uint32)

    @staticmethod
    def warnings(sources):
        yield f"{len(sources)} texts"


def test_a_new_format_needs_a_line_and_nothing_else(tmp_path, monkeypatch, caplog):
    line = LabelFormat(
        {".number"}, NumberText.open, "number texts", frozenset(), without=lambda *_: NumberText(None)
    )  # fmt: skip
    monkeypatch.setitem(LABEL_FORMATS, "numbers", line)
    texts = {"a": "7 north", "b": "9 east west", "c": ""}
    for name, text in texts.items():
        (tmp_path / f"{name}.number").write_text(text)
    specs = [
        SceneSpec(image=(str(write_raster(tmp_path / f"{image}.tif", noise(3, H, W))),), labels=str(tmp_path / labels))
        for image, labels in [("north", "a.number"), ("south", "a.number"), ("east", "b.number"), ("sea", "c.number")]
    ]
    scenes, classes = open_scenes(specs)
    assert classes.values == (7, 9)
    read = [np.unique(scene.labels.read(Window(0, 0, H, W))).tolist() for scene in scenes]
    assert read == [[7], [IGNORE], [9], [IGNORE]]
    assert "a.number has no polygon on 1 of 2 images (south): they give no labelled pixel" in caplog.text
    assert "the label files of 1 of 4 images hold no features (sea): they give no labelled pixel" in caplog.text
    assert list(label_warnings(scene.labels for scene in scenes)) == ["4 texts"]
