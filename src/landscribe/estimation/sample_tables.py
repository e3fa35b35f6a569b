"""Tables of a reference sample and of its strata, as arrays that are checked."""

import logging
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from landscribe.errors import SampleError, counted, listed

log = logging.getLogger(__name__)

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

_WHOLES = (1, 100)
"""Sums of shares, and of per cent."""
_SHARE_ROUNDING = 0.01
"""Of a sum of shares that are rounded."""
_SHARES = ("map_share", "reference_share")
SHARE_OF = "class"
"""Name of the class of shares, where none is given."""
OTHER = "other"
"""Name of all classes but that of `map_share` and `reference_share`."""


@dataclass(frozen=True, eq=False)
class Strata:
    """The population, by stratum."""

    names: tuple[Hashable, ...]
    units: Floats
    """(H,) sampling units; or their shares of the population, which sum to about 1 or 100."""
    area: Floats | None
    """(H,) total area, in the unit in which areas are estimated."""
    map_share: Floats | None
    """(H,) mean share of the map's class, 0 to 1, for the regression estimator."""
    are_shares: bool = False
    """Whether `units` are shares: how large the population is, is not known."""


@dataclass(frozen=True, eq=False)
class LabelledSample:
    """A labelled reference sample of n rows and K classes."""

    strata: Strata
    classes: tuple[Hashable, ...]
    stratum: Indices
    """(n,) index of the stratum."""
    mapped: Floats
    """(n, K) share of each class in the map; 0 or 1 if units have one class."""
    reference: Floats
    """(n, K) share of each class in the reference."""
    count: Indices
    """(n,) units that the row stands for."""
    weight: Floats
    """(n,) inverse of the inclusion probability of a unit, up to a factor by stratum."""
    area: Floats
    """(n,) area of a unit; 1 if all are equal."""
    cluster: Indices | None
    """(n,) index of the cluster; None if units were drawn one by one."""
    has_shares: bool
    """Units have shares of one class, not one class each."""

    @property
    def drawn(self) -> Indices:
        """(H,) units of the sample in each stratum; clusters, if clusters were drawn."""
        size = len(self.strata.names)
        if self.cluster is None:
            return np.bincount(self.stratum, self.count, size).astype(np.intp)
        _, first = np.unique(self.cluster, return_index=True)
        return np.bincount(self.stratum[first], minlength=size)

    @property
    def strata_are_map_classes(self) -> bool:
        """Every stratum holds one class of the map, and no other stratum holds it."""
        classes_of = pd.DataFrame(self.mapped > 0).groupby(self.stratum).max().to_numpy()
        return not self.has_shares and bool((classes_of.sum(axis=0) <= 1).all() and (classes_of.sum(axis=1) == 1).all())


def read_tables(
    sample: Any,
    strata: Any,
    classes: Sequence[Hashable] | None,
    share_of: str,
    *,
    finite_population: bool | None = None,
) -> LabelledSample:
    """Check and index the tables of `estimate`, whose arguments these are.

    Raises:
        SampleError: a column is absent, a cell is empty or out of range, or sample and strata do not fit together.
    """
    rows, population = _table(sample, "the sample"), _table(strata, "strata")
    table = _read_strata(population)
    has_shares = set(_SHARES) <= set(rows.columns)
    if not has_shares:
        _refuse_shares(rows, table, share_of)
    _require_columns(rows, ("stratum", *(_SHARES if has_shares else ("map", "reference"))), "the sample")
    if not len(rows):
        raise SampleError("the sample has no rows. Pass one row for each labelled unit, or for each count of units.")
    _require_stratum(rows, "the sample")
    stratum = _stratum_indices(rows["stratum"], table)
    if has_shares:
        if share_of == OTHER:
            raise SampleError(f"share_of is '{OTHER}', the name of the rest. Give the class another name.")
        names: tuple[Hashable, ...] = (share_of, OTHER)
        mapped, reference = (_both(_shares(rows, name)) for name in _SHARES)
    else:
        names = _class_names(rows, table, classes)
        mapped, reference = (_one_hot(rows[name], names) for name in ("map", "reference"))
    count = _numbers(rows, "count", 1.0, at_least=0)
    if (count % 1).any():
        raise SampleError(f"column count of the sample holds {count[count % 1 != 0][0]:g}; expected whole numbers.")
    cluster = _cluster_indices(rows["cluster"], stratum) if "cluster" in rows else None
    labelled = LabelledSample(
        table, names, stratum, mapped, reference, count.astype(np.intp), _numbers(rows, "weight", 1.0),
        _numbers(rows, "area", 1.0), cluster, has_shares,
    )  # fmt: skip
    labelled = replace(labelled, strata=_as_shares(labelled, finite_population=finite_population))
    _require_units(labelled)
    return labelled


