"""The synthetic world: a georeferenced aerial scene drawn by code, on which the demo and the tests stand.

The polygons come first. The truth is these polygons burnt with the pixel-centre rule, the image is painted over
them. Trees, gardens, shadows and noise are clutter: seen in the image, but no class of their own.

The layout works in plan metres from the upper left corner, x to the right and y down: ``col = x / step`` and
``row = y / step``. A plan metre is a metre on the ground for pixels up to 1 m in scenes of at least 128 m;
coarser pixels stretch the landscape and smaller scenes shrink it, so that all of it fits.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from numbers import Integral
from pathlib import Path
from typing import Annotated

import geopandas as gpd
import numpy as np
import rasterio.features
import shapely
from affine import Affine
from numpy.random import Generator
from numpy.typing import NDArray
from pydantic import Field
from rasterio.crs import CRS
from shapely import LineString, MultiPolygon, Polygon, STRtree
from shapely.affinity import affine_transform

Floats = NDArray[np.floating]
Whole = NDArray[np.integer]
Shapes = NDArray[np.object_]  # (n,)
Plan = dict[str, Shapes]  # layer name -> polygons in plan metres

CLASSES = (
    ("ground", 0, "#b3d1ab"),
    ("field", 1, "#f2d65c"),
    ("water", 2, "#0072b2"),
    ("road", 3, "#4d4d4d"),
    ("house", 4, "#d55e00"),
)
NODATA = 255  # in the truth; in the image nodata is 0
CORNER = (459_700.0, 4_827_000.0)  # x, y of the upper left corner in EPSG:32617: farmland in Ontario
BYTES_PER_PIXEL = 60
"""Memory that `draw` needs at least: single-precision layers, of which a dozen are alive together."""
WorldSide = Annotated[int, Field(ge=64, le=10**6)]
SUN = np.array([0.372, 0.644, 0.669])  # unit vector to the sun: x, y down, z up; it stands in the south-east
# Colours are red, green, blue and nir, two hexadecimal digits each.
GRASS, CROPS, ROOFS, SURFACES = (
    np.array([list(bytes.fromhex(code)) for code in codes.split()], dtype=np.float32)
    for codes in (
        "62704296 8c845884 465a369e",  # usual, dry, lush
        "beaa748c ac9a7a80 c8b854a5 5c7a3eaf 7e9252a8 4a683ab4 8c705870 765e4c64",
        "a4604a82 924f3f7a b27a5e8c 7c60506e 6060665c b2aaa096 585f6c5f",
        "62695430 28404610 84827e68 64656a54 d4d4ceb4 aa9e8c8a 8e84687d 4e683cb0 12161e0c",
    )
)
SHALLOW, DEEP, CONCRETE, ASPHALT, STROKE, DRIVE, VERGE, LEAVES, SHADE = SURFACES


@dataclass(frozen=True)
class World:
    """A drawn scene with its truth and its polygons."""

    image: NDArray[np.uint8]  # digital numbers (bands, rows, cols): red, green, blue (, nir); 0 is nodata
    truth: NDArray[np.uint8]  # class values (rows, cols); 255 where the image is nodata
    features: gpd.GeoDataFrame  # polygons of field, water, road and house, named in "class", in EPSG:4326
    woods: Shapes  # polygons (n,) in the scene's CRS: no class of the demo, but trees in the image
    crs: CRS  # of the scene: EPSG:32617, metres
    transform: Affine  # pixel (col, row) to world (x, y) coordinates, north up


def draw(
    height: int = 768,
    width: int = 768,
    *,
    seed: int = 0,
    bands: int = 3,
    pixel_size: float = 0.5,
    collar: bool = True,
) -> World:
    """Draw a world; the same arguments give the same world on every call.

    Args:
        height: Rows of the scene, at least 64.
        width: Columns of the scene, at least 64.
        seed: Chooses the landscape; not negative.
        bands: 3 for red, green, blue; 4 to add nir.
        pixel_size: Side of a pixel in metres, at least 0.01; the scene is at most 300 km wide and high.
        collar: One corner of the scene is nodata.

    Returns:
        The world; from 256 x 256 pixels on, every class is in it.

    Raises:
        ValueError: a size, the seed, the number of bands or the pixel size is out of range.
    """
    _require_possible(height, width, seed, bands, pixel_size)
    unit = min(max(1.0, pixel_size), min(height, width) * pixel_size / 128)  # metres per plan metre
    step = pixel_size / unit  # plan metres per pixel
    transform = Affine(pixel_size, 0, CORNER[0], 0, -pixel_size, CORNER[1])
    for attempt in range(100):  # river and collar may hide the few houses of a small scene: then draw another
        rng = np.random.default_rng((seed, attempt))
        plan = _plan(rng, width * step, height * step)
        features = _features(plan, unit)
        values = features["class"].map({name: value for name, value, _ in CLASSES})
        shapes = zip(features.geometry, values, strict=True)
        burnt = rasterio.features.rasterize(shapes, (height, width), transform=transform, dtype="uint8")
        outside = _collar(rng, height, width) & collar
        if np.bincount(burnt[~outside], minlength=len(CLASSES)).all():
            break
    image = _expose(rng, _paint(rng, plan, burnt, step, bands))
    image[:, outside], burnt[outside] = 0, NODATA
    woods = np.array([affine_transform(wood, _to_scene(unit)) for wood in plan["wood"]], dtype=object)
    return World(image, burnt, features.to_crs("EPSG:4326"), woods, CRS.from_epsg(32617), transform)


def _plan(rng: Generator, width: float, height: float) -> Plan:
    """Lay out width x height plan metres: field, water, road and house; the other layers guide the paint."""
    scene, reach = shapely.box(0, 0, width, height), 0.6 * float(np.hypot(width, height)) + 160
    middle, least, most = rng.uniform(0.42, 0.58, 2) * (width, height), (-0.5, 0, 0), (0.5, 6.3, 6.3)
    bend = np.append(middle, rng.uniform(least, most))
    rects, uses = _blocks(rng, reach)
    blocks = _bend(shapely.box(*rects.T), bend)
    near = shapely.intersects(blocks, scene.buffer(60))
    fields, woods, villages = (blocks[near & (uses == use)] for use in ("field", "wood", "village"))
    axes = shapely.linestrings([[(-reach, 0), (reach, 0)], [(0, -reach), (0, reach)]])
    mains = shapely.intersection(_bend(axes, bend), scene.buffer(60))
    ways = [*shapely.buffer(mains, 3.7), *shapely.buffer(shapely.boundary(villages), 2.7)]
    road = shapely.union_all(ways).buffer(4).buffer(-4)  # out and back in rounds the corners of the junctions
    ponds = shapely.buffer(shapely.buffer(woods[::2], -40), 18)
    water = shapely.union_all([_river(rng, width, height, bend[2]), *ponds])
    taken = road.buffer(3).union(water.buffer(7))
    fields = shapely.buffer(shapely.buffer(shapely.difference(fields, taken), -4), 3)
    roofs = _roofs(rng, villages, taken, scene)
    # The millimetre closes the hairline gaps that rounding leaves between the faces of a turned roof.
    houses = shapely.buffer(shapely.force_2d(roofs), 1e-3, join_style="mitre")
    marks = [(main, start) for main in mains for start in np.arange(0, main.length, 8)]
    dashes = shapely.buffer([LineString(main.interpolate([at, at + 3])) for main, at in marks], 0.25)
    plan = {"field": fields, "water": np.array([water]), "road": np.array([road]), "house": houses}
    plan |= {"garden": shapely.buffer(houses, 8, join_style="mitre"), "main": shapely.buffer(mains, 3.7)}
    plan |= {"drive": shapely.buffer(shapely.shortest_line(houses, road), 1.4), "wood": woods, "dash": dashes}
    plan = {name: _clip(layer, scene) for name, layer in plan.items()}
    plan |= {"face": shapely.get_parts(roofs)}
    return plan | _clutter(rng, plan, width, height)


def _blocks(rng: Generator, reach: float) -> tuple[Floats, NDArray[np.str_]]:
    """Blocks (n, 4) of the straight grid (west, north, east, south; the central junction is 0, 0) and their uses."""
    steps = rng.uniform(75, 140, (2 * int(reach / 75) + 3, 2, int(reach / 75) + 1)).cumsum(axis=2)
    first, *others = (np.concatenate([-behind[::-1], [0.0], ahead]) for behind, ahead in steps)
    # Each column of blocks has its own cuts between north and south, which gives T-junctions.
    columns = zip(pairwise(first), others, strict=True)
    rects = np.array([(w, n, e, s) for (w, e), cuts in columns for n, s in pairwise(cuts)])
    uses = rng.choice(["field", "wood", "village"], len(rects), p=[0.5, 0.1, 0.4])
    uses[(rects == 0).sum(axis=1) == 2] = rng.permutation(["field", "field", "village", "village"])
    return rects, uses


def _move(points: Floats, x: float, y: float, angle: float) -> Floats:
    """Turn the first two columns of points (n, 2 or 3) by angle, in radians, and move them by x, y."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.column_stack([points[:, :2] @ np.array([[cos, sin], [-sin, cos]]) + (x, y), points[:, 2:]])


