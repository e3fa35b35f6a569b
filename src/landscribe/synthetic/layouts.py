"""Small data sets, drawn by code, in the layouts in which the publishers of the lecture's examples distribute theirs.

Folders, file names, columns, value codes, data types and CRSs are those of the publisher; sizes are cut down. A layout
of another example is a function here, and a line in LAYOUTS.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import rasterio
import shapely
from affine import Affine
from numpy.random import Generator
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.features import rasterize
from scipy.ndimage import binary_dilation, binary_erosion
from shapely import Polygon
from shapely.affinity import translate

from landscribe.geo.access import allow_ungeoreferenced
from landscribe.synthetic.world import World, cloud, draw

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]

_RGB, _RGB_NIR = ("red", "green", "blue"), ("red", "green", "blue", "nir")
_UTM, _POLAND = CRS.from_epsg(32617), CRS.from_epsg(2180)


def topodl(
    folder: Path, *, states: Sequence[str] = ("ky", "oh", "va"), maps: int = 8, size: int = 256, seed: int = 0
) -> Path:
    """Scanned maps of `size` pixels, 2 m each, and the mines and the quadrangle of each by the same stem.

    A collar of an eighth of the map lies around each quadrangle. Quadrangles lie side by side, so that collars overlap.
    """
    collar = size // 8
    for row, state in enumerate(states):
        for name in ("topos", "mines", "quads"):
            (folder / f"{state}_{name}").mkdir(parents=True)
        for index in range(maps):
            world = draw(size, size, seed=seed + 1000 * row + index, pixel_size=2.0, collar=False)
            world = _moved(world, 2 * (size - 2 * collar) * index, -9000 * row)
            stem = f"{state.upper()}_Quadrangle {index}_{803_000 + 100 * row + index}_1954_24000_geo"
            rng = np.random.default_rng((seed, row, index))
            quadrangle = shapely.box(*_bounds(world, inset=collar))
            mines = _mines(rng, world, quadrangle)
            scan = _scanned(rng, world, mines, quadrangle)
            _write_raster(folder / f"{state}_topos" / f"{stem}.tif", scan, world.crs, world.transform, _RGB)
            _write_polygons(folder / f"{state}_mines" / f"{stem}.shp", mines, mine_id=range(len(mines)))
            _write_polygons(folder / f"{state}_quads" / f"{stem}.shp", [quadrangle], QUADNAME=[f"Quadrangle {index}"])
    return folder


def inria(
    folder: Path,
    *,
    cities: Sequence[str] = ("austin", "chicago", "kitsap", "tyrol-w", "vienna"),
    tiles: int = 7,
    size: int = 256,
    seed: int = 0,
) -> Path:
    """Tiles of `size` pixels, 0.3 m each, their masks of 0 and 255 without georeference, and two tiles without a mask.

    Each city has its own light, so that a network of one city errs in another.
    """
    for part in ("train/images", "train/gt", "test/images"):
        (folder / part).mkdir(parents=True)
    for row, city in enumerate((*cities, "bellingham")):
        light = np.random.default_rng((seed, row)).uniform(0.6, 1.1, (3, 1, 1))
        is_test = city == "bellingham"
        for tile in range(1, (2 if is_test else tiles) + 1):
            world = draw(size, size, seed=seed + 1000 * row + tile, pixel_size=0.3, collar=False)
            world = _moved(world, 1000 * tile, -9000 * row)
            image, name = (world.image * light).clip(0, 255).astype(np.uint8), f"{city}{tile}.tif"
            images = folder / ("test" if is_test else "train") / "images"
            _write_raster(images / name, image, world.crs, world.transform, _RGB)
            if not is_test:
                mask = np.where(world.truth == 4, 255, 0).astype(np.uint8)
                _write_raster(folder / "train/gt" / name, mask[None], None, None, ())
    return folder


def landcoverai(folder: Path, *, images: int = 4, size: int = 512, seed: int = 0) -> Path:
    """Orthophotos and masks in EPSG:2180, two chips of `size` pixels and a part of one wide and high; lists of chips.

    Masks have 1 for buildings, 2 for woodland, 3 for water, 4 for roads, 0 for the rest.
    """
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    chips = []
    for index in range(images):
        stem, side = f"N-33-60-D-c-4-{index}", 2 * size + 40
        world = draw(side, side, seed=seed + index, pixel_size=0.5, collar=False)
        transform = Affine(0.5, 0, 400_000 + 5000 * index, 0, -0.5, 500_000)
        values = np.array([0, 0, 3, 4, 1], np.uint8)[world.truth]
        values[(world.truth == 0) & (_burned(world, world.woods) > 0)] = 2
        _write_raster(folder / "images" / f"{stem}.tif", world.image, _POLAND, transform, _RGB)
        _write_raster(folder / "masks" / f"{stem}.tif", values[None], _POLAND, transform, ())
        # The publisher's script counts the partial chips at the right and bottom, and writes the whole ones.
        chips += [f"{stem}_{3 * row + col}" for row in range(2) for col in range(2)]
    chips = np.random.default_rng(seed).permutation(chips).tolist()
    held = max(2, len(chips) // 5)
    lists = {"train": chips[: -2 * held], "val": chips[-2 * held : -held], "test": chips[-held:]}
    for name, listed in lists.items():
        (folder / f"{name}.txt").write_text("\n".join(listed) + "\n", encoding="utf-8")
    return folder


def wvlcdl(folder: Path, *, images: int = 4, size: int = 960, seed: int = 0) -> Path:
    """Imagery of four bands and 0.6 m, polygons of seven classes on a part of it, and points of the same classes.

    The last image has no polygon. The columns classvalue of polygons and GrndTruth of points have 1 for barren, 2 for
    cropland, 3 forest, 4 grass, 5 impervious, 6 mixed developed, 7 water.
    """
    if images < 2:
        raise ValueError(f"images is {images}. Expected 2 or more: the last one has no polygon.")
    squares = folder / "wv_60cm_2016" / "38080"
    squares.mkdir(parents=True)
    polygons, points = [], []
    for index in range(images):
        rng = np.random.default_rng((seed, index))
        world = draw(size, size, seed=seed + index, bands=4, pixel_size=0.6, collar=False)
        world = _moved(world, 2000 * index, 0)
        path = squares / f"m_38080{index:02d}_ne_17_060_20160718.tif"
        _write_raster(path, world.image, world.crs, world.transform, _RGB_NIR)
        covered = _land_cover(world)
        values = _burned(world, *zip(*covered, strict=True), fill=4)
        grass = [(plot, 4) for plot in _plots(rng, world, binary_erosion(values == 4, iterations=12), 24)]
        kept = 0.7 if index < images - 1 else 0.0
        polygons += [(polygon.buffer(-1.5), value) for polygon, value in (*covered, *grass) if rng.random() < kept]
        points += _points(rng, world, values)
    polygons = [(polygon, value) for polygon, value in polygons if polygon.geom_type == "Polygon" and polygon.area > 30]
    for name, column, rows in (
        ("training_polys", "classvalue", polygons), ("validation_points", "GrndTruth", points),
    ):  # fmt: skip
        geometries, codes = zip(*rows, strict=True)
        _write_polygons(folder / f"{name}.shp", geometries, **{column: codes})
    return folder


@dataclass(frozen=True)
class Layout:
    """A small data set in a publisher's layout."""

    write: Callable[..., Path]
    """Writes it into a folder, which it returns; `seed` chooses the landscape."""
    settings: dict[str, Any]
    """Settings of a recipe that fit the small scenes."""


