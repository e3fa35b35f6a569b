"""Inputs: the rasters of the images of a call."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from affine import Affine

from landscribe.data.scenes.scene import open_image
from landscribe.data.scenes.spec import SceneSpec
from landscribe.errors import GridError, RasterError, RecipeError
from landscribe.geo.grid import Window
from landscribe.geo.inputs import is_collection, open_rasters, read_file_list, split_files
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.spec import ImagerySpec
from served import serving
from worlds import METRE, counting, noise, write_raster

PLAIN = ImagerySpec()


@pytest.fixture
def tiles(tmp_path) -> tuple[np.ndarray, list[Path]]:
    """A raster cut into four files, side by side, in a folder."""
    array = counting(1, 8, 40)
    (tmp_path / "tiles").mkdir()
    return array, [
        write_raster(
            tmp_path / "tiles" / f"t{number}.tif", array[:, :, 10 * number : 10 * number + 10],
            transform=METRE @ Affine.translation(10 * number, 0),
        )
        for number in range(4)
    ]  # fmt: skip


def opened(*images, **settings) -> list[Raster]:
    return open_rasters(images, ImagerySpec(**settings))


def names(rasters: list[Raster]) -> list[str]:
    return [raster.name for raster in rasters]


def listed(folder: Path, *lines: str, name: str = "files.txt") -> Path:
    (folder / name).write_text("\n".join(lines), encoding="utf-8")
    return folder / name


def test_files_folders_patterns_and_lists_are_rasters_in_their_order(tmp_path, tiles):
    folder = tmp_path / "tiles"
    assert names(opened(str(folder / "t2.tif"), folder / "t0.tif")) == ["t2", "t0"]
    assert names(opened(str(folder))) == ["t0", "t1", "t2", "t3"]
    assert names(opened(f"{folder}/t[13].tif", [str(folder / "t0.tif")])) == ["t1", "t3", "t0"]
    place = listed(tmp_path, "# from the north", "tiles/t3.tif", "", f"  {folder / 't1.tif'}  ", '"tiles/t0.tif"')
    assert names(opened(place)) == names(opened(f"@{place}")) == ["t3", "t1", "t0"]
    plain = listed(tmp_path, "tiles/t2.tif", name="files.lst")
    assert names(opened([f"@{plain}"])) == ["t2"]


def test_a_line_of_a_list_is_expanded_like_an_image_of_the_command(tmp_path, tiles):
    write_raster(tmp_path / "other.tif", counting(1, 8, 10))
    place = listed(tmp_path, "tiles", "tiles/t0.tif, other.tif")
    rasters = opened(place)
    assert names(rasters) == ["t0", "t1", "t2", "t3", "t0"]
    assert rasters[4].bands == ("t0", "other")


def test_stacks_of_one_folder_are_named_by_the_first_words_or_the_first_file(tmp_path):
    for name in ("s_april_B1", "s_april_B2", "s_may_B1", "s_may_B2"):
        write_raster(tmp_path / f"{name}.tif", counting(1, 4, 4))

    def stacks(*pairs):
        return names(opened(*([tmp_path / f"{name}.tif" for name in pair] for pair in pairs)))

    april, may = ("s_april_B1", "s_april_B2"), ("s_may_B1", "s_may_B2")
    assert stacks(april) == [tmp_path.name]
    assert stacks(april, may) == ["s_april", "s_may"]
    assert stacks(april, april[::-1]) == ["s_april_B1", "s_april_B2"]


def test_a_list_written_on_windows_is_read(tmp_path, tiles):
    (tmp_path / "files.txt").write_bytes("\ufeff# 1\r\ntiles/t1.tif\r\n".encode())
    assert names(opened(tmp_path / "files.txt")) == ["t1"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"tiles/t0.tif\n\nnone.tif\n", r"files\.txt, line 3, lists \S*none\.tif, which does not exist"),
        (b"# nothing\n\n", r"files\.txt lists no image"),
        (b"\xff\xfe\x00\x01", r"files\.txt is not UTF-8 text"),
        (None, r"files\.txt cannot be read: No such file"),
        (b"files.txt\n", r"files\.txt cannot be read: "),
    ],
    ids=["missing file", "empty", "no text", "missing", "a list in a list"],
)
def test_a_list_with_an_error_is_refused_with_its_line(tmp_path, tiles, content, words):
    if content is not None:
        (tmp_path / "files.txt").write_bytes(content)
    with pytest.raises(RasterError, match=words):
        opened(tmp_path / "files.txt")


def test_a_list_may_name_remote_files(tmp_path, tiles, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    array, _ = tiles
    with serving(tmp_path / "tiles") as server:
        place = listed(tmp_path, *(server.url(f"t{number}.tif") for number in (2, 0, 1, 3)))
        (raster,) = opened(place, mosaic=True)
        np.testing.assert_array_equal(raster.read(Window(0, 0, 8, 40))[0], array)


def test_patterns_of_remote_files_are_refused():
    with pytest.raises(RasterError, match=r"s3://bucket/\*\.tif is a pattern.*List remote files in @files"):
        opened("s3://bucket/*.tif")


def test_mosaic_joins_all_images_of_a_call(tmp_path, tiles):
    array, _ = tiles
    for images in ((tmp_path / "tiles",), (f"{tmp_path}/tiles/t0.tif", f"{tmp_path}/tiles/t[1-3].tif")):
        (raster,) = opened(*images, mosaic=True)
        pixels, valid = raster.read(Window(0, 0, 8, 40))
        assert valid.all()
        np.testing.assert_array_equal(pixels, array)


def test_stacks_can_be_joined_to_a_mosaic(tmp_path):
    array = counting(2, 6, 20)
    files = []
    for half in (0, 1):
        place = METRE @ Affine.translation(10 * half, 0)
        part = array[:, :, 10 * half : 10 * half + 10]
        files.append([write_raster(tmp_path / f"{band}_{half}.tif", part[band], transform=place) for band in (0, 1)])
    (raster,) = opened(*files, mosaic=True)
    np.testing.assert_array_equal(raster.read(Window(0, 0, 6, 20))[0], array)


def test_stacked_files_lie_on_one_grid_or_are_resampled_on_request(tmp_path):
    fine = write_raster(tmp_path / "fine.tif", noise(1, 10, 10))
    coarse = write_raster(tmp_path / "coarse.tif", noise(1, 5, 5), transform=METRE @ Affine.scale(2))
    with pytest.raises(
        GridError, match=r"coarse\.tif is 5 x 5 pixels of 2 .*fine\.tif is 10 x 10 pixels of 1 .*--resample"
    ):
        opened([fine, coarse])
    (raster,) = open_rasters([[fine, coarse]], PLAIN, resample=True)
    assert raster.grid.shape == (10, 10)
    assert raster.bands == ("fine", "coarse")


def test_the_files_of_each_folder_or_pattern_are_one_raster_if_they_are_stacked(tmp_path):
    for folder, bands in (("north", (10, 2, 1)), ("south", (3, 4))):
        (tmp_path / folder).mkdir()
        for band in bands:
            write_raster(tmp_path / folder / f"B{band}.tif", counting(1, 4, 4))
    line = listed(tmp_path, "north", name="files.txt")
    given = (tmp_path / "north", f"{tmp_path}/south/B*.tif", line, [str(tmp_path / "south" / "B4.tif")] * 2)
    assert [raster.bands for raster in opened(*given, stack=True)] == [
        ("B1", "B2", "B10"), ("B3", "B4"), ("B1", "B2", "B10"), ("B4_1", "B4_2"),
    ]  # fmt: skip
    assert names(opened(tmp_path / "north", tmp_path / "south", stack=True)) == ["north", "south"]
    assert names(opened(tmp_path / "north", stack=True, mosaic=True)) == ["north"]


def test_one_file_is_no_stack(tmp_path):
    """As where a shell replaces a pattern by its files."""
    files = [write_raster(tmp_path / f"B{band}.tif", counting(1, 4, 4)) for band in (1, 2)]
    with pytest.raises(RasterError, match=r"B1\.tif is one file, but --stack .*the pattern in quotes, or .* commas"):
        opened(*files, stack=True)


def test_rasters_of_items_have_the_names_of_the_items(tmp_path):
    for number in (0, 1):
        place = METRE @ Affine.translation(10 * number, 0)
        write_raster(tmp_path / f"B4_{number}.tif", noise(1, 5, 10, seed=number), transform=place)
        held = {"type": "Feature", "stac_version": "1.0.0", "id": f"scene {number}"}
        held["assets"] = {"red": {"href": f"B4_{number}.tif"}}
        (tmp_path / f"{number}.json").write_text(json.dumps(held))
    both = [tmp_path / "0.json", tmp_path / "1.json"]
    assert names(opened(*both, assets=("red",))) == ["scene 0", "scene 1"]
    assert opened(*both, assets=("red",), mosaic=True)[0].grid.shape == (5, 20)
    with pytest.raises(RasterError, match=r"0\.json is a STAC item\. Choose its assets"):
        opened(*both)
    # What is asked for assets is an item, whatever it is called.
    with pytest.raises(RasterError, match=r"B4_0\.tif is not JSON"):
        opened(tmp_path / "B4_0.tif", assets=("red",))


def test_nodata_and_its_rule_apply_to_every_raster(tmp_path, tiles):
    two = np.array([[[5, 5, 1]], [[5, 1, 1]]], "uint8")
    path = write_raster(tmp_path / "a.tif", two)
    window = Window(0, 0, 1, 3)
    for rule, valid in (("auto", [False, False, True]), ("any", [False, False, True]), ("all", [False, True, True])):
        assert opened(path, nodata=5, nodata_rule=rule)[0].read(window)[1][0].tolist() == valid
        scene = SceneSpec(image=str(path), nodata=5, nodata_rule=rule)
        assert open_image(scene).read(window)[1][0].tolist() == valid


def test_a_nodata_value_for_each_band_of_a_stack_is_checked(tiles):
    """The tiles hold uint8."""
    _, paths = tiles
    for values, words in (((0, 1, 2), "3 nodata values were given"), ((0, 256), "nodata is 256, but .* holds uint8")):
        with pytest.raises(RasterError, match=words):
            opened([paths[0], paths[0]], nodata=values)
    with pytest.raises(RasterError, match=r"2 nodata values were given \(0, 0 \(by band\)\), but .* has 1 band"):
        opened(paths[0], nodata=(0, 0))


def test_one_nodata_value_that_only_some_files_of_a_stack_can_hold_is_refused_with_those_that_mark_its_pixels(tmp_path):
    colours, height = np.full((2, 4, 4), 9, np.uint8), np.full((1, 4, 4), 9, np.float32)
    colours[:, 0, 0], height[:, 3, 3] = 7, -9999
    paths = [write_raster(tmp_path / "a.tif", colours, nodata=7), write_raster(tmp_path / "b.tif", height)]
    with pytest.raises(RasterError, match=r"nodata is -9999, but .*a.tif .* each band: nan,nan,-9999 \(nan"):
        opened(paths, nodata=-9999)
    _, valid = opened(paths, nodata=(math.nan, math.nan, -9999))[0].read(Window(0, 0, 4, 4))
    assert np.argwhere(~valid).tolist() == [[0, 0], [3, 3]]


def test_an_unknown_nodata_rule_is_refused_with_the_choices():
    with pytest.raises(RecipeError, match=r"'nodata_rule' is 'some'; input should be 'auto', 'any' or 'all'"):
        ImagerySpec.of({"nodata_rule": "some"})


def test_a_call_without_images_is_refused():
    with pytest.raises(RasterError, match="no image was given"):
        opened()


def test_names_with_commas_are_one_file_if_it_exists_or_in_quotes(tmp_path):
    for name in ("north, 2024.tif", "south.tif"):
        write_raster(tmp_path / name, noise(1, 4, 4))
    (tmp_path / "list.txt").write_text('north, 2024.tif\n"north, 2024.tif", south.tif\n', encoding="utf-8")
    north, south = (str(tmp_path / name) for name in ("north, 2024.tif", "south.tif"))
    assert read_file_list(str(tmp_path / "list.txt")) == [[north], [north, south]]
    assert split_files(north) == [north]
    assert split_files(f'"{north}",{south}') == [north, south]


def test_a_file_geodatabase_is_a_file_and_no_collection(tmp_path):
    (tmp_path / "labels.gdb").mkdir()
    assert not is_collection(str(tmp_path / "labels.gdb"))
    assert is_collection(str(tmp_path))
