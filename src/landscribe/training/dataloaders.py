"""Chips as the batches that one process of a training takes."""

from dataclasses import replace

import torch
from torch.utils.data import DataLoader

from landscribe.data.batches.dataset import Batch, ChipTransform, loader
from landscribe.data.batches.label_windows import WindowSampler
from landscribe.data.batches.sampling import ChipSampler, RankShare, repeat_factors
from landscribe.data.chips.chips import Chips
from landscribe.executor import cores
from landscribe.training.parallel import Processes
from landscribe.training.spec import TrainSpec


def order_of(training: Chips, spec: TrainSpec, seed: int, group: Processes | None = None) -> ChipSampler:
    """Which training chips, or windows around them, come when; of a group's process, its part of each batch."""
    share = None if group is None else RankShare(batch=spec.batch, rank=group.rank, processes=group.count)
    if spec.sampling == "label_windows":
        return WindowSampler(training, background=spec.background, seed=seed, share=share)
    wanted = repeat_factors(training, balanced=spec.sampling == "balanced", background=spec.background)
    return ChipSampler(wanted, seed=seed, share=share)


def training_batches(
    training: Chips, order: ChipSampler, spec: TrainSpec, group: Processes, change: ChipTransform | None = None
) -> DataLoader[Batch]:
    """This process's part of each training batch, changed by a user's pipeline if there is one."""
    batch = spec.batch // group.count
    return loader(training, batch=batch, workers=_workers(spec, group), order=order, transform=change)


def validation_batches(validation: Chips, spec: TrainSpec, group: Processes) -> DataLoader[Batch] | None:
    """This process's part of the validation chips; None if there are none."""
    if not len(validation):
        return None
    part = validation.table.iloc[group.rank :: group.count].reset_index(drop=True)
    batch = spec.batch // group.count
    return loader(replace(validation, table=part), batch=batch, workers=_workers(spec, group))


def _workers(spec: TrainSpec, group: Processes) -> int:
    """As asked for; on a GPU, reading beside computing pays, on the CPU it would take the cores that compute."""
    if spec.workers is not None:
        return spec.workers
    free = cores() // (group.count // group.machines) - 1
    return min(8, max(0, free)) if torch.cuda.is_available() else 0
