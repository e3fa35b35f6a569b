"""Folders and patterns of images and labels, expanded into scenes."""

import json

import numpy as np
import pytest
import rasterio
from pydantic import ValidationError

import landscribe as ls
from landscribe.data.scenes.pairing import expand_scenes
from landscribe.data.scenes.scene import ClassSpec, SceneSpec, open_scenes
from landscribe.errors import ClassError, GridError, LabelError, RasterError
from landscribe.geo.access import allow_ungeoreferenced
from landscribe.geo.grid import Window
from worlds import counting, noise, pixel_box, write_polygons, write_raster

SIDE = 16
ALL = Window(0, 0, SIDE, SIDE)
RED, BLUE = (255, 0, 0), (0, 0, 254)
TABLE = [
    ClassSpec(name="roof", value=1, label="#FF0000"),
    ClassSpec(name="water", value=2, label="#0000fe"),
    ClassSpec(name="black", value=255, label="#000000"),
]


def values(seed: int = 0) -> np.ndarray:
    """(rows, cols) of 0 (unlabelled), 1 and 2."""
    return np.random.default_rng(seed).integers(0, 3, (SIDE, SIDE)).astype(np.uint8)


def coloured(mask: np.ndarray) -> np.ndarray:
    """(3, rows, cols): black, red and blue."""
    return np.array([(0, 0, 0), RED, BLUE], np.uint8)[mask].transpose(2, 0, 1)


def folder_of(folder, names, suffix=".tif", ending="", array=None):
    folder.mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(names):
        write_raster(folder / f"{name}{ending}{suffix}", noise(3, SIDE, SIDE, seed=index) if array is None else array)
    return folder


def pictures(folder, names, mask, ending=""):
    """Images without a CRS, and coloured masks with their names."""
    for index, name in enumerate(names):
        write_raster(folder / "images" / f"{name}.png", noise(3, SIDE, SIDE, seed=index), crs=None, transform=None)
        write_raster(folder / "masks" / f"{name}{ending}.png", coloured(mask), crs=None, transform=None)


@pytest.fixture
def root(tmp_path):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    return tmp_path


# ---- pairs


@pytest.mark.parametrize("ending", ["", "_m", "_mask", "_label"])
def test_images_and_masks_with_the_same_names_are_paired_in_natural_order(root, ending):
    names = ["tile10", "tile2", "tile1"]
    folder_of(root / "images", names)
    folder_of(root / "masks", names, ".png", ending, values())
    scenes, _ = expand_scenes([SceneSpec(image=(str(root / "images"),), labels=str(root / "masks"))])
    assert [scene.image[0].rsplit("/", 1)[1] for scene in scenes] == ["tile1.tif", "tile2.tif", "tile10.tif"]
    assert [scene.labels.rsplit("/", 1)[1] for scene in scenes] == [f"tile{n}{ending}.png" for n in (1, 2, 10)]


def test_a_scene_and_its_preview_that_share_a_mask_are_refused_and_the_pattern_works(root):
    folder_of(root / "images", ["a", "b"])
    folder_of(root / "images", ["a", "b"], ".png")
    folder_of(root / "masks", ["a", "b"], ".png", "", values())
    with pytest.raises(LabelError, match=r"a.png, a.tif in \S*images share the mask a.png .* such as (\S*)/\*.tif"):
        expand_scenes([SceneSpec(image=(str(root / "images"),), labels=str(root / "masks"))])
    pattern = str(root / "images" / "*.tif")
    assert len(expand_scenes([SceneSpec(image=(pattern,), labels=str(root / "masks"))])[0]) == 2


def test_a_parent_folder_of_images_and_masks_is_enough(root):
    folder_of(root / "images", ["a", "b"])
    folder_of(root / "masks", ["a", "b"], array=values())
    scenes, _ = expand_scenes([SceneSpec(image=(str(root),))])
    assert [scene.labels for scene in scenes] == [str(root / "masks" / name) for name in ("a.tif", "b.tif")]


def test_masks_among_the_images_are_recognised_by_their_suffix(tmp_path):
    folder_of(tmp_path, ["a", "b"], ".png")
    folder_of(tmp_path, ["a", "b"], ".png", "_m", values())
    scenes, _ = expand_scenes([SceneSpec(image=(str(tmp_path),))])
    found = [(scene.image[0].rsplit("/", 1)[1], scene.labels.rsplit("/", 1)[1]) for scene in scenes]
    assert found == [("a.png", "a_m.png"), ("b.png", "b_m.png")]


