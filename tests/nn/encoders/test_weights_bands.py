"""Files of weights for any bands, in the layouts of torchvision, torchgeo and others, written by the tests."""

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st

from landscribe.errors import NetworkError
from landscribe.nn import build
from landscribe.nn.encoders.encoder import Encoder
from landscribe.nn.encoders.sensors import CODES, TABLES, FileBands, common_names, file_bands, named_bands
from landscribe.nn.encoders.stems import adapt_stem, resemblance
from landscribe.nn.encoders.weights import Weights, license_terms

NAME = "resnet10t"
STEM = "conv1.0.weight"
S2 = ["B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B10", "B11", "B12"]
IMAGE = ("B02", "B03", "B04", "B08")
BANDS = ["blue", "green", "red", "nir", "nir08", "rededge1", "swir16", "lwir", "VV", "VH", "pan", "elevation", "yellow"]


def state_of(bands: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(bands)
    return timm.create_model(NAME, pretrained=False, in_chans=bands).state_dict()


@pytest.fixture(scope="module")
def sentinel2(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "sentinel2.safetensors"
    safetensors.torch.save_file(state_of(13), path)
    return str(path)


def stem_of(path: str, bands: tuple[str, ...], weights_bands: tuple[str, ...]) -> torch.Tensor:
    body = Encoder(NAME, bands=len(bands), weights=Weights(path, weights_bands), band_names=bands).body
    return body.state_dict()[STEM]


# ---- laws


@given(
    st.lists(st.sampled_from(BANDS), min_size=1, unique=True), st.lists(st.sampled_from(BANDS), min_size=1, unique=True)
)
def test_an_image_of_equal_bands_has_the_features_of_equal_bands_of_the_file(bands, known):
    columns = resemblance(bands, named_bands(known)).sum(0)
    torch.testing.assert_close(columns, torch.ones(len(known)))


def features(bands, known, kernels, images):
    body = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3))
    adapt_stem(body, bands, FileBands(common_names(known, "sentinel2"), "sentinel2"), [kernels])
    body[0].bias.data.zero_()
    return body(images)


@given(st.data())
def test_the_order_of_bands_in_image_and_file_changes_nothing(data):
    known = data.draw(st.lists(st.sampled_from(BANDS), min_size=2, unique=True))
    bands = data.draw(st.lists(st.sampled_from(["B02", "B8A", *BANDS]), min_size=1, max_size=6, unique=True))
    if not set(common_names(bands, None)) & set(common_names(known, None)):
        return  # refused if none resembles another
    torch.manual_seed(0)
    kernels, images = torch.randn(4, len(known), 3, 3), torch.randn(1, len(bands), 8, 8)
    expected = features(bands, known, kernels, images)
    order = data.draw(st.permutations(range(len(bands))))
    permuted = features([bands[i] for i in order], known, kernels, images[:, list(order)])
    torch.testing.assert_close(permuted, expected, rtol=1e-4, atol=1e-4)
    order = data.draw(st.permutations(range(len(known))))
    permuted = features(bands, [known[i] for i in order], kernels[:, list(order)], images)
    torch.testing.assert_close(permuted, expected, rtol=1e-4, atol=1e-4)


@given(st.permutations(S2))
def test_an_image_of_the_bands_of_the_file_keeps_every_kernel(bands):
    assert torch.equal(resemblance(bands, TABLES["sentinel2-13"]), torch.eye(13)[[S2.index(band) for band in bands]])


# ---- known answers


def test_four_bands_take_the_kernels_of_thirteen_by_name(sentinel2):
    kernels = dict(zip(S2, state_of(13)[STEM].unbind(1), strict=True))
    stem = stem_of(sentinel2, IMAGE, ("sentinel2-13",))
    # Dropped: coastal goes to blue; narrow infrared and water vapour to infrared; red edge lies between red and
    # infrared; short-wave infrared resembles none of the four.
    everywhere = (kernels["B10"] + kernels["B11"] + kernels["B12"]) / 4
    red_edge = (kernels["B5"] + kernels["B6"] + kernels["B7"]) / 2
    expected = {
        "B02": kernels["B2"] + kernels["B1"] + everywhere,
        "B03": kernels["B3"] + everywhere,
        "B04": kernels["B4"] + red_edge + everywhere,
        "B08": kernels["B8"] + red_edge + kernels["B8A"] + kernels["B9"] + everywhere,
    }
    torch.testing.assert_close(stem, torch.stack([expected[band] for band in IMAGE], dim=1))


