"""Pixels counted strip by strip, in threads and on Dask."""

import json
import shutil
from itertools import pairwise

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st

from landscribe import verbs
from landscribe.assessment import counting
from landscribe.assessment.accuracy import Assessment
from landscribe.assessment.blocks import bootstrap
from landscribe.assessment.calibration import Probabilities
from landscribe.assessment.counting import Counting, StripCounting, count_strips, pooled
from landscribe.assessment.regions import Regions
from landscribe.data.scenes.scene import open_labels
from landscribe.data.scenes.spec import SceneSpec
from landscribe.errors import LandscribeError, RecipeError
from landscribe.geo.classes import Classes
from landscribe.geo.grid import Window
from landscribe.geo.rasters.raster import Raster
from landscribe.maps.class_map import CLASSES_TAG, classes_as_tag
from worlds import noise, pixel_box, write_polygons, write_raster

HEIGHT, WIDTH, K = 1100, 40, 3
CLASSES = Classes.from_labels([0, 1, 2], background=False)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Files of a map with nodata, its reference, float probabilities and regions: the south is first in its file."""
    folder, rng = tmp_path_factory.mktemp("world"), np.random.default_rng(0)
    cells = rng.integers(0, K, (2, HEIGHT // 20, WIDTH // 4)).astype(np.uint8)
    truth, mapped = np.kron(cells, np.ones((1, 20, 4), np.uint8))
    truth[rng.random(truth.shape) < 0.1] = 255
    mapped[300:310] = 255
    shares = rng.dirichlet(np.ones(K), (HEIGHT, WIDTH)).astype(np.float32).transpose(2, 0, 1)
    boxes = [pixel_box(600, 0, 500, WIDTH), pixel_box(0, 0, 590, WIDTH)]
    houses = [pixel_box(row, 5, 30, 20) for row in range(10, HEIGHT, 90)]
    return {
        "map": write_raster(folder / "map.tif", mapped, nodata=255),
        "truth": write_raster(folder / "truth.tif", truth, nodata=255),
        "probabilities": write_raster(folder / "shares.tif", shares, descriptions=CLASSES.names),
        "regions": write_polygons(folder / "regions.gpkg", boxes, region=["south", "north"]),
        "polygons": write_polygons(folder / "houses.gpkg", houses, kind=[1 + row % 2 for row in range(len(houses))]),
    }


def opened(world):
    """A map, its labels, and a counter of everything that can be counted."""
    mapped = Raster.open([world["map"]])
    labels = open_labels(SceneSpec.of({"image": world["map"], "labels": world["truth"]}), mapped, CLASSES)
    regions, probabilities = Regions(world["regions"], "region"), Probabilities(Raster.open([world["probabilities"]]))
    return mapped, labels, Counting(16, regions, 2.0, probabilities)


def as_json(counts):
    """All measures of counts, as `assess` writes them."""
    groups = {name: counts.groups[name] for name in sorted(counts.groups)}
    assessment = Assessment(
        counts.confusion, ("map",), "truth", None, {name: own.confusion for name, own in groups.items()},
        bootstrap(counts.blocks), counts.edges, counts.calibration,
        {name: bootstrap(own.blocks) for name, own in groups.items()},
    )  # fmt: skip
    return json.dumps(assessment.as_dict())


@pytest.fixture(scope="module")
def whole(world):
    """The measures of one strip in one part."""
    mapped, labels, everything = opened(world)
    return as_json(everything.on(mapped, CLASSES).count(mapped.grid.window, *read(mapped, labels)))


def read(mapped, labels):
    """The reference and the map as class indices."""
    window = mapped.grid.window
    return CLASSES.to_indices(labels.read(window)), counting.mapped_indices(mapped, window, CLASSES)


@settings(max_examples=20)
@given(st.lists(st.integers(1, HEIGHT - 1), max_size=5), st.sampled_from([4, 16, 64]), st.randoms())
def test_counts_depend_on_neither_the_strips_nor_their_order(world, whole, cuts, part, random):
    mapped, labels, everything = opened(world)
    ends = [0, *sorted(set(cuts)), HEIGHT]
    strips = [Window(row, 0, stop - row, WIDTH) for row, stop in pairwise(ends)]
    random.shuffle(strips)
    task = StripCounting(mapped, labels, everything.on(mapped, CLASSES))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "_PART_SIDE", part)
        patch.setattr(counting, "_PART_PIXELS", 1)
        counts = [task.read(strip) for strip in strips]
    assert as_json(sum(counts[1:], start=counts[0])) == whole


def test_blocks_of_several_maps_are_all_kept(world):
    mapped, labels, everything = opened(world)
    counts = count_strips(mapped, labels, CLASSES, everything)
    twice = pooled([counts, counts])
    assert len(twice.blocks) == 2 * len(counts.blocks)
    assert twice.confusion.total == 2 * counts.confusion.total


def test_regions_come_in_the_order_of_their_file(world):
    assessment = verbs.assess(world["map"], reference=world["truth"], regions=world["regions"], region_field="region")
    assert list(assessment.groups) == ["south", "north"]


@pytest.mark.slow
@pytest.mark.usefixtures("forked_workers")
@pytest.mark.parametrize("reference", ["truth", "polygons"])
def test_dask_gives_the_same_json_as_threads(world, reference, tmp_path, monkeypatch):
    monkeypatch.setattr(counting, "_STRIP_PIXELS", 1)
    keywords = {"probabilities": world["probabilities"], "edges": True, "block_size": 16, "nodata_as": "0"}
    keywords |= {"regions": world["regions"], "region_field": "region"}
    keywords |= {"label_field": "kind"} if reference == "polygons" else {}
    for name, dask in (("here", None), ("there", "auto")):
        verbs.assess(world["map"], reference=world[reference], out=tmp_path / f"{name}.json", dask=dask, **keywords)
    assert (tmp_path / "here.json").read_bytes() == (tmp_path / "there.json").read_bytes()
    assert len(list(Raster.open([world["map"]]).grid.strips(1))) == 3


@pytest.mark.slow
@pytest.mark.usefixtures("forked_workers")
def test_an_error_of_a_dask_worker_is_one_line_and_leaves_no_file(world, tmp_path):
    truth = write_raster(tmp_path / "truth.tif", np.full((HEIGHT, WIDTH), 7, np.uint8))
    mapped = shutil.copy(world["map"], tmp_path / "map.tif")
    with rasterio.open(mapped, "r+") as dataset:
        dataset.update_tags(**{CLASSES_TAG: classes_as_tag(CLASSES)})
    with pytest.raises(LandscribeError, match=r"truth\.tif holds 7 \(\d+\), not in the class table"):
        verbs.assess(mapped, reference=truth, dask="auto", out=tmp_path / "measures.json")
    assert not list(tmp_path.glob("measures*"))


def test_dask_is_refused_with_chips_and_points(world, tmp_path):
    image = write_raster(tmp_path / "scene.tif", noise(3, HEIGHT, WIDTH))
    chips = verbs.chip(
        images=[image], labels=world["truth"], out=tmp_path / "chips", size=32, val=0, test=0, virtual=True
    )
    points = write_polygons(tmp_path / "points.gpkg", [pixel_box(5, 5, 3, 3).centroid], kind=[1])
    for reference, what, keywords in (
        (chips, "chips", {"split": "train"}),
        (points, "points", {"label_field": "kind"}),
    ):
        with pytest.raises(RecipeError, match=rf"--dask counts the strips of a map .* holds {what}\. Leave it out"):
            verbs.assess(world["map"], reference=reference, dask="auto", **keywords)
