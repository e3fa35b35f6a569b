"""How well a model does on chips, without a map."""

import torch

from landscribe import progress
from landscribe.confusion import Confusion
from landscribe.data.batches.dataset import loader
from landscribe.data.chips.chips import Chips
from landscribe.model import Model

_BATCH = 4


def score(model: Model, chips: Chips, what: str) -> Confusion:
    """Count a model's answers on chips against their labels.

    Args:
        model: its network is moved to the GPU if there is one, and set to eval mode.
        chips: those to look at, each whole: overlapping ones count twice where they overlap.
        what: for the progress bar.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.network.to(device).eval().to(memory_format=torch.channels_last)
    confusion = Confusion.zeros(model.classes)
    batches = loader(chips, batch=_BATCH, workers=0)
    with progress.task(what, len(batches)) as advance, torch.inference_mode():
        for batch in batches:
            logits = model.logits(batch["image"].to(device), batch["valid"].to(device))
            predicted = logits.argmax(dim=1).to(torch.uint8).cpu().numpy()
            confusion += Confusion.of(model.classes, batch["label"].numpy(), predicted)
            advance()
    return confusion
