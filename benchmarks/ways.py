"""Ways to map a raster with one network, each in a process of its own: ours, peers' through their own packages.

    python benchmarks/ways.py WAY MODEL IMAGE OUT [--threads 2]

WAY is a name of WAYS; after "landscribe" settings of PredictSpec may follow ("landscribe margin=auto"). All start from
the same Landscribe model folder. Prints one line of JSON: the seconds of the work, those of the processor (on a busy
machine the more telling ones, with one thread), and the process's peak memory.
Libraries are imported and the network is loaded before the clock starts, the same for all.
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
"""What the clock measures."""

FORWARD_TILE = 512
LECTURE_TILE, LECTURE_STRIDE, LECTURE_CROP = 256, 128, 50
TORCHGEO_CHIP, TORCHGEO_BATCH = 256, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("way")
    parser.add_argument("model", type=Path)
    parser.add_argument("image", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    name, *settings = given.way.split()
    work = WAYS[name](Model.load(given.model), given.image, given.out, **dict(pair.split("=") for pair in settings))
    started, before = time.perf_counter(), time.process_time()
    work()
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - before
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_mib": peak_mib()}))


def peak_mib() -> float:
    """Peak memory of this process. What getrusage says may be the parent's, from before this one had its own."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS counts in bytes


def landscribe(model: Model, image: Path, out: Path, **settings: str) -> Work:
    """`landscribe predict`, all of it: from the raster to the Cloud Optimized GeoTIFF with its side files."""
    import landscribe.prediction.mapping  # noqa: F401  # what the verb would import within the measured time
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
    """The whole raster through the network at once: what every tiling only approximates."""
    network = on_unit_range(model)

    def work() -> None:
        with torch.inference_mode():
            logits = network(torch.from_numpy(_read(image))[None].float() / 255)
        _write(out, logits[0].argmax(0).to(torch.uint8).numpy(), image)

    return work


def lecture(model: Model, image: Path, out: Path) -> Work:
    """The lecture's way: tiles of 256 at every 128 pixels, one at a time, less 50 at each edge; the last one stays.

    Tiles that would reach beyond the raster are shifted back into it, also where one lies there already; the raster's
    own edges are kept.
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
    """Where a tile begins, and what is kept of it."""
    for number in range(math.ceil(length / LECTURE_STRIDE)):
        start = min(number * LECTURE_STRIDE, length - LECTURE_TILE)
        stop = start + LECTURE_TILE
        yield start, slice(start + LECTURE_CROP * (start > 0), stop - LECTURE_CROP * (stop < length))


def predict_geotiff(model: Model, image: Path, out: Path) -> Work:
    """geoai's generic function at its defaults (256/64, spline); of its scores only the best class is written."""
    from geoai.inference import predict_geotiff

    return lambda: predict_geotiff(
        on_unit_range(model), str(image), str(out), num_classes=len(model.classes),
        postprocess_fn=lambda scores: scores.argmax(axis=0), output_dtype="uint8", output_nodata=255, device="cpu",
    )  # fmt: skip


def semantic_inference(model: Model, image: Path, out: Path) -> Work:
    """geoai's function for networks that it trained, at its defaults (512/256, blended)."""
    from geoai.train import semantic_inference_on_geotiff

    return lambda: semantic_inference_on_geotiff(
        on_unit_range(model), str(image), str(out), num_classes=len(model.classes), device=torch.device("cpu")
    )


def torchgeo(model: Model, image: Path, out: Path) -> Work:
    """torchgeo's dataset, GridGeoSampler (its stride: no overlap) and loader; stitching is left to the user."""
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
                col, row = (round(place) for place in ~transform * (x.start, y.stop))
                # Chips in the last row and column may reach beyond the raster: northward, as rows are counted from
                # the south.
                above = max(0, -row)
                kept = part[above:, : shape[1] - col]
                result[row + above : row + above + len(kept), col : col + kept.shape[1]] = kept
        _write(out, result, image)

    return work


WAYS: dict[str, Callable[..., Work]] = {
    "forward": forward,
    "single_pass": single_pass,
    "landscribe": landscribe,
    "lecture": lecture,
    "predict_geotiff": predict_geotiff,
    "semantic_inference": semantic_inference,
    "torchgeo": torchgeo,
}
PEERS = ("predict_geotiff", "semantic_inference", "torchgeo")
"""Those that need the peers' packages."""


class OneLayer(nn.Module):
    """A single 1 x 1 convolution: all else of a mapping is what there is to measure."""

    reduction = 1

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 6, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class _OnUnitRange(nn.Module):
    """A model's network with its scaling in front of it."""

    def __init__(self, model: Model, factor: Tensor, offset: Tensor) -> None:
        super().__init__()
        self.network = model.network
        self.register_buffer("factor", factor)
        self.register_buffer("offset", offset)

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x * self.factor + self.offset)


def on_unit_range(model: Model) -> nn.Module:
    """The network for pixels divided by 255, as peers give them: with the model's own scaling where it has another."""
    factor = torch.tensor(model.scaling.factor).view(1, -1, 1, 1)
    offset = -torch.tensor(model.scaling.offset).view(1, -1, 1, 1) * factor
    is_same = torch.allclose(factor * 255, torch.ones(())) and not offset.any()
    return model.network if is_same else _OnUnitRange(model, factor * 255, offset)


def _read(image: Path) -> np.ndarray:
    with rasterio.open(image) as source:
        return source.read()


def _write(out: Path, classes: np.ndarray, image: Path) -> None:
    """With the layout of the image, as the scripts of users do it."""
    with rasterio.open(image) as source:
        profile = source.profile | {"count": 1, "dtype": "uint8", "nodata": None}
    profile.pop("photometric", None)
    with rasterio.open(out, "w", **profile) as target:
        target.write(classes, 1, window=Window(0, 0, classes.shape[1], classes.shape[0]))


if __name__ == "__main__":
    main()
