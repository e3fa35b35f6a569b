"""The command line: what it loads, prints and returns, and each verb alone on files that the others left."""

import contextvars
import dataclasses
import io
import json
import logging
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

import forked
import worlds
from landscribe import verbs
from landscribe.commands import app as cli
from landscribe.data.chips.chips import Chips
from landscribe.errors import RecipeError
from landscribe.inference import benchmark, pruning
from landscribe.model import Model
from landscribe.nn import build
from landscribe.recipe import Recipe

VERBS = sorted(str(command.name or command.callback.__name__) for command in cli.app.registered_commands)
QUICK = ("--encoder", "test_efficientnet", "--weights", "none", "--steps", 2, "--batch", 2)


@dataclasses.dataclass(frozen=True)
class Said:
    """What a command answered."""

    code: int
    out: str
    err: str


def landscribe(*arguments: object) -> Said:
    """The command line, run in this process."""
    out, err = io.StringIO(), io.StringIO()
    loggers = [logging.getLogger(name) for name in ("landscribe", "rasterio")]
    before = [(logger, list(logger.handlers), logger.level, logger.propagate) for logger in loggers]
    typed, sys.argv = sys.argv, ["landscribe", *map(str, arguments)]
    try:
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
            # A context of its own, so that the bars that it shows end with it.
            contextvars.copy_context().run(cli.main)
    finally:
        sys.argv = typed
        for logger, handlers, level, propagate in before:
            logger.handlers[:], logger.level, logger.propagate = handlers, level, propagate
    code = ended.value.code
    return Said(code if isinstance(code, int) else 1, out.getvalue(), err.getvalue())


# ---- what is loaded


def loaded_by(code: str) -> set[str]:
    """The top-level modules that are loaded after some code ran in a process of its own."""
    listing = "; import sys; print(*{name.split('.')[0] for name in sys.modules}, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code + listing], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_importing_the_package_loads_neither_torch_nor_gdal():
    assert not loaded_by("import landscribe") & {"torch", "rasterio", "geopandas", "pandas", "numpy", "lightning"}


def test_drawing_and_assessing_a_sample_loads_no_torch(tmp_path):
    mapped = worlds.write_raster(tmp_path / "map.tif", np.repeat(np.uint8([[1], [2]]), 40, axis=0).repeat(40, axis=1))
    points = tmp_path / "points.csv"
    code = (
        f"import landscribe as ls; ls.sample({str(mapped)!r}, out={str(points)!r}, size=20)\n"
        f"import pandas as pd; table = pd.read_csv({str(points)!r}); table['reference'] = table['map']\n"
        f"table.to_csv({str(points)!r}, index=False); ls.assess({str(mapped)!r}, reference={str(points)!r})"
    )
    assert not loaded_by(code) & {"torch", "lightning"}


def test_images_that_cannot_be_joined_are_refused_before_torch_is_loaded(tmp_path):
    one, two = (worlds.write_raster(tmp_path / f"{bands}.tif", worlds.noise(bands, 8, 8)) for bands in (1, 2))
    code = (
        f"import landscribe as ls\ntry: ls.predict('model', [{str(one)!r}, {str(two)!r}], out='map.tif', mosaic=True)\n"
        "except ls.LandscribeError as error: assert 'same bands in all rasters of a mosaic' in str(error)\nls"
    )
    assert not loaded_by(code) & {"torch", "lightning"}


def test_a_report_of_an_unfinished_run_is_refused_before_torch_is_loaded(tmp_path):
    (tmp_path / "chips").mkdir()
    code = (
        f"import landscribe as ls\ntry: ls.report({str(tmp_path)!r})\n"
        "except ls.LandscribeError as error: assert 'assessment.json' in str(error)\nls"
    )
    assert not loaded_by(code) & {"torch", "lightning"}


def test_a_flag_of_another_command_is_answered_with_that_command():
    for verb, flag, owner in (
        ("train", "--size", "chip"),
        ("chip", "--epochs", "train"),
        ("assess", "--tta", "predict"),
    ):
        said = landscribe(verb, "x", flag, 64).err
        assert f"No such option: {flag}, which landscribe {owner} has. See" in said
    assert "(Possible options: --batch" in landscribe("train", "x", "--btch", 2).err


