"""The block table against published numbers and numbers worked out by hand."""

import pytest

from landscribe.nn import build
from landscribe.nn.summary import summary


# Araujo, Norris & Sim 2019, "Computing Receptive Fields of Convolutional Neural Networks", Distill: table 1; for
# ResNet-18 by their formula: 7, 11, then 32, 56, 112 and 224 more a stage.
@pytest.mark.parametrize(("encoder", "side"), [("resnet18", 435), ("mobilenetv1_100", 315)])
def test_receptive_fields_are_those_of_the_literature(encoder, side):
    blocks = summary(build("unet", encoder=encoder, bands=3, classes=2, widths=[8]), bands=3).blocks
    assert [block.receptive_field for block in blocks if "encoder" in block.name][-1] == side


def test_the_unet_of_the_lecture_block_by_block():
    table = summary(build("unet", encoder="plain", bands=3, classes=10), bands=3, size=128)
    assert [block.shape for block in table.blocks] == [
        (64, 128, 128), (128, 64, 64), (256, 32, 32), (512, 16, 16), (1024, 8, 8),
        (512, 16, 16), (256, 32, 32), (128, 64, 64), (64, 128, 128), (10, 128, 128),
    ]  # fmt: skip
    # Two 3 x 3 convolutions: 5 pixels. Each level below adds 1 for the pool and 4, at twice the step before.
    assert [block.receptive_field for block in table.blocks[:5]] == [5, 14, 32, 68, 140]
    assert sum(block.parameters for block in table.blocks) == table.parameters
    # First block: 3 x 64 and 64 x 64 kernels of 9, a multiplication and an addition each, at every pixel.
    assert table.blocks[0].flops_per_megapixel == pytest.approx(2e6 * 9 * (3 * 64 + 64 * 64))
    assert sum(block.flops_per_megapixel for block in table.blocks) == pytest.approx(table.flops_per_megapixel)


def test_a_block_that_depends_on_the_whole_image_has_no_receptive_field():
    table = summary(build("deeplabv3plus", encoder="test_resnet", bands=4, classes=2, channels=16), bands=4, size=64)
    fields = {block.name: block.receptive_field for block in table.blocks}
    assert fields["pyramid"] is None
    assert table.receptive_field is None
    assert fields["low_level"] is not None


PLAIN = {"encoder": "plain", "encoder_widths": [4, 8]}
FPN = {"encoder": "mobilenetv3_small_050", "decoder_pyramid_channels": 16, "decoder_segmentation_channels": 32}
BACKBONE = {"encoder": "test_resnet", "widths": [16, 8]}


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("fcn", PLAIN), ("unet", BACKBONE), ("unetplusplus", PLAIN), ("unet_id", PLAIN), ("smp:FPN", FPN),
        ("networks:Striding", {}),
    ],
)  # fmt: skip
def test_every_parameter_is_in_a_row(architecture, options):
    table = summary(build(architecture, bands=3, classes=2, **options), bands=3, size=64)
    assert sum(block.parameters for block in table.blocks) == table.parameters
    # FPN normalises over the whole image.
    assert (table.receptive_field is None) == (architecture == "smp:FPN")


def test_an_image_of_a_million_pixels_a_side_takes_no_memory():
    network = build("unet", encoder="plain", encoder_widths=[8, 16], bands=3, classes=2)
    assert summary(network, bands=3, size=10**6).shape == (3, 10**6, 10**6)
