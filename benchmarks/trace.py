"""Trace: how many files of the package a small `predict` and a small `train` enter at run time.

    python benchmarks/trace.py

A file counts if one of its functions is called, in any thread; code that runs at import does not. Prints the files in
the order of their first call.
"""

import importlib
import pkgutil
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch

import landscribe as ls
from landscribe.model import Model
from landscribe.nn import build
from landscribe.synthetic import draw, write

PACKAGE = str(Path(ls.__file__).parent)
SIDE = 768
STEPS = {"Planner.plan", "write_map", "run", "finish"}


def main() -> None:
    torch.set_num_threads(2)
    # All modules are imported first, so that code that runs at import is not counted.
    for module in pkgutil.walk_packages(ls.__path__, "landscribe."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(draw(SIDE, SIDE, seed=0), folder)
        bands = ("red", "green", "blue")
        network = build("unet", bands=bands, classes=3, encoder="resnet18", weights=None)
        model = Model.wrap(network, bands=bands, classes=["a", "b", "c"], scale=1 / 255, pixel_size=0.5)
        model.save(folder / "model")
        chips = ls.chip(
            images=[folder / "scene.tif"], labels=folder / "labels.geojson", label_field="class", out=folder / "chips",
            size=128,
        )  # fmt: skip
        options = {"out": folder / "map.tif", "any_pixel_size": True, "unit": 256}
        report("predict", *entered(lambda: ls.predict(folder / "model", [folder / "scene.tif"], **options)))
        report("train", *entered(lambda: ls.train(chips, out=folder / "trained", steps=2, batch=2)))


def entered(work: Callable[[], object]) -> tuple[list[str], Counter[str]]:
    """Files of the package whose functions `work` calls, by first call; calls of the steps of a map."""
    files: dict[str, None] = {}
    steps: Counter[str] = Counter()

    def profile(frame: object, event: str, _: object) -> None:
        if event == "call" and (name := frame.f_code.co_filename).startswith(PACKAGE):
            files.setdefault(name)
            if Path(name).parent.name == "prediction":
                steps.update({frame.f_code.co_qualname} & STEPS)

    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return [str(Path(file).relative_to(PACKAGE)) for file in files], steps


def report(verb: str, files: list[str], steps: Counter[str]) -> None:
    print(f"{verb}: {len(files)} files\n  " + "\n  ".join(files))
    print("".join(f"  {step} is called {count} times\n" for step, count in steps.items()))


if __name__ == "__main__":
    main()
