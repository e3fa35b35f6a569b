"""Maps by threads, by shards and on Dask workers: the same bytes; a unit that fails does not stop the others."""

import math
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_mapping import model_of, read, write

from landscribe import executor, machine
from landscribe.errors import EngineError, RasterError, ReadError, ResourceError, UnfinishedError
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.tiling import units
from landscribe.model import Model
from landscribe.nn import build
from landscribe.prediction import run as running
from landscribe.prediction.run import Workers
from landscribe.prediction.spec import PredictSpec
from networks import Identity, predict

SMALL = {"tile": 32, "margin": 4, "unit": 64}


@pytest.fixture
def numbers() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 4, (150, 217)).astype(np.uint8)


@pytest.fixture
def raster(tmp_path, numbers) -> Raster:
    return write(tmp_path / "image.tif", numbers)


@pytest.fixture
def whole(tmp_path, raster) -> bytes:
    """The map of one process."""
    return predict(model_of(Identity(), 4), raster, tmp_path / "whole.tif", spec=PredictSpec(**SMALL)).read_bytes()


@pytest.mark.parametrize("workers", [Workers(3, 1), Workers(1, 4, 2), Workers(5, 3, 2)])
def test_readers_and_writers_change_no_byte_of_a_map(tmp_path, raster, whole, monkeypatch, workers):
    monkeypatch.setattr(running.Workers, "of", lambda *_, **__: workers)
    used = predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=PredictSpec(**SMALL))
    assert used.read_bytes() == whole


@pytest.fixture
def learning() -> Model:
    """A model whose classes depend on a pixel's neighbours."""
    torch.manual_seed(0)
    network = build("unet", encoder="plain", bands=1, classes=4, weights=None, encoder_widths=[4, 8])
    return model_of(network.eval(), 4)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_the_readers_of_a_device_change_no_byte_of_a_map(tmp_path, raster, learning, monkeypatch, device):
    spec, maps = PredictSpec(**SMALL, device=device, engine="torch", batch=2), []
    for workers in (Workers(), Workers(3, 2, 2)):
        monkeypatch.setattr(running.Workers, "of", lambda *_, workers=workers, **__: workers)
        maps.append(predict(learning, raster, tmp_path / f"{workers.readers}.tif", spec=spec).read_bytes())
    assert maps[0] == maps[1]


@given(cores=st.integers(1, 64), room=st.integers(0, 100), gpus=st.integers(1, 8), is_remote=st.booleans())
def test_the_units_of_all_workers_fit_in_memory(cores, room, gpus, is_remote):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "cores", lambda: cores)
        patch.setattr(running, "budget", lambda device: room * 1000 + 5)
        patch.setattr(running, "total_memory", lambda: 10**9)
        workers = Workers.of(torch.device("cuda"), 1000, gpus, is_remote=is_remote)
    cores = max(1, cores // gpus)
    readers = max(cores, 8) if is_remote else cores
    assert 1 <= workers.readers <= readers
    assert 1 <= workers.writers <= cores
    # One more is computed, and one read ahead. Fewer than four units in memory are no pipeline.
    assert workers.readers + workers.writers + 2 <= max(4, room)
    # Two thirds of the memory are for those that read.
    assert workers.readers == readers or workers.readers >= (room - 2) * 2 // 3


@pytest.mark.parametrize("gpus", [1, 2, 4])
def test_gpus_share_the_memory_of_their_machine(monkeypatch, gpus):
    monkeypatch.setattr(running, "cores", lambda: 64)
    monkeypatch.setattr(running, "budget", lambda device: 10**9)
    monkeypatch.setattr(running, "total_memory", lambda: 4 * 48_000)
    workers = Workers.of(torch.device("cuda"), 1000, gpus)
    assert gpus * (workers.readers + workers.writers + 2) == 48


def test_on_a_cpu_one_thread_reads_and_one_writes():
    assert Workers.of(torch.device("cpu"), 1) == Workers(1, 1, 1)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "float32"])
def test_pixels_of_every_dtype_reach_the_network(tmp_path, dtype, device):
    array = np.random.default_rng(0).integers(0, 4, (150, 217)).astype(dtype)
    raster, model = write(tmp_path / "image.tif", array), model_of(Identity(), 4, dtype=dtype)
    spec = PredictSpec(tile=64, margin=8, unit=100, device=device, batch=3)
    predict(model, raster, tmp_path / "map.tif", spec=spec)
    assert (read(tmp_path / "map.tif") == array).all()


