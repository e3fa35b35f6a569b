"""Evaluation: the confusion of a model on chips, without a map."""

import torch

from landscribe import progress
from landscribe.confusion import Confusion
from landscribe.data.batches.dataset import loader
from landscribe.data.chips.chips import Chips
from landscribe.inference.device import inference_autocast, place_network, resolve_device
from landscribe.model import Model

_BATCH = 4


def score(model: Model, chips: Chips, title: str) -> Confusion:
    """Count a model's predicted classes on chips against their labels.

    Device and precision are those of `predict`.

    Args:
        model: its network is moved to the GPU if there is one, and set to eval mode.
        chips: each is counted whole, so pixels where chips overlap count more than once.
        title: of the progress bar.
    """
    device = resolve_device()
    place_network(model.network, device)
    confusion = Confusion.zeros(model.classes)
    batches = loader(chips, batch=_BATCH, workers=0)
    with progress.task(title, len(batches)) as advance, torch.inference_mode(), inference_autocast(device):
        for batch in batches:
            logits = model.logits(batch["image"].to(device), batch["valid"].to(device))
            predicted = logits.argmax(dim=1).to(torch.uint8).cpu().numpy()
            confusion += Confusion.of(model.classes, batch["label"].numpy(), predicted)
            advance()
    return confusion
