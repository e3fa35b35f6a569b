"""Example: a data set of the lecture, in its publisher's layout, and the settings of its recipe."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from landscribe.errors import listed


@dataclass(frozen=True)
class Part:
    """Files of a data set, by the publisher's names."""

    pattern: str
    """Relative to the folder of the data set, such as "ky_topos/*.tif"."""
    content: str
    """What the files are."""
    partners: tuple[str, ...] = ()
    """Patterns of files that have the same stems, such as "ky_quads/*.shp"."""


@dataclass(frozen=True)
class Published:
    """A number that was published about the data set."""

    value: float
    source: str
    """Paper or page."""
    measure: str
    """Key of the assessment: of a class ("f1", "iou"), or of all classes ("mean_iou")."""
    class_name: str | None = None
    group: str | None = None
    """Group of scenes; all of them if None."""
    on_reference: bool = False
    """It compares with the independent reference of a run, not with its test chips."""

    @property
    def name(self) -> str:
        """What the number measures.

        >>> Published(0.902, "Maxwell et al. 2020", "f1", "mine", "Kentucky").name
        'F1 of mine, Kentucky'
        """
        of_class = "" if self.class_name is None else f" of {self.class_name}"
        measure = self.measure.replace("_", " ").replace("f1", "F1").replace("iou", "IoU")
        return f"{measure}{of_class}{'' if self.group is None else f', {self.group}'}"

    def measured(self, assessment: Mapping[str, Any]) -> float | None:
        """The same measure of an assessment (`Assessment.as_dict`); None if it has none."""
        measures = assessment if self.group is None else assessment.get("groups", {}).get(self.group, {})
        if self.class_name is None:
            return measures.get(self.measure)
        rows = (row for row in measures.get("classes", ()) if row["name"] == self.class_name)
        return next((row.get(self.measure) for row in rows), None)


@dataclass(frozen=True)
class Example:
    """A worked example of the lecture."""

    title: str
    parts: tuple[Part, ...]
    """Without any of them, the recipe cannot run."""
    settings: Callable[[Path], dict[str, Any]]
    """The folder of the data set to the settings of a recipe, whose paths are relative to that folder. It adds what is
    in the folder besides `parts`; the folder need not exist."""
    published: tuple[Published, ...]
    alternative: tuple[Part, ...] = ()
    """Parts of the same data in another form. They are read if the first of them is there and the first of `parts` is
    not."""

    def is_alternative(self, folder: Path) -> bool:
        """Whether a folder has the data in the other form."""
        forms = (self.parts, self.alternative)
        return [bool(form and _files(folder, form[0].pattern)) for form in forms] == [False, True]

    def missing(self, folder: Path) -> list[str]:
        """What the folder lacks, one line for each part: the part itself, or partners of its files."""
        if not folder.is_dir():
            return [f"{folder}, the folder of {self.title}, does not exist. Correct data in the recipe."]
        parts = self.alternative if self.is_alternative(folder) else self.parts
        return [line for part in parts for line in _missing(part, folder)]


def _missing(part: Part, folder: Path) -> list[str]:
    files = _files(folder, part.pattern)
    if not files:
        return [f"{folder} has no {part.pattern} ({part.content}). Expected the publisher's folders, unchanged."]
    return [line for partners in part.partners for line in _alone(part, files, folder, partners)]


def _alone(part: Part, files: Sequence[Path], folder: Path, partners: str) -> Iterator[str]:
    """One line for the files that no partner has the stem of."""
    stems = {file.stem for file in _files(folder, partners)}
    # A part that is missing as a whole has a line of its own.
    alone = [file.name for file in files if file.stem not in stems] if stems else []
    if alone:
        yield (
            f"{folder} has no {partners} of the same name for {listed(alone)} ({part.content}). Expected a partner for "
            "each. Add them, or name these files in without."
        )


def _files(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.glob(pattern))
