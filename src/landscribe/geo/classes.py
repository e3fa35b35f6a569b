"""Classes: the one conversion between the values in files and the indices of a network.

A *value* is a class in masks and maps (0 to 254), an *index* numbers the network's outputs (0 to K-1), a *name* is for
people, and a *label* is a class in the user's labels (a word in a column, or any number in a label raster).
"""

import csv
import io
import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from landscribe.errors import ClassError, is_printable, listed
from landscribe.geo.access import csv_separator, read_utf8
from landscribe.spec import StoredName
from landscribe.texts import is_colour

log = logging.getLogger(__name__)

IGNORE = 255
"""Value and index of unlabelled pixels: losses and measures leave them out."""

BACKGROUND = "background"
"""Name and label of the class of pixels outside all polygons."""

Label = int | str

_INT64 = range(-(2**63), 2**63)
_BATCH = 2**16
"""Numbers whose copy of 64 bits stays in the processor's cache."""

# Okabe & Ito 2008, "Color Universal Design": distinct in every common colour vision; then darker tones.
_COLOURS = (
    "#d55e00", "#0072b2", "#009e73", "#e69f00", "#56b4e9", "#cc79a7", "#f0e442", "#7f3b08",
    "#1b4f72", "#145a32", "#7d6608", "#512e5f", "#a04000", "#117864", "#5b2c6f", "#616a6b",
)  # fmt: skip


def default_colour(index: int, *, background: bool) -> str:
    """The colour "#rrggbb" of the class with this index; background is grey."""
    return "#d9d9d9" if background else _COLOURS[index % len(_COLOURS)]


def rgb(colour: str) -> tuple[int, int, int]:
    """(red, green, blue), 0 to 255, of "#rrggbb"."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def hex_colour(colour: Sequence[int]) -> str:
    """The text "#rrggbb" of (red, green, blue), clipped to 0 to 255. Law: `rgb(hex_colour(c)) == c`."""
    return "#" + "".join(f"{min(max(channel, 0), 255):02x}" for channel in colour)


def look_up(table: NDArray[Any], codes: NDArray[Any]) -> NDArray[Any]:
    """The entry of each code, in the shape of the codes.

    In batches: numpy takes unsigned integers as indices by a copy of 64 bits.

    Args:
        table: (n,) entries.
        codes: unsigned integers below n.

    >>> look_up(np.array([0, 10, 20]), np.array([[2, 0], [1, 1]], np.uint8))
    array([[20,  0],
           [10, 10]])
    """
    entries, flat = np.empty(codes.size, table.dtype), codes.reshape(-1)
    for start in range(0, codes.size, _BATCH):
        batch = slice(start, start + _BATCH)
        np.take(table, flat[batch], out=entries[batch], mode="clip")
    return entries.reshape(codes.shape)


def count_codes(codes: NDArray[Any]) -> NDArray[np.int64]:
    """How often each number of 8 or 16 unsigned bits occurs, by the number: (256,) or (65536,).

    >>> count_codes(np.array([3, 1, 3], np.uint8))[:5]
    array([0, 1, 0, 2, 0])
    """
    counts, flat = np.zeros(np.iinfo(codes.dtype).max + 1, np.int64), codes.reshape(-1)
    for start in range(0, codes.size, _BATCH):
        counts += np.bincount(flat[start : start + _BATCH], minlength=len(counts))
    return counts


def values_that_occur(parts: Iterable[NDArray[np.uint8]]) -> list[int]:
    """The class values in arrays, ascending; 255 is none."""
    counts = np.zeros(IGNORE + 1, np.int64)
    for part in parts:
        counts += count_codes(part)
    values: list[int] = np.flatnonzero(counts[:IGNORE]).tolist()
    return values


def distinct_codes(codes: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]:
    """The codes that may occur, the index of each element among them, and how often each occurs, which may be never."""
    if codes.dtype in (np.uint8, np.uint16):
        counts = count_codes(codes)
        return np.arange(len(counts)), codes, counts
    return np.unique(codes, return_inverse=True, return_counts=True)


_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]+(\.0*)?")


def label_key(label: Label) -> str:
    """What makes two labels the same class: accents may be composed, numbers written as words, colours in capitals.

    >>> label_key(7), label_key("7"), label_key("7.0"), label_key("07"), label_key(" wood"), label_key("-0")
    ('7', '7', '7', '7', 'wood', '0')
    """
    text = unicodedata.normalize("NFC", str(label)).strip()
    if is_colour(text):
        return text.lower()
    if not _WHOLE_NUMBER.fullmatch(text):
        return text
    # int() refuses numbers of thousands of digits.
    digits = text.partition(".")[0].lstrip("+-").lstrip("0") or "0"
    return f"-{digits}" if text.startswith("-") and digits != "0" else digits


def has_numbers(labels: Iterable[Label]) -> bool:
    """True if all labels are whole numbers, also those written as words."""
    return all(_WHOLE_NUMBER.fullmatch(key) for key in {label_key(label) for label in set(labels)})


def plain_labels(labels: Iterable[Label]) -> set[Label]:
    """The distinct labels: numbers if all are whole numbers, also those written as words; else as they are.

    >>> sorted(plain_labels(["10", "2", "1.0", 1]))
    [1, 2, 10]
    """
    distinct = {label_key(label): label for label in labels}
    if has_numbers(distinct):
        return {int(key) for key in distinct}
    return {label if isinstance(label, int) else unicodedata.normalize("NFC", label) for label in distinct.values()}


@dataclass(frozen=True, slots=True)
class ClassEntry:
    """One row of the class table."""

    value: int
    """Class value in masks and maps, 0 to 254."""
    name: StoredName
    colour: str
    """"#rrggbb"."""
    label: Label
    """The class in the user's labels."""


