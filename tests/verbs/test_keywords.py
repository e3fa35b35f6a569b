"""Keywords: editors and mypy have the settings of the specs."""

import pytest

import landscribe as ls
from generate_keywords import TARGET, source
from landscribe.commands.options import spec_of
from landscribe.errors import RecipeError
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


def test_ambiguous_names_are_not_plain_keywords_of_run():
    assert not {"batch", "bands", "dask"} & set(keywords.RunKeywords.__annotations__)


def test_run_refuses_a_name_that_two_sections_have(tmp_path):
    with pytest.raises(
        RecipeError, match=r"'bands' is a setting of scenes and of predict. Say which: scenes=\{'bands'"
    ):
        ls.run(images=["a.tif"], labels="b.gpkg", out=tmp_path / "run", bands=["red"])


@pytest.mark.parametrize("name", [name for name in ls.__all__ if name.endswith("Spec")])
def test_specs_are_public(name):
    assert issubclass(getattr(ls, name), ls.TrainSpec.__base__)
