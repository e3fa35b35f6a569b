"""The processes that train together, one for each device, and the part of each batch that one process loads.

Lightning and torch run distributed data parallel training (Li et al. 2020, "PyTorch Distributed", arXiv:2006.15704).
This file detects who started the processes, and refuses settings that several processes cannot share.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.plugins.layer_sync import LayerSync
from timm.layers.norm_act import convert_sync_batchnorm
from torch import nn

from landscribe import progress
from landscribe.data.batches.dataset import ChipTransform, loader
from landscribe.data.batches.label_windows import LabelWindowSampler
from landscribe.data.batches.read_ahead import ReadAhead
from landscribe.data.batches.sampling import ChipSampler, RankShare, repeat_factors
from landscribe.data.batches.windows import RandomWindowSampler
from landscribe.data.chips.chips import Chips
from landscribe.data.chips.window_reader import decoded_bytes
from landscribe.errors import LandscribeError, RecipeError, counted
from landscribe.machine import cores, total_memory
from landscribe.training.spec import TrainSpec

log = logging.getLogger(__name__)

_KEPT_SHARE = 8
"""Train chips, and val chips, are kept in memory if all of them need at most this part of it."""


@dataclass(frozen=True)
class Processes:
    """The processes of one training, on one or several nodes."""

    count: int = 1
    rank: int = 0
    """Index of this process, from 0."""
    nodes: int = 1
    launcher: Literal["none", "lightning", "torchrun", "SLURM"] = "none"
    """What starts the processes: Lightning runs the same command again for each process but the first."""

    @property
    def is_rank_zero(self) -> bool:
        """True in the process that prints and writes."""
        return self.rank == 0

    @property
    def is_worker_process(self) -> bool:
        """True in a process that Lightning started; it ends with the training."""
        return self.launcher == "lightning" and not self.is_rank_zero

    def is_lost_to(self, error: RuntimeError) -> bool:
        """True for the error of a process that waits for another one, which has ended."""
        # torch has no class for the errors of Gloo, which connects processes on CPUs.
        return self.count > 1 and (isinstance(error, torch.distributed.DistError) or "gloo/transport" in str(error))


def processes(devices: int | Literal["auto"]) -> Processes:
    """The processes of this training.

    Raises:
        RecipeError: `devices` differs from the number of processes that were started, or exceeds the number of GPUs.
    """
    group = _launched_processes() or _lightning_processes(1 if devices == "auto" else devices)
    if devices not in ("auto", group.count):
        raise RecipeError(
            f"devices is {devices}, but {group.launcher} started {group.count} processes. "
            f"Leave out devices, or start {devices} processes."
        )
    if torch.cuda.is_available() and group.count // group.nodes > torch.cuda.device_count():
        raise RecipeError(
            f"devices is {group.count // group.nodes}, but this machine has {torch.cuda.device_count()} GPUs. "
            f"Use at most {torch.cuda.device_count()}."
        )
    return group


def _launched_processes() -> Processes | None:
    """The processes that torchrun or SLURM started; None if neither did."""
    environment: ClusterEnvironment
    if TorchElasticEnvironment.detect():
        environment = TorchElasticEnvironment()
        count = environment.world_size()
        nodes = count // int(os.environ.get("LOCAL_WORLD_SIZE", str(count)))
        return Processes(count, environment.global_rank(), nodes, "torchrun")
    if _is_slurm_without_srun():
        return None
    if "SLURM_NTASKS" in os.environ and SLURMEnvironment.detect():
        try:
            environment = SLURMEnvironment()
        except RuntimeError as error:
            raise RecipeError(" ".join(str(error).split())) from error
        return Processes(
            environment.world_size(), environment.global_rank(), int(os.environ.get("SLURM_NNODES", "1")), "SLURM"
        )
    return None


def _is_slurm_without_srun() -> bool:
    """True in a SLURM allocation without srun: SLURM has allocated tasks, but started none."""
    return "SLURM_NTASKS" in os.environ and "SLURM_STEP_ID" not in os.environ


def process_plugins(group: Processes) -> list[ClusterEnvironment | LayerSync]:
    """Plugins of Lightning's Trainer for these processes."""
    is_on_gpus = group.count > 1 and torch.cuda.is_available()
    return [*_cluster_plugins(group), *([SyncedNormalisation()] if is_on_gpus else [])]


