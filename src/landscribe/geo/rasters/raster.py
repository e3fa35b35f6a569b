"""Raster: files on one Grid, read lazily by window as (pixels, valid).

A pixel is *valid* where it can be used. It is not valid where
- an alpha band or mask of the files masks it,
- any of its bands, or all of them, hold the nodata value (declared or overriding), see `nodata.NodataRule`; of stacked
  files, the bands of one of its groups, see `nodata.Nodata.groups`,
- the window reaches outside the grid.
A NaN or infinite pixel raises an error, unless nodata is NaN: that marks all non-finite pixels, in addition to the
value that the files declare.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from landscribe.errors import GridError, RasterError, counted
from landscribe.fingerprint import unlike
from landscribe.geo.features import Features
from landscribe.geo.grid import Grid, Window, crs_label, size_label
from landscribe.geo.rasters.encoding import Encoding, if_declared
from landscribe.geo.rasters.metadata import read_metadata, stem
from landscribe.geo.rasters.nodata import Nodata, Origin, is_nan, one_if_equal, require_held, require_representable
from landscribe.geo.rasters.open_file import Files
from landscribe.geo.rasters.source_files import file_state
from landscribe.geo.spec import NodataRule, NodataValue

Pixels = NDArray[Any]
"""(bands, rows, cols) in the file's own dtype."""
Valid = NDArray[np.bool_]
"""(rows, cols), True where usable."""

CHOOSE_BANDS = "To use some of the bands, give their numbers (--band-numbers 1,2,3; in a recipe: band_numbers)"
_DETAIL_PER_AXIS = 4
"""Windows along each axis among which `Raster.sample_windows` chooses."""


class Source(Protocol):
    """Where a raster's pixels come from. Threads and processes share it; each opens its own file handles."""

    @property
    def paths(self) -> tuple[str, ...]:
        """All files that it reads."""

    @property
    def mask_files(self) -> tuple[str, ...]:
        """Those of the files that have an alpha or mask band."""

    @property
    def rasters(self) -> "tuple[Raster, ...]":
        """The rasters that it is computed from; none if it reads the files itself."""

    def read(
        self,
        window: Window,
        bands: Sequence[int] | None,
        nodata: Nodata,
        shape: tuple[int, int],
    ) -> tuple[Pixels, Valid]:
        """Read a window inside the grid.

        Args:
            window: of the source's grid.
            bands: indices of bands; None for all.
            nodata: values of these bands, and the rule.
            shape: (rows, cols) of the result: that of the window, else of a decimated read, nearest pixels through the
                files' overviews.

        Returns:
            Pixels (bands, rows, cols) as stored, and valid (rows, cols).
        """

    def may_hold_valid(self, window: Window, bands: Sequence[int] | None, nodata: Nodata) -> bool:
        """False only where no pixel of a window inside the grid is valid; at most one pixel is read to find out.

        Arguments as of `read`.
        """

    def close(self) -> None:
        """Close the file handles of this thread; the next read opens them again."""


