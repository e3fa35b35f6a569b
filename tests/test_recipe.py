"""Recipes: TOML and back."""

import math
import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from landscribe.data.batches.augment_spec import AugmentSpec
from landscribe.data.chips.spec import ChipSpec
from landscribe.data.scenes.spec import ClassSpec, SceneSpec
from landscribe.data.splits.spec import SplitSpec
from landscribe.errors import RecipeError, is_printable
from landscribe.geo.classes import Classes
from landscribe.polygons.spec import VectorizeSpec
from landscribe.prediction.spec import PredictSpec
from landscribe.recipe import SECTIONS, Recipe, into_sections
from landscribe.spec import path_in, why_not_in_run
from landscribe.training.spec import RESERVED, TrainSpec
from landscribe.verbs import new

EXAMPLE = {"scenes": [{"image": ["scene.tif"], "labels": "labels.geojson"}]}

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
paths = text.filter(lambda path: path.strip() and not re.search("[\a-\r]", path))
finite = st.floats(allow_nan=False)
scalars = st.one_of(st.booleans(), st.integers(-(2**62), 2**62), finite, text)
scenes = st.builds(
    SceneSpec,
    image=st.lists(paths, min_size=1, max_size=3).map(tuple),
    labels=st.none() | paths,
    label_field=st.none() | text,
    split=st.none() | st.sampled_from(["train", "val", "test"]),
    nodata=st.none() | finite,
    fix_geometries=st.booleans(),
)
rows = st.builds(
    ClassSpec,
    name=text.filter(is_printable),
    value=st.integers(0, 254),
    colour=st.none() | text,
    label=st.none() | text | st.integers(-(2**63), 2**63 - 1),
)
recipes = st.builds(
    Recipe,
    seed=st.integers(0, 2**32 - 1),
    scenes=st.lists(scenes, min_size=1, max_size=3).map(tuple),
    classes=st.lists(rows, max_size=3).map(tuple),
    chips=st.builds(
        ChipSpec,
        size=st.integers(8, 8192),
        stride=st.none() | st.integers(1, 999),
        edge=st.sampled_from(["shift", "pad", "drop"]),
        virtual=st.booleans(),
    ),
    split=st.builds(SplitSpec, val=st.floats(0, 0.8), gap=st.none() | st.integers(1, 99)),
    train=st.builds(
        TrainSpec,
        encoder=text,
        options=st.dictionaries(
            text.filter(lambda name: name not in RESERVED), scalars | st.lists(st.integers(), max_size=3), max_size=3
        ),
        epochs=st.none() | st.integers(1, 99),
        learning_rate=st.floats(1e-9, 1000),
        loss=text,
    ),
    predict=st.builds(PredictSpec, margin=st.integers(0, 99)),
    vectorize=st.builds(VectorizeSpec, classes=st.none() | st.lists(text, max_size=3).map(tuple)),
)


@given(recipes)
def test_a_recipe_comes_back_from_its_toml(recipe):
    assert Recipe.of(tomllib.loads(recipe.to_toml())) == recipe


def test_nan_as_nodata_comes_back_from_toml():
    scene = EXAMPLE["scenes"][0] | {"nodata": math.nan}
    recipe = Recipe.of({"scenes": [scene, scene]})
    back = Recipe.of(tomllib.loads(recipe.to_toml()))
    assert [math.isnan(scene.nodata) for scene in back.scenes] == [True, True]


def test_the_toml_of_a_recipe_read_from_toml_is_the_same():
    written = Recipe.of(EXAMPLE).to_toml()
    assert Recipe.of(tomllib.loads(written)).to_toml() == written


FIELDS = [(section, name) for section, spec in SECTIONS.items() for name in spec.model_fields]
REFUSED = [each for each in FIELDS if why_not_in_run(SECTIONS[each[0]].model_fields[each[1]])]


@pytest.mark.parametrize(("section", "name"), [each for each in FIELDS if each not in REFUSED])
def test_every_setting_is_right_below_its_description(section, name):
    lines = Recipe.of(EXAMPLE).to_toml().splitlines()
    header = f"[[{section}]]" if section == "scenes" else f"[{section}]"
    body = lines[lines.index(header) + 1 :]
    body = body[: next((n for n, line in enumerate(body) if line.startswith("[")), len(body))]
    place = next(n for n, line in enumerate(body) if line.removeprefix("# ").startswith(f"{name} ="))
    assert body[place - 1] == "# " + " ".join(SECTIONS[section].model_fields[name].description.split())


