"""Folds for cross-validation: every block, scene or group is held out once, so that accuracy covers all chips."""

import logging
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from landscribe.data.chips.chips import Chips
from landscribe.data.splits.footprints import chip_footprints, chips_between_crss, pairs_within, scene_grids
from landscribe.data.splits.groups import Groups, Split, single_membership
from landscribe.data.splits.spec import default_gap
from landscribe.data.splits.split import TARGET_BLOCKS, block_index, block_side
from landscribe.errors import ChipError, counted, listed
from landscribe.geo.grid import Window

log = logging.getLogger(__name__)

_DRAWS = 100
_MIN_FOLDS = 3
_BLOCKS_PER_FOLD = 4
Whole = Literal["scenes", "groups"]
"""One fold for each scene, or for each group of scenes."""
_WHY = "one for test, one for val, the rest for train"


def fold_splits(chips: Chips, folds: int | Whole, *, gap: int | None, seed: int) -> list[list[Split]]:
    """Divide chips into folds of spatial blocks, scenes or groups of scenes; their own splits are ignored.

    In run i, fold i is test, fold i + 1 is val, and the other folds are train, except for chips nearer than the gap.
    Blocks are assigned to folds at random many times. The assignment is kept that leaves a class out of test or train
    least often; among equals, the one whose folds are most similar in size and class shares.

    Args:
        chips: of all splits.
        folds: how many, at least 3; "scenes" for one fold per scene; "groups" for one per group of scenes, in
            the order of `fold_names`.
        gap: minimum distance in pixels between chips of different splits; a quarter of a chip if left out.
        seed: the same seed gives the same folds.

    Returns:
        For each fold, a split for each chip. Laws: each chip is "test" in exactly one fold; chips of two splits are at
        least the gap apart.

    Raises:
        ChipError: too few folds, blocks, scenes or groups, scenes without a group, or train of a fold lacks a class, or
            test of a fold of blocks.
    """
    counts = chips.counts
    if chips.metadata.background_share < 1:
        log.warning(
            "%s has %.3g of the background chips of train, so the accuracy of folds is higher than over whole scenes. "
            "Chip again without background_share, and pass --background to train on fewer of them",
            chips.folder,
            chips.metadata.background_share,
        )
    grids, _ = scene_grids(chips)
    distance = gap or default_gap(chips.metadata.size)
    near = np.concatenate(
        [
            pairs_within(chip_footprints(chips, grids), distance),
            chips_between_crss(chips, grids, distance=distance),
        ]
    )
    held_together = fold_groups(folds, chips.scene_names, chips.group_names, chips.windows, chips.metadata.size)
    if isinstance(folds, str):
        candidates = [_splits(counts, held_together, near)]
    else:
        rng = np.random.default_rng(seed)
        candidates = [_splits(counts, _assign_folds(counts, held_together, folds, rng), near) for _ in range(_DRAWS)]
    best = min(candidates, key=lambda splits: _cost(counts, splits))
    _require_all_classes(chips, best, folds)
    if isinstance(folds, str):
        _warn_of_missing_classes(chips, best, folds)
    return [splits.tolist() for splits in best]


def fold_names(chips: Chips, folds: int | Whole) -> list[str]:
    """The name of the scene or group that each fold holds out; empty for folds of blocks.

    Raises:
        ChipError: scenes without a group.
    """
    if isinstance(folds, int):
        return []
    return np.unique(_names_of(folds, chips.scene_names, chips.group_names)).tolist()


def fold_groups(
    folds: int | Whole,
    scenes: NDArray[np.str_],
    groups: NDArray[np.str_],
    windows: Sequence[Window],
    size: int,
) -> NDArray[np.intp]:
    """The spatial block, scene or group of each chip, all chips of which are in one fold.

    Args:
        folds: as of `fold_splits`.
        scenes: (chips,) name of each chip's scene.
        groups: (chips,) group of each chip's scene; "" for none.
        windows: of the chips in their scenes.
        size: side of a chip in pixels.

    Returns:
        (chips,) index of the block; or of the scene or group, in the order of their names.

    Raises:
        ChipError: too few folds, blocks, scenes or groups, or scenes without a group.
    """
    if isinstance(folds, str):
        names, index = np.unique(_names_of(folds, scenes, groups), return_inverse=True)
        if (count := len(names)) < _MIN_FOLDS:
            raise ChipError(
                f"folds = {folds}, but the chips have {count} {folds.removesuffix('s') if count == 1 else folds}. "
                f"Expected at least {_MIN_FOLDS}: {_WHY}. Give a number of folds to use spatial blocks."
            )
        return index.reshape(-1)
    if folds < _MIN_FOLDS:
        raise ChipError(f"folds is {folds}. Expected at least {_MIN_FOLDS}: {_WHY}. Use more folds.")
    blocks = _blocks(folds, scenes, windows, size)
    if folds > (count := int(blocks.max(initial=-1)) + 1):
        raise ChipError(
            f"folds is {folds}, but the chips ({len(scenes)}) form only {counted(count, 'spatial block')}. "
            "Expected at most as many folds. Use fewer folds, or smaller chips."
        )
    return blocks


def _names_of(folds: Whole, scenes: NDArray[np.str_], groups: NDArray[np.str_]) -> NDArray[np.str_]:
    """(chips,) the name of each chip's scene or group."""
    if folds == "scenes":
        return scenes
    without = np.unique(scenes[groups == ""]).tolist()
    if without:
        raise ChipError(
            f"folds = groups, but no group is named for {listed(without)} ({len(without)} of "
            f"{counted(len(np.unique(scenes)), 'scene')}). Expected a group for each scene, such as its city. Set "
            "group on them in the recipe and chip again, or use folds = scenes."
        )
    return groups


