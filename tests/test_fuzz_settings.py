"""Fuzz of settings: any value of any setting is used or refused in one line, soon, and writes nothing elsewhere."""

import contextlib
import contextvars
import logging
import math
import signal
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import landscribe
import worlds
from landscribe.commands import app as cli
from landscribe.commands.options import flag_names, spec_of
from landscribe.errors import LandscribeError, is_printable
from landscribe.geo.spec import ImagerySpec
from landscribe.recipe import SECTIONS, Recipe
from landscribe.spec import NoFlag
from networks import Identity

SIDE = 64
SECONDS = 30
"""Most seconds of one command: more is a hang."""

numbers = st.sampled_from([-1, 0, 1, 2, 31, 64, 2**31, 2**63, 2**64, 10**30, 0.5, -0.5, 1e-320, 1e30, 1e308])
infinite = st.sampled_from([math.inf, -math.inf, math.nan])
texts = st.sampled_from(
    ["", " ", "auto", "none", "all", "true", "1", "-1", "1e9", "nan", "inf", "0/0", "3/2", "1,2", ",", "a=1", "=", "%",
     "5%", "../../x", "/", ".", "~", "/dev/null", "EPSG:4978", "EPSG:99999", "meta", "cuda:99", "smp:Unet", "this:x",
     "*", "[", "\x1b[31m", "a\nb", "\u202e", "é" * 300, "0" * 5000, "{", "dice*", "999*ce", "focal(gamma=inf)",
     "ce+" * 50, "train"]
)  # fmt: skip
odd = st.none() | st.booleans() | numbers | infinite | texts | st.text(max_size=8)
values = odd | st.lists(odd, max_size=3) | st.dictionaries(st.text(max_size=4), odd, max_size=2)
sections = {name: spec for name, spec in SECTIONS.items() if name != "scenes"}


def fuzzed(spec: type) -> st.SearchStrategy[dict]:
    """Up to three settings of a spec, and in some cases one that it has not."""
    names = st.sampled_from([*spec.model_fields, "x"])
    return st.dictionaries(names, values, min_size=1, max_size=3)


@contextlib.contextmanager
def ended_in(seconds: int) -> Iterator[None]:
    """Fails the test if the block takes longer."""

    def late(*_: object) -> None:
        pytest.fail(f"not ended after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def assert_one_line(message: str) -> None:
    assert message.strip()
    assert is_printable(message)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_recipe_of_any_settings_is_valid_and_comes_back_or_is_refused_in_a_line(data):
    section = data.draw(st.sampled_from(sorted(SECTIONS)))
    chosen = data.draw(fuzzed(SECTIONS[section]))
    recipe = {"scenes": [{"image": "a.tif"}]}
    recipe |= {"scenes": [{"image": "a.tif"} | chosen]} if section == "scenes" else {section: chosen}
    try:
        text = Recipe.of(recipe).to_toml()
    except LandscribeError as error:
        assert_one_line(str(error))
    else:
        assert Recipe.of(tomllib.loads(text)).to_toml() == text


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=80) | st.text(max_size=80).map(lambda text: text.encode("utf-8", "surrogatepass")))
@example(b"scenes = " + b"[" * 5000)
@example(b"a." * 5000 + b"b = 1")
@example(b"seed = 1e999")
@example(b"\x00")
def test_a_recipe_of_any_bytes_is_refused_in_a_line(tmp_path, content):
    (tmp_path / "recipe.toml").write_bytes(content)
    with pytest.raises(LandscribeError) as refused:
        landscribe.check(tmp_path / "recipe.toml")
    assert_one_line(str(refused.value))


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """A scene of noise, polygons and a model, with a folder `in` to work in."""
    folder = tmp_path_factory.mktemp("parent") / "world"
    folder.mkdir()
    worlds.write_raster(folder / "scene.tif", worlds.noise(1, SIDE, SIDE) % 4)
    boxes = [worlds.pixel_box(row, 9, 12, 40) for row in (5, 25, 45)]
    worlds.write_polygons(folder / "labels.geojson", boxes, **{"class": ["house", "road", "house"]})
    model = landscribe.Model.wrap(Identity(), bands=["scene"], classes=list("abcd"), pixel_size=1.0)
    model.save(folder / "model")
    (folder / "in").mkdir()
    return folder


