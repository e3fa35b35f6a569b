"""References: points and polygons as people write them, and what is left out of a comparison."""

import json
import logging
import shutil

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine

from landscribe import verbs
from landscribe.errors import ClassError, GridError, LabelError, RasterError, RecipeError
from landscribe.geo.classes import Classes
from landscribe.maps.class_map import (
    AREAS_TAG,
    CLASSES_TAG,
    TRAINED_TAG,
    ClassMap,
    classes_as_tag,
    trained_splits_in,
)
from worlds import METRE, pixel_box, write_polygons, write_raster

SIDE = 40
TRUTH = np.zeros((SIDE, SIDE), np.uint8)
TRUTH[:20, :20], TRUTH[20:, 20:], TRUTH[:20, 20:] = 1, 2, 3
BOXES = [pixel_box(0, 0, 20, 20), pixel_box(20, 20, 20, 20), pixel_box(0, 20, 20, 20)]


def class_map(folder, labels, values=TRUTH, nodata=None):
    """A map of Landscribe, with classes of these labels."""
    path = write_raster(folder / "map.tif", values, nodata=nodata)
    with rasterio.open(path, "r+") as target:
        target.update_tags(**{CLASSES_TAG: classes_as_tag(Classes.from_labels(labels, background=True))})
    return path


def points(folder, rows_cols, kinds):
    shapes = [shapely.Point(METRE @ (col + 0.5, row + 0.5)) for row, col in rows_cols]
    return write_polygons(folder / "points.gpkg", shapes, kind=kinds)


def test_a_perfect_map_of_numbers_as_words_is_perfect_against_words_numbers_and_its_raster(tmp_path):
    # Sorted as words, 1, 10, 2 became the values 1, 2, 3, and the raster disagreed.
    values = np.array([0, 1, 10, 2], np.uint8)[TRUTH]
    mapped = class_map(tmp_path, ["1", "10", "2"], values)
    codes = {"words": ["1", "10", "2"], "numbers": [1, 10, 2], "floats": [1.0, 10.0, 2.0]}
    for name, kinds in codes.items():
        reference = write_polygons(tmp_path / f"{name}.gpkg", BOXES, kind=kinds)
        assert verbs.assess(mapped, reference=reference, label_field="kind").overall_accuracy == 1
    raster = write_raster(tmp_path / "truth.tif", values)
    assert verbs.assess(mapped, reference=raster).overall_accuracy == 1


def test_a_column_that_a_map_of_one_class_does_not_need_is_to_be_left_out(tmp_path):
    mapped = class_map(tmp_path, ["fields"], (TRUTH > 0).astype(np.uint8))
    reference = write_polygons(tmp_path / "fields.gpkg", BOXES, kind=["field", "field", "plot"])
    message = r"'kind', holds 'field', 'plot', but 'fields' is .* Leave out --label-field"
    with pytest.raises(ClassError, match=message):
        verbs.assess(mapped, reference=reference, label_field="kind")
    assert verbs.assess(mapped, reference=reference).overall_accuracy == 1
    folder = tmp_path / "truth"
    folder.mkdir()
    shutil.copy(reference, folder / "map.gpkg")
    with pytest.raises(ClassError, match=message):
        verbs.assess(mapped, reference=folder, label_field="kind")
    # Points need the column, and a map of several classes the right words.
    crew = points(tmp_path, [(5, 5), (25, 25)], ["field", "plot"])
    for labels, source in ((["fields"], crew), (["fields", "x"], reference)):
        with pytest.raises(ClassError, match="not in the class table"):
            verbs.assess(class_map(tmp_path, labels), reference=source, label_field="kind")


