"""Commands and Python code of the README, and examples in docstrings, run."""

import doctest
import importlib
import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from landscribe import synthetic as world
from landscribe.commands.app import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
EXAMPLES = ROOT / "docs" / "examples"


def _commands() -> list[str]:
    pages = [README, *(page.read_text() for page in sorted(EXAMPLES.glob("*.md")))]
    blocks = [block for page in pages for block in re.findall(r"```(?:sh)?\n(.*?)```", page, flags=re.DOTALL)]
    lines = (line for block in blocks for line in block.splitlines())
    return list(dict.fromkeys(line for line in lines if line.startswith("landscribe ")))


def _modules_with_examples() -> list[str]:
    """Found in the text, so that collecting tests imports nothing."""
    source = ROOT / "src"
    files = [path for path in sorted(source.rglob("*.py")) if ">>> " in path.read_text()]
    return [".".join(path.relative_to(source).with_suffix("").parts).removesuffix(".__init__") for path in files]


@pytest.mark.parametrize("command", _commands())
def test_every_command_in_the_readme_and_the_examples_is_parsed_by_its_verb(command):
    verb, *arguments = shlex.split(command, comments=True)[1:]
    group = get_command(app)
    # Reads arguments as the command line does, and refuses unknown verbs, flags and values; runs nothing.
    group.commands[verb].make_context(verb, arguments)


@pytest.mark.parametrize("module", _modules_with_examples())
def test_the_examples_in_docstrings_give_their_output(module):
    results = doctest.testmod(importlib.import_module(module))
    assert results.attempted > 0
    assert results.failed == 0


def test_the_python_in_the_readme_runs(tmp_path, monkeypatch):
    scene, labels, _ = world.write(world.draw(256, 256, seed=1), tmp_path)
    labels.rename(tmp_path / "buildings.geojson")
    monkeypatch.chdir(tmp_path)
    # The other block needs a labelled sample: tests/assessment/test_sample_assessment.py runs it.
    code = next(block for block in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL) if "ls.train" in block)
    exec(compile(code, "README.md", "exec"), {})
    assert scene.exists()
    assert (tmp_path / "map.tif").exists()


@pytest.mark.parametrize("page", sorted(EXAMPLES.glob("*.md")), ids=lambda page: page.stem)
def test_links_and_pictures_of_an_example_exist(page):
    targets = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    assert targets
    assert not re.search(r"\b(TIMES|TABLE)_", page.read_text())
    for target in targets:
        assert target.startswith("https://") or (page.parent / target).exists(), target
