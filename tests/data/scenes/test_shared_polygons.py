"""One file of polygons for several images."""

import logging

import pytest

from landscribe import verbs
from landscribe.errors import OutsideError
from worlds import METRE, noise, pixel_box, write_polygons, write_raster


@pytest.fixture
def files(tmp_path):
    """Three images a kilometre apart, and polygons on the first only."""
    images = [
        write_raster(tmp_path / f"i{index}.tif", noise(3, 96, 96), transform=METRE @ METRE.translation(1000 * index, 0))
        for index in range(3)
    ]
    boxes = [pixel_box(10, 10, 30, 30), pixel_box(50, 50, 30, 30)]
    return images, write_polygons(tmp_path / "polygons.gpkg", boxes, kind=["a", "b"])


def test_images_without_a_polygon_of_a_shared_sparse_file_give_no_chip_and_are_counted(files, tmp_path, caplog):
    images, polygons = files
    with caplog.at_level(logging.WARNING):
        chips = verbs.chip(
            images=images, labels=polygons, label_field="kind", sparse=True, size=32, out=tmp_path / "chips"
        )
    assert set(chips.scene_names) == {"i0"}
    assert chips.counts.sum() == 2 * 30 * 30
    assert "has no polygon on 2 of 3 images" in caplog.text


def test_an_image_without_a_polygon_is_refused_where_ground_between_polygons_is_background(files, tmp_path):
    images, polygons = files
    with pytest.raises(OutsideError, match=r"no polygon of .* lies on .*i1\.tif"):
        verbs.chip(images=images, labels=polygons, label_field="kind", size=32, out=tmp_path / "chips")


def test_sparse_polygons_on_none_of_their_images_are_refused(files, tmp_path):
    images, polygons = files
    with pytest.raises(OutsideError, match=r"no polygon of .* lies on .*i1\.tif"):
        verbs.chip(images=images[1:], labels=polygons, label_field="kind", sparse=True, size=32, out=tmp_path / "chips")
    assert not (tmp_path / "chips").exists()
