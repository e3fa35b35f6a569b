"""Several processes train as one: the same batches, the same measures, one model."""

import csv
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

import forked
from landscribe import verbs
from landscribe.commands.app import main
from landscribe.data.batches.sampling import ChipSampler, RankShare
from landscribe.data.chips.chips import Chips
from landscribe.errors import RecipeError
from landscribe.model import Model
from landscribe.nn import build
from landscribe.training.parallel import (
    Processes,
    SyncedNormalisation,
    chip_sampler,
    processes,
    require_shareable_batches,
    require_single_process,
)
from landscribe.training.segmenter import cosine
from landscribe.training.spec import TrainSpec


@given(
    chips=st.integers(1, 90), share=st.integers(1, 5), processes=st.integers(1, 4), seed=st.integers(0, 9),
    balanced=st.booleans(),
)  # fmt: skip
def test_the_parts_of_all_processes_are_the_batches_of_one(chips, share, processes, seed, balanced):
    wanted = np.random.default_rng(seed).uniform(0.2, 2.5, chips) if balanced else np.ones(chips)
    batch = share * processes
    parts = [
        ChipSampler(wanted, seed=seed, share=RankShare(batch=batch, rank=rank, processes=processes))
        for rank in range(processes)
    ]
    for _ in range(2):
        alone = list(ChipSampler(wanted, seed=seed))
        of_each = [list(part) for part in parts]
        assert [len(part) for part in parts] == [len(numbers) for numbers in of_each]
        assert max(map(len, of_each)) - min(map(len, of_each)) <= 1
        steps = max(1, -(-len(of_each[0]) // share))
        for step in range(steps):
            union = [n for numbers in of_each for n in numbers[step * share : (step + 1) * share]]
            assert sorted(union) == sorted(alone[step * batch : (step + 1) * batch])
        left_out = alone[steps * batch :]
        assert len(left_out) < 2 * processes
        for part in parts:
            part.epoch = 0


# Neither statistics of batches nor chance, and every pixel is labelled: processes can be as one.
EVEN = {
    "encoder": "plain", "weights": "none", "options": {"encoder_widths": [4, 8], "batch_norm": False}, "loss": "ce",
    "augment": "none", "optimizer": "sgd", "batch": 8, "learning_rate": 0.02, "epochs": 2,
}  # fmt: skip
COMMON = ("--encoder", "plain", "--weights", "none", "--option", "encoder_widths=[4,8]")


@pytest.fixture(scope="module")
def odd_chips(tiny_chips, tmp_path_factory) -> Chips:
    """An odd number of training chips, so that the last batch is shared unevenly."""
    folder = tmp_path_factory.mktemp("odd") / "chips"
    shutil.copytree(tiny_chips.folder, folder)
    first = tiny_chips.table.index[tiny_chips.table["split"] == "train"][:1]
    tiny_chips.table.drop(first).reset_index(drop=True).to_parquet(folder / "chips.parquet")
    odd = Chips.open(folder)
    assert len(odd.of_split("train")) % 2 == 1
    return odd


def run_rank(*arguments: str) -> None:
    """The command line in one of the processes that torchrun starts."""
    sys.argv = ["landscribe", *arguments]
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code


@pytest.fixture(scope="module")
def by_two(odd_chips, tmp_path_factory) -> tuple[Path, Path]:
    """The log folder of two processes that torchrun starts, and the model that they leave."""
    folder = tmp_path_factory.mktemp("two")
    settings = [
        "--option", "batch_norm=false", "--loss", "ce", "--augment", "none", "--optimizer", "sgd", "--batch", "8",
        "--learning-rate", "0.02", "--epochs", "2", "--ema-decay", "0.9", "--accumulate", "2",
    ]  # fmt: skip
    forked.ensure_server()
    # As torchrun --standalone --nproc-per-node 2, in processes that are forked.
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=2, run_id="two", rdzv_endpoint="localhost:0", rdzv_backend="c10d",
        start_method="forkserver", max_restarts=0,
        logs_specs=DefaultLogsSpecs(log_dir=str(folder / "logs"), redirects=Std.ALL),
    )  # fmt: skip
    (folder / "out").mkdir()
    out = folder / "out" / "model"
    # torchrun handles the signals of its own process, and leaves its handlers behind in that of the tests.
    handlers = {sent: signal.getsignal(sent) for sent in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)}
    try:
        elastic_launch(config, run_rank)("train", str(odd_chips.folder), "--out", str(out), *COMMON, *settings)
    finally:
        for sent, handler in handlers.items():
            signal.signal(sent, handler)
    return folder / "logs", out


