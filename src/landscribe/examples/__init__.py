"""Examples: the worked examples of the lecture, each as a recipe for the files as they are published.

A new example is a file with an `Example`, and a line in EXAMPLES.
"""

from landscribe.examples.example import Example
from landscribe.examples.inria import INRIA
from landscribe.examples.landcoverai import LANDCOVERAI
from landscribe.examples.topodl import TOPODL
from landscribe.examples.wvlcdl import WVLCDL

EXAMPLES: dict[str, Example] = {"topodl": TOPODL, "inria": INRIA, "landcoverai": LANDCOVERAI, "wvlcdl": WVLCDL}
"""By the name that `landscribe new --like` takes."""
