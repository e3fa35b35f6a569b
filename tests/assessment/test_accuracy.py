"""The comparison of maps with chips."""

import numpy as np
import pytest

from landscribe import verbs
from landscribe.assessment.accuracy import assess_chips, assess_labels
from landscribe.data.scenes.scene import open_labels
from landscribe.errors import ClassError, RecipeError
from landscribe.geo.grid import Window
from landscribe.geo.rasters.raster import Raster
from worlds import noise, pixel_box, write_polygons, write_raster

SIDE = 48


def test_a_pixel_of_overlapping_chips_counts_once_without_pairwise_comparison(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    image = write_raster(tmp_path / "scene.tif", noise(3, SIDE, SIDE))
    labels = write_raster(tmp_path / "labels.tif", rng.integers(1, 3, (SIDE, SIDE), np.uint8))
    mapped = Raster.open([str(write_raster(tmp_path / "map.tif", rng.integers(1, 3, (SIDE, SIDE), np.uint8)))])
    chips = verbs.chip(
        images=[image], labels=labels, out=tmp_path / "chips", size=16, stride=4, val=0, test=0, virtual=True
    )
    source = open_labels(chips.metadata.sources[0], Raster.open([str(image)]), chips.classes)
    intersections = []
    original = Window.__and__
    monkeypatch.setattr(Window, "__and__", lambda a, b: intersections.append(1) or original(a, b))
    confusion = assess_chips([mapped], chips)
    monkeypatch.undo()
    assert confusion.total == SIDE * SIDE
    np.testing.assert_array_equal(confusion.counts, assess_labels(mapped, source, chips.classes).counts)
    # 81 chips; each overlaps at most 24 earlier ones, of 3 240 pairs in all.
    assert len(intersections) < 81 * 24


def foreign_map(folder, nodata):
    """A map of ground (0) and house (1), and a reference in which a quarter of the ground is house."""
    mapped, truth = np.zeros((SIDE, SIDE), np.uint8), np.zeros((SIDE, SIDE), np.uint8)
    mapped[:12] = truth[:24] = 1
    return (
        write_raster(folder / "map.tif", mapped, nodata=nodata),
        write_raster(folder / "truth.tif", truth),
    )


def test_reference_where_the_map_is_nodata_is_left_out_with_a_warning(tmp_path, caplog):
    mapped, truth = foreign_map(tmp_path, nodata=0)
    with pytest.raises(ClassError, match=r"holds 0 .* nodata \(0\) is a class of the map, pass --nodata-as"):
        verbs.assess(mapped, reference=truth)
    assessment = verbs.assess(mapped, reference=truth, label_ignore=["0"])
    assert assessment.overall_accuracy == 1
    assert assessment.confusion.unmapped_share == 0.5
    assert assessment.summary()["unmapped_pixels"] == 12 * SIDE
    assert "50.0 % of the labelled reference lies where the map has no class" in caplog.text


def test_nodata_of_a_map_counts_as_the_class_that_is_named(tmp_path, caplog):
    """The remedy of the warning: a quarter of all pixels is wrong, whether 0 is nodata or a class."""
    mapped, truth = foreign_map(tmp_path, nodata=0)
    assessment = verbs.assess(mapped, reference=truth, nodata_as="background")
    assert assessment.overall_accuracy == 0.75
    assert assessment.confusion.unmapped == 0
    assert assessment.confusion.classes.names == ("background", "1")
    plain, _ = foreign_map(tmp_path, nodata=None)
    assert verbs.assess(plain, reference=truth).overall_accuracy == 0.75
    assert "no class" not in caplog.text


def test_polygons_are_compared_with_a_map_whose_background_is_nodata(tmp_path):
    mapped, _ = foreign_map(tmp_path, nodata=0)
    houses = write_polygons(tmp_path / "houses.gpkg", [pixel_box(0, 0, 24, SIDE)])
    assert verbs.assess(mapped, reference=houses, nodata_as="background").overall_accuracy == 0.75


def test_a_class_that_the_map_does_not_have_is_refused_for_nodata(tmp_path):
    mapped, truth = foreign_map(tmp_path, nodata=0)
    with pytest.raises(RecipeError, match="--nodata-as is 'water', but the classes are 1"):
        verbs.assess(mapped, reference=truth, nodata_as="water")


def test_nodata_of_a_reference_is_unlabelled_whatever_the_classes_of_the_map_are(tmp_path):
    plain, _ = foreign_map(tmp_path, nodata=None)
    reference = np.zeros((SIDE, SIDE), np.uint8)
    reference[:12] = 1
    path = write_raster(tmp_path / "reference.tif", reference, nodata=0)
    assert verbs.assess(plain, reference=path).confusion.counts.tolist() == [[0, 0], [0, 12 * SIDE]]
    as_ground = verbs.assess(plain, reference=path, label_nodata_as="0")
    assert as_ground.confusion.counts.tolist() == [[36 * SIDE, 0], [0, 12 * SIDE]]