def test_help_loads_nothing_heavy():
    code = "import sys; sys.argv = ['landscribe', '--help']\nfrom landscribe.commands.app import main\n"
    loaded = loaded_by(code + "try: main()\nexcept SystemExit as ended: assert not ended.code\nsys")
    assert "typer" in loaded
    assert not loaded & {"torch", "rasterio", "geopandas", "pandas", "numpy", "pydantic", "lightning", "matplotlib"}


@pytest.mark.parametrize("verb", ["run", "train", "predict"])
def test_help_of_a_verb_loads_neither_torch_nor_gdal(verb):
    code = f"import sys; sys.argv = ['landscribe', '{verb}', '--help']\nfrom landscribe.commands.app import main\n"
    loaded = loaded_by(code + "try: main()\nexcept SystemExit as ended: assert not ended.code\nsys")
    assert not loaded & {"torch", "rasterio", "geopandas", "pandas", "numpy", "lightning", "matplotlib"}


# ---- asking for help, and being misunderstood


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb):
    said = landscribe(verb, "--help")
    assert said.code == 0
    assert f"landscribe {verb}" in said.out
    assert "--json" in said.out
    # Words of Python.
    assert not any(word in said.out for word in ("<str>", "list["))


def test_help_says_a_default_of_0():
    options = landscribe("sample", "--help").out + landscribe("train", "--help").out
    texts = " ".join(options.replace("│", " ").split())
    assert "--seed <int> Random seed. [default: 0]" in texts
    assert "the averaged weights. [default: 0]" in texts


def test_a_path_is_printed_as_json_by_its_name(tmp_path):
    said = landscribe("new", tmp_path / "scene.toml", "--json")
    assert json.loads(said.out) == {"recipe": str(tmp_path / "scene.toml")}


def test_no_verb_at_all_is_answered_with_help():
    said = landscribe()
    assert said.code == 2
    assert all(verb in said.out + said.err for verb in VERBS)


MISUSES = {
    "an unknown verb": (("chipp",), ("'chipp'", "'chip'", "landscribe --help")),
    "an unknown option": (("predict", "m", "i", "-o", "o", "--tlie", 3), ("--tlie", "--tile", "predict --help")),
    "a missing option": (("predict", "m", "i"), ("--out", "landscribe predict --help")),
    "a missing argument": (("train", "--out", "o"), ("chips", "landscribe train --help")),
    "a word for a number": (("chip", "--out", "o", "--size", "big"), ("--size", "landscribe chip --help")),
}  # fmt: skip


@pytest.mark.parametrize("kind", MISUSES)
def test_a_misuse_is_answered_in_one_line(kind):
    arguments, words = MISUSES[kind]
    said = landscribe(*arguments)
    (line,) = said.err.splitlines()
    assert (said.code, said.out) == (2, "")
    assert line.startswith("landscribe: ")
    assert all(word in line for word in words), line


# ---- each verb on the files of the others


@dataclasses.dataclass(frozen=True)
class Made:
    """A folder in which each verb left its files, and what each printed with --json."""

    folder: Path
    said: dict[str, Said]

    def __truediv__(self, name: str) -> Path:
        return self.folder / name