def test_a_unit_that_cannot_be_read_is_named_and_is_the_only_one_repeated(tmp_path, raster, whole, monkeypatch):
    model, spec = model_of(Identity(), 4), PredictSpec(**SMALL)
    planned = list(units(150, 217, size=32, margin=4, side=64))
    windows, failing = [], planned[4].read
    real = Raster.read

    def read(self: Raster, window):
        windows.append(window)
        if window == failing:
            raise ReadError("a block is damaged")
        return real(self, window)

    monkeypatch.setattr(Raster, "read", read)
    keep = planned[4].keep
    rows_cols = f"rows {keep.row} to {keep.row_stop}, cols {keep.col} to {keep.col_stop}: a block is damaged"
    with pytest.raises(
        UnfinishedError,
        match=rf"^map\.tif is not finished: 1 of {len(planned)} units failed \({rows_cols}\)",
    ):
        predict(model, raster, tmp_path / "map.tif", spec=spec)
    assert not (tmp_path / "map.tif").exists()
    assert len(windows) == len(planned)
    failing = None
    windows.clear()
    predict(model, raster, tmp_path / "map.tif", spec=spec)
    assert windows == [planned[4].read]
    assert (tmp_path / "map.tif").read_bytes() == whole


def test_of_many_units_that_fail_the_first_are_named_and_the_others_counted(tmp_path, raster, monkeypatch, caplog):
    real = Raster.read

    def read(self: Raster, window):
        if window.row:
            raise ReadError("a block is damaged")
        return real(self, window)

    monkeypatch.setattr(Raster, "read", read)
    with pytest.raises(UnfinishedError, match="10 of 15 units failed"):
        predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=PredictSpec(**SMALL))
    assert [message.endswith("a block is damaged") for message in caplog.messages] == [True] * 5 + [False]
    assert caplog.messages[-1] == "5 more units failed"


def test_if_no_unit_can_be_mapped_the_reason_is_given_and_no_file_is_left(tmp_path, raster, monkeypatch):
    def read(_, window):
        raise RasterError(f"no block {window.row}")

    monkeypatch.setattr(Raster, "read", read)
    with pytest.raises(RasterError, match="no block 0"):
        predict(model_of(Identity(), 4), raster, tmp_path / "new" / "map.tif", spec=PredictSpec(**SMALL))
    assert not (tmp_path / "new").exists()


