"""Label rasters: one band of class values, or colours of classes.

One rule for pixels without a value: where a label raster is nodata, transparent or masked, a pixel is unlabelled,
unless the class table has the nodata value as a label, or `label_nodata_as` names their class.

On a coarser grid (`pixel_size`), a pixel has the class with the largest labelled area under it; of equal ones, the one
with the lowest value. It is unlabelled if less than half of its area is labelled.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from landscribe import progress
from landscribe.data.scenes.polygon_files import PolygonFiles
from landscribe.data.scenes.spec import SceneSpec
from landscribe.errors import ClassError, LabelError, ResourceError
from landscribe.geo.classes import BACKGROUND, IGNORE, Classes, Label, distinct_codes, look_up
from landscribe.geo.grid import Grid, Window, size_label
from landscribe.geo.rasters.derived import Derived
from landscribe.geo.rasters.derived.converted import filled
from landscribe.geo.rasters.derived.located import open_located
from landscribe.geo.rasters.derived.resampling import Resampled, is_coarser, resample_by_majority, resample_to
from landscribe.geo.rasters.nodata import Nodata
from landscribe.geo.rasters.raster import Pixels, Raster, Valid
from landscribe.geo.rasters.whole_files import read_palette
from landscribe.geo.spec import NodataValue
from landscribe.geo.tiling import kept_squares
from landscribe.texts import is_colour

NODATA_IGNORED = "ignore"
"""`label_nodata_as` of labels whose nodata is unlabelled, whatever the class table says."""
_COLOUR_BANDS = 3
_NO_COLOUR, _TRANSPARENT = -1, -2
"""Codes of indices that a palette does not list, and of those whose colour is transparent."""
_STRIP_PIXELS = 2**24
_MOST_PIXELS = 10**13
"""Of a raster that is read for its classes: a day at 10^8 pixels a second."""
_MOST_PARTS = 2**8
"""About as many parts are searched for valid pixels before the pixels are read."""
_MOST_CODE = 2.0**62
"""Nodata of floats may be beyond every integer."""
_FEW_VALUES = 8
"""Label rasters with no more values are not searched for values that compression or blur added."""
_LOSSY = {".jpg", ".jpeg"}
_EDGE = 0.3
"""A value lies along edges only if fewer of its pixels than this have a right neighbour of the same value."""


@dataclass(frozen=True)
class LabelRaster:
    """A label raster on the grid of an image."""

    is_one_class: ClassVar[bool] = False
    has_names: ClassVar[bool] = False
    zero_is_class: ClassVar[bool] = False

    raster: Raster
    """Resampled (nearest) if the file has another grid than the image, unless the majority is taken."""
    threshold: float | None = None
    """From this value up, a pixel has label 1; below, label 0."""
    nodata_as: str | None = None
    """Name of the class of pixels that are nodata or transparent, or `NODATA_IGNORED`; None: unlabelled, unless the
    class table has the nodata value as a label."""
    coarser: Grid | None = None
    """The grid on which the majority is taken; None if the raster is on the grid of the image."""

    @classmethod
    def open(cls, path: str, image: Raster, spec: SceneSpec, _polygons: PolygonFiles) -> "LabelRaster":
        """Open the labels of `image`.

        Raises:
            LabelError: the raster has neither one band of numbers nor three bands of colours.
            GridError: the raster or the image lacks a CRS.
        """
        labels = located_labels(path, image, spec)
        settings = spec.label_threshold, spec.label_nodata_as
        if labels.grid.is_aligned(image.grid):
            return cls(labels, *settings)
        if spec.pixel_size is not None and is_coarser(image.grid, labels.grid):
            return cls(labels, *settings, image.grid)
        return cls(resample_to(labels, image.grid, nearest=True), *settings)

    @property
    def file_grid(self) -> Grid:
        """The grid of the file, which is resampled where the image has another one."""
        return next(iter(self.raster.source.rasters), self.raster).grid

    @property
    def is_thresholded(self) -> bool:
        """True if a threshold makes two classes of the values."""
        return self.threshold is not None

    @property
    def has_background(self) -> bool:
        """True if nodata and transparent pixels are background."""
        return self.nodata_as == BACKGROUND

    @property
    def has_colours(self) -> bool:
        """True if the raster has three bands of colours; grey in three bands is one band of numbers."""
        return self._is_packed and any(map(_is_chromatic, self._shares))

    def labels(self, *, colours: bool) -> set[Label]:
        """Every label in the raster; reads all of it once.

        Raises:
            LabelError: most of its values lie along edges only, as compression or blur leaves them.
        """
        shares = self._shares_of(colours=True) if colours and not self._is_packed else self._shares
        _require_classes(self.raster.paths[0], shares)
        return {_label(code if colours or not self._is_packed else code & 0xFF, colours=colours) for code in shares}

    @property
    def _is_packed(self) -> bool:
        """True if codes are colours as 0xRRGGBB before it is clear that all are grey."""
        return len(self.raster.bands) == _COLOUR_BANDS and not self.is_thresholded

    @cached_property
    def _shares(self) -> dict[int, tuple[float, float]]:
        """See `_shares_of`."""
        return self._shares_of(colours=self._is_packed)

    def _shares_of(self, *, colours: bool) -> dict[int, tuple[float, float]]:
        """Share of the pixels and share of equal right neighbours, by code; reads all of the raster."""
        counts: dict[int, NDArray[np.int64]] = {}
        for strip in self._strips():
            codes, opaque, is_nodata = self._read(strip, colours=colours)
            equal = np.zeros(codes.shape, bool)
            equal[:, :-1] = codes[:, :-1] == codes[:, 1:]
            labelled = opaque & ~is_nodata
            values, inverse, pixels = np.unique(codes[labelled], return_inverse=True, return_counts=True)
            same = np.bincount(inverse.ravel(), equal[labelled], minlength=len(values))
            for value, *own in zip(values.tolist(), pixels.tolist(), same.tolist(), strict=True):
                counts[value] = counts.get(value, np.zeros(2, np.int64)) + np.array(own, np.int64)
        total = sum(int(pixels) for pixels, _ in counts.values())
        return {value: (int(pixels) / total, int(same) / int(pixels)) for value, (pixels, same) in counts.items()}

    def _strips(self) -> Iterator[Window]:
        """Strips of the raster that may hold a label, reported as a task.

        Raises:
            ResourceError: there are more pixels than can be read in days.
        """
        whole, rows = self.raster.grid.window, max(1, _STRIP_PIXELS // self.raster.grid.width)
        strips = range(-(-whole.height // rows))

        def strip_of(span: range) -> Window:
            return Window(span[0] * rows, 0, len(span) * rows, whole.width) & whole

        def kept(side: int) -> Iterator[Window]:
            """Strips of so many rows of strips, without those whose pixels are all nodata."""
            spans = kept_squares(
                strips, range(1), lambda span, _: self.raster.may_hold_valid(strip_of(span)), side=side
            )
            return (strip_of(span) for span, _ in spans)

        pixels = 0
        for part in kept(max(1, len(strips) // _MOST_PARTS)):
            pixels += math.prod(part.shape)
            if pixels > _MOST_PIXELS:
                raise ResourceError(
                    f"{self.raster.paths[0]} has {size_label(whole.shape)} pixels. Its classes are found by "
                    f"reading all that are not nodata, {_MOST_PIXELS:.0e} at most. Write a class table into a recipe "
                    "(classes), or crop the labels to the image."
                )
        windows = list(kept(1))
        with progress.task(f"reading {Path(self.raster.paths[0]).name}", len(windows), least=2) as advance:
            for strip in windows:
                yield strip
                advance()

    def with_classes(self, classes: Classes) -> "RasterLabels | MajorityLabels":
        """The raster with a class table.

        Raises:
            ClassError: the table has no class with the name that nodata pixels get.
        """
        labels = RasterLabels(self, classes, self._nodata_value(classes))
        return labels if self.coarser is None else MajorityLabels.of(labels, self.coarser)

    def _nodata_value(self, classes: Classes) -> int:
        if self.nodata_as in (None, NODATA_IGNORED):
            return classes.ignore
        if self.nodata_as not in classes.names:
            raise ClassError(
                f"label_nodata_as is '{self.nodata_as}', but the classes are {', '.join(classes.names)}. Name one of "
                "them."
            )
        return classes.values[classes.names.index(self.nodata_as)]

    def read(self, window: Window, classes: Classes, nodata_value: int) -> NDArray[np.uint8]:
        """Class values (height, width); ignore where the raster does not reach.

        Args:
            window: of the raster's grid; it may reach outside.
            classes: the class table.
            nodata_value: class value of pixels that are nodata or transparent.

        Raises:
            ClassError: a label is not in the table.
        """
        values = np.full(window.shape, classes.ignore, np.uint8)
        inside = window & self.raster.grid.window
        if not inside.is_empty:
            colours = has_colour_labels(classes)
            codes, opaque, is_nodata = self._read(inside, colours=colours)
            if self.threshold is None and self.nodata_as is None and is_nodata.any():
                # The class table has the last word on what a value means.
                is_nodata &= ~np.isin(codes, _codes_of(classes, colours=colours))
            inside_values = np.full(inside.shape, classes.ignore, np.uint8)
            if nodata_value != classes.ignore and not opaque.all():
                inside_values[~opaque & self._reaches(inside)] = nodata_value
            inside_values[is_nodata] = nodata_value
            labelled = opaque & ~is_nodata
            inside_values[labelled] = self._values(codes[labelled], classes, colours=colours)
            values[inside.relative_to(window).slices] = inside_values
        return values

    def _reaches(self, window: Window) -> Valid:
        """Where the file has a pixel, also one that is not opaque: the grid of a resampled raster may be larger."""
        source = self.raster.source
        if not isinstance(source, Resampled):
            return np.ones(window.shape, bool)
        opaque = filled(source.raster.with_nodata(self._nan_only), 0)
        return replace(self.raster, source=replace(source, rasters=(opaque,)), nodata=None).read(window)[1]

    def _values(self, codes: NDArray[Any], classes: Classes, *, colours: bool) -> NDArray[np.uint8]:
        distinct, inverse, counts = distinct_codes(codes)
        table = np.full(len(distinct), classes.ignore, np.uint8)
        is_255_a_class = colours or IGNORE in _codes_of(classes, colours=False)
        labelled = (counts > 0) & (is_255_a_class | (distinct != IGNORE))
        occurring = {
            _label(code, colours=colours): count
            for code, count in zip(distinct[labelled].tolist(), counts[labelled].tolist(), strict=True)
        }
        table[labelled] = classes.values_of(list(occurring), self.raster.paths[0], occurring)
        return look_up(table, inverse)

    def stored(self, window: Window) -> tuple[Pixels, Valid, Valid]:
        """Pixels as stored, where they are opaque, and where they hold the nodata value or a transparent index.

        NaN is not opaque: no class has it as its label.
        """
        pixels, opaque = self.raster.with_nodata(self._nan_only).read(window)
        is_nodata = Nodata(self.raster.nodata).marks(pixels)
        if self.raster.has_palette and self.raster.dtype in ("uint8", "uint16"):
            is_nodata |= self._palette[pixels[0]] == _TRANSPARENT
        return pixels, opaque, opaque & is_nodata

    @property
    def _nan_only(self) -> NodataValue:
        """NaN for floats."""
        return math.nan if np.dtype(self.raster.dtype).kind == "f" else None

    def _read(self, window: Window, *, colours: bool) -> tuple[NDArray[Any], Valid, Valid]:
        """Codes, where pixels are opaque, and where they hold the nodata value, (height, width) each.

        A code is the stored number, or a colour as 0xRRGGBB.
        """
        pixels, opaque, is_nodata = self.stored(window)
        if not colours:
            return self._numbers(pixels, opaque & ~is_nodata), opaque, is_nodata
        if len(self.raster.bands) == 1:
            # Pixels without a colour are unlabelled, as nodata is.
            codes = self._palette[pixels[0]]
            return codes, opaque & (codes >= 0), is_nodata
        red, green, blue = pixels.astype(np.int32)
        return (red << 16) | (green << 8) | blue, opaque, is_nodata

    def _numbers(self, pixels: NDArray[Any], labelled: Valid) -> NDArray[Any]:
        """One number for each pixel (rows, cols)."""
        name, numbers = self.raster.paths[0], pixels[0]
        if len(pixels) == _COLOUR_BANDS and not (pixels == numbers).all():
            raise LabelError(
                f"{name} has {_COLOUR_BANDS} bands of colours, but the class table has no colours. "
                'Expected labels like label = "#3c1098". Write the colour of each class into the table.'
            )
        if self.threshold is not None:
            return (numbers >= self.threshold).astype(np.uint8)
        if numbers.dtype.kind != "f":
            return numbers
        fractions = numbers[labelled & (numbers != np.rint(numbers))]
        if fractions.size:
            raise LabelError(
                f"{name} holds fractions such as {fractions[0]:g}. Expected whole numbers as class values. Pass "
                f"--label-threshold for a class from a value up (for example {_middle(fractions):.3g}), or convert it."
            )
        return numbers.clip(-_MOST_CODE, _MOST_CODE).astype(np.int64)

    @cached_property
    def _palette(self) -> NDArray[np.int32]:
        """The code of each index's colour, `_NO_COLOUR` or `_TRANSPARENT`."""
        palette = read_palette(self.raster.paths[0])
        if palette is None:
            raise LabelError(
                f"{self.raster.paths[0]} has one band without a palette, but the class table's labels are colours. "
                "Expected coloured masks. Give the mask's numbers as labels."
            )
        table = np.full(2**8 if self.raster.dtype == "uint8" else 2**16, _NO_COLOUR, np.int32)
        for index, (red, green, blue, opacity) in palette.items():
            table[index] = (red << 16) | (green << 8) | blue if opacity else _TRANSPARENT
        return table


