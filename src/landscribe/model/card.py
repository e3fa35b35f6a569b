"""The model card: README.md of a model folder, for readers and for model hubs."""

import re
from typing import Any

from landscribe.errors import counted
from landscribe.model.config import ModelConfig

_NAMES = {
    "train_loss": "training loss",
    "val_loss": "validation loss",
    "val_mean_f1": "mean F1",
    "val_mean_iou": "mean IoU",
    "val_overall_accuracy": "overall accuracy",
    "val_threshold": "threshold",
    "val_threshold_f1": "F1 at this threshold",
}
"""Names of measures, as the report has them."""


def model_card(config: ModelConfig) -> str:
    """The text of the card: bands, classes, initial weights, measures, and how to use the model."""
    rows = "\n".join(f"| {entry.value} | {entry.name} | {entry.colour} |" for entry in config.classes)
    measures = "\n".join(_line(*measure) for measure in config.measures.items()) or "- none recorded"
    terms = config.provenance.get("encoder_weights", {})
    initial = f"{terms.get('source', 'not recorded')}" + "".join(
        f", {name} {terms[name]}" for name in ("tag", "hub", "license") if name in terms
    )
    size = f"{config.pixel_size:.3g} m" if config.pixel_size else "not recorded"
    threshold = (
        ""
        if config.val_threshold is None
        else f" --threshold val    # {config.val_threshold:.3g}, the highest F1-score of {config.classes[1].name}"
    )
    return f"""---
library_name: landscribe
tags: [image-segmentation, remote-sensing]
---
# {config.architecture} on {config.arguments.get("encoder", "its own encoder")}

Maps {counted(len(config.bands), "band")} ({", ".join(config.bands)}; {config.dtype}) of {size} pixels
to {len(config.classes)} classes.

| value | class | colour |
|---|---|---|
{rows}

Initial weights: {initial}.

## Measures on the validation chips, which also chose the epoch
{measures}

## Use
```
landscribe predict THIS_FOLDER image.tif -o map.tif{threshold}
```
"""


def _line(name: str, value: Any) -> str:
    """One measure, with as many digits as the report has."""
    named = _NAMES.get(name) or re.sub("^val_f1_", "F1 of ", name)
    text = "undefined" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
    return f"- {named}: {text}"
