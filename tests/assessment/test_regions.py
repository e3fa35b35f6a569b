"""Accuracy by region polygon."""

import logging

import numpy as np
import pytest

from landscribe import verbs
from landscribe.assessment import counting
from landscribe.assessment.references import require_reference
from landscribe.assessment.spec import AssessSpec
from landscribe.confusion import Confusion
from landscribe.errors import LabelError, RecipeError
from landscribe.geo.classes import Classes
from worlds import noise, pixel_box, write_polygons, write_raster

HEIGHT, WIDTH = 70, 50


def world(folder):
    """A map with nodata, its reference, and their arrays."""
    rng = np.random.default_rng(0)
    truth, mapped = rng.integers(0, 3, (2, HEIGHT, WIDTH)).astype(np.uint8)
    mapped[:, 40:45] = 255
    paths = (
        write_raster(folder / "map.tif", mapped, nodata=255),
        write_raster(folder / "truth.tif", truth),
    )
    return *paths, mapped, truth


def regions(folder):
    """North of two polygons, and south; a strip at the right is in no region."""
    boxes = [pixel_box(0, 0, 30, 20), pixel_box(30, 0, 40, 45), pixel_box(0, 20, 30, 25)]
    return write_polygons(folder / "regions.gpkg", boxes, region=["north", "south", "north"])


def test_each_region_has_the_confusion_of_its_pixels(tmp_path, monkeypatch):
    monkeypatch.setattr(counting, "_STRIP_PIXELS", 1000)
    path, reference, mapped, truth = world(tmp_path)
    assessment = verbs.assess(path, reference=reference, regions=regions(tmp_path), region_field="region")
    for name, rows in (("north", slice(0, 30)), ("south", slice(30, None))):
        part = (rows, slice(0, 45))
        expected = Confusion.of(assessment.classes, truth[part], mapped[part])
        np.testing.assert_array_equal(assessment.groups[name].counts, expected.counts)
        assert assessment.groups[name].unmapped == expected.unmapped > 0
    assert assessment.confusion.total == HEIGHT * 45
    assert assessment.as_dict()["groups"]["north"]["pixels"] == 30 * 40


def test_the_intervals_of_a_region_are_those_of_its_pixels_alone(tmp_path):
    path, reference, _, truth = world(tmp_path)
    settings = {"block_size": 7, "seed": 3}
    whole = verbs.assess(path, reference=reference, regions=regions(tmp_path), region_field="region", **settings)
    truth[:30], truth[:, 45:] = 255, 255
    alone = verbs.assess(path, reference=write_raster(tmp_path / "south.tif", truth), **settings)
    assert whole.as_dict()["groups"]["south"]["intervals"] == alone.as_dict()["intervals"]
    assert whole.group_bootstraps["south"].blocks == 6 * 6


def test_polygons_without_a_column_are_one_region(tmp_path):
    path, reference, *_ = world(tmp_path)
    assessment = verbs.assess(path, reference=reference, regions=regions(tmp_path))
    assert {name: confusion.total for name, confusion in assessment.groups.items()} == {"regions": HEIGHT * 40}


def test_chips_are_counted_by_region(tmp_path):
    path, reference, *_ = world(tmp_path)
    image = write_raster(tmp_path / "scene.tif", noise(3, HEIGHT, WIDTH))
    chips = verbs.chip(
        images=[image], labels=reference, out=tmp_path / "chips", size=20, stride=15, val=0, test=0, virtual=True
    )
    settings = {"regions": regions(tmp_path), "region_field": "region"}
    of_chips = verbs.assess(path, reference=chips, split="train", **settings)
    of_raster = verbs.assess(path, reference=reference, **settings)
    for name in ("north", "south"):
        np.testing.assert_array_equal(of_chips.groups[name].counts, of_raster.groups[name].counts)


def test_regions_of_points_are_refused(tmp_path):
    path, *_ = world(tmp_path)
    points = write_polygons(tmp_path / "points.gpkg", [pixel_box(5, 5, 1, 1).centroid], kind=[1])
    with pytest.raises(RecipeError, match="--regions needs polygons"):
        verbs.assess(path, reference=points, label_field="kind", regions=regions(tmp_path))
    spec = AssessSpec(reference=str(points), reference_field="kind", regions=str(regions(tmp_path)))
    with pytest.raises(RecipeError, match="--regions needs polygons"):  # before a run trains
        require_reference(spec, Classes.from_labels([0, 1, 2], background=False))


def test_regions_beside_the_map_give_a_warning(tmp_path, caplog):
    path, reference, *_ = world(tmp_path)
    far = write_polygons(tmp_path / "far.gpkg", [pixel_box(500, 500, 9, 9)])
    with caplog.at_level(logging.WARNING):
        assert verbs.assess(path, reference=reference, regions=far).groups == {}
    assert "no compared pixel lies in a region of" in caplog.text


def test_a_column_that_is_missing_and_one_without_regions_are_refused(tmp_path):
    path, reference, *_ = world(tmp_path)
    with pytest.raises(LabelError, match="name"):
        verbs.assess(path, reference=reference, regions=regions(tmp_path), region_field="name")
    with pytest.raises(RecipeError, match="region_field is 'name', but there are no regions"):
        verbs.assess(path, reference=reference, region_field="name")
