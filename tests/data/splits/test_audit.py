"""The audit of splits finds planted leakage, and raises no false alarm."""

import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pyproj import Geod, Transformer
from rasterio.crs import CRS
from rasterio.warp import transform as transform_points
from test_app import landscribe

from landscribe import verbs
from landscribe.data.chips.chips import Chips
from landscribe.data.chips.cutting import chip
from landscribe.data.chips.spec import ChipSpec
from landscribe.data.scenes.scene import open_scenes
from landscribe.data.scenes.spec import ClassSpec, SceneSpec
from landscribe.data.splits.audit import audit
from landscribe.data.splits.spec import SplitSpec
from landscribe.errors import RecipeError
from landscribe.preflight.check import Check
from landscribe.texts import length_text
from landscribe.verbs import check
from worlds import CORNER, METRE, UTM, write_raster

SIZE = 64
ZONE_33 = CRS.from_epsg(32633)
TABLE = (ClassSpec(name="ground", value=0), ClassSpec(name="house", value=1))


def land(seed: int, height: int = 2 * SIZE, width: int = 2 * SIZE) -> np.ndarray:
    """(3, rows, cols) of a picture with detail of many sizes, as land has."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((3, height, width))
    for cell in (2, 5, 11, 40):
        coarse = rng.normal(size=(3, height // cell + 1, width // cell + 1))
        picture += np.repeat(np.repeat(coarse, cell, axis=1), cell, axis=2)[:, :height, :width] * cell**0.5
    return np.clip(110 + 12 * picture, 0, 255).astype(np.uint8)


def at(left: float, top: float = 0) -> Affine:
    """The transform of a raster this many metres (pixels) to the east and the south."""
    return METRE @ Affine.translation(left, top)


def chips_of(folder: Path, scenes: dict[str, tuple[np.ndarray, Affine]], **settings) -> Chips:
    """Chips of scenes whose names begin with their split."""
    specs = []
    folder.mkdir(exist_ok=True)
    nodata = settings.pop("nodata", None)
    for name, (array, transform) in scenes.items():
        image = write_raster(folder / f"{name}.tif", array, transform=transform, nodata=nodata)
        labels = write_raster(
            folder / f"{name}_labels.tif", np.eye(*array.shape[1:], dtype=np.uint8), transform=transform
        )
        split = name.partition("_")[0]
        specs.append(SceneSpec(image=(str(image),), labels=str(labels), split=None if split == "any" else split))
    opened, classes = open_scenes(specs, TABLE)
    spec = ChipSpec(**({"size": SIZE} | settings))
    return chip(opened, classes, specs, folder / "chips", spec=spec, split=SplitSpec(), overwrite=True)


def apart(**arrays: np.ndarray) -> dict[str, tuple[np.ndarray, Affine]]:
    """Scenes a kilometre from one another."""
    return {name: (array, at(1000 * index)) for index, (name, array) in enumerate(arrays.items())}


def errors(found: Check) -> list[str]:
    return list(found.errors)


# Duplicates -------------------------------------------------------------------------------------------------------


def in_jpeg(array: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(array.transpose(1, 2, 0)).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)).transpose(2, 0, 1)


def with_noise(array: np.ndarray) -> np.ndarray:
    noisy = array + np.random.default_rng(9).normal(0, 8, array.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


COPIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "pixel by pixel": lambda chip: chip,
    "under noise": with_noise,
    "in JPEG": lambda chip: in_jpeg(chip, 50),
    "brightened": lambda chip: np.clip(chip * 1.2 + 10, 0, 255).astype(np.uint8),
    "mirrored": lambda chip: chip[:, :, ::-1],
    "turned": lambda chip: np.rot90(chip, 1, (1, 2)),
    "upside down and in JPEG": lambda chip: in_jpeg(chip[:, ::-1], 75),
    "moved by a pixel": lambda chip: np.roll(chip, (1, -1), (1, 2)),
}


@pytest.mark.parametrize("virtual", [False, True])
@pytest.mark.parametrize("how", COPIES)
def test_a_duplicate_in_another_split_is_an_error(tmp_path, how, virtual):
    train, test = land(1), land(2)
    test[:, SIZE:, :SIZE] = COPIES[how](train[:, :SIZE, SIZE:])
    found = check(chips_of(tmp_path, apart(train=train, test=test), virtual=virtual))
    (line,) = errors(found)
    assert line.startswith("chips of train and test are duplicates in 1 pair, ")
    assert "train_r000_c064 and test_r064_c000" in line
    (duplicate,) = found.audit.duplicates
    assert duplicate.exact == (how == "pixel by pixel")
    assert f"test_r064_c000 (correlation {duplicate.similarity:.2f})" in line


def test_every_one_of_many_duplicates_is_found(tmp_path):
    train = land(1, 4 * SIZE, 4 * SIZE)
    found = audit(chips_of(tmp_path, apart(train=train, val=np.flip(train, 1), test=land(3))))
    assert {duplicate.splits for duplicate in found.duplicates} == {("train", "val")}
    assert len({duplicate.chips[1] for duplicate in found.duplicates}) == 16


def test_a_copy_in_the_same_split_or_in_the_gap_is_no_duplicate(tmp_path):
    train = land(1)
    chips = chips_of(tmp_path, apart(train=train, train_2=train, test=train))
    in_gap = np.where(chips.table["split"] == "test", "gap", "train")
    assert audit(dataclasses.replace(chips, table=chips.table.assign(split=in_gap))).duplicates == ()


@pytest.mark.parametrize(("size", "side"), [(32, 192), (64, 256), (128, 512)])
def test_different_areas_are_no_duplicates(tmp_path, size, side):
    scenes = apart(train=land(1, 2 * side, side), val=land(2, side, side), test=land(3, side, side))
    assert audit(chips_of(tmp_path, scenes, size=size)).duplicates == ()


def test_flat_chips_are_no_duplicates(tmp_path):
    flat = np.full((3, 128, 128), 70, np.uint8)
    half = land(1)
    half[:, :, SIZE:] = 70
    found = check(chips_of(tmp_path, apart(train=flat, val=half, test=flat)))
    assert errors(found) == []


def test_a_similar_shore_makes_no_duplicate(tmp_path):
    def shore(seed: int) -> np.ndarray:
        water = land(seed)
        water[:, :, 40:64] = 10
        return water

    assert audit(chips_of(tmp_path, apart(train=shore(1), test=shore(2)))).duplicates == ()


def test_the_same_nodata_outline_makes_no_duplicate(tmp_path):
    def scene(seed: int) -> np.ndarray:
        array = np.maximum(land(seed), 1)
        array[:, np.tri(128, dtype=bool)] = 0
        return array

    assert audit(chips_of(tmp_path, apart(train=scene(1), test=scene(2)), nodata=0)).duplicates == ()


def test_duplicates_with_nodata_are_found(tmp_path):
    train = np.maximum(land(1), 1)
    train[:, :30] = 0
    found = audit(chips_of(tmp_path, apart(train=train, test=np.where(train, in_jpeg(train, 90), 0)), nodata=0))
    assert len(found.duplicates) >= 2


@pytest.mark.parametrize(("dtype", "bands"), [("uint16", 1), ("int16", 4), ("float32", 8)])
def test_duplicates_are_found_in_any_bands_and_dtype(tmp_path, dtype, bands):
    train, test = (np.concatenate([land(seed)] * 3)[:bands].astype(dtype) * 7 for seed in (1, 2))
    test[:, :SIZE, :SIZE] = train[:, SIZE:, SIZE:]
    assert len(audit(chips_of(tmp_path, apart(train=train, test=test))).duplicates) == 1


# Distances -------------------------------------------------------------------------------------------------------


def test_overlapping_scenes_of_two_splits_are_an_error(tmp_path):
    found = check(chips_of(tmp_path, {"train": (land(1), at(0)), "test": (land(2), at(112, 64))}))
    (line,) = errors(found)
    # 128 pixels wide each, 112 apart: the last column of the first overlaps the first column of the second.
    assert line.startswith("chips of train and test overlap in 1 pair, train_r064_c064 and test_r000_c000 by 16 pixels")


def test_touching_scenes_of_two_splits_are_warned_of(tmp_path):
    found = check(chips_of(tmp_path, {"train": (land(1), at(0)), "test": (land(2), at(128))}))
    assert errors(found) == []
    (warning,) = [finding.text for finding in found.findings if finding.severity == "warning"]
    assert warning.startswith("chips of train and test touch")
    assert warning.endswith("Chip again with --gap 16; predefined splits have no gap.")


def move_to_zone_33(image: Path, east: float, south: float, *, metre: float = 1) -> None:
    """Let the upper left corner of an image lie this many metres from that of UTM zone 32, but in zone 33."""
    (left,), (top,) = transform_points(UTM, ZONE_33, [CORNER[0] + east], [CORNER[1] - south])
    with rasterio.open(image, "r+") as opened:
        opened.crs, opened.transform = ZONE_33, Affine(metre, 0, left, 0, -metre, top)


def geodesic(one: Path, other: Path) -> float:
    """The least metres between the outlines of two images, by the geodesics between points of every metre."""
    lonlats = []
    for path in (one, other):
        with rasterio.open(path) as opened:
            outline = shapely.segmentize(shapely.box(*opened.bounds).exterior, 1)
            to_lonlat = Transformer.from_crs(opened.crs.to_wkt(), 4326, always_xy=True)
            lonlats.append(to_lonlat.transform(*shapely.get_coordinates(outline).T))
    points = [np.array(pair).reshape(2, -1) for pair in lonlats]
    a, b = (grid.ravel() for grid in np.indices((points[0].shape[1], points[1].shape[1])))
    return Geod(ellps="WGS84").inv(*points[0][:, a], *points[1][:, b])[2].min()


def test_overlaps_of_scenes_of_two_crss_are_an_error(tmp_path):
    # The upper left corner of the test scene, in UTM zone 33, lies 64 pixels inside the train scene, in zone 32. Zone
    # 33 is turned by 4 degrees there, so that two more pairs overlap by up to 5 pixels.
    chips = chips_of(tmp_path, {"train": (land(1), at(0)), "test": (land(2), at(0))})
    move_to_zone_33(tmp_path / "test.tif", 64, 64)
    found = check(chips)
    (line,) = errors(found)
    assert line.startswith(
        "chips of train and test overlap on the ground in 3 pairs of scenes with different CRSs, such as "
        "train_r000_c064 and test_r000_c000."
    )
    summary = found.as_dict()["audit"]
    assert summary["between_crss"][0]["pairs"] == 3
    assert (summary["distances"][0]["pixels"], summary["distances"][0]["metres"]) == (0, 0)
    assert not any("apart" in finding.text for finding in found.findings)


@pytest.mark.parametrize(("east", "severity"), [(128 + 12, "warning"), (128 + 40, "note"), (30_000, "note")])
def test_distances_between_crss_are_those_of_geodesics(tmp_path, east, severity):
    chips = chips_of(tmp_path, {"train": (land(1), at(0)), "test": (land(2), at(0))})
    move_to_zone_33(tmp_path / "test.tif", east, 30)
    expected = geodesic(tmp_path / "train.tif", tmp_path / "test.tif")
    found = check(chips)
    (distance,) = found.audit.distances
    assert distance.metres == pytest.approx(expected, rel=1e-5, abs=0.02)
    assert distance.pixels == pytest.approx(expected, rel=2e-3)
    assert distance.between_crss
    metres = length_text(distance.metres)
    (finding,) = [finding for finding in found.findings if "apart" in finding.text]
    assert finding.severity == severity
    how = f"{'only' if severity == 'warning' else 'at least'} {int(distance.pixels)} pixels ({metres}) apart"
    assert finding.text.startswith(f"chips of train and test are {how}")


@pytest.mark.parametrize(("east", "is_nearer"), [(128 + 60, True), (128 + 400, False)])
def test_the_smallest_distance_is_that_of_one_crs_or_of_two(tmp_path, east, is_nearer):
    # The second test scene is 100 pixels south of the train scene, in its CRS; the first lies to the east, in zone 33.
    scenes = {"train": (land(1), at(0)), "test": (land(2), at(0)), "test_2": (land(3), at(0, 228))}
    chips = chips_of(tmp_path, scenes)
    move_to_zone_33(tmp_path / "test.tif", east, 0)
    (distance,) = audit(chips).distances
    assert distance.between_crss == is_nearer
    if is_nearer:
        expected = geodesic(tmp_path / "train.tif", tmp_path / "test.tif")
        assert distance.metres == pytest.approx(expected, abs=0.02)
        assert distance.chips[1].startswith("test_r")
    else:
        (tmp_path / "alone").mkdir()
        alone = audit(chips_of(tmp_path / "alone", {name: scenes[name] for name in ("train", "test_2")}))
        assert alone.distances == (distance,)
        assert distance.pixels == 100


def test_metres_are_those_of_the_pixels_of_each_crs(tmp_path):
    # Scenes of zone 33 have pixels of 2 m: the test scene lies 50 of them south of the train scene.
    scenes = {name: (land(seed), at(0)) for seed, name in enumerate(("train", "train_2", "test"))}
    chips = chips_of(tmp_path, scenes)
    move_to_zone_33(tmp_path / "train_2.tif", 50_000, 0, metre=2)
    with rasterio.open(tmp_path / "train_2.tif") as image:
        transform = image.transform
    with rasterio.open(tmp_path / "test.tif", "r+") as image:
        image.crs, image.transform = ZONE_33, transform @ Affine.translation(0, 128 + 50)
    (distance,) = audit(chips).distances
    assert distance.pixels == 50
    assert distance.metres == pytest.approx(geodesic(tmp_path / "train_2.tif", tmp_path / "test.tif"), abs=0.02)


def test_distances_of_scenes_without_a_crs_are_unknown(tmp_path):
    chips = chips_of(tmp_path, {"train": (land(1), at(0)), "test": (land(2), at(0))})
    for name in ("train", "test"):
        write_raster(tmp_path / f"{name}.tif", land(len(name)), crs=None, transform=None)
    texts = [finding.text for finding in check(chips).findings]
    assert "the distance between chips of train and test is unknown" in " ".join(texts)


def test_padding_is_no_overlap(tmp_path):
    scenes = {"train": (land(1, 100, 100), at(0)), "test": (land(2, 100, 100), at(100))}
    assert errors(check(chips_of(tmp_path, scenes, edge="pad"))) == []


@pytest.mark.parametrize(("left", "severity"), [(128 + 15, "warning"), (128 + 16, "note")])
def test_a_gap_of_a_quarter_of_a_chip_gives_no_warning(tmp_path, left, severity):
    found = check(chips_of(tmp_path, {"train": (land(1), at(0)), "test": (land(2), at(left))}))
    (finding,) = [
        finding for finding in found.findings if f"{left - 128} pixels ({left - 128} m) apart" in finding.text
    ]
    assert finding.severity == severity


def test_a_split_by_blocks_has_no_leakage(tmp_path):
    found = check(chips_of(tmp_path, {"any": (land(1, 512, 512), at(0))}))
    assert {finding.severity for finding in found.findings} == {"note"}
    assert {distance.splits for distance in found.audit.distances} == {
        ("train", "val"),
        ("train", "test"),
        ("val", "test"),
    }


@pytest.fixture(scope="module")
def lattice(tmp_path_factory) -> Chips:
    """Chips of 32 pixels every 16 of one scene."""
    scenes = {"any": (land(1, 160, 128), at(0))}
    return chips_of(tmp_path_factory.mktemp("lattice"), scenes, size=32, stride=16, virtual=True)


@settings(max_examples=15)
@given(st.integers(0, 999))
def test_distances_are_those_of_the_windows(lattice, seed):
    drawn = np.random.default_rng(seed).choice(["train", "val", "gap"], len(lattice), p=[0.1, 0.1, 0.8])
    changed = dataclasses.replace(lattice, table=lattice.table.assign(split=drawn))
    chips = list(zip(changed.windows, drawn, strict=True))
    pairs = [(a, b) for a, split_a in chips for b, split_b in chips if (split_a, split_b) == ("train", "val")]
    found = audit(changed).distances
    if not pairs:
        assert found == ()
        return
    overlaps = sum(not (a & b).is_empty for a, b in pairs)
    assert found[0].overlaps == overlaps
    assert max(0, found[0].pixels) == min(a.distance_to(b) for a, b in pairs)


# Findings -------------------------------------------------------------------------------------------------


def test_chips_without_their_scenes_are_compared_by_pixels_and_within_each_scene(tmp_path):
    train, test = land(1), land(2)
    test[:, :SIZE, :SIZE] = train[:, :SIZE, :SIZE]
    chips = chips_of(tmp_path, {"train": (train, at(0)), "test": (test, at(0))})
    (tmp_path / "test.tif").unlink()
    found = check(chips.folder)
    assert len(errors(found)) == 1
    assert any(
        "footprints of chips of different scenes were not compared:" in finding.text for finding in found.findings
    )


def test_chips_of_a_single_split_are_warned_of(tmp_path):
    found = check(chips_of(tmp_path, apart(train=land(1))))
    assert [finding.text[:27] for finding in found.findings if finding.severity == "warning"] == [
        "all chips are in one split,"
    ]


def test_the_audit_is_plain_values(tmp_path):
    chips = chips_of(tmp_path, apart(train=land(1), test=land(2)))
    summary = check(chips).as_dict()
    assert summary["audit"]["chips"] == {"train": 4, "test": 4}
    assert summary["audit"]["distances"][0]["pixels"] == 1000 - 128
    assert pd.json_normalize(summary["audit"])["size"].tolist() == [SIZE]


def test_check_accepts_existing_chips(tmp_path):
    chips = chips_of(tmp_path, apart(train=land(1)))
    with pytest.raises(RecipeError, match="Give the chips alone"):
        check(chips, size=32)


def test_check_exits_with_2_on_a_leak_and_with_0_without(tmp_path):
    train = land(1)
    leaking = chips_of(tmp_path / "a", apart(train=train, test=train[:, ::-1]))
    sound = chips_of(tmp_path / "b", apart(train=train, test=land(2)))
    with_error, without = landscribe("check", leaking.folder), landscribe("check", sound.folder, "--json")
    assert (with_error.code, without.code) == (2, 0)
    assert with_error.out.startswith("error: chips of train and test are duplicates in 4 pairs, 0 of them pixel by")
    assert json.loads(without.out)["audit"]["duplicates"] == []
    assert repr(check(sound)).startswith("Check(errors=0, warnings=")


# Real scenes --------------------------------------------------------------------------------------------------


def test_real_roofs_raise_no_false_alarm_and_do_not_hide_a_duplicate(shared_data, tmp_path):
    town = shared_data / "banepa_buildings" / "dev"
    chips = verbs.chip(
        images=[town / "scene.tif"], labels=town / "buildings.geojson", out=tmp_path / "chips", format="png"
    )
    assert {finding.severity for finding in check(chips).findings} == {"note"}
    train, test = (chips.folder / chips.of_split(split).table["image"].iloc[0] for split in ("train", "test"))
    copy = in_jpeg(np.asarray(Image.open(train)).transpose(2, 0, 1), 50)
    Image.fromarray(copy.transpose(1, 2, 0)[::-1]).save(test)
    (line,) = errors(check(chips))
    assert f"{train.stem} and {test.stem}" in line
