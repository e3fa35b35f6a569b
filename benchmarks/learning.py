"""Learning: settings and the lecture's way on ground that no training saw, with equal steps.

    python benchmarks/learning.py DATA OUT.jsonl --data banepa dubai --steps 200 --seeds 0 1 --size 128 \
        --method lecture --method "defaults:" --method "grid: sampling=all augment=light"

DATA is the folder of the example data sets (banepa_buildings, dubai, amazon_forest); world512 is drawn, its side is
512. A third of each is held out and scored: of Banepa and of the world the lowest rows, of Dubai tiles 3 and 8, of the
Amazon the last third of the images. The rest is split as by default, its own test chips being "unused". The lecture's
way is a UNet of segmentation-models-pytorch, random crops, flips, Dice + cross-entropy, Adam 1e-3, on all of the rest,
the last weights. `ground=all` in a method is the final training of `run --final all`: all of the rest, steps scaled to
it; `ground=equal` is the same with equal steps. `ground=50` trains on so few train chips that each is drawn 50 times.
`folds=3` trains a model for each fold of all of the rest, each with equal steps, and scores their mean probabilities.
A row has the mean F1 on the val chips after each epoch, from which early stopping can be read.
`--precision bf16` trains both in bfloat16, twice as fast at 256 pixels on a CPU that has it. Both train and are scored
on a GPU if there is one. Rows that OUT has are not repeated.
"""

import argparse
import json
import re
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import segmentation_models_pytorch as smp
import torch

from landscribe import cross_validate, verbs
from landscribe.confusion import Confusion
from landscribe.data.batches.dataset import ChipDataset, loader, to_float
from landscribe.data.batches.windows import RandomWindowSampler
from landscribe.data.chips.chips import Chips
from landscribe.inference.device import resolve_device
from landscribe.inference.evaluation import score
from landscribe.model import Model
from landscribe.recipe import Recipe
from landscribe.spec import named_values
from landscribe.synthetic import draw, write

_RECIPES = Path(__file__).parents[1] / "recipes"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", nargs="+", default=["banepa"])
    parser.add_argument("--steps", type=int, nargs="+", default=[200])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--precision", choices=["32", "bf16"], default="32")
    parser.add_argument("--method", action="append", required=True)
    arguments = parser.parse_args()
    done = arguments.out.read_text().splitlines() if arguments.out.exists() else []
    keys = {tuple(json.loads(line)["key"]) for line in done}
    for seed in arguments.seeds:
        for name in arguments.data:
            with tempfile.TemporaryDirectory() as scratch:
                chips = held_out_third(name, arguments.folder, Path(scratch), arguments.size, seed)
                for steps in arguments.steps:
                    for method in arguments.method:
                        key = [name, steps, seed, arguments.size, arguments.precision, method]
                        if tuple(key) not in keys:
                            row = {"key": key} | measured(chips, method, steps, seed, arguments.precision)
                            with arguments.out.open("a") as file:
                                file.write(json.dumps(row) + "\n")
                            print(json.dumps(row), flush=True)


