"""Splits: which chips train, choose the epoch (val) and assess (test), with a gap between them.

Pixels near training pixels resemble them, so accuracy measured there is too high for new areas (Roberts et al. 2017,
"Cross-validation strategies for data with temporal, spatial, hierarchical, or phylogenetic structure", Ecography 40,
doi:10.1111/ecog.02881). So chips are held out in *groups*: spatial blocks, whole scenes, or zones drawn as polygons.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from landscribe.data.splits.footprints import Footprints, in_common_grid, overlap_groups, pairs_within
from landscribe.data.splits.groups import Groups, Split, assign_splits, single_membership
from landscribe.data.splits.spec import SplitSpec, default_gap
from landscribe.errors import ChipError, counted, listed
from landscribe.geo.classes import Classes
from landscribe.geo.features import Features
from landscribe.geo.grid import Grid, Window

log = logging.getLogger(__name__)

# Fewer blocks leave fewer draws; more blocks have longer borders, along which chips are lost to the gap.
TARGET_BLOCKS = 12
_MIN_TRAIN = 0.55
# One for each split.
_FEWEST_SCENES = 3


@dataclass(frozen=True)
class SplitInput:
    """Input of the split of one scene."""

    windows: Sequence[Window]
    """Windows of the scene's chips."""
    counts: NDArray[np.int64]
    """(chips, classes) labelled pixels."""
    name: str = ""
    grid: Grid | None = None
    """Grid of the windows."""
    middle: Grid | None = None
    """The middle half of the ground that an image area leaves; None without an image area."""
    split: Split | None = None
    """Predefined split of the whole scene, if it has one."""
    group: str | None = None
    """Region that the scene belongs to."""
    chips: dict[tuple[int, int], Split] | None = None
    """Predefined splits of chips by row and col, if a list names chips of the scene; the other chips are not used."""
    zones: Features | None = None
    """Polygons in the grid's CRS; their labels are splits, or names of groups that are drawn."""


def split_scenes(scenes: Sequence[SplitInput], spec: SplitSpec, *, size: int, seed: int) -> list[list[Split]]:
    """Assign the chips of all scenes to splits, as `spec.by` says. Scenes with a predefined split keep it.

    Args:
        scenes: one input for each scene.
        spec: fractions, gap and the kind of group.
        size: side of a chip in pixels.
        seed: the same seed gives the same splits.

    Returns:
        A split for each chip of each scene; "gap" for a chip that is not used.

    Raises:
        ChipError: too few scenes or groups to hold any out.
    """
    if spec.by == "list":
        return [_listed(scene) for scene in scenes]
    if spec.by == "scene":
        return _split_whole_scenes(scenes, spec, seed)
    if spec.by == "group":
        return _split_by_group(scenes, spec, size, seed)
    if spec.by == "attribute":
        return _split_by_zones(scenes, spec, size, seed)
    return _split_blocks_or_scenes(scenes, spec, size, seed)


def _split_blocks_or_scenes(scenes: Sequence[SplitInput], spec: SplitSpec, size: int, seed: int) -> list[list[Split]]:
    """Draw blocks; if `spec.by` is auto, draw those scenes whole that are too small to hold out blocks."""
    areas = _areas(scenes, _gap(spec, size))
    splits = _split_blocks(scenes, areas, spec, size, seed)
    if spec.by == "auto":
        splits = _with_whole_scenes(splits, scenes, areas, spec, size, seed)
    return _apart_from_predefined(splits, scenes, _gap(spec, size))