TRUTH = np.zeros((192, 192), np.uint8)
TRUTH[10:90, 10:60], TRUTH[100:180, 20:150], TRUTH[20:60, 100:170] = 1, 2, 1


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Made:
    """A world of 192 x 192 pixels with the classes field (1) and house (2), chipped, trained on, mapped."""
    folder = tmp_path_factory.mktemp("made")
    image = worlds.noise(3, 192, 192) // 2 + 40 * TRUTH
    worlds.write_raster(folder / "scene.tif", image, descriptions=("red", "green", "blue"))
    boxes = [worlds.pixel_box(10, 10, 80, 50), worlds.pixel_box(100, 20, 80, 130), worlds.pixel_box(20, 100, 40, 70)]
    labels = {"class": ["field", "house", "field"]}
    worlds.write_polygons(folder / "labels.geojson", boxes, **labels)
    worlds.write_polygons(folder / "points.gpkg", [box.centroid for box in boxes], **labels)
    worlds.write_raster(folder / "truth.tif", TRUTH)
    scene = ("--image", folder / "scene.tif", "--labels", folder / "labels.geojson", "--label-field", "class")
    commands = {
        "check": ("check", *scene, "--size", 32, "--no-trial"),
        "chip": ("chip", *scene, "--size", 32, "--out", folder / "chips"),
        "train": ("train", folder / "chips", *QUICK, "--out", folder / "model"),
        "predict": ("predict", folder / "model", folder / "scene.tif", "--out", folder / "map.tif"),
        "assess": (
            "assess", folder / "map.tif", "--reference", folder / "labels.geojson", "--label-field", "class",
        ),
    }  # fmt: skip
    said = {}
    for verb, command in commands.items():
        said[verb] = landscribe(*command, "--json")
        assert said[verb].code == 0, said[verb]
    return Made(folder, said)


JSON_KEYS = {
    "check": {"findings", "forecast"},
    "chip": {"chips", "count", "splits", "classes"},
    "train": {"model", "measures"},
    "predict": {"maps", "areas"},
    "assess": {"maps", "reference", "pixels", "overall_accuracy", "mean_f1", "mean_iou", "classes"},
}


@pytest.mark.parametrize("verb", JSON_KEYS)
def test_with_json_stdout_is_one_json_object_and_nothing_else(verb, made):
    assert set(json.loads(made.said[verb].out)) >= JSON_KEYS[verb]


def test_chips_are_counted_as_they_are(made):
    printed, chips = json.loads(made.said["chip"].out), Chips.open(made / "chips")
    assert printed["count"] == len(chips) == sum(printed["splits"].values()) == 36
    assert printed["classes"] == list(chips.classes.names) == ["background", "field", "house"]


def test_the_map_lies_on_the_scene(made):
    with rasterio.open(made / "scene.tif") as scene, rasterio.open(made / "map.tif") as mapped:
        assert (mapped.shape, mapped.transform, mapped.crs) == (scene.shape, scene.transform, scene.crs)


REFERENCES = {
    "polygons": ("labels.geojson", "--label-field", "class"),
    "a label raster": ("truth.tif",),
    "points": ("points.gpkg", "--label-field", "class"),
    "chips": ("chips", "--split", "train"),
}


@pytest.mark.parametrize("kind", REFERENCES)
def test_a_map_is_assessed_against(kind, made):
    name, *more = REFERENCES[kind]
    said = landscribe("assess", made / "map.tif", "--reference", made / name, *more, "--json")
    assert said.code == 0, said
    assert [row["name"] for row in json.loads(said.out)["classes"]] == ["background", "field", "house"]


def test_polygons_and_the_raster_that_they_make_give_the_same_measures(made):
    named, *more = REFERENCES["polygons"]
    polygons = landscribe("assess", made / "map.tif", "--reference", made / named, *more, "--json")
    raster = landscribe("assess", made / "map.tif", "--reference", made / "truth.tif", "--json")
    of_polygons, of_raster = (json.loads(said.out) for said in (polygons, raster))
    # The polygons are those of the training.
    assert of_polygons.pop("caveat").startswith("The network was trained on labels of this file")
    assert of_polygons | {"reference": "truth.tif"} == of_raster


def test_a_perfect_map_is_assessed_as_perfect(made, tmp_path):
    worlds.write_raster(tmp_path / "map.tif", TRUTH)
    said = landscribe("assess", tmp_path / "map.tif", "--reference", made / "truth.tif", "--json")
    assert json.loads(said.out)["mean_f1"] == 1


def test_an_assessment_is_written_as_it_is_printed(made, tmp_path):
    reference = ("--reference", made / "truth.tif")
    said = landscribe("assess", made / "map.tif", *reference, "--out", tmp_path / "new" / "a.json", "--json")
    assert json.loads((tmp_path / "new" / "a.json").read_text()) == json.loads(said.out)


