"""The worked examples of the lecture, on small folders in the publishers' layouts."""

import json
import ntpath
import os
import shutil
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from filelock import FileLock

import worlds
from landscribe import pipeline, verbs
from landscribe.data.chips.chips import ChipReader, Chips
from landscribe.errors import LandscribeError, RecipeError
from landscribe.examples import EXAMPLES
from landscribe.examples.example import Published
from landscribe.recipe import SECTIONS, Recipe, into_sections
from landscribe.synthetic.layouts import LAYOUTS

QUICK = {"weights": "none", "epochs": None, "steps": 4, "tile": 512, "margin": 16}
PLAIN = {"encoder": "plain", "options": {"encoder_widths": [4, 8]}}
SMALL = {
    "topodl": PLAIN | {"size": 32, "background_share": 1.0},
    "inria": {"encoder": "test_resnet", "options": {"channels": 8}, "size": 48},
    "landcoverai": PLAIN | {"size": 128, "train": {"batch": 2}},
    "wvlcdl": PLAIN | {"size": 32},
}


def stems(folder: Path) -> list[str]:
    return sorted({path.stem for path in folder.iterdir()})


def recipe_like(name: str, data: Path, folder: Path) -> Path:
    return verbs.new(folder / "recipe.toml", like=name, data=data)


