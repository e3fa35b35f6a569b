"""A run folder is begun, gone on with, or refused."""

import json
import shutil
from pathlib import Path

import geopandas as gpd
import pytest

from landscribe.errors import OutputError
from landscribe.experiments.run_folder import begun_settings, take_folder
from landscribe.recipe import Recipe
from landscribe.runs import Run
from worlds import noise, pixel_box, write_polygons, write_raster

CONTENT = ("chips/chips.json", "model/config.json", "map.tif", "map.gpkg", "report.html", "notes.txt")


@pytest.fixture
def recipe(tmp_path) -> Recipe:
    image = write_raster(tmp_path / "scene.tif", noise(3, 64, 64))
    labels = write_polygons(tmp_path / "labels.gpkg", [pixel_box(2, 3, 20, 26)], kind=["house"])
    scene = {"image": [str(image)], "labels": str(labels), "label_field": "kind"}
    return Recipe.of({"scenes": [scene], "train": {"effort": "quick", "steps": 7}})


@pytest.fixture
def run(tmp_path, recipe) -> Run:
    """A run of the recipe, as if its steps had ended, and a file of the user."""
    files = Run(tmp_path / "run")
    with take_folder(files, recipe, overwrite=False):
        write(files.folder, *CONTENT)
    return files


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def content(run: Run) -> set[str]:
    return {name for name in CONTENT if (run.folder / name).exists()}


def take(run: Run, recipe: Recipe, *, overwrite: bool = False, **settings: dict) -> None:
    with take_folder(run, recipe.with_settings(settings), overwrite=overwrite):
        pass


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"train": {"workers": 3, "log": "logs", "devices": 2}},
        {"predict": {"device": "cpu", "dask": "auto", "check_seams": True}, "chips": {"dask": "auto"}},
        {"assess": {"confidence": 0.9}, "vectorize": {"minimum_area": 5}},
    ],
    ids=["the same", "reading and log", "where work is done", "assessment and polygons"],
)
def test_a_run_goes_on_with_settings_that_change_no_chip_model_or_map(run, recipe, settings):
    take(run, recipe, **settings)
    assert content(run) == set(CONTENT)


def test_a_run_of_a_version_without_some_settings_of_scenes_goes_on(run, recipe):
    fields = json.loads(run.fingerprint_file.read_text())
    for setting in ("band_numbers", "resample", "nodata_rule"):
        del fields["learning"]["scenes"][0][setting]
    run.fingerprint_file.write_text(json.dumps(fields))
    take(run, recipe)
    assert content(run) == set(CONTENT)
    scene = recipe.scenes[0].model_copy(update={"band_numbers": (1, 2)})
    with pytest.raises(OutputError, match=r"scenes\.0\.band_numbers \("):
        take(run, recipe.model_copy(update={"scenes": (scene,)}))


@pytest.mark.parametrize(
    ("settings", "difference"),
    [
        ({"train": {"steps": 9}}, r"train\.steps \(7, now 9\)"),
        ({"chips": {"size": 64}}, r"chips\.size \(256, now 64\)"),
        ({"models": {"final": "none"}}, r"models\.final \(auto, now none\)"),
    ],
)
def test_a_run_of_other_settings_is_refused_and_removed_with_overwrite(run, recipe, settings, difference):
    with pytest.raises(OutputError, match=rf"holds a run with another {difference}\. .*--overwrite"):
        take(run, recipe, **settings)
    assert content(run) == set(CONTENT)
    take(run, recipe, overwrite=True, **settings)
    assert content(run) == {"notes.txt"}
    take(run, recipe, **settings)


def test_a_run_whose_labels_were_edited_is_refused_and_removed_with_overwrite(run, recipe):
    labels = recipe.scenes[0].labels
    table = gpd.read_file(labels)
    table.geometry = table.translate(3)
    table.to_file(labels)
    with pytest.raises(OutputError, match=r"holds a run of files that have changed: .*labels\.gpkg, changed since"):
        take(run, recipe)
    assert content(run) == set(CONTENT)
    take(run, recipe, overwrite=True)
    assert content(run) == {"notes.txt"}


def test_a_run_whose_file_of_weights_was_replaced_is_refused(tmp_path, recipe):
    (tmp_path / "w.pth").write_bytes(b"1")
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"weights": str(tmp_path / "w.pth")})})
    files = Run(tmp_path / "new")
    take(files, recipe)
    write(files.folder, "chips/chips.json")
    take(files, recipe)
    (tmp_path / "w.pth").write_bytes(b"2")
    with pytest.raises(
        OutputError, match=r"another train\.weights \(w\.pth, sha256 6b86b\w*, now w\.pth, sha256 d4735"
    ):
        take(files, recipe)


def test_a_run_of_other_scenes_is_refused_and_removed_with_overwrite(tmp_path, run, recipe):
    image = write_raster(tmp_path / "other.tif", noise(3, 64, 64))
    other = recipe.model_copy(update={"scenes": (recipe.scenes[0].model_copy(update={"image": (str(image),)}),)})
    more = recipe.model_copy(update={"scenes": (*recipe.scenes, *other.scenes)})
    for changed, difference in ((other, r"scenes\.0\.image"), (more, r"scenes \(1, now 2\)")):
        with pytest.raises(OutputError, match=f"holds a run with another {difference}"):
            take(run, changed)
        assert content(run) == set(CONTENT)
    take(run, other, overwrite=True)
    assert content(run) == {"notes.txt"}


