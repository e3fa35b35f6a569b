"""Which source files of chips have changed since they were cut."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import geopandas as gpd
import pytest

from landscribe import pipeline
from landscribe.data.chips.source_states import changed_sources, write_states
from landscribe.data.scenes.spec import SceneSpec
from landscribe.data.splits.spec import SplitSpec
from landscribe.errors import OutputError
from landscribe.runs import Run
from worlds import noise, pixel_box, write_polygons, write_raster

BOXES = [pixel_box(2, 3, 20, 26), pixel_box(30, 40, 9, 12)]
BY_BLOCK = SplitSpec()


def scene(folder: Path, labels: str) -> SceneSpec:
    image = write_raster(folder / "scene.tif", noise(3, 64, 64))
    path = write_polygons(folder / labels, BOXES, kind=["house", "road"])
    return SceneSpec(image=(str(image),), labels=str(path), label_field="kind")


def states(folder: Path, *sources: SceneSpec, split: SplitSpec = BY_BLOCK) -> Path:
    path = folder / "sources.json"
    write_states(path, sources, split)
    return path


def later(path: Path) -> None:
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))


def move(path: Path) -> None:
    table = gpd.read_file(path)
    table.geometry = table.translate(3)
    table.to_file(path)


def relabel(path: Path, word: str) -> None:
    table = gpd.read_file(path)
    table.loc[0, "kind"] = word
    table.to_file(path)


@pytest.mark.parametrize("suffix", ["geojson", "gpkg", "shp", "fgb"])
def test_labels_whose_class_was_edited_have_changed(tmp_path, suffix):
    source = scene(tmp_path, f"labels.{suffix}")
    path = states(tmp_path, source)
    assert changed_sources(path, [source], BY_BLOCK) == ""
    relabel(Path(source.labels), "water")
    assert changed_sources(path, [source], BY_BLOCK).startswith(f"{source.labels} (labels.{suffix}")


def test_a_geopackage_that_qgis_opened_and_styled_has_not_changed(tmp_path):
    source = scene(tmp_path, "labels.gpkg")
    path = states(tmp_path, source)
    before = Path(source.labels).read_bytes()
    with closing(sqlite3.connect(source.labels)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE layer_styles (id INTEGER PRIMARY KEY, styleQML TEXT)")
        database.execute(
            "INSERT INTO gpkg_contents (table_name, data_type, identifier) "
            "VALUES ('layer_styles', 'attributes', 'layer_styles')"
        )
        database.commit()
    assert Path(source.labels).read_bytes() != before
    assert changed_sources(path, [source], BY_BLOCK) == ""


def test_imagery_and_split_lists_that_were_written_again_have_changed(tmp_path):
    source = scene(tmp_path, "labels.geojson")
    listed = tmp_path / "train.txt"
    listed.write_text("scene_0\n")
    split = SplitSpec(by="list", train_list=str(listed))
    path = states(tmp_path, source, split=split)
    later(Path(source.image[0]))
    assert "scene.tif of" in changed_sources(path, [source], split)
    write_states(path, [source], split)
    listed.write_text("scene_0\nscene_1\n")
    assert "train.txt of" in changed_sources(path, [source], split)


def test_of_chips_without_states_no_source_has_changed(tmp_path):
    source = scene(tmp_path, "labels.geojson")
    assert changed_sources(tmp_path / "none", [source], BY_BLOCK) == ""


def test_a_run_of_labels_that_have_changed_is_refused_and_made_anew_with_overwrite(tmp_path):
    source = scene(tmp_path, "labels.geojson")
    given = {
        "images": [source.image[0]], "labels": source.labels, "label_field": "kind", "size": 16, "steps": 1,
        "encoder": "plain", "weights": "none", "options": {"encoder_widths": [4, 4]}, "out": tmp_path / "run",
    }  # fmt: skip
    pipeline.run(**given)
    move(Path(source.labels))
    before = (tmp_path / "run" / "map.tif").read_bytes()
    with pytest.raises(OutputError, match=r"files that have changed: .*labels\.geojson of .* bytes.*--overwrite"):
        pipeline.run(**given)
    assert (tmp_path / "run" / "map.tif").read_bytes() == before
    pipeline.run(**given, overwrite=True)
    assert changed_sources(Run(tmp_path / "run").sources_file, [source], BY_BLOCK) == ""