def _refuse_shares(rows: pd.DataFrame, strata: Strata, share_of: str) -> None:
    """Raise SampleError if a sample of classes comes with what belongs to one of shares."""
    if _SHARES[1] in rows:
        raise SampleError(
            f"the sample has the column {_SHARES[1]}, but no {_SHARES[0]}. Add the share of the class in the map of "
            "each unit, or drop the column for a sample of classes."
        )
    given = "strata have the column map_share" if strata.map_share is not None else f"share_of is '{share_of}'"
    if strata.map_share is not None or share_of != SHARE_OF:
        raise SampleError(
            f"{given}, but the sample has one class in each unit. Expected its columns {' and '.join(_SHARES)} for the "
            "share of a class. Add them, or leave out what belongs to shares."
        )


def _table(rows: Any, what: str) -> pd.DataFrame:
    try:
        table = pd.DataFrame(rows)
    except (ValueError, TypeError) as error:
        raise SampleError(
            f"{what} is {type(rows).__name__}, which is no table. Expected a DataFrame, a dict of columns or a list of "
            'rows, such as [{"stratum": "forest", "units": 2000}].'
        ) from error
    twice = table.columns[table.columns.duplicated()]
    if len(twice):
        raise SampleError(f"{what} has the column {listed(twice)} twice. Drop one of them.")
    return table


def _require_columns(table: pd.DataFrame, names: Sequence[str], what: str) -> None:
    absent = [name for name in names if name not in table.columns]
    if absent:
        raise SampleError(
            f"{what} has the columns {listed(table.columns, 12) or 'none'}, but not {', '.join(absent)}. Add or rename "
            "them."
        )


def _require_stratum(table: pd.DataFrame, what: str) -> None:
    empty = int(table["stratum"].isna().sum())
    if empty:
        raise SampleError(f"{counted(empty, 'row')} of {what} have no stratum. Name one in each row, or drop the rows.")


def _read_strata(table: pd.DataFrame) -> Strata:
    are_shares = "share" in table and "units" not in table
    size = "share" if are_shares else "units"
    _require_columns(table, ("stratum", size), "strata")
    names = tuple(table["stratum"].tolist())
    _require_stratum(table, "strata")
    twice = table["stratum"][table["stratum"].duplicated()]
    if len(twice):
        raise SampleError(f"strata list '{twice.iloc[0]}' twice. Give each stratum one row.")
    units = _numbers(table, size, 1.0, at_least=0, what="strata")
    if are_shares and not any(abs(units.sum() / whole - 1) <= _SHARE_ROUNDING for whole in _WHOLES):
        raise SampleError(f"column share of the strata sums to {units.sum():g}; expected 1, or 100 for per cent.")
    return Strata(
        names,
        units,
        _numbers(table, "area", 1.0, at_least=0, what="strata") if "area" in table else None,
        _shares(table, "map_share", "strata") if "map_share" in table else None,
        are_shares,
    )


def _as_shares(sample: LabelledSample, *, finite_population: bool | None) -> Strata:
    """The strata, whose units are shares if they sum to 1 or 100.

    Not if the caller wants the correction for a finite population, nor if a sample of all units has these numbers.
    """
    strata, total = sample.strata, float(sample.strata.units.sum())
    in_stratum = np.bincount(sample.stratum, sample.count, len(strata.names))
    if strata.are_shares and finite_population:
        raise SampleError(
            "strata have the column share, which does not say how large the population is, but finite_population is "
            "True. Give the column units, or leave finite_population out."
        )
    is_whole = not (strata.units % 1).any()
    rounding = 0.0 if is_whole else _SHARE_ROUNDING
    sums_to = [whole for whole in _WHOLES if abs(total / whole - 1) <= rounding]
    if strata.are_shares or finite_population or not sums_to or np.array_equal(in_stratum, strata.units):
        return strata
    if is_whole and total > 1:
        log.warning(
            "units of the strata sum to 100: they are taken as per cent of a large population. Pass finite_population="
            "True for a population of 100 units, or name the column share"
        )
    return replace(strata, are_shares=True)


def _numbers(
    table: pd.DataFrame, name: str, default: float, *, at_least: float | None = None, what: str = "the sample"
) -> Floats:
    """A column of finite numbers above 0 (or of at least a number); the default in each row if there is none."""
    if name not in table:
        return np.full(len(table), default)
    column = pd.to_numeric(table[name], errors="coerce").to_numpy(np.float64)
    is_wrong = ~np.isfinite(column) | ((column <= 0) if at_least is None else (column < at_least))
    if is_wrong.any():
        found = table[name].iloc[int(np.flatnonzero(is_wrong)[0])]
        limit = "above 0" if at_least is None else f"of at least {at_least:g}"
        raise SampleError(f"column {name} of {what} holds {_shown(found)}; expected a number {limit} in each row.")
    return column


