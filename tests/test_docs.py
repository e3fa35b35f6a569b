"""What the pages tell people to type works."""

import re
import shlex
from pathlib import Path

import pytest

from landscribe import synthetic as world
from landscribe.commands.app import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def _commands() -> list[str]:
    blocks = re.findall(r"```\n(.*?)```", README, flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.startswith("landscribe ")]


@pytest.mark.parametrize("command", _commands())
def test_every_command_in_the_readme_is_understood(command, capsys):
    verb, *arguments = shlex.split(command, comments=True)[1:]
    flags = [argument for argument in arguments if argument.startswith("-")]
    app([verb, "--help"], standalone_mode=False)
    told = capsys.readouterr().out
    assert all(flag in told for flag in flags)


def test_the_python_in_the_readme_runs(tmp_path, monkeypatch):
    scene, labels, _ = world.write(world.draw(256, 256, seed=1), tmp_path)
    labels.rename(tmp_path / "buildings.geojson")
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    assert scene.exists()
    assert (tmp_path / "map.tif").exists()


def test_the_changelog_names_every_verb():
    text = (ROOT / "CHANGELOG.md").read_text()
    assert all(
        f"`{verb}`" in text for verb in ("check", "chip", "train", "predict", "assess", "report", "run", "new", "demo")
    )