def test_objects_are_assessed_one_to_one_and_written_as_printed(made, tmp_path):
    command = ("assess", made / "labels.geojson", "--reference", made / "labels.geojson", "--objects", "--tolerance", 1)
    said = landscribe(*command, "--label-field", "class", "--out", tmp_path / "objects.json", "--json")
    assert json.loads((tmp_path / "objects.json").read_text()) == json.loads(said.out)
    assert [row["name"] for row in json.loads(said.out)["classes"]] == ["field", "house"]
    table = landscribe(*command).out
    assert "labels.geojson against labels.geojson" in table
    assert "0.95                1.000   1.000  1.000" in table
    assert "boundary F1" in table
    assert "AP" not in table  # the objects have no scores


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("map.tif", "--tolerance", 1), "--tolerance is about objects. Pass --objects too"),
        (("map.tif", "map.tif", "--objects"), "--objects takes one file of polygons"),
        (("labels.geojson", "--objects", "--split", "val"), "--split is about pixels, not objects. Leave it out"),
        (("labels.geojson", "--objects", "--seed", 3), "--seed is about pixels, not objects. Leave it out"),
        (("map.tif", "--objects"), "map.tif cannot be read as vector features"),
        (("labels.geojson",), "holds features, not pixels. Expected a class map; or pass --objects"),
    ],
)
def test_pixels_and_objects_are_not_mistaken_for_each_other(arguments, words, made, monkeypatch):
    monkeypatch.chdir(made.folder)
    said = landscribe("assess", *arguments, "--reference", "labels.geojson")
    assert said.code == 2
    assert words in said.err


@pytest.mark.parametrize("reference", ["labels.geojson", "points.gpkg"])
def test_features_of_several_classes_need_a_class_column(reference, made):
    said = landscribe("assess", made / "map.tif", "--reference", made / reference)
    assert said.code == 2
    assert reference in said.err
    assert "--label-field" in said.err


def test_without_json_a_verb_says_its_result_in_words(made, tmp_path):
    said = landscribe("predict", made / "model", made / "scene.tif", "--out", tmp_path / "map.tif")
    assert said.out == f"{tmp_path / 'map.tif'}\n"
    assert said.err.splitlines()[0].startswith("mapping scene: ")


def test_progress_on_a_mosaic_says_how_many_files_it_has(made, tmp_path):
    folder = tmp_path / "tiles"
    folder.mkdir()
    with rasterio.open(made / "scene.tif") as scene:
        half = scene.width // 2
        for name, left in (("west", 0), ("east", half)):
            window = rasterio.windows.Window(left, 0, half, scene.height)
            shape = {"width": half, "transform": scene.transform @ Affine.translation(left, 0)}
            with rasterio.open(folder / f"{name}.tif", "w", **scene.profile | shape) as tile:
                tile.write(scene.read(window=window))
    said = landscribe("predict", made / "model", folder, "--mosaic", "--out", tmp_path / "map.tif")
    assert said.err.splitlines()[0].startswith("mapping east and 1 more file: ")


def test_several_rasters_are_mapped_in_one_call(made, tmp_path):
    other = tmp_path / "other.tif"
    other.write_bytes((made / "scene.tif").read_bytes())
    said = landscribe("predict", made / "model", made / "scene.tif", other, "--out", tmp_path / "maps", "--json")
    results = json.loads(said.out)
    assert [Path(name).name for name in results["maps"]] == ["scene.tif", "other.tif"]
    for place, areas in results["areas"].items():
        with rasterio.open(place) as source:
            assert sum(area["pixels"] for area in areas.values()) == (source.read(1) != source.nodata).sum()
    one, two = (rasterio.open(tmp_path / "maps" / name).read(1) for name in ("scene.tif", "other.tif"))
    assert (one == two).all()


