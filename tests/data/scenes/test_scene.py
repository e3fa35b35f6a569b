"""Imagery and labels, read together on one grid."""

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from landscribe import verbs
from landscribe.data.chips.files import fill_value
from landscribe.data.scenes.scene import Scene, open_labels, open_scenes
from landscribe.data.scenes.spec import ClassSpec, SceneSpec
from landscribe.errors import ClassError, GridError, LabelError, LandscribeError, OutsideError, RasterError, RecipeError
from landscribe.geo.classes import Classes
from landscribe.geo.grid import Window
from landscribe.geo.rasters.open_file import Files
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.vectors.vector_files import is_vector
from worlds import METRE, UTM, grid, noise, pixel_box, write_polygons, write_raster

H, W = 12, 16
"""Shape of the scenes here."""
ALL = Window(0, 0, H, W)

#     0         1
#     0123456789012345
#  0  .hhh............
#  1  .hhh....rrrrrrrr
#  2  .hhh....rrrrrrrr
TRUTH = np.zeros((H, W), np.uint8)
TRUTH[0:3, 1:4] = 1
TRUTH[1:3, 8:16] = 2
BOXES = [pixel_box(0, 1, 3, 3), pixel_box(1, 8, 2, 8)]
TABLE = [ClassSpec(name="ground", value=0), ClassSpec(name="house", value=1), ClassSpec(name="road", value=2)]


def image(folder, name="scene.tif", **options):
    return str(write_raster(folder / name, options.pop("array", noise(3, H, W)), **options))


def polygons(folder, name="labels.gpkg", geometries=BOXES, **columns):
    return str(write_polygons(folder / name, geometries, **(columns or {"kind": ["house", "road"]})))


def mask_of(spec: SceneSpec, table=()) -> tuple[np.ndarray, Classes]:
    """The whole mask of a scene alone, and its classes."""
    (scene,), classes = open_scenes([spec], table)
    return scene.read(ALL)[2], classes


def test_polygons_become_the_pixels_that_they_cover(tmp_path):
    spec = SceneSpec(image=(image(tmp_path),), labels=polygons(tmp_path), label_field="kind")
    mask, classes = mask_of(spec)
    np.testing.assert_array_equal(mask, TRUTH)
    assert classes.names == ("background", "house", "road")


def test_polygons_and_a_label_raster_of_the_same_truth_give_the_same_mask(tmp_path):
    raster = str(write_raster(tmp_path / "truth.tif", TRUTH))
    by_polygons, _ = mask_of(
        SceneSpec(image=(image(tmp_path),), labels=polygons(tmp_path), label_field="kind"), table=TABLE
    )
    by_raster, _ = mask_of(SceneSpec(image=(image(tmp_path),), labels=raster), table=TABLE)
    np.testing.assert_array_equal(by_raster, by_polygons)


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:32633", "EPSG:3857"])
def test_polygons_in_another_crs_give_the_same_mask(tmp_path, crs):
    # The corners come back within a billionth of a pixel; the polygons' edges are a hundredth of one from any pixel's
    # centre, because they bend by less than that over 10 m.
    way = rasterio.warp.transform_geom
    moved = [shapely.geometry.shape(way(UTM, crs, shapely.geometry.mapping(box))) for box in BOXES]
    path = str(write_polygons(tmp_path / "labels.gpkg", moved, crs=crs, kind=["house", "road"]))
    mask, _ = mask_of(SceneSpec(image=(image(tmp_path),), labels=path, label_field="kind"))
    np.testing.assert_array_equal(mask, TRUTH)


@pytest.fixture(scope="module")
def opened(tmp_path_factory) -> Scene:
    """The scene with its two polygons."""
    folder = tmp_path_factory.mktemp("world")
    (scene,), _ = open_scenes([SceneSpec(image=(image(folder),), labels=polygons(folder), label_field="kind")])
    return scene


@given(st.integers(-6, 14), st.integers(-6, 18), st.integers(1, 12), st.integers(1, 12))
def test_any_window_equals_that_part_of_the_whole_scene(opened, row, col, height, width):
    pixels, valid, mask = opened.read(Window(row, col, height, width))
    # The whole, with 20 pixels of nothing around it.
    around = ((20, 20), (20, 20))
    part = np.s_[row + 20 : row + 20 + height, col + 20 : col + 20 + width]
    np.testing.assert_array_equal(mask, np.pad(TRUTH, around, constant_values=255)[part])
    np.testing.assert_array_equal(valid, np.pad(np.ones((H, W), bool), around)[part])
    np.testing.assert_array_equal(pixels, np.pad(noise(3, H, W), ((0, 0), *around))[:, *part])


