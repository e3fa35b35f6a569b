"""Keywords: editors and mypy have the settings of the specs."""

import numpy as np
import pytest

import landscribe as ls
from generate_keywords import TARGET, source
from landscribe.commands import app as cli
from landscribe.commands.options import spec_of
from landscribe.recipe import SECTIONS
from landscribe.verbs import keywords


def test_the_keywords_are_those_of_the_specs():
    assert TARGET.read_text() == source(), "run: python tests/generate_keywords.py"


@pytest.mark.parametrize(
    ("verb", "sections"),
    [(ls.train, ["train"]), (ls.predict, ["predict", "imagery"]), (ls.chip, ["scenes", "chips", "split"])],
)
def test_each_setting_is_a_keyword_of_its_verb(verb, sections):
    table = getattr(keywords, verb.__annotations__["settings"].removeprefix("Unpack[").removesuffix("]"))
    fields = {name for section in sections for name in spec_of(section).model_fields} - {"image", "labels"}
    assert fields <= set(table.__annotations__)


def test_the_plain_keywords_of_run_are_its_flags():
    options = cli.RunCommand(name="run", callback=lambda: None).flags.values()
    flags = {flag.removeprefix("--").replace("-", "_") for option in options for flag in option.opts}
    plain = set(keywords.RunKeywords.__annotations__) - {*SECTIONS, "seed", "classes", "class_table"}
    # Where a flag has another name than its field, both are keywords; single scenes have groups.
    assert plain == flags - {"augment"} | {"by", "attribute", "options", "group"}


FILES = {"images": "a.tif", "labels": "b.gpkg"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ls.check(3), "the recipe is 3. Expected a Recipe or its path"),
        (lambda: ls.check(["a"]), r"the recipe is \['a'\]\. Expected a Recipe or its path"),
        (lambda: ls.check({"scenes": []}), r"the recipe is \{.*\. Expected .*; Recipe.of makes one of a dict"),
        (lambda: ls.check(images=None), "neither a recipe nor an image was given"),
        (lambda: ls.check(images=3), r"an image is given as int \(3\)\. Expected a path"),
        (lambda: ls.check(images=[3], labels="b.gpkg"), r"an image is given as int \(3\)\. Expected a path"),
        (lambda: ls.chip(images=np.zeros((3, 8, 8)), labels="b.gpkg", out="c"), r"given as ndarray \(array\("),
        (lambda: ls.check(images=[["a.tif", 3]]), r"an image is given as int \(3\)\. Expected a path"),
        (lambda: ls.check(images=["a.tif"], labels=3), "labels has 3. Expected a path, or None, for each scene"),
        (lambda: ls.check(**FILES, classes=["a"]), "'classes.0' is 'a'; expected a table of settings, such as name"),
        (lambda: ls.run(**FILES, out=None), "an output is None. Expected a path"),
        (lambda: ls.chip(**FILES, out=5), "an output is 5. Expected a path"),
        (lambda: ls.train(None, out="m"), "chips is None. Expected Chips, or the path of a chips folder"),
        (lambda: ls.summary(3), "the model is 3. Expected a Model, or the path of a model folder"),
        (lambda: ls.run(**FILES, out="r", seed=True), "'seed' is True; expected a number, not true or false"),
        (lambda: ls.demo("d", seed=True), "'seed' is True; expected a number, not true or false"),
        (lambda: ls.cross_validate("c", out="m", folds="x"), "'folds' is 'x'; .*, or .*'scenes' or 'groups'"),
        (lambda: ls.cross_validate("c", out="m", folds=None), "'folds' is None; .*valid integer"),
        (lambda: ls.cross_validate("c", out="m", folds=3.5), "'folds' is 3.5; .*valid integer"),
    ],
)  # fmt: skip
def test_an_argument_of_another_kind_is_refused_in_one_line(call, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ls.LandscribeError, match=message):
        call()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [name for name in ls.__all__ if name.endswith("Spec")])
def test_specs_are_public(name):
    assert issubclass(getattr(ls, name), ls.TrainSpec.__base__)
