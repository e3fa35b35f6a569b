"""The whole pipeline on synthetic worlds, through the command line as people use it."""

import hashlib
import importlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from test_app import landscribe

from landscribe import pipeline, verbs
from landscribe import synthetic as world
from landscribe.assessment import counting
from landscribe.commands.tables import print_run
from landscribe.data.chips.chips import Chips
from landscribe.data.scenes.label_raster import LabelRaster
from landscribe.errors import LandscribeError, OutputError
from landscribe.executor import run_units
from landscribe.geo.features import Features
from landscribe.geo.rasters.raster import Raster
from landscribe.maps.class_map import fingerprint_in, read_tags
from landscribe.model import Model
from landscribe.nn import ARCHITECTURES
from landscribe.prediction import run as prediction
from landscribe.recipe import Recipe
from landscribe.runs import Run
from landscribe.training import checks
from landscribe.training.spec import EFFORT_STEPS
from worlds import METRE, noise, write_raster

# The package has a function of this name.
summary = importlib.import_module("landscribe.nn.summary")
SMALL = {"encoder": "plain", "weights": "none", "options": {"encoder_widths": [8, 16]}}
QUICK = SMALL | {"size": 64, "label_field": "class", "tile": 128, "margin": 16}
LEARNING = {"encoder": "test_resnet", "options": {"widths": [32, 16, 8]}, "learning_rate": 0.003}
MEASURED = QUICK | LEARNING | {"tile": "auto", "margin": "auto"}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> tuple[Path, Path, Path]:
    """A world of 384 x 320 pixels: scene, polygons in another CRS, truth."""
    return world.write(world.draw(384, 320, seed=5), tmp_path_factory.mktemp("world"))


def counted(patch: pytest.MonkeyPatch, owner: type, name: str) -> list[str]:
    """The calls of a method so far, one item each."""
    method, calls = getattr(owner, name), []
    patch.setattr(owner, name, lambda *args, **settings: calls.append(name) or method(*args, **settings))
    return calls


def test_a_run_records_the_effort_of_its_machine_and_goes_on_with_it_on_another(drawn, tmp_path, monkeypatch):
    for effort in ("quick", "standard"):
        monkeypatch.setitem(EFFORT_STEPS, effort, 5)
    given = {"images": [drawn[0]], "labels": drawn[1], **QUICK, "out": tmp_path / "run"}
    monkeypatch.setattr(checks, "resolve_device", lambda: torch.device("cpu"))
    recorded = pipeline.run(**given) / "recipe.toml"
    assert (Recipe.load(recorded).train.effort, Recipe.load(recorded).train.batch) == ("quick", 8)
    weights = (tmp_path / "run" / "model" / "model.safetensors").stat().st_mtime_ns
    monkeypatch.setattr(checks, "resolve_device", lambda: torch.device("cuda"))
    pipeline.run(**given)
    assert Recipe.load(recorded).train.effort == "quick"
    assert (tmp_path / "run" / "model" / "model.safetensors").stat().st_mtime_ns == weights
    with pytest.raises(OutputError, match=r"another train.effort \(quick, now standard\)"):
        pipeline.run(**given, effort="standard")
    pipeline.run(**given | {"out": tmp_path / "other"})
    assert Recipe.load(tmp_path / "other" / "recipe.toml").train.effort == "standard"


@pytest.fixture(scope="module")
def counted_run(drawn, tmp_path_factory) -> tuple[Path, int]:
    """A run that is long enough to learn, and how often it read polygons."""
    scene, labels, _ = drawn
    out = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        reads = counted(patch, Features, "read")
        pipeline.run(images=[scene], labels=labels, out=out, steps=60, **MEASURED)
    return out, len(reads)


@pytest.fixture(scope="module")
def finished(counted_run) -> Path:
    return counted_run[0]


@pytest.fixture(scope="module")
def of_two_scenes(tmp_path_factory) -> Path:
    """A run of few steps on two scenes."""
    folder, scenes, labels = tmp_path_factory.mktemp("two"), [], []
    for seed in (1, 2):
        scene, polygons, _ = world.write(world.draw(160, 160, seed=seed), folder / f"world{seed}")
        scenes.append(scene)
        labels.append(polygons)
    return pipeline.run(images=scenes, labels=labels, out=folder / "run", steps=2, seed=4, **QUICK)


