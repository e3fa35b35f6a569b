"""Write src/landscribe/verbs/keywords.py from the specs: python tests/generate_keywords.py."""

import json
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BeforeValidator

from landscribe.commands.options import LABEL_SETTINGS, spec_of
from landscribe.recipe import SECTIONS
from landscribe.spec import PathMark
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

from landscribe.data.batches.augment_spec import AugmentSpec
'''
DOCS = {
    "LabelKeywords": "Settings of `assess`.",
    "ObjectKeywords": "Settings of `assess_objects`.",
    "ChipKeywords": "Settings of `chip`.",
    "TrainKeywords": "Settings of `train`.",
    "PredictKeywords": "Settings of `predict`.",
    "VectorizeKeywords": "Settings of `vectorize`.",
    "SampleKeywords": "Settings of `sample` and `plan_sample`.",
    "RunKeywords": "Settings of `run` and `check`. A name that several sections have goes into a section's table.",
    "DemoKeywords": "Settings of `demo`.",
}
BASES = {"TrainKeywords": "TrainTable", "RunKeywords": "DemoKeywords"}
"""Tables that have all keys of another."""
PER_CALL = ("image", "labels")
SEED = {"seed": "int"}
AUGMENT = {"augment": "str | AugmentKeywords | AugmentSpec | Callable[..., Any]"}
LAYERS = {"object_probabilities": "str | Path | None"}
CLASSES = {"classes": "Sequence[dict[str, Any]]", "class_table": "str | Path | None"}


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


def fields(section: str) -> dict[str, str]:
    return {name: keyword_type(field) for name, field in spec_of(section).model_fields.items() if name not in PER_CALL}


def unambiguous(*sections: str) -> dict[str, str]:
    """Fields that only one of the sections has."""
    names = [name for section in sections for name in fields(section)]
    every = {name: kind for section in sections for name, kind in fields(section).items()}
    return {name: kind for name, kind in every.items() if names.count(name) == 1}


def source() -> str:
    """The whole module."""
    tables = {
        "SceneKeywords": fields("scenes"),
        "ChipTable": fields("chips"),
        "SplitKeywords": fields("split"),
        "AugmentKeywords": fields("augment"),
        "TrainTable": fields("train"),
        "PredictTable": fields("predict"),
        "VectorizeKeywords": fields("vectorize"),
        "AssessTable": fields("assess"),
        "ModelsKeywords": fields("models"),
    }
    sections = {
        "scenes": "SceneKeywords", "chips": "ChipTable", "split": "SplitKeywords", "train": "TrainTable",
        "models": "ModelsKeywords", "predict": "PredictTable", "vectorize": "VectorizeKeywords",
        "assess": "AssessTable",
    }  # fmt: skip
    scene_split = fields("scenes")["split"]
    plain = unambiguous(*(section for section in SECTIONS if section != "augment"))
    del plain["class_table"]  # that of the labels, as in CLASSES, not of the polygons
    chip = {name: sections[name] for name in ("scenes", "chips", "split")}
    augment = {"augment": "str | AugmentKeywords"}
    split = {"split": f"{scene_split} | SplitKeywords"}
    tables |= {
        "LabelKeywords": {name: fields("scenes")[name] for name in LABEL_SETTINGS} | fields("accuracy"),
        "ObjectKeywords": {name: fields("scenes")[name] for name in REFERENCE_SETTINGS} | fields("objects"),
        "ChipKeywords": SEED | CLASSES | unambiguous("scenes", "chips", "split") | chip | split,
        "TrainKeywords": AUGMENT | fields("train"),
        "SampleKeywords": fields("sample"),
        "PredictKeywords": LAYERS | fields("imagery") | fields("predict"),
        "DemoKeywords": {name: kind for name, kind in plain.items() if name != "size"} | sections | augment | split,
        "RunKeywords": SEED | CLASSES | plain | sections | augment | split,
    }
    return HEAD + "".join(f"\n\n{_table(name, keys, tables)}" for name, keys in tables.items())


def _table(name: str, keys: dict[str, str], tables: dict[str, dict[str, str]]) -> str:
    doc, base = DOCS.get(name, "Settings of a section of a recipe."), BASES.get(name)
    if base:
        assert tables[base].items() <= keys.items()
        keys = {key: kind for key, kind in keys.items() if key not in tables[base]}
    lines = [f"class {name}({base or 'TypedDict'}, total=False):", f'    """{doc}"""', ""]
    return "\n".join([*lines, *(f"    {key}: {kind}" for key, kind in keys.items())]) + "\n"


if __name__ == "__main__":
    TARGET.write_text(source())
