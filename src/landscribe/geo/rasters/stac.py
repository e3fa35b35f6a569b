"""STAC items: chosen assets as one raster.

An item is a GeoJSON feature that lists the files of a scene, see github.com/radiantearth/stac-spec.
"""

import http.client
import json
import os
import re
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from landscribe.errors import RasterError, counted, first_line
from landscribe.geo.access import is_local, require_file
from landscribe.geo.rasters.derived.stack import override_nodata, stack_bands
from landscribe.geo.rasters.nodata import can_hold, one_if_equal
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.spec import NodataRule, NodataValue

_TIMEOUT_S = "20"
"""For a server to answer."""


def open_item(
    address: str,
    assets: Sequence[str],
    *,
    nodata: NodataValue = None,
    nodata_rule: NodataRule = "auto",
    resample: bool = False,
) -> Raster:
    """Open assets of an item, stacked in this order, with the item's band names.

    Args:
        address: a path, or an http(s) URL.
        assets: keys of assets.
        nodata: overrides the values that the files, or else the item, declare, as `Raster.override_nodata`.
        nodata_rule: whether any or all bands of a pixel must hold nodata.
        resample: resample the assets that lie on other grids to the grid of the first.

    Raises:
        RasterError: the address is no item, lacks an asset, or an asset is not a readable raster.
        GridError: the assets lie on different grids, and `resample` is off.
    """
    item = _read_item(address)
    all_assets = item["assets"]
    listing = f"It has: {', '.join(all_assets)}."
    if not assets:
        raise RasterError(
            f"{address} is a STAC item. Choose its assets with --assets, as in --assets red,green. {listing}"
        )
    missing = [key for key in assets if not _has_file(all_assets.get(key))]
    if missing:
        raise RasterError(f"{address} has no asset {', '.join(missing)} with a file. {listing}")

    by_band = isinstance(nodata, tuple)

    def open_asset(key: str) -> Raster:
        asset = all_assets[key]
        raster = Raster.open([_resolve(address, asset["href"])], nodata_rule=nodata_rule)
        raster = raster.with_nodata(_declared(asset, raster))
        return raster.with_band_names(_bands_of(key, asset, raster))

    with ThreadPoolExecutor(len(assets)) as pool:
        rasters = list(pool.map(open_asset, assets))
    stacked = stack_bands(rasters if by_band else override_nodata(rasters, nodata), resample=resample)
    return replace(stacked.override_nodata(nodata) if by_band else stacked, title=_title(item, address))


def _has_file(asset: Any) -> bool:
    return isinstance(asset, dict) and isinstance(asset.get("href"), str) and bool(asset["href"])


def _title(item: dict[str, Any], address: str) -> str:
    """The id of the item, or else the file's stem, without what a file's name cannot hold on some system.

    Of "urn:eop:S2A.tif", Windows would write a file "urn".
    """
    return re.sub(r'[<>:"/\\|?*\x00-\x1f]+|^\.+|[. ]+$', "_", str(item.get("id") or Path(address).stem))


def _read_item(address: str) -> dict[str, Any]:
    try:
        content = json.loads(_read_text(address))
    except (ValueError, RecursionError) as error:
        reason = "it is not text" if isinstance(error, UnicodeDecodeError) else first_line(error)
        raise RasterError(f"{address} is not JSON: {reason}. Expected a STAC item, whose assets are chosen.") from error
    item: dict[str, Any] = content if isinstance(content, dict) else {}
    if item.get("type") == "Feature" and "stac_version" in item and isinstance(item.get("assets"), dict):
        return item
    raise RasterError(f"{address} is {_describe(item)}. Expected a STAC item: a Feature with assets. Give one scene's.")


def _describe(content: dict[str, Any]) -> str:
    """Kind and size of JSON that is no item."""
    kind = content.get("type", "JSON")
    if kind == "FeatureCollection":
        return f"a FeatureCollection of {counted(len(content.get('features', [])), 'feature')}"
    if kind in ("Catalog", "Collection"):
        items = [str(link.get("href")) for link in content.get("links", []) if link.get("rel") == "item"]
        return f"a STAC {kind} of {len(items)} items" + (f", the first of which is {items[0]}" if items else "")
    return f"a {kind} without stac_version or assets"


def _read_text(address: str) -> str:
    try:
        if is_local(address):
            require_file(address)
            return Path(address).read_text(encoding="utf-8-sig")
        if not address.startswith(("http://", "https://")):
            raise RasterError(f"{address} is neither a file nor an http(s) URL. Copy the item, or give its URL.")
        timeout_s = float(os.environ.get("GDAL_HTTP_CONNECTTIMEOUT", _TIMEOUT_S))
        with urllib.request.urlopen(address, timeout=timeout_s) as answer:  # noqa: S310 only http(s) comes here
            text: str = answer.read().decode("utf-8-sig")
            return text
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        code = f"HTTP {error.code} " if hasattr(error, "code") else ""
        raise RasterError(
            f"{address} cannot be read: {code}{reason}. Expected a STAC item. Check the path or the address."
        ) from error


def _resolve(address: str, href: str) -> str:
    """Path or address of an asset; a relative one is relative to the item, and `/…` at a URL to its server."""
    if not is_local(href):
        return href
    return str(Path(address).parent / href) if is_local(address) else urljoin(address, href)


def _band_objects(asset: dict[str, Any], *names: str) -> list[dict[str, Any]]:
    """The band objects of an asset under the first of these names that it has."""
    bands: list[Any] = next((asset[name] for name in names if isinstance(asset.get(name), list)), [])
    return [band for band in bands if isinstance(band, dict)]


def _bands_of(key: str, asset: dict[str, Any], raster: Raster) -> list[str]:
    """Band names: the asset's key if it has one band; else those of the item, or else those of the file."""
    if len(raster.bands) == 1:
        return [key]
    # `bands` of STAC 1.1, `eo:bands` of an extension of 1.0.
    names = [str(band.get("name")) for band in _band_objects(asset, "bands", "eo:bands")]
    return names if len(set(names)) == len(raster.bands) == len(names) else list(raster.bands)


def _declared(asset: dict[str, Any], raster: Raster) -> NodataValue:
    """The nodata value of each band: that of the file, else that of the item if the dtype can hold it."""
    bands = _band_objects(asset, "bands", "raster:bands")
    bands = bands * len(raster.bands) if len(bands) == 1 else bands
    if len(bands) != len(raster.bands):
        bands = [{}] * len(raster.bands)
    values = [_number(band.get("nodata", asset.get("nodata")), raster.dtype) for band in bands]
    own = raster.nodata_by_band
    return one_if_equal([said if known is None else known for known, said in zip(own, values, strict=True)])


def _number(value: Any, dtype: str) -> float | None:
    """A number of the item, which JSON holds as text if it is NaN; None if it is none that the dtype can hold."""
    try:
        number = float(value)
    except (ValueError, TypeError):  # null, a word, or a list
        return None
    return number if can_hold(dtype, number) else None