def _shares(table: pd.DataFrame, name: str, what: str = "the sample") -> Floats:
    column = pd.to_numeric(table[name], errors="coerce").to_numpy(np.float64)
    is_wrong = ~((column >= 0) & (column <= 1))
    if is_wrong.any():
        found = table[name].iloc[int(np.flatnonzero(is_wrong)[0])]
        raise SampleError(f"column {name} of {what} holds {_shown(found)}; expected a share from 0 to 1 in each row.")
    return column


def _shown(cell: Any) -> str:
    return repr(cell) if isinstance(cell, str) else str(cell)


def _both(share: Floats) -> Floats:
    return np.stack([share, 1 - share], axis=1)


def _stratum_indices(column: pd.Series, strata: Strata) -> Indices:
    index_of = {name: index for index, name in enumerate(strata.names)}
    absent = [name for name in dict.fromkeys(column.tolist()) if name not in index_of]
    _require_one_type([*absent, *strata.names], "the stratum")
    if absent:
        raise SampleError(
            f"the sample has units in stratum {listed(absent)}, but the strata are {listed(strata.names, 12)}. Add the "
            "stratum with its number of units."
        )
    return np.array([index_of[name] for name in column.tolist()], np.intp)


def _require_one_type(names: Sequence[Hashable], what: str) -> None:
    """Raise SampleError for names with the same text, such as 1 and "1": they would count as two."""
    of_text: dict[str, Hashable] = {}
    for name in names:
        twin = of_text.setdefault(str(name), name)
        if twin is not name and twin != name:
            raise SampleError(
                f"{what} {name} is text in some columns and a number in others. Expected one type. Convert them, such "
                "as with astype(str)."
            )


def _class_names(rows: pd.DataFrame, strata: Strata, classes: Sequence[Hashable] | None) -> tuple[Hashable, ...]:
    for name in ("map", "reference"):
        empty = int((rows[name].isna() | (rows[name] == "")).sum())
        if empty:
            raise SampleError(
                f"{empty} of {counted(len(rows), 'row')} of the sample have no class in column {name}. Label them, or "
                "drop the rows."
            )
    occurring = list(dict.fromkeys([*rows["map"].tolist(), *rows["reference"].tolist()]))
    _require_one_type([*occurring, *([] if classes is None else classes)], "class")
    if classes is None:
        first = [name for name in strata.names if name in occurring]
        return (*first, *sorted((name for name in occurring if name not in first), key=str))
    if len(set(classes)) < len(classes):
        raise SampleError(f"classes are {listed(classes, 12)}. Expected each class once.")
    unknown = [name for name in occurring if name not in classes]
    if unknown:
        raise SampleError(
            f"the sample has the class {listed(unknown)}, but the classes are {listed(classes, 12)}. Correct the names."
        )
    return tuple(classes)


def _one_hot(column: pd.Series, names: tuple[Hashable, ...]) -> Floats:
    index_of = {name: index for index, name in enumerate(names)}
    return np.eye(len(names))[column.map(index_of).to_numpy(np.intp)]


def _cluster_indices(column: pd.Series, stratum: Indices) -> Indices:
    if column.isna().any():
        raise SampleError(f"{int(column.isna().sum())} rows of the sample have no cluster. Name one in each row.")
    indices, names = pd.factorize(column)
    strata_of = pd.Series(stratum).groupby(indices).nunique()
    if (strata_of > 1).any():
        split = int(strata_of.to_numpy().argmax())
        raise SampleError(
            f"cluster '{names[split]}' lies in {strata_of.iloc[split]} strata; expected one stratum for each cluster. "
            "Number clusters anew in each stratum, or pass one stratum."
        )
    return indices.astype(np.intp)


def _require_units(sample: LabelledSample) -> None:
    """Refuse strata of the population without units of the sample, and more units than the population has."""
    strata, drawn = sample.strata, sample.drawn
    empty = [name for name, units, n in zip(strata.names, strata.units, drawn, strict=True) if units > 0 and not n]
    if empty:
        raise SampleError(
            f"the sample has no unit in stratum {listed(empty)}: nothing is known about it. Label units there, or join "
            "it with another stratum."
        )
    if not strata.units.sum() > 0:
        raise SampleError("strata have 0 units together. Expected the number of units of each stratum in the map.")
    in_stratum = np.bincount(sample.stratum, sample.count, len(strata.names))
    if strata.are_shares:
        return
    for name, units, n in zip(strata.names, strata.units, in_stratum, strict=True):
        if n > units:
            raise SampleError(
                f"stratum '{name}' has {units:g} units, but {n:.0f} of them are in the sample. Correct column units of "
                "the strata; if it holds shares of the population, name it share."
            )
