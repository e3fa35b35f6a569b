"""The settings of prediction. No training setting is among them: the Model carries what it needs."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from landscribe.spec import Spec

CHOSEN = frozenset({"tile", "margin", "batch", "engine", "tolerance"})
"""Settings that are chosen for the machine where the user leaves them open. A fingerprint holds the choice."""
NOT_IN_FINGERPRINT = {
    "bands": "the fingerprint holds the raster's bands",
    "any_pixel_size": "the fingerprint holds the raster's grid",
    "resample": "the fingerprint holds the raster's grid",
    "crs": "the fingerprint holds the raster's grid",
    "probabilities_as": "the fingerprint holds the layers' dtypes",
    "check_seams": "reports, and changes no pixel",
    "dask": "where units run changes no pixel",
    "shard": "which units run here changes no pixel",
}
"""Settings that leave the map the same, with the reason. All others are fields of its fingerprint."""


class PredictSpec(Spec):
    """How a raster is mapped."""

    tile: Annotated[int, Field(ge=32)] | Literal["auto"] = "auto"
    """Side in pixels of what the network reads at once, rounded down to the network's stride; auto is as large as
    memory allows and the raster's sides make worth while."""
    margin: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    """Pixels of context between a tile's edge and what is kept of it; auto measures on the raster how many the network
    needs for a map that differs from a single pass in less than a thousandth of the pixels."""
    unit: int = Field(2048, ge=32)
    """Side in pixels of what is read, mapped and written in one piece; it holds a tile at least."""
    batch: int | None = Field(None, ge=1)
    """Tiles at once; if left out, 1 on a CPU, and on a GPU as many as keep it busy."""
    bands: tuple[int, ...] | None = None
    """Numbers (from 1) of the raster's bands to use, in the model's order; all if left out."""
    any_pixel_size: bool = False
    """Map although the raster's pixels are not as large as those that the model was trained on."""
    resample: bool = False
    """Read rasters of another pixel size in pixels of the model's, in which the map then lies; what is stacked, on the
    grid of the first."""
    crs: str | None = None
    """Map in another CRS, such as EPSG:32632, in pixels of the model's size."""
    device: str = "auto"
    """auto, cpu, cuda, mps, …"""
    tolerance: float = Field(1e-3, gt=0, lt=1)
    """Share of the pixels that may differ in class from a single pass, where tile or margin is auto."""
    check_seams: bool = False
    """Also map a sample with other tiles, and tell how often classes differ at seams and elsewhere."""
    engine: Literal["auto", "torch", "onnx", "openvino"] = "auto"
    """What runs the network: torch, onnx, openvino; auto takes the fastest that is installed, once the model is tried
    on this machine."""
    blend: Literal["none", "gaussian"] = "none"
    """gaussian averages overlapping tiles, the middle of each counting most, rather than cut them where they meet."""
    minimum_area: float | None = Field(None, gt=0)
    """Square metres of the smallest patch that stays in the map; smaller ones go to the classes around them."""
    probabilities_as: Literal["uint8", "float32"] = "uint8"
    """How probabilities are stored: in steps of 1/254, or as they are."""
    tta: bool = False
    """Test-time augmentation: average 8 flips and rotations of each tile (8 times slower)."""
    area: str | None = None
    """Polygons that alone are mapped; all of the raster if left out."""
    dask: str | None = None
    """Map on many processes or machines: auto for the cores of this one, or a scheduler's address or file."""
    shard: str | None = None
    """i/n: only every n-th unit from the i-th on, for arrays of jobs; without it, the same command makes the map."""

    @property
    def is_blended(self) -> bool:
        """True if overlapping tiles are averaged."""
        return self.blend == "gaussian"

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

    @field_validator("shard")
    @classmethod
    def _require_shard(cls, value: str | None) -> str | None:
        if value is not None:
            index, _, count = value.partition("/")
            if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
                raise ValueError("expected i/n with i from 1 to n, such as 3/8")
        return value
