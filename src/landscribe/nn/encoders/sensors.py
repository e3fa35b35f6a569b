"""Bands of files of pretrained weights: tables of known files, in their order, and the scaling of their input."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from landscribe.errors import NetworkError, counted
from landscribe.spec import nearest

RGB = ("red", "green", "blue")
"""Bands of a file of three input channels, unless others are named."""

Quantity = Literal["reflectance", "decibel", "byte"]
"""The numbers from which an input was scaled: reflectance from 0 to 1, backscatter in dB, or bytes from 0 to 255."""

CODES: dict[str, dict[str, str]] = {
    "sentinel2": {
        "b1": "coastal", "b2": "blue", "b3": "green", "b4": "red", "b5": "rededge1", "b6": "rededge2",
        "b7": "rededge3", "b8": "nir", "b8a": "nir08", "b9": "nir09", "b10": "cirrus", "b11": "swir16",
        "b12": "swir22",
    },
    "landsat5": {
        "b1": "blue", "b2": "green", "b3": "red", "b4": "nir", "b5": "swir16", "b6": "lwir", "b7": "swir22",
    },
    "landsat7": {
        "b1": "blue", "b2": "green", "b3": "red", "b4": "nir", "b5": "swir16", "b6_vcid_1": "lwir",
        "b6_vcid_2": "lwir", "b7": "swir22", "b8": "pan",
    },
    "landsat8": {
        "b1": "coastal", "b2": "blue", "b3": "green", "b4": "red", "b5": "nir08", "b6": "swir16", "b7": "swir22",
        "b8": "pan", "b9": "cirrus", "b10": "lwir11", "b11": "lwir12",
    },
}  # fmt: skip
"""Common names, mostly of STAC, of the codes of a sensor's bands."""

_CODE = re.compile(r"(?P<level>s[rt]_)?(?P<code>b0*(?P<number>[1-9]\d?a?(?:_vcid_[12])?))(?:_\d+m|[\s,;:(].*)?")
_ZERO_PADDED = re.compile(r"(?:b0[1-9]|b8a)(?:_\d+m|[\s,;:(].*)?")


@dataclass(frozen=True)
class FileBands:
    """The N bands of a file of weights, in its order, and the scaling `(value - mean) / deviation` of its input."""

    bands: tuple[str, ...]
    """Common names."""
    sensor: str | None = None
    """Key of `CODES`, by which codes such as B5 are read; None for names alone."""
    quantities: tuple[Quantity, ...] = ()
    """Of each band; empty if the scaling is not known."""
    means: tuple[float, ...] = ()
    """Of each band, in its quantity."""
    deviations: tuple[float, ...] = ()
    """Of each band, in its quantity; a divisor has the mean 0."""


def _table(
    sensor: str, codes: str, deviation: float | tuple[float, ...], mean: float | tuple[float, ...] = 0.0,
    quantity: Quantity = "reflectance",
) -> FileBands:  # fmt: skip
    """A table of bands by their codes; a number holds for all of them. Radar has dB."""
    bands = common_names(codes.split(), sensor)
    count = len(bands)
    return FileBands(
        bands,
        sensor,
        tuple("decibel" if band in ("vv", "vh") else quantity for band in bands),
        mean if isinstance(mean, tuple) else (mean,) * count,
        deviation if isinstance(deviation, tuple) else (deviation,) * count,
    )


def common_names(bands: Sequence[str], sensor: str | None) -> tuple[str, ...]:
    """Names of bands in lower case; codes become the common names of their sensor.

    Codes such as B5 differ between sensors. Those with a leading zero, and B8A, are of Sentinel-2, all others are of
    `sensor`; SR_B5 and ST_B10 are of Landsat alone. Without a sensor, codes are read where all sensors agree that have
    red, green and blue among them, such as Sentinel-2 and Landsat 8 on B2. Text after the code is left out.

    >>> common_names(["B02", "B8A", "NIR"], None)
    ('blue', 'nir08', 'nir')
    >>> common_names(["B4", "B3", "B2"], None)
    ('red', 'green', 'blue')
    >>> common_names(["B5", "SR_B4"], "landsat8")
    ('nir08', 'red')
    """
    names = [band.strip().lower() for band in bands]
    if any(_ZERO_PADDED.fullmatch(name) for name in names):
        sensor = "sentinel2"
    codes = _agreed_codes(names) if sensor is None else CODES[sensor]
    return tuple(_common_name(name, sensor, codes) for name in names)