def held_out_third(name: str, folder: Path, scratch: Path, size: int, seed: int) -> Chips:
    """Chips whose split test is ground that no training sees."""
    settings: dict[str, Any] = {"size": size, "out": scratch / "chips", "seed": seed}
    if name == "banepa":
        data = folder / "banepa_buildings" / "dev"
        chips = verbs.chip(images=[data / "scene.tif"], labels=data / "buildings.geojson", **settings)
    elif re.fullmatch("world[0-9]+", name):
        side = int(name.removeprefix("world"))
        write(draw(side, side, seed=7), scratch / "world")
        labels = scratch / "world" / "labels.geojson"
        chips = verbs.chip(images=[scratch / "world" / "scene.tif"], labels=labels, label_field="class", **settings)
    else:
        recipe = {"dubai": "dubai", "amazon": "amazon_forest"}[name]
        path = folder / recipe / "dev" / f"{recipe}.toml"
        chips = verbs.chip(Recipe.load(_copied(_RECIPES / f"{recipe}.toml", path.parent, scratch)), **settings)
    table = chips.table
    if name in ("dubai", "amazon"):
        scenes = sorted(set(table["scene"]))
        wanted = [s for s in scenes if re.match("tile[38]_", s)] or scenes[2 * len(scenes) // 3 :]
        rest = sorted(set(scenes) - set(wanted))
        drawn, count = np.random.default_rng(seed).permutation(rest).tolist(), max(1, round(0.15 * len(rest)))
        own = dict.fromkeys(drawn, "train") | dict.fromkeys(drawn[:count], "val")
        own |= dict.fromkeys(drawn[count : 2 * count], "unused") | dict.fromkeys(wanted, "test")
        split = table["scene"].map(own).to_numpy()
    else:
        border = 2 * int((table["row"] + table["height"]).max()) // 3
        is_test = table["row"] >= border + size // 4
        is_border = ~is_test & (table["row"] + table["height"] > border)
        own = table["split"].replace({"test": "unused"})
        split = np.where(is_test, "test", np.where(is_border, "border", own))
    return replace(chips, table=table.assign(split=split))


def _copied(recipe: Path, data: Path, scratch: Path) -> Path:
    """The recipe with absolute paths, without its splits."""
    text = recipe.read_text().replace('"images', f'"{data}/images').replace('"masks', f'"{data}/masks')
    text = "\n".join(line for line in text.splitlines() if not line.startswith("split = "))
    path = scratch / recipe.name
    path.write_text(text)
    return path


def measured(chips: Chips, method: str, steps: int, seed: int, precision: str) -> dict[str, Any]:
    """F1 on the held-out ground, and the seconds of the training."""
    name, _, text = method.partition(":")
    test, started, scores = chips.of_split("test"), time.perf_counter(), []
    if name == "lecture":
        network = lecture(_ground(chips, "all", seed, 8 * steps).of_split("train"), steps, seed, precision)
        seconds = time.perf_counter() - started
        confusion = lecture_score(network, test)
    else:
        settings = {"precision": precision, "weights": "none"} | named_values(text.split())
        folds, ground = settings.pop("folds", None), str(settings.pop("ground", "equal" if "folds=" in text else ""))
        given = _ground(chips, ground, seed, 8 * steps)
        if ground == "all":
            steps = round(steps * len(given.of_split("train")) / len(chips.of_split("train")))
        settings |= {"steps": steps, "seed": seed}
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "model"
            if folds is None:
                models = [verbs.train(given, out=out, **settings)]
            else:
                trained = cross_validate(given, out=out, folds=folds, **settings)
                models = [Model.load(fold.model) for fold in trained.folds]
        seconds = time.perf_counter() - started
        scores = [[row["val_mean_f1"] for row in model.history] for model in models]
        confusion = score(models[0], test, "scoring") if folds is None else ensemble_score(models, test)
    f1 = [None if np.isnan(value) else round(float(value), 4) for value in confusion.f1]
    chips_of = chips.table["split"].value_counts().to_dict()
    row = {"mean_f1": round(confusion.mean_f1, 4), "f1": f1, "seconds": round(seconds), "chips": chips_of}
    return row | {"val_mean_f1": scores}


def _ground(chips: Chips, ground: str, seed: int, drawn: int) -> Chips:
    """The chips to train with: all but the held-out third; or train and val, of train as many as `drawn` allows."""
    splits = chips.table["split"].to_numpy().copy()
    if ground in ("all", "equal"):
        splits[np.isin(splits, ["val", "unused", "gap"])] = "train"
    elif ground:
        train = np.random.default_rng(seed).permutation(np.flatnonzero(splits == "train"))
        assert len(train) >= drawn // int(ground), f"{len(train)} chips are too few for {ground} passes"
        splits[train[drawn // int(ground) :]] = "unused"
    return chips.with_splits(splits).take(np.isin(splits.astype(str), ["train", "val"]))


def lecture(ground: Chips, steps: int, seed: int, precision: str) -> torch.nn.Module:
    """A network trained as in the lecture, on random crops."""
    torch.manual_seed(seed)
    classes, device = len(ground.classes), resolve_device()
    network = smp.Unet("resnet18", encoder_weights=None, in_channels=3, classes=classes).train()
    network = network.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    dice = smp.losses.DiceLoss("multiclass", ignore_index=255)
    entropy = torch.nn.CrossEntropyLoss(ignore_index=255)
    order = RandomWindowSampler(ground, np.ones(len(ground)), seed=seed)
    order.drawn = 8 * steps
    rng = torch.Generator().manual_seed(seed)
    for stored in loader(ground, batch=8, workers=0, order=order):
        batch = to_float(stored)
        images, labels = batch["image"] / 255, batch["label"]
        for axis in (-1, -2):
            flipped = torch.rand(len(images), generator=rng) < 0.5
            images[flipped], labels[flipped] = images[flipped].flip(axis), labels[flipped].flip(axis)
        images, labels = images.to(device), labels.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            logits = network(images.contiguous(memory_format=torch.channels_last))
        logits = logits.float()
        optimizer.zero_grad()
        (dice(logits, labels) + entropy(logits, labels)).backward()
        optimizer.step()
    return network.eval()


def ensemble_score(models: list[Model], chips: Chips) -> Confusion:
    """The classes of the models' mean probabilities against the labels."""
    confusion, device = Confusion.zeros(chips.classes), resolve_device()
    for model in models:
        model.network.to(device).eval()
    for batch in map(to_float, loader(chips, batch=4, workers=0)):
        images, valid = batch["image"].to(device), batch["valid"].to(device)
        with torch.inference_mode():
            probabilities = [model.logits(images, valid).softmax(1) for model in models]
        predicted = torch.stack(probabilities).mean(0).argmax(1).to(torch.uint8).cpu()
        confusion += Confusion.of(chips.classes, batch["label"].numpy(), predicted.numpy())
    return confusion


def lecture_score(network: torch.nn.Module, chips: Chips) -> Confusion:
    confusion, dataset, device = Confusion.zeros(chips.classes), ChipDataset(chips), resolve_device()
    for index in range(len(dataset)):
        item = dataset[index]
        with torch.inference_mode():
            predicted = network(item["image"][None].to(device) / 255).argmax(1)[0].to(torch.uint8).cpu()
        confusion += Confusion.of(chips.classes, item["label"].numpy(), predicted.numpy())
    return confusion


if __name__ == "__main__":
    main()
