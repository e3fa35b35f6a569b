"""GPU: how much of a card's speed `landscribe` takes, in ratios within one run.

    python benchmarks/gpu.py [mapping] [--side 16384] [--rounds 3] [--cores 2 4 8 16] [--model FOLDER] [--device cuda]

mapping: the bare network (tiles of 1024 pixels that lie on the card, best class) in float32 and bfloat16, and the whole
of `landscribe predict` on a deflated RGB GeoTIFF, assembly included; the share of assembly; with few and many cores;
and the pixels whose class differs from float32.

training: steps per second of the bare network, loss and optimizer on one batch that lies on the card, and of
`landscribe train` in the same precision, with its windows and augmentation, without and with validation: a long less a
short training.

Networks take turns within each round; each map is a process of its own. Prints tables in Markdown. Runs on a CPU too,
with a small `--side`.

Another subject is a function of (given, work) and a line in SUBJECTS.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mapping import classes_of, noise, random_model

from landscribe.data.chips.chips import Chips
from landscribe.geo.classes import IGNORE
from landscribe.inference.backends.torch_backend import fused_network
from landscribe.inference.benchmark import synthetic_images, time_in_turns
from landscribe.inference.device import resolve_device, synchronize, training_autocast, training_precision
from landscribe.machine import cores, processor_name
from landscribe.model import Model
from landscribe.nn import build
from landscribe.nn.losses import weighted_sum

BARE = {"bare float32": torch.float32, "bare bfloat16": torch.bfloat16}
"""Names of rows, and the types of weights and features."""
PRECISIONS = ("32", "bf16", "auto")
BASE = "bare bfloat16"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subjects", nargs="*", default=list(SUBJECTS), help=f"of {', '.join(SUBJECTS)}; default: all")
    parser.add_argument("--side", type=int, default=16_384, help="of the raster, in pixels")
    parser.add_argument("--tile", type=int, default=1024, help="of the bare network, in pixels")
    parser.add_argument("--batch", type=int, default=4, help="tiles at once of the bare network")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", type=int, nargs="*", default=[2, 4, 8, 16], help="more than there are, are left out")
    parser.add_argument("--chip", type=int, default=256, help="side of a training chip, in pixels")
    parser.add_argument("--world", type=int, default=4096, help="side of the synthetic world to train on, in pixels")
    parser.add_argument("--steps", type=int, default=2000, help="of the long training; the short one has a tenth")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--model", type=Path, help="model folder; a UNet on ResNet-18 with random weights if left out")
    parser.add_argument("--work", type=Path, help="folder for temporary files")
    given = parser.parse_args(arguments)
    given.device = str(resolve_device(given.device))
    print(f"{device_name(torch.device(given.device))}, {cores()} cores, torch {torch.__version__}\n")
    with tempfile.TemporaryDirectory(dir=given.work) as folder:
        for subject in given.subjects:
            SUBJECTS[subject](given, Path(folder))


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()


def mapping(given: argparse.Namespace, work: Path) -> None:
    """Speed of maps beside that of the bare network."""
    model = given.model or random_model(work)
    image = noise(work / "image.tif", given.side)
    methods = {f"predict --precision {precision}": (precision, cores()) for precision in PRECISIONS}
    fewer = [count for count in given.cores if count < cores()]
    methods |= {f"predict --precision bf16, {count} cores": ("bf16", count) for count in fewer}
    speeds: dict[str, list[float]] = {name: [] for name in (*BARE, *methods)}
    shares: dict[str, list[float]] = {name: [] for name in methods}
    for precision in PRECISIONS:
        predicted(given, model, image, work / f"{precision}.tif", precision, cores())  # measures margin and backend
    for _ in range(given.rounds):
        for name, speed in bare_speeds(given, model).items():
            speeds[name].append(speed)
        for name, (precision, count) in methods.items():
            # A finished map of the same settings would be kept.
            (work / "map.tif").unlink(missing_ok=True)
            measured = predicted(given, model, image, work / "map.tif", precision, count)
            speeds[name].append(given.side**2 / 1e6 / measured["seconds"])
            shares[name].append(measured["assembly"] / measured["seconds"])
    print(f"| {given.side}², {Model.load(model).architecture} | Mpx/s (min to max) | over {BASE} | assembly |")
    print("|---|---|---|---|")
    for name, measured in speeds.items():
        ratio = statistics.median(own / base for own, base in zip(measured, speeds[BASE], strict=True))
        spread = f"{statistics.median(measured):.3g} ({min(measured):.3g} to {max(measured):.3g})"
        assembly = f"{statistics.median(shares[name]):.1%}" if name in shares else ""
        print(f"| {name} | {spread} | {ratio:.2f} | {assembly} |")
    exact = classes_of(work / "32.tif")
    for precision in PRECISIONS[1:]:
        differing = np.mean(classes_of(work / f"{precision}.tif") != exact)
        print(f"\n--precision {precision}: {differing:.3%} of the pixels have another class than with 32")


def bare_speeds(given: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Megapixels per second of the network alone, by row."""
    device = torch.device(given.device)
    batches = 1 if device.type == "cpu" else 10  # launched without waiting

    def call(dtype: torch.dtype) -> Callable[[], None]:
        model = Model.load(folder)
        images = synthetic_images((given.batch, len(model.bands), given.tile, given.tile), device).to(dtype)
        network = fused_network(model, device, (model.main_head,)).to(dtype)

        def run() -> None:
            for _ in range(batches):
                network(images).max(dim=1).indices.to(torch.uint8)

        return run

    with torch.inference_mode():
        calls = {row: call(dtype) for row, dtype in BARE.items()}
        time_in_turns(calls, device, rounds=3)  # warms up
        times = time_in_turns(calls, device, rounds=5)
    pixels = batches * given.batch * given.tile**2 / 1e6
    return {row: pixels / statistics.median(seconds) for row, seconds in times.items()}


