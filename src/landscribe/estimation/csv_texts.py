"""CSV tables as people save them: with commas, semicolons or tabs between the columns."""

from pathlib import Path

import pandas as pd

from landscribe.errors import SampleError

_SEPARATORS = ",;\t"


def read_csv_texts(path: Path) -> pd.DataFrame:
    """Read a CSV table, whose cells stay texts: a class may be called "NA".

    The separator is that of its first line. Where it is not the comma, a spreadsheet may write decimal commas: they
    become points in columns that hold numbers only.

    Raises:
        SampleError: the file cannot be read, or is not UTF-8.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            header = file.readline()
        separator = max(_SEPARATORS, key=header.count)
        table = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SampleError(
            f"{path} is not UTF-8 text (byte {error.start}). Expected UTF-8. Save it as CSV UTF-8, a file type "
            "of spreadsheets."
        ) from error
    except (ValueError, OSError) as error:
        raise SampleError(f"{path} cannot be read as CSV: {error}. Expected a table with a header.") from error
    return table if separator == "," else table.apply(_with_points)


def _with_points(column: "pd.Series[str]") -> "pd.Series[str]":
    """Decimal commas as points, if the column then holds numbers only."""
    pointed = column.str.replace(",", ".", regex=False)
    is_number = pd.to_numeric(pointed.replace("", "0"), errors="coerce").notna().all()
    return pointed if is_number else column
