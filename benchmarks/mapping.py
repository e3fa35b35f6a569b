"""Mapping: speed, agreement, memory and workers of `landscribe predict`, beside the bare network and peers.

    python benchmarks/mapping.py speed [--side 4096] [--rounds 5] [--peers PYTHON]
    python benchmarks/mapping.py agreement --model FOLDER --image scene.tif [--peers PYTHON]
    python benchmarks/mapping.py memory [--sides 8000 40000]
    python benchmarks/mapping.py workers [--side 4096] [--rounds 3]

`--peers` is the interpreter of an environment with the peers' packages: `python -m venv DIR`, then
`DIR/bin/pip install . segmentation-models-pytorch geoai-py torchgeo`. Without it the peers are left out. Every run is
its own process (`mapping_methods.py`) on two threads, and the methods take turns within each round. Prints tables in
Markdown.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from json import loads
from pathlib import Path

import numpy as np
import rasterio
import torch
from affine import Affine
from mapping_methods import PEERS, OneLayer

from landscribe import verbs
from landscribe.executor import own_cluster
from landscribe.machine import processor_name
from landscribe.model import Model
from landscribe.nn import build

OURS = ("landscribe engine=torch", "landscribe")
SPEED = ("forward", *OURS, "predict_geotiff", "semantic_inference", "torchgeo", "lecture")
AGREEMENT = (*OURS, "predict_geotiff", "semantic_inference", "torchgeo", "lecture")
CLASSES = [f"class {index}" for index in range(6)]
GEOREFERENCE = {"crs": "EPSG:32617", "transform": Affine(0.5, 0, 500_000, 0, -0.5, 4_000_000)}
LAYOUT = {"driver": "GTiff", "tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "agreement", "memory", "workers"])
    parser.add_argument("--side", type=int, default=4096, help="of the raster, in pixels")
    parser.add_argument("--sides", type=int, nargs=2, default=(8_000, 40_000), help="of the two rasters of `memory`")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2, help="of torch, in each process")
    parser.add_argument("--only", nargs="+", help="methods to run")
    parser.add_argument("--peers", type=Path, help="interpreter of the peers' environment")
    parser.add_argument("--model", type=Path, help="model folder; a UNet on ResNet-18 with random weights if left out")
    parser.add_argument("--image", type=Path, help="raster; noise of many scales if left out")
    parser.add_argument("--work", type=Path, help="folder for temporary files")
    given = parser.parse_args()
    print(f"{processor_name()}, {os.cpu_count()} cores, torch {torch.__version__}\n")
    with tempfile.TemporaryDirectory(dir=given.work) as folder:
        {"speed": speed, "agreement": agreement, "memory": memory, "workers": workers}[given.what](given, Path(folder))


def speed(given: argparse.Namespace, work: Path) -> None:
    """Seconds of each method on the same raster, and their ratios."""
    model, image = given.model or random_model(work), given.image or noise(work / "image.tif", given.side)
    methods = chosen(SPEED, given)
    first = first_runs(methods, model, image, work, given)
    runs: dict[str, list[dict[str, float]]] = {method: [] for method in methods}
    for _ in range(given.rounds):
        for method, rounds in runs.items():
            with run(method, model, image, work, given) as (measured, _):
                rounds.append(measured)
    print(f"| method | seconds ({given.rounds} runs: min to max) | CPU seconds | over forward | over ours | peak MiB |")
    print("|---|---|---|---|---|---|")
    ours = next((method for method in reversed(OURS) if method in methods), None)
    for method, rounds in runs.items():
        seconds = [measured["seconds"] for measured in rounds]
        ratios = [ratio(runs, method, "forward"), ratio(runs, method, ours)]
        peak = max(measured["peak_mib"] for measured in rounds)
        spread = f"{statistics.median(seconds):.1f} ({min(seconds):.1f} to {max(seconds):.1f})"
        cpu = statistics.median(measured["cpu_seconds"] for measured in rounds)
        print(f"| {method} | {spread} | {cpu:.1f} | {ratios[0]} | {ratios[1]} | {peak:.0f} |", flush=True)
    for method, seconds in first.items():
        print(f"\n{method}, first run with this model: {seconds:.1f} s")


def ratio(runs: dict[str, list[dict[str, float]]], method: str, base: str | None) -> str:
    """Median over the rounds of the ratio within a round."""
    if base not in runs:
        return ""
    pairs = zip(runs[method], runs[base], strict=True)
    return f"{statistics.median(a['seconds'] / b['seconds'] for a, b in pairs):.2f}"


def agreement(given: argparse.Namespace, work: Path) -> None:
    """Share of the pixels whose class differs from a single pass over the whole raster."""
    with run("single_pass", given.model, given.image, work, given) as (_, out):
        single = classes_of(out)
    print("| method | pixels whose class differs from a single pass |")
    print("|---|---|")
    print("| classes of the single pass | " + ", ".join(f"{share:.1%}" for share in shares(single)) + " |")
    for method in chosen(AGREEMENT, given):
        with run(method, given.model, given.image, work, given) as (_, out):
            print(f"| {method} | {(classes_of(out) != single).mean():.3%} |", flush=True)


def memory(given: argparse.Namespace, work: Path) -> None:
    """Peak memory of mapping a small and a large raster by one layer."""
    model = Model.wrap(OneLayer(), bands=["r", "g", "b"], classes=CLASSES, scale=1 / 255).save(work / "model")
    print("| raster | seconds | peak MiB |")
    print("|---|---|---|")
    peaks = []
    for side in given.sides:
        image = sparse(work / f"{side}.tif", side)
        with run("landscribe", model, image, work, given) as (measured, _):
            peaks.append(measured["peak_mib"])
        print(f"| {side}² | {measured['seconds']:.0f} | {peaks[-1]:.0f} |", flush=True)
    print(f"\nthe large one over the small one: {peaks[1] / peaks[0]:.3f}")


def workers(given: argparse.Namespace, work: Path) -> None:
    """Seconds with one and with two Dask workers of one thread, from the call to the finished map."""
    os.environ["OMP_NUM_THREADS"] = "1"  # the workers inherit it
    folder, image = given.model or random_model(work), given.image or noise(work / "image.tif", given.side)
    first = mapped_by(1, folder, image, work / "first.tif")
    print(f"first map, which measures margin and backend: {first:.1f} s", flush=True)
    ratios = []
    for index in range(given.rounds):
        one, two = (mapped_by(count, folder, image, work / f"{index}-{count}.tif") for count in (1, 2))
        print(f"round {index}: {one:.1f} s with one, {two:.1f} s with two", flush=True)
        ratios.append(one / two)
    print(f"two workers are {statistics.median(ratios):.2f} times as fast as one ({min(ratios):.2f} to "
          f"{max(ratios):.2f})")  # fmt: skip


def mapped_by(count: int, model: Path, image: Path, out: Path) -> float:
    """Seconds of a map by Dask workers; imports in the workers are not timed."""
    from dask.distributed import Client

    with own_cluster(count) as cluster, Client(cluster) as client:
        assert set(client.run(_threads).values()) == {1}
        started = time.perf_counter()
        verbs.predict(model, [image], out=out, dask=cluster.scheduler_address)
        return time.perf_counter() - started


def _threads() -> int:
    """Number of torch threads in a worker; imports all modules of a prediction."""
    import torch

    import landscribe.prediction.mapping  # noqa: F401

    return torch.get_num_threads()


def chosen(methods: tuple[str, ...], given: argparse.Namespace) -> list[str]:
    """The requested methods, or all that can run."""
    requested = given.only or [method for method in methods if given.peers or method not in PEERS]
    of_peers = [method for method in requested if method in PEERS]
    if of_peers and not given.peers:
        sys.exit(f"{', '.join(of_peers)}: --peers is missing.")
    return requested


def first_runs(methods: list[str], model: Path, image: Path, work: Path, given: argparse.Namespace) -> dict[str, float]:
    """Seconds of the first run of ours, which measures margin and backends and stores them in the model folder."""
    seconds = {}
    for method in methods:
        if method in OURS:
            with run(method, model, image, work, given) as (measured, _):
                seconds[method] = measured["seconds"]
    return seconds


@contextmanager
def run(
    method: str, model: Path, image: Path, work: Path, given: argparse.Namespace
) -> Iterator[tuple[dict[str, float], Path]]:
    """Map in a new process. Yields its measurements and the map, which is deleted after the block."""
    interpreter = given.peers if method in PEERS else sys.executable
    with tempfile.TemporaryDirectory(dir=work) as folder:
        out = Path(folder) / "map.tif"
        script = Path(__file__).with_name("mapping_methods.py")
        command = [interpreter, script, method, model, image, out, "--threads", str(given.threads)]
        environment = os.environ | {"OMP_NUM_THREADS": str(given.threads)}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            sys.exit(f"{method} failed:\n{done.stderr[-3000:]}")
        measured = loads(done.stdout.splitlines()[-1])
        # Printed at once, so that an interrupted comparison keeps its measurements.
        print(f"{method}: {measured}", file=sys.stderr, flush=True)
        yield measured, out


def random_model(work: Path) -> Path:
    """A UNet on ResNet-18 of segmentation-models-pytorch, six classes, random weights."""
    torch.manual_seed(0)
    network = build("smp:Unet", encoder="resnet18", bands=3, classes=len(CLASSES))
    return Model.wrap(network, bands=["r", "g", "b"], classes=CLASSES, scale=1 / 255).save(work / "model")


def noise(path: Path, side: int) -> Path:
    """Write an RGB GeoTIFF with structure of all sizes, as imagery has it."""
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros(3, side, side)
    for octave in range(1, side.bit_length()):
        cells = min(side, 2**octave)
        coarse = torch.randn(1, 3, cells, cells, generator=generator)
        fine = torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear", align_corners=False)
        total += fine[0] * 0.75**octave
    pixels = (128 + 50 * (total - total.mean()) / total.std()).clamp(0, 255).to(torch.uint8).numpy()
    with rasterio.open(path, "w", count=3, height=side, width=side, dtype="uint8", **LAYOUT, **GEOREFERENCE) as target:
        target.write(pixels)
    return path


def sparse(path: Path, side: int) -> Path:
    """Write a raster of valid zeros, most of whose blocks are not stored."""
    shape = {"count": 3, "height": side, "width": side, "dtype": "uint8", "sparse_ok": True, "bigtiff": "yes"}
    with rasterio.open(path, "w", **shape, **LAYOUT, **GEOREFERENCE) as target:
        target.write(np.full((3, 512, side), 7, np.uint8), window=((0, 512), (0, side)))
    return path


def classes_of(path: Path) -> np.ndarray:
    with rasterio.open(path) as source:
        return source.read(1)


def shares(classes: np.ndarray) -> np.ndarray:
    return np.bincount(classes.ravel()) / classes.size


if __name__ == "__main__":
    main()
