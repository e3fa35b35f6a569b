"""Classes: the only place where the values in files become the indices of a network, and back.

A *value* stands in masks and maps (0 to 254), an *index* numbers the network's outputs (0 to K-1), a
*name* is for people, and a *label* is what the labels themselves hold (a word in a column, or any number
in a label raster).
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from landscribe.errors import ClassError

IGNORE = 255
"""In masks (as a value) and in what a loss sees (as an index): not known, not counted, not learned from."""

BACKGROUND = "background"
"""Name and label of the class that fills what no polygon covers."""

Label = int | str

# Okabe & Ito 2008, "Color Universal Design": told apart with every common colour vision; then darker tones.
_COLOURS = (
    "#d55e00", "#0072b2", "#009e73", "#e69f00", "#56b4e9", "#cc79a7", "#f0e442", "#7f3b08",
    "#1b4f72", "#145a32", "#7d6608", "#512e5f", "#a04000", "#117864", "#5b2c6f", "#616a6b",
)  # fmt: skip


def default_colour(place: int, *, background: bool) -> str:
    """The colour "#rrggbb" of the class at `place` of a table; background is grey."""
    return "#d9d9d9" if background else _COLOURS[place % len(_COLOURS)]


def rgb(colour: str) -> tuple[int, int, int]:
    """(red, green, blue), 0 to 255, of "#rrggbb"."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


@dataclass(frozen=True, slots=True)
class ClassEntry:
    """One row of the class table."""

    value: int
    """In masks and maps, 0 to 254."""
    name: str
    colour: str
    """"#rrggbb"."""
    label: Label
    """What the labels hold for this class."""


