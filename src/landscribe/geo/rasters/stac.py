"""STAC items: the assets that people choose, as one raster.

An item is a GeoJSON feature that names the files of a scene, see github.com/radiantearth/stac-spec.
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
from urllib.parse import urljoin, urlsplit

from landscribe.errors import RasterError
from landscribe.geo.access import is_local
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.rasters.stack import stacked
from landscribe.geo.spec import NodataRule

_PATIENCE = "20"
"""Seconds for a server to answer."""


def is_item(place: str) -> bool:
    """True for what is called like a STAC item, rather than a raster."""
    path = place if is_local(place) else urlsplit(place).path
    return Path(path).suffix.lower() in {".json", ".geojson"}


def open_item(
    place: str,
    assets: Sequence[str],
    *,
    nodata: float | None = None,
    nodata_rule: NodataRule = "auto",
    resample: bool = False,
) -> Raster:
    """Open assets of an item, stacked in this order, their bands named as the item does.

    Args:
        place: a file, or an http(s) URL.
        assets: their keys.
        nodata: overrides what the files, or else the item, declare.
        nodata_rule: whether any or all bands of a pixel must hold it.
        resample: bring assets on other grids onto that of the first.

    Raises:
        RasterError: no item, no such asset, or one that cannot be read as a raster.
        GridError: assets on different grids, and they are not to be resampled.
    """
    item = _item(place)
    known = item["assets"]
    there = f"It has: {', '.join(known)}."
    if not assets:
        raise RasterError(f"{place} is a STAC item. Choose its assets with --assets, as in --assets red,green. {there}")
    missing = [key for key in assets if not isinstance(known.get(key), dict) or not known[key].get("href")]
    if missing:
        raise RasterError(f"{place} has no asset {', '.join(missing)} that names a file. {there}")

    def opened(key: str) -> Raster:
        asset = known[key]
        raster = Raster.open([_from(place, asset["href"])], nodata=nodata, nodata_rule=nodata_rule)
        raster = raster if raster.nodata is not None else raster.with_nodata(_nodata_of(asset))
        return raster.named(_bands_of(key, asset, raster))

    with ThreadPoolExecutor(len(assets)) as pool:
        rasters = list(pool.map(opened, assets))
    return replace(stacked(rasters, resample=resample), title=_title(item, place))


def _title(item: dict[str, Any], place: str) -> str:
    """The item's name, which becomes that of files."""
    return re.sub(r"[/\\]+|^\.+", "_", str(item.get("id") or Path(place).stem))


def _item(place: str) -> dict[str, Any]:
    """What an item holds."""
    try:
        item = json.loads(_text(place))
    except ValueError as error:
        raise RasterError(f"{place} is not JSON: {error}. A STAC item was expected.") from error
    held: dict[str, Any] = item if isinstance(item, dict) else {}
    if held.get("type") == "Feature" and "stac_version" in held and isinstance(held.get("assets"), dict):
        return held
    raise RasterError(
        f"{place} is {_kind_of(held)}. A STAC item was expected: a Feature with assets. Give one scene's."
    )


def _kind_of(held: dict[str, Any]) -> str:
    """What stands in the place of an item, in a few words."""
    kind = held.get("type", "JSON")
    if kind == "FeatureCollection":
        return f"a FeatureCollection of {len(held.get('features', []))} features"
    if kind in ("Catalog", "Collection"):
        items = [str(link.get("href")) for link in held.get("links", []) if link.get("rel") == "item"]
        return f"a STAC {kind} of {len(items)} items" + (f", the first of which is {items[0]}" if items else "")
    return f"a {kind} without stac_version or assets"


def _text(place: str) -> str:
    try:
        if is_local(place):
            return Path(place).read_text(encoding="utf-8-sig")
        if not place.startswith(("http://", "https://")):
            raise RasterError(f"{place} is neither a file nor an http(s) URL. Copy the item, or give its URL.")
        patience = float(os.environ.get("GDAL_HTTP_CONNECTTIMEOUT", _PATIENCE))
        with urllib.request.urlopen(place, timeout=patience) as answer:  # noqa: S310 http(s) alone comes here
            text: str = answer.read().decode("utf-8-sig")
            return text
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        code = f"HTTP {error.code} " if hasattr(error, "code") else ""
        raise RasterError(
            f"{place} cannot be read: {code}{reason}. A STAC item was expected. Check the path or the address."
        ) from error


def _from(place: str, href: str) -> str:
    """Where an asset is; what is not absolute is relative to the item."""
    if not is_local(href) or Path(href).is_absolute():
        return href
    return str(Path(place).parent / href) if is_local(place) else urljoin(place, href)


def _described(asset: dict[str, Any], *names: str) -> list[dict[str, Any]]:
    """What is said of an asset's bands under the first of these names."""
    found: list[Any] = next((asset[name] for name in names if isinstance(asset.get(name), list)), [])
    return [band for band in found if isinstance(band, dict)]


def _bands_of(key: str, asset: dict[str, Any], raster: Raster) -> list[str]:
    """Names of an asset's bands: the asset's, if it has one; those of the item, or else of the file."""
    if len(raster.bands) == 1:
        return [key]
    # In STAC 1.1, or by an extension of 1.0.
    names = [str(band.get("name")) for band in _described(asset, "bands", "eo:bands")]
    return names if len(set(names)) == len(raster.bands) == len(names) else list(raster.bands)


def _nodata_of(asset: dict[str, Any]) -> float | None:
    """What an item says that a file does not; JSON has NaN as text."""
    values = {str(band["nodata"]) for band in (asset, *_described(asset, "bands", "raster:bands")) if "nodata" in band}
    try:
        return float(values.pop()) if len(values) == 1 else None
    except ValueError:  # null, or a word
        return None
