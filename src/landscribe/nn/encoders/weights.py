"""Weights of an encoder: from the hub of timm, a file, or none; and their license."""

import hashlib
import pickle
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from landscribe.errors import NetworkError
from landscribe.nn.encoders.sensors import FileBands, file_bands
from landscribe.nn.encoders.stems import image_convolutions
from landscribe.nn.encoders.vision_transformer import converted
from landscribe.nn.meta_device import meta_device, shapes

IMAGENET = "imagenet"
_TRAINED = ("encoder_q", "base_encoder", "teacher", "backbone_q")
"""Words in the prefixes of the network that is meant where a checkpoint holds several: the encoder of queries of MoCo,
and the teacher of DINO, as their authors use them."""


@dataclass(frozen=True)
class Weights:
    """Pretrained weights of an encoder: "imagenet" or a file, and the bands of the file.

    A text alone stands for weights of red, green and blue (`Weights.of`).
    """

    source: str
    """"imagenet", or a file."""
    bands: tuple[str, ...] = ()
    """Bands of the file: the name of a table, or names in the order of the file; empty for red, green and blue."""

    @classmethod
    def of(cls, weights: "str | Weights | None") -> "Weights | None":
        """The same weights; None for none."""
        return cls(weights) if isinstance(weights, str) else weights

    @property
    def is_file(self) -> bool:
        """True if the source is a file."""
        return self.source != IMAGENET

    def __str__(self) -> str:
        return f"{self.source} ({', '.join(self.bands)})" if self.bands else self.source


@dataclass(frozen=True, eq=False)
class EncoderFile:
    """The part of a file of weights that belongs to one network."""

    tensors: dict[str, Tensor]
    """By the names of the network. Where the file has other than three input channels, the first convolutions are 0."""
    kernels: tuple[Tensor, ...] | None
    """The convolutions (O, N, h, w) of the file that read the image, in the order of their calls; None if the file
    calls them otherwise, and N is 3."""
    bands: FileBands
    """The N bands."""


def resolve_weights(requested: str, encoder: str) -> tuple[str | None, str]:
    """Resolve "auto" to "imagenet" if the weights are cached or their hub responds, else to none.

    Args:
        requested: "auto", "imagenet", "none", or a file.
        encoder: name of a timm backbone, or "plain".

    Returns:
        The `weights` argument of `nn.build`, and a message with the choice and its reason.
    """
    if requested == "none":
        return None, "weights: none, trained from scratch"
    if requested != "auto":
        return requested, f"weights: {requested}"
    if not timm.is_model(encoder):
        return None, f"weights: none (timm has none for '{encoder}')"
    if _is_cached(encoder) or _hub_responds(timeout_s=3):
        return "imagenet", "weights: ImageNet"
    return None, "weights: none (ImageNet weights are not on this machine and their hub does not respond)"


def require_weights(encoder: str, weights: str | Weights | None) -> None:
    """Refuse weights that are not available, before anything else is done.

    Raises:
        NetworkError: ImageNet weights are not cached and their hub does not respond, the file is missing, or the
            encoder has no weights.
    """
    source = weights.source if isinstance(weights, Weights) else weights
    if source is not None and encoder == "plain":
        raise NetworkError(f"there are no weights for the plain encoder, but '{source}' was given. Use \"none\".")
    if source == IMAGENET and not (_is_cached(encoder) or _hub_responds(timeout_s=10)):
        # The hub's own client would retry for a minute before its error.
        raise NetworkError(
            f"ImageNet weights for '{encoder}' are not on this machine and their hub does not respond. "
            'Use weights = "none", a file of weights, or download them once on a machine with access to the hub.'
        )
    if source not in (None, IMAGENET) and not Path(str(source)).is_file():
        raise NetworkError(f"weights '{source}' is neither 'auto', 'imagenet', 'none' nor a file. Give one of them.")


