"""Evaluation: the confusion of a model on chips, without a map."""

from dataclasses import replace

import torch
from torch import Tensor

from landscribe import progress
from landscribe.confusion import Confusion
from landscribe.data.batches.dataset import loader
from landscribe.data.batches.read_ahead import ReadAhead
from landscribe.data.chips.chips import Chips
from landscribe.geo.classes import IGNORE
from landscribe.inference.device import in_eval_mode, place_network, resolve_device, to_device
from landscribe.model import Model

_BATCH = 4


def count_pairs(rows: Tensor, cols: Tensor, shape: tuple[int, int]) -> Tensor:
    """Pixels by row and column, (R, C) int64, counted on the device of the tensors.

    Args:
        rows: row of each pixel, such as its class index in the reference; pixels of ignore (255) are not counted.
        cols: column of each pixel, such as its predicted class index, of the same shape.
        shape: (R, C).

    Example:
        >>> count_pairs(torch.tensor([0, 1, 1, 255]), torch.tensor([0, 0, 1, 1]), (2, 2)).tolist()
        [[1, 0], [1, 1]]
    """
    height, width = shape
    pairs = torch.where(rows == IGNORE, height * width, rows.long() * width + cols.long()).flatten()
    counts = torch.zeros(height * width + 1, dtype=torch.int64, device=pairs.device)
    # Not by bincount, for which a GPU's thread waits until all is computed.
    return counts.index_add_(0, pairs, counts.new_ones(()).expand_as(pairs))[:-1].view(shape)


def score(model: Model, chips: Chips, title: str) -> Confusion:
    """Count a model's predicted classes on chips against their labels.

    The network computes in 32 bits, as in a map without a backend of 16 bits that was measured to agree.

    Args:
        model: its network is moved to the GPU if there is one; of one in training mode, a copy predicts.
        chips: each is counted whole, so pixels where chips overlap count more than once.
        title: of the progress bar.
    """
    device = resolve_device()
    model = replace(model, network=place_network(in_eval_mode(model.network), device))
    size = len(model.classes)
    counts = torch.zeros(size, size, dtype=torch.int64, device=device)
    batches = ReadAhead(loader(chips, batch=_BATCH, workers=0), pin=device.type == "cuda")
    with progress.task(title, len(batches)) as advance, torch.inference_mode():
        for batch in batches:
            image, valid, label = (to_device(batch[name], device) for name in ("image", "valid", "label"))
            counts += count_pairs(label, model.logits(image, valid).argmax(dim=1), (size, size))
            advance()
    return Confusion(model.classes, counts.cpu().numpy())
