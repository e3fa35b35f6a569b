"""Plans: the same command gives the same map, with the choices of its first run."""

import json
import os
import pickle
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import shapely
from test_mapping import model_of, read, write

from landscribe.errors import OutputError
from landscribe.fingerprint import Fingerprint
from landscribe.geo.classes import Classes
from landscribe.geo.features import Features
from landscribe.geo.grid import Window
from landscribe.geo.rasters.derived.clipped import clip
from landscribe.geo.rasters.raster import Raster
from landscribe.inference.backends.choice import allowed_backends
from landscribe.maps.class_map import read_tags as tags
from landscribe.maps.legends.style import polygon_qml, qml
from landscribe.maps.output_paths import OutputPaths
from landscribe.maps.unit_store import UnitStore
from landscribe.prediction import plan, run
from landscribe.prediction.finish import finish
from landscribe.prediction.spec import NOT_IN_FINGERPRINT, PredictSpec
from networks import Identity, plan_map, predict
from worlds import write_polygons


@pytest.fixture
def raster(tmp_path):
    return write(tmp_path / "image.tif", np.random.default_rng(0).integers(0, 4, (150, 217)).astype(np.uint8))


def choosing(monkeypatch, **other):
    """Let this machine choose otherwise from now on."""
    real = plan.choose_tiling
    monkeypatch.setattr(plan, "choose_tiling", lambda *arguments: replace(real(*arguments), **other))


def test_an_unfinished_map_resumes_with_its_earlier_choices(tmp_path, raster, monkeypatch):
    real, left = run.compute_unit, iter(range(3))

    def interrupted(*arguments, **settings):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return real(*arguments, **settings)

    spec = PredictSpec(tile="auto", margin="auto", unit=64)
    choosing(monkeypatch, tile=64, margin=8)
    with monkeypatch.context() as patched:
        patched.setattr(run, "compute_unit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=spec)
    done = len(list((tmp_path / "map.tif.parts").glob("[0-9]*.json")))
    assert done > 0
    choosing(monkeypatch, tile=96, margin=4)
    predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=spec)
    assert (read(tmp_path / "map.tif") == read(tmp_path / "image.tif")).all()


def test_a_finished_map_stays_up_to_date_if_another_tile_would_be_chosen(tmp_path, raster, monkeypatch):
    spec = PredictSpec(tile="auto", margin="auto")
    predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=spec)
    before = (tmp_path / "map.tif").stat().st_mtime_ns
    choosing(monkeypatch, tile=64, margin=8)
    predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=spec)
    assert (tmp_path / "map.tif").stat().st_mtime_ns == before


def test_a_requested_setting_overrides_an_earlier_choice(tmp_path, raster):
    predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=PredictSpec(margin="auto"))
    with pytest.raises(OutputError, match="exists"):
        predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=PredictSpec(margin=16, tile=64))


@pytest.mark.parametrize("settings", [{"precision": "32"}, {"engine": "torch"}, {"engine": "torch-bf16"}])
def test_a_tolerance_that_chooses_nothing_is_refused(settings):
    with pytest.raises(ValueError, match=r"tolerance is 0\.01, but it chooses nothing"):
        PredictSpec(tile=64, margin=8, tolerance=0.01, **settings)
    assert PredictSpec(tile=64, margin=8, **settings).tolerance == 1e-3
    for auto in ("tile", "margin"):
        assert PredictSpec(**{"tile": 64, "margin": 8, auto: "auto"}, tolerance=0.01, **settings).tolerance == 0.01


def test_another_tolerance_is_another_map(tmp_path, raster):
    loose, strict = (PredictSpec(tile=64, margin="auto", tolerance=tolerance) for tolerance in (0.05, 1e-5))
    predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=loose)
    with pytest.raises(OutputError, match="exists"):
        predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=strict)
    # Whoever states what had been chosen leaves nothing to the tolerance.
    margin = json.loads(tags(tmp_path / "map.tif")["LANDSCRIBE_PLAN"])["margin"]
    stated = PredictSpec(tile=64, margin=margin, engine="torch")
    predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=stated)


def test_another_tolerance_is_another_map_if_it_decides_about_the_engine(tmp_path, raster):
    loose, strict = (PredictSpec(tile=64, margin=8, tolerance=tolerance) for tolerance in (0.05, 1e-5))
    predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=loose)
    with pytest.raises(OutputError, match="exists"):
        predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=strict)


