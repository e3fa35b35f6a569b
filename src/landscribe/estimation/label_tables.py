"""Label tables: reference classes by id, as the sheet, Collect Earth Online and AcATaMa give them back."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyogrio

from landscribe.errors import SampleError, counted, listed
from landscribe.estimation.csv_texts import read_csv_texts
from landscribe.geo.access import require_file
from landscribe.geo.classes import label_key

_IDS = ("id", "plotid", "plot_id", "pl_plotid")
"""Names of the column with the id of a unit, in small letters."""
_LABELS = ("reference", "label")
"""Names of the column with the class, in small letters."""


def read_labels(path: str | Path, classes: Sequence[str]) -> dict[int, str]:
    """Read a table with the reference class of each unit; units without a class are left out.

    The classes are in the column reference or label, or else in the only column that holds nothing but class names.

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
    labels = _column(table, _LABELS) or _of_classes(table[others], classes, name)
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
    """The column with one of these names, whatever its capitals."""
    return next((column for column in map(str, table) if column.lower() in names), None)


def _of_classes(table: pd.DataFrame, classes: Sequence[str], name: str) -> str:
    """The only column that holds nothing but class names."""
    known = {"", *classes}
    columns = [column for column in table if set(table[column]) <= known and (table[column] != "").any()]
    if len(columns) != 1:
        held = f"the classes in {listed(columns)}" if columns else "no column of class names"
        raise SampleError(
            f"{name} has {held}. Expected one column, reference or label, that holds {', '.join(classes)}."
        )
    return str(columns[0])