@dataclass(frozen=True)
class Classes:
    """An ordered class table. The order gives the indices, and the burn order: later rows lie on top.

    >>> classes = Classes.from_labels(["road", "house"], background=True)
    >>> classes.names, classes.values
    (('background', 'house', 'road'), (0, 1, 2))
    >>> classes.to_indices(np.array([[0, 2, 255]], np.uint8))
    array([[  0,   2, 255]], dtype=uint8)
    """

    entries: tuple[ClassEntry, ...]
    ignore: int = IGNORE
    """The value of unlabelled pixels."""
    unknown: tuple[Label, ...] = ()
    """Labels that mark unlabelled pixels."""

    def __post_init__(self) -> None:
        # Lists are taken, too.
        object.__setattr__(self, "entries", tuple(self.entries))
        object.__setattr__(self, "unknown", tuple(self.unknown))
        if not self.entries:
            raise ClassError("the class table is empty. Expected at least one class.")
        keys = {label_key(entry.label) for entry in self.entries}
        ambiguous = [label for label in self.unknown if label_key(label) in keys]
        if ambiguous:
            raise ClassError(
                f"label {ambiguous[0]!r} marks both a class and unlabelled pixels. Use it for one of them."
            )
        for column in ("value", "name", "label"):
            # A label 1 and a label "1" match the same features.
            counts = Counter(label_key(getattr(entry, column)) for entry in self.entries)
            twice = [f"'{item}'" for item, count in counts.items() if count > 1]
            if twice:
                raise ClassError(
                    f"class {column} {', '.join(twice)} occurs twice in the class table. Expected unique ones."
                )
        for entry in self.entries:
            if not is_printable(entry.name):
                raise ClassError(
                    f"class '{entry.name}' has a control character in its name. Expected text that files can hold. "
                    "Correct the label, or give the class another name in the class table (classes of a recipe)."
                )
            if not 0 <= entry.value <= 254:
                raise ClassError(
                    f"class '{entry.name}' has value {entry.value}. Expected a value from 0 to 254 (255 is ignore). "
                    f"Give it a smaller value, and label = {entry.value} to match the labels."
                )
            if not is_colour(entry.colour):
                raise ClassError(f"class '{entry.name}' has colour '{entry.colour}'. Expected '#rrggbb'.")

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[ClassEntry]:
        return iter(self.entries)

    @property
    def names(self) -> tuple[str, ...]:
        """Class names by index."""
        return tuple(entry.name for entry in self.entries)

    @property
    def values(self) -> tuple[int, ...]:
        """Class values by index."""
        return tuple(entry.value for entry in self.entries)

    def to_indices(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Convert values to indices; ignore stays 255.

        Raises:
            ClassError: a value that is neither in the table nor the ignore value.
        """
        table = np.full(256, 254, np.uint8)
        table[list(self.values)] = np.arange(len(self), dtype=np.uint8)
        table[self.ignore] = IGNORE
        listed = np.zeros(256, bool)
        listed[[*self.values, self.ignore]] = True
        if not look_up(listed, mask).all():
            values, counts = np.unique(mask[~listed[mask]], return_counts=True)
            self._refuse_unlisted(dict(zip(values.tolist(), counts.tolist(), strict=True)), "the mask")
        return look_up(table, mask)

    def to_values(self, indices: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Convert indices to values; 255 becomes ignore. Law: `to_indices(to_values(i)) == i`."""
        table = np.full(256, self.ignore, np.uint8)
        table[: len(self)] = self.values
        return look_up(table, indices)

    def values_of(
        self, labels: Sequence[Label], where: str, counts: Mapping[Label, int] | None = None
    ) -> NDArray[np.uint8]:
        """The value of each label.

        Args:
            labels: of features, or the distinct ones of a label raster.
            where: file and column, for the message.
            counts: how often each label occurs, for the message; None to count them in `labels`.

        Raises:
            ClassError: a label that is not in the table.
        """
        by_label = {label_key(label): self.ignore for label in self.unknown}
        by_label |= {label_key(entry.label): entry.value for entry in self.entries}
        occurring = Counter(labels) if counts is None else counts
        keys = {label: label_key(label) for label in occurring}
        unlisted = {label: count for label, count in occurring.items() if keys[label] not in by_label}
        if unlisted:
            self._refuse_unlisted(unlisted, where)
        return np.array([by_label[keys[label]] for label in labels], np.uint8)

    def _refuse_unlisted(self, counts: dict[Label, int], where: str) -> None:
        """Raise ClassError with the labels that are not in the table and their counts."""
        unlisted = ", ".join(f"{label!r} ({count})" for label, count in list(counts.items())[:6])
        expected = ", ".join(repr(label) for label in (*(entry.label for entry in self.entries), *self.unknown))
        by_case = {label_key(entry.label).casefold(): entry.label for entry in self.entries}
        meant = {label: by_case.get(label_key(label).casefold()) for label in counts}
        questions = [f" Did you mean {own!r} for {label!r}?" for label, own in meant.items() if own is not None]
        error = ClassError(
            f"{where} holds {unlisted}, not in the class table. Expected {expected} (ignore: {self.ignore})."
            f"{questions[0] if questions else ''} Add the missing classes to the table; a label that "
            f"means unlabelled gets a row with value {IGNORE}. Or correct the labels."
        )
        error.labels = tuple(counts)
        raise error

    def with_numeric_labels(self) -> "Classes":
        """The same table for references that hold numbers: the value replaces a label that is a word.

        A word stays where its value is the number of another class.
        """
        numbers = {label_key(row.label) for row in self.entries if _WHOLE_NUMBER.fullmatch(label_key(row.label))}
        rows = (
            row if numbers & {label_key(row.label), str(row.value)} else replace(row, label=row.value)
            for row in self.entries
        )
        return Classes(tuple(rows), self.ignore, self.unknown)

    def with_named_labels(self) -> "Classes":
        """The same table for references that hold words: the name replaces a label that is a number.

        A number stays where the name is the label of another class.
        """
        keys = {label_key(row.label) for row in self.entries}
        rows = (
            row if not has_numbers([row.label]) or label_key(row.name) in keys else replace(row, label=row.name)
            for row in self.entries
        )
        return Classes(tuple(rows), self.ignore, self.unknown)

    @property
    def background(self) -> int:
        """The value of pixels outside all polygons: 0 if the table has it, else ignore (unlabelled)."""
        return 0 if 0 in self.values else self.ignore

    @property
    def foreground(self) -> tuple[ClassEntry, ...]:
        """All classes but the background."""
        return tuple(entry for entry in self.entries if entry.value != self.background)

    @classmethod
    def read(cls, path: str) -> "Classes":
        """The class table in a CSV file, see `read_class_table`; labels are the values, unless it has some.

        A row of value 255 has a label that marks unlabelled pixels.

        Raises:
            ClassError: it cannot be read, or is no class table.
        """
        rows = [
            ClassEntry(
                row.value,
                row.name,
                row.colour or default_colour(index, background=row.value == 0),
                row.value if row.label is None else row.label,
            )
            for index, row in enumerate(read_class_table(path))
        ]
        unknown = tuple(row.label for row in rows if row.value == IGNORE)
        try:
            return cls(tuple(row for row in rows if row.value != IGNORE), unknown=unknown)
        except ClassError as error:
            raise ClassError(f"{path}: {error}") from error

    @classmethod
    def from_labels(cls, labels: Sequence[Label], *, background: bool, zero_is_background: bool = True) -> "Classes":
        """A class table of the distinct labels, sorted, whatever their order.

        Whole numbers from 0 to 254 become the values; other labels are numbered from 1, and 0 is kept.

        Args:
            labels: words or numbers, not both.
            background: add a class "background" with value 0 unless a label has it already.
            zero_is_background: label 0 is the background; False if it is a class beside the background, which gets
                another value.

        Raises:
            ClassError: more labels than a mask has values.
        """
        distinct = sorted(plain_labels(labels), key=lambda label: (isinstance(label, str), label))
        lowest = 1 if background and not zero_is_background else 0
        if all(isinstance(label, int) and lowest <= label <= 254 for label in distinct):
            values = [int(label) for label in distinct]
        elif len(distinct) > 254:
            examples = ", ".join(repr(label) for label in distinct[:4])
            raise ClassError(
                f"the labels hold {len(distinct)} different values ({examples}, …). Expected at most 254 classes. "
                "Name the column that holds the class (label_field), or write a class table."
            )
        else:
            at_0 = {BACKGROUND, 0} if zero_is_background else {BACKGROUND}
            foreground = (label for label in distinct if label not in at_0)
            value_of = dict.fromkeys(at_0, 0) | {label: value for value, label in enumerate(foreground, 1)}
            values = [value_of[label] for label in distinct]
            _log_renumbered({label: value for label, value in value_of.items() if value and isinstance(label, int)})
        rows: list[tuple[int, Label]] = sorted(zip(values, distinct, strict=True), key=lambda row: row[0])
        if background and 0 not in values:
            rows.insert(0, (0, BACKGROUND))
        entries = [
            ClassEntry(value, str(label), default_colour(index, background=value == 0), label)
            for index, (value, label) in enumerate(rows)
        ]
        return cls(tuple(entries))


def _log_renumbered(values: Mapping[int, int]) -> None:
    """Log the values of labels that are numbers, but not their own values."""
    if values:
        pairs = listed((f"{label} has value {value}" for label, value in values.items()), most=8)
        log.info("labels are not all from 0 to 254: %s", pairs)


class TableRow(NamedTuple):
    """A row of a class table in a file."""

    value: int
    name: str
    colour: str | None
    """"#rrggbb"; None if it has none."""
    label: Label | None
    """The class in the user's labels; None if it has none."""


def read_class_table(path: str) -> list[TableRow]:
    """The rows of a CSV file with the columns value and name and, if there are any, colour and label.

    Commas, semicolons or tabs lie between the columns.

    Raises:
        ClassError: it cannot be read, lacks a column, or holds no whole number as a value or no "#rrggbb" as a colour.
    """
    text = read_utf8(path, "a class table (CSV)", ClassError)
    try:
        rows = list(csv.DictReader(io.StringIO(text), delimiter=csv_separator(text)))
    except csv.Error as error:
        raise ClassError(
            f"{path} cannot be read as CSV: {error}. Expected the columns value, name and colour."
        ) from error
    if not rows or not {"value", "name"} <= rows[0].keys():
        found = f"the columns {', '.join(filter(None, rows[0]))}" if rows else "no row"
        raise ClassError(f"{path} has {found}. Expected the columns value and name, and maybe colour and label.")
    return [_table_row(row, f"{path}, row {index}") for index, row in enumerate(rows, 1)]


def _table_row(row: Mapping[str, Any], where: str) -> TableRow:
    value, name, colour, label = (str(row.get(key) or "").strip() for key in ("value", "name", "colour", "label"))
    try:
        number = int(value)
    except ValueError:
        raise ClassError(f"{where}: value '{value}'. Expected a whole number.") from None
    if number not in _INT64:
        raise ClassError(f"{where}: value {value}. Expected a number from -2^63 to 2^63 - 1.")
    if colour and not is_colour(colour):
        raise ClassError(f"{where}: colour '{colour}'. Expected #rrggbb.")
    is_number = re.fullmatch("[+-]?[0-9]+", label) is not None
    return TableRow(number, name or value, colour or None, int(label) if is_number else label or None)
