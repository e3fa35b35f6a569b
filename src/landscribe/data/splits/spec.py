"""The settings of the split. Loads pydantic only, so that a command's help needs no GDAL."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from landscribe.data.scenes.spec import SplitName
from landscribe.spec import Flag, FractionText, InputPath, Pixels, Spec, TextMark


class SplitSpec(Spec):
    """How chips are split into training, validation and test chips."""

    by: Annotated[Literal["auto", "block", "scene", "group", "attribute", "list"], Flag("--split-by")] = "auto"
    """Groups of chips that share a split. block: spatial blocks, of each scene or of scenes near each other
    together; scene: whole scenes; group: all scenes of a region, by the group that each names; attribute: areas of
    polygons, by a column; list: the scenes or chips in text files. auto is block, or scene for scenes too small for
    blocks."""
    val: Annotated[float, FractionText, TextMark()] = Field(0.15, ge=0, lt=1)
    """Validation fraction. The best epoch is chosen on the validation chips."""
    test: Annotated[float, FractionText, TextMark()] = Field(0.15, ge=0, lt=1)
    """Test fraction. The map is assessed on the test chips, and nothing is chosen on them."""
    gap: Pixels | None = None
    """Buffer between chips of different splits in pixels. Chips nearer than that are not used, so even a small gap
    costs whole rows of chips. Default: a quarter of a chip; between whole scenes, none."""
    block: Pixels | None = None
    """Side of the blocks in pixels. Default: from the size of the scene."""
    attribute: Annotated[str | None, Flag("--split-attribute")] = None
    """Column of the label polygons with train, val, test, or the name of a group. For --split-by attribute."""
    train_list: InputPath | None = None
    """Text file of training scenes or chips, one per line. For --split-by list; those in no list are not used. SCENE_N
    is chip N of a scene, counted from 0 row by row. The partial chips at its right and bottom edges count too, but are
    not cut: set edge to drop, and size to that of the list."""
    val_list: InputPath | None = None
    """Text file of validation scenes or chips."""
    test_list: InputPath | None = None
    """Text file of test scenes or chips."""

    @property
    def lists(self) -> dict[SplitName, str]:
        """The given lists by split."""
        given: dict[SplitName, str | None] = {"train": self.train_list, "val": self.val_list, "test": self.test_list}
        return {split: path for split, path in given.items() if path is not None}

    @model_validator(mode="after")
    def _require_training_share(self) -> Self:
        if self.val + self.test >= 1:
            raise ValueError(f"val {self.val:g} and test {self.test:g} leave nothing to train on; lower them")
        return self

    @model_validator(mode="after")
    def _require_what_by_needs(self) -> Self:
        if self.by == "attribute" and self.attribute is None:
            raise ValueError("by is attribute, but there is no attribute; name the polygons' column")
        if self.attribute is not None and self.by != "attribute":
            raise ValueError(
                f"attribute is '{self.attribute}', but by is {self.by}; set by = attribute (--split-by attribute)"
            )
        if self.by == "list" and self.train_list is None:
            raise ValueError("by is list, but there is no train_list; name the scenes to train on")
        if self.lists and self.by != "list":
            names = " and ".join(f"{split}_list" for split in self.lists)
            raise ValueError(f"{names} is given, but by is {self.by}; set by = list (--split-by list)")
        return self


def default_gap(size: int) -> int:
    """The gap in pixels between chips of `size` pixels where `SplitSpec.gap` states none."""
    return max(1, size // 4)