def test_files_with_commas_and_those_of_a_folder_with_stack_are_bands_of_one_raster(made, tmp_path):
    with rasterio.open(made / "scene.tif") as scene:
        for name, band in zip(("red", "green", "blue"), scene.read(), strict=True):
            worlds.write_raster(tmp_path / f"{name}.tif", band)
    stack = ",".join(str(tmp_path / f"{name}.tif") for name in ("red", "green", "blue"))
    assert landscribe("predict", made / "model", stack, "--out", tmp_path / "map.tif").code == 0
    (tmp_path / "bands").mkdir()
    for name in ("red", "green", "blue"):
        (tmp_path / f"{name}.tif").rename(tmp_path / "bands" / f"{name}.tif")
    folder = ("predict", made / "model", tmp_path / "bands", "--stack", "--out", tmp_path / "of_folder.tif")
    assert landscribe(*folder).code == 0
    with rasterio.open(made / "map.tif") as whole:
        for name in ("map", "of_folder"):
            with rasterio.open(tmp_path / f"{name}.tif") as stacked:
                assert (stacked.read(1) == whole.read(1)).all()


def test_bands_are_taken_in_the_order_that_is_asked_for(made, tmp_path):
    with rasterio.open(made / "scene.tif") as scene:
        pixels = scene.read()
    worlds.write_raster(tmp_path / "bgr.tif", pixels[::-1], descriptions=("blue", "green", "red"))
    turned = ("predict", made / "model", tmp_path / "bgr.tif", "--bands", "3,2,1", "--out", tmp_path / "map.tif")
    assert landscribe(*turned).code == 0
    with rasterio.open(tmp_path / "map.tif") as mapped, rasterio.open(made / "map.tif") as straight:
        assert (mapped.read(1) == straight.read(1)).all()


# ---- recipes


def test_a_new_recipe_is_understood_once_its_paths_are_filled_in(made, tmp_path):
    place = tmp_path / "mine" / "recipe.toml"
    assert landscribe("new", place).out == f"{place}\n"
    text = place.read_text().replace('"scene.tif"', f'"{made / "scene.tif"}"')
    text = text.replace('"labels.geojson"', f'"{made / "labels.geojson"}"').replace(
        "# label_field =", 'label_field = "class"'
    )
    place.write_text(text)
    said = landscribe("check", place, "--no-trial", "--json")
    assert said.code == 0, said
    assert json.loads(said.out)["forecast"]["chips"] == 1


def test_a_run_goes_on_with_a_recipe_that_says_what_its_flags_said(made, tmp_path):
    flags = ("--image", made / "scene.tif", "--labels", made / "labels.geojson", "--label-field", "class", "--size", 32)
    by_flags = landscribe("run", *flags, *QUICK, "--out", tmp_path / "run", "--json")
    assert by_flags.code == 0, by_flags
    scene = {"image": [str(made / "scene.tif")], "labels": str(made / "labels.geojson"), "label_field": "class"}
    train = {"encoder": "test_efficientnet", "weights": "none", "steps": 2, "batch": 2}
    Recipe.of({"scenes": [scene], "chips": {"size": 32}, "train": train}).save(tmp_path / "recipe.toml")
    by_recipe = landscribe("run", tmp_path / "recipe.toml", "--out", tmp_path / "run", "--json")
    assert (by_recipe.code, by_recipe.out) == (0, by_flags.out), by_recipe.err
    assert "training" not in by_recipe.err


def test_flags_lie_over_a_recipe(made, tmp_path):
    scene = {"image": [str(made / "scene.tif")], "labels": str(made / "labels.geojson"), "label_field": "class"}
    Recipe.of({"scenes": [scene], "chips": {"size": 64}}).save(tmp_path / "recipe.toml")
    said = landscribe("check", tmp_path / "recipe.toml", "--size", 32, "--no-trial", "--json")
    assert json.loads(said.out)["forecast"]["chips"] == 36


def test_a_class_table_names_the_classes_of_masks_of_numbers(tmp_path):
    scene = worlds.write_raster(tmp_path / "scene.tif", worlds.noise(3, 32, 32))
    mask = worlds.write_raster(tmp_path / "mask.tif", np.repeat([[1, 2]], 16, 1).repeat(32, 0).astype(np.uint8))
    table, recipe = tmp_path / "classes.csv", tmp_path / "recipe.toml"
    chip = ("--size", 16, "--json", "--overwrite", "--out", tmp_path / "chips")
    of_files = ("chip", "--image", scene, "--labels", mask, "--class-table", table, *chip)
    table.write_text("value,name,colour\n1,forest,#145a32\n2,other,\n")
    assert json.loads(landscribe(*of_files).out)["classes"] == ["forest", "other"]
    assert Chips.of(tmp_path / "chips").classes.entries[0].colour == "#145a32"
    # The number in the masks is the label, where it is not the value.
    table.write_text("value,name,label\n0,other,2\n7,forest,1\n")
    assert json.loads(landscribe(*of_files).out)["classes"] == ["other", "forest"]
    assert Chips.of(tmp_path / "chips").classes.values == (0, 7)
    # It takes the place of the classes of a recipe.
    recipe.write_text(f'[[scenes]]\nimage = "{scene}"\nlabels = "{mask}"\n' + '[[classes]]\nname = "a"\nvalue = 1\n')
    assert json.loads(landscribe("chip", recipe, "--class-table", table, *chip).out)["classes"] == ["other", "forest"]


