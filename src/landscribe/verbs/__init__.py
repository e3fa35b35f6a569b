"""The verbs: one function each, from nouns or paths to nouns; each leaves ordinary files.

A verb opens its inputs, sorts plain settings into the specs of the steps, and calls one step. The command line calls
these functions.
"""

from landscribe.verbs.chips import check, chip, chip_scenes, describe, export
from landscribe.verbs.maps import assess, predict
from landscribe.verbs.models import bench, branches, prune, summary, train
from landscribe.verbs.runs import new, report

__all__ = [
    "assess", "bench", "branches", "check", "chip", "chip_scenes", "describe", "export", "new", "predict", "prune",
    "report", "summary", "train",
]  # fmt: skip
