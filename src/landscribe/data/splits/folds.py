"""Folds: every part of the ground is held out once, so that the measures are of all of it."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from landscribe.data.chips.chips import Chips
from landscribe.data.splits.footprints import near_on_the_ground, places
from landscribe.data.splits.groups import Lots, Split, one_lot_each
from landscribe.data.splits.split import BLOCKS_AIMED_AT, block_side, blocks_of
from landscribe.errors import ChipError

_DRAWS = 100
_LEAST_FOLDS = 3
_BLOCKS_A_FOLD = 4
_WHY = "one to assess with, one to choose the epoch by, and the rest to train on"


def fold_splits(
    chips: Chips, folds: int | Literal["scenes"] = 5, *, gap: int | None = None, seed: int = 0
) -> list[list[Split]]:
    """Divide chips into folds of spatial blocks, or of scenes, whatever their splits are.

    Fold i is to be assessed with, fold i + 1 to choose the epoch by, and the rest to train on, but for the chips that
    come too near. Of many ways to deal the blocks, the one is kept that leaves a class out of a fold, or out of what
    is trained on, least often, and gives the folds the most alike numbers of chips and shares of classes.

    Args:
        chips: of all splits.
        folds: how many, at least 3; or "scenes" for a fold of each scene.
        gap: chips of different splits are at least this many pixels apart; a quarter of a chip if left out.
        seed: the same seed gives the same folds.

    Returns:
        For each fold, a split for each chip. Laws: each chip is of split "test" in one fold; chips of two splits are
        at least the gap apart.

    Raises:
        ChipError: too few folds, blocks or scenes, or a fold without one of the classes.
    """
    counts = chips.counts
    frames, boxes, _ = places(chips)
    near = near_on_the_ground(frames, boxes, gap or max(1, chips.head.size // 4))
    if folds == "scenes":
        fold_of = np.unique(chips.table["scene"].to_numpy(str), return_inverse=True)[1].reshape(-1)
        if (count := int(fold_of.max()) + 1) < _LEAST_FOLDS:
            raise ChipError(
                f"folds is scenes, but there {'is 1' if count == 1 else f'are {count}'}. At least {_LEAST_FOLDS} were "
                f"expected: {_WHY}. Ask for a number of folds: these are of blocks of the ground."
            )
        dealt = [_splits(counts, fold_of, near)]
    else:
        if folds < _LEAST_FOLDS:
            raise ChipError(f"folds is {folds}. At least {_LEAST_FOLDS} were expected: {_WHY}.")
        blocks = _blocks(chips, folds)
        if folds > (most := int(blocks.max()) + 1):
            raise ChipError(
                f"folds is {folds}, but the {len(chips)} chips make {most} blocks of ground. At most as many folds "
                "were expected. Ask for fewer, or cut smaller chips."
            )
        rng = np.random.default_rng(seed)
        dealt = [_splits(counts, _deal(counts, blocks, folds, rng), near) for _ in range(_DRAWS)]
    best = min(dealt, key=lambda splits: _cost(counts, splits))
    _require_all_classes(chips, best)
    return [names.tolist() for names in best]


def _blocks(chips: Chips, folds: int) -> NDArray[np.intp]:
    """Number of the block of each chip; blocks lie within a scene, and all scenes together have some for each fold."""
    scenes, windows = chips.table["scene"].to_numpy(str), chips.windows
    names = np.unique(scenes)
    wanted = max(-(-BLOCKS_AIMED_AT // len(names)), -(-_BLOCKS_A_FOLD * folds // len(names)))
    blocks, first = np.zeros(len(chips), np.intp), 0
    for name in names:
        rows = np.flatnonzero(scenes == name)
        some = [windows[row] for row in rows]
        blocks[rows] = first + blocks_of(some, block_side(some, chips.head.size, wanted))
        first = int(blocks[rows].max()) + 1
    return blocks


def _deal(
    counts: NDArray[np.int64], blocks: NDArray[np.intp], folds: int, rng: np.random.Generator
) -> NDArray[np.intp]:
    """A fold for each chip: random blocks, those of rare classes first, each to a fold that lacks the class."""
    sizes = np.bincount(blocks)
    held = np.zeros((len(sizes), counts.shape[1]), bool)
    np.logical_or.at(held, blocks, counts > 0)
    order = rng.permutation(len(sizes))
    fold_of, filled = np.full(len(sizes), -1), np.zeros(folds)
    has = np.zeros((folds, held.shape[1]), bool)

    def give(block: int, fold: int) -> None:
        fold_of[block] = fold
        filled[fold] += sizes[block]
        has[fold] |= held[block]

    for number in np.argsort(held.sum(axis=0), kind="stable").tolist():
        for block in order[held[order, number] & (fold_of[order] < 0)].tolist():
            lacking = ~has[:, number]
            if not lacking.any():
                break
            give(block, int(np.where(lacking, filled, np.inf).argmin()))
    for block in order[fold_of[order] < 0].tolist():
        give(block, int(filled.argmin()))
    return fold_of[blocks]


def _splits(counts: NDArray[np.int64], fold_of: NDArray[np.intp], near: NDArray[np.intp]) -> list[NDArray[np.str_]]:
    """For each fold, the split of each chip; what comes too near to a fold that is held out gives way."""
    count = int(fold_of.max()) + 1
    lots = Lots(counts, one_lot_each(fold_of), near, np.full(count, "", dtype="<U5"))
    splits = []
    for fold in range(count):
        told = np.full(count, "train", dtype="<U5")
        told[[fold, (fold + 1) % count]] = "test", "val"
        splits.append(lots.names(told))
    return splits


def _cost(counts: NDArray[np.int64], splits: Sequence[NDArray[np.str_]]) -> tuple[float, ...]:
    """What a way to deal is judged by, gravest first."""
    present = counts.sum(axis=0) > 0
    shares = counts.sum(axis=0) / max(1, counts.sum())
    lost, lost_to_val, uneven = 0, 0, 0.0
    for names in splits:
        of = {name: counts[names == name].sum(axis=0) for name in ("train", "val", "test")}
        lost += sum(int((present & (of[name] == 0)).sum()) for name in ("train", "test"))
        lost_to_val += int((present & (of["val"] == 0)).sum())
        uneven += abs(float((names == "test").mean()) * len(splits) - 1) + float((names == "gap").mean())
        uneven += float(np.abs(of["test"] / max(1, of["test"].sum()) - shares).sum()) / 2
    return float(lost), float(lost_to_val), uneven


def _require_all_classes(chips: Chips, splits: Sequence[NDArray[np.str_]]) -> None:
    """Raise ChipError if a fold has a class nowhere to assess it on, or nowhere to learn it from."""
    counts = chips.counts
    present = counts.sum(axis=0) > 0
    for fold, names in enumerate(splits, 1):
        for name, what in (("test", "in it"), ("train", "left to train on")):
            missing = present & (counts[names == name].sum(axis=0) == 0)
            if missing.any():
                entry = chips.classes.entries[int(missing.argmax())]
                raise ChipError(
                    f"fold {fold} of {len(splits)} has no chip with class '{entry.name}' {what}. Every class in every "
                    "fold was expected. Ask for fewer folds, cut smaller chips, or label more of it."
                )
