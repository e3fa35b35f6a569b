"""Keywords: editors and mypy have the settings of the specs."""

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
    plain = set(keywords.RunKeywords.__annotations__) - {*SECTIONS, "seed", "classes"}
    # Where a flag has another name than its field, both are keywords; single scenes have groups.
    assert plain == flags - {"augment"} | {"by", "attribute", "options", "group"}


@pytest.mark.parametrize("name", [name for name in ls.__all__ if name.endswith("Spec")])
def test_specs_are_public(name):
    assert issubclass(getattr(ls, name), ls.TrainSpec.__base__)