def test_a_map_of_codes_outside_a_byte_is_perfect_against_its_codes_and_itself(tmp_path):
    codes = [-1, 7, 311]
    mapped = class_map(tmp_path, codes)
    # Sorted, the codes have the values 1, 2, 3.
    kinds = [str(code) for code in codes]
    reference = write_polygons(tmp_path / "codes.gpkg", BOXES, kind=kinds)
    assert verbs.assess(mapped, reference=reference, label_field="kind").overall_accuracy == 1
    of_points = points(tmp_path, [(5, 5), (30, 30), (5, 30)], kinds)
    assert verbs.assess(mapped, reference=of_points, label_field="kind").overall_accuracy == 1
    raster = write_raster(tmp_path / "codes.tif", np.array([0, -1, 7, 311], np.int16)[TRUTH])
    result = verbs.assess(mapped, reference=raster)
    assert result.overall_accuracy == 1
    assert result.confusion.classes.names == ("background", "-1", "7", "311")
    assert verbs.assess(mapped, reference=mapped).overall_accuracy == 1


def test_numbers_of_points_are_values_of_a_map_whose_labels_are_words(tmp_path):
    mapped = class_map(tmp_path, ["field", "house", "road"])
    reference = points(tmp_path, [(5, 5), (30, 30), (5, 30), (30, 5)], ["1", "2", "3", "0"])
    assert verbs.assess(mapped, reference=reference, label_field="kind").overall_accuracy == 1


def test_points_outside_the_map_and_on_its_nodata_are_counted_by_class(tmp_path, caplog):
    values = TRUTH.copy()
    values[30, 30] = 255
    mapped = class_map(tmp_path, ["field", "house", "road"], values, nodata=255)
    reference = points(tmp_path, [(5, 5), (30, 30), (99, 5), (5, 99)], ["field", "house", "road", "road"])
    with caplog.at_level(logging.WARNING):
        assert verbs.assess(mapped, reference=reference, label_field="kind").confusion.total == 1
    assert "3 of 4 points of" in caplog.text
    assert "2 lie outside" in caplog.text
    assert "1 on its nodata (house 1, road 2)" in caplog.text


def test_points_of_a_csv_file_and_multipoints_are_a_reference(tmp_path):
    mapped = class_map(tmp_path, ["field", "house", "road"])
    rows_cols, kinds = [(5, 5), (30, 30), (5, 30)], ["field", "house", "field"]
    xy = [METRE @ (col + 0.5, row + 0.5) for row, col in rows_cols]
    path = tmp_path / "crew.csv"
    path.write_text("x,y,kind\n" + "".join(f"{x},{y},{kind}\n" for (x, y), kind in zip(xy, kinds, strict=True)))
    of_csv = verbs.assess(mapped, reference=path, label_field="kind", label_crs="EPSG:32632")
    groups = [shapely.MultiPoint([xy[0], xy[2]]), shapely.MultiPoint([xy[1]])]
    of_groups = verbs.assess(
        mapped, reference=write_polygons(tmp_path / "groups.gpkg", groups, kind=["field", "house"]), label_field="kind"
    )
    assert (of_csv.confusion.total, of_csv.overall_accuracy) == (3, pytest.approx(2 / 3))
    np.testing.assert_array_equal(of_csv.confusion.counts, of_groups.confusion.counts)


def test_reference_polygons_that_cover_no_pixel_are_counted(tmp_path, caplog):
    mapped = class_map(tmp_path, ["field", "house", "road"])
    reference = write_polygons(
        tmp_path / "a.gpkg", [*BOXES, pixel_box(30, 2.1, 3, 0.3)], kind=["field", "house", "road", "road"]
    )
    with caplog.at_level(logging.WARNING):
        verbs.assess(mapped, reference=reference, label_field="kind")
    assert "1 polygon without a pixel centre" in caplog.text
    assert "road 1" in caplog.text


def test_reference_polygons_of_class_0_need_a_choice(tmp_path):
    mapped = write_raster(tmp_path / "foreign.tif", np.where(TRUTH == 3, 0, TRUTH))
    reference = write_polygons(tmp_path / "a.gpkg", BOXES, kind=[1, 2, 0])
    with pytest.raises(ClassError, match=r"1 polygon of class 0 .*--sparse.*--label-zero background"):
        verbs.assess(mapped, reference=reference, label_field="kind")
    assert verbs.assess(mapped, reference=reference, label_field="kind", sparse=True).confusion.total == 1200
    total = verbs.assess(mapped, reference=reference, label_field="kind", label_zero="background").confusion.total
    assert total == 1600