@dataclass(frozen=True)
class Classes:
    """An ordered class table. The order gives the indices, and the burn order: later rows lie on top."""

    entries: tuple[ClassEntry, ...]
    ignore: int = IGNORE
    """The value of pixels whose class is not known."""
    unknown: tuple[Label, ...] = ()
    """What the labels hold where the class is not known."""

    def __post_init__(self) -> None:
        if not self.entries:
            raise ClassError("the class table is empty. At least one class was expected.")
        both = [label for label in self.unknown if str(label) in {str(entry.label) for entry in self.entries}]
        if both:
            raise ClassError(f"label {both[0]!r} stands for a class and for what is not known. Choose one.")
        for what in ("value", "name", "label"):
            # As text: a label 1 and a label "1" match the same features.
            counts = Counter(str(getattr(entry, what)) for entry in self.entries)
            twice = [f"'{item}'" for item, count in counts.items() if count > 1]
            if twice:
                raise ClassError(f"class {what} {', '.join(twice)} stands twice in the class table. Make each unique.")
        for entry in self.entries:
            if not 0 <= entry.value <= 254:
                raise ClassError(
                    f"class '{entry.name}' has value {entry.value}. Values from 0 to 254 were expected (255 is "
                    f"ignore). Give it a small value, and label = {entry.value} to match the labels."
                )
            if not re.fullmatch("#[0-9a-fA-F]{6}", entry.colour):
                raise ClassError(f"class '{entry.name}' has colour '{entry.colour}'. '#rrggbb' was expected.")

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[ClassEntry]:
        return iter(self.entries)

    @property
    def names(self) -> tuple[str, ...]:
        """By index."""
        return tuple(entry.name for entry in self.entries)

    @property
    def values(self) -> tuple[int, ...]:
        """By index."""
        return tuple(entry.value for entry in self.entries)

    def to_indices(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Values to indices; ignore stays 255.

        Raises:
            ClassError: a value that is neither in the table nor the ignore value.
        """
        table = np.full(256, 254, np.uint8)
        table[list(self.values)] = np.arange(len(self), dtype=np.uint8)
        table[self.ignore] = IGNORE
        known = np.zeros(256, bool)
        known[[*self.values, self.ignore]] = True
        if not known[mask].all():
            values, counts = np.unique(mask[~known[mask]], return_counts=True)
            self.refuse_unknown(dict(zip(values.tolist(), counts.tolist(), strict=True)), "the mask")
        return table[mask]

    def to_values(self, indices: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Indices to values; 255 becomes ignore. Law: `to_indices(to_values(i)) == i`."""
        table = np.full(256, self.ignore, np.uint8)
        table[: len(self)] = self.values
        return table[indices]

    def value_of(
        self, labels: Sequence[Label], where: str, counts: Mapping[Label, int] | None = None
    ) -> NDArray[np.uint8]:
        """The value of each label.

        Args:
            labels: what the labels hold.
            where: file and column, for the error line.
            counts: how often each occurs, for the error line; as often as in `labels` if left out.

        Raises:
            ClassError: a label that is not in the table.
        """
        by_label = {str(label): self.ignore for label in self.unknown}
        by_label |= {str(entry.label): entry.value for entry in self.entries}
        occurring = Counter(labels) if counts is None else counts
        unknown = {label: count for label, count in occurring.items() if str(label) not in by_label}
        if unknown:
            self.refuse_unknown(unknown, where)
        return np.array([by_label[str(label)] for label in labels], np.uint8)

    def refuse_unknown(self, counts: dict[Label, int], where: str) -> None:
        """Raise ClassError, naming what is not in the table and how often it occurs."""
        found = ", ".join(f"{label!r} ({count})" for label, count in list(counts.items())[:6])
        known = ", ".join(repr(label) for label in (*(entry.label for entry in self.entries), *self.unknown))
        raise ClassError(
            f"{where} holds {found}, not in the class table. Expected {known} (ignore: {self.ignore}). "
            "Add the missing classes to the table, or correct the labels."
        )

    def by_value(self) -> "Classes":
        """The same table for references that hold numbers: classes whose label is a word are met by their value."""
        rows = (replace(row, label=row.value) if isinstance(row.label, str) else row for row in self.entries)
        return Classes(tuple(rows), self.ignore, self.unknown)

    @property
    def background(self) -> int:
        """The value of pixels outside all polygons: 0 if the table has it, else ignore (not known)."""
        return 0 if 0 in self.values else self.ignore

    @property
    def foreground(self) -> tuple[ClassEntry, ...]:
        """All but the background."""
        return tuple(entry for entry in self.entries if entry.value != self.background)

    @classmethod
    def from_labels(cls, labels: Sequence[Label], *, background: bool) -> "Classes":
        """A table for the distinct `labels`, in sorted order, whatever order they come in.

        Whole numbers from 0 to 254 are kept as values; anything else is numbered from 1.

        Args:
            labels: words or numbers, not both.
            background: add a class "background" with value 0 unless a label has it already.

        Raises:
            ClassError: more labels than a mask has values.
        """
        distinct = sorted(set(labels), key=lambda label: (isinstance(label, str), label))
        if all(isinstance(label, int) and 0 <= label <= 254 for label in distinct):
            values = [int(label) for label in distinct]
        elif len(distinct) > 254:
            some = ", ".join(repr(label) for label in distinct[:4])
            raise ClassError(
                f"the labels hold {len(distinct)} different values ({some}, …). At most 254 classes fit into a mask. "
                "Name the column that holds the class (label_field), or write a class table."
            )
        else:
            others = (label for label in distinct if label != BACKGROUND)
            number = {BACKGROUND: 0} | {label: place for place, label in enumerate(others, 1)}
            values = [number[label] for label in distinct]
        rows: list[tuple[int, Label]] = sorted(zip(values, distinct, strict=True), key=lambda row: row[0])
        if background and 0 not in values:
            rows.insert(0, (0, BACKGROUND))
        entries = [
            ClassEntry(value, str(label), default_colour(place, background=value == 0), label)
            for place, (value, label) in enumerate(rows)
        ]
        return cls(tuple(entries))
