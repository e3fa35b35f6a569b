"""The processes that train together, one for each device: how many there are, which this is, what fits them.

Lightning and torch do the work (Li et al. 2020, "PyTorch Distributed", arXiv:2006.15704); here it is only found out
who started the processes, and refused what they cannot share.
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

from landscribe.errors import RecipeError
from landscribe.training.spec import TrainSpec

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Processes:
    """The processes of one training, on one machine or several."""

    count: int = 1
    rank: int = 0
    """Which of them this is, from 0."""
    machines: int = 1
    launcher: Literal["none", "lightning", "torchrun", "SLURM"] = "none"
    """Who starts them: Lightning runs the same command again for each process but the first."""

    @property
    def leads(self) -> bool:
        """True in the one that prints and writes."""
        return self.rank == 0

    @property
    def only_helps(self) -> bool:
        """True in a process that Lightning started for the sake of training alone."""
        return self.launcher == "lightning" and not self.leads


def processes(devices: int | Literal["auto"]) -> Processes:
    """The processes that this one trains with.

    Raises:
        RecipeError: another number of devices was asked for than processes were started.
    """
    found = _launched() or _by_lightning(1 if devices == "auto" else devices)
    if devices not in ("auto", found.count):
        raise RecipeError(
            f"devices is {devices}, but {found.launcher} started {found.count} processes. "
            "Leave out devices, or start as many."
        )
    if torch.cuda.is_available() and found.count // found.machines > torch.cuda.device_count():
        raise RecipeError(
            f"{found.count // found.machines} devices were asked for, but this machine has "
            f"{torch.cuda.device_count()} GPUs. Ask for as many or less."
        )
    return found


def _launched() -> Processes | None:
    """The processes that torchrun or SLURM started."""
    environment: ClusterEnvironment
    if TorchElasticEnvironment.detect():
        environment = TorchElasticEnvironment()
        count = environment.world_size()
        machines = count // int(os.environ.get("LOCAL_WORLD_SIZE", str(count)))
        return Processes(count, environment.global_rank(), machines, "torchrun")
    if _is_alone_in_slurm():
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


def _is_alone_in_slurm() -> bool:
    """True within an allocation of SLURM of whose tasks srun has started none: nobody else would come."""
    return "SLURM_NTASKS" in os.environ and "SLURM_STEP_ID" not in os.environ


def without_launcher(group: Processes) -> list[ClusterEnvironment]:
    """Plugins of Lightning's Trainer that keep it from waiting for tasks of SLURM that srun has not started."""
    if not _is_alone_in_slurm() or group.launcher == "torchrun":
        return []
    if group.count == 1 and int(os.environ["SLURM_NTASKS"]) > 1:
        log.warning(
            "SLURM gave %s tasks, but this process was not started by srun, so it trains alone. To train with all of "
            "them: srun landscribe train …",
            os.environ["SLURM_NTASKS"],
        )
    return [LightningEnvironment()]


def _by_lightning(count: int) -> Processes:
    """The processes that Lightning is to start, or has started: then it told each its number."""
    return Processes(count, int(os.environ.get("LOCAL_RANK", "0")), 1, "lightning") if count > 1 else Processes()


def require_started_once(what: str) -> None:
    """Raise RecipeError if torchrun or SLURM started several processes of what only its training shares."""
    found = _launched()
    if found is not None and found.count > 1:
        raise RecipeError(
            f"{found.launcher} started {found.count} processes of {what}, whose other steps would write the same "
            f"files. Start it once, with --devices {found.count // found.machines}, or start only the training so."
        )


def require_fair_shares(spec: TrainSpec, group: Processes, *, drawn: int, validation: int) -> None:
    """Raise RecipeError where the processes cannot share alike.

    Args:
        spec: the batch, and the learning rate.
        group: who shares.
        drawn: chips of a training epoch.
        validation: chips to validate on.
    """
    if group.count == 1:
        return
    if spec.batch % group.count:
        raise RecipeError(
            f"a batch of {spec.batch} chips cannot be shared by {group.count} processes alike. "
            f"A multiple of {group.count} was expected, such as --batch {group.count * -(-spec.batch // group.count)}."
        )
    for name, count in (("train", drawn), ("val", validation)):
        if 0 < count < group.count:
            raise RecipeError(
                f"{count} chips of split {name} cannot be shared by {group.count} processes. "
                "At least one for each was expected. Train with less processes."
            )
    if spec.learning_rate == "auto":
        raise RecipeError(
            f"learning_rate = auto tries rates in one process, but there are {group.count}. "
            "Let it find a rate on one device first, or give a number."
        )


@contextmanager
def only_the_leader_speaks(group: Processes) -> Iterator[None]:
    """Remarks of the others are those of the first once more."""
    logger = logging.getLogger("landscribe")
    level = logger.level
    try:
        if not group.leads:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        logger.setLevel(level)


def end(group: Processes) -> None:
    """Wait until the model stands, and part; a process that only helped ends here."""
    if group.count == 1:
        return
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    if group.launcher == "lightning":
        # What Lightning told this process would keep it from starting others for the next training.
        for name in ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            os.environ.pop(name, None)
    if group.only_helps:
        raise SystemExit(0)
