"""The comparison of maps with chips."""

import numpy as np

from landscribe import verbs
from landscribe.assessment.accuracy import assess_chips, assess_labels
from landscribe.data.scenes.scene import open_labels
from landscribe.geo.grid import Window
from landscribe.geo.rasters.raster import Raster
from worlds import noise, write_raster

SIDE = 48


def test_a_pixel_of_overlapping_chips_counts_once_without_pairwise_comparison(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    image = write_raster(tmp_path / "scene.tif", noise(3, SIDE, SIDE))
    labels = write_raster(tmp_path / "labels.tif", rng.integers(1, 3, (SIDE, SIDE), np.uint8))
    mapped = Raster.open([str(write_raster(tmp_path / "map.tif", rng.integers(1, 3, (SIDE, SIDE), np.uint8)))])
    chips = verbs.chip(
        images=[image], labels=labels, out=tmp_path / "chips", size=16, stride=4, val=0, test=0, virtual=True
    )
    source = open_labels(chips.metadata.sources[0], Raster.open([str(image)]), chips.classes)
    intersections = []
    original = Window.__and__
    monkeypatch.setattr(Window, "__and__", lambda a, b: intersections.append(1) or original(a, b))
    confusion = assess_chips([mapped], chips)
    monkeypatch.undo()
    assert confusion.total == SIDE * SIDE
    np.testing.assert_array_equal(confusion.counts, assess_labels(mapped, source, chips.classes).counts)
    # 81 chips; each overlaps at most 24 earlier ones, of 3 240 pairs in all.
    assert len(intersections) < 81 * 24