_QUICK = {"weights": "none", "epochs": None}
LAYOUTS: dict[str, Layout] = {
    "topodl": Layout(topodl, _QUICK | {"size": 64, "stride": 32, "steps": 150}),
    "inria": Layout(inria, _QUICK | {"size": 128, "stride": 64, "steps": 150}),
    "landcoverai": Layout(
        landcoverai, _QUICK | {"train": {"batch": 2}, "options": {"widths": [8, 16, 32, 64, 128]}, "steps": 60}
    ),
    "wvlcdl": Layout(wvlcdl, _QUICK | {"size": 64, "stride": 32, "steps": 150}),
}
"""By the name of the example."""


def _moved(world: World, x: float, y: float) -> World:
    """The world, x metres to the east and y to the north; its polygons are in its own CRS."""
    features = world.features.to_crs(world.crs)
    return World(
        world.image,
        world.truth,
        features.set_geometry(features.translate(x, y)),
        np.array([translate(wood, x, y) for wood in world.woods], dtype=object),
        world.crs,
        Affine.translation(x, y) @ world.transform,
    )


def _bounds(world: World, *, inset: int) -> tuple[float, float, float, float]:
    """West, south, east and north of the scene without a frame of `inset` pixels."""
    height, width = world.truth.shape
    west, north = world.transform @ (inset, inset)
    east, south = world.transform @ (width - inset, height - inset)
    return west, south, east, north


def _of_class(world: World, name: str) -> list[Polygon]:
    return list(world.features.geometry[world.features["class"] == name])


def _burned(world: World, shapes: Iterable[Any], values: Iterable[int] | int = 1, *, fill: int = 0) -> Pixels:
    """Values (rows, cols) of the last shape over each pixel centre of the scene."""
    shapes = list(shapes)
    pairs = list(zip(shapes, [values] * len(shapes) if isinstance(values, int) else values, strict=True))
    if not pairs:
        return np.full(world.truth.shape, fill, np.uint8)
    return rasterize(pairs, world.truth.shape, fill=fill, transform=world.transform, dtype="uint8")


def _mines(rng: Generator, world: World, quadrangle: Polygon) -> list[Polygon]:
    """Fields of the world that are surface mines, inside the quadrangle."""
    fields = [field.intersection(quadrangle) for field in _of_class(world, "field")]
    fields = [field for field in fields if field.geom_type == "Polygon" and field.area > 1000]
    return [field for index, field in enumerate(fields) if index == 0 or rng.random() < 0.6]