def test_shards_that_start_together_take_the_choices_of_the_first(tmp_path, raster, monkeypatch):
    model, first, second = model_of(Identity(), 4), *(PredictSpec(shard=f"{number}/2", unit=64) for number in (1, 2))
    real = plan.choose_tiling

    def choosing_last(*arguments):
        monkeypatch.setattr(plan, "choose_tiling", lambda *same: replace(real(*same), batch=3))
        predict(model, raster, tmp_path / "map.tif", spec=second)
        return real(*arguments)

    monkeypatch.setattr(plan, "choose_tiling", choosing_last)
    predict(model, raster, tmp_path / "map.tif", spec=first)
    assert json.loads((tmp_path / "map.tif.parts" / "plan.json").read_text())["batch"] == 3
    predict(model, raster, tmp_path / "map.tif", spec=PredictSpec(unit=64))
    assert (read(tmp_path / "map.tif") == read(tmp_path / "image.tif")).all()


def masked(path, valid):
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as image:
        image.write_mask(valid)


def test_a_mask_file_beside_a_raster_is_in_its_fingerprint(tmp_path, raster):
    valid = np.ones((150, 217), bool)
    masked(tmp_path / "image.tif", valid)
    before = (tmp_path / "image.tif").stat()
    raster = Raster.open([tmp_path / "image.tif"])
    assert predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=PredictSpec())
    valid[:50] = False
    masked(tmp_path / "image.tif", valid)
    os.utime(tmp_path / "image.tif", ns=(before.st_atime_ns, before.st_mtime_ns))
    raster = Raster.open([tmp_path / "image.tif"])
    with pytest.raises(OutputError, match="exists"):
        predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=PredictSpec())


def test_a_subdataset_has_another_fingerprint_if_its_file_changes(tmp_path, raster):
    part = f"GTIFF_DIR:1:{tmp_path / 'image.tif'}"
    predict(model_of(Identity(), 4), Raster.open([part]), tmp_path / "map.tif", spec=PredictSpec())
    write(tmp_path / "image.tif", np.zeros((150, 217), np.uint8))
    with pytest.raises(OutputError, match="exists"):
        predict(model_of(Identity(), 4), Raster.open([part]), tmp_path / "map.tif", spec=PredictSpec())


@pytest.mark.parametrize("name", ["image.tif", "image area.gpkg", "area.gpkg"])
def test_no_output_replaces_a_file_behind_a_virtual_raster_or_polygons(tmp_path, raster, name):
    rasterio.shutil.copy(tmp_path / "image.tif", tmp_path / "inner.vrt", driver="VRT")
    rasterio.shutil.copy(tmp_path / "inner.vrt", tmp_path / "outer.vrt", driver="VRT")
    box = shapely.box(*raster.grid.bounds)
    for polygons in ("image area.gpkg", "area.gpkg"):
        write_polygons(tmp_path / polygons, [box], crs=raster.grid.crs)
    clipped = clip(Raster.open([tmp_path / "outer.vrt"]), Features.read(tmp_path / "image area.gpkg"))
    spec, path = PredictSpec(area=str(tmp_path / "area.gpkg")), tmp_path / name
    out = OutputPaths(path) if path.suffix == ".tif" else OutputPaths(tmp_path / "map.tif", suggested_labels=path)
    with pytest.raises(OutputError, match=f"{name} is an input"):
        plan_map(model_of(Identity(), 4), clipped, spec, out)


@pytest.mark.parametrize("address", ["/vsizip/{}/image.tif", "/vsizip/{{{}}}/image.tif", "zip://{}!image.tif"])
def test_a_raster_in_an_archive_has_another_fingerprint_if_the_archive_changes(tmp_path, raster, address):
    archive = tmp_path / "images.zip"
    name = address.format(archive)

    def pack():
        with ZipFile(archive, "w") as packed:
            packed.write(tmp_path / "image.tif", "image.tif")

    pack()
    predict(model_of(Identity(), 4), Raster.open([name]), tmp_path / "map.tif", spec=PredictSpec())
    # Uncompressed, the blocks keep their offsets and lengths.
    write(tmp_path / "image.tif", 3 - read(tmp_path / "image.tif"))
    pack()
    with pytest.raises(OutputError, match="exists"):
        predict(model_of(Identity(), 4), Raster.open([name]), tmp_path / "map.tif", spec=PredictSpec())


def test_added_statistics_and_overviews_keep_the_fingerprint(tmp_path, raster):
    predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=PredictSpec())
    before = (tmp_path / "map.tif").stat().st_mtime_ns
    (tmp_path / "image.tif.aux.xml").write_text("<PAMDataset></PAMDataset>")
    (tmp_path / "image.tif.ovr").write_bytes((tmp_path / "image.tif").read_bytes())
    predict(model_of(Identity(), 4), Raster.open([tmp_path / "image.tif"]), tmp_path / "map.tif", spec=PredictSpec())
    assert (tmp_path / "map.tif").stat().st_mtime_ns == before


