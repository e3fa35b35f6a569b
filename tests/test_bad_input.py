"""Bad input from the command line: exit code 2, one line that says what and where, and no half-written file."""

import contextvars
import dataclasses
import errno
import hashlib
import json
import logging
import math
import os
import pickle
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import shapely
import torch
from affine import Affine
from safetensors.torch import load

import forked
import landscribe as ls
import worlds
from landscribe import nn, pipeline
from landscribe.commands import app as cli
from landscribe.errors import OutputError
from landscribe.model import Model
from landscribe.outputs import os_errors
from networks import Identity, OneLayer

BANDS = ("red", "green", "blue")
SIDE = 96

# What the command line says on stderr besides its one line: progress and remarks.
REMARK = re.compile(r"warning: |training: |weights: |margin: |backend: |[\w ]+: \d+ of \d+ ")

# A CRS of a building site: it has no place on the Earth.
SITE = 'ENGCRS["site grid",EDATUM["site"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],LENGTHUNIT["metre",1]]'


@dataclasses.dataclass(frozen=True)
class Said:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line that explains the refusal."""
        lines = [line for line in self.err.splitlines() if line.strip() and not REMARK.match(line)]
        assert len(lines) == 1, self.err
        assert lines[0].startswith("landscribe: "), self.err
        return lines[0]


@pytest.fixture
def landscribe(capfd, monkeypatch, tmp_path) -> Iterator[Callable[..., Said]]:
    """The command line, run in this process from inside `tmp_path`."""
    loggers = [logging.getLogger(name) for name in ("landscribe", "rasterio")]
    before = [(logger, list(logger.handlers), logger.level, logger.propagate) for logger in loggers]
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["landscribe", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            # A context of its own, so that the bars that it shows end with it.
            contextvars.copy_context().run(cli.main)
        code = ended.value.code
        return Said(code if isinstance(code, int) else 1, *capfd.readouterr())

    yield run
    for logger, handlers, level, propagate in before:
        logger.handlers[:], logger.level, logger.propagate = handlers, level, propagate


def everything(folder: Path) -> dict[str, str]:
    """All files and folders inside `folder`, with a hash of what the files hold."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in folder.rglob("*")
    }


@pytest.fixture
def refused(landscribe, tmp_path) -> Callable[..., None]:
    """Run a command that must be refused with `words` in its line, and leave every file and folder as it was."""

    def run(*arguments: object, words: tuple[str, ...]) -> None:
        before = everything(tmp_path)
        said = landscribe(*arguments)
        assert said.code == 2, said
        for word in words:
            assert word in said.line
        assert everything(tmp_path) == before

    return run


def image(path: Path, dtype: str = "uint8", bands: int = 3, **options) -> Path:
    names = BANDS if bands == 3 else [f"b{number}" for number in range(bands)]
    return worlds.write_raster(path, worlds.noise(bands, SIDE, SIDE, dtype), **({"descriptions": names} | options))


def squares() -> list[shapely.Polygon]:
    return [worlds.pixel_box(row, 20, 15, 30) for row in (5, 30, 55, 75)]


def polygons(path: Path, geometries: list | None = None, labels: list | None = None, **options) -> Path:
    geometries = squares() if geometries is None else geometries
    labels = labels or ["house", "road"] * (len(geometries) // 2)
    return worlds.write_polygons(path, geometries, **({"class": labels} | options))


def model(folder: Path, network: torch.nn.Module | None = None, **known) -> Path:
    """A small model folder with weights that nobody trained."""
    torch.manual_seed(0)
    narrow = {"encoder": "test_efficientnet", "weights": None, "widths": (8, 8, 8, 8, 8)}
    given = {"bands": BANDS, "classes": ("ground", "house"), "scale": 1 / 255, "pixel_size": 1.0} | known
    network = network or nn.build("unet", bands=len(given["bands"]), classes=len(given["classes"]), **narrow)
    return Model.wrap(network, **given).save(folder)


@pytest.fixture
def scene(tmp_path) -> Path:
    return image(tmp_path / "scene.tif")


@pytest.fixture
def labels(tmp_path) -> Path:
    return polygons(tmp_path / "labels.geojson")


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory) -> Path:
    return model(tmp_path_factory.mktemp("trained") / "model")


@pytest.fixture
def trained(tmp_path, model_folder) -> Path:
    return shutil.copytree(model_folder, tmp_path / "model")


# ---- images


def without_its_end(path: Path) -> Path:
    # Band names are written last, and with them the file's directory.
    path.write_bytes(image(path).read_bytes()[:-1000])
    return path


def half_of_a_tiff(path: Path) -> Path:
    whole = image(path, descriptions=None).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return path


