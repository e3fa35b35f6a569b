"""Coverage of confidence intervals: how often the truth lies in them, over repeated samples of a known population.

    python benchmarks/coverage.py [--samples 2000] [--designs NAME ...]

A population of 120 000 units is drawn: truth, a map with errors, strata that are no map classes, and unit areas that
differ. Each design draws samples anew and estimates from them. Prints a table in Markdown: for each measure, the share
of the intervals that hold the truth, over samples and classes.
"""

import argparse
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any

import numpy as np
import pandas as pd

from landscribe.estimation.estimate import Estimate, estimate

CLASSES = ("forest", "field", "water")
MEASURES = ("overall", "users", "producers", "areas")
_SIDE = 20
"""Clusters are squares of this many units."""


@dataclass(frozen=True, eq=False)
class Ground:
    """A population of units in a square."""

    units: pd.DataFrame
    """Columns map, reference, zone (a stratum), area, block (a cluster), map_share, reference_share."""

    @classmethod
    @cache
    def draw(cls, rows: int = 300, cols: int = 400, seed: int = 0) -> "Ground":
        """Draw smooth truth in three classes, a map with errors at random units and at edges, and unit areas by row."""
        rng = np.random.default_rng(seed)
        truth = np.digitize(_smooth(rng, rows, cols, 12), [0.35, 1.3])
        shifted = np.where(rng.random((rows, cols)) < 0.12, rng.integers(0, 3, (rows, cols)), truth)
        mapped = np.where(_smooth(rng, rows, cols, 8) > 1.6, 0, shifted)
        row, col = np.indices((rows, cols))
        share = np.clip(rng.normal(0.3 + 0.4 * (truth == 0), 0.15), 0, 1)
        table = pd.DataFrame(
            {
                "map": np.array(CLASSES)[mapped.ravel()],
                "reference": np.array(CLASSES)[truth.ravel()],
                "zone": np.array(["north", "middle", "south"])[(row * 3 // rows).ravel()],
                "area": (0.5 + row / rows).ravel(),
                "block": (row // _SIDE * (cols // _SIDE) + col // _SIDE).ravel(),
                "reference_share": share.ravel(),
                "map_share": np.clip(share + rng.normal(0.03, 0.08, share.shape), 0, 1).ravel(),
            }
        )
        return cls(table)

    @cached_property
    def rows(self) -> dict[str, dict[Any, np.ndarray]]:
        """Row numbers of the units of each map class, zone and block."""
        return {column: dict(sorted(self.units.groupby(column).indices.items())) for column in ("map", "zone", "block")}

    @cache  # noqa: B019  a ground lives as long as the program
    def strata(self, column: str, *, has_area: bool = False) -> pd.DataFrame:
        """The table of strata that a column names."""
        rows, areas = self.rows[column], self.units["area"].to_numpy()
        table = pd.DataFrame({"stratum": list(rows), "units": [len(own) for own in rows.values()]})
        return table.assign(area=[areas[own].sum() for own in rows.values()]) if has_area else table


def _smooth(rng: np.random.Generator, rows: int, cols: int, step: int) -> np.ndarray:
    coarse = rng.normal(size=(rows // step + 2, cols // step + 2))
    return np.kron(coarse, np.ones((step, step)))[:rows, :cols] + rng.normal(scale=0.3, size=(rows, cols))


def _drawn(ground: Ground, column: str, sizes: dict[Any, int], rng: np.random.Generator) -> pd.DataFrame:
    """Units drawn at random in each of these strata, which a column names."""
    parts = [
        rows[rng.choice(len(rows), sizes[name], replace=False)]
        for name, rows in ground.rows[column].items()
        if name in sizes
    ]
    return ground.units.iloc[np.concatenate(parts)].assign(stratum=lambda table: table[column])


def simple(ground: Ground, rng: np.random.Generator, size: int = 500) -> Estimate:
    """Simple random sample."""
    sample = ground.units.iloc[rng.choice(len(ground.units), size, replace=False)].drop(columns="area")
    return _of_classes(sample.assign(stratum="all"), pd.DataFrame({"stratum": ["all"], "units": [len(ground.units)]}))


def post_stratified(ground: Ground, rng: np.random.Generator, size: int = 500) -> Estimate:
    """Simple random sample, estimated by class of the map."""
    sample = ground.units.iloc[rng.choice(len(ground.units), size, replace=False)].drop(columns="area")
    return _of_classes(sample.assign(stratum=sample["map"]), ground.strata("map"))


def stratified(ground: Ground, rng: np.random.Generator, each: int = 150) -> Estimate:
    """Stratified by class of the map, equal allocation."""
    sample = _drawn(ground, "map", dict.fromkeys(CLASSES, each), rng).drop(columns="area")
    return _of_classes(sample, ground.strata("map"))


def other_strata(ground: Ground, rng: np.random.Generator) -> Estimate:
    """Stratified by zones that are no map classes, unequal allocation."""
    sizes = {"north": 100, "middle": 150, "south": 250}
    return _of_classes(_drawn(ground, "zone", sizes, rng).drop(columns="area"), ground.strata("zone"))


def systematic(ground: Ground, rng: np.random.Generator, step: int = 15) -> Estimate:
    """Every 15th row and column from a random start, estimated by class of the map as if simple random."""
    row, col = np.indices((300, 400))
    start = rng.integers(0, step, 2)
    chosen = ((row % step == start[0]) & (col % step == start[1])).ravel()
    sample = ground.units[chosen].drop(columns="area")
    return _of_classes(sample.assign(stratum=sample["map"]), ground.strata("map"))


def clusters(ground: Ground, rng: np.random.Generator, count: int = 40, each: int = 12) -> Estimate:
    """Two stages: blocks of 20 x 20 units, then units in each."""
    blocks = rng.choice(ground.units["block"].nunique(), count, replace=False)
    drawn = _drawn(ground, "block", dict.fromkeys(blocks.tolist(), each), rng)
    sample = drawn.drop(columns="area").assign(stratum="all", cluster=drawn["block"])
    return _of_classes(sample, pd.DataFrame({"stratum": ["all"], "units": [len(ground.units)]}))


def unequal_areas(ground: Ground, rng: np.random.Generator, each: int = 150) -> Estimate:
    """Stratified by class of the map, units of unequal area."""
    sample = _drawn(ground, "map", dict.fromkeys(CLASSES, each), rng)
    return _of_classes(sample, ground.strata("map", has_area=True))


def shares(ground: Ground, rng: np.random.Generator, size: int = 150) -> Estimate:
    """Simple random sample of units with shares of a class."""
    return _of_shares(ground, rng, size, {})


def regression(ground: Ground, rng: np.random.Generator, size: int = 150) -> Estimate:
    """The same with the map as covariate."""
    return _of_shares(ground, rng, size, {"map_share": [ground.units["map_share"].mean()]})


def _of_shares(ground: Ground, rng: np.random.Generator, size: int, known: dict[str, list[float]]) -> Estimate:
    sample = ground.units.iloc[rng.choice(len(ground.units), size, replace=False)].drop(columns="area")
    population = pd.DataFrame({"stratum": ["all"], "units": [len(ground.units)], **known})
    return estimate(sample.assign(stratum="all"), population)


def _of_classes(sample: pd.DataFrame, strata: pd.DataFrame) -> Estimate:
    return estimate(sample.drop(columns=["map_share", "reference_share"]), strata, classes=CLASSES)


DESIGNS: dict[str, Callable[[Ground, np.random.Generator], Estimate]] = {
    "simple random, 500": simple,
    "simple random, 500, post-stratified": post_stratified,
    "stratified by map class, 3 x 150": stratified,
    "stratified by map class, 3 x 300": partial(stratified, each=300),
    "stratified by zones, 500": other_strata,
    "systematic, about 533, post-stratified": systematic,
    "clusters, 40 x 12 of 400": clusters,
    "units of unequal area, 3 x 150": unequal_areas,
    "units of unequal area, 3 x 300": partial(unequal_areas, each=300),
    "shares, 150": shares,
    "shares, 150, regression": regression,
}


def truth_of(ground: Ground, design: str) -> Estimate:
    """The measures of the whole population, as an estimate from all of its units."""
    strata: dict[str, Any] = {"stratum": ["all"], "units": [len(ground.units)]}
    if "share" in design:
        return estimate(ground.units[["map_share", "reference_share"]].assign(stratum="all"), strata)
    columns = ["map", "reference"]
    if "area" in design:
        columns, strata["area"] = [*columns, "area"], [ground.units["area"].sum()]
    # Rows of equal units with their count: the same estimate in a tenth of the time.
    rows = ground.units.groupby(columns).size().rename("count").reset_index()
    return estimate(rows.assign(stratum="all"), strata, classes=CLASSES)


def covered(result: Estimate, truth: Estimate) -> Iterator[tuple[str, bool]]:
    """Whether each interval holds the truth, by measure."""
    yield "overall", result.overall.lower <= truth.overall.value <= result.overall.upper
    for measure in MEASURES[1:]:
        for name, each in getattr(result, measure).items():
            if each.units:
                yield measure, each.lower <= getattr(truth, measure)[name].value <= each.upper


def coverage(design: str, samples: int, seed: int = 0) -> dict[str, float]:
    """Share of intervals that hold the truth, by measure."""
    ground, rng = Ground.draw(), np.random.default_rng(seed)
    results = [DESIGNS[design](ground, rng) for _ in range(samples)]
    truth = truth_of(ground, design)
    hits = pd.DataFrame([pair for result in results for pair in covered(result, truth)], columns=["measure", "hit"])
    return hits.groupby("measure")["hit"].mean().to_dict()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--designs", nargs="+", default=list(DESIGNS), choices=DESIGNS)
    given = parser.parse_args()
    print(f"{given.samples} samples of each design, intervals of 95 %\n")
    print("| design | overall accuracy | user's | producer's | areas |\n|---|---|---|---|---|")
    with ProcessPoolExecutor(2, initializer=logging.disable) as pool:
        for design, shares in zip(
            given.designs, pool.map(partial(coverage, samples=given.samples), given.designs), strict=True
        ):
            print(f"| {design} | " + " | ".join(f"{shares[name]:.1%}" for name in MEASURES) + " |", flush=True)


if __name__ == "__main__":
    main()
