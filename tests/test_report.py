"""The report is one self-contained page about a run."""

import base64
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rasterio
from affine import Affine
from PIL import Image
from rasterio.crs import CRS

from landscribe import verbs
from landscribe.confusion import Confusion
from landscribe.data.chips.chips import Chips
from landscribe.data.chips.cutting import chip
from landscribe.data.chips.spec import ChipSpec
from landscribe.data.scenes.scene import open_scenes
from landscribe.data.scenes.spec import ClassSpec, SceneSpec
from landscribe.data.splits.spec import SplitSpec
from landscribe.errors import OutputError, RasterError, RecipeError
from landscribe.estimation.estimate import estimate
from landscribe.geo.classes import IGNORE, Classes
from landscribe.geo.grid import Grid, Window
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.rasters.whole_files import write_raster
from landscribe.maps.class_map import AREAS_TAG, RUN_TAG
from landscribe.model import Scaling
from landscribe.model.config import ModelConfig
from landscribe.reports import figures
from landscribe.reports.description import describe
from landscribe.reports.inputs import ReportInputs, _facts, _facts_of_each, _formula, _sample_of, _stops, _title
from landscribe.reports.page import write_report
from landscribe.reports.scenes import Scenes, read_small
from landscribe.runs import Run

SIDE, CHIP = 96, 32
PLACE = Affine(0.5, 0, 459_700, 0, -0.5, 4_827_000)
TABLE = (
    ClassSpec(name="ground", value=0),
    ClassSpec(name="house <b>&", value=1),
    ClassSpec(name="水 $w$", value=2),
    ClassSpec(name="never there", value=3),
)


@dataclass(frozen=True)
class Look:
    """What the imagery of a world is like."""

    bands: int = 3
    dtype: str = "uint8"
    nodata: float | None = 0
    placed: bool = True
    virtual: bool = False


