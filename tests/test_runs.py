"""A run folder: the names of its files, and the map of each scene."""

from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS

from landscribe.errors import RecipeError
from landscribe.geo.grid import Grid
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.rasters.whole_files import write_raster
from landscribe.runs import Run, match_maps

WITHOUT_CRS = Grid(None, Affine.identity(), 4, 4)


def write(path: Path, grid: Grid) -> Raster:
    write_raster(path, np.ones((1, 4, 4), np.uint8), grid)
    return Raster.open([path])


def matched(maps: list[Raster], images: dict[str, Raster]) -> dict[str, str]:
    return {scene: mapped.name for scene, mapped in match_maps(maps, images).items()}


@pytest.mark.parametrize("scenes", [["a"], ["b", "a", "a"]])
def test_map_files_are_at_their_planned_paths_in_the_order_of_scenes(tmp_path, scenes):
    run = Run(tmp_path)
    assert run.map_files == []
    for path in run.planned_map_files(scenes):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert run.map_files == run.planned_map_files(scenes)
    assert len(set(run.map_files)) == len(scenes)


def test_removing_a_run_keeps_files_of_others(tmp_path):
    run = Run(tmp_path)
    for folder in (run.chips_folder, run.model_folder, tmp_path / "maps", tmp_path / "map.tif.parts"):
        folder.mkdir()
        (folder / "file").touch()
    for file in (run.recipe_file, run.assessment_file, run.report_file, tmp_path / "map.tif", tmp_path / "notes.txt"):
        file.touch()
    run.remove()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    run.remove()


@pytest.mark.parametrize("has_model", [False, True])
def test_folds_are_of_the_run_where_they_stand_in_place_of_its_model(tmp_path, has_model):
    run = Run(tmp_path)
    (run.folds_folder / "fold_1").mkdir(parents=True)
    if has_model:
        run.model_folder.mkdir()
    assert (run.assessed == run) == has_model
    run.remove()
    assert run.folds_folder.exists() == has_model


def test_a_missing_or_damaged_assessment_is_named(tmp_path):
    for text in (None, "{"):
        if text is not None:
            (tmp_path / "assessment.json").write_text(text)
        with pytest.raises(RecipeError, match=r"no readable assessment\.json .*finished \"landscribe run\""):
            Run(tmp_path).read_assessment()


def test_measures_of_another_kind_are_no_assessment(tmp_path):
    run = Run(tmp_path)
    for text in ("[]", '{"reference": "points.gpkg"}'):
        run.assessment_file.write_text(text)
        run.sample_file.write_text(text)
        for read in (run.read_assessment, run.read_sample_assessment):
            with pytest.raises(
                RecipeError, match=r"assessment(_sample)?\.json does not hold the measures that its name"
            ):
                read()


def test_a_map_belongs_to_the_scene_on_its_grid(tmp_path):
    here, there = (Grid(CRS.from_epsg(32617), Affine(1, 0, x, 0, -1, 0), 4, 4) for x in (0, 100))
    images = {"a": write(tmp_path / "a.tif", here), "b": write(tmp_path / "b.tif", there)}
    assert matched([write(tmp_path / "map_a.tif", there)], images) == {"b": "map_a"}
    assert matched([write(tmp_path / "1.tif", there), write(tmp_path / "2.tif", here)], images) == {"a": "2", "b": "1"}


@pytest.mark.parametrize(
    ("maps", "expected"),
    [
        (["000_a", "001_a_b"], {"a": "000_a", "a_b": "001_a_b"}),
        (["map_a_b", "map_a"], {"a": "map_a", "a_b": "map_a_b"}),
        (["first", "second"], {"a": "first", "a_b": "second"}),
        (["a_b", "other"], {"a": "other", "a_b": "a_b"}),
        (["only"], {"a": "only", "a_b": "only"}),
    ],
)
def test_among_maps_on_one_grid_the_name_decides_then_the_order(tmp_path, maps, expected):
    (tmp_path / "maps").mkdir()
    images = {scene: write(tmp_path / f"{scene}.tif", WITHOUT_CRS) for scene in ("a", "a_b")}
    rasters = [write(tmp_path / "maps" / f"{name}.tif", WITHOUT_CRS) for name in maps]
    assert matched(rasters, images) == expected
