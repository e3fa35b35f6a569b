"""One file of polygons for several images."""

import json
import logging

import numpy as np
import pytest
import shapely

from landscribe import verbs
from landscribe.data.scenes.polygon_files import PolygonFiles
from landscribe.errors import EmptyError, LabelError, OutsideError
from landscribe.geo.grid import Window
from landscribe.geo.rasters.raster import Raster
from worlds import METRE, noise, pixel_box, write_polygons, write_raster


def image_transform(index: int):
    return METRE @ METRE.translation(1000 * index, 0)


@pytest.fixture
def files(tmp_path):
    """Three images a kilometre apart, and polygons on the first only."""
    images = [
        write_raster(tmp_path / f"i{index}.tif", noise(3, 96, 96), transform=image_transform(index))
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


def test_images_without_a_polygon_of_a_shared_file_are_background_with_one_warning(files, tmp_path, caplog):
    images, polygons = files
    with caplog.at_level(logging.WARNING):
        chips = verbs.chip(images=images, labels=polygons, label_field="kind", size=32, out=tmp_path / "chips")
    assert set(chips.scene_names) == {"i0", "i1", "i2"}
    assert chips.counts.sum(axis=0).tolist() == [3 * 96**2 - 2 * 30**2, 30**2, 30**2]
    assert caplog.text.count("has no polygon on 2 of 3 images (i1, i2): they are background") == 1


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("count", [1, 2])
def test_polygons_on_none_of_their_images_are_refused(files, tmp_path, sparse, count):
    images, polygons = files
    settings = {"label_field": "kind", "sparse": sparse, "size": 32}
    with pytest.raises(OutsideError, match=r"no polygon of .* lies on .*i1\.tif: they cover x 500010 to 500080"):
        verbs.chip(images=images[1 : 1 + count], labels=polygons, out=tmp_path / "chips", **settings)
    assert not (tmp_path / "chips").exists()


@pytest.fixture
def folders(files, tmp_path):
    """A folder of the three images, and one of a file of labels for each, of which the last has no features."""
    images, _ = files
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for index, image in enumerate(images):
        image.rename(tmp_path / "images" / image.name)
        box = pixel_box(10, 1000 * index + 10, 30, 30)
        write_polygons(tmp_path / "labels" / f"i{index}.geojson", [box], kind=["ab"[index % 2]])
    empty(tmp_path / "labels" / "i2.geojson")
    return tmp_path / "images", tmp_path / "labels"


def empty(path) -> None:
    path.write_text(json.dumps({"type": "FeatureCollection", "features": []}), encoding="utf-8")


@pytest.mark.parametrize(("sparse", "pixels"), [(False, [3 * 96**2 - 2 * 30**2, 30**2, 30**2]), (True, [30**2, 30**2])])
@pytest.mark.parametrize("virtual", [True, False])
def test_a_label_file_without_features_makes_its_image_background(folders, tmp_path, caplog, sparse, pixels, virtual):
    images, labels = folders
    settings = {"label_field": "kind", "sparse": sparse, "size": 32, "virtual": virtual}
    found = verbs.check(images=images, labels=labels, trial=False, **settings, val=0, test=0)
    assert found.errors == ()
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        chips = verbs.chip(images=images, labels=labels, out=tmp_path / "chips", **settings)
    assert chips.counts.sum(axis=0).tolist() == pixels
    effect = "they give no labelled pixel" if sparse else "they are background"
    assert caplog.text.count(f"the label files of 1 of 3 images hold no features (i2): {effect}") == 1
    assert set(np.unique(chips.scenes()["i2"].read(Window(0, 0, 96, 96)).mask)) == {255 if sparse else 0}


def test_label_files_without_features_are_refused_where_no_other_file_has_any(folders, tmp_path):
    images, labels = folders
    empty(labels / "i0.geojson")
    empty(labels / "i1.geojson")
    with pytest.raises(EmptyError, match=r"i0\.geojson holds no features"):
        verbs.chip(images=images, labels=labels, size=32, out=tmp_path / "chips")
    assert any("holds no features" in text for text in verbs.check(images=images, labels=labels, trial=False).errors)


def test_the_labels_of_an_image_outside_a_shared_labelled_area_are_ignored(files, tmp_path, caplog):
    images, _ = files
    masks = [
        write_raster(tmp_path / f"m{index}.tif", np.ones((96, 96), np.uint8), transform=image_transform(index))
        for index in range(3)
    ]
    area = write_polygons(tmp_path / "area.gpkg", [pixel_box(0, 0, 40, 50)])
    settings = {"labelled_area": str(area), "size": 32, "val": 0, "test": 0}
    with caplog.at_level(logging.WARNING):
        chips = verbs.chip(images=images, labels=masks, out=tmp_path / "chips", **settings)
    assert set(chips.scene_names) == {"i0"}
    assert chips.counts.sum() == 40 * 50
    assert "area.gpkg has no polygon on 2 of 3 images (i1, i2): they give no labelled pixel" in caplog.text
    with pytest.raises(OutsideError, match=r"no polygon of .*area\.gpkg lies on .*i1\.tif"):
        verbs.chip(images=images[1:], labels=masks[1:], out=tmp_path / "none", **settings)


def test_a_polygon_that_is_off_one_image_and_cannot_lie_on_another_is_refused_there(tmp_path):
    # The images are at 63 and 45 degrees N. The polygon reaches from 1 degree S to 50 degrees N, and to 106 degrees E,
    # which UTM does not reach at the equator.
    north, south = (
        Raster.open(
            [write_raster(tmp_path / f"{row}.tif", noise(3, 9, 9), transform=METRE @ METRE.translation(0, row))]
        )
        for row in (-2_000_000, 0)
    )
    path = write_polygons(tmp_path / "a.gpkg", [shapely.box(9e5, -1.1e5, 1.18e7, 6.4e6)], crs="EPSG:3857")
    files = PolygonFiles()
    assert shapely.is_empty(files.reprojected(north, str(path)).geometries).all()
    with pytest.raises(LabelError, match=r"a feature of it near .*0\.tif reaches beyond the domain of EPSG:32632"):
        files.reprojected(south, str(path))
