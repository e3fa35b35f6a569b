"""Specs: frozen, validated, unknown names refused with the nearest one."""

import inspect
import math
import pydoc
import re

import pytest
from pydantic import Field, ValidationError

import landscribe as ls
from landscribe.data.chips.spec import ChipSpec
from landscribe.data.scenes.spec import ClassSpec, SceneSpec
from landscribe.data.splits.spec import SplitSpec
from landscribe.errors import RecipeError
from landscribe.geo.spec import ImagerySpec
from landscribe.polygons.spec import VectorizeSpec
from landscribe.recipe import SECTIONS, Recipe
from landscribe.spec import AnyFloat, Seed, Spec, checked, nearest, other_names
from landscribe.training.spec import TrainSpec


class Inner(Spec):
    stride: int = Field(1, ge=1)
    edge: str = "shift"


class Outer(Spec):
    size: int
    inner: Inner = Inner()
    many: tuple[Inner, ...] = ()
    maybe: Inner | None = None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"size": 1, "inner": {"strid": 2}},
            r"unknown setting 'inner.strid'; did you mean 'stride'\? Known: stride, edge",
        ),
        ({"size": 1, "many": [{}, {"egde": 2}]}, r"unknown setting 'many.1.egde'; did you mean 'edge'\?"),
        ({"size": 1, "maybe": {"strid": 2}}, r"unknown setting 'maybe.strid'; did you mean 'stride'\?"),
        ({"size": 1, "siez": 2}, r"unknown setting 'siez'; did you mean 'size'\?"),
        ({"size": 1, "qqqq": 2}, r"unknown setting 'qqqq'\. Known: size, inner, many, maybe"),
        ({}, "'size' is missing; add it"),
        ({"size": 1, "inner": {"stride": 0}}, "'inner.stride' is 0; input should be greater than or equal to 1"),
        ({"size": "large"}, "'size' is 'large'; input should be a valid integer"),
    ],
)
def test_each_mistake_is_named_with_its_field_and_the_remedy(settings, message):
    with pytest.raises(RecipeError, match=message):
        Outer.of(settings)


def test_all_mistakes_are_in_one_line():
    with pytest.raises(RecipeError) as caught:
        Outer.of({"siez": 1, "inner": {"stride": 0}}, "a.toml")
    line = str(caught.value)
    assert line.startswith("a.toml: ")
    assert line.count("\n") == 0
    assert all(part in line for part in ("'siez'", "'inner.stride' is 0", "'size' is missing"))


def test_settings_of_a_table_that_do_not_fit_are_named_without_their_python_value():
    with pytest.raises(RecipeError) as raised:
        Recipe.of({"scenes": [{"image": "a.tif"}], "split": {"train_list": "a.txt"}})
    assert str(raised.value) == "'split': train_list is given, but by is auto; set by = list (--split-by list)"


def test_a_spec_is_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        Inner().stride = 2


def test_an_unknown_name_without_a_near_one_lists_all_names():
    assert nearest("xyz", ["size", "stride"]) == ". Known: size, stride"


@pytest.mark.parametrize(
    ("spec", "settings"),
    [
        (ClassSpec, {"name": "house\x1b[31m", "value": 1}),
        (SceneSpec, {"image": "a.tif", "bands": ["red\x1b[31m"]}),
    ],
)
def test_names_that_are_stored_hold_no_control_character(spec, settings):
    with pytest.raises(RecipeError, match=r"x1b\[31m.*; expected a name without control characters") as caught:
        spec.of(settings)
    assert "\x1b" not in str(caught.value)


UNBOUNDED = {
    "nodata": "a value of the files, in the range of their data type",
}
"""Number fields without a range, with the reason."""


def number_schemas(schema, name=""):
    """(name of the field, JSON schema) of each number within a JSON schema."""
    if isinstance(schema, list):
        for part in schema:
            yield from number_schemas(part, name)
    if isinstance(schema, dict):
        if schema.get("type") in ("integer", "number") and not {"const", "enum"} & schema.keys():
            yield name, schema
        for key, part in schema.items():
            if key in ("properties", "$defs"):
                for inner, value in part.items():
                    yield from number_schemas(value, inner)
            elif key not in ("default", "const", "enum"):
                yield from number_schemas(part, name)


@pytest.mark.parametrize("spec", [Recipe, ImagerySpec])
def test_every_number_of_a_recipe_has_a_finite_range(spec):
    numbers = list(number_schemas(spec.model_json_schema()))
    unbounded = {
        name
        for name, schema in numbers
        if not ({"minimum", "exclusiveMinimum"} & set(schema) and {"maximum", "exclusiveMaximum"} & set(schema))
    }
    assert unbounded == {name for name, _ in numbers} & set(UNBOUNDED)


@pytest.mark.parametrize("value", ["inf", "-inf", "nan", math.inf, -math.inf, math.nan])
def test_numbers_are_finite_unless_the_field_takes_any(value):
    class Numbers(Spec):
        plain: float = 0.0
        maybe: float | None = None
        many: tuple[float, ...] = ()
        nodata: AnyFloat | None = None

    for settings in ({"plain": value}, {"maybe": value}, {"many": [value]}):
        with pytest.raises(RecipeError, match="should be a finite number"):
            Numbers.of(settings)
    assert not math.isfinite(Numbers.of({"nodata": value}).nodata)


@pytest.mark.parametrize("value", [-1, 2**32, 2**64, 0.5, "x", math.inf])
def test_a_seed_is_a_whole_number_of_32_bits(value):
    with pytest.raises(RecipeError, match=f"'seed' is {value!r}; input should be"):
        checked("seed", value, Seed)
    assert checked("seed", 2**32 - 1, Seed) == 2**32 - 1


