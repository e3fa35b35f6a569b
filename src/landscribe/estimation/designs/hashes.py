"""Hashes of the map that a reference sample was drawn from, and of its units: they tell whether either was changed."""

import hashlib
from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from landscribe.geo.classes import IGNORE
from landscribe.geo.rasters.raster import Raster, Valid


class PixelHash:
    """Hash of the class values of a map, from north to south; pixels without a class count as 255.

    Law: it does not depend on the heights of the strips.
    """

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()

    def add(self, values: NDArray[np.uint8], valid: Valid) -> None:
        """Add class values (rows, cols) of whole rows of the map, below those before."""
        self._sha256.update(np.where(valid, values, np.uint8(IGNORE)).data)

    @property
    def sha256(self) -> str:
        """Of all rows so far."""
        return self._sha256.hexdigest()


def pixel_hash(mapped: Raster) -> str:
    """The hash of a class map, which is read in strips."""
    pixels_hash = PixelHash()
    for strip in mapped.grid.strips():
        pixels, valid = mapped.read(strip)
        pixels_hash.add(pixels[0], valid)
    return pixels_hash.sha256


def column_hash(units: pd.DataFrame, column: str) -> str:
    """The hash of a column of sampling units.

    Law: it depends neither on the order of the rows, nor on digits that spreadsheets leave out: they save 15 of 17.
    """
    # A centre of a pixel often lies between two numbers of six digits: which is nearer must not depend on the 16th.
    return _hash(units, column, lambda value: f"{float(f'{value:.12g}'):.6g}")


def is_column_of(units: pd.DataFrame, column: str, drawn_hash: str) -> bool:
    """True if a column has the hash that it was drawn with, by this version or an earlier one."""
    return drawn_hash in (column_hash(units, column), _hash(units, column, lambda value: f"{value:.6g}"))


def _hash(units: pd.DataFrame, column: str, text_of: Callable[[float], str]) -> str:
    values = units.sort_values("id")[column].tolist()
    texts = [text_of(value) if isinstance(value, float) else str(value) for value in values]
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()
