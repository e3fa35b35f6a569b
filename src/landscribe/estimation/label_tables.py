"""Label tables: reference classes by id, as the sheet, Collect Earth Online and AcATaMa give them back."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyogrio

from landscribe.errors import SampleError, counted, listed
from landscribe.estimation.csv_texts import read_csv_texts
from landscribe.estimation.reference_sample import REFERENCE
from landscribe.geo.access import require_file
from landscribe.geo.classes import label_key

_IDS = ("id", "pl_plotid", "plotid", "plot_id")
"""Names of the column with the id of a unit, in small letters; the first that a table has. Collect Earth Online puts
pl_ before the columns that it was given, and has ids of plots of its own."""
_LABELS = ("reference", "label")
"""Names of the column with the class, in small letters."""
_OF_SAMPLE = ("map", "stratum")
"""Columns of the sample that hold classes of the map."""


def read_labels(path: str | Path, classes: Sequence[str]) -> dict[int, str]:
    """Read a table with the reference class of each unit; units without a class are left out.

    The classes are in the column reference or label, or else in the only column that holds nothing but class names. Of
    the per cent in columns QUESTION:CLASS, as the plots of Collect Earth Online have them, the largest is the class.

    Args:
        path: a CSV file, or any vector format of GDAL.
        classes: names.

    Returns:
        Class name by id, for `ReferenceSample.with_labels`.

    Raises:
        SampleError: the file cannot be read, has no such columns, no labels, or an id twice.
    """
    require_file(str(path))
    name = Path(path).name
    try:
        if Path(path).suffix.lower() == ".csv":
            table = read_csv_texts(Path(path))
        else:
            table = pyogrio.read_dataframe(path, read_geometry=False)
    except (ValueError, OSError, pyogrio.errors.DataSourceError) as error:
        raise SampleError(
            f"{name} cannot be read: {error}. Expected a table with the columns id and reference."
        ) from error
    table = table.fillna("").astype(str).apply(lambda column: column.str.strip())
    ids = _column(table, _IDS)
    if ids is None:
        raise SampleError(
            f"{name} has the columns {', '.join(table)}. Expected one of {', '.join(_IDS)} for the units."
        )
    # pandas and R write the class 1 as 1.0 where a cell of its column is empty.
    names = {label_key(each): each for each in classes}
    others = [column for column in table if column != ids]
    table[others] = table[others].map(lambda cell: names.get(label_key(cell), cell))
    labels = _column(table, _LABELS)
    if labels is None and not _columns_of_classes(table[others], classes):
        answers = _answers(table[others], classes, name)
        if answers is not None:
            labels, table[REFERENCE] = REFERENCE, answers
    labels = labels or _of_classes(table[others], classes, name)
    labelled = table[table[labels] != ""]
    if not len(labelled):
        raise SampleError(
            f"{name} has no class in its column {labels} ({counted(len(table), 'row')}). Expected the class of each "
            "labelled unit."
        )
    numbers = pd.to_numeric(labelled[ids], errors="coerce")
    for is_odd, often in ((~(numbers % 1 == 0), ""), (numbers.duplicated(), " more than once")):
        if is_odd.any():
            odd = labelled[ids][is_odd].iloc[0]
            raise SampleError(
                f"{name} has '{odd}' in its column {ids}{often}. Expected the number of each unit once. Correct it."
            )
    return dict(zip(numbers.astype(int).tolist(), labelled[labels].tolist(), strict=True))


def _column(table: pd.DataFrame, names: Sequence[str]) -> str | None:
    """The column with the first of these names that there is, whatever its capitals."""
    columns = {str(column).lower(): str(column) for column in reversed(table.columns)}
    return next((columns[name] for name in names if name in columns), None)


def _answers(table: pd.DataFrame, classes: Sequence[str], path: str) -> pd.Series | None:
    """The class with the largest per cent of each row, in columns QUESTION:CLASS; None if there are none."""
    ends = {f":{label_key(each)}": each for each in classes}
    questions = {
        str(column)[: -len(end)] for column in table for end in ends if str(column).endswith(end) and column != end
    }
    if not questions:
        return None
    if len(questions) > 1:
        raise SampleError(
            f"{path} has the classes in answers to {listed(sorted(questions))}. Expected those to one question, or one "
            "column, reference or label. Drop the others."
        )
    question = questions.pop()
    cells = table[[column for column in table if str(column).startswith(f"{question}:")]]
    shares = cells.apply(pd.to_numeric, errors="coerce")
    is_odd = (shares.isna() & (cells != "")).to_numpy()
    if is_odd.any():
        raise SampleError(
            f"{path} has '{cells.to_numpy()[is_odd][0]}' among the answers to {question}. Expected per cent, as plain "
            "numbers. Correct it."
        )
    shares = shares.fillna(0)
    largest, first = shares.max(axis=1), shares.idxmax(axis=1)
    answers = first.str.removeprefix(question).map(ends)
    is_tied = shares.eq(largest, axis=0).sum(axis=1) > 1
    is_wrong = ((is_tied | answers.isna()) & (largest > 0)).to_numpy()
    if is_wrong.any():
        row = int(is_wrong.argmax())
        found = "two answers have" if is_tied.iloc[row] else f"{first.iloc[row]}, which is no class, has"
        raise SampleError(
            f"{path}: of row {row + 1}, {found} the largest per cent. Expected one of the classes {', '.join(classes)} "
            "for each unit. Correct the row, or add a column reference."
        )
    return answers.where(largest > 0, "")


def _columns_of_classes(table: pd.DataFrame, classes: Sequence[str]) -> list[str]:
    """The columns that hold nothing but class names, and are none of the sample's."""
    known = {"", *classes}
    others = [column for column in map(str, table) if column.lower() not in _OF_SAMPLE]
    return [column for column in others if set(table[column]) <= known and (table[column] != "").any()]


def _of_classes(table: pd.DataFrame, classes: Sequence[str], name: str) -> str:
    """The only column of class names."""
    columns = _columns_of_classes(table, classes)
    if len(columns) != 1:
        held = (
            f"the classes in {listed(columns)}" if columns else f"no column of class names{_nearly(table, {*classes})}"
        )
        raise SampleError(
            f"{name} has {held}. Expected one column, reference or label, that holds {', '.join(classes)}."
        )
    return columns[0]


def _nearly(table: pd.DataFrame, known: set[str]) -> str:
    """The column with the most cells that are class names, and why it is not the one, for messages."""
    counts = {str(column): int(table[column].isin(known).sum()) for column in table}
    nearest = max(
        counts, key=lambda column: (column.lower() not in _OF_SAMPLE and counts[column], counts[column]), default=None
    )
    if nearest is None or not counts[nearest]:
        return ""
    others = sorted({*table[nearest]} - known - {""})
    why = f"holds {listed(others)}, which is no class" if others else "is the sample's own"
    return f" (but {nearest} {why})"