@pytest.mark.parametrize(
    ("spec", "typed", "meant"),
    [
        (ChipSpec, {"format": "jpeg"}, {"format": "jpg"}),
        (ChipSpec, {"format": "TIFF"}, {"format": "tif"}),
        (ChipSpec, {"format": "PNG"}, {"format": "png"}),
        (TrainSpec, {"lr": 0.1}, {"learning_rate": 0.1}),
        (TrainSpec, {"backbone": "resnet34"}, {"encoder": "resnet34"}),
        (TrainSpec, {"batch_size": 2}, {"batch": 2}),
        (TrainSpec, {"optimizer": "AdamW"}, {"optimizer": "adamw"}),
        (TrainSpec, {"architecture": "UNet++"}, {"architecture": "unetplusplus"}),
        (SplitSpec, {"val": "20 %", "test": "0.1"}, {"val": 0.2, "test": 0.1}),
    ],
)
def test_usual_words_that_are_certain_are_understood(spec, typed, meant):
    assert spec.of(typed) == spec.of(meant)


@pytest.mark.parametrize(
    ("spec", "typed", "message"),
    [
        (TrainSpec, {"optimizer": "adam"}, r"'optimizer' is 'adam'; .*'adamw' or 'sgd'; did you mean 'adamw'\?"),
        (ChipSpec, {"format": "jpgg"}, r"did you mean 'jpg'\?"),
        (TrainSpec, {"lr": 0.1, "learning_rate": 0.2}, "learning_rate and lr, which is the same, are both given"),
        (SplitSpec, {"val": 20}, r"'val' is 20; expected a fraction below 1: write 0.2, or 20% for per cent"),
        (SplitSpec, {"val": "200%"}, "'val' is 2.0; input should be less than 1"),
        (TrainSpec, {"backbon": "x"}, r"did you mean 'background'\?|did you mean 'encoder'"),
    ],
)
def test_words_that_may_mean_something_else_are_refused_with_the_nearest(spec, typed, message):
    with pytest.raises(RecipeError, match=message):
        spec.of(typed)


@pytest.mark.parametrize(
    ("spec", "name", "value", "default", "needed"),
    [
        (ChipSpec, "format", "png", "tif", {"virtual": False}),
        (TrainSpec, "freeze_until", 0.5, 1.0, {"freeze": "encoder"}),
        (VectorizeSpec, "minimum_distance", 3, 4, {"split_touching": True}),
    ],
)
def test_a_setting_without_effect_is_refused_unless_it_is_the_default(spec, name, value, default, needed):
    idle = {"virtual": True} if spec is ChipSpec else {}
    with pytest.raises(RecipeError, match=f"{name} is {value}, but .*leave"):
        spec.of({**idle, name: value})
    spec.of({**idle, name: default})
    spec.of({**needed, name: value})


def test_other_names_of_fields_are_names_of_no_other_field():
    for spec in SECTIONS.values():
        others = [other for name, field in spec.model_fields.items() for other in other_names(name, field)]
        assert not set(others) & {name for section in SECTIONS.values() for name in section.model_fields}
        assert len(set(others)) == len(others)


@pytest.mark.parametrize("name", [name for name in ls.__all__ if name.endswith("Spec") or name == "Recipe"])
def test_help_lists_each_setting_of_a_spec_with_its_description(name):
    spec = getattr(ls, name)
    text = " ".join(pydoc.render_doc(spec, renderer=pydoc.plaintext).replace("|", " ").split())
    for setting, field in spec.model_fields.items():
        description = " ".join((field.description or "").replace("|", " ").split())
        assert description
        assert f" {setting}: " in text
        assert description in text
    assert " at 0x" not in text.split("Method resolution order")[0]
    meaning, _, settings = inspect.getdoc(spec).partition("\n\nArgs:\n")
    assert not [line for line in meaning.splitlines() if line.startswith(" ")]
    # Neither the limits of 32 and 64 bits, nor all settings of a section on one line.
    assert not re.search(r"e\+|2,147,483|Specs|Spec\(.+\)", settings)


def test_the_text_of_a_spec_shows_the_settings_that_are_not_the_default():
    assert repr(ls.TrainSpec()) == "TrainSpec()"
    assert repr(ls.TrainSpec(steps=5, batch=8)) == "TrainSpec(steps=5)"
    assert "train=TrainSpec()," in str(inspect.signature(ls.Recipe))
    assert repr(ls.ClassSpec(name="wood", value=2)) == "ClassSpec(name='wood', value=2)"


def test_every_spec_of_a_recipe_is_a_public_name():
    assert {spec.__name__ for spec in SECTIONS.values()} <= set(ls.__all__)


def test_help_says_the_type_range_and_default_of_a_setting_in_plain_words():
    lines = inspect.getdoc(ls.TrainSpec).splitlines()
    starts = [line.strip() for line in lines if line.startswith("    ") and line[4] != " "]
    assert "accumulate: whole number (at least 1, at most 65,536). Default: 1." in starts
    assert "batch: whole number (at least 1, at most 65,536) or 'auto'. Default: 8." in starts
    assert "optimizer: 'adamw' or 'sgd'. Default: 'adamw'." in starts
    assert "log: path." in starts
    parameters = inspect.signature(ls.TrainSpec).parameters
    assert str(parameters["learning_rate"]) == "learning_rate=0.002"
    assert str(inspect.signature(ls.ChipSpec)).startswith("(*, size=256, stride=None")


@pytest.mark.parametrize("path", ["a\tb/scene.tif", "/data/a\nb.tif"])
def test_a_path_may_hold_control_characters_where_a_system_allows_them(path):
    assert SceneSpec(image=(path,)).image == (path,)