@dataclass(frozen=True)
class RasterLabels:
    """A label raster with a class table."""

    separates_objects: ClassVar[bool] = False

    source: LabelRaster
    classes: Classes
    nodata_value: int
    """Class value of pixels that are nodata or transparent."""

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Class values (height, width); ignore where the raster has no label."""
        return self.source.read(window, self.classes, self.nodata_value)

    def objects(self, window: Window) -> NDArray[np.uint32]:
        """Object numbers (height, width): all objects are object 1."""
        return _one_object(self.read(window), self.classes)


@dataclass(frozen=True)
class MajorityLabels:
    """A label raster with a class table, on a coarser grid."""

    separates_objects: ClassVar[bool] = False

    values: Raster
    """One band of class values; not valid where unlabelled."""
    classes: Classes

    @classmethod
    def of(cls, labels: RasterLabels, grid: Grid) -> "MajorityLabels":
        """The majority of labels on a coarser grid."""
        # Pixels vote after the class table: labels of one class vote together, and ignored labels do not vote.
        values = replace(
            labels.source.raster,
            source=_ClassValues((labels.source.raster,), labels),
            bands=("class",),
            dtype="uint8",
            nodata=None,
            encoding=(),
            has_palette=False,
            _band_indices=None,
        )
        return cls(resample_by_majority(values, grid), labels.classes)

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Class values (height, width); ignore where less than half of a pixel is labelled."""
        values, labelled = self.values.read(window)
        return np.where(labelled, values[0], np.uint8(self.classes.ignore))

    def objects(self, window: Window) -> NDArray[np.uint32]:
        """Object numbers (height, width): all objects are object 1."""
        return _one_object(self.read(window), self.classes)


