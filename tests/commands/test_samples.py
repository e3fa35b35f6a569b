"""The command sample: what it prints and writes, and what it refuses with exit code 2 and one line."""

import json
import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from tests import worlds

import landscribe as ls
from landscribe.commands import app as cli
from landscribe.errors import OutputError
from landscribe.sampling.forms import FORMS

VALUES = np.random.default_rng(1).choice([0, 1, 2, 255], (40, 50), p=[0.2, 0.3, 0.4, 0.1]).astype(np.uint8)


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    """The command line, run in this process from inside `tmp_path`; gives exit code, stdout and stderr."""
    logger = logging.getLogger("landscribe")
    handlers, level, propagate = list(logger.handlers), logger.level, logger.propagate
    monkeypatch.chdir(tmp_path)
    worlds.write_raster(tmp_path / "map.tif", VALUES, nodata=255)

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["landscribe", "sample", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, *capfd.readouterr()

    yield command
    logger.handlers[:], logger.level, logger.propagate = handlers, level, propagate


def test_a_plan_prints_the_numbers_and_writes_nothing(run, tmp_path):
    code, out, _ = run("map.tif", "--plan", "--allocation", "0=10,1=20,2=30")
    assert code == 0
    assert "stratified sample of 60 of 1," in out
    assert "units (pixels), expected accuracy" in out
    assert [line.split()[-1] for line in out.splitlines()[2:5]] == ["10", "20", "30"]
    assert out.splitlines()[5:] == [
        "expected accuracy is an assumption (--expected-accuracy). Intervals are longer on the side of 0.5"
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["map.tif"]


def test_a_plan_as_json_is_that_of_the_verb(run):
    _, out, _ = run("map.tif", "--plan", "--design", "simple", "--half-width", "0.05", "--json")
    plan = ls.plan_sample("map.tif", design="simple", half_width=0.05).as_dict()
    assert json.loads(out) == plan
    assert plan["overall"]["upper"] - plan["overall"]["lower"] == pytest.approx(0.1, abs=0.005)


def test_a_sample_of_the_command_is_that_of_the_verb(run, tmp_path):
    code, out, _ = run("map.tif", "-o", "points.gpkg", "--size", 90, "--seed", 7)
    assert (code, out) == (
        0, "points.gpkg: stratified sample of 90 units (0 30, 1 30, 2 30); fill in its column reference\n"
    )  # fmt: skip
    sample = ls.sample("map.tif", out="points.csv", size=90, seed=7)
    assert ls.ReferenceSample.open("points.gpkg").units.equals(ls.ReferenceSample.open("points.csv").units)
    assert len(sample.units) == 90
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "map.tif", "points.csv", "points.design.json", "points.gpkg"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--size", 9], "sample needs --out, such as -o points.gpkg; or --plan"),
        (["-o", "a.gpkg"], "the size is missing"),
        (["-o", "a.shp", "--size", 9], "a.shp has no suffix for a reference sample. Give it one of .gpkg, .csv."),
        (["-o", "a.gpkg", "--size", 1900, "--allocation", "equal"], "the size of stratum "),
        (["-o", "a.gpkg", "--allocation", "roof=9"], "allocation names 'roof'"),
        (["-o", "a.gpkg", "--half-width", 0.1, "--standard-error", 0.1], "both decide the size"),
        (["-o", "a.gpkg", "--size", 9, "--area", "absent.gpkg"], "absent.gpkg"),
        (["-o", "a.gpkg", "--size", 9, "--strata", "absent.tif"], "absent.tif"),
        (
            ["--plan", "--size", 9, "-o", "a.gpkg", "--form", "ceo"],
            "--plan draws and writes nothing. Leave out --out, --form",
        ),
        (["--plan", "--size", 9, "--sheet", "a.html", "--image", "a.tif"], "Leave out --sheet, --image, or --plan"),
        (["-o", "map.tif", "--size", 9], "map.tif has no suffix for a reference sample"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(run, tmp_path, arguments, line):
    code, out, err = run("map.tif", *arguments)
    (refusal,) = [text for text in err.splitlines() if text.startswith("landscribe: ")]
    assert (code, out) == (2, "")
    assert line in refusal
    assert [path.name for path in tmp_path.iterdir()] == ["map.tif"]


def test_labels_are_not_overwritten_without_a_flag(run):
    run("map.tif", "-o", "points.csv", "--size", 9)
    code, _, err = run("map.tif", "-o", "points.csv", "--size", 9)
    assert code == 2
    assert "points.csv exists already. Nothing was changed." in err
    assert run("map.tif", "-o", "points.csv", "--size", 9, "--overwrite")[0] == 0


def test_forms_and_the_sheet_lie_beside_the_sample(run, tmp_path):
    worlds.write_raster(tmp_path / "image.tif", worlds.noise(3, 40, 50))
    code, out, _ = run(
        "map.tif", "-o", "points.gpkg", "--size", 9, "--form", "ceo", "--form", "acatama", "--sheet", "sheet.html",
        "--image", "image.tif",
    )  # fmt: skip
    assert code == 0
    assert out.splitlines()[1:] == ["form   points.ceo.csv", "form   points.acatama.gpkg", "sheet  sheet.html"]
    assert all((tmp_path / line.split()[1]).exists() for line in out.splitlines()[1:])


def test_a_killed_command_with_forms_and_a_sheet_is_repeated(run, tmp_path, monkeypatch):
    worlds.write_raster(tmp_path / "image.tif", worlds.noise(3, 40, 50))
    settings = {"size": 9, "forms": ["ceo", "acatama"], "image": "image.tif"}
    paths = {"out": "points.csv", "sheet": "pages/sheet.html"}
    before = {path.name for path in tmp_path.iterdir()}

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ls.ReferenceSample, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            ls.sample("map.tif", **settings, **paths)
    assert {path.name for path in tmp_path.iterdir()} == before

    names = ["points.ceo.csv", "points.acatama.gpkg", "points.design.json", "pages/sheet.html", "points.csv"]
    ls.sample("map.tif", **settings, **paths)
    written = {name: (tmp_path / name).read_bytes() for name in names}
    (tmp_path / "points.csv").unlink()  # as after a kill before the last file was moved out
    ls.sample("map.tif", **settings, **paths)
    assert {name: (tmp_path / name).read_bytes() for name in names} == written
    assert {path.name for path in tmp_path.iterdir()} == before | {"pages"} | set(names) - {"pages/sheet.html"}


@pytest.mark.parametrize("name", ["points.ceo.csv", "points.design.json", "sheet.html"])
def test_a_file_beside_the_sample_that_another_command_made_is_not_replaced(run, tmp_path, name):
    worlds.write_raster(tmp_path / "image.tif", worlds.noise(3, 40, 50))
    (tmp_path / name).write_text("mine")
    before = {path.name for path in tmp_path.iterdir()}
    arguments = (
        "map.tif",
        "-o",
        "points.csv",
        "--size",
        9,
        "--form",
        "ceo",
        "--sheet",
        "sheet.html",
        "--image",
        "image.tif",
    )
    code, _, err = run(*arguments)
    assert code == 2
    assert f"{name} exists already. Nothing was changed." in err
    if name == "sheet.html":  # before the map is read
        assert f"{name} exists already." in run("missing.tif", *arguments[1:])[2]
    assert (tmp_path / name).read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == before
    assert run(*arguments, "--overwrite")[0] == 0


@pytest.mark.parametrize("sheet", ["sheet.html", "pages/sheet.html"])
def test_a_sample_that_cannot_be_replaced_keeps_its_form_and_sheet(run, tmp_path, monkeypatch, sheet):
    worlds.write_raster(tmp_path / "image.tif", worlds.noise(3, 40, 50))
    settings = {"size": 9, "forms": ["ceo"], "image": "image.tif", "out": "points.csv", "sheet": sheet}
    ls.sample("map.tif", **settings)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    real = Path.replace

    def replace(self, target):
        if target == Path("points.csv") and ".finished." in self.parent.name:
            raise PermissionError(13, "in use")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(OutputError, match=r"cannot write points\.csv: in use"):
        ls.sample("map.tif", **settings, seed=1, overwrite=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    monkeypatch.setattr(Path, "replace", real)
    ls.sample("map.tif", **settings, seed=1, overwrite=True)
    assert all(path.read_bytes() != content for path, content in before.items() if path.stem in ("points", "sheet"))


def test_help_names_all_forms():
    parameters = {parameter.name: parameter for parameter in typer.main.get_command(cli.app).commands["sample"].params}
    assert parameters["form"].metavar == f"<{'|'.join(FORMS)}>"


def test_a_design_without_strata_is_printed_without_them(run):
    _, out, _ = run("map.tif", "-o", "points.gpkg", "--size", 30, "--design", "simple")
    assert out == "points.gpkg: simple random sample of 30 units; fill in its column reference\n"
