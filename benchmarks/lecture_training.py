"""Training as in the lecture on the chips of a Landscribe run, for comparison on the same held-out blocks.

A segmentation-models-pytorch UNet on ResNet-18 from scratch, Dice + binary cross-entropy, Adam 1e-3, random flips,
200 steps of 8 chips. Only the training differs from `landscribe run`: chips and splits are those of the run. The
validation chips are scored every 20 steps, to compare the last and the best weights. The reported time is that of the
training steps alone.

    python benchmarks/lecture_training.py RUN_FOLDER [--steps 200] [--seed 0]
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import segmentation_models_pytorch as smp
import torch

from landscribe.confusion import Confusion
from landscribe.data.batches.dataset import ChipDataset
from landscribe.data.chips.chips import Chips


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    chips = Chips.open(arguments.run / "chips")
    network, curve, best, seconds = train(chips, arguments.steps, np.random.default_rng(arguments.seed))
    last = {split: score(network, chips.of_split(split)) for split in ("val", "test")}
    network.load_state_dict(best)
    kept = {split: score(network, chips.of_split(split)) for split in ("val", "test")}
    print(json.dumps({"steps": arguments.steps, "seed": arguments.seed, "seconds": round(seconds), "last": last,
                      "best_by_val": kept, "val_f1_every_20_steps": curve}))  # fmt: skip


def train(every: Chips, steps: int, rng: np.random.Generator) -> tuple[torch.nn.Module, list[float], dict, float]:
    chips, validation = every.of_split("train"), every.of_split("val")
    curve, best, seconds = [], {}, 0.0
    network = smp.Unet("resnet18", encoder_weights=None, in_channels=3, classes=1).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    dice = smp.losses.DiceLoss("binary")
    bce = torch.nn.BCEWithLogitsLoss()
    dataset = ChipDataset(chips)
    for step in range(1, steps + 1):
        started = time.perf_counter()
        batch = [dataset[index] for index in rng.choice(len(dataset), 8, replace=len(dataset) < 8)]
        images = torch.stack([item["image"] for item in batch]) / 255
        labels = torch.stack([item["label"] for item in batch]).float().unsqueeze(1)
        for axis in (-1, -2):
            flipped = torch.from_numpy(rng.random(8) < 0.5)
            images[flipped], labels[flipped] = images[flipped].flip(axis), labels[flipped].flip(axis)
        logits = network(images)
        optimizer.zero_grad()
        (dice(logits, labels) + bce(logits, labels)).backward()
        optimizer.step()
        seconds += time.perf_counter() - started
        if step % 20 == 0 or step == steps:
            curve.append(score(network.eval(), validation))
            if curve[-1] == max(curve):
                best = {name: value.clone() for name, value in network.state_dict().items()}
            network.train()
    return network.eval(), curve, best, seconds


def score(network: torch.nn.Module, chips: Chips) -> float:
    """F1 of the second class with the current weights."""
    confusion = Confusion.zeros(chips.classes)
    dataset = ChipDataset(chips)
    for index in range(len(dataset)):
        item = dataset[index]
        with torch.inference_mode():
            predicted = (network(item["image"][None] / 255)[0, 0] > 0).to(torch.uint8)
        confusion += Confusion.of(chips.classes, item["label"].to(torch.uint8).numpy(), predicted.numpy())
    return round(float(confusion.f1[1]), 4)


if __name__ == "__main__":
    main()