def _agreed_codes(names: Sequence[str]) -> dict[str, str]:
    """Codes and common names in which sensors agree; of those that have all these codes, and colours among them."""
    found = {f"b{match['number']}" for name in names if (match := _CODE.fullmatch(name)) and not match["level"]}
    # A panchromatic band has other pixels; it is not stacked with colours.
    sensors = [
        table
        for table in CODES.values()
        if found <= table.keys() and set(RGB) <= {table[code] for code in found} and "pan" not in map(table.get, found)
    ]
    common = {code: {table[code] for table in sensors} for code in found}
    return {code: meant.pop() for code, meant in common.items() if len(meant) == 1}


def _common_name(name: str, sensor: str | None, codes: Mapping[str, str]) -> str:
    match = _CODE.fullmatch(name)
    if match is None or (match["level"] and not (sensor or "").startswith("landsat")):
        return name
    return codes.get(f"b{match['number']}", name)


_S2_13 = "B1 B2 B3 B4 B5 B6 B7 B8 B8A B9 B10 B11 B12"
_SOFTCON_MEANS = (
    0.16129, 0.13976, 0.13223, 0.13731, 0.15610, 0.21084, 0.23907, 0.23187, 0.25810, 0.08377, 0.00220, 0.21952, 0.15374,
)  # fmt: skip
_SOFTCON_DEVIATIONS = (
    0.07910, 0.08543, 0.08787, 0.11449, 0.11275, 0.11642, 0.12760, 0.12495, 0.13459, 0.05775, 0.00475, 0.13400, 0.11429,
)  # fmt: skip
# Means and deviations of BigEarthNet v2.0 (configilm, BENv2_utils): reflectance, and dB of Sentinel-1.
_BIGEARTHNET = {
    "B02": (0.0438372, 0.0607027), "B03": (0.0614056, 0.0603297), "B04": (0.0588410, 0.0684569),
    "B05": (0.0942843, 0.0738433), "B06": (0.1769932, 0.1100456), "B07": (0.2049552, 0.1275805),
    "B08": (0.2193292, 0.1369372), "B8A": (0.2235557, 0.1356544), "B11": (0.1568227, 0.1070161),
    "B12": (0.0997732, 0.0813528), "VV": (-12.6438637, 5.1334939), "VH": (-19.3525581, 5.5905059),
}  # fmt: skip
_V02 = "B02 B03 B04 B05 B06 B07 B08 B8A B11 B12"
_V01 = "B02 B03 B04 B08 B05 B06 B07 B11 B12 B8A"


def _bigearthnet(codes: str) -> FileBands:
    means, deviations = zip(*(_BIGEARTHNET[code] for code in codes.split()), strict=True)
    return _table("sentinel2", codes, deviations, means)


TABLES: dict[str, FileBands] = {
    # SSL4EO-S12 (MoCo, DINO), DeCUR and CLOSP: arXiv:2211.07044, 2309.05300, 2507.10403.
    "sentinel2-13": _table("sentinel2", _S2_13, 1.0),
    "sentinel2-13-softcon": _table("sentinel2", _S2_13, _SOFTCON_DEVIATIONS, _SOFTCON_MEANS),  # arXiv:2405.20462
    "sentinel2-12": _table("sentinel2", "B1 B2 B3 B4 B5 B6 B7 B8 B8A B9 B11 B12", 1.0),  # SSL4Eco, arXiv:2504.18256
    "sentinel2-rgb": _table("sentinel2", "B4 B3 B2", 1.0),  # SSL4EO-S12
    # SatlasPretrain, arXiv:2211.15660. Its red, green and blue are the true-colour image, which ends at 0.3558.
    "sentinel2-9-satlas": _table("sentinel2", "B4 B3 B2 B5 B6 B7 B8 B11 B12", (0.3558,) * 3 + (0.816,) * 6),
    "sentinel2-rgb-satlas": _table("sentinel2", "B4 B3 B2", 0.3558),
    "sentinel1": _table("sentinel2", "VV VH", (5.26, 5.91), (-12.59, -20.26)),  # SSL4EO-S12, DeCUR, SoftCon
    # BigEarthNet v2.0, arXiv:2407.03653: the order differs between the versions of its weights.
    "bigearthnet-s2-v0.2.0": _bigearthnet(_V02),
    "bigearthnet-s2-v0.1.1": _bigearthnet(_V01),
    "bigearthnet-all-v0.2.0": _bigearthnet(f"VV VH {_V02}"),
    "bigearthnet-all-v0.1.1": _bigearthnet(f"{_V01} VH VV"),
    "bigearthnet-s1-v0.2.0": _bigearthnet("VV VH"),
    "bigearthnet-s1-v0.1.1": _bigearthnet("VH VV"),
    # SSL4EO-L, arXiv:2306.09424, on 8-bit images.
    "landsat5-tm-toa": _table("landsat5", "B1 B2 B3 B4 B5 B6 B7", 255.0, quantity="byte"),
    "landsat7-etm-toa": _table("landsat7", "B1 B2 B3 B4 B5 B6_VCID_1 B6_VCID_2 B7 B8", 255.0, quantity="byte"),
    "landsat7-etm-sr": _table("landsat7", "B1 B2 B3 B4 B5 B7", 255.0, quantity="byte"),
    "landsat8-oli-tirs-toa": _table("landsat8", "B1 B2 B3 B4 B5 B6 B7 B8 B9 B10 B11", 255.0, quantity="byte"),
    "landsat8-oli-sr": _table("landsat8", "B1 B2 B3 B4 B5 B6 B7", 255.0, quantity="byte"),
}
"""Known files of weights. Orders and scalings are those that torchgeo (torchgeo/models/resnet.py, swin.py), configilm
and BigEarthNet's data modules state; no published file was at hand to compare with."""


