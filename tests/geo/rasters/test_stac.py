"""STAC items: their files and band names; files that are not items are refused."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine

from landscribe.errors import GridError, RasterError
from landscribe.geo.inputs import is_item
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.rasters.stac import _resolve, open_item
from served import serving
from worlds import METRE, noise, write_raster

COARSE = METRE @ Affine.scale(2)


def item(folder: Path, assets: dict[str, Any], **other) -> str:
    """An item beside its files."""
    held = {
        "type": "Feature", "stac_version": "1.1.0", "id": "S2A_32TPS", "geometry": None, "properties": {}, "links": [],
        "assets": {key: asset if isinstance(asset, dict) else {"href": asset} for key, asset in assets.items()},
    }  # fmt: skip
    place = folder / "item.json"
    place.write_text(json.dumps(held | other))
    return str(place)


@pytest.fixture
def scene(tmp_path) -> str:
    """Red and near infrared of 20 x 30 pixels, short-wave infrared of 10 x 15 that are twice as large."""
    (tmp_path / "bands").mkdir()
    for number, name in enumerate(("B04", "B08")):
        write_raster(tmp_path / "bands" / f"{name}.tif", noise(1, 20, 30, "uint16", seed=number))
    write_raster(tmp_path / "bands" / "B11.tif", noise(1, 10, 15, "uint16", seed=2), transform=COARSE)
    return item(
        tmp_path,
        {"red": "./bands/B04.tif", "nir": str(tmp_path / "bands" / "B08.tif"), "swir": "bands/B11.tif", "thumb": {}},
    )


def whole(raster: Raster) -> tuple[np.ndarray, np.ndarray]:
    return raster.read(raster.grid.window)


def test_assets_are_bands_in_the_requested_order(scene):
    raster = open_item(scene, ["nir", "red"])
    assert raster.bands == ("nir", "red")
    assert raster.name == "S2A_32TPS"
    np.testing.assert_array_equal(
        whole(raster)[0], np.concatenate([noise(1, 20, 30, "uint16", seed=1), noise(1, 20, 30, "uint16")])
    )


def test_assets_of_other_pixel_sizes_are_refused_or_resampled_on_request(scene):
    with pytest.raises(
        GridError, match=r"B11\.tif is 15 x 10 pixels of 2 .*B04\.tif is 30 x 20 pixels of 1 .*--resample"
    ):
        open_item(scene, ["red", "swir"])
    raster = open_item(scene, ["red", "swir"], resample=True)
    assert raster.grid.shape == (20, 30)
    pixels, valid = whole(raster)
    assert valid.all()
    np.testing.assert_array_equal(pixels[0], noise(1, 20, 30, "uint16")[0])
    # Between the middles of four pixels, a quarter of the way: 9, 3, 3 and 1 parts of 16.
    one = noise(1, 10, 15, "uint16", seed=2)[0].astype(float)
    mixed = (9 * one[:-1, :-1] + 3 * one[1:, :-1] + 3 * one[:-1, 1:] + one[1:, 1:]) / 16
    np.testing.assert_array_equal(pixels[1, 1:-1:2, 1:-1:2], np.floor(mixed + 0.5))
    coarse, _ = whole(open_item(scene, ["swir", "red"], resample=True))
    red = noise(1, 20, 30, "uint16")[0].reshape(10, 2, 15, 2).mean(axis=(1, 3))
    np.testing.assert_array_equal(coarse[1], np.floor(red + 0.5))


@pytest.mark.parametrize(("rule", "known"), [("any", [False, False, False, True]), ("all", [False, True, True, True])])
def test_the_nodata_rule_applies_over_assets_of_different_pixel_sizes(tmp_path, rule, known):
    # Blocks of 2 x 2 pixels: both are nodata, one, the other, none.
    red, swir = np.full((2, 8), 9, "uint16"), np.full((1, 4), 9, "uint16")
    red[:, :4] = 0
    swir[0, [0, 2]] = 0
    write_raster(tmp_path / "red.tif", red, nodata=0)
    write_raster(tmp_path / "swir.tif", swir, nodata=0, transform=COARSE)
    place = item(tmp_path, {"red": "red.tif", "swir": "swir.tif"})
    for rules in ({"nodata_rule": rule}, {} if rule == "all" else {"nodata_rule": rule}):
        _, valid = whole(open_item(place, ["red", "swir"], resample=True, **rules))
        assert valid.tolist() == [list(np.repeat(known, 2))] * 2


def test_bands_of_one_file_have_the_names_of_the_item(tmp_path):
    write_raster(tmp_path / "a.tif", noise(3, 5, 5))
    named = [{"name": "B4"}, {"name": "B3"}, {"name": "B2"}]
    for key in ("bands", "eo:bands"):
        place = item(tmp_path, {"visual": {"href": "a.tif", key: named}})
        assert open_item(place, ["visual"]).bands == ("B4", "B3", "B2")
    place = item(tmp_path, {"visual": {"href": "a.tif", "bands": named[:2]}})
    assert open_item(place, ["visual"]).bands == ("red", "green", "blue")


@pytest.mark.parametrize(
    "said", [{"nodata": 7}, {"bands": [{"nodata": 7}]}, {"raster:bands": [{"nodata": 7.0}]}], ids=str
)
def test_nodata_of_the_item_applies_if_the_file_declares_none(tmp_path, said):
    array = np.array([[7, 8]], "uint8")
    place = item(tmp_path, {"a": {"href": "a.tif", **said}})
    write_raster(tmp_path / "a.tif", array)
    assert whole(open_item(place, ["a"]))[1].tolist() == [[False, True]]
    write_raster(tmp_path / "a.tif", array, nodata=8)
    assert whole(open_item(place, ["a"]))[1].tolist() == [[True, False]]
    assert whole(open_item(place, ["a"], nodata=0))[1].all()


def test_the_item_may_name_a_nodata_value_for_each_band(tmp_path):
    array = np.array([[[1, 0, 9, 3]], [[1, 9, 255, 0]]], "uint8")
    write_raster(tmp_path / "a.tif", array)
    place = item(tmp_path, {"a": {"href": "a.tif", "nodata": 255, "bands": [{"nodata": 0}, {"name": "b"}]}})
    raster = open_item(place, ["a"], nodata_rule="any")
    assert raster.nodata == (0, 255)
    assert whole(raster)[1].tolist() == [[True, False, False, True]]


def test_nan_as_an_override_adds_to_nodata_of_the_item(tmp_path):
    write_raster(tmp_path / "a.tif", np.array([[1.5, -9999, np.nan, 3]], "float32"))
    write_raster(tmp_path / "b.tif", np.array([[1, 2, 3, -9999]], "int16"))
    assets = {key: {"href": f"{key}.tif", "raster:bands": [{"nodata": -9999}]} for key in ("a", "b")}
    place = item(tmp_path, assets)
    assert whole(open_item(place, ["a"], nodata=math.nan))[1].tolist() == [[True, False, False, True]]
    both = open_item(place, ["b", "a"], nodata=math.nan)
    assert whole(both)[1].tolist() == [[True, False, False, False]]
    assert whole(both.select([2]))[1].tolist() == [[True, False, False, True]]
    assert "-9999" in both.fingerprint_fields["declared nodata"]


@pytest.mark.parametrize("said", [256, -9999, "nan", "no", None, [0]], ids=str)
def test_nodata_of_the_item_that_the_type_cannot_hold_is_none(tmp_path, said):
    write_raster(tmp_path / "a.tif", np.array([[0, 1, 255]], "uint8"))
    raster = open_item(item(tmp_path, {"a": {"href": "a.tif", "nodata": said}}), ["a"])
    assert raster.nodata is None
    assert whole(raster)[1].all()


def test_an_item_behind_a_url_has_relative_and_absolute_addresses(tmp_path, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving(tmp_path) as server:
        (tmp_path / "catalog").mkdir()
        (tmp_path / "data").mkdir()
        for number, name in enumerate(("data/B04.tif", "catalog/B08.tif")):
            write_raster(tmp_path / name, noise(1, 20, 30, seed=number))
        item(tmp_path / "catalog", {"red": server.url("data/B04.tif"), "nir": "./B08.tif", "rel": "../data/B04.tif"})
        raster = open_item(server.url("catalog/item.json"), ["red", "nir", "rel"])
        pixels, _ = whole(raster)
    expected = [noise(1, 20, 30, seed=number)[0] for number in (0, 1, 0)]
    np.testing.assert_array_equal(pixels, expected)
    assert raster.paths[1] == server.url("catalog/B08.tif")


@pytest.mark.parametrize(
    ("href", "path"),
    [
        ("/data/B04.tif", "http://e.org/data/B04.tif"),
        ("//cdn.org/B04.tif", "http://cdn.org/B04.tif"),
        ("B04.tif?token=a", "http://e.org/catalog/B04.tif?token=a"),
        ("s3://bucket/B04.tif", "s3://bucket/B04.tif"),
        ("/vsizip/a.zip/B04.tif", "/vsizip/a.zip/B04.tif"),
    ],
)
def test_hrefs_at_a_url_are_resolved_as_browsers_do(href, path):
    assert _resolve("http://e.org/catalog/item.json?signature=b", href) == path


@pytest.mark.parametrize("name", ["scene#1.tif", "scene?1.tif", "scene%201.tif"])
def test_signs_of_urls_in_the_names_of_local_files_are_kept(tmp_path, name):
    write_raster(tmp_path / name, noise(1, 5, 5))
    assert open_item(item(tmp_path, {"a": name}), ["a"]).paths == (str(tmp_path / name),)


@pytest.mark.parametrize(
    ("assets", "words"),
    [
        ([], r"item\.json is a STAC item\. Choose its assets with --assets.*It has: red, nir, swir, thumb\."),
        (["red", "green", "blue"], r"has no asset green, blue with a file\. It has: red, nir, swir, thumb\."),
        (["thumb"], "has no asset thumb with a file"),
    ],
)
def test_missing_assets_are_refused_with_the_existing_ones(scene, assets, words):
    with pytest.raises(RasterError, match=words):
        open_item(scene, assets)


def test_an_asset_that_is_not_a_raster_is_named(tmp_path):
    (tmp_path / "meta.tif").write_text("<xml/>")
    with pytest.raises(RasterError, match=r"meta\.tif cannot be read"):
        open_item(item(tmp_path, {"meta": "meta.tif"}), ["meta"])


@pytest.mark.parametrize(
    ("held", "words"),
    [
        (
            '{"type": "FeatureCollection", "features": [1, 2]}',
            "is a FeatureCollection of 2 features. Expected a STAC item",
        ),
        (
            '{"type": "Catalog", "links": [{"rel": "item", "href": "./a.json"}, {"rel": "self"}]}',
            r"is a STAC Catalog of 1 items, the first of which is \./a\.json",
        ),
        ('{"type": "Collection", "links": []}', r"is a STAC Collection of 0 items\. Expected a STAC item"),
        ('{"type": "Feature", "geometry": null}', r"is a Feature without stac_version or assets"),
        ("[1, 2]", "is a JSON without stac_version or assets"),
        ("<html>", "is not JSON: "),
        (b"\xff\xfe\x00", r"is not JSON: it is not text\. Expected a STAC item"),
    ],
)
def test_a_file_that_is_not_an_item_is_refused_with_the_reason(tmp_path, held, words):
    place = tmp_path / "odd.json"
    place.write_bytes(held if isinstance(held, bytes) else held.encode())
    with pytest.raises(RasterError, match=rf"odd\.json {words}"):
        open_item(str(place), ["red"])


def test_an_unreadable_item_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("GDAL_HTTP_CONNECTTIMEOUT", "0.5")
    with pytest.raises(RasterError, match=r"none\.json cannot be read: No such file"):
        open_item(str(tmp_path / "none.json"), ["red"])
    with pytest.raises(RasterError, match=r"s3://b/a\.json is neither a file nor an http"):
        open_item("s3://b/a.json", ["red"])
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving(tmp_path / "served") as server:
        with pytest.raises(RasterError, match=r"none\.json cannot be read: HTTP 404 Not Found"):
            open_item(server.url("none.json"), ["red"])
        server.fault = lambda path, stop: "hang"
        with pytest.raises(RasterError, match=r"item\.json cannot be read: timed out"):
            open_item(server.url("item.json"), ["red"])
        (server.folder / "item.json").write_text("{" + " " * 1000 + "}")
        server.fault = lambda path, stop: "short"
        with pytest.raises(RasterError, match=r"item\.json cannot be read: IncompleteRead"):
            open_item(server.url("item.json"), ["red"])


@pytest.mark.parametrize(
    ("item_id", "name"),
    [("../up/scene", "__up_scene"), ("urn:eop:S2A_T32", "urn_eop_S2A_T32"), ("S2A. ", "S2A_"), ("a\tb?", "a_b_")],
)
def test_the_name_of_an_item_can_be_that_of_a_file_on_every_system(tmp_path, item_id, name):
    place = Path(item(tmp_path, {"a": "a.tif"}))
    write_raster(tmp_path / "a.tif", noise(1, 5, 5))
    place.write_text(json.dumps(json.loads(place.read_text()) | {"id": item_id}))
    assert open_item(str(place), ["a"]).name == name


@pytest.mark.parametrize(
    ("place", "answer"),
    [
        ("a/item.json", True),
        ("item.GEOJSON", True),
        ("https://e.org/item.json?token=a.tif", True),
        ("https://e.org/a.tif?item=a.json", False),
        ("a.tif", False),
    ],
)
def test_items_are_recognised_by_their_path(place, answer):
    assert is_item(place) == answer