def _bend(shapes: Shapes, bend: Floats) -> Shapes:
    """Shapes (n,) of the straight grid swayed, turned and moved; bend is x, y, angle and two phases of the sway."""
    smooth = partial(shapely.transform, shapely.segmentize(shapes, 12))
    return np.asarray(smooth(lambda at: _move(at + 13 * np.sin(0.015 * at[:, ::-1] + bend[3:]), *bend[:3])))


def _river(rng: Generator, width: float, height: float, angle: float) -> Polygon:
    """A meandering river beside the centre of the scene, diagonal to the road grid that is turned by angle."""
    size, length = min(width, height), np.hypot(width, height)
    along, across = np.arange(-length, length, 2.0), rng.choice([-0.27, 0.27]) * size
    for wave, phase in zip((1.1 * length, 270.0, 115.0), rng.uniform(0, 6.3, 3), strict=True):
        across = across + 0.055 * wave * (np.sin(2 * np.pi * along / wave + phase) - np.sin(phase))
    angle += rng.uniform(0.45, 1.1) + rng.integers(4) * np.pi / 2
    points = _move(np.column_stack([along, across]), width / 2, height / 2, angle)
    half = 6.5 + min(size, 1500) / 150 + 1.8 * np.sin(along / 31) + 0.8 * np.sin(along / 9)
    return shapely.union_all(shapely.buffer(shapely.points(points), half, quad_segs=16))


