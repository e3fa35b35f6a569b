"""A run folder: the names of its files, and what they hold."""

import pytest

from landscribe.errors import RecipeError
from landscribe.runs import Run


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
