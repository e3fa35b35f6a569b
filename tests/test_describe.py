"""Descriptions and contact sheets of chips."""

import json
import weakref
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from PIL import Image

import worlds
from landscribe import verbs
from landscribe.commands.tables import print_description
from landscribe.data.batches.augment_spec import AugmentSpec
from landscribe.errors import ChipError, OutputError, RecipeError
from landscribe.geo.classes import Classes
from landscribe.reports import sheet


@pytest.fixture(scope="module")
def chips(tmp_path_factory):
    """Four chips of 32 pixels: two of class 1 alone, one of both, one of class 2 alone, an eighth of it unlabelled."""
    folder = tmp_path_factory.mktemp("described")
    labels = np.ones((1, 64, 64), np.uint8)
    labels[:, 32:, 48:] = 2
    labels[:, 32:, :32] = 2
    labels[:, :4, :32] = 255
    worlds.write_raster(folder / "scene.tif", worlds.noise(5, 64, 64, "uint16"))
    worlds.write_raster(folder / "labels.tif", labels, nodata=255)
    return verbs.chip(
        images=[folder / "scene.tif"], labels=folder / "labels.tif", out=folder / "chips", size=32, val=0, test=0
    )


def test_counts_are_those_of_the_masks(chips):
    described = verbs.describe(chips)
    assert described.chips == {"train": 4}
    assert described.unknown_share == pytest.approx(4 * 32 / 64**2)
    assert [(row.name, row.pixels, row.chips["train"]) for row in described.classes] == [
        ("1", 2 * 32 * 32 + 16 * 32 - 4 * 32, 3), ("2", 32 * 32 + 16 * 32, 2),
    ]  # fmt: skip
    assert described.together == ((3, 1), (1, 2))
    assert sum(row.share for row in described.classes) == pytest.approx(1)
    assert len(described.bands) == 5
    json.dumps(described.as_dict(), allow_nan=False)


@pytest.mark.parametrize(("stride", "pixels"), [(32, 64 * 64), (16, 9 * 32 * 32)])
def test_pixels_of_overlapping_chips_are_said_to_be_counted_in_each(stride, pixels, tmp_path, capsys):
    worlds.write_raster(tmp_path / "scene.tif", worlds.noise(1, 64, 64, "uint8"))
    worlds.write_raster(tmp_path / "labels.tif", np.arange(64 * 64).reshape(64, 64).astype(np.uint8) % 2 + 1)
    chips = verbs.chip(
        images=[tmp_path / "scene.tif"], labels=tmp_path / "labels.tif", out=tmp_path / "chips", size=32,
        stride=stride, val=0, test=0,
    )  # fmt: skip
    described = verbs.describe(chips)
    assert sum(row.pixels for row in described.classes) == pixels
    print_description(described)
    is_said = "chips overlap: a pixel in several chips is counted in each of them" in capsys.readouterr().out
    assert is_said == described.overlaps == (stride < 32)


def test_a_description_is_one_line_in_python(chips):
    assert repr(verbs.describe(chips)) == (
        "Description(chips={'train': 4}, size=32, dtype='uint16', bands=5, classes=2, unknown_share=0.031)"
    )


def test_chips_and_class_shares_are_given_by_group(chips, capsys):
    assert verbs.describe(chips).groups == ()
    table = chips.table.assign(group=["north", "north", "south", "south"], split=["train", "val", "train", "train"])
    described = verbs.describe(replace(chips, table=table))
    north, south = described.groups
    assert (north.name, north.chips) == ("north", {"train": 1, "val": 1})
    assert (south.name, south.chips) == ("south", {"train": 2, "val": 0})
    assert north.shares == {"1": 1, "2": 0}
    assert south.shares == {"1": pytest.approx(0.25), "2": pytest.approx(0.75)}
    print_description(described)
    printed = capsys.readouterr()
    assert "south" in printed.out + printed.err
    assert "75.0 %" in printed.out + printed.err