def half_of_a_tiled_tiff(path: Path) -> Path:
    whole = image(path, descriptions=None, tiled=True, blockxsize=16, blockysize=16, compress="deflate").read_bytes()
    path.write_bytes(whole[: len(whole) * 3 // 4])
    return path


def text(path: Path) -> Path:
    path.write_text("row,col\n1,2\n")
    return path


def nothing(path: Path) -> Path:
    path.touch()
    return path


def rotated(path: Path) -> Path:
    return image(path, transform=worlds.METRE @ Affine.rotation(20))


def south_up(path: Path) -> Path:
    return image(path, transform=worlds.METRE @ Affine.scale(1, -1))


def without_crs(path: Path) -> Path:
    return image(path, crs=None)


def all_nodata(path: Path) -> Path:
    return worlds.write_raster(path, np.zeros((3, SIDE, SIDE), np.uint8), nodata=0, descriptions=BANDS)


BAD_IMAGES = {
    "half a TIFF": (half_of_a_tiff, ("bad.tif cannot be read", "rows", "cols")),
    "half a tiled TIFF": (half_of_a_tiled_tiff, ("bad.tif cannot be read", "rows", "cols")),
    "a TIFF without its end": (without_its_end, ("bad.tif cannot be read", "directory")),
    "a text": (text, ("bad.tif cannot be read", "not recognized")),
    "an empty file": (nothing, ("bad.tif cannot be read",)),
    "a missing file": (lambda path: path, ("bad.tif cannot be read", "No such file")),
    "a rotated one": (rotated, ("bad.tif", "rotated", "20.00 degrees", "gdalwarp")),
    "one with rows that run north": (south_up, ("bad.tif", "rows that run south")),
    "one without a CRS": (without_crs, ("bad.tif has no CRS",)),
    "one of nodata alone": (all_nodata, ("bad.tif", "nodata")),
}


@pytest.mark.parametrize("kind", BAD_IMAGES)
@pytest.mark.parametrize("verb", ["chip", "run", "predict"])
def test_an_image_that_cannot_be_used_is_refused(verb, kind, tmp_path, labels, trained, refused):
    make, words = BAD_IMAGES[kind]
    bad = make(tmp_path / "bad.tif")
    scene = ("--image", bad, "--labels", labels, "--label-field", "class", "--size", 32)
    arguments = (trained, bad) if verb == "predict" else scene
    refused(verb, *arguments, "--out", "new/folder/out.tif", words=words)


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_check_names_an_image_that_cannot_be_used(kind, tmp_path, labels, landscribe):
    make, words = BAD_IMAGES[kind]
    said = landscribe("check", "--image", make(tmp_path / "bad.tif"), "--labels", labels, "--no-trial")
    assert said.code == 2
    errors = [line for line in said.out.splitlines() if line.startswith("error: ")]
    assert any(all(word in line for word in words) for line in errors), said.out


def test_a_truncated_raster_keeps_finished_units_and_names_the_failed_ones(tmp_path, trained, landscribe):
    bad = half_of_a_tiled_tiff(tmp_path / "bad.tif")
    said = landscribe("predict", trained, bad, "--tile", 32, "--margin", 0, "--unit", 32, "--out", "new/map.tif")
    assert said.code == 1
    assert "map.tif is not finished: 3 of 9 units failed (rows 64 to 96, cols 0 to 32: " in said.line
    assert "bad.tif cannot be read at rows 64 to 96" in said.line
    assert not (tmp_path / "new" / "map.tif").exists()
    assert len(list((tmp_path / "new" / "map.tif.parts").glob("*.class.tif"))) == 6


def test_no_raster_is_mapped_if_one_of_them_does_not_fit(tmp_path, scene, trained, refused):
    other = image(tmp_path / "other.tif", "uint16")
    refused("predict", trained, scene, other, "--out", "maps", words=("other.tif", "uint16", "uint8"))


# ---- pixels that are not finite


def holed(path: Path, value: float) -> Path:
    """One band of float32 with one odd pixel."""
    pixels = worlds.noise(1, SIDE, SIDE, "float32")
    pixels[0, 40, 12] = value
    return worlds.write_raster(path, pixels, descriptions=["height"])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("verb", ["chip", "run", "predict"])
def test_undeclared_pixels_that_are_not_finite_are_refused(verb, value, tmp_path, labels, refused):
    bad = holed(tmp_path / "dem.tif", value)
    heights = model(tmp_path / "heights", bands=["height"], dtype="float32")
    scene = ("--image", bad, "--labels", labels, "--size", 32)
    arguments = (heights, bad, "--tile", 32, "--margin", 0, "--unit", 32) if verb == "predict" else scene
    words = ("dem.tif holds 1 NaN or infinite", "row 40, col 12", "--nodata nan")
    refused(verb, *arguments, "--out", "new/out.tif", words=words)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_chips_with_nodata_nan_mark_pixels_that_are_not_finite(value, tmp_path, labels, landscribe):
    bad = holed(tmp_path / "dem.tif", value)
    made = landscribe("chip", "--image", bad, "--labels", labels, "--size", 32, "--nodata", "nan", "--out", "chips")
    assert made.code == 0, made
    with rasterio.open(tmp_path / "chips" / "masks" / "dem_r32_c00.tif") as mask:
        assert np.argwhere(mask.read(1) == 255).tolist() == [[8, 12]]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_map_with_nodata_nan_has_nodata_where_pixels_are_not_finite(value, tmp_path, landscribe):
    bad = holed(tmp_path / "dem.tif", value)
    heights = model(tmp_path / "heights", bands=["height"], dtype="float32")
    assert landscribe("predict", heights, bad, "--nodata", "nan", "--out", "map.tif").code == 0
    with rasterio.open(tmp_path / "map.tif") as mapped:
        assert np.argwhere(mapped.read(1) == 255).tolist() == [[40, 12]]


# ---- labels


def bow_tie() -> shapely.Polygon:
    corners = [worlds.METRE @ place for place in ((20, 20), (50, 50), (50, 20), (20, 50))]
    return shapely.Polygon(corners)


def mixed_column(path: Path) -> Path:
    """A GeoJSON whose class column holds a word and a number."""
    table = json.loads(polygons(path).read_text())
    table["features"][1]["properties"]["class"] = 3
    path.write_text(json.dumps(table))
    return path


def no_features(path: Path) -> Path:
    path.write_text('{"type": "FeatureCollection", "features": []}')
    return path


BAD_LABELS = {
    "a CRS without a place": ("bad.gpkg", lambda p: polygons(p, crs=SITE), ("site grid", "EPSG:32632", "scene.tif")),
    "no CRS": ("bad.gpkg", lambda p: polygons(p, crs=None), ("no CRS",)),
    "no features": ("bad.geojson", no_features, ("holds no features",)),
    "an empty file": ("bad.geojson", nothing, ("cannot be read",)),
    "half a file": ("bad.geojson", lambda p: p.write_bytes(polygons(p).read_bytes()[:300]), ("cannot be read",)),
    "no file": ("bad.geojson", lambda p: p, ("No such file",)),
    "a null geometry": (
        "bad.gpkg", lambda p: polygons(p, [squares()[0], None]), ("1 null (feature 1)", "--fix-geometries"),
    ),
    "an empty geometry": (
        "bad.gpkg",
        lambda p: polygons(p, [squares()[0], shapely.Polygon()]),
        ("1 empty (feature 1)", "--fix-geometries"),
    ),
    "a geometry that crosses itself": (
        "bad.gpkg", lambda p: polygons(p, [squares()[0], bow_tie()]), ("1 invalid (feature 1)", "--fix-geometries"),
    ),
    "points": ("bad.gpkg", lambda p: polygons(p, [s.centroid for s in squares()]), ("4 Point", "Polygon")),
    "a mixed column": ("bad.geojson", mixed_column, ("column 'class' is mixed", "3 words", "1 int")),
    "fractions": ("bad.gpkg", lambda p: polygons(p, squares()[:2], [1.5, 2.0]), ("column 'class' is mixed", "float")),
    "an empty cell": (
        "bad.gpkg", lambda p: polygons(p, squares()[:2], ["house", None]), ("column 'class' is empty in 1 of 2",),
    ),
    "no such column": (
        "bad.gpkg", lambda p: worlds.write_polygons(p, squares(), kind=list("abab")), ("no column 'class'", "kind"),
    ),
    "another place": (
        "bad.gpkg", lambda p: polygons(p, [worlds.pixel_box(5000, 0, 9, 9)] * 2),
        ("no polygon", "y 4994991 to 4995000"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_LABELS)
@pytest.mark.parametrize("verb", ["chip", "run"])
def test_labels_that_cannot_be_used_are_refused(verb, kind, tmp_path, scene, refused):
    name, make, words = BAD_LABELS[kind]
    make(tmp_path / name)
    arguments = ("--image", scene, "--labels", name, "--label-field", "class", "--size", 32, "--out", "new/out")
    refused(verb, *arguments, words=(name, *words))


@pytest.mark.parametrize("bad", [None, shapely.Polygon(), bow_tie()], ids=["null", "empty", "crossing"])
def test_invalid_geometries_are_fixed_or_dropped_on_request(bad, tmp_path, scene, landscribe):
    polygons(tmp_path / "bad.gpkg", [squares()[0], bad])
    made = landscribe(
        "chip", "--image", scene, "--labels", "bad.gpkg", "--fix-geometries", "--size", 32, "--out", "chips"
    )
    assert made.code == 0, made


BAD_LABEL_RASTERS = {
    "two bands": (worlds.noise(2, SIDE, SIDE), ("2 bands", "one band")),
    "a picture": (worlds.noise(3, SIDE, SIDE), ("lie along edges only", "--label-threshold")),
    "fractions": (np.full((SIDE, SIDE), 0.5, np.float32), ("fractions such as 0.5", "--label-threshold")),
    "background alone": (np.zeros((SIDE, SIDE), np.uint8), ("one class only", "value 0")),
    "ignore alone": (np.full((SIDE, SIDE), 255, np.uint8), ("are all nodata",)),
}


@pytest.mark.parametrize("kind", BAD_LABEL_RASTERS)
def test_a_run_on_a_label_raster_that_cannot_be_used_is_refused(kind, tmp_path, scene, refused):
    array, words = BAD_LABEL_RASTERS[kind]
    worlds.write_raster(tmp_path / "labels.tif", array)
    refused("run", "--image", scene, "--labels", "labels.tif", "--out", "new/run", words=words)


def test_positive_chips_of_labels_that_are_all_background_are_refused(tmp_path, scene, refused):
    worlds.write_raster(tmp_path / "labels.tif", np.zeros((SIDE, SIDE), np.uint8))
    chip = ("chip", "--image", scene, "--labels", "labels.tif", "--size", 32, "--mode", "positive")
    refused(*chip, "--out", "new/chips", words=("scene.tif", "positive", "background"))


def test_chips_of_one_class_are_not_trained_on(tmp_path, scene, landscribe, refused):
    worlds.write_raster(tmp_path / "labels.tif", np.zeros((SIDE, SIDE), np.uint8))
    assert landscribe("chip", "--image", scene, "--labels", "labels.tif", "--size", 32, "--out", "chips").code == 0
    refused("train", "chips", "--steps", 1, "--out", "new/model", words=("chips", "one class only", "value 0"))


def test_chips_of_a_scene_that_is_smaller_than_one_are_refused(scene, labels, refused):
    chip = ("chip", "--image", scene, "--labels", labels, "--size", 128, "--edge", "drop")
    refused(*chip, "--out", "new/chips", words=("scene.tif", "128", "edge = drop"))


def test_chips_of_a_format_that_cannot_hold_the_pixels_are_refused(tmp_path, labels, refused):
    bad = holed(tmp_path / "dem.tif", 1.0)
    chip = ("chip", "--image", bad, "--labels", labels, "--size", 32, "--format", "png")
    refused(*chip, "--out", "new/chips", words=("png", "1 band of float32", "Use tif"))


def test_images_and_labels_that_do_not_pair_are_refused(scene, labels, refused):
    images, some = ("--image", scene) * 2, ("--labels", labels) * 3
    refused("chip", *images, *some, "--out", "new/chips", words=("2 images", "3 label files"))


def test_an_image_without_labels_is_refused(scene, refused):
    refused("run", "--image", scene, "--out", "new/run", words=("scene.tif has no labels",))


# ---- folders of images and masks


def folders(tmp_path: Path, masks: dict[str, np.ndarray]) -> None:
    """Images a and b, plain pictures, and these masks."""
    plain = {"crs": None, "transform": None}
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for name in ("a", "b"):
        worlds.write_raster(tmp_path / "images" / f"{name}.png", worlds.noise(3, SIDE, SIDE), **plain)
    for name, mask in masks.items():
        worlds.write_raster(tmp_path / "masks" / f"{name}.png", mask, **plain)


HALVES = np.tile(np.repeat([1, 2], SIDE // 2), (SIDE, 1)).astype(np.uint8)
RED_AND_BLUE = np.array([(0, 0, 0), (255, 0, 0), (0, 0, 255)], np.uint8)[HALVES].transpose(2, 0, 1)
REDS = (
    '[[classes]]\nname = "roof"\nvalue = 1\nlabel = "#ff0000"\n[[classes]]\nname = "x"\nvalue = 2\nlabel = "#00ff00"\n'
)

UNKNOWN = "".join(
    f'[[classes]]\nname = "{name}"\nvalue = {value}\nlabel = {label}\n'
    for name, value, label in (("roof", 1, 7), ("road", 2, 8), ("x", 255, 1), ("y", 255, 2))
)

BAD_FOLDERS = {
    "an image without its mask": ({"a": HALVES}, "", ("1 of 2 images", "masks for b.png", "b_mask.png")),
    "a mask of another size": (
        {"a": HALVES, "b": HALVES[:90]}, "", ("b.png", "96 x 90 pixels", "has 96 x 96", "--without b"),
    ),
    "an unknown colour": ({"a": RED_AND_BLUE, "b": RED_AND_BLUE}, REDS, ("a.png holds '#0000ff' (4608)", "'#00ff00'")),
    "all of it unknown": (
        {"a": HALVES, "b": HALVES},
        UNKNOWN,
        ("no", "label"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_FOLDERS)
@pytest.mark.parametrize("verb", ["check", "run"])
def test_folders_that_cannot_be_used_are_refused(verb, kind, tmp_path, landscribe, refused):
    masks, table, words = BAD_FOLDERS[kind]
    folders(tmp_path, masks)
    (tmp_path / "bad.toml").write_text('[[scenes]]\nimage = "images"\nlabels = "masks"\n' + table)
    if verb == "run":
        refused("run", "bad.toml", "--out", "new/run", words=words)
        return
    said = landscribe("check", "bad.toml", "--no-trial")
    assert said.code == 2
    assert all(word in said.out + said.err for word in words), said


def test_a_class_column_for_masks_is_refused(tmp_path, refused):
    folders(tmp_path, {"a": HALVES, "b": HALVES})
    chip = ("chip", "--image", "images", "--labels", "masks", "--label-field", "x", "--out", "new/chips")
    refused(*chip, words=("label_field = x is a setting of label polygons", "a.png and 1 more", "Leave it out"))


def test_a_folder_without_images_is_refused(tmp_path, refused):
    (tmp_path / "images").mkdir()
    refused("chip", "--image", "images", "--out", "new/chips", words=("images holds no image", ".tif"))


def test_chips_are_exported_to_a_new_folder_only(tmp_path, scene, labels, landscribe, refused):
    chip = ("chip", "--image", scene, "--labels", labels, "--size", 32, "--out", "chips")
    assert landscribe(*chip).code == 0
    refused("export", "chips", "--out", "chips", "--overwrite", words=("chips", "esri_model_definition.emd"))
    refused("export", "chips", "--to", "qgis", "--out", "new", words=("'qgis'", "esri"))
    refused("export", "images", "--out", "new", words=("not a chips folder (there is no folder images)",))
    refused("export", scene, "--to", "esri", "--out", "new", words=("is a file", "export maps with --to labels"))


# ---- recipes

SCENES = '[[scenes]]\nimage = ["scene.tif"]\nlabels = "labels.geojson"\nlabel_field = "class"\n'

BAD_RECIPES = {
    "a typo in a setting": (SCENES + "[chips]\nstrid = 3\n", ("bad.toml", "'chips.strid'", "did you mean 'stride'")),
    "a typo in a section": (SCENES + "[chip]\nsize = 64\n", ("bad.toml", "'chip'", "did you mean 'chips'")),
    "a typo in a scene": (SCENES.replace("label_field", "label_fild"), ("bad.toml", "did you mean 'label_field'")),
    "a word for a number": (SCENES + '[chips]\nsize = "big"\n', ("bad.toml", "'chips.size' is 'big'", "integer")),
    "a number out of range": (SCENES + "[chips]\nsize = 4\n", ("bad.toml", "'chips.size' is 4", "8")),
    "an unknown choice": (SCENES + '[chips]\nedge = "shfit"\n', ("bad.toml", "'shfit'", "'shift'")),
    "two budgets": (SCENES + "[train]\nepochs = 2\nsteps = 3\n", ("bad.toml", "epochs", "steps")),
    "no TOML": (SCENES + "[chips\nsize = 4\n", ("bad.toml", "no TOML", "line 5")),
    "no scenes": ("seed = 1\n", ("bad.toml", "'scenes' is missing")),
    "a missing image": (SCENES.replace("scene.tif", "scnee.tif"), ("scnee.tif", "No such file")),
    "a class that is not in the table": (
        SCENES + '[[classes]]\nname = "house"\nvalue = 1\n', ("labels.geojson holds 'road' (2)", "Expected 'house'"),
    ),
    "a value that stands twice": (
        SCENES + '[[classes]]\nname = "house"\nvalue = 1\n[[classes]]\nname = "road"\nvalue = 1\n',
        ("'1' occurs twice",),
    ),
    "a value above 254": (SCENES + '[[classes]]\nname = "house"\nvalue = 999\n', ("'house' has value 999", "254")),
    "a chip larger than the scene": (
        SCENES + '[chips]\nsize = 512\nedge = "drop"\n', ("scene.tif", "96 x 96", "512", "edge = drop"),
    ),
    "an unknown architecture": (SCENES + '[train]\narchitecture = "unett"\n', ("'unett'", "did you mean 'unet'")),
    "an unknown encoder": (SCENES + '[train]\nencoder = "resnet81"\n', ("'resnet81'", "did you mean 'resnet18'")),
    "an unknown loss": (SCENES + '[train]\nloss = "dicee"\n', ("'dicee'", "did you mean 'dice'")),
    "a missing weight file": (SCENES + '[train]\nweights = "my.pth"\n', ("my.pth", "nor a file")),
    "an unknown option": (SCENES + "[train.options]\nwidht = 3\n", ("widht", "train.options")),
    "a margin as large as the tile": (SCENES + "[predict]\nmargin = 600\n", ("tile size 1024", "margin 600", "496")),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_RECIPES)
def test_a_run_of_a_bad_recipe_is_refused_before_anything_is_written(kind, tmp_path, scene, labels, refused):
    content, words = BAD_RECIPES[kind]
    (tmp_path / "bad.toml").write_text(content)
    refused("run", "bad.toml", "--out", "new/run", words=words)


def test_a_missing_recipe_is_refused(refused):
    refused("run", "recipe.toml", "--out", "new/run", words=("recipe.toml", "No such file", "landscribe new"))


def test_a_recipe_together_with_an_image_is_refused(tmp_path, scene, labels, refused):
    (tmp_path / "recipe.toml").write_text(SCENES)
    both = ("run", "recipe.toml", "--image", scene, "--out", "new/run")
    refused(*both, words=("recipe.toml as the recipe", "images", "one or the other"))
    refused("chip", scene, "--labels", labels, "--out", "new/run", words=(f"{scene} as the recipe", "with --image"))


def test_neither_recipe_nor_image_is_refused(refused):
    refused("run", "--out", "new/run", words=("neither a recipe nor an image",))


# ---- model folders


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def pickle_beside_no_weights(folder: Path) -> None:
    without_weights(folder)
    torch.save({"w": torch.zeros(1)}, folder / "model.pt")


def torch_saved_weights(folder: Path) -> None:
    torch.save(load((folder / "model.safetensors").read_bytes()), folder / "model.safetensors")


def pickled_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(pickle.dumps({"w": [0.0]}, protocol=3))


def altered_weights(folder: Path) -> None:
    whole = bytearray((folder / "model.safetensors").read_bytes())
    whole[-1] ^= 1
    (folder / "model.safetensors").write_bytes(whole)


def half_the_weights(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])


def config(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def alter(folder: Path) -> None:
        content = json.loads((folder / "config.json").read_text())
        change(content)
        (folder / "config.json").write_text(json.dumps(content))

    return alter


WEIGHTS, CONFIG = "model/model.safetensors", "model/config.json"
BAD_MODELS = {
    "no weights": (without_weights, ("model has no model.safetensors",)),
    "a pickle beside no weights": (pickle_beside_no_weights, ("model.pt is a pickle", "refused")),
    "weights by torch.save": (torch_saved_weights, (WEIGHTS, "is a pickle", "Expected a safetensors file")),
    "pickled weights": (pickled_weights, (WEIGHTS, "is a pickle")),
    "altered weights": (altered_weights, (WEIGHTS, "was altered", "sha256")),
    "half the weights": (half_the_weights, (WEIGHTS, "was altered")),
    "empty weights": (lambda f: (f / "model.safetensors").write_bytes(b""), (WEIGHTS, "was altered")),
    "no config": (lambda f: (f / "config.json").unlink(), ("model has no config.json",)),
    "no JSON": (lambda f: (f / "config.json").write_text("{"), (CONFIG, "Invalid JSON")),
    "an unknown setting": (config(lambda c: c.update(bandz=3)), (CONFIG, "bandz")),
    "a later layout": (config(lambda c: c.update(landscribe_model=2)), (CONFIG, "landscribe_model")),
    "a band less": (config(lambda c: c["bands"].pop()), (CONFIG, "2 bands", "3 input channels")),
    "a class less": (config(lambda c: c["classes"].pop()), (CONFIG,)),
    "a class more": (config(lambda c: c["arguments"].update(classes=3)), (CONFIG, "3 output channels", "2 classes")),
    "a class twice": (config(lambda c: c["classes"][1].update(value=0)), (CONFIG, "'0' occurs twice")),
    "a scaling less": (config(lambda c: c["scaling"]["factor"].pop()), (CONFIG, "2 factors")),
    "a scaling of NaN": (config(lambda c: c["scaling"].update(offset=[0, 0, "nan"])), (CONFIG, "a finite number")),
    "a pixel size of 0": (config(lambda c: c.update(pixel_size=0)), (CONFIG, "pixel_size", "greater than")),
    "another checksum": (config(lambda c: c.update(weights_sha256="0" * 64)), (WEIGHTS, "was altered", "000000000000")),
    "another encoder": (config(lambda c: c["arguments"].update(encoder="test_resnet")), (WEIGHTS, "does not fit unet")),
    "an unknown encoder": (
        config(lambda c: c["arguments"].update(encoder="resnet81")), (CONFIG, "'resnet81'", "such as resnet18. Update"),
    ),
    "an encoder of no name": (
        config(lambda c: c["arguments"].update(encoder=5)),
        (CONFIG, "built: encoder is 5. Expected", "or plain. Update"),
    ),
    "an unknown argument": (config(lambda c: c["arguments"].update(widht=5)), (CONFIG, "cannot be built", "widht")),
    "an unknown architecture": (config(lambda c: c.update(architecture="unett")), (CONFIG, "'unett'", "unet")),
    "code that the user does not trust": (
        config(lambda c: c.update(architecture="os:system")), (CONFIG, "'os:system'", "--trust-code os:system"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_MODELS)
def test_an_incomplete_or_altered_model_folder_is_refused(kind, scene, trained, refused):
    spoil, words = BAD_MODELS[kind]
    spoil(trained)
    refused("predict", "model", scene, "--out", "new/map.tif", words=words)


def test_damaged_metadata_of_chips_names_its_field(tmp_path, written, refused):
    path = tmp_path / "chips" / "chips.json"
    whole = path.read_text()
    path.write_text(whole.replace('"size"', '"sizze"'))
    refused("describe", "chips", words=("chips.json: size", "Expected a folder written by"))
    path.write_text(whole[:50])
    refused("describe", "chips", words=("chips.json: Invalid JSON",))


def test_a_virtual_raster_of_itself_is_refused_for_that(tmp_path, trained, refused):
    source = '<SourceFilename relativeToVRT="1">self.vrt</SourceFilename>'
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}"><SimpleSource>{source}<SourceBand>{band}</SourceBand>'
        "</SimpleSource></VRTRasterBand>" for band in (1, 2, 3)
    )  # fmt: skip
    (tmp_path / "self.vrt").write_text(
        '<VRTDataset rasterXSize="96" rasterYSize="96"><SRS>EPSG:32632</SRS>'
        f"<GeoTransform>500000,10,0,5000000,0,-10</GeoTransform>{bands}</VRTDataset>"
    )
    map_itself = ("predict", trained, "self.vrt", "--bands", "1,2,3", "--any-pixel-size", "--out", "map.tif")
    refused(*map_itself, words=("a virtual raster of itself", "Expected a readable raster"))


def test_a_crs_that_no_geotiff_holds_is_that_of_the_map(scene, trained, refused):
    words = ("the map of ", "scene.tif is in OGC:CRS84", "another CRS (--crs)")
    refused("predict", trained, scene, "--crs", "OGC:CRS84", "--any-pixel-size", "--out", "map.tif", words=words)


def test_a_folder_where_one_raster_is_expected_is_named_as_a_folder(tmp_path, refused):
    (tmp_path / "tiles").mkdir()
    words = ("tiles cannot be read", "It is a folder: give a file in it, or join its files")
    refused("sample", "tiles", "--size", "50", "--out", "points.gpkg", words=words)


def test_a_missing_model_folder_is_refused(scene, trained, refused):
    refused(
        "predict",
        trained.parent,
        scene,
        "--out",
        "new/map.tif",
        words=("has no config.json", "Its folder model is one."),
    )
    refused("predict", "nowhere", scene, "--out", "new/map.tif", words=("nowhere has no config.json",))


def test_weights_with_a_header_length_like_a_pickle_are_loaded(tmp_path):
    class Named(torch.nn.Module):
        """One weight, whose name in a model makes the header of the safetensors file 640 = 0x0280 bytes long."""

        def __init__(self) -> None:
            super().__init__()
            self.register_parameter("w" * 572, torch.nn.Parameter(torch.zeros(1)))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    globals()["Named"] = Named
    Named.__qualname__ = "Named"
    folder = Model.wrap(Named(), bands=["v"], classes=["a"]).save(tmp_path / "model")
    assert (folder / "model.safetensors").read_bytes()[:2] == b"\x80\x02"
    assert Model.load(folder, trust="test_bad_input:Named").classes.names == ("a",)


# ---- rasters that do not fit the model

MISFITS = {
    "fewer bands": ({"bands": 1}, ("other.tif has 1 band ", "takes 3 (red, green, blue)", "--stack")),
    "another dtype": ({"dtype": "uint16"}, ("other.tif is uint16", "trained on uint8", "-scale MIN MAX 0 255")),
    "other pixels": (
        {"transform": worlds.METRE @ Affine.scale(3)}, ("other.tif has pixels of 3 m", "1 m", "--any-pixel-size"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", MISFITS)
def test_a_raster_that_does_not_fit_the_model_is_refused_with_both_values(kind, tmp_path, trained, refused):
    options, words = MISFITS[kind]
    other = image(tmp_path / "other.tif", **options)
    refused("predict", trained, other, "--out", "new/map.tif", words=words)


BAD_FLAGS = {
    "--bands 3,2,9": ("scene.tif has bands 1 to 3", "9"),
    "--bands red": ("'bands' is 'red'", "3,2,1"),
    "--margin 900 --tile 1024": ("tile size 1024", "margin 900", "496"),
    "--engine foo": ("--engine", "'foo'", "'auto'", "'openvino'"),
    "--tile 4": ("'tile' is '4'", "32", "'auto'"),
    "--shard 4/3": ("'shard' is '4/3'", "such as 3/8"),
    "--probabilities p.png": ("p.png has no suffix for a GeoTIFF", ".tif or .tiff"),
    "--device abacus": ("device 'abacus' cannot be used",),
    "--nodata none": ("'nodata' is 'none'", "number"),
}


@pytest.mark.parametrize("flag", BAD_FLAGS)
def test_a_setting_out_of_range_is_refused(flag, scene, trained, refused):
    refused("predict", trained, scene, *flag.split(), "--out", "new/map.tif", words=BAD_FLAGS[flag])


# ---- what stands already


def test_a_map_is_not_overwritten(tmp_path, scene, trained, refused):
    (tmp_path / "map.tif").write_text("precious")
    refused("predict", trained, scene, "--out", "map.tif", words=("map.tif exists already", "--overwrite"))


def test_probabilities_are_not_overwritten(tmp_path, scene, trained, refused):
    (tmp_path / "p.tif").write_text("precious")
    arguments = (trained, scene, "--out", "new/map.tif", "--probabilities", "p.tif")
    refused("predict", *arguments, words=("p.tif exists already", "--overwrite"))


def test_a_map_never_replaces_its_raster(scene, trained, refused):
    arguments = (trained, scene, "--out", "scene.tif", "--overwrite")
    refused("predict", *arguments, words=("scene.tif is an input",))


def test_map_and_probabilities_require_different_paths(scene, trained, refused):
    arguments = (trained, scene, "--out", "new/map.tif", "--probabilities", "new/map.tif")
    refused("predict", *arguments, words=("new/map.tif", "probabilities"))


@pytest.mark.parametrize("name", ["scene.tif", "Scene.tif"])
def test_two_maps_of_one_name_are_refused_whatever_its_case(tmp_path, scene, trained, refused, name):
    (tmp_path / "more").mkdir()
    image(tmp_path / "more" / name)
    refused("predict", trained, scene, f"more/{name}", "--out", "maps", words=("scene", "one name"))


@pytest.mark.parametrize("verb", ["describe", "train", "check", "export"])
def test_chips_whose_index_is_a_pipe_are_refused(verb, tmp_path, refused):
    (tmp_path / "chips").mkdir()
    os.mkfifo(tmp_path / "chips" / "chips.json")
    out = () if verb in ("describe", "check") else ("--out", "out")
    refused(verb, "chips", *out, words=("chips.json is a pipe or a device",))


def test_a_split_list_that_is_a_pipe_is_refused(tmp_path, scene, labels, refused):
    os.mkfifo(tmp_path / "pipe.txt")
    lists = ("--split-by", "list", "--train-list", "pipe.txt")
    refused("chip", "--image", scene, "--labels", labels, "--out", "chips", *lists, words=("pipe.txt is a pipe",))


def test_the_root_and_names_too_long_for_parts_are_refused_as_outputs(scene, labels, trained, refused):
    refused(
        "run",
        "--image",
        scene,
        "--labels",
        labels,
        "--label-field",
        "class",
        "--out",
        "/",
        words=("the root of a disk",),
    )
    long = "m" * 240 + ".tif"
    refused("predict", trained, scene, "--out", long, words=("has 244 bytes. Expected at most 215",))


def test_a_folder_named_like_the_home_is_a_folder(tmp_path, scene, labels, landscribe):
    said = landscribe("chip", "--image", scene, "--labels", labels, "--size", 32, "--out", "./~/nope/chips")
    assert said.code == 0, said
    assert (tmp_path / "~" / "nope" / "chips" / "chips.parquet").exists()


def test_a_folder_of_other_things_is_not_taken_for_chips(tmp_path, scene, labels, refused):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    chip = ("chip", "--image", scene, "--labels", labels, "--out", "mine")
    refused(*chip, words=("mine exists already", "--overwrite"))
    refused(*chip, "--overwrite", words=("mine holds other files", "chips.json"))


def test_a_folder_of_other_things_is_not_taken_for_a_model(tmp_path, scene, labels, landscribe, refused):
    assert landscribe("chip", "--image", scene, "--labels", labels, "--size", 32, "--out", "chips").code == 0
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    refused("train", "chips", "--out", "mine", words=("mine exists already", "--overwrite"))
    refused("train", "chips", "--out", "mine", "--overwrite", words=("mine holds other files", "config.json"))


def test_a_folder_of_other_things_is_not_taken_for_a_run(tmp_path, scene, labels, refused):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    refused("run", "--image", scene, "--labels", labels, "--out", "mine", words=("mine holds other files", "--out"))


def test_a_recipe_is_not_overwritten(tmp_path, refused):
    (tmp_path / "recipe.toml").write_text("precious")
    refused("new", words=("recipe.toml exists already", "--overwrite"))


def test_an_assessment_never_replaces_the_map(tmp_path, labels, refused):
    worlds.write_raster(tmp_path / "map.tif", np.eye(SIDE, dtype=np.uint8))
    arguments = ("map.tif", "--reference", labels, "--out", "map.tif")
    refused("assess", *arguments, words=("map.tif does not end in .json", "Nothing was changed"))


# ---- places where nothing can be written


def writers(scene: Path, labels: Path, trained: Path) -> dict[str, tuple[object, ...]]:
    """A command of each verb that writes, up to the place where its result goes."""
    chips = ("--image", scene, "--labels", labels, "--size", 32)
    return {
        "chip": ("chip", *chips, "--out"),
        "train": ("train", "chips", "--steps", 1, "--weights", "none", "--out"),
        "predict": ("predict", trained, scene, "--out"),
        "probabilities": ("predict", trained, scene, "--out", "new/map.tif", "--probabilities"),
        "run": ("run", *chips, "--out"),
        "new": ("new",),
        "assess": ("assess", "truth.tif", "--reference", labels, "--out"),
    }


WRITERS = ("chip", "train", "predict", "probabilities", "run", "new", "assess")


@pytest.fixture
def written(tmp_path, scene, labels, trained, landscribe) -> dict[str, tuple[object, ...]]:
    """Those commands, with what they need."""
    worlds.write_raster(tmp_path / "truth.tif", np.eye(SIDE, dtype=np.uint8))
    assert landscribe("chip", "--image", scene, "--labels", labels, "--size", 32, "--out", "chips").code == 0
    return writers(scene, labels, trained)


@pytest.mark.parametrize("verb", WRITERS)
@pytest.mark.parametrize("place", ["file/out.tif", "file/new/out.tif"])
def test_an_output_path_below_a_file_is_refused(verb, place, tmp_path, written, refused):
    (tmp_path / "file").write_text("no folder")
    refused(*written[verb], place, words=(place,))


@pytest.mark.parametrize("verb", ["chip", "train", "run"])
def test_a_file_in_place_of_an_output_folder_is_refused(verb, tmp_path, written, refused):
    (tmp_path / "file").write_text("no folder")
    refused(*written[verb], "file", words=("file",))


@pytest.mark.parametrize("verb", ["chip", "train", "run"])
def test_a_link_to_nothing_in_place_of_an_output_folder_is_refused_as_such(verb, tmp_path, written, refused):
    (tmp_path / "link").symlink_to("gone")
    for out in ("link", "link/new"):
        refused(*written[verb], out, words=("link is a link to gone, which is not there",))


def test_a_file_among_the_folders_of_an_output_is_named(tmp_path, written, refused):
    (tmp_path / "file").write_text("no folder")
    for verb in ("chip", "run", "assess"):
        refused(
            *written[verb], "file/new/out", words=("cannot write file/new/out", "file is a file", "Expected a folder")
        )


def test_a_recipe_without_the_suffix_is_not_taken_for_a_folder(tmp_path, refused):
    refused("new", "folder/", words=("folder has no suffix .toml", "folder/recipe.toml"))
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize("verb", ["chip", "train", "predict", "run"])
def test_an_output_in_a_folder_that_overwrite_replaces_is_refused(verb, trained, written, refused):
    words = ("--overwrite replaces with all that it holds", "Choose another path")
    refused(*written[verb], "chips/new/out.tif", words=("chips, a chips folder", *words))
    refused(*written[verb], trained / "out.tif", words=("a model folder", *words))


# ---- a machine that refuses: limits that only a process of its own can have


@pytest.fixture
def limited(tmp_path) -> Callable[..., Said]:
    """Run a command in a process of its own, with limits of `forked.Surroundings`."""
    if not sys.platform.startswith("linux"):
        pytest.skip("limits of a process are set the Linux way")

    def run(*arguments: object, **limits: Any) -> Said:
        return Said(*forked.command(*arguments, surroundings=forked.Surroundings(folder=tmp_path, **limits)))

    return run


@pytest.mark.parametrize("verb", WRITERS)
def test_a_read_only_folder_is_refused(verb, tmp_path, written, limited):
    (tmp_path / "locked").mkdir(mode=0o500)
    before = everything(tmp_path)
    said = limited(*written[verb], "locked/new/out.tif", obeys_modes=True)
    assert said.code == 2, said
    assert "locked/new" in said.line
    assert "Permission denied" in said.line
    assert everything(tmp_path) == before


def test_an_output_that_cannot_be_written_is_refused_before_training(tmp_path, written, limited):
    (tmp_path / "locked").mkdir(mode=0o500)
    said = limited(*written["train"], "locked/model", obeys_modes=True)
    assert "weights: " not in said.err


def test_a_run_with_nodata_nan_resumes_with_the_same_command(tmp_path, labels, limited):
    bad = holed(tmp_path / "dem.tif", math.nan)
    quick = ("--encoder", "test_efficientnet", "--weights", "none", "--steps", 1, "--batch", 2, "--size", 32)
    command = ("run", "--image", bad, "--labels", labels, "--nodata", "nan", *quick, "--out", "run")
    assert limited(*command).code == 0
    before = everything(tmp_path / "run")
    said = limited(*command)
    assert said.code == 0, said
    assert everything(tmp_path / "run") == before


@pytest.fixture
def noisy(tmp_path) -> Path:
    """A scene whose chips are larger files than their index."""
    worlds.write_raster(tmp_path / "noisy.tif", worlds.noise(3, 256, 256), descriptions=BANDS)
    polygons(tmp_path / "noisy.geojson", [worlds.pixel_box(*place) for place in ((9, 9, 80, 80), (140, 130, 60, 90))])
    return tmp_path


@pytest.mark.parametrize("largest_file", [0, 1_000, 20_000])
@pytest.mark.parametrize("layout", ["tif", "png", "jpg"])
def test_chips_that_do_not_fit_on_the_disk_leave_nothing(layout, largest_file, noisy, limited):
    # A chip takes about 48 kB as tif and png, 16 kB as jpg; the index takes 13 kB and the masks below 1 kB.
    largest_file = min(largest_file, 14_000) if layout == "jpg" else largest_file
    before = everything(noisy)
    arguments = ("--image", "noisy.tif", "--labels", "noisy.geojson", "--size", 128, "--format", layout)
    said = limited("chip", *arguments, "--out", "new/chips", largest_file=largest_file)
    assert said.code == 2, said
    assert "new/chips: File too large" in said.line
    assert everything(noisy) == before


def test_a_run_whose_chips_do_not_fit_on_the_disk_leaves_nothing(noisy, limited):
    before = everything(noisy)
    arguments = ("--image", "noisy.tif", "--labels", "noisy.geojson", "--size", 128)
    # A recipe takes about 20 kB.
    said = limited("run", *arguments, "--out", "new/run", largest_file=30_000)
    assert said.code == 2, said
    assert "new/run/chips: File too large" in said.line
    assert everything(noisy) == before


def test_a_model_that_does_not_fit_on_the_disk_leaves_nothing(tmp_path, written, limited):
    before = everything(tmp_path)
    train = ("train", "chips", "--encoder", "test_efficientnet", "--weights", "none", "--steps", 1, "--batch", 2)
    said = limited(*train, "--out", "new/model", largest_file=100_000)
    assert said.code == 2, said
    # The state of the only epoch is written first.
    assert "cannot write new/model" in said.line
    assert everything(tmp_path) == before


PLAIN = ("--encoder", "plain", "--option", "encoder_widths=[4,8]", "--weights", "none", "--batch", 2)


@pytest.fixture
def full_disk() -> Iterator[pytest.MonkeyPatch]:
    """The disk is full when a model is saved, until the patch is undone."""

    def save(_model, out, **_):
        with os_errors(Path(out)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Model, "save", save)
        yield patch


def test_a_training_that_a_full_disk_stops_goes_on_with_the_same_command(tmp_path, written, landscribe, full_disk):
    train = ("train", "chips", *PLAIN, "--epochs", 2, "--out", "new/model")
    said = landscribe(*train)
    assert said.code == 1, said
    assert (
        "new/model is not finished: cannot write new/model: No space left on device. Nothing half-written" in said.line
    )
    assert "kept in model.training: fix the cause and repeat the same command" in said.line
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["model.training"]
    full_disk.undo()
    resumed = landscribe(*train)
    assert resumed.code == 0, resumed
    assert "training: resuming at step" in resumed.err
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["model"]


def test_a_run_that_a_wrong_path_stops_after_the_chips_ends_with_2(tmp_path, noisy, landscribe, monkeypatch):
    def report(_folder):
        with os_errors(Path("nope")):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    monkeypatch.setattr(pipeline, "report", report)
    run = ("run", "--image", "noisy.tif", "--labels", "noisy.geojson", "--size", 32, *PLAIN, "--steps", 1)
    said = landscribe(*run, "--out", "new/run")
    assert said.code == 2, said
    assert "repeat the same command" not in said.err
    assert (tmp_path / "new" / "run" / "model").exists()


def test_a_run_that_a_full_disk_stops_goes_on_with_the_same_command(tmp_path, noisy, landscribe, full_disk):
    run = ("run", "--image", "noisy.tif", "--labels", "noisy.geojson", "--size", 32, *PLAIN, "--steps", 1)
    said = landscribe(*run, "--out", "new/run")
    assert said.code == 1, said
    assert "is not finished: cannot write" in said.line
    assert "fix the cause and repeat the same command" in said.line
    assert "chips" in [path.name for path in (tmp_path / "new" / "run").iterdir()]
    full_disk.undo()
    assert landscribe(*run, "--out", "new/run").code == 0


def test_a_training_whose_first_checkpoint_does_not_fit_leaves_nothing(tmp_path, written, limited):
    before = everything(tmp_path)
    said = limited("train", "chips", *PLAIN, "--epochs", 2, "--out", "new/model", largest_file=6_000)
    assert said.code == 2, said
    assert "last.ckpt" in said.line
    assert everything(tmp_path) == before


@pytest.fixture
def numbers(tmp_path) -> Path:
    """A raster whose map is a large file, and a model that maps it to itself; the first unit's part is small."""
    pixels = np.random.default_rng(0).integers(0, 4, (500, 700)).astype(np.uint8)
    pixels[:256, :256] = 1
    worlds.write_raster(tmp_path / "numbers.tif", pixels, descriptions=["v"])
    model(tmp_path / "identity", Identity(), bands=["v"], classes=list("abcd"), scale=1.0)
    return tmp_path


SMALL_UNITS = ("--tile", 256, "--margin", 0, "--unit", 256)


def mapping(out: str, *more: object) -> tuple[object, ...]:
    trust = ("--trust-code", "networks:Identity")
    return ("predict", "identity", "numbers.tif", *SMALL_UNITS, *trust, "--out", out, *more)


@pytest.mark.parametrize("largest_file", [0, 400])
def test_a_map_of_which_no_unit_fits_on_the_disk_leaves_nothing(largest_file, numbers, limited):
    before = everything(numbers)
    said = limited(*mapping("new/map.tif"), largest_file=largest_file)
    assert said.code == 2, said
    assert "File too large" in said.line
    assert everything(numbers) == before


# The first unit's part takes below 2 kB, the others up to 20 kB, the virtual mosaic 13 kB, the map about 150 kB. GDAL
# keeps the last 64 kB of a file back until it closes it: a limit just below the map's size is met only then.
@pytest.mark.parametrize("limit", ["parts", "mosaic", "half the map", "the end of the map", "its last byte"])
def test_a_map_that_does_not_fit_on_the_disk_is_finished_by_the_same_command(limit, numbers, limited):
    assert limited(*mapping("whole.tif")).code == 0
    size = (numbers / "whole.tif").stat().st_size
    largest = {"parts": 4_000, "mosaic": 12_000, "half the map": size // 2, "the end of the map": size - 20_000}
    said = limited(*mapping("new/map.tif"), largest_file=largest.get(limit, size - 1))
    assert said.code == 1, said
    assert re.search(r"new/map.tif is not finished: .* kept in map.tif.parts", said.line)
    assert [path.name for path in (numbers / "new").iterdir()] == ["map.tif.parts"]
    assert limited(*mapping("new/map.tif")).code == 0
    for name in ("map.tif", "map.tif.aux.xml", "map.qml"):
        assert (numbers / "new" / name).read_bytes() == (numbers / name.replace("map", "whole")).read_bytes()
    assert not (numbers / "new" / "map.tif.parts").exists()


def test_an_overwritten_map_stays_until_the_new_one_is_complete(numbers, limited):
    (numbers / "map.tif").write_text("precious")
    (numbers / "map.qml").write_text("a style")
    said = limited(*mapping("map.tif", "--overwrite"), largest_file=80_000)
    assert said.code == 1, said
    assert (numbers / "map.tif").read_text() == "precious"
    assert (numbers / "map.qml").read_text() == "a style"


def test_probabilities_that_do_not_fit_on_the_disk_leave_no_map(numbers, limited):
    probabilities = ("--probabilities", "new/p.tif")
    assert limited(*mapping("whole.tif", "--probabilities", "p.tif")).code == 0
    size = (numbers / "p.tif").stat().st_size
    assert limited(*mapping("new/map.tif", *probabilities), largest_file=size - 10_000).code == 1
    assert [path.name for path in (numbers / "new").iterdir()] == ["map.tif.parts"]
    assert limited(*mapping("new/map.tif", *probabilities)).code == 0
    assert (numbers / "new" / "p.tif").read_bytes() == (numbers / "p.tif").read_bytes()


def test_probabilities_may_lie_on_another_disk(tmp_path, scene, trained, landscribe):
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second disk on this machine")
    place = other / f"landscribe-{os.getpid()}.tif"
    try:
        made = landscribe("predict", trained, scene, "--out", "map.tif", "--probabilities", place)
        assert made.code == 0, made
        assert place.exists()
    finally:
        place.unlink(missing_ok=True)


def test_a_unit_lost_to_a_full_disk_is_predicted_again(numbers, limited):
    # The very same bytes are asked for under ever larger limits: whatever was cut off before never shows.
    assert limited(*mapping("whole.tif")).code == 0
    codes = [limited(*mapping("map.tif"), largest_file=limit).code for limit in (2_000, 9_000, 17_000, 60_000, 10**6)]
    assert codes == [1, 1, 1, 1, 0]
    assert (numbers / "map.tif").read_bytes() == (numbers / "whole.tif").read_bytes()


def test_a_wrapped_model_is_refused_like_a_trained_one(tmp_path, scene, refused):
    Model.wrap(OneLayer(), bands=["v"], classes=["no", "yes"]).save(tmp_path / "one")
    trust = ("--trust-code", "networks:OneLayer")
    refused("predict", "one", scene, "--out", "new/map.tif", *trust, words=("scene.tif has 3 bands", "takes 1 (v)"))


# ---- control characters in names


ESCAPE = "\x1bc"


def test_control_characters_in_a_class_column_are_refused(tmp_path, scene, refused):
    bad = worlds.write_polygons(tmp_path / "bad.gpkg", squares()[:2], **{"class": [f"house{ESCAPE}", "road"]})
    chip = ("chip", "--image", scene, "--labels", bad, "--label-field", "class", "--size", 32, "--out", "new/chips")
    refused(*chip, words=("class 'house\\x1bc'", "control character", "class table"))


def test_control_characters_in_band_names_are_refused_unless_the_bands_are_named(tmp_path, labels, refused, landscribe):
    bad, header = tmp_path / "bad.img", tmp_path / "bad.hdr"
    rasterio.shutil.copy(image(tmp_path / "good.tif"), bad, driver="ENVI")
    header.write_text(header.read_text().replace("red", f"red{ESCAPE}"))
    (tmp_path / "bad.img.aux.xml").unlink(missing_ok=True)
    chip = ("chip", "--image", bad, "--labels", labels, "--label-field", "class", "--size", 32, "--out", "chips")
    refused(*chip, words=("bad.img", "red\\x1bc", "control character", "--bands"))
    assert landscribe(*chip, "--bands", "red,green,blue").code == 0


def test_control_characters_in_a_file_name_are_shown_escaped(tmp_path, labels, scene, refused):
    bad = tmp_path / f"a{ESCAPE}.tif"
    bad.write_bytes(scene.read_bytes())
    chip = ("chip", "--image", bad, "--labels", labels, "--label-field", "class", "--size", 32, "--out", "new/chips")
    refused(*chip, words=("a\\x1bc.tif", "Rename the file"))
    refused("chip", "--image", tmp_path / f"b{ESCAPE}.tif", *chip[3:], words=("b\\x1bc.tif", "No such file"))


# ---- names of outputs and of files that are not UTF-8


LATIN_1 = os.fsdecode(b"caf\xe9")
"""A name as systems of other encodings leave it."""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems take no such name")
def test_files_with_names_that_are_not_utf_8_are_to_be_renamed(tmp_path, scene, trained, written, refused):
    for source, name in ((scene, f"{LATIN_1}.tif"), (tmp_path / "truth.tif", f"{LATIN_1}_mask.tif")):
        shutil.copy(source, tmp_path / name)
    polygons(tmp_path / "a.geojson", squares()).rename(tmp_path / f"{LATIN_1}.geojson")
    shutil.copytree(tmp_path / "chips", tmp_path / f"{LATIN_1}chips")
    words = ("caf\\udce9", "not UTF-8", "Rename the file")
    refused("predict", trained, f"{LATIN_1}.tif", "--out", "map.tif", words=words)
    chip = ("chip", "--size", 32, "--out", "new")
    refused(*chip, "--image", f"{LATIN_1}.tif", "--labels", "truth.tif", words=words)
    refused(*chip, "--image", scene, "--labels", f"{LATIN_1}_mask.tif", words=words)
    refused(*chip, "--image", scene, "--labels", f"{LATIN_1}.geojson", words=words)
    refused("assess", "truth.tif", "--reference", f"{LATIN_1}_mask.tif", words=words)
    refused("describe", f"{LATIN_1}chips", words=words)
    refused("predict", trained, scene, "--out", f"{LATIN_1}.tif", words=("not UTF-8", "Choose another path"))


@pytest.mark.parametrize("out", [".", "chips"])
def test_a_folder_in_place_of_an_output_file_is_refused_before_anything_is_read(out, tmp_path, written, refused):
    with pytest.MonkeyPatch.context() as patch:
        for step in ("landscribe.assessment.references.assess_maps", "landscribe.reports.description.describe"):
            patch.setattr(step, lambda *_, **__: pytest.fail("an input was read"))
        refused(
            "assess", "truth.tif", "--reference", "truth.tif", "--out", out, words=("is a folder", "Expected a file")
        )
        (tmp_path / "x.png").mkdir(exist_ok=True)
        refused("describe", "chips", "--sheet", "x.png", words=("x.png is a folder",))
        refused("report", "chips", "--out", out, words=("is a folder", "Expected a file"))


@pytest.mark.parametrize("verb", WRITERS)
def test_an_empty_output_is_not_the_working_folder(verb, written, refused):
    flag = written[verb][-1]
    refused(*written[verb], "", words=("an argument is empty" if flag == "new" else f"{flag} is empty",))
    refused("assess", "truth.tif", "--reference=", words=("--reference is empty",))


def test_an_empty_path_of_a_call_is_not_the_working_folder(tmp_path, written, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for call in (
        lambda: ls.assess("truth.tif", reference="truth.tif", out=""),
        lambda: ls.train("chips", out=""),
        lambda: ls.describe("chips", sheet=""),
        lambda: ls.new(""),
    ):
        with pytest.raises(OutputError, match="empty, which would be the working folder"):
            call()
