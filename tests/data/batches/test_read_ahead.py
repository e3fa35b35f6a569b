"""ReadAhead: the batches of a loader, its order and its errors, from a thread."""

import threading

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from landscribe.data.batches.read_ahead import _AHEAD, ReadAhead


class Numbers(Dataset):
    """Ten samples, which note their reads; sample `broken` cannot be read."""

    def __init__(self, broken: int | None = None) -> None:
        self.broken = broken
        self.reads: list[int] = []

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if index == self.broken:
            raise OSError(f"chip {index} cannot be read")
        self.reads.append(index)
        return {"label": torch.tensor(index)}


def values(batches) -> list[list[int]]:
    return [batch["label"].tolist() for batch in batches]


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_are_those_of_the_loader_in_each_epoch(workers):
    loader = DataLoader(Numbers(), batch_size=3, num_workers=workers, persistent_workers=workers > 0)
    ahead = ReadAhead(loader, pin=False)
    assert len(ahead) == 4
    for _ in range(2):
        assert values(ahead) == values(DataLoader(Numbers(), batch_size=3))


def test_an_error_comes_after_the_batches_before_it():
    batches = iter(ReadAhead(DataLoader(Numbers(broken=7), batch_size=3), pin=False))
    assert values([next(batches), next(batches)]) == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(OSError, match="chip 7 cannot be read"):
        next(batches)


def test_an_epoch_that_ends_early_leaves_no_thread_and_reads_few_batches_more():
    numbers, before = Numbers(), threading.active_count()
    batches = iter(ReadAhead(DataLoader(numbers, batch_size=1), pin=False))
    assert values([next(batches)]) == [[0]]
    batches.close()
    assert threading.active_count() == before
    assert len(numbers.reads) <= 1 + _AHEAD