def license_terms(encoder: str, weights: str | Weights | None) -> dict[str, Any]:
    """Source and license of weights, for the model folder; of a file also the bands that were named."""
    weights = Weights.of(weights)
    if weights is None:
        return {"source": "none"}
    if weights.is_file:
        bands = {"bands": list(weights.bands)} if weights.bands else {}
        return {"source": Path(weights.source).name, "license": "unknown: that of the file"} | bands
    config: Any = _config_of(encoder)
    if config is None:
        return {"source": "imagenet", "license": "unknown: timm has no weights of that name"}
    terms = {"source": "imagenet", "tag": config.tag, "hub": config.hf_hub_id, "license": config.license}
    return {name: value or "not recorded by timm" for name, value in terms.items()}


def pretraining_statistics(encoder: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of red, green and blue, in 0 to 1, of the images that weights were trained on."""
    config: Any = _config_of(encoder)
    if config is None:
        return (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return tuple(config.mean), tuple(config.std)


def _config_of(encoder: str) -> Any:
    """The record in timm of the weights of an encoder; None if it has none."""
    try:
        return timm.get_pretrained_cfg(encoder) if timm.is_model(encoder) else None
    except RuntimeError:  # an unknown tag of an existing name
        return None


def read_encoder(weights: Weights, network: nn.Module) -> EncoderFile:
    """Read the tensors of a network from a file of weights.

    Files keep a network under a prefix, such as `model.backbone.` (Lightning, torchgeo), `module.encoder_q.` (MoCo) or
    `model.vision_encoder.` (BigEarthNet v2.0). It is the one under which most of the network's tensors lie. Tensors of
    other prefixes, such as those of a head, are left out.

    Args:
        weights: a file.
        network: the network of three bands, with weights or on the meta device.

    Raises:
        NetworkError: the file holds no weights, holds several networks, or has input channels whose bands are not
            named.
    """
    state, expected = read_weights(weights.source), shapes(network)
    prefix = _prefix(state, expected, weights.source)
    state = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    stems = [f"{name}.weight" for name, _ in image_convolutions(network)]
    kernels = tuple(state[stem] for stem in stems if stem in state and state[stem].ndim == 4)
    channels = {kernel.shape[1] for kernel in kernels}
    widths = [expected[stem][0] for stem in stems]
    if len(channels) != 1 or [kernel.shape[0] for kernel in kernels] != widths:
        return EncoderFile(state, None, file_bands(weights.bands, 3))
    count = channels.pop()
    bands = file_bands(weights.bands, count)
    if count != 3:
        # timm takes files of three channels only: it would leave out a convolution of other channels.
        state |= {stem: state[stem].new_zeros(state[stem].shape[0], 3, *state[stem].shape[2:]) for stem in stems}
    return EncoderFile(state, kernels, bands)


def _prefix(state: Iterable[str], expected: Iterable[str], path: str) -> str:
    """The prefix of names under which most of the expected ones lie; "" at a tie."""
    expected, counts = set(expected), Counter({"": 0})
    for name in state:
        starts = [0, *(index + 1 for index, character in enumerate(name) if character == ".")]
        counts.update(name[:start] for start in starts if name[start:] in expected)
    most = max(counts.values())
    best = [prefix for prefix, count in counts.items() if count == most]
    if len(best) > 1 and "" not in best:
        best = [prefix for prefix in best if set(prefix.split(".")) & set(_TRAINED)] or best
    if len(best) > 1 and "" not in best:
        raise NetworkError(
            f"weights '{path}' hold {len(best)} networks of this encoder ({_first_names(best)}). Expected one. "
            "Save the tensors of one of them to a file."
        )
    return "" if "" in best else best[0]


def require_all_loaded(file: EncoderFile, weights: Weights, name: str, body: nn.Module) -> None:
    """Refuse a file from which only a part of an encoder's weights was loaded.

    timm renames tensors of older checkpoints, resamples positions of transformers, and skips tensors that a file
    lacks. So tensors are compared by their values, not by their names.

    Raises:
        NetworkError: the file lacks tensors; the message names them.
    """
    in_file = {_digest(value) for value in (*file.tensors.values(), *converted(file.tensors, body).values())}
    expected = {key: value for key, value in body.state_dict().items() if value.is_floating_point()}
    missing = [key for key, value in expected.items() if _digest(value) not in in_file]
    if missing:
        raise NetworkError(
            f"weights '{weights.source}' for '{name}' could not be loaded: it lacks {len(missing)} of the encoder's "
            f"{len(expected)} tensors ({_first_names(missing)}). {_remedy(file, body)}"
        )


def _remedy(file: EncoderFile, body: nn.Module) -> str:
    """What to do about a file that lacks tensors: it may be of the same encoder in another library."""
    names, expected = file.tensors.keys() & body.state_dict().keys(), shapes(body)
    found = Counter(tuple(value.shape) for value in file.tensors.values()) & Counter(expected.values())
    if 2 * len(names) < len(expected) and found.total() > 0.9 * len(expected):
        return "Its tensors have other names than timm's, but the same shapes: use the encoder's file of timm."
    return 'Use weights = "none", or a weights file of the same encoder.'


def _digest(value: Tensor) -> bytes:
    return hashlib.sha1(value.detach().float().contiguous().numpy().tobytes(), usedforsecurity=False).digest()


def on_meta_device(name: str) -> nn.Module:
    """A whole timm network of three bands, without its classifier and without memory."""
    with meta_device():
        network: nn.Module = timm.create_model(name, num_classes=0)
    return network


def describe_mismatch(file: EncoderFile, name: str) -> str | None:
    """Describe the tensors of a timm network that a file of weights lacks or has in another shape; None if it fits."""
    in_file = {key: tuple(value.shape) for key, value in file.tensors.items()}
    expected = shapes(on_meta_device(name))
    missing = [key for key in expected if key not in in_file]
    different = [key for key in expected if key in in_file and in_file[key] != expected[key]]
    reasons = [f"it lacks {len(missing)} of {len(expected)} tensors ({_first_names(missing)})"] if missing else []
    reasons += [f"{key} is {in_file[key]}, not {expected[key]}" for key in different[:3]]
    reasons += [f"{len(different) - 3} more differ in shape"] if len(different) > 3 else []
    return "; ".join(reasons) or None


def _first_names(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def read_weights(path: str) -> dict[str, Tensor]:
    """Read tensors by name from a safetensors file or a torch checkpoint; other objects of a checkpoint are refused.

    Raises:
        NetworkError: the file is neither, or holds no tensors.
    """
    try:
        if path.endswith(".safetensors"):
            return safetensors.torch.load_file(path)
        with Path(path).open("rb") as file:
            # A zip file or a pickle; torch reports the first letter of a text as a missing key.
            if not file.read(2).startswith((b"PK", b"\x80")):
                raise _unreadable_weights(path, "torch.save did not write it")
        state = torch.load(path, map_location="cpu", weights_only=True)
    # torch raises many types of errors for a damaged or foreign file.
    except pickle.UnpicklingError as error:
        reason = "it holds pickled objects other than tensors, which could run code"
        raise _unreadable_weights(path, reason) from error
    except (SafetensorError, RuntimeError, OSError, ValueError, LookupError, EOFError, AttributeError) as error:
        raise _unreadable_weights(path, f"{type(error).__name__}: {error}") from error
    state = state if isinstance(state, dict) else {}
    # Averaged weights first, as timm does; DINO's are those of the teacher.
    nested = [state[key] for key in ("state_dict_ema", "model_ema", "teacher", "state_dict", "model") if key in state]
    state = nested[0] if nested and isinstance(nested[0], dict) else state
    tensors = {name.removeprefix("module."): value for name, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        raise _unreadable_weights(path, "it holds no tensors")
    return tensors


def _unreadable_weights(path: str, reason: str) -> NetworkError:
    lines = reason.strip().splitlines() or ["it cannot be read"]
    return NetworkError(
        f"weights '{path}' could not be loaded: {lines[0]}. Expected a safetensors file or a torch checkpoint."
    )


def _is_cached(name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    config = _config_of(name)
    if config is None or not config.hf_hub_id:
        return False
    names = ("model.safetensors", "pytorch_model.bin")
    return any(isinstance(try_to_load_from_cache(config.hf_hub_id, name), str) for name in names)


def _hub_responds(*, timeout_s: float) -> bool:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    # Through proxies, like the hub's own client; an HTTP error is a response too.
    request = urllib.request.Request(constants.ENDPOINT, method="HEAD")  # noqa: S310 - the hub's own address
    try:
        with urllib.request.urlopen(request, timeout=timeout_s):  # noqa: S310
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