def _roofs(rng: Generator, villages: Shapes, taken: Polygon, scene: Polygon) -> Shapes:
    """Roofs, each with faces in 3-D, inside the edges of village blocks, clear of roads, water and each other."""
    drawn = []
    for edge in (block.exterior for block in villages):
        for mark in np.arange(rng.uniform(18, 22), edge.length, rng.uniform(20, 26)):
            point, ahead = edge.interpolate(mark), edge.interpolate(mark + 1)
            angle, setback = np.arctan2(ahead.y - point.y, ahead.x - point.x), rng.uniform(16, 19)
            x, y = point.x - setback * np.sin(angle), point.y + setback * np.cos(angle)
            turn = angle + rng.integers(4) * np.pi / 2 + rng.normal(0, 0.02)
            drawn.append(MultiPolygon([Polygon(_move(face, x, y, turn)) for face in _roof(rng)]))
    roofs = np.array(drawn, dtype=object)
    hulls = shapely.convex_hull(roofs)
    later, earlier = STRtree(hulls).query(hulls, predicate="dwithin", distance=2.5)
    crowded = np.isin(np.arange(len(roofs)), later[earlier < later])
    shapely.prepare(taken)
    return np.asarray(roofs[~crowded & shapely.disjoint(taken, hulls) & shapely.intersects(scene, hulls)])


def _roof(rng: Generator) -> list[Floats]:
    """Faces (k, 3) of a gable or hip roof about the origin, ridge along x, in some cases L-shaped with a wing."""
    a, b, low, slope = rng.uniform((5.5, 4, 3, 0.5), (7.5, 5, 4.5, 0.85))
    hip, top = b * (rng.random() < 0.35), low + slope * b
    half = [[(-a, -b, low), (a, -b, low), (a - hip, 0, top), (hip - a, 0, top)]]
    half += [[(a, -b, low), (a, b, low), (a - hip, 0, top)]] if hip else []
    faces: list[Floats] = [np.array(face) * (s, s, 1) for face in half for s in (1, -1)]
    if rng.random() < 0.45:
        wing, end = rng.uniform(0.65, 0.95) * b, b + rng.uniform(3, 5.5)
        x, top, eaves = a - wing, low + slope * wing, (a - 2 * wing, a)
        faces += [np.array([(s, b, low), (s, end, low), (x, end, top), (x, b - wing, top)]) for s in eaves]
    return faces


