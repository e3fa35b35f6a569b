"""The labelling page: pictures with the unit in the middle, blind to the map, and a list of the classes."""

import base64
import io
import re

import numpy as np
import pyproj
import pytest
from affine import Affine
from PIL import Image
from tests import worlds

import landscribe as ls
from landscribe.errors import LandscribeError
from landscribe.reports import labelling

VALUES = np.random.default_rng(1).choice([1, 2, 255], (40, 40), p=[0.5, 0.4, 0.1]).astype(np.uint8)


@pytest.fixture
def mapped(tmp_path):
    """A map of pixels of 10 m."""
    transform = Affine(10, 0, worlds.CORNER[0], 0, -10, worlds.CORNER[1])
    return worlds.write_raster(tmp_path / "map.tif", VALUES, nodata=255, transform=transform)


def pictures_of(page):
    for number, uri, points in re.findall(
        r'aria-label="Image around unit (\d+)">\s*<image [^>]*href="data:image/png;base64,([^"]+)"/>\s*'
        r'<polygon points="([^"]+)"',
        page.read_text(),
    ):
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri))).convert("RGB"))
        yield int(number), picture, np.array([[float(x) for x in pair.split(",")] for pair in points.split()])


@pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:32633"])
def test_the_unit_is_outlined_in_the_middle_of_its_picture(tmp_path, mapped, crs):
    """In the image, of pixels of one metre, the units are dark, and nothing else."""
    sample = ls.sample(mapped, out=tmp_path / "points.csv", size=6)
    to_image = pyproj.Transformer.from_crs("EPSG:32632", crs, always_xy=True)
    x, y = to_image.transform(worlds.CORNER[0] + 200, worlds.CORNER[1] - 200)
    left, top = round(x) - 300, round(y) + 300
    cols, rows = np.meshgrid(np.arange(600) + 0.5, np.arange(600) + 0.5)
    x, y = to_image.transform(left + cols, top - rows, direction="INVERSE")
    unit_rows, unit_cols = ((worlds.CORNER[1] - y) // 10).astype(int), ((x - worlds.CORNER[0]) // 10).astype(int)
    is_drawn = np.zeros((600, 600), bool)
    for row, col in zip(sample.units["row"], sample.units["col"], strict=True):
        is_drawn |= (unit_rows == row) & (unit_cols == col)
    image = worlds.write_raster(
        tmp_path / "image.tif", np.where(is_drawn, 50, 200).astype(np.uint8), crs=crs,
        transform=Affine(1, 0, left, 0, -1, top),
    )  # fmt: skip
    page = labelling.write_labelling_page(sample, ls.Raster.open([image]), tmp_path / "sheet.html")
    found = list(pictures_of(page))
    assert [number for number, *_ in found] == [1, 2, 3, 4, 5, 6]
    for _, picture, corners in found:
        assert picture.shape == (128, 128, 3)
        assert corners.mean(axis=0) == pytest.approx([64, 64], abs=1)
        x, y = np.round(corners.mean(axis=0)).astype(int)
        assert (picture[y - 2 : y + 3, x - 2 : x + 3] < 128).all()


def test_ticks_point_at_the_unit_and_leave_it_free():
    corners = np.array([[60, 50], [60, 54], [64, 54], [64, 50]])  # row, col
    ticks = re.findall(r"M(\S+) (\S+)L(\S+) (\S+)", labelling._ticks(corners, 100))
    ends = np.array(ticks, float).reshape(4, 2, 2)
    np.testing.assert_allclose(ends.mean(axis=0), [[52, 62]] * 2)
    assert np.abs(ends - [52, 62]).max(axis=2).min() == pytest.approx(2 + 3)


def test_the_page_says_nothing_of_the_map_and_offers_its_classes(tmp_path, mapped):
    image = worlds.write_raster(tmp_path / "image.tif", worlds.noise(3, 400, 400))
    sample = ls.sample(mapped, out=tmp_path / "points.gpkg", size=5, sheet=tmp_path / "sheet.html", image=image)
    page = (tmp_path / "sheet.html").read_text()
    for name in "12":
        assert page.count(f'<option value="{name}">{name} ({name})</option>') == len(sample.units)
    assert "stratum" not in page
    assert not re.search(r"(src|href)=.?https?:", page)


def test_each_unit_has_its_width_and_position_and_one_without_imagery_says_so(tmp_path, mapped):
    pixels = worlds.noise(3, 400, 400) | 1
    pixels[:, :200] = 0  # no data in the north
    image = worlds.write_raster(tmp_path / "image.tif", pixels, nodata=0)
    sample = ls.sample(mapped, out=tmp_path / "points.csv", size=12)
    page = labelling.write_labelling_page(sample, ls.Raster.open([image]), tmp_path / "sheet.html").read_text()
    captions = re.findall(
        r"<small>(<b>no imagery</b> )?<span class=\"wide\">(\S+) m wide</span>; "
        r"latitude, longitude (\S+), (\S+)</small>",
        page,
    )
    assert [bool(absent) for absent, *_ in captions] == (sample.units["row"] < 20).tolist()
    # 128 pixels of a metre of the grid, on which all is 0.04 % shorter than on the ground there.
    assert {width for _, width, *_ in captions} == {"128"}
    to_utm = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:32632")
    x, y = to_utm.transform(*np.array([caption[2:] for caption in captions], float).T)
    np.testing.assert_allclose(x, sample.units["x"], atol=0.1)
    np.testing.assert_allclose(y, sample.units["y"], atol=0.1)


# Of a picture of 128 pixels, units of 10 m have 1, 2.9, 4 and 10.
@pytest.mark.parametrize(("metres", "is_small"), [(10, True), (3.4, True), (2.5, False), (1, False)])
def test_a_unit_below_a_32nd_of_its_picture_has_an_outline_when_enlarged(tmp_path, mapped, metres, is_small):
    place = worlds.METRE @ Affine.scale(metres)
    image = worlds.write_raster(tmp_path / "image.tif", worlds.noise(3, 400, 400), transform=place)
    sample = ls.sample(mapped, out=tmp_path / "points.csv", size=4)
    page = labelling.write_labelling_page(sample, ls.Raster.open([image]), tmp_path / "sheet.html").read_text()
    assert page.count('<svg class="small" viewBox="0 0 128 128"') == (4 if is_small else 0)
    assert "svg.small:not(.near) polygon { display: none; }" in page


def test_a_block_has_a_picture_of_its_surroundings(tmp_path, mapped):
    image = worlds.write_raster(tmp_path / "image.tif", worlds.noise(3, 400, 400))
    sample = ls.sample(mapped, out=tmp_path / "points.csv", size=4, unit=10)
    page = labelling.write_labelling_page(sample, ls.Raster.open([image]), tmp_path / "sheet.html")
    assert 'viewBox="0 0 400 400"' in page.read_text()
    assert all(max(picture.shape) <= 256 for _, picture, _ in pictures_of(page))


def test_what_cannot_become_a_sheet_is_refused_and_nothing_is_written(tmp_path, mapped):
    image = worlds.write_raster(tmp_path / "image.tif", worlds.noise(3, 400, 400))
    far = Affine(1, 0, 0, 0, -1, 0)
    elsewhere = worlds.write_raster(tmp_path / "far.tif", worlds.noise(3, 40, 40), transform=far)
    unlocated = worlds.write_raster(tmp_path / "plain.tif", worlds.noise(3, 400, 400), crs=None)
    before = sorted(tmp_path.iterdir())
    for arguments, message in [
        ({"size": 5, "sheet": "a.html"}, "give both sheet and image"),
        ({"size": 5, "sheet": "a.pdf", "image": image}, "a.pdf does not end in .html"),
        ({"size": 5, "sheet": "a.html", "image": elsewhere}, "no unit of the sample lies on"),
        ({"size": 5, "sheet": "a.html", "image": unlocated}, "plain.tif has no CRS"),
    ]:
        named = arguments | {"sheet": tmp_path / arguments["sheet"]}
        with pytest.raises(LandscribeError, match=message):
            ls.sample(mapped, out=tmp_path / "points.gpkg", **named)
    with pytest.raises(LandscribeError, match="the sample has 2001 units, but a sheet holds at most 2000"):
        labelling.require_labelling_page(tmp_path / "a.html", 2001)
    assert sorted(tmp_path.iterdir()) == before
