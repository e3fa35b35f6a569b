"""The page of the lecture: its commands and its Python run and print what it shows; its pictures show networks."""

import contextlib
import contextvars
import io
import re
import shlex
import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from torch.nn import functional

import landscribe as ls
import lecture_maps
import lecture_networks
from landscribe.commands import app as cli
from landscribe.inference import pruning
from lecture import PICTURES
from lecture_style import save

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "lecture.md").read_text()


@dataclass(frozen=True)
class Snippet:
    """A block of code on the page, and the output that the page shows below it."""

    line: int
    language: str
    code: str
    shown: str | None


def snippets(page: str) -> list[Snippet]:
    """In the page's order."""
    blocks = re.finditer(r"```(sh|python)\n(.*?)```\n(?:\n```text\n(.*?)```\n)?", page, flags=re.DOTALL)
    return [Snippet(page[: block.start()].count("\n") + 1, *block.groups()) for block in blocks]


def printed_by(snippet: Snippet, names: dict[str, object]) -> str:
    """Run a snippet in this process; `names` are the variables of those before it."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        if snippet.language == "sh":
            for command in snippet.code.replace("\\\n", " ").splitlines():
                _run(shlex.split(command))
        else:
            exec(compile("\n" * snippet.line + snippet.code, "docs/lecture.md", "exec"), names)
    # Columns that are aligned to the left end with spaces.
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())


def _run(command: list[str]) -> None:
    typed, sys.argv = sys.argv, command
    try:
        # A context of its own, so that the bars that it shows end with it.
        with pytest.raises(SystemExit) as ended, contextlib.redirect_stderr(io.StringIO()) as messages:
            contextvars.copy_context().run(cli.main)
    finally:
        sys.argv = typed
    assert not ended.value.code, f"{shlex.join(command)}\n{messages.getvalue()}"


TOPICS = [
    "semantic segmentation", "FCN", "1 x 1 convolution", "nearest", "bilinear", "transposed convolution", "UNet",
    "skip connection", "dropout", "UNet++", "deep supervision", "accurate mode", "fast mode", "prun", "UNet-ID",
    "receptive field", "dilated (atrous)", "ASPP", "DeepLabv3+", "VGG", "ResNet", "pretrained", "frozen",
    "segmentation-models-pytorch", "chips", "ArcGIS Pro", "QGIS", "mask", "DataLoader", "sigmoid", "softmax", "logits",
    "rare", "Dice", "Tversky", "cross-entropy", "class weights", "unlabelled", "augment", "Albumentations", "margin",
    "CRS", "confusion matrix",
]  # fmt: skip


@pytest.mark.parametrize("topic", TOPICS)
def test_the_page_has_the_topics_of_the_lecture(topic):
    assert topic.lower() in PAGE.lower()


@pytest.mark.slow
def test_every_snippet_runs_and_prints_what_the_page_shows(tmp_path, monkeypatch):
    pytest.importorskip("segmentation_models_pytorch")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pruning, "_TRIAL_SIDE", 64)
    names: dict[str, object] = {}
    for snippet in snippets(PAGE):
        printed = printed_by(snippet, names)
        if snippet.shown is not None or (snippet.language == "python" and printed):
            assert snippet.shown == printed, f"docs/lecture.md, line {snippet.line}"


# ---- pictures


def texts(figure: Figure) -> set[str]:
    """All that is written in a picture, line by line."""
    return {line for text in figure.findobj(Text) for line in text.get_text().splitlines() if line}


def test_the_page_shows_the_pictures_that_are_drawn():
    shown = re.findall(r"!\[[^\]]+\]\((.*?)\)", PAGE)
    assert shown == [f"pictures/{name}.png" for name in PICTURES]
    assert sorted(path.name for path in (DOCS / "pictures").glob("*.png")) == sorted(f"{name}.png" for name in PICTURES)


@pytest.mark.parametrize("path", sorted((DOCS / "pictures").glob("*.png")), ids=lambda path: path.stem)
def test_a_picture_is_small_as_wide_as_a_page_and_on_white(path):
    assert path.stat().st_size < 80_000
    with Image.open(path) as picture:
        assert picture.width == 1056
        assert picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("name", ["upsampling", "dilation", "chip_and_mask", "augmentation"])
def test_a_picture_can_be_drawn(name, tmp_path):
    save(PICTURES[name](), tmp_path / "drawn.png")
    assert (tmp_path / "drawn.png").stat().st_size < 80_000


def test_the_shapes_of_the_unet_are_those_of_the_network():
    network = ls.nn.build("unet", encoder="plain", bands=3, classes=10).to("meta").eval()
    image = torch.zeros(1, 3, 256, 256, device="meta")
    features = network.features.encoder(image)
    outputs = [image, *features, network(image)]
    assert {" x ".join(map(str, output.shape[1:])) for output in outputs} <= texts(lecture_networks.unet())


def test_the_nodes_of_the_unetplusplus_are_those_of_the_network():
    network = ls.nn.build("unetplusplus", encoder="plain", bands=3, classes=5)
    nodes = {name.replace("_", ", ") for name in network.nodes} | {f"{i}, 0" for i in range(network.deepest + 1)}
    branches = {f"branch {branch}" for branch in network.heads}
    written = texts(lecture_networks.unetplusplus())
    assert {text for text in written if re.fullmatch(r"\d, \d", text)} == nodes
    assert {text for text in written if text.startswith("branch")} == branches


def test_the_rates_and_channels_of_the_aspp_are_those_of_the_network():
    pyramid = ls.nn.build("deeplabv3plus", encoder="resnet18", bands=3, classes=5).pyramid
    rates = {f"3 x 3, rate {branch[0].dilation[0]}" for branch in pyramid.atrous}
    joined = pyramid.mix[0].in_channels
    written = texts(lecture_networks.aspp())
    assert {text for text in written if "rate" in text} == rates
    assert f"{joined} x 64 x 64" in written


def test_the_dilated_kernels_are_as_wide_as_their_rate_says():
    widths = {f"9 weights, {2 * rate + 1} x {2 * rate + 1} pixels" for rate in (1, 2, 3)}
    assert widths <= texts(lecture_networks.dilation())


def test_the_upsampled_arrays_are_those_of_torch():
    array, kernel = torch.rand(3, 4), torch.rand(2, 2)
    for mode, aligned in [("nearest", None), ("bilinear", False)]:
        expected = functional.interpolate(array[None, None], scale_factor=2, mode=mode, align_corners=aligned)
        torch.testing.assert_close(lecture_networks.upsampled(array, mode), expected[0, 0])
    torch.testing.assert_close(lecture_networks.upsampled(array, "transposed", kernel), torch.kron(array, kernel))


@pytest.fixture
def untrained(monkeypatch) -> ls.Model:
    """A network with random weights that predicts several classes, instead of the trained one."""
    torch.manual_seed(0)
    network = ls.nn.build("unet", encoder="plain", encoder_widths=[8, 8, 8, 8], bands=3, classes=5)
    classes = [name for name, _, _ in lecture_maps.CLASSES]
    model = ls.Model.wrap(network, bands=["red", "green", "blue"], classes=classes, scale=1 / 255)
    network.eval()
    with torch.no_grad():  # no class is predicted everywhere
        network.head.bias -= model(lecture_maps.scene().world.image[None]).mean(dim=(0, 2, 3))
    monkeypatch.setattr(lecture_maps, "model", lambda _: model)
    return model


def classes_of(model: ls.Model, image: np.ndarray) -> np.ndarray:
    """Class indices (rows, cols) of pixels (bands, rows, cols) in one pass."""
    with torch.no_grad():
        return model(image[None], torch.from_numpy(image.any(axis=0))[None])[0].argmax(dim=0).numpy()


def test_the_receptive_fields_are_those_of_the_network(untrained):
    written, table = texts(lecture_maps.receptive_field(steps=0)), ls.nn.summary(untrained.network, bands=3)
    assert f"logits: {table.receptive_field}" in written
    assert f"margin: {lecture_maps.margin_of(lecture_maps.effective_field(0))}" in written


def test_the_share_of_differing_pixels_is_that_of_tiles_without_margins(untrained):
    image, side = lecture_maps.scene().world.image, lecture_maps.TILE
    tiled = np.zeros(image.shape[1:], int)
    for row, col in product(range(0, len(tiled), side), repeat=2):
        part = slice(row, row + side), slice(col, col + side)
        tiled[part] = classes_of(untrained, image[:, *part])
    differing = (tiled != classes_of(untrained, image))[image.any(axis=0)].mean()
    assert differing > 0.01
    assert f"{differing:.2%} of the pixels differ from the untiled map" in texts(lecture_maps.margins(steps=0))
