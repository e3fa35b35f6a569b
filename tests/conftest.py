"""Fixtures of all tests."""

import gc
import logging
import os
import random
import re
import signal
import sys
import tempfile
import uuid
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest
import typer.main
from hypothesis import HealthCheck, settings

import forked
from landscribe import progress

# Continuous integration and laptops differ in speed; a law holds or not, whatever the time.
# Fifty examples of each refute most wrong laws; where more are needed, a law says so itself. They are others in each
# run, but for those of continuous integration, whose outcome follows from the commit.
settings.register_profile(
    "landscribe",
    deadline=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="CI" in os.environ,
)
settings.load_profile("landscribe")

# No test asks a hub for weights.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# The networks here are tiny: one thread each, and one worker process of pytest for each core, is fastest.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A shell that starts its tests in the background makes them, and the commands that they start, deaf for Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# No test writes to the user's cache. Each test has one of its own; this one is that of fixtures of modules.
_CACHES = tempfile.TemporaryDirectory(prefix="landscribe-cache-")
os.environ["LANDSCRIBE_CACHE"] = _CACHES.name


# No test cuts the power. On a slow disk, waiting until it holds each file takes a minute in all, and shows nothing.
os.fsync = lambda file: None


# Commands run hundreds of times in one process: their parsers are built once.
typer.main.get_command = lru_cache(typer.main.get_command)


# The garbage collector goes through a million objects of imported modules each time: less often.
gc.set_threshold(10_000, 20)


def pytest_configure(config: pytest.Config) -> None:
    """Hide GPUs from all tests, and from the processes that they start, unless those that need one are asked for."""
    # As in -m gpu and -m "gpu and not slow", but not in -m "not slow" or -m "not gpu".
    if not re.search(r"(?<!not )\bgpu\b", config.option.markexpr):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests that need a GPU where torch sees none."""
    needing = [item for item in items if item.get_closest_marker("gpu")]
    if needing:
        import torch

        if not torch.cuda.is_available():
            for item in needing:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU, and pytest -m gpu"))


# A test has the same random numbers whichever tests ran before it. Its fixtures have others: a network that it loads
# would otherwise have the weights of its fixture's before any are loaded.
def _seed(name: str) -> None:
    seed = zlib.crc32(name.encode())
    random.seed(seed)
    if "torch" in sys.modules:  # whose import takes seconds, and which starts with a seed of its own
        sys.modules["torch"].manual_seed(seed)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef) -> None:
    """Seed each fixture."""
    _seed(fixturedef.argname)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> None:
    """Seed each test."""
    _seed(pyfuncitem.nodeid)


@pytest.fixture(autouse=True)
def user_cache() -> Iterator[Path]:
    """The user's cache of this test, and of the processes that it starts."""
    folder = Path(_CACHES.name, uuid.uuid4().hex)
    os.environ["LANDSCRIBE_CACHE"] = str(folder)
    yield folder
    os.environ["LANDSCRIBE_CACHE"] = _CACHES.name


@pytest.fixture
def forked_workers() -> Iterator[None]:
    """Dask workers on this machine are forked from a process that has imported the package."""
    config = pytest.importorskip("dask.config")
    # Loads its defaults, which the restored configuration would otherwise lack in this process.
    pytest.importorskip("distributed")
    forked.ensure_server()
    with config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        yield


@pytest.fixture(scope="session")
def onnx_functions() -> Iterator[None]:
    """The exporter's table of ONNX functions, which each export would derive from their source code again."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(lru_cache(ONNXRegistry.from_torchlib)))
        yield


_EXPORTS: dict[object, bytes] = {}


@pytest.fixture
def shared_exports(monkeypatch: pytest.MonkeyPatch, onnx_functions: None) -> None:
    """Networks of one class with the same weights share an export: it takes seconds, whatever the network's size."""
    from torch import nn

    from landscribe.inference.backends import onnx_export

    export = onnx_export.export

    def once(network: nn.Module, shape: tuple[int, ...], outputs: tuple[str, ...] = ()) -> bytes:
        weights = tuple((name, tensor.numpy().tobytes()) for name, tensor in network.state_dict().items())
        key = (type(network), hash((str(network), weights)), shape, outputs)
        if key not in _EXPORTS:
            _EXPORTS[key] = export(network, shape, outputs)
        return _EXPORTS[key]

    monkeypatch.setattr(onnx_export, "export", once)


@pytest.fixture(autouse=True)
def silent_library() -> None:
    """The library is silent, whatever commands ran in this process before: they log and show progress on stderr."""
    logger = logging.getLogger("landscribe")
    logger.handlers.clear()
    logger.setLevel(logging.NOTSET)
    logger.propagate = True
    progress.reporter.set(progress.silent)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout; tests on it are skipped where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no shared data on this machine")
    return folder
