"""Chips are the same bytes with any unit size and executor, and a failure leaves no files."""

import _thread
import hashlib
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.windows import Window as RasterioWindow

import forked
from landscribe import executor as engine
from landscribe import machine, verbs
from landscribe.data.chips import cutting, units
from landscribe.data.chips.chips import ChipReader, Chips
from landscribe.data.chips.cutting import chip
from landscribe.data.chips.spec import ChipSpec
from landscribe.data.scenes.label_formats import LabelSource
from landscribe.data.scenes.scene import Scene, open_scenes
from landscribe.data.scenes.spec import SceneSpec
from landscribe.data.splits.split import SplitSpec
from landscribe.errors import EngineError, LandscribeError, ResourceError
from landscribe.geo.features import Features
from landscribe.geo.grid import Window
from worlds import noise, pixel_box, write_polygons, write_raster

H, W, SIZE = 70, 100, 16
STRIDE = 12
BOXES = [pixel_box(2.3, 3, 25, 6.6), pixel_box(20, 40.5, 9.5, 42), pixel_box(44, 1, 20, 90)]


@pytest.fixture
def specs(tmp_path) -> list[SceneSpec]:
    """Two scenes, the second partly without pixels, with the same polygons."""
    labels = write_polygons(tmp_path / "labels.geojson", BOXES, kind=["house", "road", "house"])
    second = noise(3, H, W, seed=1)
    second[:, 30:60, 20:90] = 0
    images = [
        write_raster(tmp_path / "first.tif", noise(3, H, W), nodata=0),
        write_raster(tmp_path / "second.tif", second, nodata=0),
    ]
    return [SceneSpec(image=(str(image),), labels=str(labels), label_field="kind") for image in images]


def cut(specs: list[SceneSpec], out: Path, *, watch=lambda labels: labels, **settings) -> Chips:
    """Cut chips; `watch` may put something before the labels of the first scene."""
    scenes, classes = open_scenes(specs)
    first = scenes[0]
    scenes[0] = Scene(first.name, first.image, watch(first.labels), first.split)
    spec = ChipSpec(**({"size": SIZE, "stride": STRIDE} | settings))
    return chip(scenes, classes, specs, out, spec=spec, split=SplitSpec())