def _clip(layer: Shapes, scene: Polygon) -> Shapes:
    """The valid polygons of a layer inside the scene, on a grid of a millimetre; specks are dropped."""
    parts = shapely.get_parts(shapely.set_precision(shapely.intersection(layer, scene), 1e-3))
    return np.array([part for part in parts if part.geom_type == "Polygon" and part.area > 0.5], dtype=object)


def _features(plan: Plan, unit: float) -> gpd.GeoDataFrame:
    """The polygons of the classes in scene coordinates, in the order in which they are burnt."""
    rows = [(name, polygon) for name, _, _ in CLASSES[1:] for polygon in plan[name]]
    features = gpd.GeoDataFrame(rows, columns=["class", "geometry"], crs="EPSG:32617")
    return features.set_geometry(features.affine_transform(_to_scene(unit)))


def _to_scene(unit: float) -> list[float]:
    """From plan metres to coordinates of the scene, as shapely takes it."""
    return [unit, 0, 0, -unit, *CORNER]


def _collar(rng: Generator, height: int, width: int) -> NDArray[np.bool_]:
    """The nodata mask of the scene (rows, cols): a wedge with a ragged edge in one corner."""
    depth, reach = rng.uniform((0.3, 0.14), (0.45, 0.28)) * (height, width)
    tears = np.repeat(rng.uniform(0, 0.015 * width, height // 9 + 1), 9)[:height]
    edge = np.where(np.arange(height) < depth, reach * (1 - np.arange(height) / depth) + tears, 0)
    return (np.arange(width) < edge[:, None])[:: rng.choice([-1, 1]), :: rng.choice([-1, 1])]


def _clutter(rng: Generator, plan: Plan, width: float, height: float) -> Plan:
    """Layers crown and lit (of trees in woods, in gardens, on banks and elsewhere) and shadow (of trees and roofs)."""
    trees = rng.uniform((0, 0), (width, height), (int(width * height / 25), 2))
    index, distances = STRtree(shapely.points(trees)), [("wood", 0), ("garden", 4), ("water", 12)]
    distances += [(name, 3) for name, _, _ in CLASSES[1:]]
    near = (index.query(plan[name], predicate="dwithin", distance=distance)[1] for name, distance in distances)
    wood, garden, bank, *taken = (np.isin(np.arange(len(trees)), indices) for indices in near)
    trees = trees[~np.any(taken, axis=0) & (rng.random(len(trees)) < 0.05 + wood + 0.1 * garden + 0.3 * bank)]
    radius = np.sort(rng.lognormal(0.85, 0.35, len(trees)).clip(1, 4.5))
    crowns = shapely.buffer(shapely.points(trees), radius, quad_segs=3)
    lit = shapely.buffer(shapely.points(trees + 0.5 * radius[:, None] * SUN[:2]), 0.62 * radius, quad_segs=3)
    tall = np.concatenate([plan["face"], shapely.force_3d(crowns, 1.2 * radius)])
    ends = shapely.transform(tall, lambda points: points - points[:, 2:] * SUN / SUN[2], include_z=True)
    shadow = shapely.convex_hull(shapely.union(shapely.force_2d(tall), shapely.force_2d(ends)))
    return {"crown": crowns, "lit": lit, "shadow": shadow}


def _paint(rng: Generator, plan: Plan, burnt: Whole, step: float, bands: int) -> Floats:
    """Blend the layers of paint: reflected light (rows, cols, bands) in digital numbers."""
    canvas = np.zeros((*burnt.shape, bands), dtype=np.float32)
    for colour, opacity in _layers(rng, plan, burnt, step):
        colours, veil = np.broadcast_to(colour[..., :bands], canvas.shape), opacity[..., None]
        for rows in (slice(top, top + 32) for top in range(0, len(canvas), 32)):  # strips that fit the cache
            canvas[rows] += (colours[rows] - canvas[rows]) * veil[rows]
    return canvas


def _layers(rng: Generator, plan: Plan, burnt: Whole, step: float) -> Iterator[tuple[Floats, Floats]]:
    """Colours, (4,) or (rows, cols, 4), and opacities (rows, cols), from the ground up to the roofs."""
    ids = partial(_ids, plan, burnt.shape, step)
    one = np.float32(1)  # a product with it stays in single precision
    field, water, road, house = (one * (burnt == value) for value in (1, 2, 3, 4))
    wide, middle, fine = (cloud(rng, burnt.shape, step, *kind) for kind in ((90, 2), (22, 1.7), (1, 1)))
    dry, banks = 0.5 * wide + 0.3 * middle, _blur(water, 9 / step)
    yield from zip(GRASS, (np.ones_like(dry), dry.clip(0, 1), (-dry).clip(0, 1)), strict=True)
    yield VERGE, (1.5 * _blur(road, 4 / step)).clip(0, 0.8)
    yield GRASS[2], (1.2 * banks + 0.5 * one * (ids("wood") > 0)).clip(0, 0.8)
    yield _pick(rng, 1.1 * GRASS, ids("garden")), 0.7 * one * (ids("garden") > 0)
    yield DRIVE, one * (ids("drive") > 0)
    rows = _rows(rng, plan["field"], ids("field"), step) + 0.08 * middle
    yield _pick(rng, CROPS, ids("field")) * rows[..., None], field
    yield SHALLOW, water
    yield DEEP, water * (2.2 * banks - 1).clip(0, 1)
    yield CONCRETE, road
    yield ASPHALT, road * (ids("main") > 0)
    yield STROKE, 0.8 * road * (ids("dash") > 0)
    yield SHADE, 0.57 * _blur(one * (ids("shadow") > 0), 0.5 / step)
    crown, domes = ids("crown"), 0.65 + 0.5 * one * (ids("lit") > 0) + 0.1 * fine
    yield _pick(rng, LEAVES[None], crown) * domes[..., None], one * ((burnt == 0) & (crown > 0))
    yield _pick(rng, ROOFS, ids("house")) * _sunlight(plan["face"])[ids("face")][..., None], house
    yield SHADE, 0.04 * fine  # grain in everything: lighter than the paint where it is negative


def _ids(plan: Plan, shape: tuple[int, ...], step: float, name: str) -> Whole:
    """Id (rows, cols), from 1, of the last polygon of a layer over each pixel centre; 0 without a polygon."""
    ids: Whole = np.zeros(shape, dtype=np.int32)
    polygons = [(polygon, polygon_id) for polygon_id, polygon in enumerate(plan[name], start=1)]
    return rasterio.features.rasterize(polygons, out=ids, transform=Affine.scale(step)) if polygons else ids


def cloud(rng: Generator, shape: tuple[int, ...], step: float, scale: float, slope: float) -> Floats:
    """Noise (rows, cols) of unit variance; its amplitude falls as frequency**-slope below that scale."""
    frequency = np.hypot(np.fft.fftfreq(shape[0], step)[:, None], np.fft.rfftfreq(shape[1], step))
    fall = ((1 + (scale * frequency) ** 2) ** (-slope / 2)).astype(np.float32)
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal(shape, dtype=np.float32)) * fall, shape)
    return np.asarray((noise - noise.mean()) / noise.std())


