"""Splits: what is trained on, and what is held out whole with a gap around it.

Neighbouring pixels resemble each other, so pixels that touch training pixels say little about a map of new
ground (Roberts et al. 2017, "Cross-validation strategies for data with temporal, spatial, hierarchical, or
phylogenetic structure", Ecography 40, doi:10.1111/ecog.02881). So chips are held out in *lots*: blocks of a scene,
whole scenes, or the ground of polygons that belong together.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from landscribe.data.splits.groups import Lots, Split, hold_out, one_lot_each
from landscribe.data.splits.overlap import meeting, on_shared_ground
from landscribe.data.splits.spec import SplitSpec
from landscribe.errors import ChipError
from landscribe.geo.classes import Classes
from landscribe.geo.features import Features
from landscribe.geo.grid import Grid, Window

log = logging.getLogger(__name__)

# Few blocks make few ways to hold out; many make long borders, along which chips are lost to the gap.
BLOCKS_AIMED_AT = 12
_LEAST_KEPT_TO_TRAIN = 0.55
# One for each split.
_FEWEST_SCENES = 3


@dataclass(frozen=True)
class ScenePart:
    """What the split of one scene is decided on."""

    windows: Sequence[Window]
    """Of its chips."""
    counts: NDArray[np.int64]
    """(chips, classes) labelled pixels."""
    name: str = ""
    grid: Grid | None = None
    """That the windows are of."""
    split: Split | None = None
    """Of the whole scene, where it was told."""
    areas: Features | None = None
    """Polygons in the grid's CRS whose labels are splits, or groups that are drawn whole."""


def split_scenes(parts: Sequence[ScenePart], spec: SplitSpec, *, size: int, seed: int) -> list[list[Split]]:
    """Assign the chips of all scenes to splits, as `spec.by` says. A scene whose split was told keeps it.

    Args:
        parts: one for each scene.
        spec: what is held out, shares, gap.
        size: side of a chip in pixels.
        seed: the same seed gives the same splits.

    Returns:
        A split for each chip of each part; "gap" for a chip that is not used.

    Raises:
        ChipError: too few scenes or groups to hold any out.
    """
    if spec.by == "scene":
        return _split_whole_scenes(parts, spec, seed)
    if spec.by == "attribute":
        return _split_by_areas(parts, spec, size, seed)
    names = _split_blocks(parts, spec, size, seed)
    drawn = [number for number, part in enumerate(parts) if part.split is None and spec.by == "auto"]
    if not drawn or any({"val", "test"} & set(names[number]) for number in drawn):
        return names
    if len(set(_scenes_that_overlap(parts)[drawn].tolist())) >= _FEWEST_SCENES:
        log.info("whole scenes are held out, because each is too small to hold out a part of it")
        return _split_whole_scenes(parts, spec, seed)
    return names


def _split_blocks(parts: Sequence[ScenePart], spec: SplitSpec, size: int, seed: int) -> list[list[Split]]:
    """Draw blocks, scene by scene; where scenes touch or overlap, of the ground that they have in common."""
    names: list[list[Split]] = [[part.split or "train"] * len(part.windows) for part in parts]
    drawn = [number for number, part in enumerate(parts) if part.split is None and len(part.windows)]
    groups = meeting([parts[number].grid for number in drawn], reach=0.5)
    for group in np.unique(groups).tolist():
        numbers = [drawn[place] for place in np.flatnonzero(groups == group).tolist()]
        scenes, rng = [parts[number] for number in numbers], np.random.default_rng([seed, numbers[0]])
        if len(scenes) == 1:
            names[numbers[0]] = split_chips(scenes[0], spec, size=size, rng=rng)
            continue
        for number, splits in zip(numbers, _split_shared_ground(scenes, spec, size, rng), strict=True):
            names[number] = splits
    return names


