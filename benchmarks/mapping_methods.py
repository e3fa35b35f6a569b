"""Methods that map a raster with one network, each in its own process: landscribe, and peers by their packages.

    python benchmarks/mapping_methods.py METHOD MODEL IMAGE OUT [--threads 2]

METHOD is a name of METHODS; after "landscribe" settings of PredictSpec may follow ("landscribe margin=auto"). All start
from the same Landscribe model folder. Prints one line of JSON: wall-clock seconds, processor seconds (more reliable on
a busy machine, with one thread), and the peak memory of the process. Libraries are imported and the network is loaded
before the clock starts.
"""

import argparse
import json
import math
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import rasterio
import torch
from rasterio.windows import Window
from torch import Tensor, nn

from landscribe.model import Model

Work = Callable[[], object]
"""The timed call."""

FORWARD_TILE = 512
LECTURE_TILE, LECTURE_STRIDE, LECTURE_CROP = 256, 128, 50
TORCHGEO_CHIP, TORCHGEO_BATCH = 256, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method")
    parser.add_argument("model", type=Path)
    parser.add_argument("image", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    name, *settings = given.method.split()
    model = Model.load(given.model, trust="mapping_methods:OneLayer")
    work = METHODS[name](model, given.image, given.out, **dict(pair.split("=") for pair in settings))
    started, before = time.perf_counter(), time.process_time()
    work()
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - before
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_mib": peak_mib()}))


def peak_mib() -> float:
    """Peak memory of this process in MiB; getrusage on Linux may report that of the parent process."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS counts in bytes


def landscribe(model: Model, image: Path, out: Path, **settings: str) -> Work:
    """The whole of `landscribe predict`: from the raster to the Cloud Optimized GeoTIFF with its side files."""
    import landscribe.prediction.mapping  # noqa: F401  # otherwise imported within the timed call
    from landscribe import verbs

    return lambda: verbs.predict(model, [image], out=out, overwrite=True, **settings)


def forward(model: Model, image: Path, _out: Path) -> Work:
    """The bare network over the pixels, in tiles without overlap; reading is not measured, and nothing is written."""
    pixels = _read(image)
    network = on_unit_range(model)

    def work() -> None:
        with torch.inference_mode():
            for row in range(0, pixels.shape[1], FORWARD_TILE):
                for col in range(0, pixels.shape[2], FORWARD_TILE):
                    tile = pixels[:, row : row + FORWARD_TILE, col : col + FORWARD_TILE]
                    network(torch.from_numpy(tile)[None].float() / 255).argmax(1)

    return work


def single_pass(model: Model, image: Path, out: Path) -> Work:
    """The whole raster through the network at once: the reference for every tiling."""
    network = on_unit_range(model)

    def work() -> None:
        with torch.inference_mode():
            logits = network(torch.from_numpy(_read(image))[None].float() / 255)
        _write(out, logits[0].argmax(0).to(torch.uint8).numpy(), image)

    return work


def lecture(model: Model, image: Path, out: Path) -> Work:
    """The lecture's method: tiles of 256 pixels at a stride of 128, one at a time, cropped by 50 pixels at each edge.

    Where tiles overlap, the last one is kept. Tiles that would reach outside the raster are shifted inward, also onto
    an existing tile; the edges of the raster are not cropped.
    """
    network = on_unit_range(model)

    def work() -> None:
        pixels = _read(image)
        result = np.zeros(pixels.shape[1:], np.uint8)
        for row, rows in _lecture_tiles(result.shape[0]):
            for col, cols in _lecture_tiles(result.shape[1]):
                tile = pixels[:, row : row + LECTURE_TILE, col : col + LECTURE_TILE].astype(np.float32) / 255
                with torch.no_grad():
                    classes = network(torch.from_numpy(tile)[None])[0].argmax(0).numpy()
                kept = classes[rows.start - row : rows.stop - row, cols.start - col : cols.stop - col]
                result[rows, cols] = kept
        _write(out, result, image)

    return work


def _lecture_tiles(length: int) -> Iterator[tuple[int, slice]]:
    """The start of each tile along an axis, and its kept part."""
    for index in range(math.ceil(length / LECTURE_STRIDE)):
        start = min(index * LECTURE_STRIDE, length - LECTURE_TILE)
        stop = start + LECTURE_TILE
        yield start, slice(start + LECTURE_CROP * (start > 0), stop - LECTURE_CROP * (stop < length))


def predict_geotiff(model: Model, image: Path, out: Path) -> Work:
    """The generic function of geoai at its defaults (256/64, spline); only the most probable class is written."""
    from geoai.inference import predict_geotiff

    return lambda: predict_geotiff(
        on_unit_range(model), str(image), str(out), num_classes=len(model.classes),
        postprocess_fn=lambda scores: scores.argmax(axis=0), output_dtype="uint8", output_nodata=255, device="cpu",
    )  # fmt: skip


def semantic_inference(model: Model, image: Path, out: Path) -> Work:
    """The function of geoai for its own networks, at its defaults (512/256, blended)."""
    from geoai.train import semantic_inference_on_geotiff

    return lambda: semantic_inference_on_geotiff(
        on_unit_range(model), str(image), str(out), num_classes=len(model.classes), device=torch.device("cpu")
    )


def torchgeo(model: Model, image: Path, out: Path) -> Work:
    """Dataset, GridGeoSampler (without overlap) and loader of torchgeo; the stitching is ours, for it has none."""
    from torch.utils.data import DataLoader
    from torchgeo.datasets import RasterDataset, stack_samples
    from torchgeo.samplers import GridGeoSampler

    network = on_unit_range(model)

    def work() -> None:
        with rasterio.open(image) as source:
            transform, shape = source.transform, source.shape
        dataset = RasterDataset(str(image))
        sampler = GridGeoSampler(dataset, size=TORCHGEO_CHIP)
        result = np.zeros(shape, np.uint8)
        for batch in DataLoader(dataset, batch_size=TORCHGEO_BATCH, sampler=sampler, collate_fn=stack_samples):
            with torch.inference_mode():
                classes = network(batch["image"] / 255).argmax(1).to(torch.uint8).numpy()
            for part, (x, y, _) in zip(classes, batch["bounds"], strict=True):
                col, row = (round(value) for value in ~transform * (x.start, y.stop))
                # Chips in the last row and column may reach outside the raster: to the north, because torchgeo counts
                # rows from the south.
                above = max(0, -row)
                kept = part[above:, : shape[1] - col]
                result[row + above : row + above + len(kept), col : col + kept.shape[1]] = kept
        _write(out, result, image)

    return work


METHODS: dict[str, Callable[..., Work]] = {
    "forward": forward,
    "single_pass": single_pass,
    "landscribe": landscribe,
    "lecture": lecture,
    "predict_geotiff": predict_geotiff,
    "semantic_inference": semantic_inference,
    "torchgeo": torchgeo,
}
PEERS = ("predict_geotiff", "semantic_inference", "torchgeo")
"""Methods that need the packages of the peers."""


class OneLayer(nn.Module):
    """A single 1 x 1 convolution: the rest of the mapping is measured."""

    reduction = 1

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 6, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class _OnUnitRange(nn.Module):
    """A model's network with its scaling before it."""

    def __init__(self, model: Model, factor: Tensor, offset: Tensor) -> None:
        super().__init__()
        self.network = model.network
        self.register_buffer("factor", factor)
        self.register_buffer("offset", offset)

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x * self.factor + self.offset)


def on_unit_range(model: Model) -> nn.Module:
    """The network for pixels divided by 255, the scaling of the peers; a model with another scaling gets its own."""
    factor = torch.tensor(model.scaling.factor).view(1, -1, 1, 1)
    offset = -torch.tensor(model.scaling.offset).view(1, -1, 1, 1) * factor
    is_same = torch.allclose(factor * 255, torch.ones(())) and not offset.any()
    return model.network if is_same else _OnUnitRange(model, factor * 255, offset)


def _read(image: Path) -> np.ndarray:
    with rasterio.open(image) as source:
        return source.read()


def _write(out: Path, classes: np.ndarray, image: Path) -> None:
    """Write a map in the layout of the image."""
    with rasterio.open(image) as source:
        profile = source.profile | {"count": 1, "dtype": "uint8", "nodata": None}
    profile.pop("photometric", None)
    with rasterio.open(out, "w", **profile) as target:
        target.write(classes, 1, window=Window(0, 0, classes.shape[1], classes.shape[0]))


if __name__ == "__main__":
    main()
