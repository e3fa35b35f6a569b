"""Whatever a command is given, it ends soon, in at most one line, and writes no file outside its output folder.

A subject of FUZZED has a function that draws one command by random numbers: it may spoil files in its folder, and
returns the arguments of the command, which may write to `out` alone. To fuzz other settings, add a
function and its entry.
"""

import contextvars
import hashlib
import json
import logging
import os
import random
import resource
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import worlds
from landscribe.commands import app as cli
from landscribe.model import Model
from landscribe.nn import build

CASES, SECONDS_A_CASE, MEGABYTES = 60, 20, 1500
TILES = ("--tile", 32, "--margin", 0, "--engine", "torch")
REMARKS = ("warning: ", "mapping ", "margin: ", "backend: ", "tiles: ")


class HangError(BaseException):
    """Not an Exception, so that no command takes it for an error of a network."""


# ---- model folders

NETWORKS = {
    "unet": {"encoder": "plain", "encoder_widths": [4, 8]},
    "fcn": {"encoder": "plain", "encoder_widths": [4, 8]},
    "unetplusplus": {"encoder": "plain", "encoder_widths": [4, 8, 8]},
    "unet_id": {"encoder": "plain", "encoder_widths": [4, 8]},
    "deeplabv3plus": {"encoder": "test_resnet"},
    "smp:Unet": {"encoder": "resnet18", "decoder_channels": [8, 8, 8, 8, 8]},
}
OPTIONS = (
    "encoder_widths", "widths", "depth", "upsampling", "batch_norm", "activation", "dropout", "residual", "cell",
    "branch", "branch_weights", "deep_supervision", "output_stride", "rates", "weights", "band_names", "bands",
    "classes", "encoder", "decoder_channels", "encoder_depth", "encoder_weights", "aux_params", "kwargs",
    "architecture", "decoder_use_norm", "decoder_interpolation",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2, 7, 255, 2**15, 88_888, 2**31, 2**63, 2**64, 10**30, -1e308, 1e308, 0.5, 1e-320,
    float("nan"), float("inf"), "", "x", "NaN", "1", "\x1b[31mred", "a\nb", "\ud800", "é" * 300, "../../etc/passwd",
    "/dev/zero", "imagenet", "plain", "resnet18", "vit_tiny_patch16_224", "hf-hub:a/b", "tu-hf-hub:a/b", "module:Class",
    "this:s", "smp:Unet", "smp:", "smp:base", ":", "unet", "unetplusplus", "uint16", "complex64", "#ffffff", [], {},
    [[]], [0], [1, 1], [4, 8], [88_888] * 3, list(range(300)), [4] * 5000, {"a": {"b": []}}, [[[[[[[[0]]]]]]]],
)  # fmt: skip


def make_models(folder: Path) -> None:
    """A model folder of each network, and a raster."""
    for index, (name, arguments) in enumerate(NETWORKS.items()):
        network = build(name, bands=1, classes=2, **arguments)
        Model.wrap(network, bands=["v"], classes=["no", "yes"]).save(folder / f"model{index}")
    worlds.write_raster(folder / "image.tif", worlds.noise(1, 64, 64)[0], descriptions=["v"])


def model_folder(rng: random.Random, folder: Path) -> tuple[object, ...]:
    """A model folder in which something is spoilt."""
    (model,) = rng.sample(sorted(folder.glob("model*")), 1)
    shutil.copytree(model, folder / "spoilt")
    rng.choice((spoil_config, spoil_config, spoil_config, spoil_bytes, spoil_header, spoil_file))(
        rng, folder / "spoilt"
    )
    if rng.random() < 0.3:
        return "summary", "spoilt", "--size", 64
    return "predict", "spoilt", "image.tif", *TILES, "--out", "out/map.tif"


def spoil_config(rng: random.Random, model: Path) -> None:
    """Change, remove or add one to three values, at any depth."""
    config = json.loads((model / "config.json").read_text())
    for _ in range(rng.randint(1, 3)):
        place = config if rng.random() < 0.4 else config["arguments"]
        while isinstance(place, (dict, list)) and place:
            key = rng.choice([*place] if isinstance(place, dict) else range(len(place)))
            if not isinstance(place[key], (dict, list)) or not place[key] or rng.random() < 0.5:
                break
            place = place[key]
        if not place:
            continue
        if rng.random() < 0.2 and isinstance(place, dict):
            place[rng.choice(OPTIONS)] = rng.choice(VALUES)
        elif rng.random() < 0.2:
            del place[key]
        else:
            place[key] = rng.choice(VALUES)
        if "arguments" not in config or not isinstance(config["arguments"], dict):
            break
    (model / "config.json").write_text(json.dumps(config))


def spoil_bytes(rng: random.Random, model: Path) -> None:
    """Change, cut or repeat bytes of a file."""
    path = model / rng.choice(("config.json", "model.safetensors"))
    data = bytearray(path.read_bytes())
    start = rng.randrange(len(data))
    kind = rng.choice(("flip", "cut", "repeat", "deep"))
    if kind == "flip":
        data[start] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del data[start:]
    elif kind == "repeat":
        data[start:start] = data[start : start + 1000]
    else:
        data[start:start] = b"[" * 10**5
    path.write_bytes(data)