@pytest.mark.parametrize(
    ("image", "file", "shares"),
    [
        (["nir"], ["B4", "B8", "B8A"], [[1, 1, 1]]),  # nothing else to go to
        (["red", "nir"], ["B4", "B8", "B8A"], [[1, 0, 0], [0, 1, 1]]),
        (["nir", "yellow"], ["green", "red", "nir"], [[0, 0, 1], [1, 1, 0]]),  # between green and red
        (["VV", "HH"], ["VV", "VH"], [[0.5, 0.5], [0.5, 0.5]]),  # no cross-polarised band takes VH
        (["VH", "VV"], ["VV", "VH"], [[0, 1], [1, 0]]),
        (["VV", "HH"], ["HH", "VV"], [[0, 1], [1, 0]]),
        (["nir", "red"], ["red", "nir08"], [[0, 1], [1, 0]]),  # 23 nm apart: infrared of another sensor
        (["red", "elevation"], ["red", "nir"], [[2 / 3, 0], [1 / 3, 1]]),  # elevation is the mean of both
        (["ndvi", "red"], ["red", "ndvi"], [[0, 1], [1, 0]]),
        (["B4, central wavelength 665 nm", "B08_10m"], ["B08", "B04"], [[0, 1], [1, 0]]),
    ],
)
def test_shares_of_kernels_follow_from_names(image, file, shares):
    torch.testing.assert_close(resemblance(image, named_bands(file)), torch.tensor(shares, dtype=torch.float32))


@pytest.mark.parametrize(("name", "common"), [("B02", "blue"), ("b2", "blue"), ("Blue", "blue"), ("B8a", "nir08")])
def test_codes_and_names_of_a_band_are_one(name, common):
    assert common_names([name], "sentinel2") == (common,)


def test_codes_are_of_the_sensor_of_the_weights_unless_zero_padded():
    assert common_names(["B5", "SR_B6", "ST_B10"], "landsat8") == ("nir08", "swir16", "lwir11")
    assert common_names(["B4", "B05"], "landsat8") == ("red", "rededge1")  # Sentinel-2
    assert common_names(["SR_B5"], "sentinel2") == ("sr_b5",)  # a Landsat of unknown number
    assert common_names(["B5"], None) == ("b5",)


@pytest.mark.parametrize(
    ("bands", "common"),
    [
        (["B2", "B3", "B4", "B8"], ["blue", "green", "red", "nir"]),  # as Earth Engine names Sentinel-2
        (["B4", "B3", "B2"], ["red", "green", "blue"]),
        (
            ["B2", "B3", "B4", "B5"],
            ["blue", "green", "red", "b5"],
        ),  # red edge of Sentinel-2, near infrared of Landsat 8
        (["B1", "B2", "B3", "B4"], ["b1", "b2", "b3", "b4"]),  # blue is B1 of Landsat 7, B2 of Landsat 8
        (["B3", "B4", "B8"], ["b3", "b4", "b8"]),  # no sensor has its colours there
    ],
)
def test_codes_of_no_sensor_are_read_where_sensors_with_these_colours_agree(bands, common):
    assert common_names(bands, None) == tuple(common)


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_consistent(name):
    table = TABLES[name]
    assert len(table.bands) == len(table.quantities) == len(table.means) == len(table.deviations)
    assert min(table.deviations) > 0
    assert set(table.bands) <= {*CODES[table.sensor].values(), "vv", "vh"}
    for quantity, mean, deviation in zip(table.quantities, table.means, table.deviations, strict=True):
        assert quantity != "reflectance" or (0 <= mean < 0.3 and deviation <= 1)
        assert quantity != "decibel" or (-25 < mean < -10 and 3 < deviation < 7)


def test_the_versions_of_bigearthnet_have_one_set_of_bands_in_two_orders():
    old, new = TABLES["bigearthnet-all-v0.1.1"], TABLES["bigearthnet-all-v0.2.0"]
    assert old.bands != new.bands
    assert dict(zip(old.bands, old.means, strict=True)) == dict(zip(new.bands, new.means, strict=True))
    assert new.bands[:3] == ("vv", "vh", "blue")