def test_other_settings_of_maps_keep_chips_and_model(run, recipe):
    with pytest.raises(OutputError, match=r"holds maps with another predict\.tile \(auto, now 64\)\. .*--overwrite"):
        take(run, recipe, predict={"tile": 64})
    take(run, recipe, overwrite=True, predict={"tile": 64})
    assert content(run) == {"chips/chips.json", "model/config.json", "notes.txt"}
    # Without a finished map, as after a tile that did not fit in memory.
    write(run.folder, "map.tif.parts/0.npy")
    take(run, recipe, predict={"tile": 32})
    assert not (run.folder / "map.tif.parts").exists()
    assert (run.folder / "model/config.json").exists()


def test_maps_of_other_settings_that_are_assessed_are_removed_too(run, recipe):
    write(run.folder, "assessed/model/config.json", "assessed/map.tif")
    take(run, recipe, overwrite=True, predict={"tile": 64})
    assert (run.folder / "assessed/model/config.json").exists()
    assert not (run.folder / "assessed/map.tif").exists()


def test_unfinished_maps_of_folds_with_other_settings_are_removed_and_models_stay(run, recipe):
    shutil.rmtree(run.model_folder)
    for name in ("map.tif", "map.gpkg"):
        (run.folder / name).unlink()
    write(run.folder, "folds/fold_1/config.json", "folds/parts/map_fold_1.tif")
    take(run, recipe, predict={"tile": 64})
    assert [path.name for path in run.folds_folder.iterdir()] == ["fold_1"]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["chips/chips.json", "model/config.json", "map.tif"])
def test_chips_models_and_maps_that_no_run_made_are_refused(tmp_path, recipe, name, overwrite):
    files = Run(tmp_path / "mine")
    write(files.folder, name)
    with pytest.raises(OutputError, match=rf"mine holds {name.partition('/')[0]}, but no readable fingerprint\.json"):
        take(files, recipe, overwrite=overwrite)
    assert [path.name for path in files.folder.rglob("*") if path.is_file()] == [Path(name).name]


def test_a_recipe_that_was_edited_in_its_run_folder_is_compared_with_what_the_run_did(run, recipe):
    edited = run.recipe_file.read_text().replace("steps = 7", "steps = 9")
    run.recipe_file.write_text(edited)
    with pytest.raises(OutputError, match=r"another train\.steps \(7, now 9\)"):
        take(run, Recipe.load(run.recipe_file))


@pytest.mark.parametrize("text", ['{"learn', "[]", '{"seed": 0}', '{"learning": 1, "maps": {}, "files": {}}'])
def test_a_fingerprint_that_no_run_wrote_is_refused_with_what_the_folder_holds(run, recipe, text):
    run.fingerprint_file.write_text(text)
    assert begun_settings(run, recipe, ["batch"]) is None
    with pytest.raises(OutputError, match=r"holds chips, .* but no readable fingerprint\.json"):
        take(run, recipe, overwrite=True)
    assert content(run) == set(CONTENT)


def test_a_damaged_recipe_file_is_written_anew(run, recipe):
    run.recipe_file.write_text("foo = [")
    take(run, recipe)
    assert Recipe.load(run.recipe_file).train.steps == 7


@pytest.mark.parametrize("is_begun", [False, True])
def test_a_step_that_fails_leaves_nothing_of_a_new_run_and_all_of_a_begun_one(tmp_path, run, recipe, is_begun):
    files = run if is_begun else Run(tmp_path / "deep" / "new")
    with pytest.raises(KeyboardInterrupt), take_folder(files, recipe, overwrite=False):
        raise KeyboardInterrupt
    assert (tmp_path / "deep").exists() is False
    assert content(run) == set(CONTENT)
    assert json.loads(run.fingerprint_file.read_text())["learning"]["train"]["steps"] == 7


def test_a_recipe_that_lay_in_the_folder_of_a_new_run_comes_back_if_the_run_fails(tmp_path, recipe):
    files = Run(tmp_path / "new")
    write(files.folder, "recipe.toml")
    with pytest.raises(KeyboardInterrupt), take_folder(files, recipe, overwrite=True):
        raise KeyboardInterrupt
    assert [(path.name, path.read_text()) for path in files.folder.iterdir()] == [("recipe.toml", "recipe.toml")]


def test_a_new_run_that_fails_after_its_chips_were_cut_goes_on(tmp_path, recipe):
    files = Run(tmp_path / "new")

    def fail_after_chips() -> None:
        with take_folder(files, recipe, overwrite=False):
            write(files.folder, "chips/chips.json")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_after_chips()
    take(files, recipe)
    assert content(files) == {"chips/chips.json"}


def test_a_run_that_was_killed_before_it_had_chips_takes_other_settings(tmp_path, recipe):
    files = Run(tmp_path / "new")
    take(files, recipe)
    take(files, recipe, train={"steps": 9})
    assert Recipe.load(files.recipe_file).train.steps == 9


def test_a_removal_that_is_killed_leaves_no_part_of_a_folder_under_its_name(run, recipe, monkeypatch):
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        take(run, recipe, overwrite=True, train={"steps": 9})
    assert not run.chips_folder.exists()
    assert run.model_folder.exists()