def test_settings_that_are_left_out_are_comments():
    assert "# stride =" in Recipe.of(EXAMPLE).to_toml()


def test_a_saved_recipe_loads_as_it_was(tmp_path):
    recipe = Recipe.of(EXAMPLE).with_absolute_paths(tmp_path)
    recipe.save(tmp_path / "recipe.toml")
    assert Recipe.load(tmp_path / "recipe.toml") == recipe


def test_the_recipe_that_new_writes_has_all_defaults(tmp_path):
    path = new(tmp_path / "recipe.toml")
    assert Recipe.load(path) == Recipe.of(EXAMPLE).with_absolute_paths(tmp_path)


def test_paths_of_a_recipe_are_relative_to_its_file(tmp_path):
    (tmp_path / "deep").mkdir()
    path = tmp_path / "deep" / "recipe.toml"
    path.write_text('[[scenes]]\nimage = ["a.tif", "../b.tif"]\nlabels = "c.gpkg"\n', encoding="utf-8")
    (scene,) = Recipe.load(path).scenes
    assert [Path(file).resolve() for file in (*scene.image, scene.labels)] == [
        tmp_path / "deep" / "a.tif",
        tmp_path / "b.tif",
        tmp_path / "deep" / "c.gpkg",
    ]
    assert all(Path(file).is_absolute() for file in (*scene.image, scene.labels))


def test_paths_do_not_depend_on_the_working_folder(tmp_path, monkeypatch):
    path = new(tmp_path / "recipe.toml")
    before = Recipe.load(path)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    assert Recipe.load("recipe.toml") == before


@pytest.mark.parametrize(
    "path", ["/data/a.tif", "https://example.org/a.tif", "s3://bucket/a.tif", "/vsizip/a.zip/a.tif"]
)
def test_absolute_and_remote_paths_stay_as_they_are(path):
    recipe = Recipe.of({"scenes": [{"image": [path], "labels": path}]}).with_absolute_paths(Path("/somewhere"))
    assert (recipe.scenes[0].image, recipe.scenes[0].labels) == ((path,), path)


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("[chips]\nsise = 3\n", r"unknown setting 'chips.sise'; did you mean 'size'\?"),
        ("sead = 3\n", r"unknown setting 'sead'; did you mean 'seed'\?"),
        ("[trian]\n", r"unknown setting 'trian'; did you mean 'train'\?"),
        ('[[scenes]]\nimag = "a.tif"\n', r"unknown setting 'scenes.0.imag'; did you mean 'image'\?"),
        ("[chips]\nsize = 3\n", "'chips.size' is 3; input should be greater than or equal to 8"),
        ("[train]\nepochs = 3\nsteps = 4\n", "epochs and steps are both given; give one of them"),
        ("landscribe = 2\n", "'landscribe' is 2; input should be 1"),
        ("", "'scenes' is missing; add it"),
        ('[scenes]\nimage = "a.tif"\n', r"'scenes' is .*; expected a list of tables: write \[\[scenes\]\] in place of"),
        ("train = 3\n", "'train' is 3; expected a table of settings, such as architecture, encoder, weights"),
        ('classes = ["a"]\n', "'classes.0' is 'a'; expected a table of settings, such as name, value, colour"),
        ("[train]\nencoder = 3\n", "'train.encoder' is 3; expected text"),
        ("[train]\noptions = 3\n", "'train.options' is 3; expected a table"),
        ("[chips]\nvirtual = 3\n", "'chips.virtual' is 3; expected true or false"),
        ("seed = true\n", "'seed' is True; expected a number, not true or false"),
        ("[train]\nsteps = true\n", "'train.steps' is True; expected a number, not true or false"),
        ('data = "/tmp"\n[[scenes]]\nimage = "a.tif"\n', "data is /tmp, but like names no example"),
        ("seed = \n", 'is no TOML: .*line 1.*"landscribe new" writes'),
        (
            'seed = 1\n[train]\nweights = "C:\\me\\w.pth"\n',
            "is no TOML: .*line 3.*a backslash .* write C:/data/scene.tif,",
        ),
        (
            '[train]\nlog = "C:\\new"\n',
            r"'C:\\new'; expected a path without control .* write C:/data/scene.tif,",
        ),
    ],
)
def test_mistakes_in_a_recipe_are_reported_with_file_and_remedy(tmp_path, toml, message):
    path = tmp_path / "recipe.toml"
    path.write_text(toml, encoding="utf-8")
    with pytest.raises(RecipeError, match=message) as caught:
        Recipe.load(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("written", ['"C:/data/scene.tif"', r"'C:\data\scene.tif'", r'"C:\\temp\\new.tif"'])
def test_a_path_of_windows_is_read_as_the_advice_has_it(written):
    text = f"[[scenes]]\nimage = {written}\n"
    assert Recipe.of(tomllib.loads(text)).scenes[0].image[0] == written[1:-1].replace(r"\\", "\\")


def test_an_image_in_place_of_a_recipe_is_refused_with_the_flag_for_it(tmp_path):
    path = tmp_path / "scene.tif"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match=r"is no TOML: it is not text in UTF-8\..*Imagery is given with --image"):
        Recipe.load(path)