_NORMALISATIONS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class SyncedNormalisation(LayerSync):
    """Batch normalisation over the batches of all processes, during a training.

    By timm's conversion: torch's own, which Lightning calls, drops the activations that timm's normalisations hold.
    """

    def __init__(self) -> None:
        self._own: dict[str, nn.Module] = {}

    def apply(self, model: nn.Module) -> nn.Module:
        """Replace the normalisations of a model; returns the same model."""
        modules = model.named_modules(remove_duplicate=False)
        self._own = {name: module for name, module in modules if isinstance(module, _NORMALISATIONS)}
        converted: nn.Module = convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return converted

    def revert(self, model: nn.Module) -> nn.Module:
        """Put the model's own normalisations back, with what they have learned."""
        for name, own in self._own.items():
            synced = model.get_submodule(name)
            own.load_state_dict(synced.state_dict())
            own.train(synced.training)
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, own)
        return model


def _cluster_plugins(group: Processes) -> list[ClusterEnvironment]:
    """Plugins that keep Lightning from waiting for SLURM tasks that srun has not started."""
    if not _is_slurm_without_srun() or group.launcher == "torchrun":
        return []
    if group.count == 1 and int(os.environ["SLURM_NTASKS"]) > 1:
        log.warning(
            "SLURM allocated %s tasks, but srun did not start this process: it trains alone. "
            "To train with all tasks: srun landscribe train …",
            os.environ["SLURM_NTASKS"],
        )
    return [LightningEnvironment()]


def _lightning_processes(count: int) -> Processes:
    """The processes that Lightning starts; it sets LOCAL_RANK in each of them."""
    return Processes(count, int(os.environ.get("LOCAL_RANK", "0")), 1, "lightning") if count > 1 else Processes()


def require_single_process(command: str) -> None:
    """Raise RecipeError if torchrun or SLURM started several processes of a command that does more than training."""
    group = _launched_processes()
    if group is not None and group.count > 1:
        raise RecipeError(
            f"{group.launcher} started {group.count} processes of {command}, which would write the same files. "
            f"Start one process with --devices {group.count // group.nodes}, or use {group.launcher} for "
            "landscribe train only."
        )


def require_one_process(devices: int | Literal["auto"]) -> None:
    """Raise RecipeError if several processes are to train: they end with a training, and another one would follow."""
    count = processes(devices).count
    if count > 1:
        raise RecipeError(
            f"the models are trained one after the other in one process, but {count} were asked for. Leave out "
            "devices, or train each model with a command of its own."
        )