@pytest.mark.parametrize("augment", ["none", "strong", {"preset": "light", "mosaic": 0.5}])
def test_the_sheet_shows_each_chip_and_is_reproducible(chips, tmp_path, augment):
    pictures = []
    for name in ("one.png", "two.png"):
        verbs.describe(chips, sheet=tmp_path / name, augment=augment, seed=3)
        pictures.append(np.asarray(Image.open(tmp_path / name)))
    assert (pictures[0] == pictures[1]).all()
    # Titles and legend; four chips, each in a row of its own or three in one.
    rows = 2 if augment == "none" else 4
    assert pictures[0].shape == (18 + rows * (18 + 168) + 18, 6 * 168, 3)
    assert len(np.unique(pictures[0].reshape(-1, 3), axis=0)) > 50


def test_a_sheet_is_not_overwritten_and_an_unknown_preset_is_refused(chips, tmp_path):
    (tmp_path / "sheet.png").write_text("mine")
    with pytest.raises(OutputError):
        verbs.describe(chips, sheet=tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").read_text() == "mine"
    with pytest.raises(RecipeError, match=r"augment.*preset"):
        verbs.describe(chips, sheet=tmp_path / "other.png", augment="stong")


@pytest.mark.parametrize("setting", [{"augment": "strong"}, {"augment": "auto"}, {"seed": 5}, {"overwrite": True}])
def test_settings_of_a_sheet_are_refused_without_one(chips, setting):
    with pytest.raises(RecipeError, match=f"no contact sheet for --{next(iter(setting))}. Pass --sheet too"):
        verbs.describe(chips, **setting)


@pytest.mark.parametrize("none", ["none", {"preset": "none"}, AugmentSpec(preset="none"), {"symmetries": False}])
def test_defaults_of_the_settings_of_a_sheet_may_be_stated_without_one(chips, none):
    assert verbs.describe(chips, augment=none, seed=0, overwrite=False) == verbs.describe(chips)


def test_chips_with_several_classes_come_first(chips):
    (first,) = sheet._varied(chips, np.arange(len(chips)), 1, np.random.default_rng(0))
    assert (chips.counts[first] > 0).all()


def test_a_long_legend_wraps():
    names = [f"a class with a long name {number}" for number in range(12)]
    one, many = (Classes.from_labels(names[:count], background=False) for count in (1, 12))
    legend = partial(sheet._legend, has_unlabelled=True)
    assert len(legend(many)) > len(legend(one)) == sheet._LINE


def test_augmented_examples_are_of_train_chips_only(chips, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(sheet, "_augmented", lambda sample, *_: asked.append(sample) or [sample] * 4)
    mixed = replace(chips, table=chips.table.assign(split=["train", "val", "gap", "test"]))
    verbs.describe(mixed, sheet=tmp_path / "strong.png", augment="strong")
    assert len(asked) == 1
    verbs.describe(mixed, sheet=tmp_path / "none.png")
    assert np.asarray(Image.open(tmp_path / "none.png")).shape[0] == 18 + 2 * (18 + 168) + 18
    held_out = replace(chips, table=chips.table.assign(split="test"))
    with pytest.raises(ChipError, match=r"no chips of split train, .*Leave out --augment"):
        verbs.describe(held_out, sheet=tmp_path / "other.png", augment="light")


def test_the_legend_has_the_colours_of_the_pictures():
    classes = Classes.from_labels(["house"], background=True)
    legend = sheet._legend(classes, has_unlabelled=True)
    outline, tint = (0x00, 0x72, 0xB2), (173, 210, 230)  # 32 % of the outline over white
    colours = [tuple(map(int, legend[4 + 5, x])) for x in range(legend.shape[1])]
    assert (0xD9, 0xD9, 0xD9) in colours  # background is only outlined
    first = colours.index(outline)
    assert colours[first : first + 10] == [outline, *[tint] * 8, outline]
    assert colours.count((128, 128, 128)) >= 10
    assert not (sheet._legend(classes, has_unlabelled=False) == 128).all(axis=2)[9].any()


@pytest.mark.parametrize("unlabelled", [True, False])
def test_the_legend_names_unlabelled_pixels_only_where_there_are_any(chips, tmp_path, monkeypatch, unlabelled):
    shown, legend = [], sheet._legend
    monkeypatch.setattr(sheet, "_legend", lambda *classes, **given: shown.append(given) or legend(*classes, **given))
    # Of four chips, the first one alone has unlabelled pixels.
    chosen = np.isin(np.arange(4), [0, 1] if unlabelled else [1, 2])
    verbs.describe(chips.take(chosen), sheet=tmp_path / "sheet.png")
    assert shown == [{"has_unlabelled": unlabelled}]


def test_where_there_is_no_image_a_picture_has_the_grey_of_the_legend(chips):
    sample = sheet.ChipReader(chips).read(0)
    empty = sheet.Sample(sample.pixels * 0, np.zeros_like(sample.valid), np.full_like(sample.mask, 255))
    _, labelled = sheet._pictures([empty], chips, sheet._common_limits([empty], (0, 1, 2)))
    assert (labelled[4:-4, 4:-4] == 128).all()


def test_equal_frequencies_of_integers_have_equal_bars(tmp_path):
    values = np.arange(256, dtype=np.uint8).repeat(16).reshape(1, 64, 64)
    worlds.write_raster(tmp_path / "scene.tif", values)
    worlds.write_raster(tmp_path / "labels.tif", np.ones((1, 64, 64), np.uint8))
    even = verbs.chip(
        images=[tmp_path / "scene.tif"], labels=tmp_path / "labels.tif", out=tmp_path / "chips", size=32, val=0, test=0
    )
    described = verbs.describe(even)
    # 1 to 254 are between the outer quantiles: 32 bins of 8 integers; the first one also counts 0.
    assert (described.edges[0], described.edges[1], len(described.edges)) == (0.5, 8.5, 33)
    assert described.bands[0].shares == (9 / 256, *[8 / 256] * 30, 7 / 256)


def test_the_printed_histogram_ends_at_the_highest_value(tmp_path, capsys):
    # 33 integers: 17 bins of two, of which the last one would also hold 33.
    worlds.write_raster(tmp_path / "scene.tif", np.resize(np.arange(33, dtype=np.uint8), (1, 64, 64)))
    worlds.write_raster(tmp_path / "labels.tif", np.ones((1, 64, 64), np.uint8))
    chips = verbs.chip(
        images=[tmp_path / "scene.tif"], labels=tmp_path / "labels.tif", out=tmp_path / "chips", size=32, val=0, test=0
    )
    described = verbs.describe(chips)
    assert described.edges[-1] == 33.5
    print_description(described)
    printed = capsys.readouterr()
    assert "histograms from 0 to 32.00, of 4 chips" in printed.out + printed.err


def test_chips_of_a_sheet_have_one_stretch(tmp_path):
    # A dark and a bright chip: 10 to 50 and 150 to 190 in each band.
    values = np.tile(np.linspace(10, 50, 32).astype(np.uint8), (3, 32, 2))
    values[:, :, 32:] += 140
    worlds.write_raster(tmp_path / "scene.tif", values)
    worlds.write_raster(tmp_path / "labels.tif", np.ones((1, 32, 64), np.uint8))
    two = verbs.chip(
        images=[tmp_path / "scene.tif"], labels=tmp_path / "labels.tif", out=tmp_path / "chips", size=32, val=0, test=0
    )
    verbs.describe(two, sheet=tmp_path / "sheet.png")
    picture = np.asarray(Image.open(tmp_path / "sheet.png"))
    means = sorted(picture[36 + 4 : 36 + 164, col + 4 : col + 164].mean() for col in (0, 2 * 168))
    assert means[0] < 255 * 0.3
    assert means[1] > 255 * 0.7


def test_a_sheet_keeps_no_chip_that_it_has_drawn(chips, tmp_path, monkeypatch):
    read, alive = [], []

    class Counting(sheet.ChipReader):
        def read(self, index):
            sample = super().read(index)
            read.append(weakref.ref(sample.pixels))
            alive.append(sum(pixels() is not None for pixels in read))
            return sample

    monkeypatch.setattr(sheet, "ChipReader", Counting)
    verbs.describe(chips, sheet=tmp_path / "sheet.png")
    # Each of the four for the limits, and again for its pictures; the one before it may still have a name.
    assert (len(alive), max(alive)) == (8, 2)


def test_a_chip_is_drawn_from_few_of_its_pixels():
    large = sheet.Sample(np.ones((4, 2048, 1024), np.uint16), np.ones((2048, 1024), bool), np.ones((2048, 1024), "u1"))
    small = sheet._drawn(large)
    # Every fourth row and column: 2048 / 4 is the first that is no longer than 640.
    assert [array.shape for array in small] == [(4, 512, 256), (512, 256), (512, 256)]