@pytest.mark.parametrize("ending", ["_MASK", "_M", "_Label", "_GT"])
def test_the_suffix_of_a_mask_may_have_capital_letters(tmp_path, ending):
    folder_of(tmp_path, ["T0", "t1"])
    folder_of(tmp_path, ["T0", "t1"], ".tif", ending, values())
    scenes, _ = expand_scenes([SceneSpec(image=(str(tmp_path),))])
    found = [(scene.image[0].rsplit("/", 1)[1], scene.labels.rsplit("/", 1)[1]) for scene in scenes]
    assert found == [("T0.tif", f"T0{ending}.tif"), ("t1.tif", f"t1{ending}.tif")]


def test_scenes_of_a_pattern_keep_its_settings(root):
    folder_of(root / "images", ["t1_a", "t1_b", "t2_a"])
    folder_of(root / "masks", ["t1_a", "t1_b", "t2_a"], array=values())
    given = [
        SceneSpec(image=(f"{root}/images/t{tile}_*.tif",), labels=f"{root}/masks", split=split, nodata=0)
        for tile, split in ((1, "train"), (2, "val"))
    ]
    scenes, _ = expand_scenes(given)
    assert [(scene.split, scene.nodata) for scene in scenes] == [("train", 0), ("train", 0), ("val", 0)]


def test_one_image_finds_its_mask_in_a_folder(root):
    folder_of(root / "images", ["a", "b"])
    folder_of(root / "masks", ["a", "b"], array=values())
    (scene,), _ = expand_scenes([SceneSpec(image=(f"{root}/images/b.tif",), labels=f"{root}/masks")])
    assert scene.labels == f"{root}/masks/b.tif"


def test_a_mask_may_be_polygons_of_the_images_name(root):
    folder_of(root / "images", ["a", "b"])
    for name in ("a", "b"):
        write_polygons(root / "masks" / f"{name}.geojson", [pixel_box(2, 2, 4, 4)], crs="EPSG:32632")
    scenes, classes = open_scenes(
        expand_scenes([SceneSpec(image=(str(root / "images"),), labels=str(root / "masks"))])[0]
    )
    assert classes.names == ("background", "labelled")
    assert [int((scene.labels.read(ALL) == 1).sum()) for scene in scenes] == [16, 16]


def test_one_file_per_band_is_stacked_in_natural_order(tmp_path):
    for index in (10, 2, 1):
        write_raster(tmp_path / f"B{index}.tif", counting(1, SIDE, SIDE) + index)
    (scene,), _ = expand_scenes([SceneSpec(image=(str(tmp_path),), labels="x.gpkg", stack=True)])
    assert [path.rsplit("/", 1)[1] for path in scene.image] == ["B1.tif", "B2.tif", "B10.tif"]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path):
    path = str(write_raster(tmp_path / "scene[1].tif", noise(3, SIDE, SIDE)))
    given = SceneSpec(image=(path,), labels="labels.gpkg")
    assert expand_scenes([given])[0] == (given,)


def test_named_images_are_left_out_and_misspelt_names_are_refused(root):
    folder_of(root / "images", ["a", "b", "c"])
    folder_of(root / "masks", ["a", "c"], array=values())
    scenes, _ = expand_scenes([SceneSpec(image=(str(root),), without=("b",))])
    assert [scene.image[0].rsplit("/", 1)[1] for scene in scenes] == ["a.tif", "c.tif"]
    with pytest.raises(RasterError, match=r"without = d, but .*images has no such image"):
        expand_scenes([SceneSpec(image=(str(root),), without=("b", "d"))])


def test_a_mask_without_an_image_is_warned_of_unless_images_were_selected(root, caplog):
    folder_of(root / "images", ["a", "b"])
    folder_of(root / "masks", ["a", "b", "c"], array=values())
    pattern, masks = str(root / "images" / "a*.tif"), str(root / "masks")
    expand_scenes([SceneSpec(image=(pattern,), labels=masks), SceneSpec(image=(str(root),), without=("b",))])
    assert caplog.text == ""
    expand_scenes([SceneSpec(image=(str(root),))])
    assert "1 mask without an image, not used (c.tif)" in caplog.text


