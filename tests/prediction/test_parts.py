"""What is done of a map stays when what stopped it can be mended, and goes when it cannot."""

import numpy as np
import pytest
from rasterio.transform import Affine

from landscribe.errors import EngineError, OutputError, RasterError, ReadError, UnfinishedError, UnreachableError
from landscribe.geo.grid import Grid
from landscribe.geo.tiling import units
from landscribe.prediction.layers import CLASS
from landscribe.prediction.parts import Parts, begun

PLANNED = tuple(units(8, 16, size=8, margin=0, align=1, side=8))
GRID = Grid(None, Affine.identity(), 16, 8)


def failing(parts: Parts, error: BaseException, *, done: int = 0, alone: bool = True) -> None:
    """A run that makes so many units, and fails."""
    with begun(parts, overwrite=False, alone=alone):
        for unit in PLANNED[:done]:
            parts.put(unit, {CLASS.kind: np.zeros((1, *unit.keep.shape), np.uint8)}, [CLASS], GRID)
        raise error


@pytest.mark.parametrize("error", [OutputError, UnreachableError, EngineError])
def test_what_can_be_mended_keeps_the_units_that_are_done(tmp_path, error):
    parts = Parts.of(tmp_path / "new" / "map.tif", {})
    with pytest.raises(
        UnfinishedError, match=r"new/map\.tif is not finished: so\. Its finished units \(1\) are kept in"
    ):
        failing(parts, error("so."), done=1)
    assert [parts.is_done(unit) for unit in PLANNED] == [True, False]


@pytest.mark.parametrize("error", [RasterError, ReadError])
def test_of_a_raster_that_will_not_do_nothing_is_left(tmp_path, error):
    with pytest.raises(error, match=r"^so\.$"):
        failing(Parts.of(tmp_path / "new" / "map.tif", {}), error("so."), done=1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [OutputError, UnreachableError, EngineError])
def test_what_fails_before_a_unit_is_done_leaves_nothing(tmp_path, error):
    with pytest.raises(error, match=r"^so\.$"):
        failing(Parts.of(tmp_path / "new" / "map.tif", {}), error("so."))
    assert not list(tmp_path.iterdir())


def test_an_interruption_keeps_what_was_begun(tmp_path):
    parts = Parts.of(tmp_path / "map.tif", {})
    with pytest.raises(KeyboardInterrupt):
        failing(parts, KeyboardInterrupt())
    assert parts.is_begun()


@pytest.mark.parametrize("error", [OutputError, RasterError])
def test_a_shard_that_fails_takes_nothing_from_the_others(tmp_path, error):
    parts = Parts.of(tmp_path / "map.tif", {})
    with pytest.raises(error, match=r"^so\.$"):
        failing(parts, error("so."), alone=False)
    assert parts.is_begun()
