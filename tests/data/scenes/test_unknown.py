"""The three states of a pixel (class, background, unlabelled) in chips, training labels and assessment."""

import numpy as np
import pytest

import worlds
from landscribe import verbs
from landscribe.data.batches.dataset import ChipDataset
from landscribe.data.chips.chips import Chips
from landscribe.errors import ClassError, LabelError

SIDE = 64
BOXES = [worlds.pixel_box(4, 4, 20, 20), worlds.pixel_box(40, 30, 16, 20)]
WHOLE = {"size": 64, "val": 0, "test": 0}


@pytest.fixture
def scene(tmp_path):
    """An image, two polygons of the classes field and house, and an area that holds the first alone."""
    worlds.write_raster(tmp_path / "scene.tif", worlds.noise(3, SIDE, SIDE))
    worlds.write_polygons(tmp_path / "labels.geojson", BOXES, **{"class": ["field", "house"]})
    worlds.write_polygons(tmp_path / "area.geojson", [worlds.pixel_box(0, 0, 32, 32)])
    return tmp_path


def cut(folder, name: str = "chips", **settings) -> Chips:
    return verbs.chip(
        images=[folder / "scene.tif"], labels=settings.pop("labels", folder / "labels.geojson"), out=folder / name,
        **(WHOLE | {"label_field": "class"} | settings),
    )  # fmt: skip


def labels_of(chips: Chips) -> np.ndarray:
    return ChipDataset(chips)[0]["label"].numpy()


def test_pixels_outside_the_labelled_area_are_ignored(scene):
    chips = cut(scene, labelled_area=str(scene / "area.geojson"))
    label = labels_of(chips)
    assert (label[32:] == 255).all()
    assert (label[:, 32:] == 255).all()
    assert (label[:32, :32] != 255).all()
    assert chips.table["count_ignore"][0] == SIDE**2 - 32**2


def test_pixels_between_sparse_polygons_are_ignored(scene):
    chips = cut(scene, sparse=True)
    assert chips.classes.names == ("field", "house")
    assert (labels_of(chips) != 255).sum() == 20 * 20 + 16 * 20


def test_a_label_may_mark_unlabelled_pixels(scene):
    rows = [
        {"name": "background", "value": 0},
        {"name": "field", "value": 1},
        {"name": "odd", "value": 255, "label": "house"},
    ]
    for virtual in (False, True):
        chips = cut(scene, f"chips{virtual}", classes=rows, virtual=virtual)
        label = labels_of(chips)
        assert (label == 255).sum() == 16 * 20
        assert chips.classes.names == ("background", "field")
        assert Chips.open(chips.folder).classes.unknown == ("house",)


@pytest.mark.parametrize(("value", "expected"), [(255, 255), (3, 1)])
def test_zero_in_a_label_raster_is_unlabelled_or_a_class_by_the_table(scene, value, expected):
    raster = np.zeros((1, SIDE, SIDE), np.uint8)
    raster[0, :10] = 7
    worlds.write_raster(scene / "labels.tif", raster)
    rows = [{"name": "house", "value": 7}, {"name": "other", "value": value, "label": 0}]
    label = labels_of(cut(scene, labels=scene / "labels.tif", label_field=None, classes=rows))
    assert (label[:10] == 0).all()
    assert (label[10:] == expected).all()


def test_chips_without_a_label_are_not_cut_and_partly_labelled_ones_are(scene):
    chips = cut(scene, size=16, stride=16, sparse=True)
    assert 0 < len(chips) < 16
    assert (chips.counts.sum(axis=1) > 0).all()
    assert (chips.table["count_ignore"] > 0).any()


def test_unlabelled_pixels_are_not_assessed(scene):
    worlds.write_raster(scene / "map.tif", np.zeros((1, SIDE, SIDE), np.uint8))
    worlds.write_raster(scene / "labels.tif", np.zeros((1, SIDE, SIDE), np.uint8))
    area = {"labelled_area": str(scene / "area.geojson")}
    counted = [
        verbs.assess(scene / "map.tif", reference=scene / "labels.tif", **labels).confusion.total
        for labels in ({}, area)
    ]
    assert counted == [SIDE**2, 32**2]


def test_a_label_cannot_be_a_class_and_unlabelled(scene):
    rows = [{"name": "field", "value": 1}, {"name": "house", "value": 2}, {"name": "x", "value": 255, "label": "house"}]
    with pytest.raises(ClassError, match="'house' marks both a class and unlabelled pixels"):
        cut(scene, classes=rows)


def test_a_labelled_area_outside_the_image_is_refused(scene):
    worlds.write_polygons(scene / "away.geojson", [worlds.pixel_box(9000, 9000, 5, 5)])
    with pytest.raises(LabelError, match=r"no polygon of .*away\.geojson lies on"):
        cut(scene, labelled_area=str(scene / "away.geojson"))


@pytest.mark.parametrize(("unlabelled", "count"), [(False, 4), (True, 16)])
def test_chips_without_any_label_are_cut_on_request_only(scene, unlabelled, count):
    chips = cut(scene, size=16, labelled_area=str(scene / "area.geojson"), unlabelled=unlabelled)
    assert len(chips) == count
    assert chips.counts.sum() == 32 * 32
