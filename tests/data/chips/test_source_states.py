"""States of the files that chips are cut from."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import geopandas as gpd
import pytest

from landscribe.data.chips.source_states import source_states
from landscribe.data.scenes.spec import SceneSpec
from landscribe.data.splits.spec import SplitSpec
from worlds import noise, pixel_box, write_polygons, write_raster

BOXES = [pixel_box(2, 3, 20, 26), pixel_box(30, 40, 9, 12)]
BY_BLOCK = SplitSpec()


def scene(folder: Path, labels: str) -> SceneSpec:
    image = write_raster(folder / "scene.tif", noise(3, 64, 64))
    path = write_polygons(folder / labels, BOXES, kind=["house", "road"])
    return SceneSpec(image=(str(image),), labels=str(path), label_field="kind")


def changed(before: dict, now: dict) -> list[str]:
    return [path for path in now if now[path] != before[path]]


def later(path: Path) -> None:
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))


def relabel(path: Path, word: str) -> None:
    table = gpd.read_file(path)
    table.loc[0, "kind"] = word
    table.to_file(path)


@pytest.mark.parametrize("suffix", ["geojson", "gpkg", "shp", "fgb"])
def test_labels_whose_class_was_edited_are_in_another_state(tmp_path, suffix):
    source = scene(tmp_path, f"labels.{suffix}")
    before = source_states([source], BY_BLOCK)
    assert set(before) == {source.image[0], source.labels}
    assert source_states([source], BY_BLOCK) == before
    relabel(Path(source.labels), "water")
    assert changed(before, source_states([source], BY_BLOCK)) == [source.labels]


def test_a_geopackage_that_qgis_opened_and_styled_is_in_the_same_state(tmp_path):
    source = scene(tmp_path, "labels.gpkg")
    before, content = source_states([source], BY_BLOCK), Path(source.labels).read_bytes()
    with closing(sqlite3.connect(source.labels)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE layer_styles (id INTEGER PRIMARY KEY, styleQML TEXT)")
        database.execute(
            "INSERT INTO gpkg_contents (table_name, data_type, identifier) "
            "VALUES ('layer_styles', 'attributes', 'layer_styles')"
        )
        database.commit()
    assert Path(source.labels).read_bytes() != content
    assert source_states([source], BY_BLOCK) == before


def test_imagery_areas_and_split_lists_that_were_written_again_are_in_another_state(tmp_path):
    area = write_polygons(tmp_path / "area.geojson", BOXES)
    source = scene(tmp_path, "labels.geojson").model_copy(update={"labelled_area": str(area)})
    listed = tmp_path / "train.txt"
    listed.write_text("scene_0\n")
    split = SplitSpec(by="list", train_list=str(listed))
    for path in (source.image[0], str(area), str(listed)):
        before = source_states([source], split)
        later(Path(path))
        assert changed(before, source_states([source], split)) == [path]
