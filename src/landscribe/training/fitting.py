"""Train a network on chips."""

import logging
import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from numpy.typing import NDArray

from landscribe import progress
from landscribe.data.augment_spec import AugmentSpec
from landscribe.data.chips import Chips
from landscribe.data.dataset import loader
from landscribe.data.sampling import ChipSampler, repeats
from landscribe.data.stats import band_statistics, class_weights
from landscribe.errors import ChipError, NetworkError
from landscribe.model import Model, Scaling
from landscribe.nn import Segmentation, build
from landscribe.nn.stems import normalisation
from landscribe.nn.weights import choose_weights, colours_expected, licence
from landscribe.outputs import refuse_existing
from landscribe.training.segmenter import Segmenter
from landscribe.training.spec import TrainSpec

log = logging.getLogger(__name__)


def train(
    chips: Chips,
    out: Path,
    *,
    spec: TrainSpec,
    augmentation: AugmentSpec,
    seed: int = 0,
    overwrite: bool = False,
) -> Model:
    """Train on the chips of split "train", choose the epoch by those of "val", and save the model.

    Args:
        chips: of all splits.
        out: the model folder to make.
        spec: network, budget, optimiser, loss.
        augmentation: how chips are changed.
        seed: of weights, order and augmentation. The same seed gives the same model on the same machine
            (unless the budget is in minutes).
        overwrite: replace a folder that holds something.

    Returns:
        The model of the best epoch.

    Raises:
        ChipError: no chip to train on.
        NetworkError: unknown names, weights that do not fit, a loss that is not finite.
        OutputError: `out` holds something, or cannot be written.
    """
    refuse_existing(out, overwrite=overwrite)
    training, validation = chips.of_split("train"), chips.of_split("val")
    if not len(training):
        splits = chips.table["split"].value_counts().to_dict()
        raise ChipError(
            f"{chips.folder} has no chip of split train (it has {splits}). Hold out less, or cut more chips."
        )
    lightning.seed_everything(seed, workers=True, verbose=False)
    network, said, terms = _network(chips, spec)
    log.info(said)
    model = Model.wrap(
        network,
        bands=chips.head.bands,
        classes=chips.classes,
        scale=_scaling(training, spec.encoder, pretrained=terms["source"] != "none"),
        pixel_size=chips.head.pixel_size,
        dtype=chips.head.dtype,
        nodata=chips.head.nodata,
        chip_size=chips.head.size,
    )
    segmenter = _fit(model, network, (training, validation), spec, augmentation, seed)
    network.load_state_dict(segmenter.best[1])
    model.network = network.cpu().eval()
    model.history = segmenter.history
    model.measures = _measures(segmenter)
    model.provenance = {
        "landscribe": version("landscribe"),
        "torch": torch.__version__,
        "chips_sha256": chips.sha256,
        "seed": seed,
        "weights": said,
        "encoder_weights": terms,
        "settings": spec.model_dump(mode="json"),
        "augment": augmentation.model_dump(mode="json", exclude_none=True),
    }
    model.save(out, overwrite=overwrite)
    return model


def _network(chips: Chips, spec: TrainSpec) -> tuple[Segmentation, str, dict[str, Any]]:
    """Build the network; say in one line which weights it starts from, and under which terms these are."""
    weights, said = choose_weights(spec.weights, spec.encoder)

    def built(weights: str | None) -> Segmentation:
        return build(
            spec.architecture, bands=chips.head.bands, classes=len(chips.classes),
            encoder=spec.encoder, weights=weights, **spec.options,
        )  # fmt: skip

    try:
        network = built(weights)
    except NetworkError as error:
        if spec.weights != "auto" or weights is None:
            raise
        # The hub answered but did not deliver: "auto" goes on without, and says so.
        weights, said = None, f"weights: none ({str(error).split('. ', 1)[0]})"
        network = built(None)
    if weights is None and spec.freeze:
        log.warning(
            "%s: frozen although it starts from random weights, so that nothing is learned there. "
            "Give weights, or leave out freeze.",
            ", ".join(spec.freeze),
        )
    if weights == "imagenet" and spec.architecture.startswith("smp:"):
        return network, said, {"source": "imagenet", "license": "that of segmentation-models-pytorch's weights"}
    return network, said, licence(spec.encoder, weights)