def test_bands_have_the_names_of_the_scene_spec(tmp_path):
    image = str(write_raster(tmp_path / "a.tif", noise(3, SIDE, SIDE), descriptions=["x", "y", "z"]))
    labels = str(write_raster(tmp_path / "labels.tif", values()))
    (scene,), _ = open_scenes([SceneSpec(image=(image,), labels=labels, bands=("nir", "red", "green"))])
    assert scene.image.bands == ("nir", "red", "green")
    for names, words in (
        (("nir", "red"), r"has 3 bands, but 2 names of bands are given \(nir, red\)\. .*--band-numbers"),
        (("red", "nir", "red"), r"names red, nir, red of the bands of \S*a\.tif have red more than once\. Expected a"),
    ):
        with pytest.raises(RasterError, match=words):
            open_scenes([SceneSpec(image=(image,), labels=labels, bands=names)])


def test_the_scene_has_the_bands_of_its_numbers_with_their_nodata(tmp_path):
    pixels = noise(4, SIDE, SIDE)
    nir = write_raster(tmp_path / "nir.tif", pixels[3:], descriptions=["nir"])
    rgb = write_raster(tmp_path / "rgb.tif", pixels[:3], descriptions=["red", "green", "blue"])
    labels = str(write_raster(tmp_path / "labels.tif", values()))

    def opened(**settings):
        spec = SceneSpec(image=(str(rgb), str(nir)), labels=labels, **settings)
        return open_scenes([spec])[0][0].image

    image = opened(band_numbers=(4, 1, 2), nodata=(1, 2, 3, 4), nodata_rule="any")
    assert (image.bands, image.nodata) == (("nir", "red", "green"), (4, 1, 2))
    expected = pixels[[3, 0, 1]]
    read, valid = image.read(ALL)
    np.testing.assert_array_equal(valid, (expected != np.array([4, 1, 2])[:, None, None]).all(0))
    np.testing.assert_array_equal(read, expected * valid)
    assert opened(band_numbers="4,1,2", bands=("a", "b", "c")).bands == ("a", "b", "c")
    with pytest.raises(RasterError, match=r"has bands 1 to 4 \(red, green, blue, nir\), but 5 was asked for"):
        opened(band_numbers=(5,))


@pytest.mark.parametrize(
    ("names", "order"),
    [(("vh", "vv", "Angle"), (1, 0, 2)), (("VV", "VH", "incidence"), (0, 1, 2)), (("VH", "VV", "incidence"), None)],
)
def test_bands_of_further_scenes_are_those_of_the_first_by_name_or_refused(tmp_path, caplog, names, order):
    pixels, specs = noise(3, SIDE, SIDE), []
    for name, bands in (("first", ("VV", "VH", "angle")), ("other", names)):
        image = write_raster(tmp_path / f"{name}.tif", pixels, descriptions=bands)
        labels = write_raster(tmp_path / f"{name}_labels.tif", values())
        specs.append(SceneSpec(image=(str(image),), labels=str(labels)))
    if order is None:
        with pytest.raises(
            RasterError, match=r"by its name, band 1 \(VH\) has another position\. Expected the same order"
        ):
            open_scenes(specs)
        return
    (_, other), _ = open_scenes(specs)
    np.testing.assert_array_equal(other.image.read(ALL)[0], pixels[list(order)])


def test_chip_warns_of_bands_that_are_taken_to_be_the_same_by_their_order(tmp_path, caplog):
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    for name, bands in (("a", ("VV", "VH")), ("b", ("VV", "cross")), ("c", ("VV", "other"))):
        write_raster(tmp_path / "images" / f"{name}.tif", noise(2, SIDE, SIDE), descriptions=bands)
        write_raster(tmp_path / "labels" / f"{name}.tif", values())
    ls.chip(images=[tmp_path / "images"], labels=tmp_path / "labels", size=8, out=tmp_path / "chips")
    assert "They are taken to be the same, in this order." in caplog.text
    assert "(The same for 1 more scene.)" in caplog.text


def test_band_numbers_of_files_without_names_are_kept_for_each_scene(tmp_path):
    """An RGB and a BGR image: "band3" of the second says nothing of the first."""
    pixels, specs = noise(3, SIDE, SIDE), []
    labels = str(write_raster(tmp_path / "labels.tif", values()))
    for name, array, numbers in (("rgb", pixels, (1, 2, 3)), ("bgr", pixels[::-1], (3, 2, 1))):
        image = str(write_raster(tmp_path / f"{name}.tif", array, photometric="MINISBLACK"))
        specs.append(SceneSpec(image=(image,), labels=labels, band_numbers=numbers))
    scenes, _ = open_scenes(specs)
    assert scenes[1].image.bands == ("band3", "band2", "band1")
    for scene in scenes:
        np.testing.assert_array_equal(scene.image.read(ALL)[0], pixels)