class Hungry(Identity):
    """Fails for lack of memory with the error that torch raises on a device or the CPU."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def forward(self, x):
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: out of memory"),  # pinned memory, as torch.AcceleratorError
    ],
)
def test_too_little_memory_ends_with_one_line(tmp_path, raster, error):
    with pytest.raises(
        EngineError, match=r"out of memory with batches of 1 tile of 32 x 32 pixels .* a smaller --tile"
    ):
        predict(model_of(Hungry(error), 4), raster, tmp_path / "map.tif", spec=PredictSpec(**SMALL))
    assert not list(tmp_path.glob("map*"))


def test_shards_in_any_order_give_the_map_of_one_process(tmp_path, raster, whole):
    model = model_of(Identity(), 4)
    for shard in ("3/3", "1/3", "2/3"):
        predict(model, raster, tmp_path / "map.tif", spec=PredictSpec(**SMALL, shard=shard))
        assert not (tmp_path / "map.tif").exists() or shard == "2/3"
    predict(model, raster, tmp_path / "map.tif", spec=PredictSpec(**SMALL))
    assert (tmp_path / "map.tif").read_bytes() == whole


def test_a_shard_leaves_the_files_of_another_shard_alone(tmp_path, raster, whole):
    model = model_of(Identity(), 4)
    predict(model, raster, tmp_path / "map.tif", spec=PredictSpec(**SMALL, shard="1/2"))
    half_written = tmp_path / "map.tif.parts" / ".0a1b2c3d.partial.00000_00001.class.tif"
    half_written.touch()
    predict(model, raster, tmp_path / "map.tif", spec=PredictSpec(**SMALL, shard="2/2"))
    assert half_written.exists()
    predict(model, raster, tmp_path / "map.tif", spec=PredictSpec(**SMALL))
    assert (tmp_path / "map.tif").read_bytes() == whole
    assert not (tmp_path / "map.tif.parts").exists()


@pytest.mark.parametrize("shard", ["0/3", "4/3", "1", "a/b", "1/0"])
def test_a_shard_outside_its_count_is_refused(shard):
    with pytest.raises(ValueError, match="shard"):
        PredictSpec(shard=shard)


@pytest.mark.slow
@pytest.mark.usefixtures("forked_workers")
def test_dask_workers_of_several_threads_and_one_process_give_the_same_map(tmp_path, raster, whole, monkeypatch):
    monkeypatch.setattr(running.Workers, "of", lambda *_, **__: Workers(readers=3))
    threads, started = [], executor.own_cluster

    @contextmanager
    def counted(*sizes):
        with started(*sizes) as cluster:
            threads.extend(worker["nthreads"] for worker in cluster.scheduler_info["workers"].values())
            yield cluster

    monkeypatch.setattr(executor, "own_cluster", counted)
    spec = PredictSpec(**SMALL, dask="auto")
    assert predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=spec).read_bytes() == whole
    assert set(threads) == {3}


@pytest.mark.gpu
def test_the_dask_worker_of_a_gpu_gives_the_same_map(tmp_path, raster, learning):
    spec = PredictSpec(**SMALL, device="cuda", engine="torch", batch=2)
    alone = predict(learning, raster, tmp_path / "alone.tif", spec=spec).read_bytes()
    on_dask = predict(learning, raster, tmp_path / "dask.tif", spec=spec.model_copy(update={"dask": "auto"}))
    assert on_dask.read_bytes() == alone


def test_a_gpu_computes_units_in_turn(tmp_path, raster, monkeypatch):
    cuda, other, mps = (torch.device(name) for name in ("cuda:0", "cuda:1", "mps"))
    assert running._turn(cuda) is running._turn(cuda)
    assert running._turn(cuda) is not running._turn(other)
    assert running._turn(mps) is running._turn(mps)
    entered = []

    @contextmanager
    def turn(device):
        entered.append(device)
        yield

    monkeypatch.setattr(running, "_turn", turn)
    predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=PredictSpec(**SMALL))
    assert len(entered) > 1
    assert set(entered) == {torch.device("cpu")}


def free(monkeypatch, by_folder) -> None:
    """Let disks have these free bytes, by the name of their folder."""
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda folder: SimpleNamespace(free=by_folder[folder.name]))


@pytest.mark.parametrize(
    ("free_beside_map", "free_beside_probabilities", "full"),
    [
        # Units, blocks and file of 150 x 217 pixels: classes of one byte, probabilities of 4 classes of 4 bytes.
        (3 * 32_550 * (1 / 1000 + 16 / 20) - 1, 10**9, "maps"),
        (10**9, 32_550 * 16 / 20 - 1, "layers"),
    ],
)
def test_a_map_that_no_compression_fits_on_its_disks_is_refused_with_both_numbers(
    tmp_path, raster, monkeypatch, free_beside_map, free_beside_probabilities, full
):
    for name in ("maps", "layers"):
        (tmp_path / name).mkdir()
    free(monkeypatch, {"maps": free_beside_map, "map.tif.parts": free_beside_map, "layers": free_beside_probabilities})
    paths = {"out": tmp_path / "maps" / "map.tif", "probabilities": tmp_path / "layers" / "p.tif"}
    spec = PredictSpec(**SMALL, probabilities_as="float32")
    with pytest.raises(ResourceError, match=rf"of 32,550 pixels needs at least .* of disk, but \S*{full} has .* free"):
        predict(model_of(Identity(), 4), raster, spec=spec, **paths)
    assert not list((tmp_path / "maps").iterdir())
    free(monkeypatch, {"maps": free_beside_map + 1, "layers": free_beside_probabilities + 1})
    predict(model_of(Identity(), 4), raster, spec=spec, **paths)


def test_a_disk_that_only_a_compressed_map_fits_on_gives_a_warning(tmp_path, raster, monkeypatch, caplog):
    free(monkeypatch, {tmp_path.name: 3 * 32_550 - 1})
    predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=PredictSpec(**SMALL))
    assert "map.tif of 32,550 pixels needs up to 97.7 kB of disk, before compression" in caplog.text
    caplog.clear()
    free(monkeypatch, {tmp_path.name: 3 * 32_550})
    predict(model_of(Identity(), 4), raster, tmp_path / "again.tif", spec=PredictSpec(**SMALL))
    assert not caplog.text


def test_an_interrupted_map_needs_disk_for_its_missing_units_only(tmp_path, raster, monkeypatch):
    model = model_of(Identity(), 4)
    predict(model, raster, tmp_path / "map.tif", spec=PredictSpec(**SMALL, shard="1/2"))
    done = sum(math.prod(unit.keep.shape) for unit in list(units(150, 217, size=32, margin=4, side=64))[::2])
    free(monkeypatch, {tmp_path.name: (3 * 32_550 - done) / 1000 - 1})
    with pytest.raises(UnfinishedError, match=r"needs at least .* of disk, .* units \(\d+\) are kept"):
        predict(model, raster, tmp_path / "map.tif", spec=PredictSpec(**SMALL))
    free(monkeypatch, {tmp_path.name: (3 * 32_550 - done) / 1000})
    predict(model, raster, tmp_path / "map.tif", spec=PredictSpec(**SMALL))
