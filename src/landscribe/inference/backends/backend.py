"""Backend: a function from images to logits; and BackendKind: how a backend is built, and what it needs."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from landscribe.model import Model

Backend = Callable[[Tensor], Tensor]
"""Scaled images (B, C, H, W), float32, channels-last, on the backend's device, to logits (B, K, H, W) there."""


@dataclass(frozen=True)
class BackendKind:
    """How a backend is built, and what it needs."""

    build: Callable[[Model, torch.device], Backend]
    """Build the backend of a model on a device; raises BackendError where it cannot run."""
    packages: tuple[str, ...] = ()
    """Python packages that it imports; the version of the first one decides its speed."""
    extra: str | None = None
    """The pip extra that installs its packages."""
    devices: tuple[str, ...] | None = None
    """Types of torch devices that it runs on; None for all."""

    @property
    def missing_packages(self) -> list[str]:
        """Its packages that are not installed."""
        return [package for package in self.packages if importlib.util.find_spec(package) is None]
