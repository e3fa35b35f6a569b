"""Band names: which bands of a raster are those that another raster, or a model, names."""

import re
from collections.abc import Sequence

_POSITION = re.compile(r"(?i)band[ _]?\d+(_\d+)?")


def is_position(name: str) -> bool:
    """True for a name such as band1 or Band 1, which says nothing of what the band is."""
    return _POSITION.fullmatch(name) is not None


def matched_bands(names: Sequence[str], requested: Sequence[str]) -> list[int] | None:
    """The indices of the requested bands among the names; None if the names do not say them.

    Capitals, zeros before a number, spaces, _ and - do not matter, unless names are equal without them.

    >>> matched_bands(["nir", "B04", "b_3"], ["B3", "B4"])
    [2, 1]
    >>> matched_bands(["band1", "band2", "band3"], ["band2", "band1"])  # positions
    """
    if any(map(is_position, requested)):
        return None
    for theirs, ours in ((names, requested), _keys(names, requested)):
        if set(ours) <= set(theirs) and len(set(theirs)) == len(theirs):
            return [theirs.index(name) for name in ours]
    return None


def moved_band(names: Sequence[str], requested: Sequence[str]) -> int | None:
    """The index of the first name that has another position among the requested ones; None without one."""
    theirs, ours = _keys(names, requested)
    return next(
        (
            index
            for index, (name, key) in enumerate(zip(names, theirs, strict=True))
            if key in ours and ours.index(key) != index and not is_position(name)
        ),
        None,
    )


def _keys(names: Sequence[str], requested: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """What is compared of names; the names themselves, if two of either side would be one."""
    theirs, ours = ([_key(name) for name in each] for each in (names, requested))
    if len(set(theirs)) < len(theirs) or len(set(ours)) < len(ours):
        return names, requested
    return theirs, ours


def _key(name: str) -> str:
    # Between two digits, a separator counts: "B1_2" is not "B12", nor "450.05" "450.5".
    without_zeros = re.sub(r"(?<![\d.])0+(?=\d)", "", name.casefold())
    return re.sub(r"(?<!\d)[\s_-]+|[\s_-]+(?!\d)", "", without_zeros)
