"""Encoding: what the stored numbers of a band mean, by the scale, offset and unit tags of its file."""

from collections.abc import Sequence
from dataclasses import dataclass

from rasterio.dtypes import dtype_rev, typename_fwd

from landscribe.errors import RasterError

_PERCENT = ("percent", "%", "pct")
_SAME = 1e-6
"""Relative difference of numbers that count as equal: files keep them in different precisions."""


@dataclass(frozen=True)
class Encoding:
    """`physical = stored * scale + offset`, in a unit.

    >>> Encoding(scale=1e-4, offset=-0.1).to(Encoding(scale=1e-4))  # Sentinel-2 since baseline 04.00, and before
    (1.0, -1000.0)
    """

    scale: float = 1.0
    offset: float = 0.0
    unit: str = ""

    @property
    def is_declared(self) -> bool:
        """True if a tag says that stored and physical numbers differ."""
        return self.scale != 1 or self.offset != 0 or self.share != 1

    @property
    def share(self) -> float:
        """The unit as a number: 0.01 for per cent, else 1."""
        return 0.01 if self.unit.lower() in _PERCENT else 1.0

    def to(self, other: "Encoding") -> tuple[float, float]:
        """Factor and offset by which stored numbers become those of another encoding with the same physical values."""
        factor = self.scale * self.share / (other.scale * other.share)
        offset = (self.offset * self.share - other.offset * other.share) / (other.scale * other.share)
        return factor, offset

    def is_same(self, other: "Encoding") -> bool:
        """True if stored numbers mean the same."""
        factor, offset = self.to(other)
        # An offset of a millionth of a stored step, or of itself, is rounding.
        own = max(1.0, abs(self.offset / self.scale))
        return abs(factor - 1) < _SAME and abs(offset) < _SAME * own

    def __str__(self) -> str:
        return f"scale {self.scale:.10g}, offset {self.offset:.10g}" + (f", unit {self.unit}" if self.unit else "")


def command_to_dtype(dtype: str) -> str:
    """GDAL's command that brings a raster to a dtype. Without -scale, it clips numbers that an integer cannot hold.

    >>> command_to_dtype("uint8"), command_to_dtype("float32")
    ('gdal_translate -ot Byte -scale MIN MAX 0 255', 'gdal_translate -ot Float32')
    """
    command = f"gdal_translate -ot {typename_fwd[dtype_rev[dtype]]}"
    if dtype.startswith("float"):
        return command
    ends = "0 255" if dtype == "uint8" else "LOW HIGH"
    return f"{command} -scale MIN MAX {ends}"


def if_declared(bands: Sequence[Encoding]) -> tuple[Encoding, ...]:
    """The encodings of bands; empty if no tag declares one."""
    return tuple(bands) if any(band.is_declared for band in bands) else ()


def conversions(
    names: Sequence[str], own: Sequence[Encoding], expected: Sequence[Encoding], expected_of: Sequence[str]
) -> list[tuple[float, float]] | None:
    """Factor and offset of each band, by which stored numbers get the expected encoding.

    Args:
        names: of each band, for messages.
        own: encoding of each band.
        expected: the other encoding of each band.
        expected_of: what has it, for messages.

    Returns:
        None if both are the same.

    Raises:
        RasterError: one side declares scale and offset, the other does not.
    """
    for name, theirs, ours, other in zip(names, own, expected, expected_of, strict=True):
        if theirs.is_declared != ours.is_declared:
            raise RasterError(
                f"{name} has {theirs if theirs.is_declared else 'no scale and offset tags'}, but "
                f"{other} has {ours if ours.is_declared else 'none'}. Expected tags on both or neither: stored "
                "numbers may mean other values. Set or unset the tags (gdal_edit.py -scale … -offset …)"
            )
    if all(theirs.is_same(ours) for theirs, ours in zip(own, expected, strict=True)):
        return None
    return [theirs.to(ours) for theirs, ours in zip(own, expected, strict=True)]