def test_a_run_warns_of_predefined_splits_that_overlap(tmp_path, caplog):
    # Three scenes over the same ground: 3 x 3 chips, each of which overlaps that of another split.
    scenes = []
    for split in ("train", "val", "test"):
        scene, polygons, _ = world.write(world.draw(192, 192, seed=1), tmp_path / split)
        scenes.append({"image": str(scene), "labels": str(polygons), "split": split})
    pipeline.run(Recipe.of({"scenes": scenes}), out=tmp_path / "run", steps=2, **QUICK)
    (warning,) = [record.message for record in caplog.records if "different splits" in record.message]
    assert warning.startswith("chips of different splits overlap in 27 pairs, so that accuracy is too high:")
    assert warning.endswith(f'"landscribe check {tmp_path / "run" / "chips"}" says where')


def test_a_run_with_unet_id_ends_with_an_object_for_each_polygon(tmp_path):
    scene, labels, _ = world.write(world.draw(128, 128, seed=3), tmp_path)
    out = pipeline.run(
        images=[scene], labels=labels, out=tmp_path / "run", steps=2, architecture="unet_id", encoder="plain",
        weights="none", options={"encoder_widths": [4, 8]}, size=64, label_field="class", tile=128, margin=16,
    )  # fmt: skip
    with rasterio.open(out / "objects.tif") as objects:
        assert objects.descriptions == ("segment", "border", "inner")
    polygons = gpd.read_file(out / "map.gpkg", layer="map")
    assert "score" in polygons.columns
    assert Run(out).polygon_files == [out / "map.gpkg"]
    Run(out).remove()
    assert not (out / "objects.tif").exists()


def _sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_run_leaves_everything_it_promises(finished):
    files = {path.name for path in finished.iterdir()}
    assert {"recipe.toml", "chips", "model", "map.tif", "map.gpkg", "assessment.json", "report.html"} <= files
    assert "map.gpkg (" in (finished / "report.html").read_text(encoding="utf-8")
    assert not [path for path in finished.rglob("*") if "partial" in path.name or path.name.endswith(".parts")]


def test_the_map_is_better_than_the_most_common_class(finished, drawn):
    found = verbs.assess(finished / "map.tif", reference=drawn[1], label_field="class")
    shares = found.confusion.counts.sum(axis=1) / found.confusion.total
    assert found.overall_accuracy > shares.max() + 0.1


def test_the_map_lies_on_the_scene_and_keeps_its_nodata(finished, drawn):
    scene, mapped = Raster.open([drawn[0]]), Raster.open([finished / "map.tif"])
    assert mapped.grid.is_aligned(scene.grid)
    assert (mapped.read(mapped.grid.window)[1] == scene.read(scene.grid.window)[1]).all()


@pytest.mark.slow
def test_the_recipe_that_a_run_leaves_repeats_it_byte_by_byte(of_two_scenes, tmp_path):
    first, again = of_two_scenes, pipeline.run(of_two_scenes / "recipe.toml", out=tmp_path / "again")
    names = ["recipe.toml", "model/model.safetensors", "report.html"]
    files = [*(first / "chips").rglob("*.*"), *(first / "maps").rglob("*.tif"), *(first / name for name in names)]
    assert len(files) > len(names) + 2
    for path in files:
        assert path.read_bytes() == (again / path.relative_to(first)).read_bytes(), path


def test_a_run_makes_only_its_missing_files_again(finished, tmp_path):
    half = tmp_path / "half"
    shutil.copytree(finished, half)
    for name in ("map.tif", "assessment.json", "report.html"):
        (half / name).unlink()
    kept = {path: path.stat().st_mtime_ns for path in (half / "model").iterdir()}
    pipeline.run(half / "recipe.toml", out=half)
    assert _sha(half / "map.tif") == _sha(finished / "map.tif")
    assert {path: path.stat().st_mtime_ns for path in (half / "model").iterdir()} == kept


def test_a_run_of_another_recipe_is_not_written_over(finished, drawn):
    before = _sha(finished / "map.tif")
    with pytest.raises(OutputError, match=r"a run with another seed \(\d, now 99\)"):
        pipeline.run(images=[drawn[0]], labels=drawn[1], out=finished, steps=60, seed=99, **MEASURED)
    assert _sha(finished / "map.tif") == before


def test_the_assessed_chips_took_no_part_in_training(finished):
    assessment = json.loads((finished / "assessment.json").read_text())
    chips = Chips.open(finished / "chips")
    assert assessment["split"] == "test"
    gap = 64 // 4
    test, others = chips.of_split("test"), [chips.of_split(name) for name in ("train", "val")]
    for windows in (other.windows for other in others):
        assert min(a.distance_to(b) for a in test.windows for b in windows) >= gap


def test_virtual_chips_train_the_model_that_copied_chips_do(drawn, tmp_path):
    scene, labels, _ = drawn
    models = []
    for virtual in (False, True):
        chips = verbs.chip(
            images=[scene],
            labels=labels,
            out=tmp_path / f"chips{virtual}",
            size=64,
            label_field="class",
            virtual=virtual,
        )
        models.append(verbs.train(chips, out=tmp_path / f"model{virtual}", steps=3, **SMALL).sha256)
    assert models[0] == models[1]


