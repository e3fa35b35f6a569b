"""The settings of prediction. No training setting is among them: the Model carries what it needs."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator, model_validator

from landscribe.geo.spec import BandList, BandNumbers
from landscribe.inference.backends import BACKENDS
from landscribe.spec import InputPath, InTable, NotInRun, SharedName, Spec

if TYPE_CHECKING:
    Engine = str
else:
    # Type checkers refuse choices that are computed; pydantic, flags and the keywords of the verbs take them.
    Engine = Literal["auto", *BACKENDS]


CHOSEN = frozenset({"tile", "margin", "batch", "engine", "tolerance"})
"""Settings that are chosen for the machine where the user leaves them open. A fingerprint holds the choice."""
NOT_IN_FINGERPRINT = {
    "bands": "the fingerprint holds the raster's bands",
    "any_pixel_size": "the fingerprint holds the raster's grid",
    "ignore_scale": "the fingerprint holds the raster's encoding",
    "resample": "the fingerprint holds the raster's grid",
    "crs": "the fingerprint holds the raster's grid",
    "precision": "the fingerprint holds the engine, which computes in one precision",
    "threshold": "the fingerprint holds the number, unless it is None",
    "probabilities_as": "the fingerprint holds the layers' dtypes",
    "check_seams": "reports, and changes no pixel",
    "dask": "where units run changes no pixel",
    "shard": "which units run here changes no pixel",
}
"""Settings that leave the map the same, with the reason. All others are fields of its fingerprint."""


class PredictSpec(Spec):
    """How a raster is mapped."""

    tile: Annotated[int, Field(ge=32, le=2**16)] | Literal["auto"] = "auto"
    """Side of a tile in pixels, rounded down to a multiple of the network's stride; auto is the best that fits in
    memory."""
    margin: Annotated[int, Field(ge=0, le=2**15)] | Literal["auto"] = "auto"
    """Overlap discarded on each side of a tile in pixels; auto measures how much the network needs on this raster."""
    unit: int = Field(2048, ge=32, le=2**16)
    """Side of a unit, the block that is read and written at once, in pixels (at least a tile)."""
    batch: Annotated[int | None, InTable()] = Field(None, ge=1, le=2**16)
    """Tiles per batch. Default: 1 on a CPU, as many as keep it busy on a GPU."""
    bands: Annotated[
        BandNumbers | None,
        BandList,
        NotInRun("a run maps all bands that its network was trained on; landscribe predict chooses those of a raster"),
    ] = None
    """Band numbers of the raster (from 1) in the model's order, such as 3,2,1. Default: those with the names of the
    model's bands, if the files name them; otherwise all."""
    any_pixel_size: bool = False
    """Ignore a mismatch between the pixel sizes of the raster and of the model."""
    ignore_scale: bool = False
    """Map stored numbers as they are, whatever the scale, offset and unit tags of raster and training imagery say."""
    resample: Annotated[bool, SharedName()] = False
    """Resample the raster to the model's pixel size, unless its own is within a quarter of that. The map has that pixel
    size, and stacked files are resampled to the grid of the first."""
    crs: str | None = None
    """Map in another CRS, such as EPSG:32632, at the model's pixel size."""
    device: str = "auto"
    """Device: auto, cpu, cuda or mps."""
    tolerance: float = Field(1e-3, gt=0, lt=1)
    """With auto tile or margin: maximum fraction of pixels allowed to differ from untiled inference. With auto
    engine and 16 bits: from 32 bits."""
    check_seams: bool = False
    """Report how often classes differ across tile borders, on a sample that is mapped again with other tiles."""
    engine: Engine = "auto"
    """Inference backend; auto measures the installed ones on this machine and takes the fastest."""
    precision: Annotated[Literal["auto", "32", "bf16", "16"], InTable()] = "auto"
    """Bits in which the network computes: 32, or 16 (bf16 has the range of 32). With auto, engines of 16 bits are
    measured too, and may be taken where no more classes differ from those of 32 bits than the tolerance allows. With
    bf16 or 16, a larger difference gives a warning where the map is large enough to measure it."""
    blend: Literal["none", "gaussian"] = "none"
    """How overlapping tiles are merged. none: each keeps its centre; gaussian: average with a Gaussian importance
    map."""
    minimum_area: float | None = Field(None, gt=0, le=1e15)
    """Minimum mapping unit in square metres. Smaller patches are merged into their neighbours, unless they span more
    than 512 rows or columns. Pixels outside the area of interest are no neighbours: near its edge, classes may differ
    from those of a map of the whole image."""
    threshold: Annotated[float, Field(gt=0, lt=1)] | Literal["val"] | None = None
    """Two classes: probability from which a pixel is of the second class; val takes the one with the highest F1-score
    on the validation chips. Probabilities and uncertainty stay the same. An ensemble takes the mean of its models'
    thresholds. Default: the class with the higher probability."""
    probabilities_as: Literal["uint8", "float32"] = "uint8"
    """Data type of the probabilities: uint8 in steps of 1/254, or float32."""
    tta: bool = False
    """Test-time augmentation: average 8 flips and rotations of each tile (8 times slower)."""
    area: InputPath | None = None
    """Area of interest: map only inside these polygons."""
    dask: Annotated[str | None, SharedName()] = None
    """Map with Dask: auto for the cores of this machine, or the address or file of a scheduler."""
    shard: Annotated[
        str | None, NotInRun("a run assesses its whole map; landscribe predict maps shards by the run's model")
    ] = None
    """Process shard i of n, as i/n, in an array of jobs. Run the command again without it to assemble the map."""

    @property
    def is_blended(self) -> bool:
        """True if overlapping tiles are averaged."""
        return self.blend == "gaussian"

    @property
    def class_threshold(self) -> float | None:
        """The threshold as a number, in the spec of a plan, which has resolved val."""
        assert self.threshold != "val"
        return self.threshold

    @property
    def nominal_tile(self) -> int:
        """Side of a tile for estimates: the given one, or a typical one."""
        return 1024 if self.tile == "auto" else self.tile

    @property
    def nominal_margin(self) -> int:
        """Margin for estimates: the given one, or a typical one."""
        return 64 if self.margin == "auto" else self.margin

    @property
    def shard_index(self) -> tuple[int, int] | None:
        """(i, n) of the shard."""
        if self.shard is None:
            return None
        index, _, count = self.shard.partition("/")
        return int(index), int(count)

    @model_validator(mode="after")
    def _require_one_pixel_size(self) -> "PredictSpec":
        if self.resample and self.any_pixel_size:
            raise ValueError("resample and any_pixel_size exclude each other; choose one")
        return self

    @model_validator(mode="after")
    def _require_precision_of_engine(self) -> "PredictSpec":
        if self.engine != "auto" and self.precision not in ("auto", BACKENDS[self.engine].precision):
            raise ValueError(
                f"engine {self.engine} computes in precision {BACKENDS[self.engine].precision}, not in "
                f"{self.precision}; choose one of them"
            )
        return self

    @model_validator(mode="after")
    def _require_choice_by_tolerance(self) -> "PredictSpec":
        is_tiled = "auto" not in (self.tile, self.margin)
        if "tolerance" in self.model_fields_set and is_tiled and (self.precision == "32" or self.engine != "auto"):
            raise ValueError(
                f"tolerance is {self.tolerance:g}, but it chooses nothing: tile and margin are given, and no engine of "
                "16 bits is to be chosen; leave out tolerance, or let tile or margin be auto"
            )
        return self

    @model_validator(mode="after")
    def _require_engine_for_threads(self) -> "PredictSpec":
        if self.dask is not None and self.engine != "auto" and BACKENDS[self.engine].is_of_one_thread:
            raise ValueError(
                f"engine {self.engine} runs in the main thread, but dask runs units in others; choose another engine, "
                "such as torch-bf16, or leave out dask"
            )
        return self

    @field_validator("shard")
    @classmethod
    def _require_shard(cls, value: str | None) -> str | None:
        if value is not None:
            index, _, count = value.partition("/")
            if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
                raise ValueError("expected i/n with i from 1 to n, such as 3/8")
        return value