def _with_whole_scenes(
    splits: list[list[Split]],
    scenes: Sequence[SplitInput],
    areas: list[list[int]],
    spec: SplitSpec,
    size: int,
    seed: int,
) -> list[list[Split]]:
    """The splits with small scenes drawn whole, if their blocks hold out none or are farther from the fractions."""
    requested = ["train", *(name for name, share in (("val", spec.val), ("test", spec.test)) if share > 0)]
    chips = np.array([sum(len(scenes[index].windows) for index in area) for area in areas], np.int64)
    held = [{name for index in area for name in splits[index]} for area in areas]
    is_divided = np.array([held_by_area.issuperset(requested) for held_by_area in held], bool)
    is_small = chips <= _most_chips_of_small(chips, is_divided)
    small = [index for area, is_one in zip(areas, is_small.tolist(), strict=True) if is_one for index in area]
    if len(set(_overlapping_scenes(scenes)[small].tolist())) < _FEWEST_SCENES:
        return splits
    by_block = np.concatenate([splits[index] for index in small])
    none_held_out = not {"val", "test"} & set(by_block.tolist())
    # Of scenes side by side that are a chip each, the gap would leave nearly none.
    whole_spec = spec if none_held_out else spec.model_copy(update={"gap": _gap(spec, size)})
    members = sorted([*small, *(index for index, scene in enumerate(scenes) if scene.split is not None)])
    drawn = _split_whole_scenes([scenes[index] for index in members], whole_spec, seed)
    whole = dict(zip(members, drawn, strict=True))
    by_scene = np.concatenate([whole[index] for index in small])
    if not none_held_out and _size_error(by_scene, spec) >= _size_error(by_block, spec):
        return splits
    divided = sum(len(area) for area, is_one in zip(areas, (is_small & is_divided).tolist(), strict=True) if is_one)
    log.info(
        "split by scene: %s of at most %s drawn whole, because blocks would divide %s of them into %s",
        counted(len(small), "scene"), counted(int(chips[is_small].max()), "chip"), divided or "none",
        ", ".join(requested),
    )  # fmt: skip
    return [whole.get(index, own) for index, own in enumerate(splits)]


def _most_chips_of_small(chips: NDArray[np.int64], is_divided: NDArray[np.bool_]) -> int:
    """The number of chips up to which areas are small: it separates those that blocks divide best from the others.

    Blocks are drawn by chance, and divide some of many areas of one size: areas of one size are all small, or none is.

    Args:
        chips: (areas,) number of chips.
        is_divided: (areas,) True if the blocks of an area are of all requested splits.

    Returns:
        0 if no area is small.
    """
    limits = np.unique(np.append(chips, 0))
    return int(min(limits, key=lambda limit: ((chips <= limit) == is_divided).sum()))


def _size_error(names: NDArray[np.str_], spec: SplitSpec) -> float:
    """How far the shares of the splits are from the requested fractions."""
    fractions = {"train": 1 - spec.val - spec.test, "val": spec.val, "test": spec.test}
    return sum(abs(float((names == name).mean()) - fraction) for name, fraction in fractions.items())


def _areas(scenes: Sequence[SplitInput], distance: int) -> list[list[int]]:
    """Indices of the scenes whose split is drawn; those less than `distance` pixels apart are one area."""
    drawn = np.array([index for index, scene in enumerate(scenes) if scene.split is None and scene.windows], np.intp)
    groups = overlap_groups([scenes[index].grid for index in drawn.tolist()], buffer_px=max(0.5, distance / 2))
    return [drawn[groups == group].tolist() for group in np.unique(groups).tolist()]


def _gap(spec: SplitSpec, size: int) -> int:
    """The minimum distance in pixels between chips of different splits."""
    return spec.gap or default_gap(size)


def _listed(scene: SplitInput) -> list[Split]:
    """The predefined split of each chip. There is no gap: a publisher's lists are taken as they are."""
    if scene.chips is None:
        return [scene.split or "gap"] * len(scene.windows)
    return [scene.chips.get((window.row, window.col), "gap") for window in scene.windows]


def _split_blocks(
    scenes: Sequence[SplitInput], areas: Sequence[Sequence[int]], spec: SplitSpec, size: int, seed: int
) -> list[list[Split]]:
    """Draw blocks of each area; the scenes of an area are divided into common blocks."""
    splits: list[list[Split]] = [[scene.split or "train"] * len(scene.windows) for scene in scenes]
    for indices in areas:
        members, rng = [scenes[index] for index in indices], np.random.default_rng([seed, indices[0]])
        if len(members) == 1:
            splits[indices[0]] = split_chips(members[0], spec, size=size, rng=rng)
            continue
        for index, own in zip(indices, _split_overlapping_scenes(members, spec, size, rng), strict=True):
            splits[index] = own
    return splits


def _split_overlapping_scenes(
    scenes: Sequence[SplitInput], spec: SplitSpec, size: int, rng: np.random.Generator
) -> list[list[Split]]:
    """Draw blocks of the area that the scenes cover together, as of one scene."""
    windows = in_common_grid([scene.grid for scene in scenes if scene.grid], [scene.windows for scene in scenes])
    union = SplitInput(windows, np.concatenate([scene.counts for scene in scenes]))
    # Scenes may be smaller than chips, and their padding is cut away: then blocks are smaller too, but not the gap.
    side = min(size, max(max(window.shape) for window in windows))
    with_gap = spec.model_copy(update={"gap": _gap(spec, size)})
    return _per_scene(split_chips(union, with_gap, size=side, rng=rng), scenes)