def predicted(
    given: argparse.Namespace, model: Path, image: Path, out: Path, precision: str, count: int
) -> dict[str, float]:
    """Seconds of a map and of its assembly, in a new process on so many cores."""
    command = [sys.executable, __file__, "--one-map", model, image, out, precision, given.device, str(count)]
    environment = os.environ | {"OMP_NUM_THREADS": str(count), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        sys.exit(f"predict failed:\n{done.stderr[-3000:]}")
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(f"{precision}, {count} cores: {measured}", file=sys.stderr, flush=True)
    return measured


def one_map(model: str, image: str, out: str, precision: str, device: str, count: str) -> None:
    """Map in this process, which `predicted` started; prints its seconds."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(count)])
    from landscribe import verbs
    from landscribe.prediction import mapping as steps

    real, assembly = steps.finish, [0.0]

    def finish(*arguments: Any) -> Path:
        started = time.perf_counter()
        finished = real(*arguments)
        assembly[0] = time.perf_counter() - started
        return finished

    steps.finish = finish
    opened = Model.load(model)
    if device != "cpu":
        # The card's context and libraries are loaded once in a process; they are not part of a map.
        torch.nn.Conv2d(3, 8, 3).to(device)(torch.zeros(1, 3, 64, 64, device=device)).sum().item()
    started = time.perf_counter()
    verbs.predict(opened, [image], out=out, overwrite=True, precision=precision, device=device)
    print(json.dumps({"seconds": time.perf_counter() - started, "assembly": assembly[0]}))


def training(given: argparse.Namespace, work: Path) -> None:
    """Steps of training beside those of the bare network. `train` takes the GPU if there is one."""
    from landscribe import verbs
    from landscribe.synthetic import draw, write

    scene, labels, _ = write(draw(given.world, given.world, seed=0), work / "world")
    chips = verbs.chip(images=[scene], labels=labels, label_field="class", size=given.chip, out=work / "chips")
    methods = {"landscribe train, no validation": chips.of_split("train"), "landscribe train": chips}
    rows: dict[str, list[float]] = {"bare": []} | {name: [] for name in methods}
    short = max(1, given.steps // 10)
    verbs.train(chips, out=work / "model", steps=1, weights="none", augment="light")  # warms up
    for index in range(given.rounds):
        rows["bare"].append(bare_steps(chips, given.steps - short, resolve_device(given.device)))
        for number, (name, ground) in enumerate(methods.items()):
            seconds = []
            for steps in (short, given.steps):
                started, out = time.perf_counter(), work / f"model-{index}-{number}-{steps}"
                verbs.train(ground, out=out, steps=steps, weights="none", augment="light")
                seconds.append(time.perf_counter() - started)
            rows[name].append((given.steps - short) / (seconds[1] - seconds[0]))
    print(f"| 8 x {given.chip}², {given.steps} steps | steps/s (min to max) | over bare |")
    print("|---|---|---|")
    for name, measured in rows.items():
        ratio = statistics.median(own / base for own, base in zip(measured, rows["bare"], strict=True))
        print(
            f"| {name} | {statistics.median(measured):.3g} ({min(measured):.3g} to {max(measured):.3g}) | {ratio:.2f} |"
        )


def bare_steps(chips: Chips, steps: int, device: torch.device) -> float:
    """Steps per second of network, loss and optimizer on one batch, in the precision of `landscribe train`."""
    network = build("unet", bands=chips.metadata.bands, classes=len(chips.classes), encoder="resnet18", weights=None)
    network = network.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)  # as of training
    criterion = partial(weighted_sum("dice + ce"), ignore=IGNORE)
    side = chips.metadata.size
    images = torch.rand(8, len(chips.metadata.bands), side, side, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, len(chips.classes), (8, side, side), device=device)
    precision = training_precision("auto", device)

    def step() -> None:
        optimizer.zero_grad()
        with training_autocast(precision, device):
            loss = network.training_loss(images, labels, criterion)
        loss.backward()
        optimizer.step()

    for _ in range(3):  # warms up
        step()
    synchronize(device)
    started = time.perf_counter()
    for _ in range(steps):
        step()
    synchronize(device)
    return steps / (time.perf_counter() - started)


SUBJECTS: dict[str, Callable[[argparse.Namespace, Path], None]] = {"mapping": mapping, "training": training}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one-map"]:
        one_map(*sys.argv[2:])
    else:
        main()
