"""WindowReader: windows at any position of the ground of chips, from the scenes or from the files of neighbours."""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscribe.data.chips.chips import ChipReader, Chips
from landscribe.data.chips.files import dense_numbers
from landscribe.data.scenes.scene import Sample, Scene
from landscribe.geo.classes import IGNORE
from landscribe.geo.grid import Window

Slices = tuple[slice, slice]
"""Rows and columns."""


def decoded_bytes(chips: Chips) -> int:
    """Bytes of all chips in memory: pixels, valid, mask, and the object numbers of chips and of their scenes."""
    metadata = chips.metadata
    bytes_per_pixel = len(metadata.bands) * np.dtype(metadata.dtype).itemsize + 2 + 8 * chips.has_objects
    return len(chips) * metadata.size**2 * bytes_per_pixel


class WindowReader:
    """Reads chips, and windows of their ground. Can be pickled.

    Windows are composed of chips that have files, or are kept in memory: the scenes may be gone. Windows of other
    virtual chips, and object numbers, which in files end at the edge of a chip, are read from the scenes.

    Law: a window that chips cover has the pixels and labels that it has in the scene (but for JPEG's losses).
    """

    def __init__(self, chips: Chips, *, kept_bytes: int = 0) -> None:
        """A reader of the windows of chips.

        Args:
            chips: of the ground.
            kept_bytes: decoded chips are kept in memory if all of them need at most this.
        """
        self.chips = chips
        self.windows = chips.windows
        self.reader = ChipReader(chips)
        self.keeps = decoded_bytes(chips) <= kept_bytes
        self._kept: dict[int, Sample] = {}
        self._kept_objects: dict[int, NDArray[Any]] = {}
        self._kept_numbers: dict[int, NDArray[np.uint32]] = {}

    def read(self, index: int, row: int, col: int) -> Sample:
        """A window of a chip's shape at (row, col) of its scene; the caller may change the arrays."""
        window = Window(row, col, *self.windows[index].shape)
        if window == self.windows[index]:
            pixels, valid, mask = self._chip(index)
            return Sample(pixels.copy(), valid.copy(), mask.copy()) if self.keeps else Sample(pixels, valid, mask)
        if self.chips.metadata.virtual and not self.keeps:
            return self._scene_of(index).read(window)
        return self._composed(index, window)

    def read_objects(self, index: int, row: int, col: int) -> NDArray[Any]:
        """The object numbers (height, width) of the window, 1 to the number of objects, 0 where there is none."""
        window = Window(row, col, *self.windows[index].shape)
        is_chip = window == self.windows[index]
        if not self.keeps:
            return self.reader.read_objects(index) if is_chip else dense_numbers(self._numbers(index, window))
        if not is_chip:
            return self._composed_objects(index, window)
        if index not in self._kept_objects:
            self._kept_objects[index] = self.reader.read_objects(index)
        return self._kept_objects[index].copy()

    def _composed(self, index: int, window: Window) -> Sample:
        """The window, from the chips that it overlaps."""
        bands, (height, width) = len(self.chips.metadata.bands), window.shape
        pixels = np.zeros((bands, height, width), self.chips.metadata.dtype)
        valid, mask = np.zeros(window.shape, bool), np.full(window.shape, IGNORE, np.uint8)
        for number, source, target in self._parts(index, window):
            own = self._chip(number)
            pixels[:, *target] = own.pixels[:, *source]
            valid[target], mask[target] = own.valid[source], own.mask[source]
        return Sample(pixels, valid, mask)

    def _composed_objects(self, index: int, window: Window) -> NDArray[Any]:
        """The object numbers of the window, from those that the chips that it overlaps have in their scene."""
        numbers = np.zeros(window.shape, np.uint32)
        for number, source, target in self._parts(index, window):
            if number not in self._kept_numbers:
                self._kept_numbers[number] = self._numbers(number, self.windows[number])
            numbers[target] = self._kept_numbers[number][source]
        return dense_numbers(numbers)

    def _parts(self, index: int, window: Window) -> Iterator[tuple[int, Slices, Slices]]:
        """The chips that overlap the window of a chip's scene; the part in common, in chip and in window."""
        for number in self.chips.overlapping(self._scene_names[index], window).tolist():
            chip = self.windows[number]
            common = chip & window
            yield number, common.relative_to(chip).slices, common.relative_to(window).slices

    def _numbers(self, index: int, window: Window) -> NDArray[np.uint32]:
        return self._scene_of(index).read_objects(window)

    def _chip(self, index: int) -> Sample:
        if not self.keeps:
            return self.reader.read(index)
        if index not in self._kept:
            self._kept[index] = self.reader.read(index)
        return self._kept[index]

    def _scene_of(self, index: int) -> Scene:
        return self._scenes[self._scene_names[index]]

    @cached_property
    def _scenes(self) -> dict[str, Scene]:
        return self.reader.scenes or self.chips.scenes()

    @cached_property
    def _scene_names(self) -> list[str]:
        return self.chips.scene_names.tolist()