@pytest.mark.parametrize("numbers", [(), (1, 1), "1,x", (0, 1)])
def test_band_numbers_are_different_and_count_from_1(numbers):
    with pytest.raises(
        ValidationError, match=r"different band numbers|band numbers such as|greater than or equal to 1"
    ):
        SceneSpec(image=("a.tif",), band_numbers=numbers)


# ---- polygons and areas by name


@pytest.fixture
def topos(tmp_path):
    """Scanned maps with a shapefile of mines and one of the quadrangle each, of the same stems."""
    for name in ("ky_topos", "ky_mines", "ky_quads"):
        (tmp_path / name).mkdir()
    for index, stem in enumerate(("KY_Ada_1954", "KY_Bea_1961", "KY_Coy.v2_1967")):
        write_raster(tmp_path / "ky_topos" / f"{stem}.tif", noise(3, SIDE, SIDE, seed=index))
        write_polygons(tmp_path / "ky_mines" / f"{stem}.shp", [pixel_box(index, 0, 4, 4)])
        write_polygons(tmp_path / "ky_quads" / f"{stem}.shp", [pixel_box(0, 0, 8, 8 + index)])
        (tmp_path / "ky_mines" / f"{stem}.shp.xml").write_text("<metadata/>")
    return tmp_path


def topo_spec(folder, **settings) -> SceneSpec:
    paths = {"image": folder / "ky_topos", "labels": folder / "ky_mines", "image_area": folder / "ky_quads"}
    return SceneSpec.of({name: str(path) for name, path in (paths | settings).items()})


def test_shapefiles_are_paired_by_stem_and_their_side_files_are_no_labels(topos, caplog):
    assert {file.suffix for file in (topos / "ky_mines").iterdir()} >= {".shp", ".shx", ".dbf", ".prj", ".xml"}
    specs, _ = expand_scenes([topo_spec(topos)])
    stems = [[path.rsplit("/", 2)[1:] for path in (s.image[0], s.labels, s.image_area)] for s in specs]
    assert stems[2] == [["ky_topos", "KY_Coy.v2_1967.tif"], ["ky_mines", "KY_Coy.v2_1967.shp"],
                        ["ky_quads", "KY_Coy.v2_1967.shp"]]  # fmt: skip
    assert caplog.text == ""
    scenes, classes = open_scenes(specs)
    assert len(classes) == 2
    for index, scene in enumerate(scenes):
        _, valid, mask = scene.read(ALL)
        assert valid.sum() == 8 * (8 + index)
        assert (mask == 1).sum() == 16
        assert (mask[index : index + 4, :4] == 1).all()
        assert (mask == 255).sum() == (~valid).sum()


@pytest.mark.parametrize("setting", ["image_area", "labelled_area"])
def test_areas_may_be_a_pattern_a_folder_or_one_file_for_all(topos, setting):
    quads = topos / "ky_quads"
    one = str(quads / "KY_Ada_1954.shp")
    spec = topo_spec(topos).model_copy(update={"image_area": None})
    for given in (quads, quads / "*.shp", quads / "KY_*"):
        specs, _ = expand_scenes([spec.model_copy(update={setting: str(given)})])
        assert getattr(specs[0], setting).endswith("ky_quads/KY_Ada_1954.shp")
        assert len({getattr(scene, setting) for scene in specs}) == 3
    specs, _ = expand_scenes([spec.model_copy(update={setting: one})])
    assert {getattr(scene, setting) for scene in specs} == {one}


def test_areas_of_a_folder_belong_to_single_images_and_label_files_too(topos):
    single = topo_spec(
        topos, image=topos / "ky_topos" / "KY_Bea_1961.tif", labels=topos / "ky_mines" / "KY_Bea_1961.shp"
    )
    (scene,), _ = expand_scenes([single])
    assert scene.image_area.endswith("ky_quads/KY_Bea_1961.shp")
    assert scene.labels == single.labels


def test_the_area_of_stacked_files_has_the_name_of_the_first(topos):
    folder = topos / "ky_topos"
    files = tuple(str(folder / f"{stem}.tif") for stem in ("KY_Bea_1961", "KY_Ada_1954"))
    (scene,), _ = expand_scenes([topo_spec(topos).model_copy(update={"image": files})])
    assert scene.image_area.endswith("ky_quads/KY_Bea_1961.shp")
    (scene,), _ = expand_scenes([topo_spec(topos).model_copy(update={"stack": True})])
    assert scene.image_area.endswith("ky_quads/KY_Ada_1954.shp")
    assert len(scene.image) == 3