@dataclass(frozen=True, eq=False)
class Raster:
    """Bands of pixels on one grid. Immutable; reads from several threads or processes are safe."""

    source: Source
    grid: Grid
    bands: tuple[str, ...]
    """Band names: the description in the file, else the colour, else the variable of a container, else the file's stem
    or the band's number."""
    dtype: str
    """Numpy name of the smallest type that holds every band."""
    nodata: NodataValue
    nodata_rule: NodataRule = "auto"
    title: str | None = None
    """A name other than the stem of the first file."""
    encoding: tuple[Encoding, ...] = ()
    """Of each band; empty if no tag says that stored and physical numbers differ."""
    has_palette: bool = False
    """Its one band holds indices of a colour table."""
    area: Features | None = None
    """Polygons outside of which it is not valid (`clip`)."""
    declared: tuple[float | None, ...] = ()
    """Of each band, the nodata value to which NaN is added; empty if there is none."""
    origins: tuple[Origin, ...] = ()
    """Of each band; empty if it is not opened from files."""
    _band_indices: tuple[int, ...] | None = None
    """Indices of `bands` among all bands of the source; None for all in order."""

    @classmethod
    def open(
        cls,
        paths: str | Path | Sequence[str | Path],
        *,
        nodata: NodataValue = None,
        nodata_rule: NodataRule = "auto",
        is_imagery: bool = False,
    ) -> "Raster":
        """Open files that lie on one grid.

        Args:
            paths: a file, or several whose bands are stacked in this order.
            nodata: as of `override_nodata`.
            nodata_rule: whether any or all bands of a pixel must hold nodata.
            is_imagery: an alpha band that holds many values is a band, with a warning; it is a mask otherwise.

        Raises:
            RasterError: a file is not a readable raster, or its dtype cannot hold the nodata value.
            GridError: the files lie on different grids, or on a rotated one.
        """
        names = tuple(str(path) for path in ([paths] if isinstance(paths, (str, Path)) else paths))
        if not names:
            raise RasterError("no image file was given. Give at least one.")
        files = [read_metadata(name, is_imagery=is_imagery) for name in names]
        for name, file in zip(names[1:], files[1:], strict=True):
            _require_aligned(names[0], files[0].grid, name, file.grid)
        bands = deduplicate_names([band for file in files for band in file.bands])
        dtype = str(np.result_type(*{file.dtype for file in files}))
        own = one_if_equal([value for file in files for value in file.nodata])
        source = Files(names, frozenset(index for index, file in enumerate(files) if file.alpha_is_imagery))
        encoding = if_declared([band for file in files for band in file.encoding])
        has_palette = len(files) == 1 and files[0].has_palette
        origins = tuple(
            Origin(name, number, len(file.bands), file.dtype)
            for name, file in zip(names, files, strict=True)
            for number in range(1, len(file.bands) + 1)
        )
        raster = cls(
            source, files[0].grid, tuple(bands), dtype, own, nodata_rule, encoding=encoding, has_palette=has_palette,
            origins=origins,
        )  # fmt: skip
        return raster if nodata is None else raster.override_nodata(nodata)

    @property
    def paths(self) -> tuple[str, ...]:
        """Its files; messages name the first one."""
        return self.source.paths

    @property
    def files_text(self) -> str:
        """Its files for messages: the first, and how many more there are."""
        others = len(self.paths) - 1
        return self.paths[0] + (f" with {counted(others, 'more file')}" if others else "")

    @property
    def band_texts(self) -> list[str]:
        """The number and file of each band, for messages."""
        return [str(origin) for origin in self.origins_by_band]

    @property
    def mask_files(self) -> tuple[str, ...]:
        """Those of its files that have an alpha or mask band."""
        return self.source.mask_files

    @property
    def name(self) -> str:
        """Its title, or the stem of the first file."""
        return self.title or stem(self.paths[0])

    @property
    def nodata_by_band(self) -> tuple[float | None, ...]:
        """The nodata value of each band."""
        return Nodata(self.nodata).by_band(len(self.bands))

    @property
    def encoding_by_band(self) -> tuple[Encoding, ...]:
        """The encoding of each band, also where no tag declares one."""
        return self.encoding or (Encoding(),) * len(self.bands)

    @property
    def origins_by_band(self) -> tuple[Origin, ...]:
        """The file of each band, also of a raster that was not opened from files."""
        count = len(self.bands)
        return self.origins or tuple(Origin(self.paths[0], band + 1, count, self.dtype) for band in range(count))

    @property
    def fingerprint_fields(self) -> dict[str, Any]:
        """All settings that decide the pixels, without the image files, in JSON's types."""
        fields: dict[str, Any] = {
            "bands": list(self.bands),
            "nodata": str(self.nodata),
            "nodata rule": self.nodata_rule,
            "grid": [crs_label(self.grid.crs), list(self.grid.transform)[:6], *self.grid.shape],
        }
        if apart := self._nodata.groups_apart(len(self.bands), np.dtype(self.dtype)):
            numbers = [", ".join(str(index + 1) for index in group.indices) for group in apart]
            fields["nodata groups"] = [
                f"{'all' if group.needs_all else 'any'} of {own}" for group, own in zip(apart, numbers, strict=True)
            ]
        if any(value is not None for value in self.declared):
            fields["declared nodata"] = str(self.declared)
        if self.area is not None:
            fields["image area"] = file_state(self.area.name)
        if self.encoding:
            fields["encoding"] = list(map(str, self.encoding))
        inner = [unlike(raster.fingerprint_fields, fields) for raster in self.source.rasters]
        return fields | ({"rasters": {str(number): own for number, own in enumerate(inner, 1)}} if inner else {})

    def select(self, numbers: Sequence[int]) -> "Raster":
        """The same raster with these bands, in this order. Band numbers count from 1.

        Raises:
            RasterError: a band number that the raster does not have.
        """
        odd = [number for number in numbers if not 1 <= number <= len(self.bands)]
        if odd or not numbers:
            raise RasterError(
                f"{self.files_text} has bands 1 to {len(self.bands)} ({', '.join(self.bands)}), but "
                f"{', '.join(map(str, odd)) or 'none'} was asked for. Ask for numbers among these."
            )
        return self.take_bands([number - 1 for number in numbers])

    def take_bands(self, indices: Sequence[int] | None) -> "Raster":
        """The same raster with the bands of these indices, from 0, in this order; with all if None."""
        if indices is None:
            return self
        of_source, nodata = self._band_indices or tuple(range(len(self.bands))), self._nodata.of_bands(indices)
        return replace(
            self,
            bands=tuple(self.bands[index] for index in indices),
            nodata=nodata.value,
            declared=nodata.declared,
            origins=nodata.origins,
            encoding=tuple(self.encoding[index] for index in indices) if self.encoding else (),
            _band_indices=tuple(of_source[index] for index in indices),
        )

    def of_bands(self, bands: Sequence[int] | None, nodata: Nodata) -> "Raster":
        """The same raster with the bands of these indices, all if None, with their nodata, as in `Source.read`."""
        return replace(
            self.take_bands(bands),
            nodata=nodata.value,
            nodata_rule=nodata.rule,
            declared=nodata.declared,
            origins=nodata.origins,
        )

    def with_band_names(self, bands: Sequence[str]) -> "Raster":
        """The same raster with other names for its bands.

        Raises:
            RasterError: the names are not as many as the bands, or one occurs twice.
        """
        if len(bands) != len(self.bands):
            raise RasterError(
                f"{self.files_text} has {counted(len(self.bands), 'band')}, but {counted(len(bands), 'name')} of bands "
                f"are given ({', '.join(bands)}). Expected a name for each band. {CHOOSE_BANDS}."
            )
        if same := [band for band in dict.fromkeys(bands) if bands.count(band) > 1]:
            raise RasterError(
                f"the names {', '.join(bands)} of the bands of {self.files_text} have {', '.join(same)} more than "
                "once. Expected a different name for each band."
            )
        return replace(self, bands=tuple(bands))

    def with_nodata(self, nodata: NodataValue) -> "Raster":
        """The same raster with another nodata value, or another one for each band, and no further ones."""
        return replace(self, nodata=nodata, declared=())

    def override_nodata(self, nodata: NodataValue) -> "Raster":
        """The same raster with another nodata value, or another one for each band; NaN is added to those it has.

        Raises:
            RasterError: the dtype of a band's file cannot hold its value, or they are not as many as the bands.
        """
        require_representable(nodata, self.dtype, len(self.bands), self.files_text)
        require_held(nodata, self.origins_by_band)
        own, values = self.nodata_by_band, Nodata(nodata).by_band(len(self.bands))
        is_float = [np.dtype(origin.dtype).kind == "f" for origin in self.origins_by_band]
        if not all(is_float):
            # No integer is NaN, so nothing is added.
            kept = zip(own, values, is_float, strict=True)
            values = tuple(old if is_nan(new) and not may_be_nan else new for old, new, may_be_nan in kept)
            nodata = one_if_equal(values)
        return replace(self, nodata=nodata, declared=own if any(map(is_nan, values)) else ())

    @property
    def _nodata(self) -> Nodata:
        return Nodata(self.nodata, self.nodata_rule, self.declared, self.origins)

    def read(self, window: Window) -> tuple[Pixels, Valid]:
        """Read a window, which may reach outside the grid.

        Returns:
            Pixels (bands, height, width) as stored, 0 where not valid, and valid (height, width).

        Raises:
            ReadError: the file is damaged there, or its server does not send it.
            RasterError: the window holds NaN or infinite pixels that nodata does not mark.

        >>> from tempfile import TemporaryDirectory
        >>> from landscribe.geo.rasters.whole_files import write_raster
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder) / "scene.tif"
        ...     write_raster(path, np.full((3, 100, 200), 7, np.uint8), grid=None)
        ...     raster = Raster.open([path])
        ...     pixels, valid = raster.read(Window(row=90, col=0, height=20, width=30))
        >>> pixels.shape, pixels.dtype, valid.shape
        ((3, 20, 30), dtype('uint8'), (20, 30))
        >>> valid[:10].all(), valid[10:].any()  # the grid ends at row 100
        (np.True_, np.False_)
        """
        pixels = np.zeros((len(self.bands), *window.shape), self.dtype)
        valid = np.zeros(window.shape, bool)
        inside = window & self.grid.window
        if not inside.is_empty:
            rows, cols = inside.relative_to(window).slices
            pixels[:, rows, cols], valid[rows, cols] = self.read_decimated(inside, inside.shape)
        return pixels, valid

    def may_hold_valid(self, window: Window) -> bool:
        """False only where no pixel of a window is valid, as far as that is known without reading the window.

        Missing blocks of sparse GeoTIFFs and areas of virtual rasters without a source are known to hold one value.
        """
        inside = window & self.grid.window
        return not inside.is_empty and self.source.may_hold_valid(inside, self._band_indices, self._nodata)

    def read_decimated(self, window: Window, shape: tuple[int, int]) -> tuple[Pixels, Valid]:
        """Read a window inside the grid decimated to (rows, cols): nearest pixels, else as `read`."""
        pixels, valid = self.source.read(window, self._band_indices, self._nodata, shape)
        if not valid.all():
            pixels[:, ~valid] = 0
        return pixels, valid

    def overview(self, max_side: int) -> tuple[Pixels, Valid]:
        """Read the whole raster decimated: nearest pixels, from the files' overviews where they have them.

        Alpha bands, masks, nodata and its rule count as in `read`.

        Args:
            max_side: of the longer side of the result, in pixels; a smaller raster is read as it is.

        Returns:
            Pixels (bands, rows, cols) as stored, 0 where not valid, and valid (rows, cols).

        Raises:
            ReadError: the file is damaged, or its server does not answer.
            RasterError: NaN or infinite pixels that nodata does not mark.
        """
        scale = min(1.0, max_side / max(self.grid.shape))
        rows, cols = (max(1, round(scale * length)) for length in self.grid.shape)
        return self.read_decimated(self.grid.window, (rows, cols))

    def sample_windows(self, count: int, shape: tuple[int, int], *, align: int = 1) -> list[Window]:
        """Windows with the most detail, most first, among a few that are spread evenly over the raster.

        Args:
            count: most windows; there are fewer if the others have no detail.
            shape: (height, width) of a window.
            align: windows begin at multiples of this.
        """
        return self.rank_by_detail(self.grid.spread_windows(shape, _DETAIL_PER_AXIS, align=align))[:count]

    def rank_by_detail(self, windows: Iterable[Window]) -> list[Window]:
        """Windows in order of decreasing detail.

        Detail is the standard deviation of the valid pixels times the share of valid pixels. Windows without detail
        (one value, or nothing valid) are left out. Each window is read once.
        """
        scored = [(self._detail(window), window) for window in windows]
        return [window for detail, window in sorted(scored, key=lambda pair: -pair[0]) if detail > 0]

    def _detail(self, window: Window) -> float:
        pixels, valid = self.read(window)
        return float(valid.mean() * pixels[:, valid].std()) if valid.any() else 0.0