def test_a_run_states_the_accuracy_of_each_region_of_its_test_scenes(tmp_path, capsys):
    scenes, rng = [], np.random.default_rng(0)
    for index, (split, region) in enumerate((("train", "Kentucky"), ("test", "Ohio"), ("test", "Virginia"))):
        transform = METRE @ Affine.translation(1000 * index, 0)
        folder = tmp_path / region
        folder.mkdir()
        write_raster(folder / f"{region}.tif", noise(3, 64, 64), transform=transform)
        truth = rng.integers(1, 3, (64, 64), np.uint8)
        write_raster(folder / f"{region}_mask.tif", truth, transform=transform)
        scenes.append({"image": str(folder), "split": split, "group": region})
    recipe = Recipe.of({
        "scenes": scenes, "chips": {"size": 32}, "train": SMALL | {"steps": 1}, "predict": {"tile": 64, "margin": 8},
    })  # fmt: skip
    run = pipeline.run(recipe, out=tmp_path / "run")
    measures = Run(run).read_assessment()
    assert {name: own["pixels"] for name, own in measures["groups"].items()} == {"Ohio": 64**2, "Virginia": 64**2}
    print_run(run, as_json=False)
    table = capsys.readouterr().out.partition("\nregion or group ")[2]
    assert [line.split()[:2] for line in table.splitlines()[1:3]] == [["Ohio", "4,096"], ["Virginia", "4,096"]]
    report = (run / "report.html").read_text(encoding="utf-8")
    assert report.count('<th scope="row">Ohio</th>') == report.count('<th scope="row">Virginia</th>') == 1


def test_a_run_on_dask_counts_its_reference_there_unless_it_is_points(drawn, tmp_path, monkeypatch):
    scene, labels, truth = drawn
    points = tmp_path / "points.gpkg"
    polygons = gpd.read_file(labels)
    polygons.set_geometry(polygons.representative_point()).to_file(points)
    on_dask = []
    monkeypatch.setattr(prediction, "run_on_dask", lambda task, units, _, **__: run_units(task, units))
    monkeypatch.setattr(
        counting, "run_on_dask", lambda task, strips, dask: on_dask.append(dask) or run_units(task, strips)
    )
    given = {"images": [scene], "labels": labels, "out": tmp_path / "run", "steps": 1, "overwrite": True}
    for reference, column, expected in ((truth, None, ["auto"]), (points, "class", ["auto"])):
        assessed = {"reference": str(reference), "reference_field": column}
        pipeline.run(**given, **QUICK | {"predict": {"dask": "auto"}, "assess": assessed})
        assert on_dask == expected
        assert Run(tmp_path / "run").read_reference_assessment()["reference"] == reference.name


def test_each_scene_has_its_map(of_two_scenes):
    names = [path.name for path in sorted((of_two_scenes / "maps").glob("*.tif"))]
    assert names == ["000_scene.tif", "001_scene.tif"]


@pytest.mark.parametrize(("bands", "dtype"), [(1, "uint16"), (4, "int16"), (8, "float32")])
def test_any_bands_dtypes_and_class_codes_go_all_the_way(tmp_path, bands, dtype):
    drawn = world.draw(192, 192, seed=3)
    stack = np.concatenate([drawn.image] * 3)[:bands].astype(dtype) * 3
    files = []
    for number, band in enumerate(stack):
        path = tmp_path / f"B{number:02d}.tif"
        layout = {"driver": "GTiff", "count": 1, "height": 192, "width": 192, "dtype": dtype, "nodata": 0}
        with rasterio.open(path, "w", crs=drawn.crs, transform=drawn.transform, **layout) as target:
            target.write(band, 1)
        files.append(path)
    codes = dict(zip(sorted(set(drawn.features["class"])), (300, -5, 1000, 42), strict=False))
    drawn.features.assign(**{"class": drawn.features["class"].map(codes)}).to_file(tmp_path / "labels.gpkg")
    out = pipeline.run(images=[files], labels=tmp_path / "labels.gpkg", out=tmp_path / "run", steps=2, **QUICK)
    assert Raster.open([out / "map.tif"]).grid.shape == (192, 192)
    assert len(Chips.open(out / "chips").metadata.bands) == bands
    names = ["background", *map(str, sorted(codes.values()))]
    assert [row["name"] for row in json.loads((out / "assessment.json").read_text())["classes"]] == names
    assert all(f">{name}<" in (out / "report.html").read_text() for name in names)