@pytest.fixture
def command(world, monkeypatch, capfd):
    """Runs a command in `in`; it must end soon with 0, or with a line and 1 or 2, and write nothing outside of `in`."""
    loggers = [logging.getLogger(name) for name in ("landscribe", "rasterio")]
    before = [(logger, list(logger.handlers), logger.level, logger.propagate) for logger in loggers]
    monkeypatch.chdir(world / "in")

    def outside() -> set[Path]:
        """Files outside of `in`; a model folder may keep what was measured of the model."""
        own = (world / "in", world / "model")
        return {path for path in world.parent.rglob("*") if not {*own} & {path, *path.parents}}

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["landscribe", *arguments])
        others = outside()
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended, ended_in(SECONDS):
            contextvars.copy_context().run(cli.main)
        said = capfd.readouterr()
        assert ended.value.code in (0, 1, 2), said
        assert "Traceback" not in said.err
        if ended.value.code == 2 and not said.out:
            assert_one_line(said.err.splitlines()[-1])
        assert outside() == others
        return ended.value.code

    yield run
    for logger, handlers, level, propagate in before:
        logger.handlers[:], logger.level, logger.propagate = handlers, level, propagate


def flags(*names: str) -> st.SearchStrategy[list[str]]:
    """Up to two flags of these sections with any text or number."""
    fields = [(name, field) for section in names for name, field in spec_of(section).model_fields.items()]
    known = [
        (flag_names(name, field)[0], field)
        for name, field in fields
        if not any(isinstance(mark, NoFlag) for mark in field.metadata) and name not in ("dask", "trial")
    ]
    value = (numbers | infinite).map(str) | texts

    def typed(flag: str, field: object) -> st.SearchStrategy[list[str]]:
        return st.just([flag]) if field.annotation is bool else value.map(lambda text: [f"{flag}={text}"])

    one = st.sampled_from(known).flatmap(lambda chosen: typed(*chosen))
    return st.lists(one, min_size=1, max_size=2).map(lambda parts: [text for part in parts for text in part])


LIGHT = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
SCENE = ("--image", "../scene.tif", "--labels", "../labels.geojson")
PLAIN = ("--encoder", "plain", "--weights", "none", "--option", "encoder_widths=[4, 8]")


@LIGHT
@given(flags("scenes", "chips", "split", "train", "predict"))
def test_check_of_any_flags_ends_in_a_line(command, chosen):
    command("check", *SCENE, "--no-trial", "--size=16", *PLAIN, *chosen)


@LIGHT
@given(flags("scenes", "chips", "split"))
def test_chips_of_any_flags_are_cut_or_refused_in_a_line(command, chosen):
    command("chip", *SCENE, "--size=16", "--out", "chips", "--overwrite", "--virtual", *chosen)


@LIGHT
@given(flags("imagery", "predict"))
@example(["--tile=65536", "--batch=65536"])
@example(["--crs=EPSG:4978"])
@example(["--device=meta"])
def test_maps_of_any_flags_are_written_or_refused_in_a_line(command, chosen):
    command("predict", "../model", "../scene.tif", "--out", "map.tif", "--overwrite", "--tile=32", *chosen)


@pytest.mark.parametrize(
    "arguments",
    [
        ["demo", "--size", "0"], ["demo", "--size", "10000000"], ["demo", "--seed", "-1"],
        ["demo", "--seed", str(2**64)],
        ["summary", "--size", str(10**7)], ["summary", "--bands", "0"], ["summary", "--classes", str(2**64)],
        ["bench", "../model", "--seconds", "inf"], ["bench", "../model", "--seconds", "nan"],
        ["bench", "../model", "--tile", str(10**6)], ["bench", "../model", "--batch", "0"],
        ["train", "../nothing", "--out", "x", "--seed", "-1"], ["describe", "../nothing", "--seed", "1e99"],
        ["chip", *SCENE, "--out", "."],
        ["chip", *SCENE, "--out", "x" * 300], ["new", "a\x1b.toml"], ["report", "\udcff"],
    ],
    ids=lambda arguments: " ".join(arguments)[:40].encode("ascii", "backslashreplace").decode(),
)  # fmt: skip
def test_values_that_no_command_can_use_are_refused_in_a_line(command, arguments):
    assert command(*arguments) == 2


@pytest.mark.parametrize("spec", [*SECTIONS.values(), ImagerySpec])
def test_each_field_refuses_or_takes_each_odd_value(spec):
    oddities = [None, True, -1, 0, 2**64, 1e308, math.inf, math.nan, "", "\x1b", [], {}, [[]], b"x", object()]
    needed = {"image": "a.tif", "name": "a", "value": 1}
    given_needed = {name: value for name, value in needed.items() if name in spec.model_fields}
    for name in spec.model_fields:
        for value in oddities:
            try:
                spec.of(given_needed | {name: value})
            except LandscribeError as error:
                assert_one_line(str(error))
