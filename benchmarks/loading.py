"""Loading: training steps per second on chips that are read, against a batch in memory.

    python benchmarks/loading.py CHIPS [--batch 8] [--steps 20] [--rounds 5] [--workers 0]

Both take turns within one process, with the same network, loss and optimiser: batches as `landscribe train` reads them,
and the first of these batches repeated.
"""

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch

from landscribe.data.batches.dataset import Batch, loader, to_float
from landscribe.data.batches.sampling import ChipSampler
from landscribe.data.chips.chips import Chips
from landscribe.geo.classes import IGNORE
from landscribe.nn import build
from landscribe.nn.losses import weighted_sum


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chips", type=Path)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=0)
    given = parser.parse_args()
    chips = Chips.open(given.chips).of_split("train")
    step = training_step(chips)
    read = endless(chips, given.batch, given.workers)
    in_memory = itertools.repeat(next(read))
    step(next(read))
    seconds: dict[str, list[float]] = {"read": [], "in memory": []}
    for _ in range(given.rounds):
        for name, batches in (("read", read), ("in memory", in_memory)):
            started = time.perf_counter()
            for batch in itertools.islice(batches, given.steps):
                step(batch)
            seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(rounds) / given.steps for name, rounds in seconds.items()}
    ratio = statistics.median(b / a for a, b in zip(seconds["read"], seconds["in memory"], strict=True))
    print(json.dumps({"seconds_a_step": medians, "ratio": round(ratio, 4), "workers": given.workers}))


def endless(chips: Chips, batch: int, workers: int) -> Iterator[Batch]:
    """Batches of epoch after epoch."""
    batches = loader(chips, batch=batch, workers=workers, order=ChipSampler(np.ones(len(chips)), seed=0))
    while True:
        yield from (item for item in batches if len(item["image"]) == batch)


def training_step(chips: Chips):
    """One step of the default network."""
    network = build("unet", bands=len(chips.metadata.bands), classes=len(chips.classes), encoder="resnet18")
    network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    criterion = partial(weighted_sum("dice + ce"), ignore=IGNORE)

    def step(batch: Batch) -> None:
        wide = to_float(batch)
        images = (wide["image"] / 255).contiguous(memory_format=torch.channels_last)
        optimizer.zero_grad()
        network.training_loss(images, wide["label"], criterion).backward()
        optimizer.step()

    return step


if __name__ == "__main__":
    main()
