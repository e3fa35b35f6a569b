"""ReadAhead: batches that a thread reads while the network computes."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from torch.utils.data import DataLoader

from landscribe.data.batches.dataset import Batch

_AHEAD = 3
"""Batches that are read before they are needed."""


class ReadAhead:
    """The batches of a loader, some of them ahead, in page-locked memory for a CUDA GPU.

    Law: they are the loader's batches, in its order, and its errors.
    """

    def __init__(self, batches: DataLoader[Batch], *, pin: bool) -> None:
        """Read ahead from a loader.

        Args:
            batches: read by one thread at a time.
            pin: copy them into page-locked memory, from which they travel to a GPU while it computes.
        """
        self.batches = batches
        self.pin = pin

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        source = iter(self.batches)
        with ThreadPoolExecutor(1, "chips") as reader:
            ahead = deque(reader.submit(self._next, source) for _ in range(_AHEAD))
            while (batch := ahead.popleft().result()) is not None:
                ahead.append(reader.submit(self._next, source))
                yield batch

    def _next(self, source: Iterator[Batch]) -> Batch | None:
        batch = next(source, None)
        return batch if batch is None or not self.pin else {name: each.pin_memory() for name, each in batch.items()}