def _blur(layer: Floats, radius: float) -> Floats:
    """Mean of layer (rows, cols) in the square window of that radius, in pixels, about each pixel."""
    reach = int(radius + 0.5)
    for _ in range(2):  # along the columns, then transposed along the rows
        total = np.cumsum(np.pad(layer, ((reach + 1, reach), (0, 0)), mode="edge"), axis=0, dtype=np.float32)
        layer = ((total[2 * reach + 1 :] - total[: -2 * reach - 1]) / (2 * reach + 1)).T
    return layer


def _pick(rng: Generator, colours: Floats, ids: Whole) -> Floats:
    """Colour (rows, cols, 4) of the polygons with these ids: one of the colours (n, 4) each, varied at random."""
    drawn: Floats = colours[rng.integers(len(colours), size=int(ids.max()) + 1)]
    return (drawn * rng.normal(1, 0.03, drawn.shape)).astype(np.float32)[ids]


def _rows(rng: Generator, fields: Shapes, ids: Whole, step: float) -> Floats:
    """Brightness (rows, cols) of the fields with these ids, sown in rows along one side, with tramlines."""
    boxes = [shapely.get_coordinates(field.minimum_rotated_rectangle) for field in fields]
    a, b, *_ = np.array(boxes).swapaxes(0, 1)
    across = (b - a)[:, ::-1] * (-1, 1) / np.linalg.norm(b - a, axis=1, keepdims=True)
    rows = rng.uniform((max(1.8, 3 * step), 0.02), (max(3.2, 4 * step), 0.1), (len(fields), 2))
    table = np.vstack([np.ones(4), np.hstack([across, rows])]).astype(np.float32)  # row 0: no field
    y, x = (np.arange(size, dtype=np.float32) * step for size in ids.shape)
    position = x * table[ids, 0] + y[:, None] * table[ids, 1]
    tracks = np.where(position % 17 < 1, np.float32(0.9), np.float32(1))
    return np.asarray(tracks + table[ids, 3] * np.sin(2 * np.pi * position / table[ids, 2]))


