"""Blocks are compressed while units are computed, and a map has the same bytes with them and without."""

import threading
from pathlib import Path

import numpy as np
import pytest

from landscribe.errors import UnfinishedError
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.tiling import units
from landscribe.maps.assembly.blocks import Blocks, groups
from landscribe.maps.output_paths import OutputPaths
from landscribe.model import Model
from landscribe.prediction import run as running
from landscribe.prediction.finish import finish
from landscribe.prediction.run import run
from landscribe.prediction.spec import PredictSpec
from networks import Identity, plan_map
from worlds import write_raster

SHAPE = (2100, 4200)
SPEC = PredictSpec(tile=512, margin=4, unit=900, engine="torch")


@pytest.fixture(scope="module")
def raster(tmp_path_factory):
    """Classes; the third group of the first row is nodata, and so are its units."""
    pixels = np.random.default_rng(0).integers(0, 3, SHAPE).astype(np.uint8)
    pixels[:, 3500:] = 3
    return Raster.open([write_raster(tmp_path_factory.mktemp("beside") / "image.tif", pixels, nodata=3)])


@pytest.fixture(scope="module")
def model():
    return Model.wrap(Identity(), bands=["v"], classes=list("abcd"))


def planned(model, raster, out, **settings):
    spec = SPEC.model_copy(update=settings)
    return plan_map(model, raster, spec, OutputPaths(out, probabilities=out.with_name("p.tif")))


def compressed(store) -> set[str]:
    return {path.name for path in store.folder.glob("*.blocks")}


def test_a_group_is_compressed_when_its_last_unit_is_done(tmp_path, model, raster, monkeypatch):
    plan, done, seen = planned(model, raster, tmp_path / "map.tif"), set(), []
    last = {group: max(unit.name for unit in plan.units if not (unit.keep & group).is_empty) for group in groups(SHAPE)}
    compress, failures, lock = Blocks.compress, running._failures, threading.Lock()

    def noted(self, window, sources, base=0):
        with lock:
            seen.append((window, set(done)))
        compress(self, window, sources, base)

    def failures_of(outcomes, advance, finished):
        def note(unit):
            done.add(unit.name)
            finished(unit)

        return failures(outcomes, advance, note)

    monkeypatch.setattr(Blocks, "compress", noted)
    monkeypatch.setattr(running, "_failures", failures_of)
    run(plan)
    assert {window for window, _ in seen} <= {window for window in groups(SHAPE) if window.col < 3500}
    assert all(last[window] in names for window, names in seen)
    # Those of the first row do not wait for the units of the last.
    assert any(names < {unit.name for unit in plan.units} for _, names in seen)


def test_a_map_has_the_same_bytes_without_blocks_that_were_compressed_beside(tmp_path, model, raster):
    maps = []
    for name in ("beside", "after", "some"):
        folder = tmp_path / name
        folder.mkdir()
        plan = planned(model, raster, folder / "map.tif")
        store = run(plan)
        for index, path in enumerate(sorted(store.folder.glob("*.blocks"))):
            if name == "after" or (name == "some" and index % 2):
                path.unlink()
        finish(plan, store)
        maps.append([(folder / file).read_bytes() for file in ("map.tif", "p.tif")])
    assert maps[0] == maps[1] == maps[2]


def test_a_map_whose_removal_was_killed_has_all_its_pixels_again(tmp_path, model, raster, monkeypatch):
    """Some units are not done any more, and their neighbours' files may be gone."""
    whole = tmp_path / "whole" / "map.tif"
    whole.parent.mkdir()
    finish(planned(model, raster, whole), run(planned(model, raster, whole)))
    unlink, left = Path.unlink, [12]

    def killed(path: Path, *, missing_ok: bool = False) -> None:
        if path.parent.name.endswith(".parts"):
            left[0] -= 1
            if not left[0]:
                raise KeyboardInterrupt
        unlink(path, missing_ok=missing_ok)

    plan = planned(model, raster, tmp_path / "map.tif")
    store = run(plan)
    with monkeypatch.context() as patch:
        patch.setattr("landscribe.outputs.atomic._flush_to_disk", lambda _: None)
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            store.remove()
    assert 0 < store.count_done() < len(plan.units)
    finish(plan, run(plan))
    assert (tmp_path / "map.tif").read_bytes() == whole.read_bytes()


def test_units_that_are_merged_by_a_minimum_area_are_compressed_at_the_end(tmp_path, model, raster):
    store = run(planned(model, raster, tmp_path / "map.tif", minimum_area=60.0))
    assert not compressed(store)


def test_a_disk_that_fills_beside_the_mapping_keeps_the_units(tmp_path, model, raster, monkeypatch):
    plan = planned(model, raster, tmp_path / "map.tif")

    write = Path.write_bytes

    def fail(path: Path, data: bytes) -> int:
        if path.name.endswith(".blocks"):
            raise OSError(28, "No space left on device")
        return write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", fail)
        with pytest.raises(UnfinishedError, match="No space left"):
            run(plan)
    store = run(plan)
    assert store.count_done() == len(list(units(*SHAPE, size=512, margin=4, side=900)))
    finish(plan, store)
    assert (tmp_path / "map.tif").exists()