def _split_shared_ground(
    scenes: Sequence[ScenePart], spec: SplitSpec, size: int, rng: np.random.Generator
) -> list[list[Split]]:
    """Draw blocks of the ground of scenes that meet, as of one scene."""
    windows = on_shared_ground([scene.grid for scene in scenes if scene.grid], [scene.windows for scene in scenes])
    ground = ScenePart(windows, np.concatenate([scene.counts for scene in scenes]))
    # Scenes may be smaller than chips, whose rest is no ground: then so are blocks, but the gap stays.
    side = min(size, max(max(window.shape) for window in windows))
    wanted = spec.model_copy(update={"gap": spec.gap or max(1, size // 4)})
    return _by_part(split_chips(ground, wanted, size=side, rng=rng), scenes)


def say_what_is_missing(
    names: Sequence[str], counts: NDArray[np.int64], classes: Classes, spec: SplitSpec, *, told: bool = False
) -> None:
    """Warn of splits that are wanted but have no chip, and of classes that a split lacks.

    Args:
        names: the split of each chip.
        counts: (chips, classes) labelled pixels.
        classes: their table.
        spec: what was asked for.
        told: the split of each scene was told, so that nothing was drawn.
    """
    held = {name: counts[np.array(names) == name].sum(axis=0) > 0 for name in ("train", "val", "test")}
    by_share = {name for name, share in (("val", spec.val), ("test", spec.test)) if share > 0}
    wanted = set(spec.lists) if spec.by == "list" else by_share
    for name in ("val", "test"):
        if name in wanted and name not in names and told:
            log.warning(
                "no scene is told to be of %s, so that nothing is held out for it. Tell one, if it is to.", name
            )
        elif name in wanted and name not in names:
            log.warning(
                "nothing is held out for %s: the scenes are too small or too few for it, or a class would be lost. Cut "
                "smaller chips, or give scenes of their own to it.",
                name,
            )
        if name in names and (without := _named(classes, held["train"] & ~held[name])):
            log.warning(
                "%s has no pixel of %s, so that their accuracy stays unknown there. Label more of them, try another "
                "seed or smaller blocks, or give a scene with them to it.",
                name,
                without,
            )
        if alone := _named(classes, held[name] & ~held["train"]):
            log.warning(
                "%s alone has pixels of %s, which cannot be learned. Give train a scene with them.", name, alone
            )


def _named(classes: Classes, wanted: NDArray[np.bool_]) -> str:
    return ", ".join(entry.name for entry, is_wanted in zip(classes, wanted.tolist(), strict=True) if is_wanted)


def split_chips(part: ScenePart, spec: SplitSpec, *, size: int, rng: np.random.Generator) -> list[Split]:
    """Assign the chips of one scene to splits by spatial block.

    Blocks are drawn as `hold_out` says. A scene so small that the gap would cost nearly half of what is to be trained
    on, or all of a class, holds out only val, or nothing.

    Args:
        part: windows and class counts of the chips.
        spec: shares, gap, block side.
        size: side of a chip in pixels.
        rng: what chance is drawn from.

    Returns:
        A split for each chip; "gap" for a chip that is too near to another split to be used. Laws: windows
        of two different splits are at least `spec.gap` pixels apart; no class is lost from train.
    """
    blocks = blocks_of(part.windows, spec.block or block_side(part.windows, size))
    near = near_pairs(part.windows, spec.gap or max(1, size // 4))
    lots = Lots(part.counts, one_lot_each(blocks), near, np.full(int(blocks.max()) + 1, "", dtype="<U5"))
    return hold_out(lots, spec.val, spec.test, rng, least=_LEAST_KEPT_TO_TRAIN * (1 - spec.val - spec.test))


def _split_whole_scenes(parts: Sequence[ScenePart], spec: SplitSpec, seed: int) -> list[list[Split]]:
    """Draw whole scenes; those that share ground are drawn together."""
    lot_of = _scenes_that_overlap(parts)
    told = np.full(int(lot_of.max()) + 1, "", dtype="<U5")
    for number, part in enumerate(parts):
        if part.split is not None:
            told[lot_of[number]] = part.split
    _require_enough_lots(told, spec, "scenes that do not overlap")
    of_chip = np.repeat(np.arange(len(parts)), [len(part.windows) for part in parts])
    counts = np.concatenate([part.counts for part in parts])
    lots = Lots(counts, one_lot_each(lot_of[of_chip]), np.zeros((0, 2), np.intp), told)
    drawn = _by_part(hold_out(lots, spec.val, spec.test, np.random.default_rng(seed)), parts)
    # Scenes of one lot may have been told different splits.
    return [[part.split] * len(part.windows) if part.split else names for part, names in zip(parts, drawn, strict=True)]


def _split_by_areas(parts: Sequence[ScenePart], spec: SplitSpec, size: int, seed: int) -> list[list[Split]]:
    """Chips belong to the polygons that they touch: to a split, or to a group that is drawn whole."""
    values = sorted({str(label) for part in parts if part.areas for label in part.areas.labels})
    # A scene whose split was told is a lot of its own.
    told = np.array([*(_split_named(value) for value in values), *(part.split or "" for part in parts)], dtype="<U5")
    members: list[NDArray[np.intp]] = []
    near: list[NDArray[np.intp]] = []
    first = 0
    for number, part in enumerate(parts):
        if part.split is not None:
            own = np.column_stack([np.arange(len(part.windows)), np.full(len(part.windows), len(values) + number)])
        else:
            own = _areas_touched(part, {value: lot for lot, value in enumerate(values)})
        members.append(np.column_stack([own[:, 0] + first, own[:, 1]]))
        near.append(near_pairs(part.windows, spec.gap or max(1, size // 4)) + first)
        first += len(part.windows)
    held = np.concatenate(members)
    in_use = np.unique(held[:, 1])
    if first > len(np.unique(held[:, 0])):
        log.info("%d of %d chips touch no polygon and are not used", first - len(np.unique(held[:, 0])), first)
    _require_enough_lots(told[in_use], spec, f"values of '{spec.attribute}' on the chips")
    held[:, 1] = np.searchsorted(in_use, held[:, 1])
    counts = np.concatenate([part.counts for part in parts])
    lots = Lots(counts, held, np.concatenate(near), told[in_use])
    return _by_part(hold_out(lots, spec.val, spec.test, np.random.default_rng(seed)), parts)


def _split_named(value: str) -> str:
    return value.lower() if value.lower() in ("train", "val", "test") else ""


def _areas_touched(part: ScenePart, lot_of: dict[str, int]) -> NDArray[np.intp]:
    """(n, 2) a chip's number and the lot of a polygon on it, each pair once."""
    assert part.areas is not None
    assert part.grid is not None
    if not len(part.windows):
        return np.zeros((0, 2), np.intp)
    # A polygon that only touches a chip's border has no pixel in it: boxes are a little smaller than their chips.
    corners = [(w.row + 0.01, w.col + 0.01, w.row_stop - 0.01, w.col_stop - 0.01) for w in part.windows]
    places = [(*part.grid.xy(top, left), *part.grid.xy(bottom, right)) for top, left, bottom, right in corners]
    chips, polygons = shapely.STRtree(part.areas.geometries).query(
        shapely.box(*np.array(places).T), predicate="intersects"
    )
    lots = np.array([lot_of[str(label)] for label in part.areas.labels], np.intp)
    return np.unique(np.column_stack([chips, lots[polygons]]), axis=0)


def _require_enough_lots(told: NDArray[np.str_], spec: SplitSpec, kind: str) -> None:
    """One lot at least for each split that is wanted and was not told; where all is told, nothing is drawn."""
    shares = {"train": 1.0, "val": spec.val, "test": spec.test}
    missing = [name for name, share in shares.items() if share > 0 and name not in told]
    drawn = int((told == "").sum())
    if 0 < drawn < len(missing):
        raise ChipError(
            f"there are {drawn} {kind} to draw {', '.join(missing)} from. At least {len(missing)} were expected, one "
            "for each. Hold out less (val = 0 or test = 0), or split by block."
        )


def _by_part(names: list[Split], parts: Sequence[ScenePart]) -> list[list[Split]]:
    """The names of all chips, part by part."""
    stops = np.cumsum([len(part.windows) for part in parts]).tolist()
    return [names[stop - len(part.windows) : stop] for part, stop in zip(parts, stops, strict=True)]


def _scenes_that_overlap(parts: Sequence[ScenePart]) -> NDArray[np.intp]:
    """Number of the lot of each scene: scenes that share ground, directly or by way of others, share a lot."""
    # Scenes that lie side by side may overlap by a hair: half a pixel is no common ground.
    return meeting([part.grid for part in parts], reach=-0.25)


def block_side(windows: Sequence[Window], size: int, blocks: int = BLOCKS_AIMED_AT) -> int:
    """The side that gives about as many blocks; whole chips, at least one."""
    height = max(window.row_stop for window in windows)
    width = max(window.col_stop for window in windows)
    return max(1, round((height * width / blocks) ** 0.5 / size)) * size


def blocks_of(windows: Sequence[Window], side: int) -> NDArray[np.intp]:
    """Number of the block of `side` pixels that each window's centre lies in, counting only blocks that have any."""
    places = [((w.row + w.height // 2) // side, (w.col + w.width // 2) // side) for w in windows]
    _, numbers = np.unique(np.array(places), axis=0, return_inverse=True)
    return numbers.reshape(-1)


def near_pairs(windows: Sequence[Window], gap: int) -> NDArray[np.intp]:
    """(n, 2) numbers of windows of one scene that are less than `gap` pixels apart; each pair in both orders."""
    if not len(windows):
        return np.zeros((0, 2), np.intp)
    boxes = shapely.box(*np.array([(w.col, w.row, w.col_stop, w.row_stop) for w in windows]).T)
    reach = shapely.box(*np.array([(w.col - gap, w.row - gap, w.col_stop + gap, w.row_stop + gap) for w in windows]).T)
    pairs = shapely.STRtree(boxes).query(reach).T
    # The tree also finds windows at exactly the gap's distance.
    return pairs[[a != b and windows[a].distance_to(windows[b]) < gap for a, b in pairs.tolist()]]