@pytest.mark.parametrize("table", ["", 3, ["t.csv"]])
def test_a_class_table_that_is_no_path_is_refused(tmp_path, table):
    with pytest.raises(RecipeError, match=r"'class_table' is .*; expected (a path|text)"):
        verbs.chip(images=["a.tif"], labels="b.tif", class_table=table, out=tmp_path / "chips")


def test_a_class_table_and_classes_are_not_both_taken(tmp_path):
    rows = [{"name": "a", "value": 1}]
    with pytest.raises(RecipeError, match=r"classes and class_table \(t.csv\) were both given"):
        verbs.chip(images=["a.tif"], labels="b.tif", classes=rows, class_table="t.csv", out=tmp_path / "chips")


def test_the_version_is_told():
    said = landscribe("--version")
    assert (said.code, said.out) == (0, f"landscribe {version('landscribe')}\n")


# ---- interruptions and mistakes of our own

SLOW = """
import os, time, torch
class Slow(torch.nn.Module):
    "Class k where the pixel is k, after a while."
    reduction = 1
    def forward(self, x):
        time.sleep(float(os.environ.get("SECONDS_A_TILE", 0)))
        return torch.stack([-(x[:, 0] - k).abs() for k in range(4)], dim=1)
class Broken(Slow):
    def forward(self, x):
        raise ArithmeticError("a mistake of our own")
"""


TRUST = ("--trust-code", "slowly:Slow", "--trust-code", "slowly:Broken")


@pytest.fixture
def slow(tmp_path, monkeypatch) -> Path:
    """A folder with a raster of 36 units, and models `slow` and `broken` of a module that lies there."""
    (tmp_path / "slowly.py").write_text(SLOW)
    monkeypatch.syspath_prepend(tmp_path)
    import slowly

    numbers = np.random.default_rng(0).integers(0, 4, (192, 192)).astype(np.uint8)
    worlds.write_raster(tmp_path / "numbers.tif", numbers, descriptions=["v"])
    for name, network in (("slow", slowly.Slow()), ("broken", slowly.Broken())):
        Model.wrap(network, bands=["v"], classes=list("abcd")).save(tmp_path / name)
    yield tmp_path
    sys.modules.pop("slowly")


def has_five_units(parts: Path) -> bool:
    """Whether so many units of a map are done."""
    return len(list(parts.glob("*_*.json"))) >= 5


def test_an_interrupted_map_is_finished_by_the_same_command(slow):
    def command(out: Path) -> list[str]:
        tiles = ("--tile", "32", "--margin", "0", "--unit", "32", *TRUST)
        return ["predict", str(slow / "slow"), str(slow / "numbers.tif"), *tiles, "--out", str(out)]

    parts = slow / "map.tif.parts"
    slowly = forked.Surroundings(modules=slow, environment={"SECONDS_A_TILE": "0.05"})
    code, _, err = forked.command(*command(slow / "map.tif"), surroundings=slowly, begun=lambda: has_five_units(parts))
    assert code == 130, err
    assert err.splitlines()[-1].startswith("landscribe: interrupted")
    assert "Traceback" not in err
    assert not (slow / "map.tif").exists()
    done = {path: path.stat().st_mtime_ns for path in parts.glob("*.class.tif")}
    assert 5 <= len(done) < 36
    assert landscribe(*command(slow / "map.tif")).code == 0
    assert landscribe(*command(slow / "whole.tif")).code == 0
    assert (slow / "map.tif").read_bytes() == (slow / "whole.tif").read_bytes()
    assert not parts.exists()


