"""Settings: accuracy with different settings on the same chips, network and steps.

    python benchmarks/settings.py CHIPS --steps 200 --seeds 0 1 2 --split val \
        --variant "plain: loss=ce augment=none" --variant "default:"

Weights start from scratch. Each variant keeps the best epoch on val, as `landscribe train` does; with `--keep best
last` the last weights are scored too.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from landscribe import verbs
from landscribe.data.chips.chips import Chips
from landscribe.inference.evaluation import score
from landscribe.model import Model
from landscribe.spec import named_values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chips", type=Path)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--split", default="val")
    parser.add_argument("--variant", action="append", required=True)
    parser.add_argument("--keep", nargs="+", default=["best"])
    arguments = parser.parse_args()
    chips = Chips.open(arguments.chips)
    for seed in arguments.seeds:
        for variant in arguments.variant:
            name, _, text = variant.partition(":")
            settings = named_values(text.split())
            row = {"seed": seed, "variant": name, "settings": settings}
            for keep in arguments.keep:
                with tempfile.TemporaryDirectory() as folder:
                    model = verbs.train(
                        chips, out=Path(folder) / "model", steps=arguments.steps, seed=seed, weights="none",
                        checkpoint=keep, **settings,
                    )  # fmt: skip
                row[keep] = scores(model, chips.of_split(arguments.split))
            print(json.dumps(row), flush=True)


def scores(model: Model, chips: Chips) -> dict[str, Any]:
    """Mean F1 and that of each class over all chips of a split."""
    counted = score(model, chips, "scoring")
    by_class = {name: round(float(f1), 4) for name, f1 in zip(chips.classes.names, counted.f1, strict=True)}
    return {"mean_f1": round(counted.mean_f1, 4), **by_class}


if __name__ == "__main__":
    main()