def truth() -> np.ndarray:
    """Class values: houses on a lattice, a river, unlabelled ground in a corner."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[(np.add.outer(np.arange(SIDE) % 16 // 8, np.arange(SIDE) % 16 // 8)) == 2] = 1
    mask[:, 60:70] = 2
    mask[:6, :6] = IGNORE
    return mask


def draw_scene(folder: Path, name: str, look: Look, split: str | None = None) -> SceneSpec:
    """A scene whose brightness follows its classes; without data along one edge."""
    rng = np.random.default_rng(0)
    pixels = (40 + 60 * (truth() % 4) + rng.integers(0, 30, (look.bands, SIDE, SIDE))).astype(look.dtype)
    if look.nodata is not None:
        pixels[:, -10:] = look.nodata
    write_raster(folder / f"{name}.tif", pixels, grid(look), nodata=look.nodata)
    write_raster(folder / f"{name}_labels.tif", truth()[None], grid(look), nodata=IGNORE)
    return SceneSpec(image=str(folder / f"{name}.tif"), labels=str(folder / f"{name}_labels.tif"), split=split)


def grid(look: Look) -> Grid:
    return Grid(CRS.from_epsg(32617) if look.placed else None, PLACE, SIDE, SIDE)


def cut(folder: Path, specs: Sequence[SceneSpec], look: Look) -> Chips:
    scenes, classes = open_scenes(specs, TABLE)
    spec = ChipSpec(size=CHIP, virtual=look.virtual)
    return chip(scenes, classes, specs, folder / "chips", spec=spec, split=SplitSpec())


def draw_map(folder: Path, name: str, look: Look, wrong: Window | None = None) -> Path:
    """The truth as a map, but for one window in which every house is missing."""
    values = truth()
    if wrong:
        part = values[wrong.slices]
        part[part == 1] = 0
    write_raster(folder / f"{name}.tif", values[None], grid(look), nodata=IGNORE)
    return folder / f"{name}.tif"


def assessed(chips: Chips, split: str | None) -> dict[str, Any]:
    mask = chips.classes.to_indices(truth())
    counted = Confusion.of(chips.classes, mask, np.roll(mask, 1)) if split else Confusion.zeros(chips.classes)
    return counted.as_dict() | {"reference": "labels", "split": split, "maps": ["map_a"]}


def training_history(names: Sequence[str], epochs: int = 3) -> list[dict[str, Any]]:
    rows = []
    for epoch in range(1, epochs + 1):
        row = {"epoch": epoch, "step": 9 * epoch, "train_loss": 1 / epoch, "val_loss": None, "val_mean_f1": 0.3 * epoch}
        rows.append(row | {f"val_f1_{name}": None if name == "never there" else 0.2 * epoch for name in names})
    return rows


def run(folder: Path, look: Look | None = None, splits: Sequence[str] = ("train", "test")) -> ReportInputs:
    """A run over one scene a split, named a, b, …; the last one is mapped."""
    look = look or Look()
    specs = [draw_scene(folder, name, look, split) for name, split in zip("abc", splits, strict=False)]
    chips = cut(folder, specs, look)
    last = "abc"[len(splits) - 1]
    return ReportInputs(
        title="A <world> & its map",
        chips=chips,
        history=training_history(chips.classes.names),
        kept_epoch=2,
        assessment=assessed(chips, splits[-1]),
        maps=[draw_map(folder, f"map_{last}", look)],
        facts=[("network", "unet <on> resnet18"), ("seed", "0")],
    )


def write_page(inputs: ReportInputs, folder: Path) -> str:
    return write_report(inputs, folder / "report.html").read_text(encoding="utf-8")


class Elements(HTMLParser):
    """Every tag of a page with its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def decoded(picture: str) -> np.ndarray:
    """The (rows, cols, 4) pixels of a data URI."""
    data = base64.b64decode(picture.removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> ReportInputs:
    return run(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def page(world: ReportInputs, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_page(world, tmp_path_factory.mktemp("page"))


def test_the_page_refers_to_nothing_outside_itself(page):
    elements = Elements(page).found
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in elements}
    sources = [attributes["src"] for _, attributes in elements if "src" in attributes]
    assert sources
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    targets = [attributes[name] for _, attributes in elements for name in ("href", "xlink:href") if name in attributes]
    ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert {target.removeprefix("#") for target in targets} <= set(ids)
    assert len(ids) == len(set(ids))
    assert not re.search(r"https?:|@import|url\((?!#)", page)


def test_every_picture_has_a_text_alternative(page):
    elements = Elements(page).found
    assert all(attributes.get("alt") for tag, attributes in elements if tag == "img")
    assert all(attributes.get("aria-label") for tag, attributes in elements if tag == "svg")


def test_names_are_escaped_everywhere(page):
    assert "<b>&" not in page
    assert "<world>" not in page
    # In a legend, in the matrix (twice), in the tables.
    assert page.count("house &lt;b&gt;&amp;") >= 5
    assert "水 $w$" in page
    assert "unet &lt;on&gt; resnet18" in page


def test_the_same_inputs_give_the_same_bytes(world, page, tmp_path):
    assert write_page(world, tmp_path) == page


@pytest.mark.parametrize(
    "look",
    [
        Look(bands=1, dtype="uint16"),
        Look(bands=2, dtype="float32", nodata=float("nan")),
        Look(bands=4, dtype="int16", nodata=-9999, virtual=True),
        Look(placed=False, nodata=None),
    ],
    ids=["one band", "float", "virtual", "no CRS"],
)
def test_imagery_of_any_bands_and_dtype_is_shown(look, tmp_path):
    page = write_page(replace(run(tmp_path, look), history=[], assessment={}), tmp_path)
    assert 'alt="Image: b, 96 \u00d7 96 pixels' in page
    # Half of the lattice's quarter is houses, and a river of ten columns.
    assert 'alt="Class map of b: ground ' in page
    assert ("without a CRS" in page) != look.placed


def test_a_run_without_history_test_chips_or_assessment_says_so(tmp_path):
    inputs = run(tmp_path, splits=("train",))
    inputs = replace(inputs, history=[], kept_epoch=None, assessment=assessed(inputs.chips, None), maps=[])
    page = write_page(inputs, tmp_path)
    for said in ("No training history", "No pixel was assessed", "No chip was held out", "This run has no map"):
        assert said in page


def test_val_chips_are_compared_where_there_is_no_test(tmp_path):
    page = write_page(run(tmp_path, splits=("train", "val")), tmp_path)
    assert "best of 9 val chips" in page
    assert "the epoch is chosen on <b>val</b>; accuracy is assessed on <b>val</b>." in page
    assert "<b>test</b>" not in page
    assert "<b>gap</b>" not in page
    assert "the epoch was chosen on them" in page


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ("test", "used neither for training nor for choosing the epoch"),
        ("train", "was trained on these chips"),
        ("elsewhere", "may include areas used for training"),
    ],
)
def test_the_page_names_the_use_of_the_assessed_chips(world, split, said, tmp_path):
    inputs = replace(world, history=[], maps=[], assessment=assessed(world.chips, split))
    assert said in write_page(inputs, tmp_path)


