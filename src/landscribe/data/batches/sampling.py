"""Sampling: which chips a training draws, in which order and how often."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from landscribe.data.chips.chips import Chips

# Classes in fewer than this share of the chips are repeated.
_RARE = 0.5


def repeat_factors(chips: Chips, *, balanced: bool, background: float | None) -> NDArray[np.float64]:
    """Mean number of times that each chip is drawn in an epoch: (chips,), 0 or more.

    Balanced is repeat-factor sampling: a class in a fraction f of the chips has the factor `max(1, sqrt(0.5 / f))`, and
    a chip has the largest factor of its classes (Gupta, Dollár & Girshick 2019, arXiv:1908.03195). The factors are
    scaled so that an epoch keeps its length. Then background-only chips are drawn less, down to their fraction.

    Args:
        chips: to train on.
        balanced: draw chips with rare classes more often; otherwise each chip once.
        background: maximum fraction of background-only chips; no limit if None.
    """
    has_class = chips.counts > 0
    factors = np.ones(len(chips))
    if balanced:
        class_shares = has_class.mean(axis=0)
        class_factors = np.sqrt(_RARE / np.clip(class_shares, 1e-12, _RARE))
        factors = np.where(has_class, class_factors, 0).max(axis=1, initial=1)
        factors *= len(chips) / factors.sum()
    background_only = ~chips.table["positive"].to_numpy(bool)
    if background is not None and background_only.any() and not background_only.all():
        foreground = factors[~background_only].sum()
        most = foreground * background / (1 - background) if background < 1 else np.inf
        factors[background_only] *= min(1.0, most / factors[background_only].sum())
    return factors


@dataclass(frozen=True)
class RankShare:
    """The part of every batch that one of several processes takes."""

    batch: int
    """Chips per batch, over all processes."""
    rank: int
    """Index of this process, from 0."""
    processes: int


class ChipSampler(Sampler[Any]):
    """Chip indices in the order of an epoch; each epoch has another order, and a seed gives the same orders.

    A training draws from one endless stream, pass after pass over the chips; an epoch is a part of it. The stream is
    drawn in the main process, so that it does not depend on the number of workers.

    With a share, only one process's part of each batch is given: the parts of all processes form the batch of a single
    process. A last batch of fewer than two chips per process is dropped: batch normalisation needs two.
    """

    def __init__(self, factors: NDArray[np.float64], *, seed: int, share: RankShare | None = None) -> None:
        """A sampler of chips.

        Args:
            factors: (chips,) mean number of times that each chip is drawn in a pass.
            seed: of the orders.
            share: of one of several processes; everything if None.
        """
        self.factors = factors
        self.seed = seed
        self.share = share
        self.drawn = self.pass_length
        """Chips per epoch, over all processes; those of a pass unless it is set."""
        self.epoch = 0
        self._stream, self._streamed = iter(()), -1

    @property
    def pass_length(self) -> int:
        """Chips per pass."""
        return max(1, round(float(self.factors.sum())))

    def prepare(self) -> None:
        """Read what the first draw needs, if anything."""

    def __len__(self) -> int:
        return len(self._part(list(range(self.drawn))))

    def __iter__(self) -> Iterator[Any]:
        if self._streamed != self.epoch:  # the first epoch, or that of a resumed training
            self._stream = self._draws()
            deque(islice(self._stream, self.epoch * self.drawn), maxlen=0)
        order = list(islice(self._stream, self.drawn))
        self.epoch += 1
        self._streamed = self.epoch
        yield from self._part(order)

    def _draws(self) -> Iterator[Any]:
        """The draws of a training, of all processes, without end; none if no chip is drawn."""
        for number in count():
            drawn = self._pass(np.random.default_rng([self.seed, number]))
            if not drawn:  # all factors are 0
                return
            yield from drawn

    def _pass(self, rng: np.random.Generator) -> list[Any]:
        """One pass over the chips."""
        # Whole repeats are certain; remainders are drawn without replacement.
        counts = np.floor(self.factors).astype(np.int64)
        remainder = self.factors - counts
        missing = self.pass_length - int(counts.sum())
        if missing > 0 and remainder.any():
            counts[rng.choice(len(counts), missing, replace=False, p=remainder / remainder.sum())] += 1
        order: list[int] = rng.permutation(np.repeat(np.arange(len(counts)), counts)).tolist()
        return order

    def _part(self, order: list[Any]) -> list[Any]:
        """This process's part of an epoch."""
        if self.share is None:
            return order
        size, processes = self.share.batch, self.share.processes
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        if processes > 1 and len(batches) > 1 and len(batches[-1]) < 2 * processes:
            del batches[-1]
        return [item for batch in batches for item in batch[self.share.rank :: processes]]