@pytest.mark.slow
def test_workers_of_an_interrupted_map_have_nothing_to_say(slow):
    tiles = ("--tile", "32", "--margin", "0", "--unit", "32", *TRUST)
    surroundings = forked.Surroundings(modules=slow, environment={"SECONDS_A_TILE": "0.2"}, forks_workers=True)
    code, _, err = forked.command(
        "predict", slow / "slow", slow / "numbers.tif", *tiles, "--dask", "auto", "--out", slow / "map.tif",
        surroundings=surroundings, begun=lambda: has_five_units(slow / "map.tif.parts"), on_a_terminal=True,
    )  # fmt: skip
    assert code == 130, err
    *progress, last = err.splitlines()
    assert last.startswith("landscribe: interrupted")
    expected = ("opening images: ", "mapping numbers: ", f"warning: {slow / 'numbers.tif'} declares no nodata")
    assert [line for line in progress if not line.startswith(expected)] == []


@pytest.mark.slow
def test_an_interrupted_training_leaves_no_model(made, tmp_path):
    out = tmp_path / "new" / "model"
    many = ("--encoder", "test_efficientnet", "--weights", "none", "--epochs", "100000", "--batch", "2")
    left = out.with_name("model.training")
    code, _, err = forked.command(
        "train", made / "chips", *many, "--out", out,
        surroundings=forked.Surroundings(), begun=(left / "last.ckpt").exists, by=signal.SIGTERM,
    )  # fmt: skip
    assert code == 130, err
    assert err.splitlines()[-1].startswith("landscribe: interrupted")
    assert "Traceback" not in err
    # What the same command goes on from, and nothing else.
    assert [path.name for path in out.parent.iterdir()] == ["model.training"]
    assert sorted(path.name for path in left.iterdir()) == ["last.ckpt", "training.json"]


def test_a_mistake_of_our_own_ends_with_1_and_a_traceback(slow):
    command = ("predict", slow / "broken", slow / "numbers.tif", *TRUST, "--out", slow / "map.tif")
    code, _, err = forked.command(*command, surroundings=forked.Surroundings(modules=slow))
    assert code == 1
    assert "\nTraceback" in err
    assert "a mistake of our own" in err


def test_a_folder_of_rasters_is_mapped_one_by_one(slow):
    (slow / "tiles").mkdir()
    for name in ("b10", "b9"):
        worlds.write_raster(slow / "tiles" / f"{name}.tif", np.full((40, 40), len(name), np.uint8), descriptions=["v"])
    said = landscribe("predict", slow / "slow", slow / "tiles", *TRUST, "--out", slow / "maps")
    assert said.code == 0
    assert said.out.split() == [str(slow / "maps" / f"{name}.tif") for name in ("b9", "b10")]
    assert landscribe("predict", slow / "slow", slow / "tiles" / "*.png", *TRUST, "--out", slow / "new").code == 2
    assert not (slow / "new").exists()
    said = landscribe("predict", slow / "slow", slow / "tiles", *TRUST, "--out", slow / "one.tif")
    assert said.code == 2
    assert "one.tif is a name for one file, but 2 rasters are to be mapped" in said.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("predict", "model", "a.tif", "-o", "b.tif", "--uncertainty"), ' predict --help".'),
        (("train", "chips", "-o", "model", "--augment", "nonsense"), "value for '--augment': 'nonsense' is not one of"),
    ],
)
def test_a_flag_without_its_value_or_with_a_wrong_one_is_said_in_words_of_the_command(arguments, words):
    said = landscribe(*arguments)
    assert said.code == 2
    assert words in said.err


# ---- networks


def test_summary_prints_the_block_table():
    said = landscribe("summary", "--architecture", "unet", "--encoder", "plain", "--option", "depth=2", "--size", 64)
    assert said.code == 0
    assert "256 x 16 x 16" in said.out
    assert "receptive field" in said.out
    table = json.loads(landscribe("summary", "--encoder", "test_resnet", "--bands", 4, "--size", 64, "--json").out)
    assert table["parameters"] == sum(block["parameters"] for block in table["blocks"])


