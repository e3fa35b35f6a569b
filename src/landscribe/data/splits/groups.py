"""Lots: chips that are held out together, and the draw that decides which of them are."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Split = Literal["train", "val", "test", "gap"]
SPLITS = np.array(["train", "val", "test", "gap"])

_DRAWS = 200


@dataclass(frozen=True)
class Lots:
    """Chips in lots, each of which goes to one split whole."""

    counts: NDArray[np.int64]
    """(chips, classes) labelled pixels."""
    members: NDArray[np.intp]
    """(n, 2) a chip and a lot that it lies in; a chip may lie in several, or in none."""
    near: NDArray[np.intp]
    """(n, 2) chips too near to each other to be in two splits; each pair in both orders."""
    told: NDArray[np.str_]
    """(lots,) the split of a lot, "" where chance decides."""

    @cached_property
    def held(self) -> NDArray[np.bool_]:
        """(lots, classes) True where a lot holds a class."""
        held = np.zeros((len(self.told), self.counts.shape[1]), bool)
        np.logical_or.at(held, self.members[:, 1], self.counts[self.members[:, 0]] > 0)
        return held

    @cached_property
    def learnable(self) -> NDArray[np.bool_]:
        """(classes,) True for those that would be trained on if nothing more were held out."""
        return self.counts[self.names(self.nothing_more()) == "train"].sum(axis=0) > 0

    def nothing_more(self) -> NDArray[np.str_]:
        """(lots,) splits where all that chance could decide is trained on."""
        return np.where(self.told == "", "train", self.told)

    def names(self, splits: NDArray[np.str_]) -> NDArray[np.str_]:
        """The split of each chip, from that of each lot: "gap" where it lies in two, in none, or too near to another.

        A chip gives way to a held-out one; between two held-out splits, val gives way.
        """
        lies_in = np.zeros((len(self.counts), 3), bool)
        number_of = {str(name): number for number, name in enumerate(SPLITS[:3])}
        of_lot = np.array([number_of[name] for name in splits.tolist()], np.intp)
        lies_in[self.members[:, 0], of_lot[self.members[:, 1]]] = True
        # -1, the last of SPLITS, gives way to all and nothing gives way to it.
        ranks = np.where(lies_in.sum(axis=1) == 1, lies_in.argmax(axis=1), -1)
        names = SPLITS[ranks]
        gives_way = ranks[self.near[:, 0]] < ranks[self.near[:, 1]]
        names[self.near[gives_way, 0]] = "gap"
        return names


def one_lot_each(lot_of: NDArray[np.intp]) -> NDArray[np.intp]:
    """Members where each chip lies in one lot."""
    return np.column_stack([np.arange(len(lot_of)), lot_of])


def hold_out(lots: Lots, val: float, test: float, rng: np.random.Generator, *, least: float = 0.0) -> list[Split]:
    """Hold out random lots for the splits "val" and "test".

    Of many draws, the one is kept that leaves no class out of what is trained on, leaves a class out of another split
    least often, loses the fewest chips to the gap, and comes closest to the wanted shares and to the class shares of
    all. Where no draw leaves enough chips, and every class, to train on, only val is held out, or nothing more.

    Args:
        lots: what is drawn.
        val: wanted share of the lots.
        test: likewise.
        rng: what chance is drawn from.
        least: share of the chips that should be left to train on.

    Returns:
        A split for each chip. Law: a class that could be learned if nothing were drawn can be learned.
    """
    for wanted in ({"val": val, "test": test}, {"val": val}):
        shares = {name: share for name, share in wanted.items() if share > 0}
        if shares and _room(lots.told) > 0:
            draws = (lots.names(_draw(shares, lots, rng)) for _ in range(_DRAWS))
            names = min(draws, key=lambda names: _cost(names, shares, lots, least))
            enough = (names == "train").mean() >= least
            if enough and shares.keys() <= set(names.tolist()) and not _lost(names, "train", lots):
                return names.tolist()
    return lots.names(lots.nothing_more()).tolist()


def _room(told: NDArray[np.str_]) -> int:
    """How many lots may be held out: one is always left to train on."""
    return int((told == "").sum()) - int("train" not in told)


def _draw(shares: dict[str, float], lots: Lots, rng: np.random.Generator) -> NDArray[np.str_]:
    """The split of each lot: random ones are held out, those without which a class could not be learned last."""
    splits = lots.told.copy()
    free = np.flatnonzero(splits == "")
    order = free[rng.permutation(len(free))]
    # Of all lots with a class, the one that is last in the order would be the last to be left to train on.
    missing = ~lots.held[lots.told == "train"].any(axis=0) & lots.held[order].any(axis=0)
    needed = np.zeros(len(order), bool)
    needed[len(order) - 1 - lots.held[order][::-1, missing].argmax(axis=0)] = True
    order = np.concatenate([order[~needed], order[needed]])
    taken = 0
    for name, count in _numbers_held_out(shares, lots.told, int((~needed).sum())).items():
        splits[order[taken : taken + count]] = name
        taken += count
    splits[order[taken:]] = "train"
    return splits


def _numbers_held_out(shares: dict[str, float], told: NDArray[np.str_], spare: int) -> dict[str, int]:
    """How many lots go to each split: by their shares, at least one, and no more than can be spared if that will do."""
    room, numbers = _room(told), {}
    for name, share in shares.items():
        already = int((told == name).sum())
        numbers[name] = min(max(int(already == 0), round(share * len(told)) - already), room)
        room -= numbers[name]
    while sum(numbers.values()) > spare and max(numbers.values()) > 1:
        numbers[max(numbers, key=lambda name: numbers[name])] -= 1
    return numbers


def _lost(names: NDArray[np.str_], name: str, lots: Lots) -> int:
    """How many classes that could be learned a split has no chip of."""
    return int((lots.learnable & (lots.counts[names == name].sum(axis=0) == 0)).sum())


def _cost(names: NDArray[np.str_], wanted: dict[str, float], lots: Lots, least: float) -> tuple[float, ...]:
    """What a draw is judged by, gravest first; `least` is the share of chips that should be left to train on."""
    too_few = (names == "train").mean() < least
    not_assessed = sum(_lost(names, name, lots) for name in wanted)
    off = sum(abs(float((names == name).mean()) - share) for name, share in wanted.items())
    shares = _shares(lots.counts)
    unlike = sum(float(np.abs(_shares(lots.counts[names == name]) - shares).sum()) / 2 for name in wanted)
    # A chip lost to the gap weighs as much as one that is missing from a held-out share, or one of a class that
    # the held-out split has too many of.
    gap = float((names == "gap").mean())
    return float(_lost(names, "train", lots)), float(too_few), float(not_assessed), gap + off + unlike


def _shares(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of each class; all 0 if nothing is labelled."""
    return counts.sum(axis=0) / max(1, counts.sum())
