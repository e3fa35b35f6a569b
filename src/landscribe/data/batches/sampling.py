"""Sampling: which chips a network sees in an epoch, and how often."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from landscribe.data.chips.chips import Chips

# Classes in fewer than this share of the chips are repeated.
_RARE = 0.5


def repeats(chips: Chips, *, balanced: bool, background: float | None) -> NDArray[np.float64]:
    """How often each chip is drawn in an epoch, on average: (chips,), 0 or more.

    Args:
        chips: to train on.
        balanced: draw chips with rare classes more often, as many chips in all; otherwise each once.
        background: largest share of chips that hold nothing but background; all of them if None.

    Balanced is repeat-factor sampling: a class in a share f of the chips asks for `max(1, sqrt(0.5 / f))` of them,
    and a chip is drawn as often as the class that asks for most (Gupta, Dollár & Girshick 2019, arXiv:1908.03195).
    Then chips of nothing but background are drawn less, until they are no more than their share.
    """
    holds = chips.counts > 0
    wanted = np.ones(len(chips))
    if balanced:
        shares = holds.mean(axis=0)
        factors = np.sqrt(_RARE / np.clip(shares, 1e-12, _RARE))
        wanted = np.where(holds, factors, 0).max(axis=1, initial=1)
        wanted *= len(chips) / wanted.sum()
    empty = ~chips.table["positive"].to_numpy(bool)
    if background is not None and empty.any() and not empty.all():
        rest = wanted[~empty].sum()
        most = rest * background / (1 - background) if background < 1 else np.inf
        wanted[empty] *= min(1.0, most / wanted[empty].sum())
    return wanted


@dataclass(frozen=True)
class Share:
    """Which part of every batch one of several processes takes."""

    batch: int
    """Chips that all processes take together."""
    rank: int
    """Which of them this is, from 0."""
    processes: int


class ChipSampler(Sampler[Any]):
    """Numbers of chips in the order of an epoch; each epoch another, the same for the same seed.

    The order is made in the main process, so that it does not depend on how many others read.

    With a share it gives one process's part of each batch: the parts of all processes together are the batch that one
    alone would take, but for a last batch that has less than two chips for each: normalisation needs two.
    """

    def __init__(self, wanted: NDArray[np.float64], *, seed: int, share: Share | None = None) -> None:
        self.wanted = wanted
        self.seed = seed
        self.share = share
        self.epoch = 0

    def __len__(self) -> int:
        return len(self._part(list(range(self._drawn))))

    def __iter__(self) -> Iterator[Any]:
        rng = np.random.default_rng([self.seed, self.epoch])
        self.epoch += 1
        yield from self._part(self._order(rng))

    def _order(self, rng: np.random.Generator) -> list[Any]:
        """What all processes together take in an epoch."""
        # Whole repeats surely, and what is left over by chance, without drawing a chip twice for it.
        often = np.floor(self.wanted).astype(np.int64)
        left = self.wanted - often
        missing = self._drawn - int(often.sum())
        if missing > 0 and left.any():
            often[rng.choice(len(often), missing, replace=False, p=left / left.sum())] += 1
        order: list[int] = rng.permutation(np.repeat(np.arange(len(often)), often)).tolist()
        return order

    @property
    def _drawn(self) -> int:
        """Chips of an epoch."""
        return max(1, round(float(self.wanted.sum())))

    def _part(self, order: list[Any]) -> list[Any]:
        """What this process takes of an epoch."""
        if self.share is None:
            return order
        size, processes = self.share.batch, self.share.processes
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        if processes > 1 and len(batches) > 1 and len(batches[-1]) < 2 * processes:
            del batches[-1]
        return [item for batch in batches for item in batch[self.share.rank :: processes]]