def test_summary_lists_encoders_as_a_table_and_as_json(monkeypatch):
    monkeypatch.setattr(benchmark, "ENCODERS", ("test_resnet", "test_vit"))
    lines = landscribe("summary", "--encoders", "--size", 64).out.splitlines()
    assert [line.split()[0] for line in lines] == ["encoder", "test_resnet", "test_vit"]
    assert "license of weights" in lines[0]
    rows = json.loads(landscribe("summary", "--encoders", "--bands", 4, "--size", 64, "--json").out)
    assert {"name", "parameters", "flops_per_megapixel", "license", "seconds_per_megapixel"} <= set(rows[0])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("summary", "--encoders", "--encoder", "resnet18"), "alone. Leave out --encoder, or --encoders"),
        (("summary", "--encoders", "--bands", 3, "--classes", 2), "alone. Leave out --classes, or --encoders"),
        (("summary", "m", "--option", "depth=2", "--encoders"), "alone. Leave out the model, --option, or --encoders"),
        (("summary", "--encoders", "--size", 4096), "'size' is 4096"),
        (("summary", "--architecture", "unett"), "did you mean 'unet'"),
        (("summary", "--option", "depth"), "NAME=VALUE"),
        (("summary", "--option", "depht=2"), "did you mean 'depth'"),
        (("prune", "model"), "--branches"),
        (("prune", "nowhere", "--branch", 1, "--out", "small"), "nowhere"),
    ],
)
def test_mistakes_about_networks_end_with_one_line(arguments, words):
    said = landscribe(*arguments)
    assert said.code == 2
    assert said.err.count("\n") == 1
    assert words in said.err


def test_summary_of_a_model_takes_only_names_that_are_its_own(tmp_path):
    network = build("unet", bands=4, classes=3, encoder="plain", depth=2)
    Model.wrap(network, bands=list("rgbn"), classes=["a", "b", "c"]).save(tmp_path / "model")
    own = ("--architecture", "unet", "--encoder", "plain", "--bands", 4, "--classes", 3, "--option", "depth=2")
    summary = ("summary", tmp_path / "model", "--size", 64, "--json")
    assert landscribe(*summary, *own).out == landscribe(*summary).out != ""
    others = ("--architecture", "fcn", "--encoder", "plain", "--bands", 3, "--classes", 2, "--option", "depth=3")
    said = landscribe(*summary, *others)
    assert said.code == 2
    assert "a model was given together with architecture, bands, classes, depth, which it decides itself" in said.err


def test_options_of_an_architecture_are_given_as_toml(made, tmp_path):
    said = landscribe(
        "train", made / "chips", "--out", tmp_path / "model", "--encoder", "plain", "--steps", 1,
        "--option", "encoder_widths=[4, 8]", "--option", "activation=swish", "--option", "attention=true",
        "--freeze", "blocks.0", "--freeze-until", 0.5, "--encoder-lr-factor", 0.5,
    )  # fmt: skip
    assert said.code == 0, said.err
    arguments = Model.load(tmp_path / "model").arguments
    assert arguments["encoder_widths"] == [4, 8]
    assert arguments["activation"] == "swish"
    assert arguments["attention"] is True


def test_prune_measures_and_cuts(made, tmp_path, monkeypatch):
    monkeypatch.setattr(pruning, "_TRIAL_SIDE", 64)
    model, options = tmp_path / "model", {"encoder_widths": [4, 4, 4, 4, 4]}
    network = build("unetplusplus", encoder="plain", bands=3, classes=3, **options)
    Model.wrap(network, bands=["red", "green", "blue"], classes=Chips.open(made / "chips").classes).save(model)
    said = landscribe("prune", model, "--branches", "--chips", made / "chips", "--split", "train", "--json")
    assert said.code == 0, said.err
    rows = json.loads(said.out)
    assert [row["branch"] for row in rows] == [1, 2, 3, 4, None]
    assert landscribe("prune", model, "--branch", 1, "--out", tmp_path / "small").code == 0
    assert Model.load(tmp_path / "small").network.deepest == 1