@pytest.mark.parametrize("setting", ["image_area", "labelled_area"])
def test_an_image_without_its_area_is_named_with_the_folder(topos, setting):
    (topos / "ky_quads" / "KY_Bea_1961.shp").unlink()
    spec = topo_spec(topos).model_copy(update={"image_area": None, setting: str(topos / "ky_quads")})
    with pytest.raises(
        LabelError, match=rf"ky_quads has no {setting} for KY_Bea_1961 \(1 of 3 images\)\. .*KY_Bea_1961\.shp"
    ):
        expand_scenes([spec])
    left_out = spec.model_copy(update={"without": ("KY_Bea_1961",)})
    assert len(expand_scenes([left_out])[0]) == 2


def test_an_image_without_its_polygons_is_named_with_the_folder(topos):
    (topos / "ky_mines" / "KY_Bea_1961.shp").unlink()
    with pytest.raises(
        LabelError, match=r"ky_mines has no masks for KY_Bea_1961\.tif \(1 of 3 images\).*KY_Bea_1961\.shp"
    ):
        expand_scenes([topo_spec(topos)])


def test_an_area_without_an_image_is_warned_of_and_two_for_one_image_are_refused(topos, caplog):
    write_polygons(topos / "ky_quads" / "KY_Dex_1950.shp", [pixel_box(0, 0, 8, 8)])
    expand_scenes([topo_spec(topos)])
    assert "ky_quads: 1 area without an image, not used (KY_Dex_1950.shp)" in caplog.text
    write_polygons(topos / "ky_quads" / "KY_Ada_1954.gpkg", [pixel_box(0, 0, 8, 8)])
    with pytest.raises(LabelError, match=r"has 2 files for the image_area of KY_Ada_1954: .*\. Expected one"):
        expand_scenes([topo_spec(topos)])


# ---- colours


def test_colours_become_the_classes_of_the_table(root):
    mask = values()
    pictures(root, ["a"], mask)
    (scene,), _ = open_scenes(expand_scenes([SceneSpec(image=(str(root),))])[0], TABLE)
    np.testing.assert_array_equal(scene.labels.read(ALL), np.where(mask == 0, 255, mask))


def test_a_palette_is_matched_by_its_colours_if_the_table_has_colours(root):
    mask = values()
    image = write_raster(root / "images" / "a.png", noise(3, SIDE, SIDE), crs=None, transform=None)
    with (
        allow_ungeoreferenced(),
        rasterio.open(
            root / "masks" / "a.png", "w", driver="PNG", count=1, height=SIDE, width=SIDE, dtype="uint8"
        ) as target,
    ):
        target.write(7 - mask[None])
        target.write_colormap(1, {7: (0, 0, 0, 255), 6: (*RED, 255), 5: (*BLUE, 255)})
    (scene,), _ = open_scenes([SceneSpec(image=(str(image),), labels=str(root / "masks" / "a.png"))], TABLE)
    np.testing.assert_array_equal(scene.labels.read(ALL), np.where(mask == 0, 255, mask))


def test_without_a_table_each_colour_is_a_class_of_that_colour(root):
    pictures(root, ["a"], values())
    _, classes = open_scenes(expand_scenes([SceneSpec(image=(str(root),))])[0])
    assert [(entry.name, entry.colour) for entry in classes] == [(c, c) for c in ("#000000", "#0000fe", "#ff0000")]


def test_coloured_masks_on_another_grid_are_resampled_to_nearest(tmp_path):
    mask = values()
    image = write_raster(tmp_path / "image.tif", noise(3, SIDE, SIDE))
    fine = np.kron(mask, np.ones((2, 2), np.uint8))
    with rasterio.open(image) as source:
        finer = source.transform @ source.transform.scale(0.5)
    labels = write_raster(tmp_path / "labels.tif", coloured(fine), transform=finer, photometric="rgb")
    (scene,), _ = open_scenes([SceneSpec(image=(str(image),), labels=str(labels))], TABLE)
    np.testing.assert_array_equal(scene.labels.read(ALL), np.where(mask == 0, 255, mask))


# ---- bad input


def test_an_image_without_its_mask_is_named(root):
    folder_of(root / "images", ["a", "b", "c"])
    folder_of(root / "masks", ["a"], array=values())
    with pytest.raises(LabelError, match=r"has no masks for b\.tif, c\.tif \(2 of 3 images\).*b\.tif or b_mask\.tif"):
        expand_scenes([SceneSpec(image=(str(root),))])


