"""The contract of an export of chips, held by each in CHIP_EXPORTS."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import landscribe
from landscribe import verbs
from landscribe.commands.app import app
from landscribe.data.chips.chips import Chips
from landscribe.errors import ChipError, OutputError, RecipeError
from landscribe.exports import CHIP_EXPORTS
from worlds import noise, pixel_box, write_polygons, write_raster


@pytest.fixture(scope="module")
def chips(tmp_path_factory) -> Chips:
    folder = tmp_path_factory.mktemp("world")
    image = write_raster(folder / "scene.tif", noise(3, 16, 24))
    labels = write_polygons(folder / "labels.gpkg", [pixel_box(3, 3, 9, 9)], kind=["house"])
    return verbs.chip(images=[image], labels=labels, label_field="kind", size=8, out=folder / "chips", val=0, test=0)


@pytest.mark.parametrize("to", CHIP_EXPORTS)
def test_an_export_has_its_mark_and_is_overwritten_on_request_alone(chips, tmp_path, to):
    out = verbs.export(chips, out=tmp_path / "out", to=to)
    assert out == tmp_path / "out"
    assert (out / CHIP_EXPORTS[to].mark).is_file()
    with pytest.raises(OutputError):
        verbs.export(chips, out=out, to=to)
    assert verbs.export(chips, out=out, to=to, overwrite=True) == out


@pytest.mark.parametrize("to", CHIP_EXPORTS)
def test_an_export_of_the_same_chips_has_the_same_bytes(chips, tmp_path, to):
    first, second = (
        {path.relative_to(out): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}
        for out in (verbs.export(chips, out=tmp_path / name, to=to) for name in "ab")
    )
    assert first == second


@pytest.mark.parametrize("to", CHIP_EXPORTS)
def test_a_split_without_chips_is_refused_and_nothing_is_written(chips, tmp_path, to):
    with pytest.raises(ChipError, match="no chips of that split"):
        verbs.export(chips, out=tmp_path / "out", to=to, split="val")
    assert not (tmp_path / "out").exists()


def test_an_unknown_format_is_refused_with_the_nearest_name(chips, tmp_path):
    with pytest.raises(RecipeError, match=r"there is no export 'ersi'.*'esri'"):
        verbs.export(chips, out=tmp_path / "out", to="ersi")


def test_the_help_of_the_command_lists_each_format():
    text = " ".join(CliRunner().invoke(app, ["export", "--help"], env={"COLUMNS": "200"}).output.split())
    for name, export in CHIP_EXPORTS.items():
        assert f"{name}: {export.description}." in text


def test_formats_are_listed_without_loading_their_writers():
    code = "import json, sys, landscribe.exports; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"numpy", "rasterio", "landscribe.exports.classified_tiles"} & set(json.loads(done.stdout))


def test_the_room_does_not_hide_the_verb():
    """A room of the verb's name would become the attribute of the package when it is imported."""
    assert landscribe.export is verbs.export