def _blocks(folds: int, scenes: NDArray[np.str_], windows: Sequence[Window], size: int) -> NDArray[np.intp]:
    """(chips,) index of each chip's block. A block lies within one scene; there are several blocks per fold."""
    names = np.unique(scenes)
    per_scene = max(-(-TARGET_BLOCKS // max(1, len(names))), -(-_BLOCKS_PER_FOLD * folds // max(1, len(names))))
    blocks, first = np.zeros(len(scenes), np.intp), 0
    for name in names:
        rows = np.flatnonzero(scenes == name)
        own = [windows[row] for row in rows.tolist()]
        blocks[rows] = first + block_index(own, block_side(own, size, per_scene))
        first = int(blocks[rows].max()) + 1
    return blocks


def _assign_folds(
    counts: NDArray[np.int64], blocks: NDArray[np.intp], folds: int, rng: np.random.Generator
) -> NDArray[np.intp]:
    """(chips,) fold of each chip: blocks in random order, those of rare classes first, each to a fold that lacks it."""
    sizes = np.bincount(blocks)
    block_has = np.zeros((len(sizes), counts.shape[1]), bool)
    np.logical_or.at(block_has, blocks, counts > 0)
    order = rng.permutation(len(sizes))
    fold_of, fold_sizes = np.full(len(sizes), -1), np.zeros(folds)
    fold_has = np.zeros((folds, block_has.shape[1]), bool)

    def assign(block: int, fold: int) -> None:
        fold_of[block] = fold
        fold_sizes[fold] += sizes[block]
        fold_has[fold] |= block_has[block]

    for index in np.argsort(block_has.sum(axis=0), kind="stable").tolist():
        for block in order[block_has[order, index] & (fold_of[order] < 0)].tolist():
            lacking = ~fold_has[:, index]
            if not lacking.any():
                break
            assign(block, int(np.where(lacking, fold_sizes, np.inf).argmin()))
    for block in order[fold_of[order] < 0].tolist():
        assign(block, int(fold_sizes.argmin()))
    return fold_of[blocks]


def _splits(counts: NDArray[np.int64], fold_of: NDArray[np.intp], near: NDArray[np.intp]) -> list[NDArray[np.str_]]:
    """For each fold, the split of each chip; chips too near to a held-out fold go to the gap."""
    count = int(fold_of.max()) + 1
    groups = Groups(counts, single_membership(fold_of), near, np.full(count, "", dtype="<U5"))
    splits = []
    for fold in range(count):
        group_splits = np.full(count, "train", dtype="<U5")
        group_splits[[fold, (fold + 1) % count]] = "test", "val"
        splits.append(groups.chip_splits(group_splits))
    return splits


def _cost(counts: NDArray[np.int64], splits: Sequence[NDArray[np.str_]]) -> tuple[float, ...]:
    """The cost of an assignment: a tuple whose first elements matter most."""
    present = counts.sum(axis=0) > 0
    shares = counts.sum(axis=0) / max(1, counts.sum())
    missing, missing_in_val, uneven = 0, 0, 0.0
    for own in splits:
        pixels = {name: counts[own == name].sum(axis=0) for name in ("train", "val", "test")}
        missing += sum(int((present & (pixels[name] == 0)).sum()) for name in ("train", "test"))
        missing_in_val += int((present & (pixels["val"] == 0)).sum())
        uneven += abs(float((own == "test").mean()) * len(splits) - 1) + float((own == "gap").mean())
        uneven += float(np.abs(pixels["test"] / max(1, pixels["test"].sum()) - shares).sum()) / 2
    return float(missing), float(missing_in_val), uneven


def _require_all_classes(chips: Chips, splits: Sequence[NDArray[np.str_]], folds: int | Whole) -> None:
    """Raise ChipError if train of a fold lacks a class, or test of a fold of blocks."""
    counts = chips.counts
    present = counts.sum(axis=0) > 0
    required, remedy = ["test", "train"], "Use fewer folds, smaller chips, or label more of that class."
    if isinstance(folds, str):
        required = ["train"]
        remedy = f"Label that class in more {folds}, or give a number of folds, which divides scenes into blocks."
    for fold, own in enumerate(splits, 1):
        for name in required:
            missing = present & (counts[own == name].sum(axis=0) == 0)
            if missing.any():
                entry = chips.classes.entries[int(missing.argmax())]
                raise ChipError(
                    f"fold {fold} of {len(splits)} has no {name} chip with class '{entry.name}'. Expected every class "
                    f"in {' and '.join(required)} of every fold. {remedy}"
                )


def _warn_of_missing_classes(chips: Chips, splits: Sequence[NDArray[np.str_]], folds: Whole) -> None:
    """Warn of each class that held-out scenes or groups lack: nothing can be measured of it there."""
    counts, names = chips.counts, fold_names(chips, folds)
    present = counts.sum(axis=0) > 0
    has_class = np.array([counts[own == "test"].sum(axis=0) > 0 for own in splits])
    for index in np.flatnonzero(present & ~has_class.all(axis=0)).tolist():
        lacking = [name for name, has in zip(names, has_class[:, index].tolist(), strict=True) if not has]
        log.warning(
            "folds = %s: class '%s' has no labelled pixel in %s, where its F1 is not defined",
            folds, chips.classes.entries[index].name, listed(lacking),
        )  # fmt: skip