@dataclass(frozen=True, eq=False)
class _ClassValues(Derived):
    """The class values of a label raster as the source of a raster."""

    labels: RasterLabels

    def read(
        self,
        window: Window,
        bands: Sequence[int] | None,  # noqa: ARG002 there is one
        nodata: Nodata,  # noqa: ARG002 belongs to the labels, which apply their own
        shape: tuple[int, int],
    ) -> tuple[Pixels, Valid]:
        assert shape == window.shape, "labels are never decimated"
        values = self.labels.read(window)
        return values[None], values != self.labels.classes.ignore

    def may_hold_valid(
        self,
        window: Window,  # noqa: ARG002 nodata may be a class
        bands: Sequence[int] | None,  # noqa: ARG002 as in `read`
        nodata: Nodata,  # noqa: ARG002 as in `read`
    ) -> bool:
        return True


def located_labels(path: str, image: Raster, spec: SceneSpec) -> Raster:
    """A label raster with the CRS of its file, or without one on the grid of the image files.

    Raises:
        LabelError, GridError: as `LabelRaster.open`.
    """
    files = image.grid if spec.pixel_size is None else Raster.open(spec.image[:1], is_imagery=True).grid
    return open_located(path, image, files)


def _one_object(values: NDArray[np.uint8], classes: Classes) -> NDArray[np.uint32]:
    """1 where the class is another one than the background, else 0."""
    return ((values != classes.background) & (values != classes.ignore)).astype(np.uint32)


