"""Columns of features: labels as people write them, and priorities."""

import unicodedata
from datetime import UTC, date, datetime, timedelta, timezone

import geopandas as gpd
import numpy as np
import pandas as pd
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


IN_TIME = {
    "dates": [date(2024, 5, 1), date(1969, 12, 31), date(2020, 2, 29)],
    "texts of dates": ["2024-05-01", "1969-12-31", "2020-02-29"],
    "months and years": ["2024-05", "1969", "2020-02-29"],
    "numpy": np.array(["2024-05-01", "1969-12-31", "2020-02-29"], "datetime64[ms]"),
    "hours in UTC": pd.to_datetime(
        ["2020-01-01 12:00:00.5", "2020-01-01 10:00:00.5", "2020-01-01 12:00:00.0"], utc=True
    ),
    "two time zones": ["2020-01-01T12:00:00Z", "2020-01-01T12:30:00+02:00", "2020-01-01T06:00:00-05:00"],
    "datetimes": [datetime(2020, 1, 1, hour, tzinfo=timezone(timedelta(hours=hour))) for hour in (2, 12, 5)],
}
"""The newest, the oldest and the one between them; of datetimes, all are of one moment."""


@pytest.mark.parametrize("kind", IN_TIME)
def test_priorities_of_dates_and_times_are_in_the_order_of_time(kind):
    priorities = priorities_of(table(taken=IN_TIME[kind]), "taken", "a.gpkg")
    expected = [0, 0, 0] if kind == "datetimes" else [2, 0, 1]
    assert np.unique(priorities, return_inverse=True)[1].tolist() == expected


def test_priorities_of_times_are_seconds_since_1970():
    times = ["1970-01-01T00:00:00Z", "1970-01-02", "1970-01-01T01:00:00.25-01:00"]
    assert priorities_of(table(taken=times), "taken", "a.gpkg").tolist() == [0, 86400, 7200.25]
    assert priorities_of(table(taken=[datetime(2024, 5, 1, tzinfo=UTC)]), "taken", "a.gpkg").tolist() == [1714521600]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ([date(2024, 5, 1), None], "is empty in feature 1"),
        (np.array(["2024-05-01", "NaT"], "datetime64[ms]"), "is empty in feature 1"),
        (["2024-05-01", "31.12.2023"], "holds '31.12.2023' in feature 1"),
        (["today", "2024-05-01"], "holds 'today' in feature 0"),
        (["2024-05-01", ""], "holds '' in feature 1"),
        ([1.0, np.nan], "is empty in feature 1"),
    ],
)
def test_priorities_that_are_no_numbers_or_dates_are_refused(values, problem):
    with pytest.raises(LabelError, match=f"but {problem}. Expected a number in each feature, or a date"):
        priorities_of(table(taken=values), "taken", "a.gpkg")