def _scanned(rng: Generator, world: World, mines: Sequence[Polygon], quadrangle: Polygon) -> Pixels:
    """A topographic map (3, rows, cols): woods green, water blue, contours and the stipple of mines brown."""
    shape = world.truth.shape
    paper = np.empty((*shape, 3), np.float32)
    paper[:] = (247, 243, 228)
    water, road, house = (_burned(world, _of_class(world, name)) > 0 for name in ("water", "road", "house"))
    mined, woods = _burned(world, mines) > 0, _burned(world, world.woods) > 0
    level = np.floor(3 * cloud(rng, shape, 1.0, 160, 4))
    contours = (level != np.roll(level, 1, axis=0)) | (level != np.roll(level, 1, axis=1))
    stipple = mined & ((rng.random(shape) < 0.25) | _edge(mined))
    inks: list[tuple[Mask, tuple[int, int, int]]] = [
        (woods & ~mined, (208, 226, 186)),
        (contours & ~mined, (196, 148, 104)),
        (water, (176, 210, 232)),
        (_edge(water), (70, 130, 180)),
        (stipple, (150, 92, 50)),
        (_edge(road) | house, (40, 40, 40)),
    ]
    for where, colour in inks:
        paper[where] = colour
    inside = _burned(world, [quadrangle]) > 0
    paper[~inside] = (240, 236, 222)
    # Rows of marks stand for the legend and the text in the collar.
    rows, cols = np.indices(shape)
    paper[~inside & (rows % 8 < 2) & (cols // 5 % 3 > 0) & (rng.random(shape) < 0.8)] = (60, 60, 60)
    paper[inside & _edge(inside)] = 0
    return np.moveaxis(paper + rng.normal(0, 4, paper.shape), 2, 0).clip(0, 255).astype(np.uint8)


def _edge(mask: Mask) -> Mask:
    """Pixels of the mask, and those beside it, along its outline."""
    return np.asarray(binary_dilation(mask) & ~binary_erosion(mask))


def _land_cover(world: World) -> list[tuple[Polygon, int]]:
    """Polygons of all classes but grass, in the order in which they are burned."""
    red, nir = world.image[0].astype(float), world.image[3].astype(float)
    greenness = (nir - red) / np.maximum(nir + red, 1)
    fields = _of_class(world, "field")
    index_of = _burned(world, fields, range(1, len(fields) + 1))
    crops = [2 if greenness[index_of == index].mean() > 0.1 else 1 for index in range(1, len(fields) + 1)]
    layers = [(wood, 3) for wood in world.woods] + list(zip(fields, crops, strict=True))
    layers += [(house.buffer(9, join_style="mitre"), 6) for house in _of_class(world, "house")]
    return layers + [(road, 5) for road in _of_class(world, "road")] + [(pond, 7) for pond in _of_class(world, "water")]


def _plots(rng: Generator, world: World, allowed: Mask, count: int) -> list[Polygon]:
    """Squares of about 12 m around random pixels of a mask."""
    rows, cols = np.nonzero(allowed)
    picked = rng.choice(len(rows), min(count, len(rows)), replace=False)
    centres = [world.transform @ (cols[index] + 0.5, rows[index] + 0.5) for index in picked]
    return [shapely.box(x - 6, y - 6, x + 6, y + 6) for x, y in centres]


def _points(rng: Generator, world: World, values: Pixels, count: int = 8) -> list[tuple[shapely.Point, int]]:
    """Random points, as many for each class that the scene has, with their values."""
    points: list[tuple[shapely.Point, int]] = []
    for value in range(1, 8):
        rows, cols = np.nonzero(values == value)
        picked = rng.choice(len(rows), min(count, len(rows)), replace=False)
        centres = (world.transform @ (cols[index] + 0.5, rows[index] + 0.5) for index in picked)
        points += [(shapely.Point(centre), value) for centre in centres]
    return points


def _write_raster(path: Path, pixels: Pixels, crs: CRS | None, transform: Affine | None, bands: Sequence[str]) -> None:
    """Write pixels (bands, rows, cols) without nodata, as a photograph or a mask."""
    profile: dict[str, Any] = {"count": len(pixels), "height": pixels.shape[1], "width": pixels.shape[2]}
    if len(pixels) == 4:
        # Without alpha="no" GDAL takes a fourth band for transparency.
        profile |= {"photometric": "RGB", "alpha": "no"}
    profile |= {"driver": "GTiff", "dtype": "uint8", "crs": crs, "transform": transform, "compress": "deflate"}
    with allow_ungeoreferenced(), rasterio.open(path, "w", **profile) as file:
        file.write(pixels)
        if bands:
            file.descriptions = tuple(bands)


def _write_polygons(path: Path, geometries: Iterable[Any], **columns: Iterable[Any]) -> None:
    table = {name: list(values) for name, values in columns.items()}
    gpd.GeoDataFrame(table, geometry=list(geometries), crs=_UTM).to_file(path)
