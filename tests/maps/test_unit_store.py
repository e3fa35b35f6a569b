"""A recoverable error keeps the finished units of a map; any other error removes them."""

import numpy as np
import pytest
from rasterio.transform import Affine

from landscribe.errors import EngineError, OutputError, RasterError, ReadError, UnfinishedError, UnreachableError
from landscribe.fingerprint import Fingerprint
from landscribe.geo.grid import Grid
from landscribe.geo.tiling import Unit, units
from landscribe.maps.layers import CLASS
from landscribe.maps.unit_store import UnitStore

PLANNED = tuple(units(8, 16, size=8, margin=0, align=1, side=8))
GRID = Grid(None, Affine.identity(), 16, 8)


def put(parts: UnitStore, unit: Unit) -> None:
    parts.write(unit, {CLASS.kind: np.zeros((1, *unit.keep.shape), np.uint8)}, [CLASS], GRID)


def failing(parts: UnitStore, error: BaseException, *, done: int = 0, alone: bool = True) -> None:
    """A run that makes so many units, and fails."""
    with parts.session(is_shard=not alone):
        for unit in PLANNED[:done]:
            put(parts, unit)
        raise error


@pytest.mark.parametrize("error", [OutputError, UnreachableError, EngineError])
def test_a_recoverable_error_keeps_the_finished_units(tmp_path, error):
    parts = UnitStore.of(tmp_path / "new" / "map.tif", Fingerprint.of({}))
    with pytest.raises(
        UnfinishedError, match=r"new/map\.tif is not finished: so\. Its finished units \(1\) are kept in"
    ):
        failing(parts, error("so."), done=1)
    assert [parts.is_done(unit) for unit in PLANNED] == [True, False]


@pytest.mark.parametrize("error", [RasterError, ReadError])
def test_a_refused_raster_leaves_no_unit_store(tmp_path, error):
    with pytest.raises(error, match=r"^so\.$"):
        failing(UnitStore.of(tmp_path / "new" / "map.tif", Fingerprint.of({})), error("so."), done=1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [OutputError, UnreachableError, EngineError])
def test_a_failure_before_the_first_unit_leaves_no_unit_store(tmp_path, error):
    with pytest.raises(error, match=r"^so\.$"):
        failing(UnitStore.of(tmp_path / "new" / "map.tif", Fingerprint.of({})), error("so."))
    assert not list(tmp_path.iterdir())


def test_an_interruption_keeps_the_unit_store(tmp_path):
    parts = UnitStore.of(tmp_path / "map.tif", Fingerprint.of({}))
    with pytest.raises(KeyboardInterrupt):
        failing(parts, KeyboardInterrupt())
    assert parts.exists()


@pytest.mark.parametrize("error", [OutputError, RasterError])
def test_a_failed_shard_keeps_the_units_of_the_others(tmp_path, error):
    parts = UnitStore.of(tmp_path / "map.tif", Fingerprint.of({}))
    with pytest.raises(error, match=r"^so\.$"):
        failing(parts, error("so."), alone=False)
    assert parts.exists()


def test_a_late_unit_writes_nothing_after_the_store_is_removed(tmp_path):
    parts = UnitStore.of(tmp_path / "map.tif", Fingerprint.of({}))
    parts.claim(overwrite=False)
    parts.remove()
    with pytest.raises(OutputError, match=r"map\.tif\.parts was removed"):
        put(parts, PLANNED[0])
    assert not list(tmp_path.iterdir())


def test_a_late_unit_is_not_written_into_another_maps_store(tmp_path):
    late, now = (
        UnitStore.of(tmp_path / "map.tif", Fingerprint.of({"batch": 1})),
        UnitStore.of(tmp_path / "map.tif", Fingerprint.of({"batch": 4})),
    )
    late.claim(overwrite=False)
    now.claim(overwrite=True)
    with pytest.raises(OutputError, match="now holds another map"):
        put(late, PLANNED[0])
    assert not now.is_done(PLANNED[0])


DAY = 86_400 * 10**9


@pytest.mark.parametrize(
    ("key", "before", "now", "expected"),
    [
        ("model", ["0123456789abcdef"], ["fedcba9876543210"], "(01234567, now fedcba98)"),
        ("minimum_area", None, 50.0, "(not set, now 50.0)"),
        (
            "raster",
            [["a.tif", 10, DAY]],
            [["a.tif", 12, 2 * DAY]],
            "(a.tif of 10 bytes and 1970-01-02 00:00:00 UTC, now a.tif of 12 bytes and 1970-01-03 00:00:00 UTC)",
        ),
        (
            "raster",
            [["http://x/a.tif", "1", "2"]],
            [["http://x/a.tif", "3", "4"]],
            "(http://x/a.tif, changed",
        ),
        (
            "raster",
            [["v.vrt", 10, DAY, ["a", 1, 2]]],
            [["v.vrt", 10, DAY, ["a", 1, 3]]],
            "(v.vrt of 10 bytes and 1970-01-02 00:00:00 UTC, changed since)",
        ),
        ("area", ["town.gpkg", 10, DAY], None, "(town.gpkg of 10 bytes and 1970-01-02 00:00:00 UTC, now not set)"),
    ],
)
def test_another_plan_is_refused_with_the_settings_that_differ(tmp_path, key, before, now, expected):
    UnitStore.of(tmp_path / "map.tif", Fingerprint.of({key: before, "device": "cpu"})).claim(overwrite=False)
    with pytest.raises(OutputError) as refused:
        UnitStore.of(tmp_path / "map.tif", Fingerprint.of({key: now, "device": "cpu"})).claim(overwrite=False)
    assert f"holds an unfinished map with another {key} {expected}" in str(refused.value)


def test_every_difference_from_the_plan_is_reported(tmp_path):
    UnitStore.of(tmp_path / "map.tif", Fingerprint.of({"batch": 1, "engine": "torch"})).claim(overwrite=False)
    with pytest.raises(OutputError, match=r"another batch \(1, now 4\) and engine \(torch, now onnx\)"):
        UnitStore.of(tmp_path / "map.tif", Fingerprint.of({"batch": 4, "engine": "onnx"})).claim(overwrite=False)