def test_a_run_reads_polygons_once(counted_run):
    assert counted_run[1] == 1


def test_labels_may_be_a_raster_and_its_classes_are_looked_for_once(drawn, tmp_path, monkeypatch):
    scene, _, truth = drawn
    searches, settings = counted(monkeypatch, LabelRaster, "labels"), QUICK | {"label_field": None}
    out = pipeline.run(images=[scene], labels=truth, out=tmp_path / "run", steps=2, **settings)
    assert len(searches) == 1
    assert Chips.open(out / "chips").classes.values == (0, 1, 2, 3, 4)


@pytest.mark.slow
def test_a_run_of_two_classes_maps_with_the_threshold_of_its_validation_chips(drawn, tmp_path):
    # Without the column of classes, all polygons are one class on background.
    settings = QUICK | {"label_field": None, "steps": 8, "threshold": "val"}
    out = pipeline.run(images=[drawn[0]], labels=drawn[1], out=tmp_path / "run", **settings)
    model = Model.load(out / "model")
    threshold = fingerprint_in(read_tags(out / "map.tif"))["threshold"]
    assert threshold == model.val_threshold
    page = (out / "report.html").read_text()
    second = model.classes.names[1]
    assert f"{threshold:.3g}, {second} from it up" in page
    assert f"F1 of {second} {model.measures['val_threshold_f1']:.3f}" in page


def test_a_threshold_that_no_model_of_the_run_could_have_is_refused_before_the_training(drawn, tmp_path):
    given = {"images": [drawn[0]], "labels": drawn[1], "out": tmp_path / "run", "threshold": "val"}
    with pytest.raises(LandscribeError, match="--threshold val is for two classes, but there are 5"):
        pipeline.run(**given, **QUICK)
    assert not (tmp_path / "run").exists()
    with pytest.raises(LandscribeError, match="threshold is val, but split val has no chips"):
        pipeline.run(**given, **QUICK | {"label_field": None, "val": 0})
    assert not (tmp_path / "run").exists()


def test_the_demo_ends_by_naming_the_map_and_the_report(tmp_path):
    done = landscribe("demo", "--out", tmp_path / "demo", "--size", 256, "--steps", 2)
    assert done.code == 0, done.err
    *_, named_map, named_report = done.out.splitlines()
    assert Path(named_map.split()[-1]).exists()
    assert Path(named_report.split()[-1]).exists()
    # The roads and rivers that it draws lie over each other, which is no fault of its reader.
    assert "overlap" not in done.err


@pytest.fixture(scope="module")
def few_chips(tmp_path_factory) -> Chips:
    """Chips of a small world, all of them to train on."""
    folder = tmp_path_factory.mktemp("few")
    scene, labels, _ = world.write(world.draw(200, 150, seed=7), folder / "world")
    chips = verbs.chip(images=[scene], labels=labels, out=folder / "chips", size=64, label_field="class")
    return replace(chips, table=chips.table.assign(split="train"))


NARROW = {"encoder": "plain", "options": {"encoder_widths": [6, 8, 12]}}
NETWORKS = dict.fromkeys(ARCHITECTURES, NARROW) | {
    "deeplabv3plus": {"encoder": "test_resnet", "options": {"channels": 16}},
    "smp:FPN": {
        "encoder": "test_resnet",
        "options": {"decoder_pyramid_channels": 16, "decoder_segmentation_channels": 32},
    },
    "networks:Striding": {"encoder": "test_resnet"},
}


@pytest.mark.parametrize("architecture", NETWORKS)
def test_every_architecture_trains_maps_and_is_assessed(architecture, few_chips, tmp_path, monkeypatch):
    """All other steps of a run are tested with one architecture."""
    # tests/nn/test_summary.py has the receptive fields of every architecture; they take ten times as long as the rest.
    monkeypatch.setattr(summary, "_receptive_fields", lambda network, names, bands: dict.fromkeys(names))
    (scene,) = few_chips.metadata.sources[0].image
    verbs.train(
        few_chips, out=tmp_path / "model", architecture=architecture, weights="none", steps=1, batch=2,
        **NETWORKS[architecture],
    )  # fmt: skip
    assert json.loads((tmp_path / "model" / "config.json").read_text())["architecture"] == architecture
    trust = {"trust_code": architecture}
    (mapped,) = verbs.predict(tmp_path / "model", [scene], out=tmp_path / "map.tif", tile=128, margin=16, **trust)
    with rasterio.open(mapped) as file:
        assert file.shape == (200, 150)
    assert verbs.assess(mapped, reference=few_chips, split="train").confusion.total > 0
    assert verbs.summary(tmp_path / "model", size=64, **trust).parameters > 0