def named_bands(weights_bands: Sequence[str]) -> FileBands:
    """The bands that a setting names.

    Args:
        weights_bands: the name of a table, or the names of the bands in the order of the file, of which codes are those
            of Sentinel-2; empty for red, green and blue.

    Raises:
        NetworkError: a band is named twice, Sentinel-2 lacks a code, or the name of a table stands among bands.
    """
    if not weights_bands:
        return FileBands(RGB)
    given = [band.strip().lower() for band in weights_bands]
    if len(given) == 1 and given[0] in TABLES:
        return TABLES[given[0]]
    found = [match for band in given if (match := _CODE.fullmatch(band))]
    sensor = "sentinel2" if found else None
    bands = common_names(given, sensor)
    if tables := [band for band in given if band in TABLES]:
        raise _bad_bands(
            weights_bands, f"{tables[0]} is the name of a table of all bands. Give it alone, or only bands"
        )
    codes = [match["code"] for match in found if not match["level"] and f"b{match['number']}" not in CODES["sentinel2"]]
    if codes:
        raise _bad_bands(
            weights_bands, f"codes are those of Sentinel-2, which has no {codes[0].upper()}. Write B1 to B12 with B8A; "
            "common names, such as red, nir08 and swir16 for bands of Landsat; or a table, such as landsat8-oli-sr",
        )  # fmt: skip
    if doubled := [band for band in bands if bands.count(band) > 1]:
        raise _bad_bands(
            weights_bands, f"{doubled[0]} is given {bands.count(doubled[0])} times. Give each band of the file once"
        )
    return FileBands(bands, sensor)


def _bad_bands(weights_bands: Sequence[str], reason: str) -> NetworkError:
    return NetworkError(f"weights_bands is '{','.join(weights_bands)}'; {reason}.")


def file_bands(weights_bands: Sequence[str], channels: int) -> FileBands:
    """The bands of a file of weights with N input channels, as `named_bands`.

    Raises:
        NetworkError: as `named_bands`; or none are named but N is not 3, or another number of bands is named. The
            message lists the tables of N bands.
    """
    chosen = named_bands(weights_bands)
    if len(chosen.bands) != channels:
        raise NetworkError(_mismatch(weights_bands, chosen, channels))
    return chosen


def _mismatch(weights_bands: Sequence[str], chosen: FileBands, channels: int) -> str:
    fitting = [name for name, table in TABLES.items() if len(table.bands) == channels]
    tables = f"a table of {counted(channels, 'band')} ({', '.join(fitting)}), or " if fitting else ""
    expected = f"Give --weights-bands as {tables}the names of its {counted(channels, 'band')} in their order."
    if not weights_bands:
        return f"the file of weights has {channels} input channels, and their bands are not named. {expected}"
    given = ",".join(weights_bands)
    is_unknown = len(weights_bands) == 1 and "-" in given and given.lower() not in TABLES
    hint = nearest(given, list(TABLES)).split(" Known:")[0] if is_unknown else "."
    named = f"weights_bands '{given}' names {len(chosen.bands)}{hint}"
    return f"the file of weights has {channels} input channels, but {named} {expected}"
