"""Networks of ours beside those of segmentation-models-pytorch on the same backbone: time, memory, learning.

    python benchmarks/networks.py [--rounds 7] [--threads 2]

Each row is measured in turns within one process, medians of the rounds; peak memory in a process of its own for each.
Theirs is timed as it comes and, since that alone may decide on a CPU, with its tensors channels-last like ours.
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
WAYS = ("ours", "smp", "smp channels-last")
SIDE, BATCH = 512, 4
CRITERION = weighted_sum("dice + ce")


def made(pair: str, way: str) -> nn.Module:
    ours, theirs, encoder = PAIRS[pair]
    torch.manual_seed(0)
    if way == "ours":
        network = build(ours, encoder=encoder, bands=3, classes=2)
    else:
        network = theirs(encoder, encoder_weights=None, in_channels=3, classes=2)
    return network if way == "smp" else network.to(memory_format=torch.channels_last)


def images(way: str, count: int, side: int) -> torch.Tensor:
    batch = torch.rand(count, 3, side, side)
    return batch if way == "smp" else batch.contiguous(memory_format=torch.channels_last)


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
    networks = {way: made(pair, way) for way in WAYS}
    whole = {way: images(way, 1, SIDE) for way in WAYS}
    chips = {way: images(way, BATCH, SIDE // 2) for way in WAYS}
    labels = torch.randint(0, 2, (BATCH, SIDE // 2, SIDE // 2))
    times: dict[str, dict[str, list[float]]] = {way: {"forward": [], "step": []} for way in WAYS}
    for _ in range(rounds + 1):
        for way, network in networks.items():
            for what, work in (
                ("forward", lambda network=network, way=way: forward(network, whole[way])),
                ("step", lambda network=network, way=way: step(network, chips[way], labels)),
            ):
                started = time.perf_counter()
                work()
                times[way][what].append(time.perf_counter() - started)
    pixels = {"forward": SIDE**2, "step": BATCH * (SIDE // 2) ** 2}
    return {
        way: {what: statistics.median(some[1:]) / pixels[what] * 1e6 for what, some in found.items()}
        for way, found in times.items()
    }


def sizes(pair: str, way: str) -> dict[str, float]:
    network = made(pair, way).eval()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.zeros(1, 3, 256, 256))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return {"parameters": parameters / 1e6, "GFLOP": counter.get_total_flops() / 256**2 / 1e3}


def peak(pair: str, way: str, what: str) -> float:
    """MiB above those of a process with the network alone."""
    command = [sys.executable, __file__, "--peak", pair, way, what]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure_peak(pair: str, way: str, what: str) -> None:
    network = made(pair, way)
    before = high_water()
    if what == "forward":
        forward(network, images(way, 1, 2 * SIDE))
    else:
        step(network, images(way, BATCH, SIDE // 2), torch.randint(0, 2, (BATCH, SIDE // 2, SIDE // 2)))
    print((high_water() - before) / 1024)


def high_water() -> int:
    """KiB of this process at most so far; what getrusage tells begins with the parent's."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0])


def learned(pair: str, way: str, seed: int, steps: int = 30) -> float:
    """Mean loss of the last five of 30 steps on discs to be found in noise; the same for all with the same seed."""
    network = made(pair, way)
    rng = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    rows, cols = torch.meshgrid(torch.arange(96), torch.arange(96), indexing="ij")
    losses = []
    for _ in range(steps):
        centres = torch.randint(16, 80, (8, 2), generator=rng)
        labels = torch.stack([((rows - r) ** 2 + (cols - c) ** 2 < 200) for r, c in centres]).long()
        batch = torch.randn(8, 3, 96, 96, generator=rng) + 2 * labels[:, None]
        if way != "smp":
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
        for way in WAYS:
            row[way] |= sizes(pair, way)
            row[way] |= {f"peak {what} MiB": peak(pair, way, what) for what in ("forward", "step")}
            row[way]["loss after 30 steps"] = [round(learned(pair, way, seed), 3) for seed in range(3)]
        print(json.dumps({pair: row}, indent=1), flush=True)


if __name__ == "__main__":
    main()