def test_a_long_value_is_cut_in_a_message():
    with pytest.raises(RecipeError) as caught:
        Recipe.of(EXAMPLE | {"seed": "x" * 500})
    assert len(str(caught.value)) < 200


def test_a_recipe_with_a_byte_order_mark_is_read(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(Recipe.of(EXAMPLE).to_toml(), encoding="utf-8-sig")
    assert Recipe.load(path) == Recipe.of(EXAMPLE).with_absolute_paths(tmp_path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], r"is a folder, but no chips folder \(it has no chips\.json\)"),
        (["chips.json"], 'is a chips folder. Expected a recipe .*"landscribe check" audits chips'),
        (["recipe.toml"], r"is a folder\..* Give .*here/recipe\.toml\.$"),
        (["recipe.toml", "chips/chips.json"], r'Give .*/recipe\.toml, or .*here/chips to "landscribe check"'),
    ],
)
def test_a_folder_in_place_of_a_recipe_is_refused_with_what_to_give(tmp_path, files, message):
    for name in files:
        (tmp_path / "here" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "here" / name).touch()
    (tmp_path / "here").mkdir(exist_ok=True)
    with pytest.raises(RecipeError, match=message):
        Recipe.load(tmp_path / "here")


def test_a_recipe_takes_the_name_of_a_preset_of_augmentation():
    recipe = Recipe.of(EXAMPLE | {"augment": "light"})
    assert recipe == Recipe.of(EXAMPLE | {"augment": {"preset": "light"}})
    assert Recipe.of(tomllib.loads(recipe.to_toml())) == recipe


def test_one_file_has_one_path_however_it_is_named(tmp_path):
    (tmp_path / "a").mkdir()
    recipe = Recipe.of({"scenes": [{"image": ["../b/x.tif"], "labels": "./y.gpkg"}]}).with_absolute_paths(
        tmp_path / "a"
    )
    assert recipe.scenes[0].image == (str(tmp_path / "b" / "x.tif"),)
    assert recipe.scenes[0].labels == str(tmp_path / "a" / "y.gpkg")


def test_a_path_through_a_link_to_a_folder_keeps_its_way_back(tmp_path):
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real" / "deep")
    recipe = Recipe.of({"scenes": [{"image": ["link/../x.tif"]}]}).with_absolute_paths(tmp_path)
    assert Path(recipe.scenes[0].image[0]).resolve() == tmp_path / "real" / "x.tif"


def test_a_missing_recipe_is_refused_with_the_remedy(tmp_path):
    with pytest.raises(RecipeError, match=r'recipe\.toml cannot be read: No such file.*"landscribe new"'):
        Recipe.load(tmp_path / "recipe.toml")


# Recipes from flags -----------------------------------------------------------------------------------------------

ALL = tuple(SECTIONS)


def of_files(images, labels, **settings) -> Recipe:
    return Recipe.of_files(images, labels, settings, sections=ALL)


def test_plain_names_go_to_the_section_that_has_them():
    recipe = of_files(["a.tif"], "a.gpkg", size=128, val=0.2, epochs=3, tile=512, label_field="kind", seed=7)
    assert (recipe.chips.size, recipe.split.val, recipe.train.epochs, recipe.predict.tile) == (128, 0.2, 3, 512)
    assert (recipe.scenes[0].label_field, recipe.seed) == ("kind", 7)