def test_a_folder_of_an_image_and_a_mask_with_other_names_asks_for_their_files(root):
    folder = folder_of(root / "both", ["city", "truth"])
    words = (
        r"has no masks for city\.tif, truth\.tif \(2 of 2 images\)\. Images and labels are of one folder, .* name the "
        r"files of images and labels; otherwise add masks, such as city_mask\.tif\."
    )
    for labels in (None, str(folder)):
        with pytest.raises(LabelError, match=words):
            expand_scenes([SceneSpec(image=(str(folder),), labels=labels)])


def test_an_image_with_two_masks_is_refused(root):
    folder_of(root / "images", ["a"])
    folder_of(root / "masks", ["a"], ".tif", array=values())
    folder_of(root / "masks", ["a"], ".png", array=values())
    with pytest.raises(LabelError, match=r"a\.tif has 2 masks: a\.png, a\.tif|a\.tif has 2 masks: a\.tif, a\.png"):
        expand_scenes([SceneSpec(image=(str(root),))])


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(RasterError, match=r"holds no image\. Expected files ending in .*\.tif"):
        expand_scenes([SceneSpec(image=(str(tmp_path),))])


def test_a_colour_missing_from_the_table_is_named_with_its_pixel_count(root):
    mask = values()
    pictures(root, ["a"], mask)
    (scene,), _ = open_scenes(expand_scenes([SceneSpec(image=(str(root),))])[0], TABLE[:2])
    with pytest.raises(ClassError, match=rf"a\.png holds '#000000' \({(mask == 0).sum()}\).*Expected '#ff0000'"):
        scene.labels.read(ALL)


def test_a_mask_of_another_size_is_refused_with_both_sizes(root):
    write_raster(root / "images" / "a.png", noise(3, SIDE, SIDE), crs=None, transform=None)
    write_raster(root / "masks" / "a.png", values()[:8], crs=None, transform=None)
    with pytest.raises(GridError, match=r"16 x 8 pixels, but .* has 16 x 16"):
        open_scenes(expand_scenes([SceneSpec(image=(str(root),))])[0])


def test_coloured_masks_require_colours_in_the_table(root):
    pictures(root, ["a"], values())
    table = [ClassSpec(name="roof", value=1), ClassSpec(name="water", value=2)]
    (scene,), _ = open_scenes(expand_scenes([SceneSpec(image=(str(root),))])[0], table)
    with pytest.raises(LabelError, match="has 3 bands of colours, but the class table has no colours"):
        scene.labels.read(ALL)


def test_masks_without_a_palette_require_numbers_in_the_table(tmp_path):
    image = write_raster(tmp_path / "a.tif", noise(3, SIDE, SIDE))
    labels = write_raster(tmp_path / "labels.tif", values())
    (scene,), _ = open_scenes([SceneSpec(image=(str(image),), labels=str(labels))], TABLE)
    with pytest.raises(LabelError, match="one band without a palette"):
        scene.labels.read(ALL)


# ---- ArcGIS Classified Tiles


@pytest.fixture
def tiles(tmp_path):
    """Classified Tiles as ArcGIS exports them: value 0 is unlabelled."""
    folder_of(tmp_path / "tiles" / "images", ["000000000", "000000001"])
    folder_of(tmp_path / "tiles" / "labels", ["000000000", "000000001"], array=values())
    definition = {
        "Classes": [{"Value": 1, "Name": "roof", "Color": [255, 0, 0]}, {"ClassValue": 2, "ClassName": "sea"}]
    }
    (tmp_path / "tiles" / "esri_model_definition.emd").write_text(json.dumps(definition))
    return tmp_path / "tiles"


def test_classified_tiles_have_a_class_table(tiles):
    scenes, table = expand_scenes([SceneSpec(image=(str(tiles),))])
    opened, classes = open_scenes(scenes, table)
    assert [(entry.value, entry.name) for entry in classes] == [(1, "roof"), (2, "sea")]
    assert classes.entries[0].colour == "#ff0000"
    np.testing.assert_array_equal(opened[0].labels.read(ALL), np.where(values() == 0, 255, values()))


def test_a_broken_definition_is_refused(tiles):
    (tiles / "esri_model_definition.emd").write_text("{}")
    with pytest.raises(LabelError, match="no readable class table"):
        expand_scenes([SceneSpec(image=(str(tiles),))])