def test_a_layer_of_a_reference_is_chosen_by_name(tmp_path):
    mapped = class_map(tmp_path, ["field", "house", "road"])
    path = tmp_path / "reference.gpkg"
    for layer, kinds in (("old", ["road", "road", "road"]), ("new", ["field", "house", "road"])):
        gpd.GeoDataFrame({"kind": kinds}, geometry=BOXES, crs="EPSG:32632").to_file(path, layer=layer, mode="a")
    assert verbs.assess(mapped, reference=path, label_field="kind", label_layer="new").overall_accuracy == 1


def halves(folder):
    """The perfect map as two files side by side, each half as wide."""
    perfect = class_map(folder, ["field", "house", "road"])
    parts = []
    for name, first in (("west", 0), ("east", 20)):
        own = folder / name
        own.mkdir()
        path = write_raster(
            own / f"{name}.tif", TRUTH[:, first : first + 20], transform=METRE @ METRE.translation(first, 0)
        )
        with rasterio.open(perfect) as source, rasterio.open(path, "r+") as target:
            target.update_tags(**{CLASSES_TAG: source.tags()[CLASSES_TAG]})
        parts.append(path)
    return perfect, parts


def test_several_maps_count_every_point_once_on_the_map_that_it_lies_on(tmp_path, caplog):
    perfect, parts = halves(tmp_path)
    reference = points(tmp_path, [(5, 5), (30, 30), (5, 30), (99, 5)], ["field", "house", "field", "house"])
    with caplog.at_level(logging.WARNING):
        result = verbs.assess([*parts, perfect], reference=reference, label_field="kind")
    assert (result.confusion.total, result.overall_accuracy) == (3, pytest.approx(2 / 3))
    assert "1 of 4 points" in caplog.text
    assert result.maps == ("west.tif", "east.tif", "map.tif")


def test_several_maps_sum_the_pixels_of_polygons_and_label_rasters(tmp_path):
    perfect, parts = halves(tmp_path)
    polygons = write_polygons(tmp_path / "boxes.gpkg", BOXES, kind=["field", "house", "road"])
    for reference, settings in ((polygons, {"label_field": "kind"}), (perfect, {})):
        whole = verbs.assess(perfect, reference=reference, **settings)
        assert (
            verbs.assess(parts, reference=reference, **settings).confusion.counts.tolist()
            == whole.confusion.counts.tolist()
        )
        assert whole.confusion.total == SIDE * SIDE


@pytest.mark.parametrize(("first_col", "is_warned"), [(0, True), (39, True), (40, False), (41, False)])
def test_maps_that_overlap_are_warned_about(tmp_path, caplog, first_col, is_warned):
    (tmp_path / "b").mkdir()
    here = class_map(tmp_path, ["a", "b", "c"])
    there = class_map(tmp_path / "b", ["a", "b", "c"])
    with rasterio.open(there, "r+") as target:
        target.transform = target.transform @ Affine.translation(first_col, 0)
    reference = write_polygons(tmp_path / "truth.gpkg", [pixel_box(0, 0, 20, 99)], kind=["a"])
    verbs.assess([here, there], reference=reference, label_field="kind")
    assert ("overlap (1 pair of maps in all): pixels there count in both" in caplog.text) == is_warned