def _scaling(training: Chips, encoder: str, *, pretrained: bool) -> Scaling:
    """How the network sees pixels, band by band.

    uint8 to 0..1, or with pretrained weights to the mean and deviation of the images that these were trained on; any
    other dtype to mean 0 and standard deviation 1 of the training chips.
    """
    bands = len(training.head.bands)
    if training.head.dtype == "uint8" and pretrained:
        expected, spread = normalisation(training.head.bands, *colours_expected(encoder))
        return Scaling(
            offset=tuple(255 * mean for mean in expected), factor=tuple(1 / (255 * deviation) for deviation in spread)
        )
    if training.head.dtype == "uint8":
        return Scaling(offset=(0.0,) * bands, factor=(1 / 255,) * bands)
    means, deviations = band_statistics(training)
    # A constant band carries nothing; it is shifted to 0 rather than divided by 0.
    factors = 1 / np.where(deviations > 0, deviations, 1.0)
    return Scaling(offset=tuple(means.tolist()), factor=tuple(factors.tolist()))


def _fit(
    model: Model,
    network: Segmentation,
    splits: tuple[Chips, Chips],
    spec: TrainSpec,
    augmentation: AugmentSpec,
    seed: int,
) -> Segmenter:
    training, validation = splits
    workers = spec.workers if spec.workers is not None else _default_workers()
    wanted = repeats(training, balanced=spec.sampling == "balanced", background=spec.background)
    batches = loader(training, batch=spec.batch, workers=workers, order=ChipSampler(wanted, seed=seed))
    held_out = loader(validation, batch=spec.batch, workers=workers)
    total = spec.total_steps(len(batches))
    weights = torch.from_numpy(_class_weights(training, spec)).float()
    segmenter = Segmenter(
        model, network, spec, total,
        seed=seed, validates=len(validation) > 0, weights=weights, augmentation=augmentation,
    )  # fmt: skip
    model.network.to(memory_format=torch.channels_last)
    with (
        progress.task("training", total or math.ceil(60 * (spec.minutes or 0))) as advance,
        _quiet_lightning(),
    ):
        trainer = lightning.Trainer(
            accelerator="auto",
            devices=1,
            precision="bf16-mixed" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "32-true",
            max_steps=total or -1,
            max_epochs=-1,
            max_time={"seconds": math.ceil(60 * spec.minutes)} if spec.minutes else None,
            gradient_clip_val=spec.gradient_clip or None,
            num_sanity_val_steps=0,
            callbacks=[_Report(advance, by_time=total is None)],
            use_distributed_sampler=False,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        try:
            trainer.fit(segmenter, batches, held_out if len(validation) else None)
            if len(validation) and segmenter.is_epoch_open:
                # A budget that ends within an epoch leaves it without validation.
                trainer.validate(segmenter, held_out, verbose=False)
        except SystemExit:
            # On Ctrl-C Lightning ends the process; here whoever called decides.
            raise KeyboardInterrupt from None
    segmenter.close_epoch()
    segmenter.thaw()
    return segmenter


def _class_weights(training: Chips, spec: TrainSpec) -> NDArray[np.float64]:
    """(K,) weights that were given, or that the chips ask for."""
    if isinstance(spec.class_weights, str):
        return class_weights(training, spec.class_weights)
    names = training.classes.names
    if len(spec.class_weights) != len(names):
        raise ChipError(
            f"{len(spec.class_weights)} class weights were given for {len(names)} classes ({', '.join(names)}). "
            "One for each, in this order, was expected."
        )
    return np.array(spec.class_weights, np.float64)


def _default_workers() -> int:
    """On a GPU, reading beside computing pays; on the CPU it would take the cores that compute."""
    return min(8, (os.cpu_count() or 1) - 1) if torch.cuda.is_available() else 0


class _Report(lightning.Callback):
    """Tells the progress bar about steps and the last epoch's F1."""

    def __init__(self, advance: progress.Advance, *, by_time: bool) -> None:
        self.advance = advance
        self.by_time = by_time
        self._seconds = 0

    def on_train_batch_end(self, trainer: Any, segmenter: Any, outputs: Any, *_: Any) -> None:
        """One step is done."""
        steps = 1
        if self.by_time:
            seconds = int(segmenter.share_done() * 60 * segmenter.spec.minutes)
            steps, self._seconds = seconds - self._seconds, seconds
        note = f"epoch {trainer.current_epoch + 1}, loss {float(outputs['loss']):.3f}"
        if segmenter.history and segmenter.history[-1]["val_mean_f1"] is not None:
            last = segmenter.history[-1]
            foreground = [entry.name for entry in segmenter.model.classes.foreground][:3]
            scores = ", ".join(f"{name} {last[f'val_f1_{name}'] or 0:.2f}" for name in foreground)
            note += f", F1 {scores}"
        self.advance(steps, note)


def _measures(segmenter: Segmenter) -> dict[str, Any]:
    """The row of the epoch that was kept."""
    scored = [row for row in segmenter.history if row["val_mean_f1"] is not None]
    return max(scored, key=lambda row: row["val_mean_f1"]) if scored else segmenter.history[-1]


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Lightning announces devices and tips; a user of this package gets its own lines."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        logger.setLevel(level)
