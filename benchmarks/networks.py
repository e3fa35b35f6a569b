"""Networks: ours beside those of segmentation-models-pytorch on the same backbone: time, memory, learning.

    python benchmarks/networks.py [--rounds 7] [--threads 2]

Variants take turns within one process; times are medians of the rounds. Peak memory is measured in a new process for
each. Theirs is timed in its default memory format, and channels-last like ours, which can make the difference on a CPU.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import segmentation_models_pytorch as smp
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from landscribe.nn import build
from landscribe.nn.losses import weighted_sum

PAIRS = {
    "UNet / ResNet-18": ("unet", smp.Unet, "resnet18"),
    "UNet++ / ResNet-34": ("unetplusplus", smp.UnetPlusPlus, "resnet34"),
    "DeepLabv3+ / ResNet-50": ("deeplabv3plus", smp.DeepLabV3Plus, "resnet50"),
}
VARIANTS = ("ours", "smp", "smp channels-last")
SIDE, BATCH = 512, 4
CRITERION = weighted_sum("dice + ce")


def build_variant(pair: str, variant: str) -> nn.Module:
    ours, theirs, encoder = PAIRS[pair]
    torch.manual_seed(0)
    if variant == "ours":
        network = build(ours, encoder=encoder, bands=3, classes=2)
    else:
        network = theirs(encoder, encoder_weights=None, in_channels=3, classes=2)
    return network if variant == "smp" else network.to(memory_format=torch.channels_last)


def images(variant: str, count: int, side: int) -> torch.Tensor:
    batch = torch.rand(count, 3, side, side)
    return batch if variant == "smp" else batch.contiguous(memory_format=torch.channels_last)


def forward(network: nn.Module, batch: torch.Tensor) -> None:
    network.eval()
    with torch.inference_mode():
        network(batch)


def step(network: nn.Module, batch: torch.Tensor, labels: torch.Tensor) -> float:
    network.train().zero_grad()
    own = getattr(network, "training_loss", None)
    loss = own(batch, labels, CRITERION) if own else CRITERION(network(batch), labels)
    loss.backward()
    return float(loss.detach())


def timed(pair: str, rounds: int) -> dict[str, dict[str, float]]:
    networks = {variant: build_variant(pair, variant) for variant in VARIANTS}
    whole = {variant: images(variant, 1, SIDE) for variant in VARIANTS}
    chips = {variant: images(variant, BATCH, SIDE // 2) for variant in VARIANTS}
    labels = torch.randint(0, 2, (BATCH, SIDE // 2, SIDE // 2))
    times: dict[str, dict[str, list[float]]] = {variant: {"forward": [], "step": []} for variant in VARIANTS}
    for _ in range(rounds + 1):
        for variant, network in networks.items():
            for task, work in (
                ("forward", lambda network=network, variant=variant: forward(network, whole[variant])),
                ("step", lambda network=network, variant=variant: step(network, chips[variant], labels)),
            ):
                started = time.perf_counter()
                work()
                times[variant][task].append(time.perf_counter() - started)
    pixels = {"forward": SIDE**2, "step": BATCH * (SIDE // 2) ** 2}
    return {
        variant: {task: statistics.median(seconds[1:]) / pixels[task] * 1e6 for task, seconds in tasks.items()}
        for variant, tasks in times.items()
    }


def sizes(pair: str, variant: str) -> dict[str, float]:
    network = build_variant(pair, variant).eval()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.zeros(1, 3, 256, 256))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return {"parameters": parameters / 1e6, "GFLOP": counter.get_total_flops() / 256**2 / 1e3}


def peak(pair: str, variant: str, task: str) -> float:
    """Peak memory of a task in MiB, above that of a process with the network alone."""
    command = [sys.executable, __file__, "--peak", pair, variant, task]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure_peak(pair: str, variant: str, task: str) -> None:
    network = build_variant(pair, variant)
    before = high_water()
    if task == "forward":
        forward(network, images(variant, 1, 2 * SIDE))
    else:
        step(network, images(variant, BATCH, SIDE // 2), torch.randint(0, 2, (BATCH, SIDE // 2, SIDE // 2)))
    print((high_water() - before) / 1024)


def high_water() -> int:
    """Peak memory of this process so far in KiB; getrusage may report that of the parent process."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0])


def learned(pair: str, variant: str, seed: int, steps: int = 30) -> float:
    """Mean loss of the last five of 30 steps on discs in noise; a seed gives all networks the same images."""
    network = build_variant(pair, variant)
    rng = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    rows, cols = torch.meshgrid(torch.arange(96), torch.arange(96), indexing="ij")
    losses = []
    for _ in range(steps):
        centres = torch.randint(16, 80, (8, 2), generator=rng)
        labels = torch.stack([((rows - r) ** 2 + (cols - c) ** 2 < 200) for r, c in centres]).long()
        batch = torch.randn(8, 3, 96, 96, generator=rng) + 2 * labels[:, None]
        if variant != "smp":
            batch = batch.contiguous(memory_format=torch.channels_last)
        network.train().zero_grad()
        loss = CRITERION(network(batch), labels)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return statistics.mean(losses[-5:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peak", nargs=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.peak:
        measure_peak(*arguments.peak)
        return
    for pair in PAIRS:
        row = timed(pair, arguments.rounds)
        for variant in VARIANTS:
            row[variant] |= sizes(pair, variant)
            row[variant] |= {f"peak {task} MiB": peak(pair, variant, task) for task in ("forward", "step")}
            row[variant]["loss after 30 steps"] = [round(learned(pair, variant, seed), 3) for seed in range(3)]
        print(json.dumps({pair: row}, indent=1), flush=True)


if __name__ == "__main__":
    main()