def test_training_accuracy_of_chips_of_one_scene_is_said(world, tmp_path):
    intervals = {"confidence": 0.95, "blocks": 12, "block_side": 64, "overall_accuracy": [0.1, 0.2]}
    caveat = "The network was trained on these chips: this is training accuracy."
    of_chips = {"caveat": caveat, "trained_splits": ["test"], "scenes": 1, "intervals": intervals}
    inputs = replace(world, history=[], maps=[], assessment=assessed(world.chips, "test") | of_chips)
    text = write_page(inputs, tmp_path)
    assert caveat in text
    assert "independent estimate" not in text
    assert "All these chips are of one scene: the intervals hold for this scene, not for others." in text


def test_the_title_names_the_first_scenes_in_their_order():
    names = SimpleNamespace(scene_names=("s2", "s10", "s1", "s3", "s4"))
    assert _title(SimpleNamespace(metadata=names)) == "s2, s10, s1 and 2 more"


def test_bands_that_files_name_differently_are_numbered(tmp_path):
    for names in (("a", "a"), ("a", "b")):
        folder = tmp_path / "".join(names)
        folder.mkdir()
        specs = [draw_scene(folder, scene, Look(), split) for scene, split in (("a", "train"), ("b", "test"))]
        for scene, name in zip("ab", names, strict=True):
            with rasterio.open(folder / f"{scene}.tif", "r+") as target:
                target.descriptions = [f"{name}{number}" for number in (1, 2, 3)]
        chips = cut(folder, specs, Look())
        page = write_page(ReportInputs("T", chips, [], None, assessed(chips, None), [], []), folder)
        for number in (1, 2, 3):
            assert f'<th scope="row">{f"a{number}" if names == ("a", "a") else f"band {number}"}</th>' in page