def has_colour_labels(classes: Classes) -> bool:
    """True if the labels of a class table are colours."""
    return any(map(is_colour, (*(entry.label for entry in classes), *classes.unknown)))


def _codes_of(classes: Classes, *, colours: bool) -> list[int]:
    """The codes of the labels of a class table."""
    labels = [entry.label for entry in classes]
    if colours:
        return [int(str(label)[1:], 16) for label in labels if is_colour(label)]
    return [label for label in labels if isinstance(label, int)]


def _label(code: int, *, colours: bool) -> Label:
    return f"#{code:06x}" if colours else code


def _is_chromatic(code: int) -> bool:
    """True for 0xRRGGBB with unequal parts."""
    return code != (code & 0xFF) * 0x010101


def _require_classes(path: str, shares: dict[int, tuple[float, float]]) -> None:
    """Raise LabelError if most values lie along edges only, as compression and blur leave them."""
    edges = [value for value, (_, same) in shares.items() if same < _EDGE]
    few = 2 if Path(path).suffix.lower() in _LOSSY else _FEW_VALUES
    if len(shares) <= few or 2 * len(edges) <= len(shares):
        return
    common = sorted(shares, key=lambda value: -shares[value][0])[:_FEW_VALUES]
    most = ", ".join(f"{value}: {shares[value][0]:.2%}" for value in common)
    raise LabelError(
        f"{path} holds {len(shares)} values, {len(edges)} of which lie along edges only ({most}, …): it was compressed "
        f"(JPEG) or blurred. Expected class values. Pass --label-threshold {(min(common) + max(common)) / 2:.0f} for "
        "two classes, or take the masks as they were before (PNG, TIFF)."
    )


def _middle(numbers: NDArray[Any]) -> float:
    return float(numbers.min() + numbers.max()) / 2
