"""Fingerprint: the inputs and settings that decide a result. Two results are the same if their fingerprints are.

A fingerprint lies as JSON in the folder of unfinished work, so that the same command resumes it, and any other command
is refused with the names of the fields that differ.
"""

import hashlib
import json
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from landscribe.errors import LONGEST_VALUE, shortened
from landscribe.outputs import write_text

_SHARED = 20
"""Characters before the first that differs in two long values."""
_MOST = 3
"""Fields in a message; of more only the number is given."""


_NOT_SET = "not set"


def value_text(value: Any) -> str:
    """A field's value for a message: JSON without quotes."""
    return _NOT_SET if value is None else json.dumps(value).replace('"', "")


@dataclass(frozen=True)
class Fingerprint:
    """Fields by name, frozen as JSON."""

    text: str

    @classmethod
    def of(cls, fields: dict[str, Any]) -> "Fingerprint":
        """From values that JSON can hold."""
        return cls(json.dumps(fields, indent=1, sort_keys=True) + "\n")

    @property
    def fields(self) -> dict[str, Any]:
        """Values by name, in JSON's types."""
        fields: dict[str, Any] = json.loads(self.text)
        return fields

    @property
    def sha256(self) -> str:
        """Hash of all fields."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def is_in(self, path: Path) -> bool:
        """True if the file holds this very fingerprint."""
        return path.exists() and path.read_text(encoding="utf-8") == self.text

    def claim(self, path: Path) -> bool:
        """Write the fingerprint to `path`, unless another process comes first.

        Returns:
            True if the file holds this fingerprint afterwards.
        """
        temporary = path.with_name(f".{uuid.uuid4().hex[:8]}.{path.name}")
        write_text(temporary, self.text)
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
        except OSError:  # a file system without links
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        return self.is_in(path)

    def differences(
        self,
        other: dict[str, Any],
        describe: Callable[[str, Any], str] = lambda _, value: value_text(value),
    ) -> str:
        """Names and both values of the fields that differ; empty if none does, or if `other` is empty.

        Args:
            other: the fields of an earlier result.
            describe: from a field's name and value to text.

        >>> Fingerprint.of({"train": {"batch": 4, "steps": 9}}).differences({"train": {"batch": 1, "steps": 9}})
        'train.batch (1, now 4)'
        """
        before, now = _flat(other), _flat(self.fields)
        for key in [*now]:
            _flatten_tables(before, now, key)
        keys = [key for key in dict.fromkeys((*now, *before)) if other and _dump(before, key) != _dump(now, key)]
        pairs = (
            [describe(key, fields[key]) if key in fields else _NOT_SET for fields in (before, now)] for key in keys
        )
        texts = [f"{key} ({_change(*pair)})" for key, pair in zip(keys, pairs, strict=True)]
        if len(texts) > _MOST:
            texts[_MOST:] = [f"{len(texts) - _MOST} more"]
        return " and ".join(filter(None, (", ".join(texts[:-1]), *texts[-1:])))

    def other_than(self, other: dict[str, Any], texts: dict[str, str]) -> str:
        """What differs from an earlier result, to follow words such as "trained with"; empty if nothing does.

        Args:
            other: the fields of the earlier result.
            texts: for fields whose values say nothing to people, such as hashes. Only the first that differs is named:
                it changes the others.

        >>> now = Fingerprint.of({"chips": "ab", "table": "12", "seed": 0})
        >>> now.other_than({"chips": "cd", "table": "34", "seed": 7}, {"chips": "other chips", "table": "other splits"})
        'other chips and another seed (7, now 0)'
        """
        named = [text for key, text in texts.items() if other and other.get(key) != self.fields.get(key)][:1]
        before, now = ({key: fields[key] for key in fields if key not in texts} for fields in (other, self.fields))
        values = Fingerprint.of(now).differences(before)
        return " and ".join([*named, *([f"another {values}"] if values else [])])


def unlike(fields: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    """The fields that differ from others, None for one that is missing; with the others, they determine all fields.

    >>> unlike({"nodata": 0, "bands": 3}, {"nodata": None, "bands": 3, "unit": "m"})
    {'nodata': 0, 'unit': None}
    """
    keys = dict.fromkeys((*fields, *others))
    return {key: fields.get(key) for key in keys if fields.get(key) != others.get(key)}


def read_fingerprint(path: Path) -> dict[str, Any]:
    """The fields in a file; empty if there is none, or if it is damaged."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _flat(fields: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by dotted name.

    >>> _flat({"seed": 0, "train": {"batch": 4}})
    {'seed': 0, 'train.batch': 4}
    """
    flat: dict[str, Any] = {}
    for key, value in fields.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return flat


def _flatten_tables(before: dict[str, Any], now: dict[str, Any], key: str) -> None:
    """Replace a list of tables that differs by the fields of its tables, such as scenes.0.labels.

    Of lists of different lengths, the lengths are the difference.
    """
    old, new = before.get(key), now[key]
    if not isinstance(old, list) or not isinstance(new, list) or _dump(before, key) == _dump(now, key):
        return
    if not any(isinstance(part, dict) for part in (*old, *new)):
        return
    if len(old) != len(new):
        before[key], now[key] = len(old), len(new)
        return
    for fields, parts in ((before, old), (now, new)):
        del fields[key]
        fields.update(_flat({str(index): part for index, part in enumerate(parts)}, f"{key}."))


def _dump(fields: dict[str, Any], key: str) -> str:
    """A value as JSON, in which NaN equals itself; empty if there is none."""
    return json.dumps(fields[key], sort_keys=True) if key in fields else ""


def _change(before: str, now: str) -> str:
    if max(len(before), len(now)) > LONGEST_VALUE:
        # What both begin with, as folders of paths do, would hide the difference.
        pairs = enumerate(zip(before, now, strict=False))
        start = max(0, next((index for index, (old, new) in pairs if old != new), 0) - _SHARED)
        before, now = (shortened(f"…{text[start:]}" if start else text) for text in (before, now))
    return f"{before}, now {now}" if before != now else f"{before}, changed since"
