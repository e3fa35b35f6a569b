"""Columns of features: labels as people write them, and priorities."""

import unicodedata

import geopandas as gpd
import numpy as np
import pytest

from landscribe.errors import LabelError
from landscribe.geo.vectors.columns import FILE_ORDER, labels_of, priorities_of
from worlds import UTM, pixel_box


def table(**columns) -> gpd.GeoDataFrame:
    count = len(next(iter(columns.values())))
    return gpd.GeoDataFrame(columns, geometry=[pixel_box(0, 2 * n, 1, 1) for n in range(count)], crs=UTM)


def test_true_and_false_are_two_classes():
    assert labels_of(table(built=[True, False, True]), "built", "a.gpkg") == ("True", "False", "True")


def test_accents_are_one_character_in_labels_and_names_of_columns():
    composed, apart = "Größe é", unicodedata.normalize("NFD", "Größe é")
    frame = table(**{apart: [composed, apart]})
    assert labels_of(frame, composed, "a.gpkg") == (composed, composed)


def test_a_missing_column_is_refused_with_the_nearest():
    with pytest.raises(LabelError, match=r"Its columns are Class, height. Did you mean 'Class'?"):
        labels_of(table(Class=["a"], height=[3]), "class", "a.gpkg")


def test_a_column_of_the_very_name_comes_before_one_with_blanks():
    frame = table(**{"class ": ["b"], "class": ["a"], " class ": ["c"]})
    assert labels_of(frame, "class", "a.gpkg") == ("a",)
    assert labels_of(frame, " class ", "a.gpkg") == ("c",)
    assert labels_of(frame[[" class ", "geometry"]], "class", "a.gpkg") == ("c",)


def test_a_table_of_geometries_alone_is_said_to_have_no_columns():
    with pytest.raises(LabelError, match=r"has no column 'class': it has none beside its geometries"):
        labels_of(table(height=[3])[["geometry"]], "class", "a.gpkg")


def test_priorities_are_numbers_or_the_order_of_the_file():
    frame = table(level=[3, 1, 2], word=["a", "b", "c"], gap=[1.0, np.nan, 2.0])
    assert priorities_of(frame, "level", "a.gpkg").tolist() == [3, 1, 2]
    assert priorities_of(frame, FILE_ORDER, "a.gpkg").tolist() == [0, 1, 2]
    assert priorities_of(frame, None, "a.gpkg") is None
    for name in ("word", "gap"):
        with pytest.raises(LabelError, match=f"column '{name}' decides which polygon lies on top.*{FILE_ORDER}"):
            priorities_of(frame, name, "a.gpkg")