def test_a_folder_of_references_is_paired_with_the_maps_by_their_names(tmp_path):
    perfect, parts = halves(tmp_path)
    whole = verbs.assess(perfect, reference=perfect)
    folder = tmp_path / "truth"
    folder.mkdir()
    for part in parts:
        (folder / part.name).write_bytes(part.read_bytes())
    result = verbs.assess(parts, reference=folder)
    assert result.confusion.counts.tolist() == whole.confusion.counts.tolist()
    assert {name: each.total for name, each in result.groups.items()} == {"west": SIDE**2 // 2, "east": SIDE**2 // 2}
    (folder / "east.tif").unlink()
    with pytest.raises(LabelError, match=r"has no reference for east \(1 of 2 maps\)"):
        verbs.assess(parts, reference=folder)


def test_a_folder_stands_for_the_maps_in_it_and_the_file_of_measures_is_named(tmp_path, caplog):
    perfect, parts = halves(tmp_path)
    maps = tmp_path / "maps"
    maps.mkdir()
    for part in parts:
        part.replace(maps / part.name)
    out = tmp_path / "measures.json"
    with caplog.at_level(logging.INFO):
        result = verbs.assess(maps, reference=perfect, out=out)
    assert sorted(result.maps) == ["east.tif", "west.tif"]
    assert result.confusion.total == SIDE * SIDE
    assert f"measures: {out}" in caplog.messages
    (tmp_path / "truth").mkdir()
    with pytest.raises(RecipeError, match=r"truth has no maps \(\.tif\)\. Expected class maps, or a folder of maps"):
        verbs.assess(tmp_path / "truth", reference=perfect)


def test_a_label_that_differs_in_case_only_is_asked_for(tmp_path):
    mapped = class_map(tmp_path, ["field", "house", "road"])
    crew = points(tmp_path, [(5, 5), (30, 30)], ["Field", "house"])
    with pytest.raises(ClassError, match=r"Did you mean 'field' for 'Field'\? Add the missing") as refused:
        verbs.assess(mapped, reference=crew, label_field="kind")
    assert "--nodata-as" not in str(refused.value)


def test_a_map_that_the_reference_does_not_reach_is_left_out_and_named(tmp_path, caplog):
    _, parts = halves(tmp_path)
    boxes = write_polygons(tmp_path / "west.gpkg", BOXES[:1], kind=["field"])
    with caplog.at_level(logging.WARNING):
        result = verbs.assess(parts, reference=boxes, label_field="kind", sparse=True)
    assert (result.confusion.total, result.overall_accuracy) == (400, 1)
    assert "left out: 1 of 2 maps: " in caplog.text
    assert "east.tif" in caplog.text


def test_all_references_of_other_sizes_are_named_before_pixels_are_counted(tmp_path, monkeypatch):
    # The first and the last reference of four are wider than their maps.
    maps, masks = tmp_path / "maps", tmp_path / "masks"
    maps.mkdir()
    masks.mkdir()
    for name, width in zip("abcd", (42, 40, 40, 43), strict=True):
        write_raster(maps / f"{name}.tif", TRUTH)
        write_raster(masks / f"{name}.png", np.zeros((SIDE, width), np.uint8), crs=None, transform=None)
    monkeypatch.setattr("landscribe.assessment.references.assess_labels", lambda *_: pytest.fail("counted"))
    with pytest.raises(GridError) as refused:
        verbs.assess(sorted(maps.glob("*.tif")), reference=masks)
    said = str(refused.value)
    assert "a.png has no CRS and 42 x 40 pixels, but" in said
    assert said.endswith("2 pairs differ in size: a, d. Check the pairs, or assess the other maps alone.")
    with pytest.raises(GridError) as refused:
        verbs.chip(images=maps, labels=masks, out=tmp_path / "chips", size=20)
    assert "--without a,d (in a recipe: without)." in str(refused.value)
    chips = verbs.chip(images=maps, labels=masks, out=tmp_path / "chips", size=20, without="a,d")
    assert set(chips.scene_names) == {"b", "c"}


def test_maps_with_different_class_tables_are_refused(tmp_path):
    _, (west, east) = halves(tmp_path)
    with rasterio.open(east, "r+") as target:
        target.update_tags(**{CLASSES_TAG: classes_as_tag(Classes.from_labels(["a", "b", "c"], background=True))})
    with pytest.raises(RecipeError, match=r"east\.tif has the classes background, a, b, c"):
        verbs.assess([west, east], reference=west)


def alike(folder):
    """The halves of a perfect map as two maps of one name, and a folder with one reference for both."""
    perfect, parts = halves(folder)
    maps = [part.replace(part.with_name("map.tif")) for part in parts]
    (folder / "truth").mkdir()
    (folder / "truth" / "map.tif").write_bytes(perfect.read_bytes())
    return perfect, maps, folder / "truth"


def test_maps_of_one_name_count_each_against_a_folder_and_keep_their_folders(tmp_path):
    perfect, maps, folder = alike(tmp_path)
    for reference in (folder, perfect):
        result = verbs.assess(maps, reference=reference)
        assert result.confusion.total == SIDE**2
        assert list(result.groups) == [str(path) for path in maps]
        assert result.as_dict()["maps"] == [str(path) for path in maps]


def test_a_map_is_given_once(tmp_path):
    _, (west, _) = halves(tmp_path)
    with pytest.raises(RecipeError, match=r"west\.tif is given 2 times\. Name each map once"):
        verbs.assess([west, west.parent / ".." / "west" / west.name], reference=west)


def test_a_folder_of_points_and_polygons_is_refused(tmp_path):
    _, (west, east) = halves(tmp_path)
    folder = tmp_path / "truth"
    folder.mkdir()
    points(tmp_path, [(5, 5)], ["field"]).replace(folder / "west.gpkg")
    write_polygons(folder / "east.gpkg", BOXES, kind=["field", "house", "road"])
    with pytest.raises(LabelError, match=r"holds points and polygons or rasters .* Expected one kind"):
        verbs.assess([west, east], reference=folder, label_field="kind")
    (folder / "east.tif").write_bytes(east.read_bytes())
    with pytest.raises(LabelError, match=r"east\.gpkg, \S*east\.tif have one name"):
        verbs.assess([east], reference=folder, label_field="kind")


def test_a_class_that_a_map_without_a_table_misses_entirely_has_a_producers_accuracy_of_0(tmp_path):
    values = np.where(TRUTH == 3, 0, TRUTH)
    mapped = write_raster(tmp_path / "foreign.tif", values)
    raster = write_raster(tmp_path / "truth.tif", TRUTH)
    polygons = write_polygons(tmp_path / "boxes.gpkg", BOXES, kind=["1", "2", "3"])
    of_points = points(tmp_path, [(5, 5), (30, 30), (5, 30), (30, 5)], [1, 2, 3, 0])
    for reference, field in ((raster, None), (polygons, "kind"), (of_points, "kind")):
        result = verbs.assess(mapped, reference=reference, label_field=field)
        assert result.classes.values == (0, 1, 2, 3)
        assert (result.overall_accuracy, result.producers_accuracy[3]) == (0.75, 0)
        assert np.isnan(result.users_accuracy[3])
    # Ignored labels are no class, nor is a class of the reference alone outside of the map.
    assert verbs.assess(mapped, reference=raster, label_ignore=["3"]).classes.values == (0, 1, 2)
    beside = write_raster(tmp_path / "west.tif", TRUTH[:, :20], transform=METRE)
    assert verbs.assess(beside, reference=raster).classes.values == (0, 1)
    # With a class table, a class that it does not list is a mistake.
    mapped = class_map(tmp_path, [1, 2], values)
    with pytest.raises(ClassError, match=r"holds 3 \(400\), not in the class table"):
        verbs.assess(mapped, reference=raster)


def test_maps_without_a_table_share_the_classes_that_occur_in_any(tmp_path):
    _, parts = halves(tmp_path)
    for part, first in zip(parts, (0, 20), strict=True):
        write_raster(part, TRUTH[:, first : first + 20], transform=METRE @ METRE.translation(first, 0))
    raster = write_raster(tmp_path / "truth.tif", TRUTH)
    (tmp_path / "each").mkdir()
    for part in parts:
        (tmp_path / "each" / part.name).write_bytes(part.read_bytes())
    for reference in (raster, tmp_path / "each"):
        result = verbs.assess(parts, reference=reference)
        assert result.classes.values == (0, 1, 2, 3)
        assert (result.confusion.total, result.overall_accuracy) == (SIDE**2, 1)


def test_nodata_as_is_offered_only_for_a_class_that_may_be_nodata(tmp_path):
    mapped = class_map(tmp_path, [1, 2], np.where(TRUTH == 3, 0, TRUTH), nodata=255)
    raster = write_raster(tmp_path / "truth.tif", TRUTH)
    with pytest.raises(ClassError, match=r"holds 3 .*not in the class table") as refused:
        verbs.assess(mapped, reference=raster)
    assert "--nodata-as" not in str(refused.value)
    mapped = class_map(tmp_path, [1, 2], TRUTH, nodata=255)
    with pytest.raises(RasterError, match=r"map\.tif holds 3, which the class table does not list: it has 0, 1, 2"):
        verbs.assess(mapped, reference=raster, label_ignore=["3"])


def test_a_map_without_a_valid_pixel_is_named(tmp_path):
    empty = write_raster(tmp_path / "empty.tif", np.full((SIDE, SIDE), 255, np.uint8), nodata=255)
    raster = write_raster(tmp_path / "truth.tif", TRUTH)
    for reference in (empty, raster):
        with pytest.raises((RasterError, LabelError), match=r"empty\.tif: no valid pixel"):
            verbs.assess(empty, reference=reference)


@pytest.mark.parametrize(
    "tag", ["{oops", '[{"value": 0}]', "[]", "3", '[{"value": 300, "name": "a", "colour": "", "label": 1}]']
)
def test_a_damaged_tag_of_a_class_table_is_named(tag, tmp_path):
    path = write_raster(tmp_path / "map.tif", TRUTH)
    with rasterio.open(path, "r+") as target:
        target.update_tags(**{CLASSES_TAG: tag, AREAS_TAG: tag, TRAINED_TAG: tag})
    with pytest.raises(RasterError, match=r"map\.tif: its tag LANDSCRIBE_CLASSES holds no class table .*-unsetmd"):
        verbs.assess(path, reference=path)
    with pytest.raises(RasterError, match="holds no class table"):
        verbs.vectorize(path, out=tmp_path / "map.gpkg")
    opened = ClassMap.open(path)
    assert (opened.areas, trained_splits_in(opened.tags, "")) == ({}, [])


def test_settings_that_mean_nothing_with_a_reference_are_refused(tmp_path):
    mapped = class_map(tmp_path, ["field", "house", "road"])
    crew = points(tmp_path, [(5, 5)], ["field"])
    with pytest.raises(RecipeError, match=r"--split is 'val', but .*map.tif holds no chips. Leave it out"):
        verbs.assess(mapped, reference=mapped, split="val")
    for name, value in {"seed": 3, "confidence": 0.9, "block_size": 10}.items():
        with pytest.raises(RecipeError, match=rf"--{name.replace('_', '-')} needs polygons, .* holds points"):
            verbs.assess(mapped, reference=crew, label_field="kind", **{name: value})


def test_labels_of_train_chips_are_no_independent_reference(tmp_path):
    """North is trained on, south held out; the map's tag holds the hash of the chips in its run folder."""
    (tmp_path / "labels").mkdir()
    for name in ("north", "south"):
        write_raster(tmp_path / f"{name}.tif", TRUTH)
        write_raster(tmp_path / "labels" / f"{name}.tif", TRUTH)
    copied = write_raster(tmp_path / "copied.tif", TRUTH)
    scene = '[[scenes]]\nimage = "{0}/{1}.tif"\nlabels = "{0}/labels/{1}.tif"\nsplit = "{2}"\n'
    scenes = scene.format(tmp_path, "north", "train") + scene.format(tmp_path, "south", "test")
    (tmp_path / "recipe.toml").write_text(scenes, encoding="utf-8")
    chips = verbs.chip(tmp_path / "recipe.toml", out=tmp_path / "run" / "chips", size=20)
    (tmp_path / "run" / "maps").mkdir()
    mapped = write_raster(tmp_path / "run" / "maps" / "north.tif", TRUTH)

    def caveat(reference):
        return verbs.assess(mapped, reference=reference).as_dict().get("caveat", "")

    north, south = (tmp_path / "labels" / f"{name}.tif" for name in ("north", "south"))
    assert caveat(north) == ""  # not a map of Landscribe
    with rasterio.open(mapped, "r+") as target:
        target.update_tags(**{TRAINED_TAG: json.dumps({chips.sha256: ["train"]})})
    said = "The network was trained on labels of this file: where they were in train chips, this is training accuracy."
    assert caveat(north).startswith(said)
    assert caveat(north.parent).startswith(said)
    assert caveat(south) == caveat(copied) == ""
    with rasterio.open(mapped, "r+") as target:
        target.update_tags(**{TRAINED_TAG: json.dumps({"0" * 64: ["train"]})})
    assert caveat(north) == ""


def with_names(path, names):
    """The raster with a name for each value, as R writes them."""
    texts = "".join(f"<Category>{names.get(value, '')}</Category>" for value in range(max(names) + 1))
    aux = f"<PAMDataset><PAMRasterBand><CategoryNames>{texts}</CategoryNames></PAMRasterBand></PAMDataset>"
    path.with_name(f"{path.name}.aux.xml").write_text(aux)
    return path


KINDS = {1: "field", 2: "house", 3: "road"}


def test_a_map_with_names_of_another_program_is_perfect_against_names_values_and_rasters(tmp_path):
    values = np.where(TRUTH == 0, -9999, TRUTH.astype(np.int16))
    mapped = with_names(write_raster(tmp_path / "map.tif", values, nodata=-9999), KINDS)
    for name, kinds in {"words": list(KINDS.values()), "numbers": [1, 2, 3], "texts": ["1", "2.0", "3"]}.items():
        polygons = write_polygons(tmp_path / f"{name}.gpkg", [BOXES[0], BOXES[1], BOXES[2]], kind=kinds)
        result = verbs.assess(mapped, reference=polygons, label_field="kind", sparse=True)
        assert (result.overall_accuracy, result.pixels) == (1, 1200)
        assert result.classes.names == ("field", "house", "road")
        of_points = points(tmp_path, [(5, 5), (30, 30), (5, 30)], kinds)
        assert verbs.assess(mapped, reference=of_points, label_field="kind").overall_accuracy == 1
    assert verbs.assess(mapped, reference=write_raster(tmp_path / "plain.tif", TRUTH, nodata=0)).overall_accuracy == 1
    # The same names at other values: the names decide.
    other = with_names(
        write_raster(tmp_path / "other.tif", (4 - TRUTH) % 4, nodata=0), {3: "field", 2: "house", 1: "road"}
    )
    assert verbs.assess(mapped, reference=other).overall_accuracy == 1
    # One of them lacks a class whose value is that of another class.
    fewer = with_names(
        write_raster(tmp_path / "fewer.tif", np.array([0, 3, 1, 0])[TRUTH], nodata=0), {3: "field", 1: "house"}
    )
    assert verbs.assess(mapped, reference=fewer).overall_accuracy == 1


@pytest.mark.parametrize(
    "names",
    [
        {0: "other", 1: "x", 2: "y", 3: "z"},
        {1: "Field", 2: "House", 3: "ROAD"},
        {1: "field", 2: "dwelling", 3: "road"},
        {0: "background", 1: "field", 2: "house"},
    ],
)
def test_a_raster_whose_names_contradict_no_value_is_compared_by_value(tmp_path, names):
    mapped = class_map(tmp_path, ["field", "house", "road"])
    reference = with_names(write_raster(tmp_path / "truth.tif", TRUTH), names)
    result = verbs.assess(mapped, reference=reference)
    assert (result.overall_accuracy, result.pixels) == (1, TRUTH.size)


def test_a_name_of_0_alone_adds_no_background(tmp_path):
    """Category names count from 0. With a background, the area between the polygons would be of that class."""
    mapped = with_names(write_raster(tmp_path / "map.tif", np.maximum(TRUTH, 1)), {0: "unclassified", **KINDS})
    reference = write_polygons(tmp_path / "part.gpkg", [pixel_box(0, 20, 20, 20)], kind=["road"])
    result = verbs.assess(mapped, reference=reference, label_field="kind")
    assert (result.overall_accuracy, result.pixels) == (1, 400)
    assert result.classes.names == ("field", "house", "road")


def test_values_without_a_name_keep_their_number(tmp_path):
    mapped = with_names(write_raster(tmp_path / "map.tif", TRUTH), {1: "field", 3: "road", 9: "sea"})
    result = verbs.assess(
        mapped, reference=points(tmp_path, [(5, 5), (30, 30), (5, 30)], ["field", "2", "road"]), label_field="kind"
    )
    assert result.classes.names == ("0", "field", "2", "road", "sea")
    assert result.overall_accuracy == 1


def test_names_of_a_value_that_differ_between_maps_are_refused(tmp_path):
    maps = [
        with_names(write_raster(tmp_path / f"{name}.tif", TRUTH), {1: name, 2: "house"}) for name in ("field", "wood")
    ]  # fmt: skip
    with pytest.raises(RecipeError, match=r"wood\.tif has 'wood' as the name of value 1, but .*'field'.*--class-table"):
        verbs.assess(maps, reference=write_raster(tmp_path / "truth.tif", TRUTH))
    with_names(maps[1], {1: "field", 3: "road"})
    names = verbs.assess(maps, reference=tmp_path / "truth.tif").classes.names
    assert names == ("0", "field", "house", "road")


def test_a_class_on_the_ground_that_the_map_lacks_is_assessed_by_a_class_table(tmp_path):
    mapped, table = write_raster(tmp_path / "map.tif", TRUTH.astype(np.uint16)), tmp_path / "classes.csv"
    table.write_text("value,name\n0,other\n1,field\n2,house\n3,road\n9,wetland\n255,unclear\n")
    kinds = ["field", "wetland", "road"]
    of_points = points(tmp_path, [(5, 5), (30, 30), (5, 30)], kinds)
    polygons = write_polygons(tmp_path / "polygons.gpkg", BOXES, kind=kinds)
    for reference, settings in ((of_points, {}), (polygons, {"sparse": True})):
        with pytest.raises(ClassError, match=r"holds 'field' .*--class-table"):
            verbs.assess(mapped, reference=reference, label_field="kind", **settings)
        result = verbs.assess(mapped, reference=reference, label_field="kind", class_table=table, **settings)
        assert result.classes.names == ("other", "field", "house", "road", "wetland")
        assert result.producers_accuracy[[1, 3, 4]].tolist() == [1, 1, 0]
        assert np.isnan(result.users_accuracy[4])
        assert result.users_accuracy[2] == 0  # the wetland is mapped as houses
    raster = write_raster(tmp_path / "truth.tif", np.array([0, 1, 9, 3], np.uint8)[TRUTH])
    assert verbs.assess(mapped, reference=raster, class_table=table).producers_accuracy[4] == 0


def test_a_class_table_without_a_value_of_the_map_is_refused(tmp_path):
    (tmp_path / "classes.csv").write_text("value,name\n0,other\n1,field\n2,house\n")
    mapped = write_raster(tmp_path / "map.tif", TRUTH)
    with pytest.raises(RasterError, match=r"map\.tif holds 3, which the class table does not list: it has 0, 1, 2"):
        verbs.assess(mapped, reference=mapped, class_table=tmp_path / "classes.csv", label_ignore=["3"])


def test_a_map_of_other_numbers_is_counted_alike_in_parts_and_with_all_measures(tmp_path):
    """Blocks, edges and regions of a map of floats are those of the same map in bytes."""
    mapped = np.roll(TRUTH, 1, axis=0)
    maps = [write_raster(tmp_path / f"{kind}.tif", mapped.astype(kind)) for kind in ("uint8", "float32")]
    truth = write_raster(tmp_path / "truth.tif", TRUTH)
    regions = write_polygons(
        tmp_path / "regions.gpkg", [pixel_box(0, 0, 40, 10), pixel_box(0, 10, 40, 30)], name=["a", "b"]
    )
    settings = {"edges": True, "regions": regions, "region_field": "name", "block_size": 8, "seed": 1}
    one, other = (
        verbs.assess(path, reference=truth, **settings).as_dict() | {"maps": None} for path in maps
    )  # fmt: skip
    assert json.dumps(one) == json.dumps(other)