def rounded_to(dtype: np.dtype[Any], floats: Pixels) -> Pixels:
    """Floats converted to the dtype of pixels, rounded as GDAL rounds, and clipped to its range.

    >>> rounded_to(np.dtype("uint8"), np.array([0.5, 254.4, 300.0])).tolist()
    [1, 254, 255]
    """
    if dtype.kind == "f":
        return floats.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.floor(floats + 0.5), limits.min, limits.max).astype(dtype)


def deduplicate_names(names: list[str]) -> list[str]:
    """The same names; a name that occurs several times gets numbers.

    >>> deduplicate_names(["B1", "B2", "B1"])
    ['B1_1', 'B2', 'B1_2']
    """
    return [
        f"{name}_{names[: index + 1].count(name)}" if names.count(name) > 1 else name
        for index, name in enumerate(names)
    ]


def _require_aligned(first: str, a: Grid, second: str, b: Grid) -> None:
    if not a.is_aligned(b):
        raise GridError(
            f"{second} is {size_label(b.shape)} pixels of {b.transform.a:g} in {crs_label(b.crs)}, but {first} is "
            f"{size_label(a.shape)} of {a.transform.a:g} in {crs_label(a.crs)}; corners differ by "
            f"{a.max_corner_offset(b):.2f} pixels. Expected the same grid for all files of a scene. Warp one to the "
            "other (gdalwarp), or use two scenes."
        )
