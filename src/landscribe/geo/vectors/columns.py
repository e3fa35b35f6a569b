"""Columns of a table of features: labels and priorities."""

import difflib
import unicodedata
from collections import Counter
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from landscribe.errors import LabelError, counted
from landscribe.geo.classes import Label

FILE_ORDER = "file-order"
"""The priority of features that are later in their file."""


def labels_of(table: gpd.GeoDataFrame, field: str | None, name: str) -> tuple[Label, ...]:
    """The label of each feature: its value of the column, or the file's stem without a column.

    Whole numbers are int, also 3.0: shapefiles hold floats. True and False are words.

    Raises:
        LabelError: the column is missing, has empty rows, or holds words and numbers.
    """
    if field is None:
        return (Path(name).stem,) * len(table)
    raw = column(table, field, name)
    blank = raw.isna() | (raw.astype(str).str.strip() == "")
    if blank.any():
        raise LabelError(
            f"{name}: column '{field}' is empty in {int(blank.sum())} of {counted(len(raw), 'feature')} (first: "
            f"feature {int(blank.to_numpy().argmax())}). Give each feature a class."
        )
    labels = [_label(value) for value in raw.tolist()]
    types = Counter(type(label).__name__ for label in labels)
    if types.keys() - {"int"} and types.keys() - {"str"}:
        counts = ", ".join(f"{count} {'words' if kind == 'str' else kind}" for kind, count in types.items())
        problem = f"is mixed ({counts})" if len(types) > 1 else f"holds {counts}"
        raise LabelError(f"{name}: column '{field}' {problem}. Expected only words or only whole numbers.")
    return tuple(labels)  # type: ignore[arg-type]


def priorities_of(table: gpd.GeoDataFrame, field: str | None, name: str) -> NDArray[np.float64] | None:
    """The priority of each feature: its number or date in a column, or its index in the file; None without a column.

    Returns:
        (features,) numbers; of dates and times, the seconds since 1970 in UTC.

    Raises:
        LabelError: the column is missing or holds something else than finite numbers, or dates.
    """
    if field is None:
        return None
    if field == FILE_ORDER:
        return np.arange(len(table), dtype=np.float64)
    raw = column(table, field, name)
    try:
        priorities = raw.astype(np.float64).to_numpy()
    except (ValueError, TypeError):
        priorities = _seconds(raw)
    bad = ~np.isfinite(priorities)
    if bad.any():
        first = int(bad.argmax())
        what = "is empty" if pd.isna(raw.iloc[first]) else f"holds {raw.iloc[first]!r}"
        raise LabelError(
            f"{name}: column '{field}' decides which polygon lies on top, but {what} in feature {first}. Expected a "
            f"number in each feature, or a date such as 2024-05-31; or pass --label-priority {FILE_ORDER}."
        )
    return priorities


def _seconds(values: pd.Series) -> NDArray[np.float64]:
    """(n,) seconds from 1970 (UTC) to dates and times, also as ISO texts; NaN for other values."""
    texts = values.astype(str)
    # pandas takes "today" for a date.
    begins_with_year = texts.str.match(r"\d{4}")
    times = pd.to_datetime(texts.where(begins_with_year), format="ISO8601", utc=True, errors="coerce")
    return np.asarray((times - pd.Timestamp(0, tz="UTC")).dt.total_seconds(), np.float64)


def column(table: gpd.GeoDataFrame, field: str, name: str) -> "gpd.pd.Series":
    """A column by name; accents may be composed or not, and blanks may be around it, if no name is the very same.

    Raises:
        LabelError: there is no such column.
    """
    columns = [column for column in table.columns if column != table.geometry.name]
    if field in columns:
        return table[field]
    if not columns:
        raise LabelError(
            f"{name} has no column '{field}': it has none beside its geometries. A Shapefile keeps its columns in a "
            ".dbf file; rename a column that is called geometry."
        )
    names = {normal(str(column)): column for column in columns}
    if normal(field) not in names:
        close = difflib.get_close_matches(field.lower(), [each.lower() for each in names], n=1)
        meant = next((each for each in names if [each.lower()] == close), None)
        hint = f"Did you mean '{meant}'?" if meant else "Choose one."
        raise LabelError(f"{name} has no column '{field}'. Its columns are {', '.join(names)}. {hint}")
    return table[names[normal(field)]]


def normal(text: str) -> str:
    """Text with composed accents and without blanks around it."""
    return unicodedata.normalize("NFC", text.strip())


def _label(value: object) -> object:
    if isinstance(value, str):
        return normal(value)
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value))
    if isinstance(value, (int, np.integer, float)) and float(value).is_integer():
        return int(value)
    return value