@pytest.mark.slow
def test_two_processes_train_the_model_of_one(odd_chips, by_two, tmp_path):
    two, one = Model.load(by_two[1]), verbs.train(odd_chips, out=tmp_path / "one", **EVEN, ema_decay=0.9, accumulate=2)
    weights = two.network.state_dict()
    for name, value in one.network.state_dict().items():
        torch.testing.assert_close(weights[name], value, rtol=0, atol=1e-5)
    assert [row.keys() for row in two.history] == [row.keys() for row in one.history]
    for mine, theirs in zip(one.history, two.history, strict=True):
        for name in mine:
            assert theirs[name] == pytest.approx(mine[name], abs=1e-5), name


@pytest.mark.slow
def test_only_rank_zero_prints_and_writes(by_two):
    logs, model = by_two
    printed, remarks = (
        ["".join(path.read_text() for path in logs.rglob(f"{rank}/{name}.log")) for rank in (0, 1)]
        for name in ("stdout", "stderr")
    )
    assert printed[0].startswith(f"{model}: epoch")
    assert [len(text.splitlines()) for text in printed] == [1, 0]
    assert [text.count("weights: none") for text in remarks] == [1, 0]
    assert [text.count("finding labelled pixels") for text in remarks] == [1, 0]
    assert [path.name for path in model.parent.iterdir()] == ["model"]


@pytest.mark.slow
def test_a_command_starts_the_requested_processes(tiny_chips, tmp_path):
    command = ("train", tiny_chips.folder, "--out", tmp_path / "model", *COMMON, "--batch", 4, "--epochs", 1)
    code, out, err = forked.command(*command, "--devices", 2, "--compile", surroundings=forked.Surroundings())
    assert code == 0, err
    assert err.count("unet is not compiled: several processes train it") == 1
    assert len(out.splitlines()) == 1
    measures = Model.load(tmp_path / "model").measures
    f1 = f"F1 {measures['val_threshold_f1']:.3f} of squares (0.5: {measures['val_f1_squares']:.3f})"
    assert f"; threshold {measures['val_threshold']:.3g} has {f1}" in out
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.slow
def test_a_file_that_one_process_cannot_read_ends_all_with_a_line_each(tiny_chips, tmp_path):
    folder = shutil.copytree(tiny_chips.folder, tmp_path / "chips")
    # Of the val chips, the second process reads every other one, from the second on.
    damaged = folder / tiny_chips.of_split("val").table["image"].iloc[1]
    damaged.write_bytes(damaged.read_bytes()[:100])
    command = ("train", folder, "--out", tmp_path / "model", *COMMON, "--batch", 4, "--epochs", 1, "--devices", 2)
    code, _, err = forked.command(*command, surroundings=forked.Surroundings())
    of_second, of_first = [line for line in err.splitlines() if line.startswith("landscribe: ")]
    assert f"{damaged.name} cannot be read" in of_second
    assert "model is not finished: another of the 2 processes that train it ended" in of_first
    assert "Traceback" not in err
    assert code == 2
    assert not list(tmp_path.glob("model*"))


@pytest.mark.parametrize(
    ("settings", "drawn", "validation", "said"),
    [
        ({"batch": 9}, 50, 9, "batch is 9, which 2 processes cannot share evenly.* --batch 10"),
        ({}, 1, 9, "split train has 1 chip for 2 processes"),
        ({}, 50, 1, "split val has 1 chip for 2 processes"),
        ({"learning_rate": "auto"}, 50, 9, "needs one process, but there are 2"),
    ],
)
def test_batches_that_cannot_be_shared_are_refused(settings, drawn, validation, said):
    with pytest.raises(RecipeError, match=said):
        require_shareable_batches(TrainSpec(**settings), Processes(2), drawn=drawn, validation=validation)