def test_labels_are_ignored_where_the_imagery_is_not_valid(tmp_path):
    array = noise(3, H, W)
    array[:, 0:2, :] = 0
    spec = SceneSpec(image=(image(tmp_path, array=array, nodata=0),), labels=polygons(tmp_path), label_field="kind")
    expected = TRUTH.copy()
    expected[0:2] = 255
    np.testing.assert_array_equal(mask_of(spec)[0], expected)


def test_a_nodata_value_of_the_spec_overrides_the_file(tmp_path):
    array = noise(3, H, W)
    array[:, 5, 5] = 99
    array[0, 6, 6] = 99
    spec = SceneSpec(image=(image(tmp_path, array=array),), labels=polygons(tmp_path), nodata=99)
    (scene,), _ = open_scenes([spec])
    _, valid, _ = scene.read(ALL)
    assert {(5, 5), (6, 6)} <= set(map(tuple, np.argwhere(~valid).tolist()))


# Label rasters --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32"])
def test_label_rasters_of_any_whole_type_give_the_same_mask(tmp_path, dtype):
    raster = str(write_raster(tmp_path / "truth.tif", TRUTH.astype(dtype)))
    np.testing.assert_array_equal(mask_of(SceneSpec(image=(image(tmp_path),), labels=raster))[0], TRUTH)


def test_255_and_nodata_of_a_label_raster_are_ignored(tmp_path):
    raster = TRUTH.astype(np.int16)
    raster[5, :], raster[6, :] = 255, -1
    path = str(write_raster(tmp_path / "truth.tif", raster, nodata=-1))
    mask, classes = mask_of(SceneSpec(image=(image(tmp_path),), labels=path, label_ignore=("255",)))
    expected = TRUTH.copy()
    expected[5:7] = 255
    np.testing.assert_array_equal(mask, expected)
    assert classes.values == (0, 1, 2)


def test_large_numbers_in_a_label_raster_are_matched_by_label(tmp_path):
    raster = np.where(TRUTH == 1, 1000, np.where(TRUTH == 2, 2000, 0)).astype(np.uint16)
    table = [
        ClassSpec(name="ground", value=0, label=0),
        ClassSpec(name="road", value=7, label=2000),
        ClassSpec(name="house", value=9, label=1000),
    ]
    path = str(write_raster(tmp_path / "truth.tif", raster))
    mask, _ = mask_of(SceneSpec(image=(image(tmp_path),), labels=path), table)
    np.testing.assert_array_equal(mask, np.array([0, 9, 7], np.uint8)[TRUTH])


def test_label_values_missing_from_the_table_are_refused_with_their_counts(tmp_path):
    raster = TRUTH.copy()
    raster[5, 0:4] = 77
    scene_spec = SceneSpec(image=(image(tmp_path),), labels=str(write_raster(tmp_path / "truth.tif", raster)))
    (scene,), _ = open_scenes([scene_spec], TABLE)
    with pytest.raises(ClassError, match=r"truth\.tif holds 77 \(4\), not in the class table.* a row with value 255\."):
        scene.read(ALL)
    (scene,), _ = open_scenes([scene_spec], [*TABLE, ClassSpec(name="unlabelled", value=255, label=77)])
    assert (scene.read(ALL).mask == 255).sum() == 4