# ---- files


@pytest.fixture(scope="module")
def torchvision_state():
    """The state of torchvision's resnet18 for 10 bands; torchgeo has the same names."""
    torch.manual_seed(0)
    network = torchvision.models.resnet18()
    network.conv1 = torch.nn.Conv2d(10, 64, 7, stride=2, padding=3, bias=False)
    return network.state_dict()


@pytest.mark.parametrize(
    ("prefix", "nested"),
    [
        ("", None),  # torchgeo's files, with the classifier `fc`
        ("model.backbone.", "state_dict"),  # Lightning, torchgeo
        ("backbone.", "teacher"),  # DINO
        ("module.encoder_q.", "state_dict"),  # MoCo, beside encoder_k
        ("model.vision_encoder.", None),  # BigEarthNet v2.0
    ],
)
def test_a_network_is_found_under_its_prefix(torchvision_state, prefix, nested, tmp_path):
    state = {prefix + name: value for name, value in torchvision_state.items() if not prefix or "fc." not in name}
    if "encoder_q" in prefix:
        state |= {name.replace("encoder_q", "encoder_k"): value + 1 for name, value in state.items()}
        state["module.queue"] = torch.zeros(128, 8)
    torch.save({nested: state} if nested else state, tmp_path / "w.pth")
    names = named_bands(("bigearthnet-s2-v0.2.0",)).bands
    weights = Weights(str(tmp_path / "w.pth"), ("bigearthnet-s2-v0.2.0",))
    body = Encoder("resnet18", bands=10, weights=weights, band_names=names).body.state_dict()
    assert len(body) > 100
    assert all(torch.equal(body[name], torchvision_state[name]) for name in body)


def test_two_networks_under_unknown_prefixes_are_refused(tmp_path):
    state = state_of(3)
    both = {f"{side}.{name}": value for side in ("left", "right") for name, value in state.items()}
    torch.save(both, tmp_path / "both.pth")
    with pytest.raises(NetworkError, match=r"both\.pth' hold 2 networks of this encoder \(left\., right\.\)"):
        Encoder(NAME, bands=3, weights=str(tmp_path / "both.pth"))


def test_a_prefixed_file_without_layers_is_refused_with_their_names(tmp_path):
    state = {f"backbone.{name}": value for name, value in state_of(13).items() if not name.startswith("layer4")}
    torch.save(state, tmp_path / "part.pth")
    with pytest.raises(NetworkError, match=r"part\.pth.*lacks.*layer4"):
        Encoder(NAME, bands=4, weights=Weights(str(tmp_path / "part.pth"), ("sentinel2-13",)), band_names=IMAGE)


def test_a_file_of_three_channels_may_have_other_bands_than_red_green_and_blue(tmp_path):
    state = state_of(3)
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    stem = stem_of(str(tmp_path / "w.safetensors"), ("red", "nir", "green"), ("nir", "red", "green"))
    torch.testing.assert_close(stem, state[STEM][:, [1, 0, 2]])


@pytest.mark.parametrize("name", ["resnet10t", "tu-resnet10t"])
def test_networks_of_segmentation_models_take_files_of_any_bands(sentinel2, name):
    pytest.importorskip("segmentation_models_pytorch")
    network = build(
        "smp:Unet", bands=IMAGE, classes=2, encoder=name, weights=sentinel2, weights_bands=["sentinel2-13"],
        encoder_depth=4, decoder_channels=[8, 8, 8, 8],
    )  # fmt: skip
    stem = next(value for key, value in network.state_dict().items() if key.endswith(STEM))
    torch.testing.assert_close(stem, stem_of(sentinel2, IMAGE, ("sentinel2-13",)))


@pytest.mark.parametrize("names", ["sentinel2-13", "B01,B02,B03,B04,B05,B06,B07,B08,B8A,B09,B10,B11,B12"])
def test_a_text_names_the_bands_of_a_file_as_a_list_does(sentinel2, names):
    network = build("unet", bands=IMAGE, classes=2, encoder=NAME, weights=sentinel2, weights_bands=names)
    stem = next(value for key, value in network.state_dict().items() if key.endswith(STEM))
    torch.testing.assert_close(stem, stem_of(sentinel2, IMAGE, tuple(names.split(","))))