def _apart_from_predefined(splits: list[list[Split]], scenes: Sequence[SplitInput], distance: int) -> list[list[Split]]:
    """The splits without drawn chips less than `distance` pixels from a chip with another, predefined split."""
    has_predefined = np.array([scene.split is not None for scene in scenes])
    groups = overlap_groups([scene.grid for scene in scenes], buffer_px=distance / 2)
    in_both = np.intersect1d(groups[has_predefined], groups[~has_predefined])
    indices = np.flatnonzero(np.isin(groups, in_both)).tolist()
    members = [scenes[index] for index in indices]
    names = np.array([name for index in indices for name in splits[index]], dtype="<U5")
    is_predefined = np.repeat(has_predefined[indices], [len(scene.windows) for scene in members])
    first, second = _near_chips(members, distance).T
    differs = ~is_predefined[first] & is_predefined[second] & (names[first] != names[second]) & (names[first] != "gap")
    if not differs.any():
        return splits
    too_near = np.unique(first[differs])
    log.info("%s nearer than the gap to a scene with a predefined split: not used", counted(len(too_near), "chip"))
    names[too_near] = "gap"
    kept = dict(zip(indices, _per_scene(names.tolist(), members), strict=True))
    return [kept.get(index, own) for index, own in enumerate(splits)]


def warn_missing_classes(
    splits: Sequence[str], counts: NDArray[np.int64], classes: Classes, spec: SplitSpec, *, all_predefined: bool = False
) -> None:
    """Warn of requested splits without chips, and of classes that a split lacks.

    Args:
        splits: the split of each chip.
        counts: (chips, classes) labelled pixels.
        classes: the class table.
        spec: the requested splits.
        all_predefined: every scene has a predefined split, so that nothing was drawn.
    """
    has_class = {name: counts[np.array(splits) == name].sum(axis=0) > 0 for name in ("train", "val", "test")}
    by_fraction = {name for name, fraction in (("val", spec.val), ("test", spec.test)) if fraction > 0}
    requested = set(spec.lists) if spec.by == "list" else by_fraction
    for name in ("val", "test"):
        if name in requested and name not in splits and all_predefined:
            log.warning('no scene is assigned to %s; set split = "%s" on one', name, name)
        elif name in requested and name not in splits:
            log.warning(
                "%s has no chips: the scenes are too small or too few, or train would lose a class. Use a smaller chip "
                "size, or add a scene for it",
                name,
            )
        if name in splits and (missing := _class_names(classes, has_class["train"] & ~has_class[name])):
            log.warning(
                "%s has no pixels of class %s, so their accuracy cannot be measured. Label more of them, try another "
                "seed or smaller blocks, or add a scene that has them",
                name,
                missing,
            )
        if not_in_train := _class_names(classes, has_class[name] & ~has_class["train"]):
            log.warning("class %s occurs only in %s, not in train. Add a scene with it to train", not_in_train, name)


def _class_names(classes: Classes, selected: NDArray[np.bool_]) -> str:
    return ", ".join(entry.name for entry, is_selected in zip(classes, selected.tolist(), strict=True) if is_selected)


def split_chips(scene: SplitInput, spec: SplitSpec, *, size: int, rng: np.random.Generator) -> list[Split]:
    """Assign the chips of one scene to splits by spatial block, drawn as in `assign_splits`.

    A scene so small that the gap would take nearly half of the train chips, or all of a class, holds out only val, or
    nothing.

    Args:
        scene: windows and class counts of the chips.
        spec: fractions, gap, block side.
        size: side of a chip in pixels.
        rng: source of randomness.

    Returns:
        A split for each chip; "gap" for a chip too near to another split. Laws: windows of two different splits are at
        least `spec.gap` pixels apart; train loses no class.
    """
    blocks = block_index(scene.windows, spec.block or block_side(scene.windows, size))
    near = pairs_within(Footprints.of_windows(scene.windows), _gap(spec, size))
    predefined = np.full(int(blocks.max()) + 1, "", dtype="<U5")
    groups = Groups(scene.counts, single_membership(blocks), near, predefined)
    return assign_splits(groups, spec.val, spec.test, rng, min_train=_MIN_TRAIN * (1 - spec.val - spec.test))


