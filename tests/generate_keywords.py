"""Write src/landscribe/verbs/keywords.py from the specs: python tests/generate_keywords.py."""

import json
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BeforeValidator

from landscribe.commands.options import LABEL_SETTINGS, spec_of
from landscribe.recipe import SECTIONS
from landscribe.spec import InTable, NotInRun, PathMark, SharedName, is_marked, other_names
from landscribe.verbs.maps import REFERENCE_SETTINGS

TARGET = Path(__file__).parents[1] / "src" / "landscribe" / "verbs" / "keywords.py"
HEAD = '''"""The keyword arguments of the verbs, for editors and mypy.

Generated from the specs by: python tests/generate_keywords.py
"""

# ruff: noqa: PYI051, RUF036
# fmt: off

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

from landscribe.assessment.spec import AssessSpec
from landscribe.data.batches.augment_spec import AugmentSpec
from landscribe.data.chips.spec import ChipSpec
from landscribe.data.scenes.spec import ClassSpec
from landscribe.data.splits.spec import SplitSpec
from landscribe.polygons.spec import VectorizeSpec
from landscribe.prediction.spec import PredictSpec
from landscribe.training.spec import ModelsSpec, TrainSpec
'''
DOCS = {
    "LabelKeywords": "Settings of `assess`.",
    "ObjectKeywords": "Settings of `assess_objects`.",
    "ChipKeywords": "Settings of `chip`.",
    "TrainKeywords": "Settings of `train`.",
    "PredictKeywords": "Settings of `predict`.",
    "VectorizeKeywords": "Settings of `vectorize`.",
    "SampleKeywords": "Settings of `sample` and `plan_sample`.",
    "RunKeywords": "Settings of `run` and `check`. A plain name means the same setting as the flag of that name.",
    "DemoKeywords": "Settings of `demo`.",
}
BASES = {
    "ChipKeywords": ("ChipTable", "SplitTable"),
    "TrainKeywords": ("TrainTable",),
    "PredictKeywords": ("PredictTable",),
    "VectorizeKeywords": ("VectorizeTable",),
    "DemoKeywords": ("SplitTable", "TrainTable", "ModelsTable", "AssessTable"),
    "RunKeywords": ("DemoKeywords",),
}
"""Of tables that have all keys of others, with their types."""
PER_CALL = ("image", "labels")
SEED = {"seed": "int"}
AUGMENT = {"augment": "str | AugmentTable | AugmentSpec | Callable[..., Any]"}
LAYERS = {"object_probabilities": "str | Path | None"}
CLASSES = {"classes": "Sequence[dict[str, Any] | ClassSpec]", "class_table": "str | Path | None"}


def type_of(annotation: Any) -> str:
    """The type that a caller may pass for a field's annotation, as source."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return "str | Path" if any(isinstance(mark, PathMark) for mark in parts[1:]) else type_of(parts[0])
    if origin in (Union, types.UnionType):
        return " | ".join(dict.fromkeys(type_of(part) for part in parts))
    if origin is Literal:
        return f"Literal[{', '.join(map(json.dumps, parts))}]"
    if origin is tuple:
        return f"Sequence[{type_of(parts[0])}]"
    if origin is dict:
        return "dict[str, Any]"
    return "None" if annotation is type(None) else annotation.__name__


def keyword_type(field: Any) -> str:
    """The type of a field's keyword; a list also takes text with commas."""
    base = type_of(field.annotation)
    if any(isinstance(mark, PathMark) for mark in field.metadata):
        base = "str | Path"
    takes_text = any(isinstance(mark, BeforeValidator) for mark in field.metadata) and "Sequence" in base
    return f"{base} | str" if takes_text else base


def fields(section: str, *, in_run: bool = False) -> dict[str, str]:
    """The keywords of a section; those of a run lack the settings that it refuses."""
    return {
        keyword: keyword_type(field)
        for name, field in spec_of(section).model_fields.items()
        if name not in PER_CALL and not (in_run and is_marked(field, NotInRun))
        for keyword in (name, *(() if section == "augment" else other_names(name, field)))
    }


def plain_names(*sections: str) -> dict[str, str]:
    """Fields that a plain name means in a run."""
    homes: dict[str, list[Any]] = {}
    for section in sections:
        for name, field in spec_of(section).model_fields.items():
            if not is_marked(field, InTable, NotInRun):
                homes.setdefault(name, []).append(field)
    ours = {name: found[0] for name, found in homes.items() if len(found) == 1 or is_marked(found[0], SharedName)}
    return {
        keyword: keyword_type(field)
        for name, field in ours.items()
        if name not in PER_CALL
        for keyword in (name, *other_names(name, field))
    }


def source() -> str:
    """The whole module."""
    specs = {
        "scenes": "Scene", "chips": "Chip", "split": "Split", "train": "Train", "models": "Models",
        "predict": "Predict", "vectorize": "Vectorize", "assess": "Assess",
    }  # fmt: skip
    tables = {f"{name}Table": fields(section, in_run=True) for section, name in specs.items()}
    tables["AugmentTable"] = fields("augment")
    sections = {
        section: f"{name}Table" + ("" if section == "scenes" else f" | {name}Spec") for section, name in specs.items()
    }
    sections["split"] = f"{fields('scenes')['split']} | {sections['split']}"
    plain = plain_names(*(section for section in SECTIONS if section != "augment"))
    chip = {name: sections[name] for name in ("scenes", "chips", "split")}
    augment = {"augment": "str | AugmentTable | AugmentSpec"}
    tables |= {
        "LabelKeywords": {name: fields("scenes")[name] for name in LABEL_SETTINGS} | fields("accuracy"),
        "ObjectKeywords": {name: fields("scenes")[name] for name in REFERENCE_SETTINGS} | fields("objects"),
        "ChipKeywords": SEED | CLASSES | plain_names("scenes", "chips", "split") | chip,
        "TrainKeywords": AUGMENT | fields("train"),
        "SampleKeywords": fields("sample"),
        "PredictKeywords": LAYERS | fields("imagery") | fields("predict"),
        "VectorizeKeywords": fields("vectorize"),
        "DemoKeywords": {name: kind for name, kind in plain.items() if name != "size"} | sections | augment,
        "RunKeywords": SEED | CLASSES | plain | sections | augment,
    }
    return HEAD + "".join(f"\n\n{_table(name, keys, tables)}" for name, keys in tables.items())


def _table(name: str, keys: dict[str, str], tables: dict[str, dict[str, str]]) -> str:
    doc, bases = DOCS.get(name, "Settings of a section of a recipe."), BASES.get(name, ())
    for base in bases:
        assert tables[base].items() <= keys.items()
    own = {key: kind for key, kind in keys.items() if not any(key in tables[base] for base in bases)}
    lines = [f"class {name}({', '.join(bases) or 'TypedDict'}, total=False):", f'    """{doc}"""', ""]
    return "\n".join([*lines, *(f"    {key}: {kind}" for key, kind in own.items())]).rstrip() + "\n"


if __name__ == "__main__":
    TARGET.write_text(source())
