"""External networks keep the same contract."""

import pytest
import segmentation_models_pytorch as smp
import torch
from contract import NetworkContract
from torch import nn

from landscribe.errors import NetworkError
from landscribe.model import Model
from landscribe.nn import Segmentation, build
from landscribe.nn.architectures.external import require_image_side

SMP = [
    ("smp:FPN", "resnet10t", {}), ("smp:PSPNet", "resnet18", {}), ("smp:UPerNet", "mobilenetv3_small_050", {}),
    ("smp:Segformer", "resnet18", {}), ("smp:Unet", "resnet18", {"decoder_channels": [64, 32, 32, 16, 16]}),
]  # fmt: skip


class Small(nn.Module):
    """A user's network."""

    reduction = 4

    def __init__(self, in_channels: int, num_classes: int, width: int = 4) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(in_channels, width, 4, stride=4), nn.BatchNorm2d(width), nn.ReLU())
        self.decoder = nn.ConvTranspose2d(width, num_classes, 4, stride=4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.encoder(x))


class Open(Small):
    """Takes any arguments."""

    def __init__(self, **given) -> None:
        super().__init__(given["bands"], given["classes"])


class Stubborn(Small):
    """Always has seven classes."""

    def __init__(self, in_channels: int) -> None:
        super().__init__(in_channels, 7)


class Probable(Small):
    """Returns probabilities."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).softmax(1)


class Failing(nn.Module):
    """Cannot be built."""

    def __init__(self) -> None:
        raise OSError("no license_terms server")


class Nested(Segmentation):
    """A user's Segmentation with a training loss of its own."""

    def __init__(self, bands: int, classes: int) -> None:
        super().__init__(1, {"classes": classes})
        self.layer = nn.Conv2d(bands, classes, 1)

    def forward_padded(self, images: torch.Tensor) -> torch.Tensor:
        return self.layer(images)


class TestExternal(NetworkContract):
    """The contract, for all of them."""

    @pytest.fixture(
        scope="class", params=[*SMP, ("test_external:Small", "plain", {"width": 6})], ids=lambda case: case[0]
    )
    @classmethod
    def case(cls, request):
        return request.param

    def test_finite_gradients_reach_every_parameter(self, case, network):
        if case[0] == "smp:PSPNet":
            pytest.skip("PSPNet leaves the encoder's last stages unused")
        super().test_finite_gradients_reach_every_parameter(network)

    def test_a_frozen_encoder_is_unchanged_and_all_other_parameters_learn(self, case, network):
        if case[0] == "smp:PSPNet":
            pytest.skip("PSPNet leaves the encoder's last stages unused")
        super().test_a_frozen_encoder_is_unchanged_and_all_other_parameters_learn(network)

    def test_one_image_is_enough_to_train_on(self, case, network):
        if case[0] in ("smp:PSPNet", "smp:UPerNet"):
            pytest.skip("its pooled branch is normalised over one pixel")
        super().test_one_image_is_enough_to_train_on(network)


def test_a_class_gets_the_arguments_that_it_names():
    network = build("test_external:Small", bands=5, classes=3, width=7)
    assert network.network.encoder[0].in_channels == 5
    assert network.network.encoder[0].out_channels == 7
    assert network.reduction == 4


@pytest.mark.parametrize(
    ("architecture", "options", "words"),
    [
        ("smp:FNP", {}, "did you mean 'FPN'"),
        ("smp:FPN", {"decoder_dropuot": 0.1}, "did you mean 'decoder_dropout'"),
        ("test_external:Smal", {}, "cannot be imported"),
        ("nowhere:Network", {}, "cannot be imported"),
        ("test_external:SMP", {}, "not a torch module"),
        ("test_external:Small", {"widht": 3}, "did you mean 'width'"),
        ("test_external:Small", {"weights": "imagenet"}, "takes no weights"),
        ("test_external:Stubborn", {}, "one for each class and pixel"),
        ("test_external:Probable", {}, "ends with a softmax, so that it returns probabilities"),
        ("smp:FPN", {"activation": "sigmoid"}, "the activation of smp:FPN is 'sigmoid'. Expected none"),
        ("test_external:Failing", {}, "no license_terms server"),
        ("torchvision.models:VGG", {}, "cannot be built with"),
        (".x:B", {}, "cannot be imported"),
    ],
)
def test_a_network_that_cannot_be_built_is_refused_with_the_reason(architecture, options, words):
    with pytest.raises(NetworkError, match=words):
        build(architecture, bands=3, classes=2, **options)


def test_a_network_that_takes_no_small_images_is_loaded_and_refuses_small_chips(tmp_path):
    wrapped = Model.wrap(
        smp.PAN("resnet18", encoder_weights=None, classes=2), bands=["r", "g", "b"], classes=["a", "b"]
    )
    network = Model.load(wrapped.save(tmp_path / "model")).network
    require_image_side(network, 3, 128)
    with pytest.raises(NetworkError, match=r"does not take images of 64 x 64 pixels: .* Use larger chips"):
        require_image_side(network, 3, 64)


def test_an_unknown_encoder_of_smp_is_refused():
    with pytest.raises(NetworkError, match="resnet81"):
        build("smp:FPN", encoder="resnet81", bands=3, classes=2)


def test_an_encoder_of_smp_takes_a_weight_file_and_any_bands(tmp_path):
    torch.manual_seed(1)
    donor = build("smp:FPN", encoder="resnet18", bands=3, classes=2).network.encoder
    torch.save(donor.state_dict(), tmp_path / "encoder.pth")
    network = build(
        "smp:FPN", encoder="resnet18", bands=["blue", "green", "red", "nir"], classes=2,
        weights=str(tmp_path / "encoder.pth"),
    )  # fmt: skip
    encoder = network.network.encoder
    assert torch.equal(encoder.layer1[0].conv1.weight, donor.layer1[0].conv1.weight)
    torch.testing.assert_close(encoder.conv1.weight[:, 3], donor.conv1.weight[:, 0] / 2)
    assert network.eval()(torch.rand(1, 4, 64, 64)).shape == (1, 2, 64, 64)


def test_a_class_of_any_arguments_gets_bands_and_classes():
    assert build("test_external:Open", bands=5, classes=3).network.encoder[0].in_channels == 5


def test_an_external_segmentation_is_not_wrapped_again():
    assert isinstance(build("test_external:Nested", bands=3, classes=2), Nested)


def test_a_file_that_does_not_fit_an_encoder_of_smp_names_the_layers(tmp_path):
    donor = build("smp:FPN", encoder="resnet18", bands=3, classes=2).network.encoder.state_dict()
    torch.save(donor | {"layer2.0.conv1.weight": torch.zeros(3)}, tmp_path / "odd.pth")
    with pytest.raises(NetworkError, match=r"layer2\.0\.conv1\.weight"):
        build("smp:FPN", encoder="resnet18", bands=3, classes=2, weights=str(tmp_path / "odd.pth"))