def test_a_worker_opens_the_raster_from_any_working_folder(tmp_path, raster, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sent = pickle.dumps((Raster.open(["image.tif"]), UnitStore.of(Path("map.tif"), Fingerprint.of({}))))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    there, parts = pickle.loads(sent)
    assert there.read(Window(0, 0, 4, 4))[1].all()
    assert parts.folder == tmp_path / "map.tif.parts"


def test_a_finished_map_is_reported_and_its_lost_style_is_rewritten(tmp_path, raster, caplog):
    predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=PredictSpec())
    style = (tmp_path / "map.qml").read_text()
    (tmp_path / "map.qml").unlink()
    with caplog.at_level("INFO", "landscribe"):
        predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=PredictSpec())
    there, areas = caplog.messages
    assert "map.tif is up to date" in there
    assert areas.startswith("map.tif: class 0 0.8")
    assert (tmp_path / "map.qml").read_text() == style


@pytest.mark.parametrize(
    ("style", "stays"),
    [
        (polygon_qml([("field", "#00ff00")], "class"), True), ('<rasterrenderer type="multibandcolor"/>', True),
        (qml(Classes.from_labels(["of", "an", "earlier", "map"], background=False)), False),
    ],
)  # fmt: skip
def test_the_style_of_a_user_or_of_polygons_stays(tmp_path, raster, caplog, style, stays):
    (tmp_path / "map.qml").write_text(style)
    predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=PredictSpec())
    assert ((tmp_path / "map.qml").read_text() == style) == stays
    assert ("map.qml is another style" in caplog.text) == stays


def test_the_differences_to_a_finished_map_are_reported(tmp_path, raster):
    predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=PredictSpec())
    with pytest.raises(OutputError, match=r"map\.tif exists already, as a map with another tta \(false, now true\)"):
        predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=PredictSpec(tta=True))


@pytest.mark.parametrize("name", PredictSpec.model_fields)
def test_each_setting_is_in_the_fingerprint_or_excluded_with_a_reason(tmp_path, raster, name):
    plan_of_map = plan_map(model_of(Identity(), 4), raster, PredictSpec(), OutputPaths(tmp_path / "map.tif"))
    assert (name in plan_of_map.fingerprint.fields) != (name in NOT_IN_FINGERPRINT) or name == "bands"


def test_the_marker_of_each_unit_is_read_once_to_assemble_a_map(tmp_path, raster, monkeypatch):
    reads, real = [], UnitStore.areas
    model, paths = model_of(Identity(), 4), OutputPaths(tmp_path / "map.tif", tmp_path / "p.tif")
    plan_of_map = plan_map(model, raster, PredictSpec(tile=64, margin=4, unit=64), paths)
    store = run.run(plan_of_map)
    monkeypatch.setattr(UnitStore, "areas", lambda self, unit: reads.append(unit) or real(self, unit))
    finish(plan_of_map, store)
    assert len(reads) == len(plan_of_map.units)


def test_a_map_that_was_begun_in_another_precision_is_not_resumed(tmp_path, raster):
    model = model_of(Identity(), 4)
    predict(model, raster, tmp_path / "map.tif", spec=PredictSpec(precision="32"))
    before = (tmp_path / "map.tif").stat().st_mtime_ns
    predict(model, raster, tmp_path / "map.tif", spec=PredictSpec())
    assert (tmp_path / "map.tif").stat().st_mtime_ns == before
    with pytest.raises(OutputError, match=r"another engine \(torch.*torch-bf16\)"):
        predict(model, raster, tmp_path / "map.tif", spec=PredictSpec(precision="bf16"))


def test_a_precision_that_the_engine_does_not_have_is_refused():
    with pytest.raises(ValueError, match="engine torch computes in precision 32, not in bf16"):
        PredictSpec(engine="torch", precision="bf16")
    assert PredictSpec(engine="torch-bf16", precision="bf16").engine == "torch-bf16"


def test_cuda_graphs_are_refused_on_dask():
    with pytest.raises(
        ValueError, match="engine torch-compiled runs in the main thread, but dask runs units in others"
    ):
        PredictSpec(engine="torch-compiled", dask="auto")
    assert PredictSpec(engine="torch-compiled").engine == "torch-compiled"
    assert "torch-compiled" in allowed_backends("auto", on_dask=False)
    # Nor does a map that was begun without dask go on with them.
    assert "torch-compiled" not in allowed_backends("auto", on_dask=True)