def test_a_label_raster_on_a_coarser_shifted_grid_gives_the_value_below_each_pixel_centre(tmp_path):
    # Labels of 4 m that start 2 m left of and above the scene: a pixel of 1 m in row r lies in their row (r + 2) // 4,
    # and so for columns.
    coarse = np.arange(1, 21, dtype=np.uint8).reshape(4, 5)
    transform = Affine(4, 0, METRE.c - 2, 0, -4, METRE.f + 2)
    path = str(write_raster(tmp_path / "truth.tif", coarse, transform=transform))
    mask, _ = mask_of(SceneSpec(image=(image(tmp_path),), labels=path))
    rows, cols = np.mgrid[0:H, 0:W]
    np.testing.assert_array_equal(mask, coarse[(rows + 2) // 4, (cols + 2) // 4])


def test_pixels_outside_a_label_raster_on_another_grid_are_ignored(tmp_path):
    # 8 x 8 labels of 1 m that start half the scene to the right; their upper left corner declares nodata.
    part = np.full((8, 8), 3, np.uint8)
    part[0, 0] = 9
    path = str(write_raster(tmp_path / "truth.tif", part, nodata=9, transform=METRE @ Affine.translation(8, 0)))
    mask, classes = mask_of(SceneSpec(image=(image(tmp_path),), labels=path))
    expected = np.full((H, W), 255, np.uint8)
    expected[0:8, 8:16] = 3
    expected[0, 8] = 255
    np.testing.assert_array_equal(mask, expected)
    assert classes.values == (3,)


def test_the_bands_of_one_scene_are_refused_as_scenes(tmp_path):
    labels = str(write_raster(tmp_path / "truth.tif", TRUTH))
    bands = [image(tmp_path, f"B0{number}.tif", array=noise(1, H, W, seed=number)) for number in (1, 2, 3)]
    settings = {"labels": labels, "size": 8, "edge": "drop"}
    with pytest.raises(RecipeError, match=r"3 scenes have one band each \(B01, B02, B03\), one grid .*--stack"):
        verbs.chip(images=bands, **settings, out=tmp_path / "chips")
    (error,) = verbs.check(images=bands, **settings, trial=False).errors
    assert error.startswith("3 scenes have one band each")
    stacked = verbs.chip(images=[bands], **settings, out=tmp_path / "stacked")
    assert stacked.metadata.bands == ("B01", "B02", "B03")
    dates = verbs.chip(images=bands, bands=["pan"], **settings, out=tmp_path / "dates")
    assert set(dates.scene_names) == {"B01", "B02", "B03"}


@pytest.mark.parametrize("different", ["labels", "grid"])
def test_scenes_of_one_band_with_their_own_labels_or_grid_are_scenes(tmp_path, different):
    specs = []
    for index, name in enumerate("ab"):
        place = {"transform": METRE @ Affine.translation(100 * index * (different == "grid"), 0)}
        own = polygons(tmp_path, f"{name}.gpkg" if different == "labels" else "labels.gpkg")
        specs.append(SceneSpec(image=(image(tmp_path, f"{name}.tif", array=noise(1, H, W), **place),), labels=own))
    assert [scene.name for scene in open_scenes(specs)[0]] == ["a", "b"]


@pytest.mark.parametrize(
    ("crs", "transform", "extent"),
    [
        (UTM, METRE @ Affine.translation(45_000, 0), "x 545000 to 545008 and y 4999992 to 5000000"),
        ("EPSG:4326", Affine(1e-5, 0, 10, 0, -1e-5, 45), "x 10 to 10.00008 and y 44.99992 to 45"),
    ],
)
def test_a_label_raster_off_its_image_is_refused_with_both_extents(tmp_path, crs, transform, extent):
    path = str(write_raster(tmp_path / "truth.tif", np.full((8, 8), 3, np.uint8), crs=crs, transform=transform))
    scene = image(tmp_path)
    settings = {"images": [scene], "labels": path, "size": 8}
    with pytest.raises(OutsideError) as caught:
        verbs.chip(**settings, out=tmp_path / "chips")
    left, bottom, right, top = grid(H, W).bounds
    assert str(caught.value) == (
        f"{path} has no pixel on {scene}: the labels cover {extent} in {crs}, the image x {left:.10g} "
        f"to {right:.10g} and y {bottom:.10g} to {top:.10g} in {UTM}. Check that the files belong "
        "together, and the CRS of each."
    )
    assert verbs.check(**settings, trial=False).errors == (str(caught.value),)


def test_images_off_a_shared_label_raster_are_unlabelled_and_counted(tmp_path, caplog):
    path = str(write_raster(tmp_path / "truth.tif", TRUTH))
    away = write_raster(tmp_path / "away.tif", noise(3, H, W), transform=METRE @ Affine.translation(1000, 0))
    specs = [SceneSpec(image=(each,), labels=path) for each in (image(tmp_path), str(away))]
    with caplog.at_level("WARNING"):
        scenes, _ = open_scenes(specs)
    assert f"{path} has no pixel on 1 of 2 images (away): they give no labelled pixel" in caplog.messages
    assert (scenes[1].read(ALL).mask == 255).all()


def test_a_label_raster_in_another_crs_is_warped_as_gdal_warps_it(tmp_path):
    geographic = Affine(1.2e-5, 0, 8.9999, 0, -0.9e-5, 45.1537)
    labels = np.random.default_rng(0).integers(0, 5, (60, 60)).astype(np.uint8)
    path = str(write_raster(tmp_path / "truth.tif", labels, crs="EPSG:4326", transform=geographic))
    target = grid(H, W)
    with (
        rasterio.open(path) as source,
        WarpedVRT(
            source, crs=UTM, transform=target.transform, height=H, width=W, resampling=Resampling.nearest, nodata=255
        ) as warped,
    ):
        expected = warped.read(1)
    mask, _ = mask_of(SceneSpec(image=(image(tmp_path),), labels=path))
    assert len(np.unique(expected)) >= 5
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_label_raster_without_crs_fits_a_scene_of_the_same_size(tmp_path, suffix):
    path = str(write_raster(tmp_path / f"truth{suffix}", TRUTH, crs=None, transform=None))
    np.testing.assert_array_equal(mask_of(SceneSpec(image=(image(tmp_path),), labels=path))[0], TRUTH)


def test_an_image_and_a_label_raster_without_crs_are_paired(tmp_path):
    picture = image(tmp_path, "scene.png", crs=None, transform=None)
    path = str(write_raster(tmp_path / "truth.png", TRUTH, crs=None, transform=None))
    np.testing.assert_array_equal(mask_of(SceneSpec(image=(picture,), labels=path))[0], TRUTH)


def test_a_label_raster_without_crs_of_another_size_is_refused_with_both_sizes(tmp_path):
    path = str(write_raster(tmp_path / "truth.tif", TRUTH[:, :-1], crs=None, transform=None))
    with pytest.raises(GridError, match=r"has no CRS and 15 x 12 pixels, but .* has 16 x 12"):
        open_scenes([SceneSpec(image=(image(tmp_path),), labels=path)])


def test_a_label_raster_with_crs_requires_a_crs_of_the_scene(tmp_path):
    path = str(write_raster(tmp_path / "truth.tif", TRUTH))
    picture = image(tmp_path, crs=None, transform=None)
    with pytest.raises(GridError, match=r"scene\.tif has no CRS, but .*truth\.tif is in EPSG:32632"):
        open_scenes([SceneSpec(image=(picture,), labels=path)])


def test_polygons_require_a_crs_of_the_scene(tmp_path):
    picture = image(tmp_path, crs=None, transform=None)
    with pytest.raises(LabelError, match=r"scene\.tif has no CRS"):
        open_scenes([SceneSpec(image=(picture,), labels=polygons(tmp_path))])


@pytest.mark.parametrize(
    ("array", "message"),
    [(noise(2, H, W), "has 2 bands"), (TRUTH / np.float32(4), "holds fractions such as 0.25")],
    ids=["two bands", "fractions"],
)
def test_rasters_without_class_values_are_refused_as_labels(tmp_path, array, message):
    path = str(write_raster(tmp_path / "truth.tif", array))
    with pytest.raises(LabelError, match=message):
        open_scenes([SceneSpec(image=(image(tmp_path),), labels=path)])


def test_a_label_raster_of_nodata_only_is_refused(tmp_path):
    path = str(write_raster(tmp_path / "truth.tif", np.full((H, W), 255, np.uint8)))
    with pytest.raises(LabelError, match="are all nodata or 255"):
        open_scenes([SceneSpec(image=(image(tmp_path),), labels=path)])


@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_a_mask_of_255_whose_nodata_is_the_background_has_two_classes(tmp_path, dtype):
    path = str(write_raster(tmp_path / "truth.tif", np.where(TRUTH > 0, 255, 0).astype(dtype), nodata=0))
    spec = SceneSpec(image=(image(tmp_path),), labels=path)
    with pytest.raises(LabelError, match=r"are all nodata or 255.*--label-nodata-as background"):
        open_scenes([spec])
    mask, classes = mask_of(spec.model_copy(update={"label_nodata_as": "background"}))
    assert [(entry.value, entry.name) for entry in classes] == [(0, "background"), (1, "foreground")]
    np.testing.assert_array_equal(mask, TRUTH > 0)


# Class tables ----------------------------------------------------------------------------------------------------


def test_polygons_without_a_field_are_the_one_class_of_the_table(tmp_path):
    table = [ClassSpec(name="nothing", value=0), ClassSpec(name="anything", value=5)]
    mask, _ = mask_of(SceneSpec(image=(image(tmp_path),), labels=polygons(tmp_path)), table)
    np.testing.assert_array_equal(mask, np.where(TRUTH > 0, 5, 0))


def test_polygons_without_field_and_table_are_a_class_named_after_the_file(tmp_path):
    _, classes = mask_of(SceneSpec(image=(image(tmp_path),), labels=polygons(tmp_path, "buildings.gpkg")))
    assert classes.names == ("background", "buildings")


def test_pixels_outside_polygons_are_ignored_if_the_table_has_no_value_0(tmp_path):
    table = [ClassSpec(name="house", value=1), ClassSpec(name="road", value=2)]
    spec = SceneSpec(image=(image(tmp_path),), labels=polygons(tmp_path), label_field="kind")
    np.testing.assert_array_equal(mask_of(spec, table)[0], np.where(TRUTH > 0, TRUTH, 255))


def test_labels_of_the_table_match_the_values_of_the_column(tmp_path):
    table = [
        ClassSpec(name="ground", value=0),
        ClassSpec(name="house", value=1, label="B"),
        ClassSpec(name="road", value=2, label="R"),
    ]
    path = polygons(tmp_path, code=["B", "R"])
    mask, classes = mask_of(SceneSpec(image=(image(tmp_path),), labels=path, label_field="code"), table)
    np.testing.assert_array_equal(mask, TRUTH)
    assert classes.names == ("ground", "house", "road")


def test_the_burn_order_is_that_of_the_table(tmp_path):
    # The road crosses the house at columns 2 and 3.
    path = polygons(tmp_path, geometries=[pixel_box(0, 0, 3, 4), pixel_box(1, 2, 1, 8)], kind=["house", "road"])
    spec = SceneSpec(image=(image(tmp_path),), labels=path, label_field="kind")
    on_top = {
        table[-1].name: mask_of(spec, [ClassSpec(name="ground", value=0), *table])[0][1, 2]
        for table in (TABLE[1:], TABLE[:0:-1])
    }
    assert on_top == {"road": 2, "house": 1}


def test_labels_missing_from_the_table_are_refused_before_pixels_are_read(tmp_path):
    path = polygons(tmp_path, kind=["house", "rode"])
    with pytest.raises(ClassError, match=r"labels\.gpkg.* holds 'rode' \(1\)"):
        open_scenes([SceneSpec(image=(image(tmp_path),), labels=path, label_field="kind")], TABLE)


def test_several_scenes_share_one_table_whatever_their_order(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    specs = [
        SceneSpec(image=(image(one),), labels=polygons(one, kind=["water", "house"]), label_field="kind"),
        SceneSpec(image=(image(two),), labels=polygons(two, kind=["road", "house"]), label_field="kind"),
    ]
    scenes, classes = open_scenes(specs)
    assert [(entry.value, entry.name) for entry in classes] == [
        (0, "background"),
        (1, "house"),
        (2, "road"),
        (3, "water"),
    ]
    assert open_scenes(specs[::-1])[1] == classes
    assert [np.unique(scene.read(ALL)[2]).tolist() for scene in scenes] == [[0, 1, 3], [0, 1, 2]]


def test_scenes_of_the_same_name_get_an_index(tmp_path):
    specs = []
    for folder in ("one", "two", "three"):
        (tmp_path / folder).mkdir()
        name = "a_0.tif" if folder == "three" else "a.tif"
        specs.append(SceneSpec(image=(image(tmp_path / folder, name),), labels=polygons(tmp_path / folder)))
    scenes, _ = open_scenes(specs)
    assert len({scene.name for scene in scenes}) == 3


def test_text_labels_in_one_scene_and_numbers_in_another_are_refused(tmp_path):
    spec = SceneSpec(image=(image(tmp_path),), labels=polygons(tmp_path), label_field="kind")
    raster = SceneSpec(image=spec.image, labels=str(write_raster(tmp_path / "truth.tif", TRUTH)))
    with pytest.raises(ClassError, match="text in some scenes and numbers in others"):
        open_scenes([spec, raster])


def test_polygons_with_numbers_agree_with_a_label_raster(tmp_path):
    by_polygons = SceneSpec(image=(image(tmp_path),), labels=polygons(tmp_path, code=[1, 2]), label_field="code")
    by_raster = SceneSpec(image=by_polygons.image, labels=str(write_raster(tmp_path / "truth.tif", TRUTH)))
    scenes, classes = open_scenes([by_polygons, by_raster])
    assert classes.values == (0, 1, 2)
    np.testing.assert_array_equal(scenes[0].read(ALL)[2], scenes[1].read(ALL)[2])


# Scenes ------------------------------------------------------------------------------------------------------------


def test_a_scene_of_stacked_files_reads_their_bands_in_order(tmp_path):
    array = noise(3, H, W, "uint16")
    files = tuple(image(tmp_path, f"B{n}.tif", array=array[n]) for n in range(3))
    (scene,), _ = open_scenes([SceneSpec(image=files, labels=polygons(tmp_path))])
    np.testing.assert_array_equal(scene.read(ALL)[0], array)
    assert (scene.name, scene.image.bands) == (tmp_path.name, ("B0", "B1", "B2"))


@pytest.mark.parametrize(
    ("array", "message"),
    [(noise(4, H, W), "4 bands of uint8"), (noise(3, H, W, "uint16"), "3 bands of uint16")],
    ids=["bands", "type"],
)
def test_scenes_that_differ_in_bands_or_type_are_refused_with_both(tmp_path, array, message):
    labels = polygons(tmp_path)
    specs = [
        SceneSpec(image=(image(tmp_path, "one.tif"),), labels=labels),
        SceneSpec(image=(image(tmp_path, "two.tif", array=array),), labels=labels),
    ]
    with pytest.raises(GridError, match=rf"two\.tif has {message}, but .*one\.tif has 3 of uint8"):
        open_scenes(specs)


@pytest.mark.parametrize("order", [("one.tif", "mask.tif"), ("mask.tif", "one.tif")])
def test_a_mask_among_scenes_of_several_bands_is_to_be_left_out(tmp_path, order):
    labels = polygons(tmp_path)
    image(tmp_path, "one.tif")
    image(tmp_path, "mask.tif", array=noise(1, H, W))
    specs = [SceneSpec(image=(str(tmp_path / name),), labels=labels) for name in order]
    with pytest.raises(
        GridError, match=r"To use some of the bands.* If \S*mask\.tif is a mask, leave it out \(--without\)\.$"
    ):
        open_scenes(specs)


def test_polygons_outside_the_scene_are_refused_with_both_extents(tmp_path):
    path = polygons(tmp_path, geometries=[pixel_box(100, 200, 3, 4)], kind=["house"])
    words = (
        "they cover x 500200 to 500204 and y 4999897 to 4999900, the raster covers x 500000 to 500016 and y 4999988 to "
        "5000000, both in EPSG:32632. Check that the files belong together, and the CRS of each.$"
    )
    with pytest.raises(LabelError, match=words):
        open_scenes([SceneSpec(image=(image(tmp_path),), labels=path)])


def test_scenes_without_labels_are_refused(tmp_path):
    with pytest.raises(LabelError, match="has no labels"):
        open_scenes([SceneSpec(image=(image(tmp_path),))])


def test_a_recipe_without_scenes_is_refused():
    with pytest.raises(RecipeError, match="there are no scenes"):
        open_scenes([])


def test_a_single_image_file_is_a_scene_of_one_file():
    assert SceneSpec.of({"image": "scene.tif"}).image == ("scene.tif",)


def test_self_crossing_polygons_are_made_valid_only_on_request(tmp_path):
    bowtie = shapely.Polygon([METRE @ corner for corner in ((0, 0), (8, 8), (8, 0), (0, 8))])
    path = polygons(tmp_path, geometries=[bowtie], kind=["house"])
    spec = SceneSpec(image=(image(tmp_path),), labels=path)
    with pytest.raises(LabelError, match="1 invalid"):
        open_scenes([spec])
    mask, _ = mask_of(spec.model_copy(update={"fix_geometries": True}))
    # Two triangles of 8 x 4 / 2 = 16 pixels each, of which those on the diagonals count by their centres.
    assert abs(int((mask == 1).sum()) - 32) <= 8


def test_labels_are_opened_with_an_existing_table(tmp_path):
    raster = Raster.open([image(tmp_path)])
    spec = SceneSpec(image=raster.paths, labels=polygons(tmp_path), label_field="kind")
    table = Classes.from_labels(["house", "road"], background=True)
    np.testing.assert_array_equal(open_labels(spec, raster, table).read(ALL), TRUTH)


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.jp2", "a.vrt"])
def test_vector_files_are_recognised_by_suffix(name):
    assert not is_vector(name)
    assert is_vector(name.split(".")[0] + ".GeoJSON")


@pytest.mark.parametrize(
    ("dtype", "nodata", "fill"),
    [
        ("uint8", None, None),
        ("uint8", 0, 0),
        ("uint8", 255, 255),
        ("uint8", -9999, None),
        ("uint8", float("nan"), None),
        ("int16", -9999, -9999),
        ("float32", -9999, -9999),
    ],
)
def test_copies_are_filled_with_nodata_if_the_dtype_can_hold_it(dtype, nodata, fill):
    raster = Raster(Files(("a.tif",)), grid(H, W), ("b",), dtype, nodata)
    assert fill_value(raster) == fill


@pytest.mark.parametrize("nodata", [None, float("nan"), 1e300])
def test_float_copies_without_a_usable_nodata_are_filled_with_nan(nodata):
    fill = fill_value(Raster(Files(("a.tif",)), grid(H, W), ("b",), "float32", nodata))
    assert fill is not None
    assert np.isnan(fill)


def test_every_error_of_a_scene_is_a_landscribe_error(tmp_path):
    (tmp_path / "broken.tif").write_text("no raster", encoding="utf-8")
    with pytest.raises(LandscribeError):
        open_scenes([SceneSpec(image=(str(tmp_path / "broken.tif"),), labels=polygons(tmp_path))])
    with pytest.raises(LandscribeError):
        open_scenes([SceneSpec(image=(image(tmp_path),), labels=str(tmp_path / "broken.tif"))])


# Scenes that store the same ground in other ways ------------------------------------------------------------------


def test_scenes_with_bands_in_another_order_are_read_in_the_order_of_the_first(tmp_path):
    array, names = noise(3, H, W), ("red", "green", "nir")
    first = image(tmp_path, "a.tif", array=array, descriptions=names)
    other = image(tmp_path, "b.tif", array=array[[2, 0, 1]], descriptions=("nir", "red", "green"))
    scenes, _ = open_scenes([SceneSpec(image=(path,), labels=polygons(tmp_path)) for path in (first, other)])
    assert [scene.image.bands for scene in scenes] == [names, names]
    np.testing.assert_array_equal(scenes[1].read(ALL).pixels, array)


def tagged(path, scale, offset):
    """A scene whose file has scale and offset tags."""
    with rasterio.open(path, "r+") as dataset:
        dataset.scales, dataset.offsets = (scale,) * dataset.count, (offset,) * dataset.count
    return path


def test_scenes_with_other_scale_and_offset_tags_are_read_with_the_numbers_of_the_first(tmp_path):
    array = noise(3, H, W, "uint16") + np.uint16(500)
    old = tagged(image(tmp_path, "old.tif", array=array), 1e-4, 0.0)
    new = tagged(image(tmp_path, "new.tif", array=array + np.uint16(1000)), 1e-4, -0.1)
    scenes, _ = open_scenes([SceneSpec(image=(path,), labels=polygons(tmp_path)) for path in (old, new)])
    np.testing.assert_array_equal(scenes[1].read(ALL).pixels, array)
    plain = image(tmp_path, "plain.tif", array=array)
    with pytest.raises(RasterError, match=r"plain.tif has no scale and offset tags, but .*old.tif has scale 0.0001"):
        open_scenes([SceneSpec(image=(path,), labels=polygons(tmp_path)) for path in (old, plain)])
