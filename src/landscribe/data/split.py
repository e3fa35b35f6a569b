"""Splits by place: whole blocks of a scene are held out, and a gap keeps them apart from what is trained on.

Neighbouring pixels resemble each other, so pixels that touch training pixels say little about a map of new
ground (Roberts et al. 2017, "Cross-validation strategies for data with temporal, spatial, hierarchical, or
phylogenetic structure", Ecography 40, doi:10.1111/ecog.02881).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import shapely
from numpy.typing import NDArray
from pydantic import Field, model_validator

from landscribe.geo.grid import Window
from landscribe.spec import Spec

Split = Literal["train", "val", "test", "gap"]

# Few blocks make few ways to hold out; many make long borders, along which chips are lost to the gap.
_BLOCKS_AIMED_AT = 12
_DRAWS = 200
_LEAST_KEPT_TO_TRAIN = 0.55


class SplitSpec(Spec):
    """How chips are divided into those to train on, to choose the best epoch by, and to assess with."""

    val: float = Field(0.15, ge=0, lt=1)
    """Share of each scene by which the best epoch is chosen."""
    test: float = Field(0.15, ge=0, lt=1)
    """Share of each scene on which the map is assessed; no decision is taken on it."""
    gap: int | None = Field(None, ge=1)
    """Chips of different splits are at least this many pixels apart; a quarter of a chip if left out."""
    block: int | None = Field(None, ge=1)
    """Side of the blocks in pixels; from the scene's size if left out."""

    @model_validator(mode="after")
    def _something_is_left(self) -> Self:
        if self.val + self.test >= 1:
            raise ValueError(f"val {self.val:g} and test {self.test:g} leave nothing to train on; lower them")
        return self


@dataclass(frozen=True)
class ScenePart:
    """What the split of one scene is decided on."""

    windows: Sequence[Window]
    """Of its chips."""
    counts: NDArray[np.int64]
    """(chips, classes) labelled pixels."""


def split_chips(part: ScenePart, spec: SplitSpec, *, size: int, rng: np.random.Generator) -> list[Split]:
    """Assign the chips of one scene to splits by spatial block.

    Of many random draws of blocks, the one is kept that leaves a class out of a split least often, loses
    the fewest chips to the gap, and comes closest to the wanted shares and to the scene's class shares. A
    scene so small that the gap would cost nearly half of what is to be trained on holds out only val, or
    nothing.

    Args:
        part: windows and class counts of the chips.
        spec: shares, gap, block side.
        size: side of a chip in pixels.
        rng: what chance is drawn from.

    Returns:
        A split for each chip; "gap" for a chip that is too near to another split to be used. Law: windows
        of two different splits are at least `spec.gap` pixels apart.
    """
    blocks = _blocks_of(part.windows, spec.block or _block_side(part.windows, size))
    near = _near_pairs(part.windows, spec.gap or max(1, size // 4))
    least = _LEAST_KEPT_TO_TRAIN * (1 - spec.val - spec.test)
    for wanted in ({"val": spec.val, "test": spec.test}, {"val": spec.val}):
        shares = {name: share for name, share in wanted.items() if share > 0}
        if shares and blocks.max() > 0:
            draws = (_draw(shares, blocks, near, rng) for _ in range(_DRAWS))
            names = min(draws, key=lambda names: _cost(names, shares, part.counts, least))
            if (names == "train").mean() >= least and shares.keys() <= set(names.tolist()):
                return names.tolist()
    return ["train"] * len(part.windows)


def _block_side(windows: Sequence[Window], size: int) -> int:
    """The side that gives about the aimed-at number of blocks; whole chips, at least one."""
    height = max(window.row_stop for window in windows)
    width = max(window.col_stop for window in windows)
    return max(1, round((height * width / _BLOCKS_AIMED_AT) ** 0.5 / size)) * size


def _blocks_of(windows: Sequence[Window], side: int) -> NDArray[np.intp]:
    """Number of the block that each window's centre lies in, counting only blocks that have any."""
    places = [((w.row + w.height // 2) // side, (w.col + w.width // 2) // side) for w in windows]
    _, numbers = np.unique(np.array(places), axis=0, return_inverse=True)
    return numbers.reshape(-1)


def _near_pairs(windows: Sequence[Window], gap: int) -> NDArray[np.intp]:
    """(n, 2) numbers of windows that are less than `gap` pixels apart."""
    boxes = shapely.box(*np.array([(w.col, w.row, w.col_stop, w.row_stop) for w in windows]).T)
    reach = shapely.box(*np.array([(w.col - gap, w.row - gap, w.col_stop + gap, w.row_stop + gap) for w in windows]).T)
    pairs = shapely.STRtree(boxes).query(reach).T
    # The tree also finds windows at exactly the gap's distance.
    return pairs[[a != b and windows[a].distance_to(windows[b]) < gap for a, b in pairs.tolist()]]


def _draw(
    wanted: dict[str, float], blocks: NDArray[np.intp], near: NDArray[np.intp], rng: np.random.Generator
) -> NDArray[np.str_]:
    """Hold out random blocks; then take the chips that come too near to a held-out one out of their split."""
    n_blocks = int(blocks.max()) + 1
    of_block = np.full(n_blocks, "train", dtype="<U5")
    order = rng.permutation(n_blocks)
    taken = 0
    for name, share in wanted.items():
        # At least one block each, and one is always left to train on.
        count = min(max(1, round(share * n_blocks)), n_blocks - 1 - taken)
        of_block[order[taken : taken + count]] = name
        taken += count
    names = of_block[blocks]
    # A chip gives way to a held-out one; between two held-out splits, val gives way.
    rank = {"train": 0, "val": 1, "test": 2}
    ranks = np.array([rank[name] for name in names])
    gives_way = ranks[near[:, 0]] < ranks[near[:, 1]]
    names[near[gives_way, 0]] = "gap"
    return names


def _cost(
    names: NDArray[np.str_], wanted: dict[str, float], counts: NDArray[np.int64], least: float
) -> tuple[float, ...]:
    """What a draw is judged by, gravest first; `least` is the share of chips that should be left to train on."""
    present = counts.sum(axis=0) > 0
    lost_classes = sum(int((present & (counts[names == name].sum(axis=0) == 0)).sum()) for name in ("train", *wanted))
    off = sum(abs(float((names == name).mean()) - share) for name, share in wanted.items())
    unlike = sum(float(np.abs(_shares(counts[names == name]) - _shares(counts)).sum()) / 2 for name in wanted)
    too_few = (names == "train").mean() < least
    # A chip lost to the gap weighs as much as one that is missing from a held-out share, or one of a class that
    # the held-out split has too many of.
    return float(too_few), float(lost_classes), float((names == "gap").mean()) + off + unlike


def _shares(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of each class; all 0 if nothing is labelled."""
    return counts.sum(axis=0) / max(1, counts.sum())