def digests(folder: Path) -> dict[str, str]:
    """sha256 of every file, by its relative path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# Units --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [{}, {"edge": "pad"}, {"mode": "separate", "format": "png"}, {"virtual": True}, {"background_share": 0.5}],
)
def test_chips_are_the_same_bytes_with_any_unit_size(specs, tmp_path, monkeypatch, settings):
    folders = []
    for side in (1, 40, 1024):
        monkeypatch.setattr(units, "_UNIT_SIDE", side)
        folders.append(cut(specs, tmp_path / str(side), **settings).folder)
    first, *others = map(digests, folders)
    assert len(first) > 2 or settings.get("virtual")
    assert all(other == first for other in others)


@pytest.mark.parametrize("edge", ["shift", "pad", "drop"])
def test_chips_cut_by_unit_equal_those_read_one_by_one(specs, tmp_path, monkeypatch, edge):
    monkeypatch.setattr(units, "_UNIT_SIDE", 40)
    reader = ChipReader(cut(specs, tmp_path / "chips", edge=edge))
    scenes = {scene.name: scene for scene in open_scenes(specs)[0]}
    names, windows = reader.chips.table["scene"], reader.chips.windows
    assert names.unique().tolist() == ["first", "second"]
    for number, (name, window) in enumerate(zip(names, windows, strict=True)):
        for copied, original in zip(reader.read(number), scenes[name].read(window), strict=True):
            np.testing.assert_array_equal(copied, original)


@pytest.mark.parametrize(("size", "stride", "most"), [(16, 6, 40), (16, 16, 40), (64, 3, 40), (16, 40, 1024)])
def test_units_have_each_window_once_and_do_not_exceed_their_side(specs, monkeypatch, size, stride, most):
    monkeypatch.setattr(units, "_UNIT_SIDE", most)
    scenes, _ = open_scenes(specs)
    planned = units.units_of(scenes, ChipSpec(size=size, stride=stride))
    indices = [index for unit in planned for index in unit.indices]
    assert sorted(indices) == list(range(len(indices)))
    by_index = {
        index: (unit.scene, window)
        for unit in planned
        for index, window in zip(unit.indices, unit.windows, strict=True)
    }
    assert [by_index[index] for index in range(len(indices))] == sorted(by_index.values())
    assert all(max(unit.window.shape) <= max(most, size) for unit in planned)
    assert all(window & unit.window == window for unit in planned for window in unit.windows)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float32"])
def test_band_statistics_are_those_of_numpy_over_valid_pixels(monkeypatch, dtype):
    # So few pixels at a time that the sums are put together from several parts.
    monkeypatch.setattr(cutting, "_EXACT_PIXELS", 50)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, np.iinfo(dtype).max if dtype.endswith("16") else 200, (3, 23, 17)).astype(dtype)
    valid = rng.random((23, 17)) < 0.7
    pixels[:, ~valid] = 0
    found = cutting._band_statistics(pixels, valid)
    exact = pixels[:, valid].astype(np.longdouble)
    np.testing.assert_allclose([found[f"mean_{n}"] for n in (1, 2, 3)], exact.mean(1).astype(float), rtol=1e-14)
    np.testing.assert_allclose([found[f"std_{n}"] for n in (1, 2, 3)], exact.std(1).astype(float), rtol=1e-12)


def test_the_statistics_of_constant_large_numbers_are_exact():
    found = cutting._band_statistics(np.full((1, 2048, 1024), 65_535, np.uint16), np.ones((2048, 1024), bool))
    assert found == {"mean_1": 65_535.0, "std_1": 0.0}


def test_polygons_for_many_scenes_are_read_once(specs, monkeypatch):
    read, asked = Features.read, []

    def counted(path, **options):
        asked.append(path)
        return read(path, **options)

    monkeypatch.setattr(Features, "read", counted)
    first, second = open_scenes([spec.model_copy(update={"labelled_area": spec.labels}) for spec in specs])[0]
    # Once with the column for the labels, once without for the area.
    assert len(asked) == 2
    assert first.labels.labels.features is second.labels.labels.features


# Dask ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Watched:
    """Labels that note where they are read; the worker that reads `killing` dies, once or whenever it does."""

    labels: LabelSource
    notes: Path
    killing: Window | None = None
    always: bool = False

    def read(self, window: Window) -> np.ndarray:
        path = self.notes / f"{window.row}_{window.col}"
        with path.open("a", encoding="ascii") as note:
            note.write("read\n")
        if window == self.killing and (self.always or path.read_text("ascii").count("read") == 1):
            # What this worker did before is known by now.
            time.sleep(1.5)
            os.kill(os.getpid(), signal.SIGKILL)
        return self.labels.read(window)


@pytest.fixture
def in_pieces(monkeypatch):
    monkeypatch.setattr(units, "_UNIT_SIDE", 40)


@pytest.fixture
def notes(tmp_path) -> Path:
    (tmp_path / "notes").mkdir()
    return tmp_path / "notes"


def last_window(specs: list[SceneSpec]) -> Window:
    """Of the first scene, what its last unit reads."""
    planned = units.units_of(open_scenes(specs)[0], ChipSpec(size=SIZE, stride=STRIDE))
    return [unit for unit in planned if unit.scene == 0][-1].window


@pytest.mark.slow
@pytest.mark.usefixtures("forked_workers")
def test_dask_workers_write_the_same_bytes_as_one_process(specs, tmp_path, in_pieces):
    alone = cut(specs, tmp_path / "alone", background_share=0.5)
    together = cut(specs, tmp_path / "together", background_share=0.5, dask="auto")
    assert digests(together.folder) == digests(alone.folder)
    assert len(units.units_of(open_scenes(specs)[0], ChipSpec(size=SIZE, stride=STRIDE))) > 10


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.usefixtures("forked_workers")
def test_a_killed_worker_loses_its_current_unit_and_at_most_one_more(specs, tmp_path, in_pieces, notes):
    alone, killing = cut(specs, tmp_path / "alone"), last_window(specs)
    chips = cut(specs, tmp_path / "chips", dask="auto", watch=lambda labels: Watched(labels, notes, killing))
    assert digests(chips.folder) == digests(alone.folder)
    times = {path.name: path.read_text("ascii").count("read") for path in notes.iterdir()}
    killed = f"{killing.row}_{killing.col}"
    assert times.pop(killed) == 2
    # The result of the unit before may have been on its way.
    assert sum(times.values()) <= len(times) + 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.usefixtures("forked_workers")
def test_a_unit_that_kills_every_worker_is_an_error_and_leaves_no_files(specs, tmp_path, in_pieces, notes):
    dask = pytest.importorskip("dask")
    # Loads its defaults, which the restored configuration would otherwise lack in this process.
    pytest.importorskip("distributed")
    killing = last_window(specs)
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        pytest.raises(EngineError, match=r"Dask workers died.*more memory"),
    ):
        cut(specs, tmp_path / "chips", dask="auto", watch=lambda labels: Watched(labels, notes, killing, always=True))
    assert not [path for path in tmp_path.iterdir() if "chips" in path.name]


def test_a_scheduler_that_does_not_answer_is_an_error_and_leaves_no_files(specs, tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "_TIMEOUT_S", 1)
    with pytest.raises(EngineError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        verbs.chip(
            images=[specs[0].image], labels=specs[0].labels, size=SIZE, dask="tcp://127.0.0.1:9", out=tmp_path / "chips"
        )
    assert not [path for path in tmp_path.iterdir() if "chips" in path.name]


# Interruption -------------------------------------------------------------------------------------------------------


def cut_until_interrupted(folder: Path, specs: list[SceneSpec], dask: str | None) -> str:
    """Cut chips in a process of its own, interrupted once some are written; how it ended."""
    from dask import config

    def interrupt() -> None:
        while not list(folder.glob(".*.partial.chips/images/*")):
            time.sleep(0.005)
        _thread.interrupt_main()

    units._UNIT_SIDE = 20
    threading.Thread(target=interrupt, daemon=True).start()
    try:
        with config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
            cut(specs, folder / "chips", size=16, stride=1, dask=dask)
    except KeyboardInterrupt:
        return "interrupted"
    return "finished"


@pytest.mark.slow
@pytest.mark.parametrize("dask", [None, "auto"])
def test_interrupted_chipping_leaves_no_files(specs, tmp_path, dask):
    (tmp_path / "out").mkdir()
    assert forked.call(cut_until_interrupted, tmp_path / "out", specs[:1], dask) == "interrupted"
    assert list((tmp_path / "out").iterdir()) == []


@dataclass(frozen=True)
class Meanwhile:
    """Labels of a scene, at whose first reading a file changes."""

    labels: LabelSource
    file: Path

    def read(self, window: Window):
        self.file.touch()
        return self.labels.read(window)


@pytest.mark.parametrize("name", ["first.tif", "labels.geojson"])
def test_a_file_that_changes_while_chips_are_cut_is_noticed_and_leaves_no_chips(specs, tmp_path, name):
    with pytest.raises(LandscribeError, match=rf"{name} changed while .*cut.*Repeat the command"):
        cut(specs, tmp_path / "chips", watch=lambda labels: Meanwhile(labels, tmp_path / name))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.tif", "labels.geojson", "second.tif"]


def test_chips_that_no_machine_can_hold_are_refused_at_once_with_both_numbers(specs, tmp_path):
    scenes, classes = open_scenes(specs)
    endless = replace(scenes[0].image, grid=replace(scenes[0].image.grid, height=2**31 - 1, width=2**31 - 1))
    scenes[0] = replace(scenes[0], image=endless)
    with pytest.raises(
        ResourceError, match=r"cutting \S* or more of 18,0\S* chips of 16 x 16 pixels .* at least .* has .* --stride"
    ):
        chip(scenes, classes, specs, tmp_path / "chips", spec=ChipSpec(size=16), split=SplitSpec())
    assert not (tmp_path / "chips").exists()


def test_chips_larger_than_the_disk_are_refused_unless_they_are_virtual(specs, tmp_path, monkeypatch):
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(ResourceError, match=r"of disk, but .* 100 bytes free. Pass --virtual"):
        cut(specs, tmp_path / "chips")
    assert len(cut(specs, tmp_path / "chips", virtual=True))


def test_units_that_store_no_pixel_are_not_read_and_the_chips_are_those_of_a_dense_copy(tmp_path, monkeypatch):
    tables, reads, real = [], [], Scene.read
    monkeypatch.setattr(Scene, "read", lambda self, window: reads.append(window) or real(self, window))
    labels = write_polygons(tmp_path / "labels.geojson", [pixel_box(0, 0, 2100, 2100)], **{"class": ["a"]})
    pixels = np.zeros((2100, 2100), np.uint8)
    pixels[1500:1540, 1500:1600] = 7
    for is_sparse in (True, False):
        image = write_raster(
            tmp_path / "scene.tif", pixels, nodata=0, tiled=True, blockxsize=64, blockysize=64, SPARSE_OK=is_sparse
        )
        own = SceneSpec(image=(str(image),), labels=str(labels), label_field="class")
        tables.append(cut([own], tmp_path / f"chips_{is_sparse}", size=64, virtual=True).table)
        if is_sparse:
            assert len(reads) < 4
    assert len(tables[0])
    assert tables[0].equals(tables[1])


def sparse(path: Path, side: int, *, stored: Window | None = None, blocks: int = 4096) -> Path:
    """Three bands of zeros that are nodata, in a file that stores the blocks of one window or none."""
    layout = {"driver": "GTiff", "width": side, "height": side, "count": 3, "dtype": "uint8", "nodata": 0}
    tiles = {"tiled": True, "blockxsize": blocks, "blockysize": blocks, "SPARSE_OK": True, "compress": "deflate"}
    place = {"crs": "EPSG:32632", "transform": Affine(10, 0, 0, 0, -10, 9_000_000), "BIGTIFF": "YES"}
    with rasterio.open(path, "w", **layout, **tiles, **place) as target:
        if stored is not None:
            part = RasterioWindow(stored.col, stored.row, stored.width, stored.height)
            target.write(np.full((3, *stored.shape), 7, np.uint8), window=part)
    return path


def polygons_at(path: Path, *corners: tuple[int, int]) -> Path:
    """Squares of 100 pixels of 10 m, of two classes in turn."""
    boxes = [shapely.box(10 * c, 9_000_000 - 10 * r - 1000, 10 * c + 1000, 9_000_000 - 10 * r) for r, c in corners]
    world = gpd.GeoDataFrame({"class": ["a", "b"] * len(boxes)}, geometry=boxes * 2, crs="EPSG:32632")
    world.to_file(path)
    return path


def test_a_sparse_raster_costs_the_chips_that_may_hold_valid_pixels(tmp_path, monkeypatch):
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**9))
    image = sparse(tmp_path / "scene.tif", 250_000, stored=Window(122_880, 32_768, 512, 512), blocks=1024)
    labels = polygons_at(tmp_path / "labels.geojson", (122_960, 32_800))
    source = SceneSpec(image=(str(image),), labels=str(labels), label_field="class")
    # All 954,529 chips would take 1e10 bytes of disk. One block of 4 x 4 chips is stored, and four have pixels.
    table = cut([source], tmp_path / "chips", size=256, stride=256).table
    assert sorted(zip(table["row"], table["col"], strict=True)) == [
        (122_880, 32_768), (122_880, 33_024), (123_136, 32_768), (123_136, 33_024),
    ]  # fmt: skip


def test_a_sparse_raster_without_a_pixel_is_refused_for_that(tmp_path, monkeypatch):
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**6))
    image, labels = sparse(tmp_path / "scene.tif", 10**6), polygons_at(tmp_path / "labels.geojson", (9, 9))
    source = SceneSpec(image=(str(image),), labels=str(labels), label_field="class")
    with pytest.raises(LandscribeError, match="no chip has a labelled, valid pixel"):
        cut([source], tmp_path / "chips", size=256, stride=256)


def test_virtual_chips_are_cut_where_the_refusal_of_copies_advises_them(tmp_path, monkeypatch):
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**5))
    image = sparse(tmp_path / "scene.tif", 10**5, stored=Window(0, 0, 512, 512), blocks=512)
    source = SceneSpec(
        image=(str(image),), labels=str(polygons_at(tmp_path / "l.geojson", (9, 9))), label_field="class"
    )
    # Sixteen chips of a unit of 1024 x 1024 pixels: 256 x 256 pixels of four bytes each, compressed twentyfold.
    with pytest.raises(
        ResourceError, match=r"cutting 16 or more of \S+ chips .* at least 210 kB of disk.* Pass --virtual"
    ):
        cut([source], tmp_path / "chips", size=256, stride=256)
    assert len(cut([source], tmp_path / "chips", size=256, stride=256, virtual=True)) == 4
