"""Groups: chips that go to one split together, and the random draw that assigns a split to each group."""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Split = Literal["train", "val", "test", "gap"]
SPLITS = np.array(["train", "val", "test", "gap"])

_DRAWS = 200


@dataclass(frozen=True)
class Groups:
    """Chips in groups; all chips of a group go to the same split."""

    counts: NDArray[np.int64]
    """(chips, classes) labelled pixels."""
    members: NDArray[np.intp]
    """(n, 2) chip index and group index; a chip may be in several groups, or in none."""
    near: NDArray[np.intp]
    """(n, 2) indices of chips too near to each other to be in two splits; each pair in both orders."""
    predefined: NDArray[np.str_]
    """(groups,) the split of a group, "" if it is drawn."""

    @cached_property
    def has_class(self) -> NDArray[np.bool_]:
        """(groups, classes) True where a group has pixels of a class."""
        has_class = np.zeros((len(self.predefined), self.counts.shape[1]), bool)
        np.logical_or.at(has_class, self.members[:, 1], self.counts[self.members[:, 0]] > 0)
        return has_class

    @cached_property
    def learnable(self) -> NDArray[np.bool_]:
        """(classes,) True for classes that train has if no drawn group is held out."""
        return self.counts[self.chip_splits(self.all_to_train()) == "train"].sum(axis=0) > 0

    @cached_property
    def class_shares(self) -> NDArray[np.float64]:
        """(classes,) share of each class in the labelled pixels of all chips."""
        return _class_shares(self.counts.sum(axis=0))

    @cached_property
    def drawn(self) -> NDArray[np.intp]:
        """Indices of the groups whose split is drawn."""
        return np.flatnonzero(self.predefined == "")

    @cached_property
    def predefined_counts(self) -> Counter[str]:
        """How many groups each split has before the draw; "" counts those that are drawn."""
        return Counter(self.predefined.tolist())

    @cached_property
    def drawn_classes(self) -> NDArray[np.bool_]:
        """(classes,) True for classes that train has only by a group that is drawn."""
        in_train = self.has_class[self.predefined == "train"].any(axis=0)
        return ~in_train & self.has_class[self.drawn].any(axis=0)

    def all_to_train(self) -> NDArray[np.str_]:
        """(groups,) splits if every group that is not predefined goes to train."""
        return np.where(self.predefined == "", "train", self.predefined)

    def chip_splits(self, group_splits: NDArray[np.str_]) -> NDArray[np.str_]:
        """The split of each chip, from that of each group.

        A chip is "gap" (not used) if its groups are of two splits, if it is in no group, or if it is too near to a chip
        of a split with precedence: test before val before train.
        """
        in_split = np.zeros((len(self.counts), 3), bool)
        rank_of = {str(name): rank for rank, name in enumerate(SPLITS[:3])}
        group_ranks = np.array([rank_of[name] for name in group_splits.tolist()], np.intp)
        in_split[self.members[:, 0], group_ranks[self.members[:, 1]]] = True
        # -1 indexes the last of SPLITS, "gap", and no rank is below it.
        ranks = np.where(in_split.sum(axis=1) == 1, in_split.argmax(axis=1), -1).astype(np.int8)
        first, second = self._near_of_other_groups
        too_near = np.zeros(len(ranks), bool)
        too_near[first[ranks[first] < ranks[second]]] = True
        ranks[too_near] = -1
        return SPLITS[ranks]

    @cached_property
    def _near_of_other_groups(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """First and second chips of `near`, without the pairs of one group, which is always of one split.

        Of dense chips, these are most pairs.
        """
        chips, of_member = self.members.T
        group, is_alone = np.full(len(self.counts), -1, np.intp), np.bincount(chips, minlength=len(self.counts)) == 1
        group[chips] = of_member
        first, second = self.near.T
        differs = ~(is_alone[first] & is_alone[second] & (group[first] == group[second]))
        return first[differs], second[differs]


def single_membership(group_index: NDArray[np.intp]) -> NDArray[np.intp]:
    """(chips, 2) `Groups.members` where each chip is in exactly one group."""
    return np.column_stack([np.arange(len(group_index)), group_index])


def assign_splits(
    groups: Groups, val: float, test: float, rng: np.random.Generator, *, min_train: float = 0.0
) -> list[Split]:
    """Hold out random groups for the splits "val" and "test".

    The best of many draws is kept. In this order, it loses no class from train, leaves enough chips in train, misses
    the fewest classes in val and test, and loses few chips to the gap while chip and class shares are close to the
    requested ones. If no draw leaves enough chips and every class in train, only val is held out, or nothing.

    Args:
        groups: the groups to draw from.
        val: requested fraction of the groups.
        test: requested fraction of the groups.
        rng: source of randomness.
        min_train: fraction of the chips that must stay in train.

    Returns:
        A split for each chip. Law: train has every class that it has if nothing is held out.
    """
    for requested in ({"val": val, "test": test}, {"val": val}):
        fractions = {name: fraction for name, fraction in requested.items() if fraction > 0}
        if fractions and _most_held_out(groups) > 0:
            draws = (groups.chip_splits(_draw(fractions, groups, rng)) for _ in range(_DRAWS))
            splits = min(draws, key=lambda splits: _cost(splits, fractions, groups, min_train))
            in_train = splits == "train"
            is_complete = not _missing_classes(groups.counts[in_train].sum(axis=0), groups)
            if in_train.mean() >= min_train and fractions.keys() <= set(splits.tolist()) and is_complete:
                return splits.tolist()
    return groups.chip_splits(groups.all_to_train()).tolist()


def _most_held_out(groups: Groups) -> int:
    """How many groups may be held out: one always stays in train."""
    return groups.predefined_counts[""] - int(not groups.predefined_counts["train"])


def _draw(fractions: dict[str, float], groups: Groups, rng: np.random.Generator) -> NDArray[np.str_]:
    """A random split for each group; groups that train needs for one of its classes are held out last."""
    splits = groups.predefined.copy()
    order = groups.drawn[rng.permutation(len(groups.drawn))]
    # Of the groups with a class that no predefined train group has, the last one in the order is needed for train.
    needed = np.zeros(len(order), bool)
    needed[len(order) - 1 - groups.has_class[order][::-1, groups.drawn_classes].argmax(axis=0)] = True
    order = np.concatenate([order[~needed], order[needed]])
    start = 0
    for name, count in _held_out_counts(fractions, groups, int((~needed).sum())).items():
        splits[order[start : start + count]] = name
        start += count
    splits[order[start:]] = "train"
    return splits


def _held_out_counts(fractions: dict[str, float], groups: Groups, spare: int) -> dict[str, int]:
    """How many groups to draw for each split: its fraction, but at least one.

    Counts above one are lowered until train keeps the groups that it needs, which `spare` leaves out.
    """
    available, counts = _most_held_out(groups), {}
    for name, fraction in fractions.items():
        existing = groups.predefined_counts[name]
        counts[name] = min(max(int(existing == 0), round(fraction * len(groups.predefined)) - existing), available)
        available -= counts[name]
    while sum(counts.values()) > spare and max(counts.values()) > 1:
        counts[max(counts, key=lambda name: counts[name])] -= 1
    return counts


def _missing_classes(pixels: NDArray[np.int64], groups: Groups) -> int:
    """How many learnable classes have no pixel in a split, by the pixels (classes,) of the split."""
    return int((groups.learnable & (pixels == 0)).sum())


def _cost(splits: NDArray[np.str_], fractions: dict[str, float], groups: Groups, min_train: float) -> tuple[float, ...]:
    """The cost of a draw: a tuple whose first elements matter most."""
    is_in = {name: splits == name for name in ("train", "gap", *fractions)}
    size = {name: float(chosen.mean()) for name, chosen in is_in.items()}
    pixels = {name: groups.counts[is_in[name]].sum(axis=0) for name in ("train", *fractions)}
    missing = {name: _missing_classes(of_split, groups) for name, of_split in pixels.items()}
    size_error = sum(abs(size[name] - fraction) for name, fraction in fractions.items())
    class_error = sum(float(np.abs(_class_shares(pixels[name]) - groups.class_shares).sum()) / 2 for name in fractions)
    # A chip in the gap costs as much as one too few in a held-out split, or one of a class that it has too many of.
    balance = size["gap"] + size_error + class_error
    missing_held_out = sum(missing[name] for name in fractions)
    return float(missing["train"]), float(size["train"] < min_train), float(missing_held_out), balance


def _class_shares(pixels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of each class in pixels (classes,); all 0 if nothing is labelled."""
    return pixels / max(1, pixels.sum())
