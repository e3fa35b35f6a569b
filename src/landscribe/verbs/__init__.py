"""The verbs: one function each, from nouns or paths to nouns; each leaves ordinary files.

A verb opens its inputs, sorts plain settings into the specs of the steps, and calls one step. The command line calls
these functions. Errors of the machine, such as MemoryError, leave a verb as a LandscribeError.
"""

from landscribe.errors import machine_errors
from landscribe.verbs import chips, maps, models, polygons, runs, samples

# Wrapped where they are exported: doctest would not find the examples of decorated functions.
assess = machine_errors()(maps.assess)
assess_objects = machine_errors()(maps.assess_objects)
bench = machine_errors()(models.bench)
branches = machine_errors()(models.branches)
check = machine_errors()(chips.check)
chip = machine_errors()(chips.chip)
chip_scenes = machine_errors()(chips.chip_scenes)
describe = machine_errors()(chips.describe)
encoders = machine_errors()(models.encoders)
export = machine_errors()(chips.export)
new = machine_errors()(runs.new)
plan_sample = machine_errors()(samples.plan_sample)
predict = machine_errors()(maps.predict)
prune = machine_errors()(models.prune)
report = machine_errors()(runs.report)
sample = machine_errors()(samples.sample)
summary = machine_errors()(models.summary)
train = machine_errors()(models.train)
train_chips = machine_errors()(models.train_chips)
vectorize = machine_errors()(polygons.vectorize)

__all__ = [
    "assess", "assess_objects", "bench", "branches", "check", "chip", "chip_scenes", "describe", "encoders",
    "export", "new", "plan_sample", "predict", "prune", "report", "sample", "summary", "train", "train_chips",
    "vectorize",
]  # fmt: skip
