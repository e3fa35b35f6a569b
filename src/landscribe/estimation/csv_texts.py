"""CSV tables as people save them: with commas, semicolons or tabs between the columns."""

import csv
import io
from pathlib import Path

import pandas as pd

from landscribe.errors import SampleError, counted
from landscribe.geo.access import csv_separator, read_utf8


def read_csv_texts(path: Path) -> pd.DataFrame:
    """Read a CSV table, whose cells stay texts: a class may be called "NA".

    The separator is that of its first line. Where it is not the comma, a spreadsheet may write decimal commas: they
    become points in columns that hold numbers only. Empty cells beyond the columns of the header, of separators at the
    end of rows, are left out.

    Raises:
        SampleError: the file cannot be read, is not UTF-8, or a row has more cells than the header.
    """
    text = read_utf8(path, "a table (CSV) with a header", SampleError)
    separator = csv_separator(text)
    try:
        trimmed = _without_extra_cells(text, separator, path)
        table = pd.read_csv(trimmed, sep=separator, dtype=str, keep_default_na=False, index_col=False)
    except (ValueError, csv.Error) as error:
        raise SampleError(f"{path} cannot be read as CSV: {error}. Expected a table with a header.") from error
    return table if separator == "," else table.apply(_with_points)


def _without_extra_cells(text: str, separator: str, path: Path) -> io.StringIO:
    """The table with as many cells in each row as in the header, or fewer.

    pandas would take the first column for names of rows where rows have one cell more.
    """
    trimmed, columns = io.StringIO(), None
    writer = csv.writer(trimmed, delimiter=separator)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    for row in rows:
        columns = columns or len(row)
        extra = [cell for cell in row[columns:] if cell.strip()]
        if extra:
            raise SampleError(
                f"{path.name} has the cell '{extra[0]}' in line {rows.line_num}, but its header names "
                f"{counted(columns, 'column')}. Name all columns, or quote cells that hold '{separator}'."
            )
        writer.writerow(row[:columns])
    trimmed.seek(0)
    return trimmed


def _with_points(column: "pd.Series[str]") -> "pd.Series[str]":
    """Decimal commas as points, if the column then holds numbers only."""
    pointed = column.str.replace(",", ".", regex=False)
    is_number = pd.to_numeric(pointed.replace("", "0"), errors="coerce").notna().all()
    return pointed if is_number else column