def errors(recipe: Path) -> tuple[str, ...]:
    return verbs.check(recipe, trial=False).errors


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_recipe_of_an_example_is_complete_and_follows_a_moved_folder(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").mkdir()
    written = verbs.new("recipes/recipe.toml", like=name, data="data")
    recipe = Recipe.load(written)
    assert recipe.like == name
    assert (recipe.data, recipe.scenes[0].image[0].startswith("/")) == (str(tmp_path / "data"), True)
    assert '"../data' in written.read_text()
    assert "# Loss" in written.read_text()
    assert recipe.train.architecture == EXAMPLES[name].settings(Path())["train"]["architecture"]


def test_the_recipe_of_data_on_another_drive_has_absolute_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="path is on mount 'C:'"):
        ntpath.relpath("C:/data", "D:/runs")
    monkeypatch.setattr(os.path, "relpath", lambda *_: ntpath.relpath("C:/data", "D:/runs"))
    written = verbs.new(tmp_path / "recipe.toml", like="landcoverai", data="data")
    assert f'data = "{tmp_path / "data"}"' in written.read_text()


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_settings_of_a_demo_fit_its_recipe(name):
    settings = into_sections(dict(LAYOUTS[name].settings), tuple(SECTIONS))
    assert Recipe.of_example(name, Path()).with_settings(settings).train.steps == settings["train"]["steps"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_check_names_each_missing_part_in_the_words_of_the_publisher(tmp_path, name):
    recipe = recipe_like(name, tmp_path / "data", tmp_path)
    (line,) = errors(recipe)
    assert line.startswith(f"{tmp_path / 'data'}, the folder of {EXAMPLES[name].title}, does not exist")
    (tmp_path / "data").mkdir()
    lines = errors(recipe)
    assert len(lines) == len(EXAMPLES[name].parts)
    assert all(part.pattern in line for part, line in zip(EXAMPLES[name].parts, lines, strict=True))


@pytest.mark.parametrize(
    ("name", "removed", "partner"),
    [
        ("topodl", "ky_quads/KY_Quadrangle 2_803002_1954_24000_geo.shp", "ky_quads/*.shp"),
        ("inria", "train/gt/austin6.tif", "train/gt/austin*.tif"),
        ("landcoverai", "masks/N-33-60-D-c-4-1.tif", "masks/*.tif"),
    ],
)
def test_a_stem_without_its_partner_is_one_line(tmp_path, drawn, name, removed, partner):
    data = drawn(name, tmp_path / "data")
    (data / removed).unlink()
    (error,) = errors(recipe_like(name, data, tmp_path))
    assert f"no {partner} of the same name for {Path(removed).stem}.tif" in error


def test_a_list_that_names_an_absent_chip_is_refused(tmp_path, drawn):
    data = drawn("landcoverai", tmp_path / "data")
    with (data / "test.txt").open("a") as lines:
        lines.write("N-33-60-D-c-4-0_2\n")
    (error,) = verbs.check(recipe_like("landcoverai", data, tmp_path), trial=False, size=128).errors
    assert "names chip 2 of N-33-60-D-c-4-0" in error
    assert "is partial" in error


def test_masks_with_unexpected_values_are_refused(tmp_path, drawn):
    data = drawn("inria", tmp_path / "data")
    mask = np.zeros((96, 96), np.uint8)
    mask[:9, :9], mask[40:, 40:] = 7, 255
    worlds.write_raster(data / "train/gt/austin6.tif", mask, crs=None, transform=None)
    assert any("austin6.tif" in error and "7" in error for error in errors(recipe_like("inria", data, tmp_path)))


def test_a_quadrangle_apart_from_its_map_is_refused(tmp_path, drawn):
    data = drawn("topodl", tmp_path / "data")
    first, *_, second = stems(data / "ky_quads")
    for suffix in (".shp", ".shx", ".dbf", ".prj"):
        (data / "ky_quads" / f"{first}{suffix}").rename(data / f"swap{suffix}")
        (data / "ky_quads" / f"{second}{suffix}").rename(data / f"ky_quads/{first}{suffix}")
        (data / f"swap{suffix}").rename(data / f"ky_quads/{second}{suffix}")
    assert any("ky_quads" in error and first in error for error in errors(recipe_like("topodl", data, tmp_path)))


def test_an_unknown_example_is_refused_with_the_nearest(tmp_path):
    with pytest.raises(RecipeError, match=r"'topodll'.*'topodl'"):
        verbs.new(tmp_path / "recipe.toml", like="topodll")
    with pytest.raises(LandscribeError, match="--like"):
        verbs.new(tmp_path / "recipe.toml", data=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_published_number_finds_its_measure():
    f1 = Published(0.9, "paper", "f1", "mine", "Kentucky")
    assessment = {"mean_iou": 0.4, "classes": [], "groups": {"Kentucky": {"classes": [{"name": "mine", "f1": 0.5}]}}}
    assert f1.measured(assessment) == 0.5
    assert Published(0.7, "page", "mean_iou").measured(assessment) == 0.4
    assert Published(0.7, "page", "f1", "mine", "Ohio").measured(assessment) is None


@pytest.fixture(scope="module")
def runs(shared_folder, drawn):
    """Runs of examples on small folders, each made once for all processes of tests."""

    def run(name: str) -> Path:
        folder = shared_folder / name
        with FileLock(f"{folder}.lock"):
            if not (folder / "run" / "report.html").exists():
                recipe = recipe_like(name, drawn(name, folder / "data"), folder)
                pipeline.run(recipe, out=folder / "run", **QUICK, **SMALL[name])
        return folder / "run"

    return run


@pytest.mark.slow
def test_maps_of_topodl_end_at_their_quadrangles_and_other_states_are_test_areas(runs):
    run = runs("topodl")
    chips = Chips.open(run / "chips")
    assert set(chips.table["split"][chips.group_names != "Kentucky"]) <= {"test", "gap"}
    assert set(chips.table["split"][chips.group_names == "Kentucky"]) >= {"train", "val", "test"}
    for path in sorted((run / "maps").glob("*.tif")):
        with rasterio.open(path) as mapped:
            is_mapped = mapped.read_masks(1) > 0
        assert is_mapped[16:112, 16:112].all()
        assert is_mapped.sum() == 96 * 96
    groups = json.loads((run / "assessment.json").read_text())["groups"]
    assert set(groups) == {"Kentucky", "Ohio", "Virginia"}
    page = (run / "report.html").read_text()
    assert all(f"F1 of mine, {state}" in page for state in groups)
    assert all(text in page for text in ("0.902", "0.837", "0.763"))


@pytest.mark.slow
def test_each_city_of_inria_trains_on_its_own_masks_and_tyrol_is_the_test(runs):
    run = runs("inria")
    chips = Chips.open(run / "chips")
    assert chips.classes.names == ("background", "building")
    by_scene = {scene: set(rows["split"]) for scene, rows in chips.table.groupby("scene")}
    for city in ("austin", "vienna"):
        assert [by_scene[f"{city}{tile}"] for tile in range(1, 8)] == [{"val"}] * 5 + [{"train"}] * 2
        for source in chips.metadata.sources:
            assert Path(str(source.labels)).stem == Path(source.image[0]).stem
    assert all(by_scene[f"tyrol-w{tile}"] == {"test"} for tile in range(1, 8))
    assert set(json.loads((run / "assessment.json").read_text())["groups"]) == {"tyrol-w"}


@pytest.mark.slow
def test_the_chips_of_landcoverai_are_those_of_its_lists(runs):
    run = runs("landcoverai")
    table = Chips.open(run / "chips").table
    numbers = table["scene"] + "_" + (3 * (table["row"] // 128) + table["col"] // 128).astype(str)
    data = run.parent / "data"
    for split in ("train", "val", "test"):
        assert set(numbers[table["split"] == split]) == set((data / f"{split}.txt").read_text().split())


@pytest.mark.slow
def test_wvlcdl_is_read_in_pixels_of_three_metres_and_only_its_polygons_are_labelled(runs):
    run = runs("wvlcdl")
    chips = Chips.open(run / "chips")
    assert len(chips.classes) == 7
    assert chips.metadata.pixel_size == pytest.approx(3, rel=0.01)
    with rasterio.open(next((run / "maps").glob("*.tif"))) as mapped:
        assert mapped.res == pytest.approx((3, 3), rel=0.01)
        # Codes of the map are those of the column, from 1.
        assert set(np.unique(mapped.read(1))) <= {*range(1, 8), 255}
    # The points beside the polygons are an independent reference.
    reference = json.loads((run / "assessment_reference.json").read_text())
    assert reference["reference"] == "validation_points.shp"
    points = gpd.read_file(run.parent / "data" / "validation_points.shp")
    assert reference["pixels"] + reference["unmapped_pixels"] == len(points) > 90
    assert [row["name"] for row in reference["classes"]][:2] == ["barren", "cropland"]
    assert "Against validation_points.shp" in (run / "report.html").read_text()
    labelled = chips.counts.sum() / (len(chips) * 32 * 32)
    assert 0.1 < labelled < 0.6


def written_by_the_publisher(data):
    """`output/` as the publisher's script writes it: whole chips as PNG, and their masks with the suffix _m."""
    (data / "output").mkdir()
    for image in sorted((data / "images").iterdir()):
        with rasterio.open(image) as photo, rasterio.open(data / "masks" / image.name) as mask:
            number = 0
            for row in range(0, photo.height, 128):
                for col in range(0, photo.width, 128):
                    window = rasterio.windows.Window(col, row, 128, 128)
                    if row + 128 <= photo.height and col + 128 <= photo.width:
                        name = f"{image.stem}_{number}"
                        worlds.write_raster(
                            data / f"output/{name}.png", photo.read(window=window), crs=None, transform=None
                        )
                        worlds.write_raster(
                            data / f"output/{name}_m.png", mask.read(1, window=window), crs=None, transform=None
                        )
                    number += 1
    for part in ("images", "masks"):
        shutil.rmtree(data / part)


def test_landcoverai_has_the_same_pixels_masks_and_splits_from_output_as_from_the_orthophotos(tmp_path, drawn):
    recipe = recipe_like("landcoverai", drawn("landcoverai", tmp_path / "a"), tmp_path)
    first = verbs.chip(recipe, size=128, out=tmp_path / "of_a")
    data = drawn("landcoverai", tmp_path / "b")
    written_by_the_publisher(data)
    second = verbs.chip(verbs.new(tmp_path / "b.toml", like="landcoverai", data=data), size=128, out=tmp_path / "of_b")
    numbers = first.table["scene"] + "_" + (3 * (first.table["row"] // 128) + first.table["col"] // 128).astype(str)
    index_of = {name: index for index, name in enumerate(second.scene_names.tolist())}
    assert set(numbers) == set(index_of)
    readers = ChipReader(first), ChipReader(second)
    for index, name in enumerate(numbers):
        ours, theirs = readers[0].read(index), readers[1].read(index_of[name])
        np.testing.assert_array_equal(ours.pixels, theirs.pixels)
        np.testing.assert_array_equal(ours.mask, theirs.mask)
        assert first.splits[index] == second.splits[index_of[name]]


def test_maps_of_one_quadrangle_from_several_years_are_held_out_together(tmp_path, drawn):
    data = drawn("topodl", tmp_path / "data")
    for file in [file for part in ("topos", "mines", "quads") for file in (data / f"ky_{part}").iterdir()]:
        shutil.copy(file, file.with_name(file.name.replace("_1954_", "_1976_")))
    chips = verbs.chip(recipe_like("topodl", data, tmp_path), size=32, out=tmp_path / "chips")
    quadrangles = chips.table[chips.group_names == "Kentucky"].assign(
        quadrangle=chips.table["scene"].str.split("_").str[1]
    )
    assert quadrangles.groupby("quadrangle")["scene"].nunique().eq(2).all()
    assert quadrangles.groupby("quadrangle")["split"].nunique().eq(1).all()
    # The other states are test, but Kentucky has its own part, too.
    assert set(quadrangles["split"]) == {"train", "val", "test"}


@pytest.mark.slow
def test_every_map_of_a_run_is_written_and_none_carries_the_nodata_value_of_its_image(runs):
    # One script stopped a map early; another copied the image's nodata value, 0, onto class 0.
    for name in EXAMPLES:
        run = runs(name)
        recipe = Recipe.load(run / "recipe.toml")
        maps = sorted((run / "maps").glob("*.tif"))
        assert len(maps) == len(recipe.listed().scenes)
        for path in maps:
            with rasterio.open(path) as mapped:
                assert mapped.nodata == 255
                assert 255 not in Chips.open(run / "chips").classes.values


@pytest.mark.slow
def test_chips_have_the_rows_and_cols_of_their_scene_not_turned(runs):
    # R's arrays are filled by column: its chips were transposed, and the map was not.
    chips = Chips.open(runs("topodl") / "chips")
    reader, images = ChipReader(chips), chips.images()
    for index in range(0, len(chips), 7):
        row = chips.table.iloc[index]
        pixels, valid = images[row["scene"]].read(chips.windows[index])
        np.testing.assert_array_equal(reader.read(index).pixels, pixels * valid)
        assert not np.array_equal(pixels, pixels.transpose(0, 2, 1))


@pytest.mark.slow
def test_no_chip_is_in_two_splits_and_the_epoch_is_chosen_on_other_chips_than_the_map_is_assessed_on(runs):
    # One script assessed on the set that had chosen the epoch, another loaded its test set twice.
    for name in EXAMPLES:
        chips = Chips.open(runs(name) / "chips")
        assert not chips.table.duplicated(["scene", "row", "col"]).any()
        assessment = json.loads((runs(name) / "assessment.json").read_text())
        splits = set(chips.splits)
        assert assessment["split"] == next(split for split in ("test", "val", "train") if split in splits)


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ({"reference": "gone.shp", "reference_field": "GrndTruth"}, "gone.shp"),
        ({"reference_field": "Truth"}, "'Truth'"),
        ({"reference_field": None}, "--reference-field"),
        ({"reference": "validation_points.shp", "reference_field": "code"}, "column 'code'"),
    ],
)
def test_a_reference_that_cannot_be_used_is_refused_before_anything_is_trained(tmp_path, drawn, reference, words):
    data = drawn("wvlcdl", tmp_path / "data")
    points = gpd.read_file(data / "validation_points.shp")
    points.assign(code=9).to_file(data / "validation_points.shp")
    recipe = Recipe.load(recipe_like("wvlcdl", data, tmp_path))
    stated = {name: str(data / value) if name == "reference" else value for name, value in reference.items()}
    changed = recipe.with_settings({"assess": recipe.assess.model_dump() | stated})
    (error,) = verbs.check(changed, trial=False).errors
    assert error.startswith("the independent reference: ")
    assert words in error


def test_topodl_from_classified_tiles_has_the_classes_pixels_and_masks_of_its_chips(tmp_path, drawn):
    first = verbs.chip(recipe_like("topodl", drawn("topodl", tmp_path / "data"), tmp_path), size=32, out=tmp_path / "a")
    tiles = verbs.export(first, out=tmp_path / "tiles", to="esri")
    second = verbs.chip(images=[tiles], labels=None, size=32, out=tmp_path / "b")
    assert second.classes.names == first.classes.names == ("background", "mine")
    readers = ChipReader(first), ChipReader(second)
    by_name = {name: index for index, name in enumerate(second.scene_names.tolist())}
    for index in range(len(first)):
        ours, theirs = readers[0].read(index), readers[1].read(by_name[f"{index:09d}"])
        np.testing.assert_array_equal(ours.pixels, theirs.pixels)
        np.testing.assert_array_equal(first.classes.to_indices(ours.mask), second.classes.to_indices(theirs.mask))