def _sunlight(faces: Shapes) -> Floats:
    """Brightness (n + 1,) of the faces of roofs in the sun, by id; 1 for id 0, which is no face."""
    a, b, c = np.array([shapely.get_coordinates(face, include_z=True)[:3] for face in faces]).swapaxes(0, 1)
    normals = np.cross(b - a, c - a)
    upward = normals * np.sign(normals[:, 2:]) / np.linalg.norm(normals, axis=1, keepdims=True)
    return np.append(1, 0.4 + 0.8 * (upward @ SUN).clip(0, 1)).astype(np.float32)


def _expose(rng: Generator, canvas: Floats) -> NDArray[np.uint8]:
    """The sensor's image (bands, rows, cols) of reflected light (rows, cols, bands), blurred and with noise."""
    light = np.pad(np.moveaxis(canvas, 2, 0), ((0, 0), (1, 1), (1, 1)), mode="edge")
    light = 0.22 * (light[:, :-2] + light[:, 2:]) + 0.56 * light[:, 1:-1]
    light = 0.22 * (light[..., :-2] + light[..., 2:]) + 0.56 * light[..., 1:-1]
    return (light + 2.2 * rng.standard_normal(light.shape, dtype=np.float32)).clip(1, 255).astype(np.uint8)


def _require_possible(height: int, width: int, seed: int, bands: int, pixel_size: float) -> None:
    """Raise ValueError for arguments of `draw` that are out of range."""
    are_whole = all(isinstance(value, Integral) for value in (height, width, seed))
    # Beyond that distance from its corner, the scene would leave the zone of its CRS.
    if not (
        are_whole
        and min(height, width) >= 64
        and seed >= 0
        and bands in (3, 4)
        and 0.01 <= pixel_size <= 300_000 / max(height, width)
    ):
        raise ValueError(
            f"impossible world: {width} x {height} pixels of {pixel_size} m in {bands} bands, seed {seed}. Expected "
            "whole numbers, sides of 64 pixels to 300 km, pixels of 0.01 m or more, 3 or 4 bands, a seed of 0 or more."
        )


def write(world: World, folder: str | Path) -> tuple[Path, Path, Path]:
    """Write scene.tif, labels.geojson (EPSG:4326) and truth.tif into a folder, created if missing; return the paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    scene, labels, truth = (folder / name for name in ("scene.tif", "labels.geojson", "truth.tif"))
    bands, height, width = world.image.shape
    profile = {"driver": "GTiff", "dtype": "uint8", "height": height, "width": width, "crs": world.crs}
    profile |= {"transform": world.transform, "compress": "deflate", "tiled": True}
    # Without alpha="no" GDAL takes a fourth band for transparency.
    with rasterio.open(scene, "w", count=bands, nodata=0, photometric="RGB", alpha="no", **profile) as file:
        file.write(world.image)
        file.descriptions = ("red", "green", "blue", "nir")[:bands]
    with rasterio.open(truth, "w", count=1, nodata=NODATA, **profile) as file:
        file.write(world.truth, 1)
        file.write_colormap(1, {value: tuple(bytes.fromhex(code[1:])) for _, value, code in CLASSES})
    world.features.to_file(labels, driver="GeoJSON", COORDINATE_PRECISION=9)
    return scene, labels, truth