def test_all_scenes_have_one_stretch(tmp_path):
    inputs = run(tmp_path)
    scenes = Scenes(inputs.chips, [], None, describe(inputs.chips))
    pixels = np.full((3, 4, 4), 100.0)
    with rasterio.open(tmp_path / "b.tif", "r+") as target:
        target.write(target.read() // 2)
    darker, valid = scenes.picture("b", SIDE)
    brighter, _ = scenes.picture("a", SIDE)
    assert darker[valid].mean() < brighter[valid].mean() - 20
    assert scenes.chip(pixels).shape == (4, 4, 3)


def test_a_class_that_never_occurs_has_a_dash_and_is_named(page):
    assert re.search(r"never</span> there</th>(<td>\u2013</td>){4}<td>0</td><td>0</td>", page)
    assert "so accuracy is unknown: never there." in page


def test_the_report_says_that_pixels_of_overlapping_chips_count_in_each(world, page, tmp_path):
    said = "Chips overlap: a pixel in several chips is counted in each of them."
    assert said not in page
    table = world.chips.table.copy()
    table.loc[1, ["scene", "row", "col"]] = table.loc[0, ["scene", "row", "col"]]
    assert said in write_page(replace(world, chips=replace(world.chips, table=table)), tmp_path)


def test_groups_of_scenes_have_a_table_only_if_there_are_groups(world, page, tmp_path):
    assert "By region or group" not in page
    measures = {key: world.assessment[key] for key in ("pixels", "overall_accuracy", "mean_f1", "classes")}
    groups = {"Ohio": measures, "<b>Virginia": measures | {"pixels": 7, "overall_accuracy": None}}
    text = write_page(replace(world, assessment=world.assessment | {"groups": groups}), tmp_path)
    table = text.partition("<h3>By region or group</h3>")[2].partition("</table>")[0]
    of_reference = write_page(replace(world, reference=world.assessment | {"groups": groups}), tmp_path)
    assert table in of_reference.partition("<h3>Against")[2]
    assert re.findall(r'<th scope="row">([^<]*)</th><td>([^<]*)</td>', table) == [
        ("Ohio", f"{measures['pixels']:,}"),
        ("&lt;b&gt;Virginia", "7"),
    ]
    assert table.count('scope="col"') == 4 + len(TABLE)


def test_intervals_stand_below_the_measures_that_have_them(world, page, tmp_path):
    assert "Intervals of" not in page
    ends = {key: [0.1234, 0.5678] for key in ("users_accuracy", "producers_accuracy", "f1", "iou")}
    rows = [{"name": row["name"], **ends} for row in world.assessment["classes"]]
    rows[-1]["users_accuracy"] = [None, None]  # of a class that is not in the map
    overall = {key: [0.25, 0.75] for key in ("overall_accuracy", "mean_f1", "mean_iou")}
    settings = {"confidence": 0.95, "blocks": 12, "block_side": 64, "seed": 0}
    assessment = world.assessment | {"intervals": settings | overall | {"classes": rows}}
    text = write_page(replace(world, assessment=assessment), tmp_path)
    assert text.count("0.123 to 0.568") == 4 * len(TABLE) - 1
    assert text.count("0.250 to 0.750") == 3
    assert "Intervals of 95&nbsp;% from resamples of 12 blocks of 64" in text


def test_estimates_of_a_sample_stand_beside_the_counts_of_the_map(world, page, tmp_path):
    assert 'id="sample"' not in page
    rows = [("x", "x", "x", 40), ("x", "x", "<new>", 10)]
    table = pd.DataFrame(rows, columns=["stratum", "map", "reference", "count"])
    estimates = estimate(table, [{"stratum": "x", "units": 1000, "area": 50}]).as_dict()
    sample = estimates | {
        "map": "map.tif", "reference": "points.gpkg", "estimator": "stratified sample", "unlabelled_units": 3,
        "area_unit": "km²", "map_counts": {"x": {"area": 50.0}, "<new>": {"area": 0.0}},
    }  # fmt: skip
    text = write_page(replace(world, sample=sample), tmp_path)
    section = text.partition('id="sample"')[2].partition("</section>")[0]
    assert "50 labelled units of points.gpkg (stratified sample)" in section
    assert "3 more units have no label and are left out" in section
    assert "an estimate for the whole map" in section
    assert "Counted: pixels of the map" in section
    assert re.search(r"&lt;new&gt;</th><td>\u2013</td><td>0\.000<small", section)
    assert re.search(r'<td>0</td><td>10\.00<small class="ends">4\.40 to 15\.60<br>se 2\.86</small></td></tr>', section)


def test_estimates_of_blocks_in_an_area_name_the_blocks_and_the_area(world, tmp_path):
    estimates = estimate(
        [{"stratum": "x", "map": "x", "reference": "x", "count": 40}], [{"stratum": "x", "units": 123456}]
    )
    sample = estimates.as_dict() | {
        "map": "map.tif", "reference": "points.gpkg", "estimator": "stratified sample", "unlabelled_units": 0,
        "area_unit": "blocks", "map_counts": {"x": {"area": 123456.0}}, "unit": 3, "area_file": "park.gpkg",
    }  # fmt: skip
    text = write_page(replace(world, sample=sample), tmp_path)
    assert "an estimate for the part of the map in park.gpkg" in text
    assert "Counted: blocks of 3 \u00d7 3 pixels by their majority class" in text
    assert re.findall(r"<td>(123,456)\b", text) == ["123,456", "123,456"]


def test_groups_and_an_independent_reference_have_their_intervals(world, tmp_path):
    intervals = {"overall_accuracy": [0.311, 0.722], "mean_f1": [0.411, 0.822], "classes": [{}] * len(TABLE)}
    measures = world.assessment | {"intervals": intervals}
    assessment = world.assessment | {"groups": {"north": measures, "south": world.assessment}}
    text = write_page(replace(world, assessment=assessment, reference=measures), tmp_path)
    north, south = re.findall(r'<th scope="row">(?:north|south)</th>.*', text)
    assert '<small class="ends">0.311 to 0.722</small>' in north
    assert "ends" not in south
    assert "&nbsp;(0.311 to 0.722), mean F1" in text


def test_a_reference_with_labels_of_the_training_is_not_called_independent(world, tmp_path):
    independent = write_page(replace(world, reference=world.assessment | {"split": None}), tmp_path)
    assert "<p>An independent reference: " in independent
    reference = world.assessment | {"split": None, "caveat": "The network was trained on labels of this file."}
    text = write_page(replace(world, reference=reference), tmp_path)
    assert re.search(r"<p>Reference: [^<]* The network was trained on labels of this file\.</p>", text)
    assert "An independent reference" not in text


def test_the_report_says_why_there_are_no_intervals(world, tmp_path):
    reason = "no intervals: 8 blocks. Compare a larger area, or choose a smaller --block-size"
    assessment = world.assessment | {"intervals": {"reason": reason, "confidence": 0.95}}
    text = write_page(replace(world, assessment=assessment), tmp_path)
    # Readers of a page pass no flags. Kappa needs no intervals.
    assert '<p class="soft">No intervals: 8 blocks.</p>\n<p class="soft">Kappa ' in text


def test_counts_of_the_map_are_called_counts_and_no_estimates(world, tmp_path):
    path = draw_map(tmp_path, "counted", Look())
    areas = {
        "house <b>&": {"pixels": 1200, "share": 0.25, "km2": 0.0003},
        "ground": {"pixels": 62800, "share": 0.75, "km2": 0.0157},
    }
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(**{AREAS_TAG: json.dumps(areas)})
    text = write_page(replace(world, maps=[path]), tmp_path)
    # One unit for the column: the whole is 1.6 ha.
    assert "Area of these pixels, ha</th>" in text
    assert "&lt;b&gt;&amp;</th><td>1,200</td><td>1.9\u00a0%</td><td>0.03000</td>" in text
    assert "<td>62,800</td><td>98.1\u00a0%</td><td>1.570</td>" in text
    assert "These are counts of mapped pixels, not estimates of area" in text


def test_the_worst_held_out_chip_comes_first_with_its_accuracy(tmp_path):
    inputs = run(tmp_path, Look(placed=False))
    wrong = Window(32, 64, CHIP, CHIP)
    # Without a CRS both scenes lie on the same grid: the names of the maps decide.
    maps = [draw_map(tmp_path, "map_b", Look(placed=False), wrong), draw_map(tmp_path, "map_a", Look(placed=False))]
    page = write_page(replace(inputs, maps=maps), tmp_path)
    captions = re.findall(r"<b>(\w+)</b>: (.*?)\. Accuracy ([\d.]+)", page)
    # A quarter of the lattice is houses, of which the map misses all in that window.
    assert captions[0] == ("Worst", "b, row&nbsp;32, col&nbsp;64", "0.750")
    assert [word for word, _, _ in captions] == ["Worst", "Worst", "Median", "Median", "Best", "Best"]
    assert captions[-1][2] == "1.000"


def test_a_run_without_its_imagery_shows_its_chips(tmp_path):
    inputs = run(tmp_path)
    (tmp_path / "a.tif").unlink()
    page = write_page(inputs, tmp_path)
    assert "The scenes cannot be opened" in page
    assert "with its labels" in page


def test_a_map_that_cannot_be_read_is_named(world, tmp_path):
    broken = tmp_path / "broken.tif"
    broken.write_bytes(b"II*\0 not a raster")
    with pytest.raises(RasterError, match=r"broken\.tif"):
        write_page(replace(world, maps=[broken]), tmp_path)


def test_a_large_scene_is_shown_at_reduced_size(tmp_path):
    # 1500 columns become 900; the map's picture as well.
    place = Grid(CRS.from_epsg(32617), PLACE, 32, 1500)
    mask = (np.arange(32 * 1500).reshape(32, 1500) % 2).astype(np.uint8)
    for name, pixels in (("a", np.stack([mask * 90 + 100] * 3)), ("labels", mask[None]), ("map_a", mask[None])):
        write_raster(tmp_path / f"{name}.tif", pixels, place)
    specs = [SceneSpec(image=str(tmp_path / "a.tif"), labels=str(tmp_path / "labels.tif"), split="train")]
    chips = cut(tmp_path, specs, Look(virtual=True))
    page = write_page(ReportInputs("T", chips, [], None, assessed(chips, None), [tmp_path / "map_a.tif"], []), tmp_path)
    pictures = {attributes["alt"]: attributes["src"] for tag, attributes in Elements(page).found if tag == "img"}
    for start in ("Image: a, 1,500 \u00d7 32 pixels", "Class map of a: "):
        (source,) = [source for alt, source in pictures.items() if alt.startswith(start)]
        assert decoded(source).shape == (19, 900, 4)


def test_the_report_says_which_trainings_stopped_before_their_budget(world, tmp_path):
    early, whole = (
        SimpleNamespace(provenance={"stopped": stopped}, collapse="", threshold_advice="")
        for stopped in ("stopped at step 8 of 60", None)
    )
    folds = SimpleNamespace(names=["north", "south"], models=[SimpleNamespace(config=each) for each in (early, whole)])
    assert _stops(folds, None) == ["The training of north stopped at step 8 of 60."]
    assert _stops(None, whole) == []
    page = write_page(replace(world, stops=_stops(None, early)), tmp_path)
    training = page[page.index('<section id="training">') :]
    assert "<p>The training stopped at step 8 of 60.</p>" in training[: training.index("</section>")]


@pytest.mark.parametrize(("scores", "found"), [
    # F1 of background, road and house on the validation chips; None where these lack the class.
    ((0.9, 0.0, 0.0), "no class but background on the validation chips: F1 of road, house is 0"),
    ((0.0, 0.0, None), "no class on the validation chips: F1 of background, road is 0"),
    ((0.9, 0.0, 0.1), None),
    ((0.9, None, None), None),
    ((None, None, None), None),
])  # fmt: skip
def test_the_report_says_that_a_training_found_one_class_alone(scores, found):
    classes = [SimpleNamespace(name=name) for name in ("background", "road", "house")]
    measures = {"epoch": 3} | {f"val_f1_{each.name}": f1 for each, f1 in zip(classes, scores, strict=True)}
    config = ModelConfig.model_construct(classes=classes, measures=measures, provenance={})
    sentence = (
        f"The training failed. Epoch 3, whose weights the model has, finds {found}. Train with more steps, a lower "
        "learning rate or a larger batch."
    )
    assert _stops(None, config) == ([sentence] if found else [])


@pytest.mark.parametrize(("scores", "best", "missed"), [
    # F1 of background and building at 0.5, and of building at the threshold. Of a share of buildings of 1 / 5, a map
    # of background alone has F1 8 / 9 of it, and a map of buildings alone has F1 1 / 3 of them.
    ((0.98, 0.0), 0.83, "building"),
    ((8 / 9, 0.0), 1 / 3 + 0.11, "building"),
    ((8 / 9, 0.0), 1 / 3 + 0.09, None),
    ((0.0, 1 / 3), 0.83, "background"),
    ((0.0, 1 / 3), 0.4, None),
    ((0.0, 0.0), 0.83, None),
])  # fmt: skip
def test_a_model_that_separates_two_classes_at_its_threshold_has_not_failed(scores, best, missed):
    classes = [SimpleNamespace(name=name) for name in ("background", "building")]
    measures = {"epoch": 3, "val_f1_background": scores[0], "val_f1_building": scores[1], "val_threshold_f1": best}
    config = ModelConfig.model_construct(classes=classes, measures=measures, provenance={}, val_threshold=0.21)
    (sentence,) = _stops(None, config)
    assert sentence.startswith("The training failed. Epoch 3") == (missed is None)
    if missed:
        assert sentence == (
            f"The model needs a threshold. At threshold 0.5, F1 of {missed} is 0 on the validation chips; at 0.21, F1 "
            f"of building is {best:.3g}. Map with --threshold val."
        )


def test_photos_are_transparent_where_not_valid():
    colours = np.random.default_rng(0).integers(0, 255, (40, 50, 3)).astype(np.uint8)
    valid = np.ones((40, 50), bool)
    valid[:7] = False
    picture = decoded(figures.photo(colours, valid))
    assert ((picture[..., 3] == 255) == valid).all()
    assert np.abs(picture[valid][:, :3].astype(int) - colours[valid]).mean() < 16


def test_errors_are_drawn_only_where_both_are_labelled():
    reference = np.array([[0, 1, 255, 2]], np.uint8)
    predicted = np.array([[0, 2, 1, 255]], np.uint8)
    three = Classes.from_labels([0, 1, 2], background=False)
    right, wrong, *unknown = decoded(figures.error_picture(reference, predicted, three))[0].tolist()
    assert right == [0xC5, 0xE3, 0xD8, 255]
    assert wrong == [0xB3, 0x26, 0x1E, 255]
    assert [pixel[3] for pixel in unknown] == [0, 0]


def test_misses_and_false_alarms_of_two_classes_differ():
    two = Classes.from_labels(["field", "house"], background=False)
    field, house = two.values
    reference, predicted = np.array([[[field, field, house, house]], [[field, house, field, house]]], np.uint8)
    right, alarm, miss, _ = decoded(figures.error_picture(reference, predicted, two))[0].tolist()
    colours = ["#" + "".join(f"{channel:02x}" for channel in pixel[:3]) for pixel in (right, miss, alarm)]
    assert dict(
        zip(("correct", "house missed", "false alarm of house"), colours, strict=True)
    ) == figures.error_colours(two)
    assert len(set(colours)) == 3


def test_a_scale_bar_is_as_long_as_its_text_says():
    white = np.full((300, 400, 3), 200, np.uint8)
    colours, valid = figures.with_scale_bar(white, np.zeros((300, 400), bool), 12.0)
    # A quarter of 4800 m: 1000 m, which are 83 pixels.
    bar = (colours == [0x1F, 0x29, 0x33]).all(axis=-1)
    assert bar.sum(axis=1).max() == 83
    assert figures.length_text(figures.round_length(12.0 * 400 / 4)) == "1 km"
    assert valid[bar].all()
    tiny = figures.with_scale_bar(white[:9, :9], np.ones((9, 9), bool), 12.0)
    assert (tiny[0] == white[:9, :9]).all()


def test_stretch_limits_come_from_valid_pixels_only():
    pixels = np.arange(101, dtype=np.float32).reshape(1, 1, 101).repeat(3, axis=0)
    pixels[:, :, 0] = -1e9
    valid = np.ones((1, 101), bool)
    valid[0, 0] = False
    limits = figures.limits_of(pixels, valid)
    # 1 to 100: percentiles 2 and 98 lie 2 % inside.
    np.testing.assert_allclose(limits, [[2.98] * 3, [98.02] * 3])
    assert figures.stretched(pixels, limits)[0, [2, 99], 0].tolist() == [0, 255]


def test_averages_leave_out_invalid_pixels():
    pixels = np.array([[[1, 3, 0, 0], [5, 90, 0, 0]]], np.uint8)
    valid = np.array([[True, True, False, False], [True, False, False, False]])
    means, valid_means = figures.halved(pixels, valid)
    assert means.tolist() == [[[3.0, 0.0]]]
    assert valid_means.tolist() == [[True, False]]


def test_held_out_chips_are_on_top_in_the_split_map():
    ground = np.zeros((20, 20, 3), np.uint8)
    windows = [Window(0, 0, 20, 20), Window(0, 0, 3, 3)]
    picture = decoded(figures.split_picture(ground, 1.0, windows, ["test", "train"]))
    # The inner pixel shows the tint of test (red above blue), not that of train (blue above red).
    assert picture[1, 1, 0] > picture[1, 1, 2]


def test_a_chart_has_a_white_class_in_white_and_the_page_behind_it():
    chart = figures.line_chart([1, 2], [figures.Line("snow", "#ffffff", [0.1, 0.9])], kept=None, top=1, alt="snow")
    assert "stroke: #ffffff" in chart
    assert "fill: var(--card)" in chart


def test_a_confusion_matrix_of_many_classes_prints_every_count():
    counts = np.arange(9 * 9, dtype=np.int64).reshape(9, 9) * 12_345
    chart = figures.confusion_chart([f"class {k}" for k in range(9)], counts, "nine")
    assert all(f">{count:,}</text>" in chart for count in counts.ravel())


@pytest.mark.parametrize("rule", ["any", "all"])
def test_pictures_follow_the_nodata_rule_of_the_raster(tmp_path, rule):
    pixels = np.full((3, 8, 8), 9, np.uint8)
    pixels[0, :, :4] = 0  # nodata in one band of three
    write_raster(tmp_path / "scene.tif", pixels, grid=None, nodata=0)
    raster = Raster.open([tmp_path / "scene.tif"], nodata_rule=rule)
    for side in (8, 4):
        _, valid = read_small(raster, (0, 1, 2), side)
        assert valid[:, side // 2 :].all()
        assert valid[:, : side // 2].all() == (rule == "all")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"effort": "standard", "steps": None, "epochs": None, "minutes": None}, {"budget": "effort standard"}),
        ({"effort": "quick", "steps": 30, "patience": 4}, {"budget": "steps 30", "patience": "4"}),
        ({"effort": "quick", "epochs": 3, "ema_decay": 0.99}, {"budget": "epochs 3", "EMA decay": "0.99"}),
        ({"effort": "quick", "minutes": 2.5, "patience": None, "ema_decay": 0.0}, {"budget": "minutes 2.5"}),
    ],
)
def test_the_facts_of_a_model_name_its_budget_and_the_settings_that_are_not_off(world, settings, expected):
    config = SimpleNamespace(
        provenance={"settings": settings}, pixel_size=1.0, architecture="unet", arguments={}, bands=("a",), dtype="u1",
        history=[], measures={}, scaling=Scaling(offset=(0.0,), factor=(1 / 255,)),
    )  # fmt: skip
    facts = dict(_facts(SimpleNamespace(config=config, sha256="0" * 64), world.chips))
    assert {name: facts[name] for name in ("budget", "patience", "EMA decay") if name in facts} == expected


def test_the_facts_of_a_model_are_what_its_training_used_where_a_setting_is_auto(world):
    auto = dict.fromkeys(("sampling", "scaling", "precision", "learning_rate"), "auto")
    provenance = {
        "settings": auto, "sampling": "windows", "learning_rate": 0.00123456, "torch": "2.9.0",
        "training": {"fingerprint": {"precision": "bf16-mixed"}},
    }  # fmt: skip
    config = SimpleNamespace(
        provenance=provenance, pixel_size=1.0, architecture="unet", arguments={}, bands=("red", "nir"), dtype="uint16",
        history=[], measures={}, scaling=Scaling(offset=(1000.0, 2000.0), factor=(0.001, 0.0005)),
    )  # fmt: skip
    facts = dict(_facts(SimpleNamespace(config=config, sha256="0" * 64), world.chips))
    assert facts["sampling"] == "windows"
    assert facts["scaling"] == "red (value \u2212 1000) \u00d7 0.001, nir (value \u2212 2000) \u00d7 0.0005"
    assert facts["precision"] == "bf16-mixed"
    assert facts["learning rate"] == "0.00123"
    assert facts["torch version"] == "2.9.0"
    assert "auto" not in facts.values()


@pytest.mark.parametrize(("first", "second", "differ"), [
    # Source and text of the initial weights of two models.
    (("none", "none (timm has none for 'plain')"), ("none", "none, trained from scratch"), False),
    (("imagenet", "ImageNet"), ("imagenet", "imagenet"), False),
    (("none", "none (the hub does not respond)"), ("imagenet", "imagenet"), True),
    ((None, "none, trained from scratch"), (None, "ImageNet"), True),
])  # fmt: skip
def test_models_from_the_same_weights_have_one_text_of_them(world, first, second, differ):
    models = []
    for source, text in (first, second):
        provenance = {"weights": f"weights: {text}"} | ({"encoder_weights": {"source": source}} if source else {})
        config = SimpleNamespace(
            provenance=provenance, pixel_size=1.0, architecture="unet", arguments={}, bands=("red",), dtype="uint8",
            history=[], measures={}, scaling=Scaling(offset=(0.0,), factor=(1.0,)),
        )  # fmt: skip
        models.append(SimpleNamespace(config=config, sha256="0" * 64))
    texts = [facts["initial weights"] for facts in _facts_of_each(models, world.chips)]
    assert texts == [first[1], second[1] if differ else first[1]]


def test_the_report_of_a_final_model_has_a_column_for_each_model(world, tmp_path):
    page = write_page(
        replace(world, of_both=[("epochs", "25; weights of epoch 9", "22; weights of epoch 22")]), tmp_path
    )
    table = page[page.index("Assessed model</th>") :]
    row = '<th scope="row">epochs</th><td>25; weights of epoch 9</td><td>22; weights of epoch 22</td>'
    assert row in table[: table.index("</table>")]
    assert "accuracy against an independent reference or sample, are those of the final one" in table
    assert "Assessed model</th>" not in write_page(world, tmp_path)


@pytest.mark.parametrize(
    ("offset", "text"),
    [(0.0, "value \u00d7 0.2"), (-12.3, "(value + 12.3) \u00d7 0.2"), (12.3, "(value \u2212 12.3) \u00d7 0.2")],
)
def test_the_formula_of_the_scaling_has_no_double_sign_and_no_offset_of_0(offset, text):
    assert _formula(offset, 0.2) == text


def test_the_glossary_explains_every_measure_of_the_page(page):
    words = page.split("<h2>Glossary</h2>")[1]
    for word in ("Kappa", "MCC", "Quantity disagreement, allocation disagreement", "Interval", "F1", "IoU"):
        assert f"<dt>{word}" in words


@pytest.mark.parametrize("name", ["map.tif", "assessment.json", "sheet.html"])
def test_a_report_replaces_no_file_but_an_earlier_report(name, page, tmp_path):
    (tmp_path / name).write_text('<meta name="generator" content="landscribe"><title>Reference sample</title>')
    with pytest.raises(OutputError, match=rf"{name} .*Nothing was changed"):
        verbs.report(tmp_path, out=tmp_path / name)
    assert "Reference sample" in (tmp_path / name).read_text()
    (tmp_path / "report.html").write_text(page)
    with pytest.raises(RecipeError, match="no run folder"):  # the report may be replaced, but the folder is no run
        verbs.report(tmp_path, out=tmp_path / "report.html")


def test_the_folder_above_a_run_is_answered_with_the_run(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.toml").write_text("")
    with pytest.raises(RecipeError, match=r"is no run folder: it has no chips\. .* Did you mean \S+run\?"):
        verbs.report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_estimates_of_another_map_than_that_of_the_run_are_left_out(tmp_path, caplog):
    run = Run(tmp_path)
    path = draw_map(tmp_path, "map", Look())
    sample = {"estimator": "stratified sample", "map": "map.tif", "map_run": "abc"}
    run.sample_file.write_text(json.dumps(sample))
    assert _sample_of(run) is None
    assert "its sample is of another map (map.tif) than that of the run" in caplog.text
    with rasterio.open(path, "r+") as target:
        target.update_tags(**{RUN_TAG: "abc"})
    assert _sample_of(run) == sample
    run.sample_file.write_text(json.dumps(sample | {"map_run": None}))
    assert _sample_of(run) is None


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["B2", "B3", "B4"], (2, 1, 0)),
        (["nir", "r", "g", "b"], (1, 2, 3)),
        (["B01", "B02", "B03", "B04"], (3, 2, 1)),
        (["SR_B5", "SR_B4", "SR_B3", "SR_B2"], (0, 1, 2)),
    ],
)
def test_bands_by_their_usual_names_are_shown_as_colours(names, shown):
    assert figures.shown_bands(names) == shown