def _split_whole_scenes(scenes: Sequence[SplitInput], spec: SplitSpec, seed: int) -> list[list[Split]]:
    """Draw whole scenes; scenes that overlap are drawn together. There is a gap only if `spec` has one."""
    group_index = _overlapping_scenes(scenes)
    predefined = np.full(int(group_index.max()) + 1, "", dtype="<U5")
    for index, scene in enumerate(scenes):
        if scene.split is not None:
            predefined[group_index[index]] = scene.split
    _require_enough_groups(predefined, spec, "scene", " (scenes that overlap count as one)")
    scene_of_chip = np.repeat(np.arange(len(scenes)), [len(scene.windows) for scene in scenes])
    counts = np.concatenate([scene.counts for scene in scenes])
    members = single_membership(group_index[scene_of_chip])
    near = np.zeros((0, 2), np.intp) if spec.gap is None else _near_chips(scenes, spec.gap)
    groups = Groups(counts, members, near, predefined)
    drawn = _per_scene(assign_splits(groups, spec.val, spec.test, np.random.default_rng(seed)), scenes)
    # Scenes of one group may have different predefined splits.
    splits = [
        [scene.split] * len(scene.windows) if scene.split else own for scene, own in zip(scenes, drawn, strict=True)
    ]
    return splits if spec.gap is None else _apart_from_predefined(splits, scenes, spec.gap)


def require_groups(scenes: Sequence[SplitInput]) -> None:
    """Raise ChipError if scenes that are to be drawn by their group name none."""
    without = [scene.name for scene in scenes if scene.group is None and scene.split is None]
    if without:
        raise ChipError(
            f"the split is by group, but no group is named for {listed(without)} ({len(without)} of "
            f"{counted(len(scenes), 'scene')}). "
            "Expected a group for each scene, such as its city. Set group on them in the recipe, or split by scene."
        )


def _split_by_group(scenes: Sequence[SplitInput], spec: SplitSpec, size: int, seed: int) -> list[list[Split]]:
    """Draw whole groups of scenes. Scenes of a group with a predefined split are a group of their own."""
    require_groups(scenes)
    keys = sorted({(scene.split or "", scene.group or "") for scene in scenes})
    index_of = {key: index for index, key in enumerate(keys)}
    group_index = np.array([index_of[scene.split or "", scene.group or ""] for scene in scenes], np.intp)
    predefined = np.array([split for split, _ in keys], dtype="<U5")
    _require_enough_groups(predefined, spec, "group", " of scenes")
    members = single_membership(np.repeat(group_index, [len(scene.windows) for scene in scenes]))
    counts = np.concatenate([scene.counts for scene in scenes])
    groups = Groups(counts, members, _near_chips(scenes, _gap(spec, size)), predefined)
    return _per_scene(assign_splits(groups, spec.val, spec.test, np.random.default_rng(seed)), scenes)


def _near_chips(scenes: Sequence[SplitInput], distance: int) -> NDArray[np.intp]:
    """(n, 2) indices of chips less than `distance` pixels apart, of one scene or of two; each pair in both orders."""
    neighbours = overlap_groups([scene.grid for scene in scenes], buffer_px=distance / 2)
    stops = np.cumsum([len(scene.windows) for scene in scenes])
    pairs = [np.zeros((0, 2), np.intp)]
    for group in np.unique(neighbours).tolist():
        members = [index for index in np.flatnonzero(neighbours == group).tolist() if scenes[index].windows]
        own = [scenes[index] for index in members]
        windows = own[0].windows if len(own) == 1 else []
        if len(own) > 1:
            windows = in_common_grid([scene.grid for scene in own if scene.grid], [scene.windows for scene in own])
        chips = [np.arange(stops[index] - len(scenes[index].windows), stops[index]) for index in members]
        if windows:
            pairs.append(np.concatenate(chips)[pairs_within(Footprints.of_windows(windows), distance)])
    return np.concatenate(pairs)


