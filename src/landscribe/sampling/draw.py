"""Draw: the random choice of sampling units by a plan. The same seed gives the same units, whatever the strips."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from landscribe import progress
from landscribe.errors import SampleError, counted
from landscribe.estimation.designs.design import ALL, Clusters, Design, SampledMap, Stratum
from landscribe.estimation.designs.hashes import column_hash
from landscribe.estimation.reference_sample import REFERENCE, ReferenceSample
from landscribe.geo.access import bounded_block_cache
from landscribe.geo.grid import Window
from landscribe.sampling.frame import BUFFER, CODES, OUTSIDE, UnitRows
from landscribe.sampling.plan import SamplePlan

_ORDER = CODES
"""Random stream of the order of the units; those of strata have the strata's codes."""
_FIRST_SQUARE = CODES + 1
"""Random stream of the pixels in the first square; the squares after it follow."""

Ranks = NDArray[np.int64]


@dataclass(frozen=True)
class _Drawn:
    """Units of one row of the lattice that were drawn, or of one square."""

    row: NDArray[np.int64]
    """In the lattice of units."""
    col: NDArray[np.int64]
    strata: NDArray[np.uint16]
    values: NDArray[np.uint8]
    areas: NDArray[np.float64]
    probability: float | NDArray[np.float64]
    cluster: int = 0
    cluster_units: int = 0


def draw_sample(plan: SamplePlan) -> ReferenceSample:
    """Draw the units of a plan.

    Memory depends on the width of the map and on the size of the sample.

    Raises:
        SampleError: a cluster design asks for more squares than the map has, or no unit lies on a systematic lattice.
    """
    if plan.spec.design == "cluster":
        clusters, drawn = _clusters(plan)
    else:
        clusters, drawn = None, list(_systematic(plan) if plan.spec.design == "systematic" else _by_chance(plan))
    units = _table(plan, drawn)
    return ReferenceSample(units, _design(plan, units, clusters))


def _stream(plan: SamplePlan, stream: int) -> np.random.Generator:
    return np.random.default_rng([plan.spec.seed, stream])


def _choice(plan: SamplePlan, stream: int, population: int, size: int) -> Ranks:
    """Ranks of a simple random sample without replacement, ascending.

    Memory is in proportion to the sample: numpy lists the population only if the sample is a large part of it.
    """
    ranks = _stream(plan, stream).choice(population, size, replace=False, shuffle=False)
    return np.sort(ranks).astype(np.int64)


def _located(by_row: NDArray[np.integer], ranks: Ranks) -> tuple[Ranks, Ranks]:
    """Row of each rank, and its rank within the row; units are ranked row by row.

    >>> _located(np.array([2, 0, 3]), np.array([1, 2, 4]))
    (array([0, 2, 2]), array([1, 0, 2]))
    """
    ends = np.cumsum(by_row, dtype=np.int64)
    rows = np.searchsorted(ends, ranks, side="right")
    return rows, ranks - (ends[rows] - by_row[rows])


