"""The pictures of docs/examples: image, reference and map of the small data set of each example.

Draw them into docs/examples/pictures by: python docs/pictures/examples.py FOLDER. FOLDER keeps the runs of
`landscribe demo --like NAME`; those that are not there are made first, which takes about 20 minutes on two cores.
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

import landscribe as ls
from landscribe.data.scenes.scene import Scene, open_scenes
from landscribe.examples import EXAMPLES
from landscribe.maps.class_map import match_maps
from landscribe.runs import Run

PICTURES = Path(__file__).parents[1] / "examples" / "pictures"
SIDE = 2.6
"""Inches of a panel."""
DPI = 100
FRAME = "#888888"
UNLABELLED = 255
"""White, in each channel."""
ROWS = {"topodl": ("KY_", "OH_", "VA_"), "inria": ("austin1", "tyrol-w1"), "landcoverai": ("",), "wvlcdl": ("",)}
"""For each row of an example's picture, what the name of its scene begins with."""


def draw(name: str, run: Run) -> Figure:
    """A row for each scene, named by its group: image, reference and map."""
    recipe, chips = ls.Recipe.load(run.recipe_file).listed(), run.open_chips()
    scenes, classes = open_scenes(recipe.scenes, recipe.classes)
    maps = match_maps([ls.Raster.open([path]) for path in run.map_files], {scene.name: scene.image for scene in scenes})
    assessed = set(chips.of_split(run.read_assessment()["split"]).scene_names)
    # Scenes that were held out come first.
    ordered = sorted(scenes, key=lambda scene: scene.name not in assessed)
    shown = [next(scene for scene in ordered if scene.name.startswith(start)) for start in ROWS[name]]
    pictures = [_pictures(scene, maps[scene.name], classes) for scene in shown]
    # As high as the pictures, so that no gap is left between the rows.
    heights = [SIDE * images[0].shape[0] / images[0].shape[1] for images in pictures]
    figure = Figure(figsize=(3 * SIDE + 0.5, sum(heights) + 1.1), layout="constrained")
    axes = figure.subplots(len(shown), 3, squeeze=False, height_ratios=heights)
    for row, scene, images in zip(axes, shown, pictures, strict=True):
        row[0].set_ylabel(scene.group or "", fontsize=11)
        for axis, picture in zip(row, images, strict=True):
            axis.imshow(picture, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_color(FRAME)
    for axis, title in zip(axes[0], ("image", "reference", "map"), strict=True):
        axis.set_title(title, fontsize=11)
    legend = [Patch(facecolor=entry.colour, edgecolor=FRAME, label=entry.name) for entry in classes]
    if any((images[1] == UNLABELLED).all(axis=2).any() for images in pictures):
        legend.append(Patch(facecolor="white", edgecolor=FRAME, label="unlabelled"))
    figure.legend(handles=legend, loc="outside lower center", ncols=4, frameon=False, fontsize=10)
    return figure


def _pictures(scene: Scene, mapped: ls.Raster, classes: ls.Classes) -> tuple[NDArray[np.uint8], ...]:
    """Image, reference and map (rows, cols, 3) of the rows and columns that hold imagery; white where there is none."""
    whole = ls.Window(0, 0, *scene.image.grid.shape)
    pixels, valid = scene.image.read(whole)
    image = np.where(valid, pixels[:3], UNLABELLED).transpose(1, 2, 0).astype(np.uint8)
    values, is_mapped = mapped.read(whole)
    reference = np.where(valid, scene.labels.read(whole), classes.ignore)
    rows, cols = (np.flatnonzero(valid.any(axis=axis)) for axis in (1, 0))
    shown = np.s_[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
    mapped_values = np.where(is_mapped, values[0], classes.ignore)
    return image[shown], _coloured(reference[shown], classes), _coloured(mapped_values[shown], classes)


def _coloured(values: NDArray[np.integer], classes: ls.Classes) -> NDArray[np.uint8]:
    palette = np.full((256, 3), UNLABELLED, np.uint8)
    for entry in classes:
        palette[entry.value] = [round(255 * part) for part in to_rgb(entry.colour)]
    return palette[values]


def main(folder: Path) -> None:
    """Make the runs that are not there, and draw a picture of each."""
    for name in EXAMPLES:
        run = Run(folder / name / "run")
        if not run.report_file.exists():
            ls.demo(folder / name, like=name)
        draw(name, run).savefig(PICTURES / f"{name}.png", dpi=DPI)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
