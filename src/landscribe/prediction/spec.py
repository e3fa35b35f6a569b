"""The settings of prediction. No training setting is among them: the Model carries what it needs."""

from pydantic import Field

from landscribe.spec import Spec


class PredictSpec(Spec):
    """How a raster is mapped."""

    tile: int = Field(1024, ge=32)
    """Side in pixels of what the network reads at once; rounded down to the network's stride."""
    margin: int = Field(64, ge=0)
    """Pixels of context between a tile's edge and what is kept of it."""
    unit: int = Field(2048, ge=32)
    """Side in pixels of what is read, mapped and written in one piece."""
    batch: int | None = Field(None, ge=1)
    """Tiles at once; 1 on a CPU, 4 on a GPU if left out."""
    bands: tuple[int, ...] | None = None
    """Numbers (from 1) of the raster's bands to use, in the model's order; all if left out."""
    any_pixel_size: bool = False
    """Map although the raster's pixels are not as large as those that the model was trained on."""
    device: str = "auto"
    """auto, cpu, cuda, mps, …"""