@pytest.mark.parametrize(
    ("name", "sections"),
    [
        ("batch", ["train"]),
        ("bands", ["scenes"]),
        ("precision", ["train"]),
        ("minimum_area", ["predict"]),
        ("dask", ["chips", "predict", "vectorize"]),
        ("resample", ["scenes", "predict"]),
    ],
)
def test_a_plain_name_that_two_sections_have_means_what_its_flag_means(name, sections):
    assert into_sections({name: 3}, ALL) == {section: {name: 3} for section in sections}
    assert into_sections({name: 3}, ("predict",)) == {"predict": {name: 3}}


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("predict", "shard", "1/2"),
        ("predict", "bands", "1,2"),
        ("vectorize", "class_table", "a.csv"),
        ("vectorize", "probabilities", "a.tif"),
        ("vectorize", "object_probabilities", "beside"),
    ],
)
def test_settings_that_a_run_cannot_follow_are_refused_in_every_form(section, name, value):
    assert (section, name) in REFUSED
    message = rf"{section}\.{name} is .*, but .*\. Leave it out"
    with pytest.raises(RecipeError, match=message):
        Recipe.of(EXAMPLE | {section: {name: value}})
    with pytest.raises(RecipeError, match=message):
        of_files(["a.tif"], "a.gpkg", **{section: {name: value}})
    if name != "bands":
        with pytest.raises(RecipeError, match=message):
            of_files(["a.tif"], "a.gpkg", **{name: value})
    assert f"{name} =" not in Recipe.of(EXAMPLE).to_toml().partition(f"[{section}]")[2].partition("[assess]")[0]


def test_a_section_takes_a_table_of_its_settings():
    settings = {"train": {"batch": 3}, "epochs": 2, "predict": {"batch": 4}, "augment": {"blur": 0.5}}
    assert into_sections(settings, ALL) == {
        "train": {"batch": 3, "epochs": 2},
        "predict": {"batch": 4},
        "augment": {"blur": 0.5},
    }


def test_a_section_takes_a_spec_of_which_only_given_settings_count():
    settings = {"train": TrainSpec(steps=3), "chips": ChipSpec(size=64), "augment": AugmentSpec(blur=0.5), "lr": 0.1}
    assert into_sections(settings, ALL) == {
        "train": {"steps": 3, "learning_rate": 0.1},
        "chips": {"size": 64},
        "augment": {"blur": 0.5},
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("train", None), ("train", 3), ("train", ChipSpec()), ("augment", None), ("augment", 3), ("split", 0.2),
        ("scenes", [{}]), ("scenes", SceneSpec(image="a.tif")),
    ],
)  # fmt: skip
def test_a_section_that_is_no_table_is_refused(name, value):
    with pytest.raises(RecipeError, match=rf"'{name}' is .*\. Expected a table of settings.*, such as {name}="):
        into_sections({name: value}, ALL)


@pytest.mark.parametrize(
    ("flag", "section", "name"),
    [
        ("split_by", "split", "by"), ("split_attribute", "split", "attribute"), ("option", "train", "options"),
        ("log_folder", "train", "log"), ("augment", "augment", "preset"),
    ],
)  # fmt: skip
def test_the_name_of_a_flag_is_a_keyword(flag, section, name):
    assert into_sections({flag: "block"}, ALL) == {section: {name: "block"}}


def test_two_names_of_one_setting_are_refused():
    with pytest.raises(RecipeError, match="lr and learning_rate, which is the same, are both given"):
        into_sections({"lr": 0.1, "learning_rate": 0.2}, ALL)


def test_a_way_to_split_is_no_split_of_scenes():
    with pytest.raises(RecipeError, match=r"'split' is 'block'\. Expected train, val or test.* Write split_by='block'"):
        into_sections({"split": "block"}, ALL)


def test_a_scene_takes_its_split_by_the_name_that_a_section_has_too():
    assert into_sections({"split": "test"}, ALL) == {"scenes": {"split": "test"}}


def test_an_unknown_plain_name_is_refused_with_the_nearest():
    with pytest.raises(RecipeError, match=r"unknown setting 'strid'; did you mean 'stride'\?"):
        into_sections({"strid": 3}, ("chips",))


