"""The keyword arguments of the verbs, for editors and mypy.

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


class SceneTable(TypedDict, total=False):
    """Settings of a section of a recipe."""

    stack: bool
    resample: bool
    without: Sequence[str] | str
    band_numbers: Sequence[int] | None | str
    bands: Sequence[str] | None | str
    label_field: str | None
    label_layer: str | None
    label_crs: str | None
    label_priority: str | None
    label_zero: Literal["background", "class"] | None
    all_touched: Sequence[str] | str
    split: Literal["train", "val", "test"] | None
    group: str | None
    pixel_size: float | None
    nodata: float | Sequence[float] | None | str
    nodata_rule: Literal["auto", "any", "all"]
    palette: Literal["colours", "indices"]
    image_area: str | Path | None
    labelled_area: str | Path | None
    label_threshold: float | None
    label_objects: bool
    label_nodata_as: str | None
    label_ignore: Sequence[str] | None | str
    sparse: bool
    fix_geometries: bool


class ChipTable(TypedDict, total=False):
    """Settings of a section of a recipe."""

    size: int
    stride: int | None
    edge: Literal["shift", "pad", "drop"]
    mode: Literal["all", "positive", "separate"]
    background_share: float
    unlabelled: bool
    format: Literal["tif", "png", "jpg"]
    objects: bool
    virtual: bool
    dask: str | None


class SplitTable(TypedDict, total=False):
    """Settings of a section of a recipe."""

    by: Literal["auto", "block", "scene", "group", "attribute", "list"]
    split_by: Literal["auto", "block", "scene", "group", "attribute", "list"]
    val: float
    test: float
    gap: int | None
    block: int | None
    attribute: str | None
    split_attribute: str | None
    train_list: str | Path | None
    val_list: str | Path | None
    test_list: str | Path | None


class TrainTable(TypedDict, total=False):
    """Settings of a section of a recipe."""

    architecture: str
    encoder: str
    backbone: str
    weights: Literal["auto", "imagenet", "none"] | str | Path
    weights_bands: Sequence[str] | str
    options: dict[str, Any]
    option: dict[str, Any]
    effort: Literal["auto", "quick", "standard", "thorough"]
    steps: int | None
    epochs: int | None
    minutes: float | None
    batch: int | Literal["auto"]
    batch_size: int | Literal["auto"]
    accumulate: int
    learning_rate: float | Literal["auto"]
    lr: float | Literal["auto"]
    optimizer: Literal["adamw", "sgd"]
    schedule: Literal["one_cycle", "cosine", "constant", "plateau"]
    gradient_clip: float
    patience: int | None
    ema_decay: float
    checkpoint: Literal["best", "last"]
    encoder_lr_factor: float
    freeze: Sequence[str] | str
    freeze_until: float
    weight_decay: float
    scaling: Literal["auto", "range", "percentiles", "standardise"]
    loss: str
    class_weights: Literal["none", "inverse", "median", "effective"] | Sequence[float] | str
    sampling: Literal["auto", "windows", "all", "balanced", "label_windows"]
    background: float | None
    workers: int | None
    precision: Literal["auto", "32", "bf16", "16"]
    compile: bool
    devices: int | Literal["auto"]
    log: str | Path | None
    log_folder: str | Path | None


class ModelsTable(TypedDict, total=False):
    """Settings of a section of a recipe."""

    folds: int | Literal["scenes", "groups"] | None
    final: Literal["auto", "none", "all"]


class PredictTable(TypedDict, total=False):
    """Settings of a section of a recipe."""

    tile: int | Literal["auto"]
    margin: int | Literal["auto"]
    unit: int
    batch: int | None
    any_pixel_size: bool
    ignore_scale: bool
    resample: bool
    crs: str | None
    device: str
    tolerance: float
    check_seams: bool
    engine: Literal["auto", "torch", "torch-bf16", "torch-compiled", "onnx", "tensorrt", "openvino"]
    precision: Literal["auto", "32", "bf16", "16"]
    blend: Literal["none", "gaussian"]
    minimum_area: float | None
    threshold: float | Literal["val"] | None
    probabilities_as: Literal["uint8", "float32"]
    tta: bool
    area: str | Path | None
    dask: str | None


class VectorizeTable(TypedDict, total=False):
    """Settings of a section of a recipe."""

    classes: Sequence[str] | None | str
    connectivity: Literal[4, 8]
    simplify: float | Literal["auto", "none"]
    square: bool
    smooth: bool
    minimum_area: float | None
    fill_holes: float | None
    dissolve: bool
    split_touching: bool
    minimum_distance: float
    dask: str | None


class AssessTable(TypedDict, total=False):
    """Settings of a section of a recipe."""

    confidence: float
    block_size: int | None
    regions: str | Path | None
    region_field: str | None
    reference: str | Path | None
    reference_field: str | None


class AugmentTable(TypedDict, total=False):
    """Settings of a section of a recipe."""

    preset: Literal["auto", "none", "light", "standard", "strong"]
    symmetries: bool | None
    rotation: float | None
    scale: float | None
    shift: float | None
    brightness: float | None
    contrast: float | None
    saturation: float | None
    gamma: float | None
    noise: float | None
    blur: float | None
    median: float | None
    sharpen: float | None
    band_dropout: float | None
    band_swap: float | None
    cutmix: float | None
    mixup: float | None
    mosaic: float | None


class LabelKeywords(TypedDict, total=False):
    """Settings of `assess`."""

    label_field: str | None
    label_layer: str | None
    label_crs: str | None
    label_priority: str | None
    label_zero: Literal["background", "class"] | None
    all_touched: Sequence[str] | str
    label_threshold: float | None
    label_objects: bool
    label_nodata_as: str | None
    label_ignore: Sequence[str] | None | str
    labelled_area: str | Path | None
    sparse: bool
    fix_geometries: bool
    confidence: float
    block_size: int | None
    regions: str | Path | None
    region_field: str | None
    edges: bool
    edge_tolerance: float | str
    probabilities: str | Path | None
    class_table: str | Path | None
    sample_labels: str | Path | None
    skip_unlabelled: bool
    dask: str | None


class ObjectKeywords(TypedDict, total=False):
    """Settings of `assess_objects`."""

    label_field: str | None
    label_layer: str | None
    label_crs: str | None
    labelled_area: str | Path | None
    fix_geometries: bool
    object_field: str | None
    score_field: str | None
    tolerance: float | None


class ChipKeywords(ChipTable, SplitTable, total=False):
    """Settings of `chip`."""

    seed: int
    classes: Sequence[dict[str, Any] | ClassSpec]
    class_table: str | Path | None
    stack: bool
    resample: bool
    without: Sequence[str] | str
    band_numbers: Sequence[int] | None | str
    bands: Sequence[str] | None | str
    label_field: str | None
    label_layer: str | None
    label_crs: str | None
    label_priority: str | None
    label_zero: Literal["background", "class"] | None
    all_touched: Sequence[str] | str
    split: Literal["train", "val", "test"] | None | SplitTable | SplitSpec
    group: str | None
    pixel_size: float | None
    nodata: float | Sequence[float] | None | str
    nodata_rule: Literal["auto", "any", "all"]
    palette: Literal["colours", "indices"]
    image_area: str | Path | None
    labelled_area: str | Path | None
    label_threshold: float | None
    label_objects: bool
    label_nodata_as: str | None
    label_ignore: Sequence[str] | None | str
    sparse: bool
    fix_geometries: bool
    scenes: SceneTable
    chips: ChipTable | ChipSpec


class TrainKeywords(TrainTable, total=False):
    """Settings of `train`."""

    augment: str | AugmentTable | AugmentSpec | Callable[..., Any]


class SampleKeywords(TypedDict, total=False):
    """Settings of `sample` and `plan_sample`."""

    design: Literal["stratified", "simple", "systematic", "cluster"]
    size: int | None
    standard_error: float | None
    half_width: float | None
    confidence: float
    expected_accuracy: float | dict[str, Any]
    allocation: Literal["auto", "proportional", "equal", "neyman"] | dict[str, Any]
    unit: int
    class_table: str | Path | None
    strata: str | Path | None
    buffer_around: str | None
    buffer: float | None
    area: str | Path | None
    clusters: int | None
    cluster_size: int | None
    per_cluster: int | None
    seed: int


class PredictKeywords(PredictTable, total=False):
    """Settings of `predict`."""

    object_probabilities: str | Path | None
    nodata: float | Sequence[float] | None | str
    nodata_rule: Literal["auto", "any", "all"]
    palette: Literal["colours", "indices"]
    assets: Sequence[str] | str
    stack: bool
    mosaic: bool
    bands: Sequence[int] | None | str
    shard: str | None


class VectorizeKeywords(VectorizeTable, total=False):
    """Settings of `vectorize`."""

    class_table: str | Path | None
    probabilities: str | Path | None
    object_probabilities: str | Path | Literal["beside"] | None
    instances: str | Path | Literal["beside"] | None


class DemoKeywords(SplitTable, TrainTable, ModelsTable, AssessTable, total=False):
    """Settings of `demo`."""

    stack: bool
    resample: bool
    without: Sequence[str] | str
    band_numbers: Sequence[int] | None | str
    bands: Sequence[str] | None | str
    label_field: str | None
    label_layer: str | None
    label_crs: str | None
    label_priority: str | None
    label_zero: Literal["background", "class"] | None
    all_touched: Sequence[str] | str
    split: Literal["train", "val", "test"] | None | SplitTable | SplitSpec
    group: str | None
    pixel_size: float | None
    nodata: float | Sequence[float] | None | str
    nodata_rule: Literal["auto", "any", "all"]
    palette: Literal["colours", "indices"]
    image_area: str | Path | None
    labelled_area: str | Path | None
    label_threshold: float | None
    label_objects: bool
    label_nodata_as: str | None
    label_ignore: Sequence[str] | None | str
    sparse: bool
    fix_geometries: bool
    stride: int | None
    edge: Literal["shift", "pad", "drop"]
    mode: Literal["all", "positive", "separate"]
    background_share: float
    unlabelled: bool
    format: Literal["tif", "png", "jpg"]
    objects: bool
    virtual: bool
    dask: str | None
    tile: int | Literal["auto"]
    margin: int | Literal["auto"]
    unit: int
    any_pixel_size: bool
    ignore_scale: bool
    crs: str | None
    device: str
    tolerance: float
    check_seams: bool
    engine: Literal["auto", "torch", "torch-bf16", "torch-compiled", "onnx", "tensorrt", "openvino"]
    blend: Literal["none", "gaussian"]
    minimum_area: float | None
    threshold: float | Literal["val"] | None
    probabilities_as: Literal["uint8", "float32"]
    tta: bool
    area: str | Path | None
    connectivity: Literal[4, 8]
    simplify: float | Literal["auto", "none"]
    square: bool
    smooth: bool
    fill_holes: float | None
    dissolve: bool
    split_touching: bool
    minimum_distance: float
    scenes: SceneTable
    chips: ChipTable | ChipSpec
    train: TrainTable | TrainSpec
    models: ModelsTable | ModelsSpec
    predict: PredictTable | PredictSpec
    vectorize: VectorizeTable | VectorizeSpec
    assess: AssessTable | AssessSpec
    augment: str | AugmentTable | AugmentSpec


class RunKeywords(DemoKeywords, total=False):
    """Settings of `run` and `check`. A plain name means the same setting as the flag of that name."""

    seed: int
    classes: Sequence[dict[str, Any] | ClassSpec]
    class_table: str | Path | None
    size: int