def require_shareable_batches(spec: TrainSpec, group: Processes, *, drawn: int, validation: int) -> None:
    """Raise RecipeError if the processes cannot share each batch evenly.

    Args:
        spec: batch size and learning rate.
        group: the processes.
        drawn: number of chips in a training epoch.
        validation: number of validation chips.
    """
    if group.count == 1:
        return
    if spec.chips_a_batch % group.count:
        shareable = group.count * -(-spec.chips_a_batch // group.count)
        raise RecipeError(
            f"batch is {spec.chips_a_batch}, which {group.count} processes cannot share evenly. "
            f"Expected a multiple of {group.count}, such as --batch {shareable}."
        )
    for name, count in (("train", drawn), ("val", validation)):
        if 0 < count < group.count:
            raise RecipeError(
                f"split {name} has {counted(count, 'chip')} for {group.count} processes. "
                "Expected at least one for each process. Use fewer processes."
            )
    if spec.learning_rate == "auto":
        raise RecipeError(
            f"learning_rate = auto needs one process, but there are {group.count}. "
            "Find the rate on one device first, or give a number."
        )


def chip_sampler(training: Chips, spec: TrainSpec, seed: int, group: Processes | None = None) -> ChipSampler:
    """The draws of a training from its chips; with a group, this process's part of each batch.

    Args:
        training: the chips to train on.
        spec: resolved settings.
        seed: of the draws.
        group: the processes that share each batch.
    """
    share = None if group is None else RankShare(batch=spec.chips_a_batch, rank=group.rank, processes=group.count)
    factors = repeat_factors(training, balanced=spec.sampling == "balanced", background=spec.background)
    order: ChipSampler
    if spec.sampling == "label_windows":
        order = LabelWindowSampler(training, background=spec.background, seed=seed, share=share)
    elif _draws_windows(training, spec):
        order = RandomWindowSampler(training, factors, seed=seed, share=share)
    else:
        order = ChipSampler(factors, seed=seed, share=share)
    order.drawn = spec.drawn_an_epoch(order.pass_length)
    return order


def sampling_of(order: ChipSampler, spec: TrainSpec) -> str:
    """What a training drew from its chips, also where the setting is auto."""
    if spec.sampling != "auto":
        return spec.sampling
    return "windows" if isinstance(order, RandomWindowSampler) else "all"


def _draws_windows(training: Chips, spec: TrainSpec) -> bool:
    """True if windows are drawn at random positions, where that was chosen or is possible."""
    if spec.sampling != "auto" or training.metadata.virtual or not training.has_objects:
        return spec.sampling in ("auto", "windows")
    try:
        # Object numbers end at the edge of a chip: those of a window are read from its scene.
        training.scenes()
    except LandscribeError as error:
        log.info("sampling: all, since the scenes that hold the object numbers cannot be read (%s)", error)
        return False
    return True


def validation_batches(validation: Chips, spec: TrainSpec, group: Processes) -> ReadAhead | None:
    """This process's part of the validation chips; None if there are none."""
    if not len(validation):
        return None
    return process_batches(validation.take(slice(group.rank, None, group.count)), spec, group)


def process_batches(
    chips: Chips,
    spec: TrainSpec,
    group: Processes,
    *,
    order: ChipSampler | None = None,
    change: ChipTransform | None = None,
) -> ReadAhead:
    """This process's part of each batch, which a thread reads ahead, from memory or from the files.

    Args:
        chips: to read.
        spec: batch size and reader processes.
        group: the processes that share each batch.
        order: of the chips, with this process's part of each batch; as they lie if None.
        change: the user's own pipeline.
    """
    on_this_machine = group.count // group.nodes
    kept_bytes = total_memory() // _KEPT_SHARE // on_this_machine
    free = max(0, cores() // on_this_machine - 1)
    workers = spec.workers
    if workers is None:
        # On a CPU, reader processes would take the cores that train; chips in memory need none.
        reads_slowly = change is not None or decoded_bytes(chips) > kept_bytes
        workers = min(8, free) if torch.cuda.is_available() and reads_slowly else 0
    batch = spec.chips_a_batch // group.count
    batches = loader(chips, batch=batch, workers=workers, order=order, transform=change, kept_bytes=kept_bytes)
    return ReadAhead(batches, pin=torch.cuda.is_available())


@contextmanager
def report_on_rank_zero(group: Processes) -> Iterator[None]:
    """Show warnings, notes and progress of rank 0 only; the others would repeat them.

    Raises:
        SystemExit: this is another rank, and a process that it waits for has ended; rank 0 says so.
    """
    if group.is_rank_zero:
        yield
        return
    logger = logging.getLogger("landscribe")
    level, reporter = logger.level, progress.reporter.set(progress.silent)
    logger.setLevel(logging.ERROR)
    try:
        yield
    except RuntimeError as error:
        if not group.is_lost_to(error):
            raise
        raise SystemExit(1) from error
    finally:
        logger.setLevel(level)
        progress.reporter.reset(reporter)


def leave_group(group: Processes) -> None:
    """Wait until the model is saved, then leave the process group; a process that Lightning started exits."""
    if group.count == 1:
        return
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    if group.launcher == "lightning":
        # With these variables set, Lightning would not start processes for the next training.
        for name in ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            os.environ.pop(name, None)
    if group.is_worker_process:
        raise SystemExit(0)
