"""The file of a layer: pixels and overviews of its sources, in the layout of GDAL's Cloud Optimized GeoTIFFs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import tifffile
from rasterio.windows import Window as RasterioWindow
from rio_cogeo.cogeo import cog_validate

from landscribe.errors import OutputError
from landscribe.geo.grid import Grid, Window
from landscribe.geo.rasters.overviews import averaged, halved, halvings
from landscribe.maps.assembly import blocks as blocks_of_groups
from landscribe.maps.assembly import cog
from landscribe.maps.assembly.cog import BandMetadata, merge
from landscribe.maps.layers import CLASS, EXACT_PROBABILITY, PROBABILITY, Layer
from worlds import METRE, UTM, write_raster

LAYERS = {
    "classes": (CLASS, 1), "probabilities": (PROBABILITY, 3), "exact": (EXACT_PROBABILITY, 2),
    "one": (EXACT_PROBABILITY, 1),
}  # fmt: skip


def random_pixels(layer: Layer, bands: int, shape: tuple[int, int]) -> np.ndarray:
    """Patches of 7 pixels, some of them nodata."""
    rng = np.random.default_rng(shape)
    small = rng.random((bands, -(-shape[0] // 7), -(-shape[1] // 7)))
    pixels = np.kron(small, np.ones((7, 7)))[:, : shape[0], : shape[1]]
    pixels += rng.random(pixels.shape) / 50
    hidden = pixels[0] < 0.2
    pixels = (pixels * 6).astype(layer.dtype) if layer.dtype == "uint8" else pixels.astype(layer.dtype)
    pixels[:, hidden] = layer.nodata
    return pixels


def composed(tmp_path: Path, layer: Layer, pixels: np.ndarray, windows: list[Window] | None = None) -> Path:
    """The layer's file of a raster, or of some of its windows."""
    grid = Grid(UTM, METRE, *pixels.shape[1:])
    source = write_raster(tmp_path / "source.tif", pixels, nodata=layer.nodata)
    colormap = {0: (255, 0, 0, 255), 1: (0, 9, 0, 255)} if layer is CLASS else None
    metadata = BandMetadata(tuple(f"band {k}" for k in range(len(pixels))), {"NOTE": "a < b"}, colormap)
    merge([(source, windows or [grid.window])], grid, layer, metadata, tmp_path / "out.tif", {})
    return tmp_path / "out.tif"


def levels_of(path: Path) -> list[np.ndarray]:
    """Pixels of a file, then those of its overviews."""
    with rasterio.open(path) as source:
        count = len(source.overviews(1))
        found = [source.read()]
    for level in range(count):
        with rasterio.open(path, overview_level=level) as source:
            found.append(source.read())
    return found


def expected_levels(layer: Layer, pixels: np.ndarray) -> list[np.ndarray]:
    levels = [pixels]
    for _ in range(halvings(pixels.shape[1:])):
        last = levels[-1]
        levels.append(
            np.stack([halved(band, 255) for band in last]) if layer is CLASS else averaged(last, layer.nodata)
        )
    return levels