@pytest.mark.parametrize("budget", [{"epochs": 2}, {"minutes": 1}, {"steps": 100}, {"epochs": 2, "accumulate": 2}])
def test_a_compiled_network_gets_batches_of_one_size(odd_chips, budget):
    order = chip_sampler(odd_chips.of_split("train"), TrainSpec(batch=4, compile=True, **budget), 0)
    assert len(order) >= order.pass_length > 0
    assert len(order) % 4 == 0


def test_an_unshareable_batch_is_refused_before_processes_start(chips, tmp_path):
    with pytest.raises(RecipeError, match="2 processes cannot share evenly"):
        verbs.train(chips, out=tmp_path / "model", devices=2, batch=3)
    assert list(tmp_path.iterdir()) == []


def test_the_clock_of_rank_zero_sets_the_learning_rate(tiny_chips, tmp_path, monkeypatch):
    # The others get what rank 0 sends: nine tenths of the time are used.
    sent = {float: 0.9 * 60 * 0.02}
    monkeypatch.setattr(SingleDeviceStrategy, "broadcast", lambda self, own, src=0: sent.get(type(own), own))
    settings = EVEN | {"epochs": None, "minutes": 0.02, "schedule": "cosine"}
    verbs.train(tiny_chips, out=tmp_path / "model", log=str(tmp_path / "log"), **settings)
    with (tmp_path / "log" / "version_0" / "metrics.csv").open() as file:
        rates = {float(row["learning_rate"]) for row in csv.DictReader(file) if row["learning_rate"]}
    assert list(rates) == pytest.approx([EVEN["learning_rate"] * cosine(0.9)])


@pytest.fixture
def started(monkeypatch) -> None:
    """As torchrun starts the second of two."""
    names = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    for name, value in names.items():
        monkeypatch.setenv(name, value)


def test_auto_is_the_number_of_started_processes(started):
    assert processes("auto") == Processes(2, 1, 1, "torchrun")
    assert not processes("auto").is_rank_zero
    with pytest.raises(RecipeError, match="devices is 3, but torchrun started 2 processes"):
        processes(3)


def test_the_number_of_processes_comes_from_slurm(monkeypatch):
    names = {"SLURM_NTASKS": "4", "SLURM_PROCID": "2", "SLURM_NNODES": "2", "SLURM_JOB_NAME": "job"}
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    # Of the tasks of an allocation srun has started none yet: a process is alone.
    assert processes("auto") == Processes()
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    with pytest.raises(RecipeError, match="--ntasks-per-node"):
        processes("auto")
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "2")
    assert processes("auto") == Processes(4, 2, 2, "SLURM")


@pytest.mark.parametrize("place", [{}, {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}])
def test_a_command_without_srun_in_a_slurm_allocation_trains_alone(tiny_chips, tmp_path, monkeypatch, caplog, place):
    names = {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "job", **place}
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    settings = EVEN | {"epochs": 1}
    verbs.train(tiny_chips, out=tmp_path / "model", **settings)
    assert "SLURM allocated 2 tasks, but srun did not start this process" in caplog.text
    assert (tmp_path / "model" / "config.json").exists()


def test_auto_is_one_device_without_started_processes():
    assert processes("auto") == Processes()


def test_a_run_is_started_once(started, tmp_path):
    with pytest.raises(RecipeError, match="torchrun started 2 processes of landscribe run"):
        require_single_process("landscribe run")


@pytest.mark.parametrize("encoder", ["resnet18", "mobilenetv3_small_050", "efficientnet_b0", "plain"])
def test_normalisations_of_several_gpus_keep_their_activations_and_go_back(encoder):
    network = build("unet", encoder=encoder, bands=3, classes=2, weights=None).eval()
    own = [type(module) for module in network.modules()]
    images, plugin = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)), SyncedNormalisation()
    with torch.inference_mode():
        expected = network(images)
    synced = plugin.apply(network)
    layers = [module for module in synced.modules() if isinstance(module, torch.nn.SyncBatchNorm)]
    assert layers
    with torch.inference_mode():
        torch.testing.assert_close(synced(images), expected, rtol=0, atol=1e-5)
    for layer in layers:
        layer.running_mean += 0.5
    with torch.inference_mode():
        learned = synced(images)
        torch.testing.assert_close(plugin.revert(synced)(images), learned, rtol=0, atol=1e-5)
    assert [type(module) for module in network.modules()] == own
    assert (learned - expected).abs().max() > 1e-4
