"""Objects of the Banepa buildings: UNet-ID against connected components of a plain UNet's map.

    python benchmarks/objects_banepa.py DATA OUT [--steps 300] [--batch 4]

DATA holds scene.tif and buildings.geojson. Both networks have the same encoder, random initial weights, chips and
steps. Objects are compared on the held-out blocks: an object counts if at least half of its pixels lie there. Trained
models in OUT are used again.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray

import landscribe as ls
from landscribe.data.chips.chips import Chips
from landscribe.geo.grid import Window
from landscribe.geo.rasters.raster import Raster
from landscribe.maps.class_map import ClassMap
from landscribe.polygons.object_spec import ObjectSpec
from landscribe.polygons.objects import objects_of

PIXEL_SIZE = 0.264
"""Metres: twice the pixels of the scene."""
MINIMUM_AREA = 4
"""Square metres: smaller patches of a map are merged, for all variants."""
WIDTHS = (16, 32, 64, 128)
UNET_ID = {"border_outside": 2, "border_inside": 2, "inner_distance": 2}
"""Pixels: the paper's widths are for pixels of half the size."""
VARIANTS = {
    "UNet, components": ("unet", ObjectSpec(source="components")),
    "UNet, split touching": ("unet", ObjectSpec(source="distance")),
    "UNet-ID, components": ("unet_id", ObjectSpec(source="components")),
    "UNet-ID, split touching": ("unet_id", ObjectSpec(source="distance")),
    "UNet-ID": ("unet_id", ObjectSpec(source="heads")),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=4)
    given = parser.parse_args()
    chips = cut(given.data, given.out / "chips")
    for name, options in (("unet", {}), ("unet_id", UNET_ID)):
        folder = given.out / name
        if not folder.exists():
            ls.train(
                chips, out=folder, architecture=name, encoder="plain", weights="none", steps=given.steps,
                batch=given.batch, checkpoint="last", augment="light", options={"encoder_widths": WIDTHS, **options},
            )  # fmt: skip
        if not (folder / "map.tif").exists():
            layers = {"object_probabilities": folder / "objects.tif"} if name == "unet_id" else {}
            ls.predict(
                folder, given.data / "scene.tif", out=folder / "map.tif", resample=True, minimum_area=MINIMUM_AREA,
                **layers,
            )  # fmt: skip
    held_out, reference = ground(chips)
    rows = {name: measured(given.out, *variant, reference, held_out) for name, variant in VARIANTS.items()}
    print(f"{'':25}  objects  precision  recall     F1")
    for name, row in rows.items():
        print(f"{name:25} {row.predicted:8} {row.precision:10.3f} {row.recall:7.3f} {row.f1:6.3f}")
    print(f"{'reference':25} {rows['UNet-ID'].reference:8}")
    (given.out / "objects.json").write_text(json.dumps({name: vars(row) for name, row in rows.items()}, indent=1))


def cut(data: Path, out: Path) -> Chips:
    if out.exists():
        return Chips.open(out)
    return ls.chip(
        images=[data / "scene.tif"], labels=data / "buildings.geojson", out=out, pixel_size=PIXEL_SIZE, size=128,
        objects=True, fix_geometries=True, val=0, test=0.3,
    )  # fmt: skip


def ground(chips: Chips) -> tuple[NDArray[np.bool_], NDArray[np.uint32]]:
    """(rows, cols) of the scene: True in the test chips, and the numbers of the reference's objects."""
    (scene,) = chips.scenes().values()
    held_out = np.zeros(scene.image.grid.shape, bool)
    for window in chips.of_split("test").windows:
        held_out[(window & scene.image.grid.window).slices] = True
    return held_out, scene.read_objects(Window(0, 0, *held_out.shape))


@dataclass(frozen=True)
class Matched:
    matches: int
    predicted: int
    reference: int

    @property
    def precision(self) -> float:
        return self.matches / max(1, self.predicted)

    @property
    def recall(self) -> float:
        return self.matches / max(1, self.reference)

    @property
    def f1(self) -> float:
        return 2 * self.matches / max(1, self.predicted + self.reference)


def measured(out: Path, name: str, spec: ObjectSpec, reference: NDArray[np.uint32], held_out: NDArray[np.bool_]):
    mapped, layers = ClassMap.open(out / name / "map.tif"), None
    if spec.source == "heads":
        layers = Raster.open([out / name / "objects.tif"])
    file = out / f"{name}-{spec.source}.tif"
    objects_of(mapped, layers, spec, file)
    with rasterio.open(file) as source:
        return matched(source.read(1), reference, held_out)


def matched(predicted: NDArray[np.uint32], reference: NDArray[np.uint32], held_out: NDArray[np.bool_]) -> Matched:
    """Matches at an IoU above 0.5, of which each object has at most one."""
    areas = [np.bincount(numbers.ravel()) for numbers in (predicted, reference)]
    counts = [
        2 * np.bincount(numbers[held_out], minlength=len(area)) >= np.maximum(1, area)
        for numbers, area in zip((predicted, reference), areas, strict=True)
    ]
    both = (predicted > 0) & (reference > 0)
    pairs, shared = np.unique(np.stack([predicted[both], reference[both]]), axis=1, return_counts=True)
    union = areas[0][pairs[0]] + areas[1][pairs[1]] - shared
    is_match = (shared / union > 0.5) & counts[0][pairs[0]] & counts[1][pairs[1]]
    return Matched(int(is_match.sum()), int(counts[0][1:].sum()), int(counts[1][1:].sum()))


if __name__ == "__main__":
    main()