@pytest.mark.parametrize("shape", [(1, 1), (512, 512), (513, 40), (1025, 2049), (2300, 4200), (40, 8200)])
def test_a_file_has_the_pixels_of_its_sources_and_their_halves(tmp_path, shape):
    pixels = random_pixels(CLASS, 1, shape)
    path = composed(tmp_path, CLASS, pixels)
    for found, expected in zip(levels_of(path), expected_levels(CLASS, pixels), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert cog_validate(path, strict=True, quiet=True)[0]


@pytest.mark.parametrize("kind", LAYERS)
def test_gdal_reads_layers_of_all_types(tmp_path, kind):
    layer, bands = LAYERS[kind]
    pixels = random_pixels(layer, bands, (700, 1100))
    path = composed(tmp_path, layer, pixels)
    for found, expected in zip(levels_of(path), expected_levels(layer, pixels), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert cog_validate(path, strict=True, quiet=True)[0]


def test_squares_without_sources_are_nodata(tmp_path):
    pixels = random_pixels(CLASS, 1, (4500, 4200))
    windows = [Window(100, 90, 300, 600), Window(4400, 4000, 100, 200)]
    path = composed(tmp_path, CLASS, pixels, windows)
    seen = np.full_like(pixels, 255)
    for window in windows:
        seen[:, *window.slices] = pixels[:, *window.slices]
    for found, expected in zip(levels_of(path), expected_levels(CLASS, seen), strict=True):
        np.testing.assert_array_equal(found, expected)


def structure(path: Path) -> dict[str, Any]:
    """What a file states besides pixels, and in what order its parts lie."""
    with rasterio.open(path) as source:
        stated = {
            "profile": {name: str(value) for name, value in source.profile.items()}, "tags": source.tags(),
            "image": source.tags(ns="IMAGE_STRUCTURE"), "bands": (source.descriptions, source.scales),
            "colours": source.colorinterp, "overviews": source.overviews(1), "blocks": source.block_shapes,
            "palette": source.colormap(1) if source.count == 1 and source.dtypes[0] == "uint8" else None,
        }  # fmt: skip
    with tifffile.TiffFile(path) as file:
        pages = [page.aspage() for page in file.pages]
        stated["tiff"] = [
            {tag.name: (int(tag.dtype), tag.count) for tag in page.tags if tag.name != "GDAL_METADATA"}
            for page in pages
        ]
        stated["order"] = np.argsort([page.dataoffsets[0] for page in pages]).tolist()
        stated["leaders"] = all(leaders(path, page.dataoffsets, page.databytecounts) for page in pages)
        stated["head"] = path.read_bytes()[:192]
    return stated


def leaders(path: Path, offsets: list[int], sizes: list[int]) -> bool:
    """True if each block has its length before it, and its last four bytes again behind it."""
    data = path.read_bytes()
    return all(
        data[at - 4 : at] == size.to_bytes(4, "little")
        and data[at + size : at + size + 4] == data[at + size - 4 : at + size]
        for at, size in zip(offsets, sizes, strict=True)
    )


@pytest.mark.parametrize("kind", LAYERS)
def test_a_file_is_structured_as_gdal_writes_it(tmp_path, kind):
    layer, bands = LAYERS[kind]
    pixels = random_pixels(layer, bands, (700, 1100))
    ours = composed(tmp_path, layer, pixels)
    theirs = tmp_path / "gdal.tif"
    predictor = "YES" if layer.dtype == "float32" else "NO"
    # GDAL copies tags, palette and overviews of our file, and compresses its pixels.
    options = {"BLOCKSIZE": 512, "COMPRESS": "DEFLATE", "PREDICTOR": predictor, "OVERVIEWS": "FORCE_USE_EXISTING"}
    rasterio.shutil.copy(ours, theirs, driver="COG", **options)
    assert structure(ours) == structure(theirs)
    assert structure(theirs)["leaders"]


def test_a_full_disk_leaves_no_file(tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(blocks_of_groups.Blocks, "of_level", fail)
    with pytest.raises(OutputError, match=r"class file could not be written whole, .* No space left"):
        composed(tmp_path, CLASS, random_pixels(CLASS, 1, (40, 40)))
    assert [path.name for path in tmp_path.iterdir()] == ["source.tif"]


@pytest.mark.parametrize("kept", [0, 150, 400, 700])
def test_a_head_that_gdal_could_not_write_whole_is_refused(tmp_path, monkeypatch, kept):
    write = cog._write_head

    def cut(built: Path, *arguments: object) -> None:
        write(built, *arguments)
        built.write_bytes(built.read_bytes()[:kept])

    monkeypatch.setattr(cog, "_write_head", cut)
    with pytest.raises(OutputError, match="class file could not be written whole"):
        composed(tmp_path, CLASS, random_pixels(CLASS, 1, (700, 700)))
    assert [path.name for path in tmp_path.iterdir()] == ["source.tif"]


def test_a_map_of_more_than_2_gigapixels_has_its_pixels(tmp_path):
    """In BigTIFF; nearly all of it is nodata."""
    side = 47_000
    window = Window(side - 600, side - 1100, 600, 1100)
    pixels = random_pixels(CLASS, 1, window.shape)
    source = tmp_path / "source.tif"
    layout: dict[str, Any] = {
        "driver": "GTiff",
        "tiled": True,
        "compress": "deflate",
        "sparse_ok": True,
        "bigtiff": "yes",
    }
    shape = {"width": side, "height": side, "count": 1, "dtype": "uint8", "nodata": 255}
    place = RasterioWindow(window.col, window.row, window.width, window.height)
    with rasterio.open(source, "w", **layout, **shape, crs=UTM, transform=METRE) as target:
        target.write(pixels, window=place)
    grid = Grid(UTM, METRE, side, side)
    merge([(source, [window])], grid, CLASS, BandMetadata(("class",), {}), tmp_path / "out.tif", {})
    with tifffile.TiffFile(tmp_path / "out.tif") as file:
        assert file.is_bigtiff
    with rasterio.open(tmp_path / "out.tif") as mapped:
        np.testing.assert_array_equal(mapped.read(window=place), pixels)
        assert (mapped.read(1, window=RasterioWindow(30_000, 20_000, 900, 900)) == 255).all()
        levels = len(mapped.overviews(1))
    with rasterio.open(tmp_path / "out.tif", overview_level=levels - 2) as overview:
        values = overview.read(1)
        assert values.shape == (-(-side // 2 ** (levels - 1)),) * 2
        assert (values[:-11] == 255).all()
        assert (values[-9:-1, -16:-1] != 255).any()
    assert cog_validate(tmp_path / "out.tif", strict=True, quiet=True)[0]