def test_one_label_file_serves_all_images():
    recipe = of_files(["a.tif", ["b1.tif", "b2.tif"]], "all.gpkg")
    assert [Path(scene.labels).name for scene in recipe.scenes] == ["all.gpkg", "all.gpkg"]
    assert [len(scene.image) for scene in recipe.scenes] == [1, 2]


def test_images_and_label_files_of_different_number_are_refused():
    with pytest.raises(RecipeError, match="3 images and 2 label files were given"):
        of_files(["a.tif", "b.tif", "c.tif"], ["a.gpkg", "b.gpkg"])


def test_files_of_a_call_are_relative_to_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert of_files(["a.tif"], "a.gpkg").scenes[0].image == (str(tmp_path / "a.tif"),)


def test_settings_laid_over_a_recipe_change_only_themselves():
    recipe = Recipe.of(EXAMPLE | {"chips": {"size": 64, "stride": 32}, "seed": 3})
    laid = recipe.with_settings(into_sections({"stride": 16, "label_field": "kind"}, ALL))
    assert laid == Recipe.of(
        {
            "scenes": [EXAMPLE["scenes"][0] | {"label_field": "kind"}],
            "chips": {"size": 64, "stride": 16},
            "seed": 3,
        }
    )


def test_a_class_table_written_out_is_the_same_table():
    classes = Classes.from_labels(["house", "road"], background=True)
    table = Recipe.of(EXAMPLE).with_classes(classes).classes
    assert [(row.value, row.name, row.colour, row.label) for row in table] == [
        (entry.value, entry.name, entry.colour, entry.label) for entry in classes
    ]


@pytest.mark.parametrize(
    ("given", "expected"), [("auto", "auto"), ("none", "none"), ("w/my.pth", "/somewhere/w/my.pth")]
)
def test_weights_and_logs_are_relative_to_the_recipe(given, expected):
    recipe = Recipe.of(EXAMPLE | {"train": {"weights": given, "log": "logs"}}).with_absolute_paths(Path("/somewhere"))
    assert recipe.train.weights == expected
    assert recipe.train.log == "/somewhere/logs"
    assert Recipe.of(EXAMPLE).with_absolute_paths(Path("/somewhere")).train.log is None


# Paths ------------------------------------------------------------------------------------------------------------

PATH_WORDS = ("image", "labels", "weights", "path", "file", "folder", "area", "list", "log", "out")


@pytest.mark.parametrize(
    ("section", "name"),
    [
        field
        for field in FIELDS
        if path_in(SECTIONS[field[0]].model_fields[field[1]]) is not None and field not in REFUSED
    ],
)
def test_every_path_of_a_recipe_is_relative_to_its_folder(section, name, tmp_path):
    table = {"image": "a.tif"} if section == "scenes" else {}
    table |= {"by": "list", "train_list": "t.txt"} if name.endswith("_list") else {}
    table |= {name: "here/x.gpkg"}
    settings = EXAMPLE | {section: [table] if section == "scenes" else table}
    recipe = Recipe.of(settings).with_absolute_paths(tmp_path)
    spec = recipe.scenes[0] if section == "scenes" else getattr(recipe, section)
    expected = str(tmp_path / "here" / "x.gpkg")
    assert getattr(spec, name) == ((expected,) if name == "image" else expected)


@pytest.mark.parametrize(("section", "name"), FIELDS)
def test_a_text_named_like_a_path_is_annotated_as_a_path(section, name):
    field = SECTIONS[section].model_fields[name]
    if "str" in str(field.annotation) and name.split("_")[-1] in PATH_WORDS:
        assert path_in(field) is not None


def test_other_names_of_settings_reach_the_section_of_their_field():
    assert into_sections({"lr": 0.1, "backbone": "resnet34"}, ("chips", "train")) == {
        "train": {"learning_rate": 0.1, "encoder": "resnet34"}
    }


def test_options_that_toml_cannot_hold_are_refused_when_a_recipe_is_written():
    recipe = Recipe.of(EXAMPLE | {"train": {"options": {"dropout": None}}})
    with pytest.raises(RecipeError, match=r"options is \{'dropout': None\}. Expected .* as TOML can hold"):
        recipe.to_toml()
