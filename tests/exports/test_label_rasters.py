"""Label rasters: class maps in the codes of the training labels, as contests take them."""

import numpy as np
import pytest
import rasterio

from landscribe import verbs
from landscribe.errors import ClassError, LandscribeError, OutputError, RecipeError
from landscribe.exports.label_rasters import write_label_rasters
from landscribe.geo.classes import ClassEntry, Classes
from landscribe.maps.class_map import CLASSES_TAG, classes_as_tag
from worlds import write_raster

VALUES = np.random.default_rng(1).integers(0, 2, (40, 30)).astype(np.uint8)


def class_map(path, labels=(0, 255), values=VALUES, nodata=255):
    table = Classes(tuple(ClassEntry(index, f"c{index}", "#777777", label) for index, label in enumerate(labels)))
    write_raster(path, values, nodata=nodata)
    with rasterio.open(path, "r+") as target:
        target.update_tags(**{CLASSES_TAG: classes_as_tag(table)})
        target.write_colormap(1, {1: (200, 0, 0)})
    return path


def test_a_map_of_two_classes_becomes_a_tile_of_0_and_255_of_the_same_name_without_nodata_or_palette(tmp_path):
    (tmp_path / "maps").mkdir()
    for name in ("bellingham1.tif", "bellingham2.tif"):
        class_map(tmp_path / "maps" / name)
    out = verbs.export(tmp_path / "maps", out=tmp_path / "tiles", to="labels")
    assert sorted(path.name for path in out.glob("*.tif")) == ["bellingham1.tif", "bellingham2.tif"]
    with rasterio.open(out / "bellingham2.tif") as tile, rasterio.open(tmp_path / "maps/bellingham2.tif") as source:
        assert (tile.count, tile.dtypes, tile.nodata) == (1, ("uint8",), None)
        assert tile.colorinterp[0].name == "gray"
        assert (tile.crs, tile.transform) == (source.crs, source.transform)
        np.testing.assert_array_equal(tile.read(1), 255 * VALUES)


@pytest.mark.parametrize(("labels", "dtype"), [((0, 255), "uint8"), ((7, 311), "uint16"), ((-1, 200), "int16")])
def test_codes_are_written_in_the_smallest_type_that_holds_them(tmp_path, labels, dtype):
    out = verbs.export(class_map(tmp_path / "map.tif", labels), out=tmp_path / "tiles", to="labels")
    with rasterio.open(out / "map.tif") as tile:
        assert tile.dtypes == (dtype,)
        np.testing.assert_array_equal(tile.read(1), np.array(labels)[VALUES])


def test_pixels_without_a_class_are_refused_until_a_class_is_named_for_them(tmp_path):
    values = VALUES.copy()
    values[:3, :4] = 255
    mapped = class_map(tmp_path / "map.tif", values=values)
    with pytest.raises(ClassError, match=r"12 pixels without a class.*--nodata-as"):
        verbs.export(mapped, out=tmp_path / "tiles", to="labels")
    assert not (tmp_path / "tiles").exists()
    out = verbs.export(mapped, out=tmp_path / "tiles", to="labels", nodata_as="c1")
    with rasterio.open(out / "map.tif") as tile:
        np.testing.assert_array_equal(tile.read(1), np.where(values == 255, 255, 255 * VALUES))


def test_maps_whose_names_differ_by_case_alone_are_refused(tmp_path):
    maps = [class_map(tmp_path / name) for name in ("scene.tif", "Scene.tif")]
    with pytest.raises(RecipeError, match=r"rasters of Scene\.tif, scene\.tif"):
        write_label_rasters(maps, tmp_path / "labels")
    assert not (tmp_path / "labels").exists()


def test_labels_that_are_words_chips_and_wrong_options_are_refused(tmp_path):
    mapped = class_map(tmp_path / "map.tif", ("field", "house"))
    with pytest.raises(ClassError, match=r"c0, c1 are words"):
        verbs.export(mapped, out=tmp_path / "tiles", to="labels")
    with pytest.raises(RecipeError, match=r"'road'.*c0, c1"):
        verbs.export(class_map(tmp_path / "b.tif"), out=tmp_path / "tiles", to="labels", nodata_as="road")
    with pytest.raises(RecipeError, match=r"there is no export 'label'.*'labels'"):
        verbs.export(mapped, out=tmp_path / "tiles", to="label")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecipeError, match=r"empty has no maps"):
        verbs.export(tmp_path / "empty", out=tmp_path / "tiles", to="labels")
    with pytest.raises(LandscribeError):
        verbs.export(mapped, out=tmp_path / "tiles", to="esri")
    assert not (tmp_path / "tiles").exists()


def test_neither_the_maps_nor_a_folder_of_other_files_is_overwritten(tmp_path):
    maps = tmp_path / "maps"
    maps.mkdir()
    mapped = class_map(maps / "a.tif")
    for out, words in ((maps, "holds the maps to export"), (tmp_path, "holds the maps to export")):
        with pytest.raises(OutputError, match=words):
            verbs.export(maps, out=out, to="labels", overwrite=True)
    (tmp_path / "images").mkdir()
    image = write_raster(tmp_path / "images" / "a.tif", VALUES)
    with pytest.raises(OutputError, match="holds other files"):
        verbs.export(maps, out=tmp_path / "images", to="labels", overwrite=True)
    assert mapped.exists()
    assert image.exists()
    out = verbs.export(maps, out=tmp_path / "tiles", to="labels")
    assert verbs.export(maps, out=out, to="labels", overwrite=True) == out
