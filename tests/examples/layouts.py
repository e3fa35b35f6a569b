"""Small folders in the layouts in which the publishers of the lecture's examples distribute their data."""

from pathlib import Path

import numpy as np
import shapely
from affine import Affine
from rasterio.crs import CRS

from worlds import CORNER, METRE, UTM, noise, write_polygons, write_raster

BANDS = ("red", "green", "blue")


def bright(classes: np.ndarray, bands: int = 3) -> np.ndarray:
    """Imagery (bands, rows, cols) whose brightness follows the class, with noise."""
    return (40 + 45 * classes + noise(bands, *classes.shape) % 20).astype(np.uint8)


def squares(side: int, values: int = 2) -> np.ndarray:
    """Class indices (side, side): squares of 24 pixels, in turn."""
    rows, cols = np.indices((side, side)) // 24
    return (rows + cols) % values


def topodl(folder: Path, *, states: tuple[str, ...] = ("ky",), maps: int = 6) -> Path:
    """Scanned maps with a collar of 16 pixels, mines and the quadrangle by the same stem; each map 1 km apart."""
    for row, state in enumerate(states):
        for name in ("topos", "mines", "quads"):
            (folder / f"{state}_{name}").mkdir(parents=True)
        for index in range(maps):
            stem, place = (
                f"{state.upper()}_Map {index}_1:24000".replace(":", "_"),
                Affine.translation(1000 * index, 9000 * row),
            )
            transform = METRE @ place
            x, y = CORNER[0] + 1000 * index, CORNER[1] - 9000 * row
            inside = np.zeros((128, 128), np.uint8)
            inside[16:112, 16:112] = squares(96)
            image = bright(inside)
            image[:, :16], image[:, 112:], image[:, :, :16], image[:, :, 112:] = 250, 250, 250, 250
            write_raster(folder / f"{state}_topos" / f"{stem}.tif", image, transform=transform, descriptions=BANDS)
            boxes = [
                shapely.box(x + 16 + 24 * c, y - 40 - 24 * r, x + 40 + 24 * c, y - 16 - 24 * r)
                for r in range(4) for c in range(4) if (r + c) % 2
            ]  # fmt: skip
            write_polygons(folder / f"{state}_mines" / f"{stem}.shp", boxes)
            quadrangle = [shapely.box(x + 16, y - 112, x + 112, y - 16)]
            write_polygons(folder / f"{state}_quads" / f"{stem}.shp", quadrangle)
    return folder


def inria(folder: Path, *, cities: tuple[str, ...] = ("austin", "vienna", "tyrol-w"), tiles: int = 7) -> Path:
    """Images with a CRS, masks of 0 and 255 without one; the tiles of a city lie side by side."""
    for part in ("train/images", "train/gt", "test/images"):
        (folder / part).mkdir(parents=True)
    for row, city in enumerate(cities):
        for tile in range(1, tiles + 1):
            transform, classes = METRE @ Affine.translation(500 * tile, 9000 * row), squares(96)
            write_raster(
                folder / f"train/images/{city}{tile}.tif", bright(classes), transform=transform, descriptions=BANDS
            )
            write_raster(
                folder / f"train/gt/{city}{tile}.tif", (255 * classes).astype(np.uint8), crs=None, transform=None
            )
    write_raster(folder / "test/images/bellingham1.tif", bright(squares(96)), descriptions=BANDS)
    return folder


def landcoverai(folder: Path, *, size: int = 512, images: int = 2) -> Path:
    """Orthophotos and masks in EPSG:2180, one chip wider and higher than whole chips, and the lists of chips."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    chips = []
    for index in range(images):
        stem, transform = f"N-33-60-D-c-4-{index}", Affine(0.5, 0, 400_000 + 5000 * index, 0, -0.5, 500_000)
        classes = squares(2 * size + 40, 5)
        place = {"crs": CRS.from_epsg(2180), "transform": transform}
        write_raster(folder / "images" / f"{stem}.tif", bright(classes), descriptions=BANDS, **place)
        write_raster(folder / "masks" / f"{stem}.tif", classes.astype(np.uint8), **place)
        # The split script counts the partial chips, and writes the whole ones.
        chips += [f"{stem}_{3 * row + col}" for row in range(2) for col in range(2)]
    for name, part in {"train": chips[:-4], "val": chips[-4:-2], "test": chips[-2:]}.items():
        (folder / f"{name}.txt").write_text("\n".join(part) + "\n")
    return folder


def wvlcdl(folder: Path, *, images: int = 3) -> Path:
    """Four-band imagery of 0.6 m, and polygons of seven classes that cover a part of it."""
    (folder / "naip").mkdir(parents=True)
    boxes, values = [], []
    for index in range(images):
        classes, x = np.kron(squares(192, 7), np.ones((5, 5), int)), CORNER[0] + 700 * index
        transform = Affine(0.6, 0, x, 0, -0.6, CORNER[1])
        image = bright(np.minimum(classes, 4), 4)
        write_raster(folder / "naip" / f"m_38080_{index}.tif", image, transform=transform, crs=UTM)
        for row in range(8):
            for col in range(0, 8, 2):
                box_x, box_y = x + 72 * col, CORNER[1] - 72 * row
                boxes.append(shapely.box(box_x + 6, box_y - 60, box_x + 60, box_y - 6))
                values.append((row + col) % 7 + 1)
    write_polygons(folder / "training_polys.shp", boxes, classvalue=values)
    return folder