def _split_by_zones(scenes: Sequence[SplitInput], spec: SplitSpec, size: int, seed: int) -> list[list[Split]]:
    """Chips belong to the zones that they intersect; the label of a zone is a split, or a group that is drawn."""
    labels = sorted({str(label) for scene in scenes if scene.zones for label in scene.zones.labels})
    # A scene with a predefined split is a group of its own.
    of_scenes = [scene.split or "" for scene in scenes]
    predefined = np.array([*(_as_split(label) for label in labels), *of_scenes], dtype="<U5")
    members: list[NDArray[np.intp]] = []
    first = 0
    for index, scene in enumerate(scenes):
        if scene.split is not None:
            own = single_membership(np.full(len(scene.windows), len(labels) + index))
        else:
            own = _zone_members(scene, {label: group for group, label in enumerate(labels)})
        members.append(np.column_stack([own[:, 0] + first, own[:, 1]]))
        first += len(scene.windows)
    all_members = np.concatenate(members)
    in_use = np.unique(all_members[:, 1])
    if unused := first - len(np.unique(all_members[:, 0])):
        log.info("%d of %d chips intersect no polygon and are not used", unused, first)
    _require_enough_groups(predefined[in_use], spec, "value", f" of '{spec.attribute}' on the chips")
    all_members[:, 1] = np.searchsorted(in_use, all_members[:, 1])
    counts = np.concatenate([scene.counts for scene in scenes])
    groups = Groups(counts, all_members, _near_chips(scenes, _gap(spec, size)), predefined[in_use])
    return _per_scene(assign_splits(groups, spec.val, spec.test, np.random.default_rng(seed)), scenes)


def _as_split(label: str) -> str:
    return label.lower() if label.lower() in ("train", "val", "test") else ""


def _zone_members(scene: SplitInput, group_of: dict[str, int]) -> NDArray[np.intp]:
    """(n, 2) chip index and group index of each zone that the chip intersects, each pair once."""
    assert scene.zones is not None
    assert scene.grid is not None
    if not len(scene.windows):
        return np.zeros((0, 2), np.intp)
    # A polygon that only touches a chip's border has no pixel in it: boxes are a little smaller than their chips.
    corners = [(w.row + 0.01, w.col + 0.01, w.row_stop - 0.01, w.col_stop - 0.01) for w in scene.windows]
    bounds = [(*scene.grid.xy(top, left), *scene.grid.xy(bottom, right)) for top, left, bottom, right in corners]
    boxes = shapely.box(*np.array(bounds).T)
    chips, zones = shapely.STRtree(scene.zones.geometries).query(boxes, predicate="intersects")
    groups = np.array([group_of[str(label)] for label in scene.zones.labels], np.intp)
    return np.unique(np.column_stack([chips, groups[zones]]), axis=0)


def _require_enough_groups(predefined: NDArray[np.str_], spec: SplitSpec, noun: str, of_it: str) -> None:
    """Raise ChipError if groups are drawn, but fewer than there are requested splits without a predefined group."""
    fractions = {"train": 1.0, "val": spec.val, "test": spec.test}
    missing = [name for name, fraction in fractions.items() if fraction > 0 and name not in predefined]
    drawn = int((predefined == "").sum())
    if 0 < drawn < len(missing):
        raise ChipError(
            f"{counted(drawn, noun)}{of_it} cannot be split into {', '.join(missing)}. Expected at least "
            f"{len(missing)}, one for each. Hold out less (val = 0 or test = 0), or split by block."
        )


def _per_scene(splits: list[Split], scenes: Sequence[SplitInput]) -> list[list[Split]]:
    """The splits of all chips, scene by scene."""
    stops = np.cumsum([len(scene.windows) for scene in scenes]).tolist()
    return [splits[stop - len(scene.windows) : stop] for scene, stop in zip(scenes, stops, strict=True)]


def _overlapping_scenes(scenes: Sequence[SplitInput]) -> NDArray[np.intp]:
    """(n,) group of each scene: scenes that overlap, directly or through others, share a group.

    Boxes of neighbouring quadrangles overlap, and so do the collars of their scans: of scenes with an image area, the
    middles are compared, so that maps of one quadrangle share a group, and maps of neighbours do not.
    """
    # Scenes that lie side by side may overlap by rounding: half a pixel is no overlap.
    return overlap_groups([scene.middle or scene.grid for scene in scenes], buffer_px=-0.25)


def block_side(windows: Sequence[Window], size: int, blocks: int = TARGET_BLOCKS) -> int:
    """The side in pixels that gives about `blocks` blocks: a multiple of `size`, at least one."""
    height = max(window.row_stop for window in windows)
    width = max(window.col_stop for window in windows)
    return max(1, round((height * width / blocks) ** 0.5 / size)) * size


def block_index(windows: Sequence[Window], side: int) -> NDArray[np.intp]:
    """(n,) index of the block of `side` pixels that holds each window's centre, counting only blocks with windows."""
    cells = [((w.row + w.height // 2) // side, (w.col + w.width // 2) // side) for w in windows]
    _, indices = np.unique(np.array(cells), axis=0, return_inverse=True)
    return indices.reshape(-1)