@pytest.mark.parametrize("weights", [None, "imagenet"])
def test_bands_of_a_file_that_is_not_given_are_refused(weights):
    with pytest.raises(NetworkError, match=f"weights_bands names the bands of a file, but weights is {weights!r}"):
        build("unet", bands=IMAGE, classes=2, encoder=NAME, weights=weights, weights_bands=["sentinel2-13"])


def test_the_model_records_the_file_and_its_bands(sentinel2):
    terms = license_terms(NAME, Weights(sentinel2, ("sentinel2-13",)))
    assert (terms["source"], terms["bands"]) == ("sentinel2.safetensors", ["sentinel2-13"])


@pytest.mark.parametrize("bands", [3, 13])
def test_every_branch_of_a_stem_takes_its_kernels_of_the_file(tmp_path, bands):
    torch.manual_seed(0)
    state = timm.create_model("repvgg_a0", pretrained=False, in_chans=bands).state_dict()
    torch.save(state, tmp_path / "w.pth")
    names = ("sentinel2-13",) if bands == 13 else ("nir", "red", "green")
    file = named_bands(names)
    image = ("B04", "B03", "B08")
    body = Encoder("repvgg_a0", bands=3, weights=Weights(str(tmp_path / "w.pth"), names), band_names=image).body
    shares = resemblance(image, file)
    for branch in ("conv_kxk", "conv_1x1"):
        expected = torch.einsum("bc,ochw->obhw", shares, state[f"stem.{branch}.conv.weight"])
        torch.testing.assert_close(body.state_dict()[f"stem.{branch}.conv.weight"], expected)


# ---- refusals


@pytest.mark.parametrize(
    ("weights_bands", "message"),
    [
        ((), r"has 13 input channels, and their bands are not named.*sentinel2-13, sentinel2-13-softcon"),
        (("sentinel2-12",), r"has 13 input channels, but weights_bands 'sentinel2-12' names 12\. Give"),
        (("sentinel2-14",), r"did you mean 'sentinel2-1\d'\?"),
        (("red", "green"), r"'red,green' names 2\. Give --weights-bands as a table of 13 bands"),
    ],
)
def test_bands_that_do_not_fit_the_file_are_refused_with_the_tables_that_do(sentinel2, weights_bands, message):
    with pytest.raises(NetworkError, match=message):
        Encoder(NAME, bands=4, weights=Weights(sentinel2, weights_bands), band_names=IMAGE)


@pytest.mark.parametrize(
    ("weights_bands", "message"),
    [
        ("B2,B3,B4,B99", r"of Sentinel-2, which has no B99\. Write.*bands of Landsat; or a table"),
        ("B2,B3,B6_VCID_1", "has no B6_VCID_1"),
        ("B2,B3,B4,B04", "red is given 2 times"),
        ("nir,B3,B8", "nir is given 2 times"),
        ("Sentinel2-13,B2,B3,B4", "sentinel2-13 is the name of a table of all bands"),
    ],
)
def test_bands_that_no_file_has_are_refused(weights_bands, message):
    with pytest.raises(NetworkError, match=message):
        named_bands(weights_bands.split(","))


def test_a_band_of_the_weights_that_nobody_knows_is_named(caplog):
    kernels = [torch.ones(64, 3, 7, 7)]
    adapt_stem(Encoder("resnet18", bands=3).body, ("nir", "swan"), FileBands(("nir", "red", "swan")), kernels)
    assert not caplog.records
    adapt_stem(Encoder("resnet18", bands=3).body, ("nir", "swan"), FileBands(("nir", "red", "bleu")), kernels)
    assert "bleu of the bands of the weights" in caplog.text


def test_numbers_of_channels_without_a_table_need_names():
    with pytest.raises(NetworkError, match="Give --weights-bands as the names of its 5 bands in their order"):
        file_bands((), 5)


def test_bands_without_names_are_refused_for_a_file_of_named_bands(sentinel2):
    with pytest.raises(NetworkError, match=r"none of the bands band 1, band 2.*Name the bands of the image"):
        build("fcn", bands=4, classes=2, encoder=NAME, weights=sentinel2, weights_bands=["sentinel2-13"])
