"""Networks on torch's meta device, where tensors have a shape, but no content: measured before memory is allocated."""

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from landscribe.machine import require_memory

Network = TypeVar("Network", bound=nn.Module)

BYTES_PER_WEIGHT = 4
"""Of a weight in float32."""
_ORDINARY = 512
"""Networks whose bands, classes and options are at most as large have less than a few GB of weights. They are not built
twice, which takes up to half a second."""


@contextmanager
def meta_device() -> Iterator[None]:
    """Create the tensors of the block on the meta device."""
    with torch.device("meta"), _RangesOnCPU():
        yield


class _RangesOnCPU(TorchFunctionMode):
    """Creates ranges on the CPU: encoders read their rates of stochastic depth from one."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        chosen = {"device": "cpu"} if func is torch.linspace else {}
        return func(*args, **(chosen | (kwargs or {})))


def on_meta_device(network: Network) -> Network:
    """A copy of a network whose weights have no numbers.

    The network itself is not touched, so that other threads may run it meanwhile. Other attributes of its modules are
    shared: some, such as a kept feature map, cannot be copied.
    """
    copied: dict[int, Any] = {
        id(weight): nn.Parameter(torch.empty_like(weight, device="meta"), requires_grad=weight.requires_grad)
        for weight in network.parameters()
    }
    copied |= {id(buffer): torch.empty_like(buffer, device="meta") for buffer in network.buffers()}
    copied |= {id(module): copy.copy(module) for module in network.modules()}
    for module in network.modules():
        for name in ("_parameters", "_buffers", "_modules"):
            entries = {key: copied.get(id(value)) for key, value in vars(module)[name].items()}
            vars(copied[id(module)])[name] = entries
    own: Network = copied[id(network)]
    return own


def shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shapes of a network's tensors by name, counters and statistics included."""
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


def count_weights(network: nn.Module) -> int:
    """Number of a network's weights, counters and statistics included."""
    return sum(map(math.prod, shapes(network).values()))


def require_weights_memory(
    build: Callable[[], nn.Module], settings: Mapping[str, Any], purpose: str, *, copies: int = 1
) -> None:
    """Raise ResourceError if the weights of a network need more memory than this machine has.

    Only a network with a large setting is measured, and nothing is allocated. A network that cannot be built on the
    meta device is left to the real build, which says why.

    Args:
        build: builds the network.
        settings: bands, classes and options of the network.
        purpose: what needs the memory: the network's name, and what it is built for.
        copies: numbers in memory for each weight: 1 for the weights alone.
    """
    large = {name: value for name, value in settings.items() if _largest(value) > _ORDINARY}
    if not large or torch.get_default_device().type == "meta":
        return
    try:
        with meta_device():
            weights = count_weights(build())
    except Exception:  # noqa: BLE001  torch, timm or a user's class may raise anything
        return
    values = " and ".join(f"{name} (it is {value})" for name, value in large.items())
    require_memory(
        copies * weights * BYTES_PER_WEIGHT, f"{purpose} with {weights:,} weights", f"Choose a smaller {values}."
    )


def _largest(value: Any) -> float:
    """The largest number in a setting; 0 without numbers."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return max(map(_largest, value), default=0)
    return value if isinstance(value, (int, float)) else 0
