"""The comparison of maps with chips."""

from pathlib import Path

import numpy as np
import pytest
import tomlkit
from affine import Affine

from landscribe import verbs
from landscribe.assessment.accuracy import Assessment, assess_chips, assess_labels
from landscribe.data.chips.chips import Chips
from landscribe.data.chips.cutting import chip
from landscribe.data.chips.spec import ChipSpec
from landscribe.data.scenes.scene import open_labels, open_scenes
from landscribe.data.scenes.spec import SceneSpec
from landscribe.data.splits.spec import SplitSpec
from landscribe.errors import ChipError, ClassError, RasterError, RecipeError
from landscribe.geo.grid import Window
from landscribe.geo.rasters.raster import Raster
from worlds import METRE, noise, pixel_box, write_polygons, write_raster

SIDE = 48


def test_a_pixel_of_overlapping_chips_counts_once_without_pairwise_comparison(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    image = write_raster(tmp_path / "scene.tif", noise(3, SIDE, SIDE))
    labels = write_raster(tmp_path / "labels.tif", rng.integers(1, 3, (SIDE, SIDE), np.uint8))
    mapped = Raster.open([str(write_raster(tmp_path / "map.tif", rng.integers(1, 3, (SIDE, SIDE), np.uint8)))])
    chips = verbs.chip(
        images=[image], labels=labels, out=tmp_path / "chips", size=16, stride=4, val=0, test=0, virtual=True
    )
    source = open_labels(chips.metadata.sources[0], Raster.open([str(image)]), chips.classes)
    intersections = []
    original = Window.__and__
    monkeypatch.setattr(Window, "__and__", lambda a, b: intersections.append(1) or original(a, b))
    confusion = assess_chips([mapped], chips).confusion
    monkeypatch.undo()
    assert confusion.total == SIDE * SIDE
    np.testing.assert_array_equal(confusion.counts, assess_labels(mapped, source, chips.classes).confusion.counts)
    # 81 chips; each overlaps at most 24 earlier ones, of 3 240 pairs in all.
    assert len(intersections) < 81 * 24


def two_maps(folder):
    """Two maps side by side, and a label raster over both: the western map is right, the eastern one in its half."""
    truth = np.ones((SIDE, 2 * SIDE), np.uint8)
    truth[:, :: SIDE // 2] = 2  # a class of both maps
    labels = write_raster(folder / "labels.tif", truth)
    mapped, east = truth.copy(), METRE @ Affine.translation(SIDE, 0)
    mapped[:, -SIDE // 2 :] = 3 - mapped[:, -SIDE // 2 :]
    return labels, [
        write_raster(folder / "west.tif", mapped[:, :SIDE]),
        write_raster(folder / "east.tif", mapped[:, SIDE:], transform=east),
    ]


def test_each_of_several_maps_has_measures_of_its_own(tmp_path):
    labels, maps = two_maps(tmp_path)
    assessment = verbs.assess(maps, reference=labels)
    assert {name: group.overall_accuracy for name, group in assessment.groups.items()} == {"west": 1, "east": 0.5}
    assert assessment.overall_accuracy == 0.75
    assert verbs.assess(maps[0], reference=labels).groups == {}


def test_each_of_several_scenes_of_chips_has_measures_of_its_own(tmp_path):
    labels, maps = two_maps(tmp_path)
    scenes = [{"image": str(path), "labels": str(labels)} for path in maps]
    recipe = {"scenes": scenes, "chips": {"size": 16}, "split": {"val": 0, "test": 0}}
    (tmp_path / "recipe.toml").write_text(tomlkit.dumps(recipe))
    chips = verbs.chip(tmp_path / "recipe.toml", out=tmp_path / "chips")
    with pytest.raises(ChipError, match=r"no chips of split test: its splits are train\. Choose another --split"):
        verbs.assess(maps, reference=chips)
    assessment = verbs.assess(maps, reference=chips, split="train")
    assert {name: group.total for name, group in assessment.groups.items()} == {"west": SIDE**2, "east": SIDE**2}
    assert pooled_counts(assessment.groups).tolist() == assessment.confusion.counts.tolist()


def pooled_counts(groups):
    return sum(group.counts for group in groups.values())


def foreign_map(folder, nodata):
    """A map of ground (0) and house (1), and a reference in which a quarter of the ground is house."""
    mapped, truth = np.zeros((SIDE, SIDE), np.uint8), np.zeros((SIDE, SIDE), np.uint8)
    mapped[:12] = truth[:24] = 1
    return (
        write_raster(folder / "map.tif", mapped, nodata=nodata),
        write_raster(folder / "truth.tif", truth),
    )


def test_reference_where_the_map_is_nodata_is_left_out_with_a_warning(tmp_path, caplog):
    mapped, truth = foreign_map(tmp_path, nodata=0)
    with pytest.raises(ClassError, match=r"holds 0 .* nodata \(0\) is a class of the map, pass --nodata-as"):
        verbs.assess(mapped, reference=truth)
    assessment = verbs.assess(mapped, reference=truth, label_ignore=["0"])
    assert assessment.overall_accuracy == 1
    assert assessment.confusion.unmapped_share == 0.5
    assert assessment.as_dict()["unmapped_pixels"] == assessment.confusion.unmapped == 12 * SIDE
    assert "50.0 % of the labelled reference lies where the map has no class" in caplog.text


def test_nodata_of_a_map_counts_as_the_class_that_is_named(tmp_path, caplog):
    """The remedy of the warning: a quarter of all pixels is wrong, whether 0 is nodata or a class."""
    mapped, truth = foreign_map(tmp_path, nodata=0)
    assessment = verbs.assess(mapped, reference=truth, nodata_as="background")
    assert assessment.overall_accuracy == 0.75
    assert assessment.confusion.unmapped == 0
    assert assessment.confusion.classes.names == ("background", "1")
    plain, _ = foreign_map(tmp_path, nodata=None)
    assert verbs.assess(plain, reference=truth).overall_accuracy == 0.75
    assert "no class" not in caplog.text


def test_polygons_are_compared_with_a_map_whose_background_is_nodata(tmp_path):
    mapped, _ = foreign_map(tmp_path, nodata=0)
    houses = write_polygons(tmp_path / "houses.gpkg", [pixel_box(0, 0, 24, SIDE)])
    assert verbs.assess(mapped, reference=houses, nodata_as="background").overall_accuracy == 0.75


def test_a_class_that_the_map_does_not_have_is_refused_for_nodata(tmp_path):
    mapped, truth = foreign_map(tmp_path, nodata=0)
    with pytest.raises(RecipeError, match="--nodata-as is 'water', but the classes are 1"):
        verbs.assess(mapped, reference=truth, nodata_as="water")


def test_nodata_of_a_reference_is_unlabelled_whatever_the_classes_of_the_map_are(tmp_path):
    plain, _ = foreign_map(tmp_path, nodata=None)
    reference = np.zeros((SIDE, SIDE), np.uint8)
    reference[:12] = 1
    path = write_raster(tmp_path / "reference.tif", reference, nodata=0)
    assert verbs.assess(plain, reference=path).confusion.counts.tolist() == [[0, 0], [0, 12 * SIDE]]
    as_ground = verbs.assess(plain, reference=path, label_nodata_as="0")
    assert as_ground.confusion.counts.tolist() == [[36 * SIDE, 0], [0, 12 * SIDE]]


# Groups of scenes -------------------------------------------------------------------------------------------------


def grouped_world(folder, groups) -> tuple[Chips, list[Path]]:
    """Chips of a scene for each group, and their maps, which are wrong here and there."""
    rng, specs, maps = np.random.default_rng(0), [], []
    for index, group in enumerate(groups):
        transform = METRE @ Affine.translation(1000 * index, 0)
        image = write_raster(folder / f"s{index}.tif", noise(3, SIDE, SIDE), transform=transform)
        truth, mapped = (rng.integers(1, 3, (SIDE, SIDE), np.uint8) for _ in range(2))
        labels = write_raster(folder / f"labels{index}.tif", truth, transform=transform)
        maps.append(write_raster(folder / f"map{index}.tif", mapped, transform=transform))
        specs.append(SceneSpec(image=(str(image),), labels=str(labels), group=group))
    scenes, classes = open_scenes(specs)
    split = SplitSpec(val=0, test=0)
    return chip(scenes, classes, specs, folder / "chips", spec=ChipSpec(size=16, stride=12), split=split), maps


def assessed(chips: Chips, maps: list[Path]) -> Assessment:
    return verbs.assess(maps, reference=chips, split="train")


def test_the_measures_of_a_group_are_those_of_its_scenes_alone(tmp_path):
    chips, maps = grouped_world(tmp_path, ["Ohio", "Virginia", "Ohio"])
    assessment = assessed(chips, maps)
    assert list(assessment.groups) == ["Ohio", "Virginia"]
    for group, indices in {"Ohio": [0, 2], "Virginia": [1]}.items():
        of_scenes = np.isin(chips.scene_names, [f"s{index}" for index in indices])
        alone = chips.take(of_scenes)
        counts = assess_chips([Raster.open([maps[index]]) for index in indices], alone).confusion.counts
        np.testing.assert_array_equal(assessment.groups[group].counts, counts)
        assert counts.sum() == len(indices) * SIDE * SIDE


def test_the_confusion_matrices_of_groups_sum_to_the_pooled_one(tmp_path):
    assessment = assessed(*grouped_world(tmp_path, ["a", "b", "a", "c"]))
    summed = sum(confusion.counts for confusion in assessment.groups.values())
    np.testing.assert_array_equal(summed, assessment.confusion.counts)


def test_scenes_without_a_group_count_only_in_the_pooled_measures(tmp_path):
    assessment = assessed(*grouped_world(tmp_path, [None, "b", None]))
    assert assessment.confusion.total == 3 * SIDE * SIDE
    assert {name: confusion.total for name, confusion in assessment.groups.items()} == {"b": SIDE * SIDE}
    summary = assessment.as_dict()
    assert summary["groups"]["b"].items() >= assessment.groups["b"].as_dict().items()


def test_without_groups_and_with_one_scene_an_assessment_has_none(tmp_path):
    assessment = assessed(*grouped_world(tmp_path, [None]))
    assert assessment.groups == {}
    assert "groups" not in assessment.as_dict()


def test_chips_that_were_cut_before_scenes_had_groups_are_assessed(tmp_path):
    chips, maps = grouped_world(tmp_path, ["a", "b"])
    chips.table.drop(columns="group").to_parquet(chips.folder / "chips.parquet", index=False)
    assessment = assessed(Chips.open(chips.folder), maps)
    assert list(assessment.groups) == ["s0", "s1"]  # each scene
    assert assessment.confusion.total == 2 * SIDE * SIDE


def test_a_map_whose_values_a_byte_cannot_hold_is_refused_for_chips_too(tmp_path):
    chips, maps = grouped_world(tmp_path, ("north",))
    # In a byte, 257 would count as class 1.
    wide = write_raster(tmp_path / "wide.tif", np.full((SIDE, SIDE), 257, np.uint16), transform=METRE)
    with pytest.raises(RasterError, match=r"wide.tif holds 257\. Expected class values"):
        assessed(chips, [wide])
    assert assessed(chips, maps).confusion.total > 0
    (tmp_path / "classes.csv").write_text("value,name\n1,wood\n2,sea\n")
    with pytest.raises(RecipeError, match="chips, which have a class table, so --class-table means nothing"):
        verbs.assess(maps, reference=chips, split="train", class_table=tmp_path / "classes.csv")