def spoil_header(rng: random.Random, model: Path) -> None:
    """Change an entry of the weights' header; the checksum in the config is that of the new file."""
    path, config = model / "model.safetensors", json.loads((model / "config.json").read_text())
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    name = rng.choice(sorted(header))
    new = {"shape": [88_888, 88_888], "dtype": "F4", "data_offsets": [0, 2**60], "other": 0}
    field = rng.choice(sorted(new))
    if isinstance(header[name], dict) and rng.random() < 0.8:
        header[name][field] = rng.choice((new[field], *VALUES))
    else:
        header[rng.choice((name, "new\x1b[31m"))] = rng.choice(VALUES)
    text = json.dumps(header).encode()
    length = len(text) if rng.random() < 0.7 else rng.choice((0, 1, 2**24, 2**40, 2**63))
    path.write_bytes(length.to_bytes(8, "little") + text + data[end:])
    config["weights_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (model / "config.json").write_text(json.dumps(config))


def spoil_file(rng: random.Random, model: Path) -> None:
    """Put a file of another kind in the path of one."""
    path = model / rng.choice(("config.json", "model.safetensors", "README.md", "tuning.json", "exported"))
    path.unlink(missing_ok=True)
    kind = rng.choice(("nothing", "fifo", "folder", "endless", "holes", "link to itself", "empty"))
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind in ("endless", "link to itself"):
        path.symlink_to("/dev/zero" if kind == "endless" else path)
    elif kind in ("holes", "empty"):
        path.touch()
        os.truncate(path, 2**40 if kind == "holes" else 0)


# ---- all subjects

FUZZED: dict[str, tuple[Callable[[Path], None], Callable[[random.Random, Path], tuple[object, ...]]]] = {
    "model folder": (make_models, model_folder),
}
"""By name: a function that prepares a folder once, and one that draws a command to run in a copy of it."""


@contextmanager
def ends_soon() -> Iterator[None]:
    """Raise HangError in a block that takes too long."""

    def refuse(*_: object) -> None:
        raise HangError

    before = signal.signal(signal.SIGALRM, refuse)
    signal.alarm(SECONDS_A_CASE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def run(*arguments: object) -> int:
    """The exit code of a command in this process."""
    loggers = [logging.getLogger(name) for name in ("landscribe", "rasterio")]
    before = [(logger, list(logger.handlers), logger.level, logger.propagate) for logger in loggers]
    sys.argv = ["landscribe", *map(str, arguments)]
    try:
        with ends_soon(), pytest.raises(SystemExit) as ended:
            contextvars.copy_context().run(cli.main)
    finally:
        for logger, handlers, level, propagate in before:
            logger.handlers[:], logger.level, logger.propagate = handlers, level, propagate
    code = ended.value.code
    return code if isinstance(code, int) else 1


def entries(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of all files and folders in `folder` but those in `out`, whose time the output changes."""
    found = (path for path in folder.rglob("*") if "out" not in path.relative_to(folder).parts)
    return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in found}


_WRITES: list[str] = []
"""Paths that Python has opened for writing since the list was emptied."""


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and isinstance(arguments[0], (str, bytes)) and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):
        _WRITES.append(os.fsdecode(arguments[0]))
    if event in ("socket.connect", "subprocess.Popen", "os.system"):
        _WRITES.append(event)


@pytest.fixture(scope="module")
def audited():
    """The list of what is written or started; an audit hook stays for the rest of the process."""
    sys.addaudithook(_note)
    return _WRITES


@pytest.mark.parametrize("subject", FUZZED)
def test_a_command_ends_soon_in_one_line_and_writes_to_its_output_alone(
    subject, tmp_path, monkeypatch, capfd, user_cache, audited
):
    prepare, draw = FUZZED[subject]
    monkeypatch.setattr(sys, "argv", sys.argv)
    (tmp_path / "prepared").mkdir()
    prepare(tmp_path / "prepared")
    allowed = (str(user_cache), "/dev/", "__pycache__")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    codes, faults = set(), []
    for index in range(CASES):
        folder = tmp_path / "case"
        shutil.copytree(tmp_path / "prepared", folder)
        monkeypatch.chdir(folder)
        # A case is repeated by its index.
        arguments = draw(random.Random(index), folder)
        before = entries(folder)
        capfd.readouterr()
        audited.clear()
        try:
            code = run(*arguments)
        except HangError:
            code = -1
        written = [path for path in audited if not any(part in path for part in (*allowed, f"{folder}/out", "out/"))]
        _, err = capfd.readouterr()
        lines = [line for line in err.splitlines() if line.strip() and not line.startswith(REMARKS)]
        is_refused_in_one_line = code == 2 and len(lines) == 1 and lines[0].isprintable()
        if not (code == 0 or is_refused_in_one_line) or "Traceback" in err or written or entries(folder) != before:
            faults.append(f"{subject} {index}: {' '.join(map(str, arguments))}: {code} {err[-2000:]} {written}")
        codes.add(code)
        shutil.rmtree(folder)
    assert faults == []
    assert codes == {0, 2}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 1000 * MEGABYTES