def _by_chance(plan: SamplePlan) -> Iterator[_Drawn]:
    """Simple random samples: of all units, or of each stratum."""
    counts, requests = plan.counts, defaultdict[int, list[tuple[int, Ranks, float]]](list)
    parts: list[tuple[int, NDArray[np.integer], int, int]]
    if plan.spec.design == "simple":
        parts = [(OUTSIDE, counts.units_by_row, int(counts.units_by_row.sum()), plan.size)]
    else:
        parts = [(each.code, counts.by_row[:, each.code], each.units, round(each.size)) for each in plan.strata]
    for code, by_row, population, size in parts:
        if not size:
            continue
        rows, within = _located(by_row, _choice(plan, code, population, size))
        drawn_rows, starts = np.unique(rows, return_index=True)
        for row, ranks in zip(drawn_rows.tolist(), np.split(within, starts[1:]), strict=True):
            requests[row].append((code, ranks, size / population))
    with progress.task(f"sample of {plan.mapped.raster.name}", len(requests)) as advance, bounded_block_cache():
        for first, own_rows in groupby(sorted(requests), lambda row: row // plan.frame.band * plan.frame.band):
            units = plan.frame.read_rows(first, plan.frame.band)
            for row in own_rows:
                own = units.row(row - first)
                for code, within, probability in requests[row]:
                    is_member = own.strata != OUTSIDE if code == OUTSIDE else own.strata == code
                    yield _of_row(own, row, np.flatnonzero(is_member)[within], probability)
                advance()


def _of_row(units: UnitRows, row: int, cols: Ranks, probability: float) -> _Drawn:
    rows = np.full(len(cols), row)
    return _Drawn(rows, cols, units.strata[cols], units.values[cols], units.areas[cols], probability)


def _systematic(plan: SamplePlan) -> Iterator[_Drawn]:
    """Units under the points of a square lattice with a random start; its spacing gives the expected size.

    Each unit contains a point with the same probability, 1 / spacing².
    """
    population = int(plan.counts.units_by_row.sum())
    spacing = float(np.sqrt(population / plan.size))
    start = _stream(plan, 0).uniform(0, spacing, 2)
    rows, cols = (
        np.arange(first, length, spacing).astype(np.int64)
        for first, length in zip(start, plan.frame.shape, strict=True)
    )
    with progress.task(f"sample of {plan.mapped.raster.name}", len(rows)) as advance, bounded_block_cache():
        for row in rows.tolist():
            if plan.counts.units_by_row[row]:
                units = plan.frame.read_rows(row).row(0)
                yield _of_row(units, row, cols[units.strata[cols] != OUTSIDE], 1 / spacing**2)
            advance()


def _clusters(plan: SamplePlan) -> tuple[Clusters, list[_Drawn]]:
    """Squares by simple random sampling, and pixels by simple random sampling in each."""
    side, size, per_cluster = plan.spec.cluster_size, plan.spec.clusters, plan.spec.per_cluster
    assert side is not None
    assert size is not None
    assert per_cluster is not None
    occupied = plan.frame.occupied_squares(side)
    by_row = occupied.sum(axis=1)
    count = int(by_row.sum())
    if size > count:
        raise SampleError(
            f"clusters is {size}, but the map has {counted(count, 'square')} of {side} pixels with a class. Lower "
            "clusters, or cluster_size."
        )
    rows, within = _located(by_row, _choice(plan, 0, count, size))
    drawn = []
    for number, (row, rank) in enumerate(zip(rows.tolist(), within.tolist(), strict=True)):
        col = int(np.flatnonzero(occupied[row])[rank])
        window = Window(row * side, col * side, side, side) & plan.frame.mapped.grid.window
        units = plan.frame.read(window)
        inside = np.flatnonzero(units.strata != OUTSIDE)
        chosen = inside[_choice(plan, _FIRST_SQUARE + number, len(inside), min(per_cluster, len(inside)))]
        at = np.unravel_index(chosen, window.shape)
        probability = size / count * len(chosen) / len(inside)
        drawn.append(
            _Drawn(
                at[0] + window.row, at[1] + window.col, units.strata[at], units.values[at], units.areas[at],
                probability, number + 1, len(inside),
            )
        )  # fmt: skip
    return Clusters(side, count, size), drawn


def _table(plan: SamplePlan, drawn: list[_Drawn]) -> pd.DataFrame:
    """The units in a random order, which says nothing about their strata."""
    lengths = [len(part.row) for part in drawn]
    if not sum(lengths):
        raise SampleError("no unit of the map lies on the lattice of the sample. Raise the size, or change the seed.")
    row, col, strata, values, areas = (
        np.concatenate([getattr(part, name) for part in drawn]) for name in ("row", "col", "strata", "values", "areas")
    )
    probability, cluster, cluster_units = (
        np.repeat([getattr(part, name) for part in drawn], lengths)
        for name in ("probability", "cluster", "cluster_units")
    )
    side = plan.frame.side
    a, b, left, d, e, top = plan.frame.mapped.grid.transform[:6]
    down, across = (row + 0.5) * side, (col + 0.5) * side
    stratum_names = {stratum.code: stratum.name for stratum in plan.strata}
    class_names = {entry.value: entry.name for entry in plan.classes}
    is_stratified = plan.spec.design == "stratified"
    columns: dict[str, Any] = {REFERENCE: np.full(len(row), "", object)}
    if plan.spec.design == "cluster":
        columns |= {"cluster": cluster, "cluster_units": cluster_units}
    columns |= {
        "x": a * across + b * down + left, "y": d * across + e * down + top,
        "row": row * side, "col": col * side, "side": np.full(len(row), side), "area_m2": areas,
        "probability": probability,
        "stratum": np.array([stratum_names[code] if is_stratified else ALL for code in strata.tolist()], object),
        "map": np.array([class_names[value] for value in values.tolist()], object),
    }  # fmt: skip
    table = pd.DataFrame(columns).sort_values(["row", "col"], ignore_index=True)
    shuffled = table.iloc[_stream(plan, _ORDER).permutation(len(table))].reset_index(drop=True)
    shuffled.insert(0, "id", np.arange(1, len(table) + 1))
    return shuffled


def _design(plan: SamplePlan, units: pd.DataFrame, clusters: Clusters | None) -> Design:
    spec, counts, raster = plan.spec, plan.counts, plan.mapped.raster
    drawn = units["stratum"].value_counts().to_dict()
    allocation: str
    if spec.design == "stratified":
        strata = tuple(
            Stratum(
                each.name, None if each.code == BUFFER else each.code, each.units, each.area_m2, drawn.get(each.name, 0)
            )
            for each in plan.strata
        )
        allocation = "given" if isinstance(spec.allocation, dict) else spec.allocation
    else:
        area = sum(entry.area_m2 for entry in plan.classes)
        strata, allocation = (Stratum(ALL, None, int(counts.units_by_row.sum()), area, len(units)),), ""
    grid = raster.grid
    return Design(
        kind=spec.kind, seed=spec.seed, allocation=allocation, unit=spec.unit, strata=strata, classes=plan.classes,
        map=SampledMap(
            Path(raster.paths[0]).name, grid.crs.to_wkt() if grid.crs else None, tuple(grid.transform)[:6], grid.shape,
            counts.sha256, plan.mapped.run,
        ),
        version=version("landscribe"), clusters=clusters,
        strata_file=None if spec.strata is None else Path(spec.strata).name,
        area_file=None if spec.area is None else Path(spec.area).name, buffer_m=spec.buffer,
        columns_sha256={name: column_hash(units, name) for name in map(str, units) if name not in ("id", REFERENCE)},
    )  # fmt: skip
