"""Composites of a job: the values of the notebook function and of numpy, on any division of the area and the days."""

import json
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely

import s2cube
from s2cube.composites.compute_composites import (
    CompositeSummary,
    compose,
    compute_composites,
    plan_composites,
)
from s2cube.config.times import parse_times
from s2cube.demo.archive import Archive
from s2cube.fetch import session
from s2cube.fetch.retry import Retry
from s2cube.storage.lease import held
from s2cube.storage.output import Output
from support.runs import FARM, EditItems
from support.scenes import rectangle, scene
from support.servers import Asked, answer, faulty


@pytest.fixture
def fresh() -> Iterator[None]:
    session.reset()
    yield
    session.reset()


def config_of(archive: Archive, out: Path, **settings: Any) -> s2cube.JobConfig:
    given = {"aoi": archive.aoi, "stac": archive.items, "out": out, "bands": "red,nir", "resolution": 60}
    return s2cube.load_config(given | settings, {})


def compute(archive: Archive, out: Path, **settings: Any) -> CompositeSummary:
    return compute_composites(config_of(archive, out, **settings))


def layers(path: str) -> dict[str, np.ndarray]:
    """Return the values, the count and the date of a composite."""
    found = {}
    for name in ("", "_count", "_date"):
        if (file := Path(path.removesuffix(".tif") + f"{name}.tif")).exists():
            with rasterio.open(file) as raster:
                found[name] = raster.read()
    return found


def same(one: list[str], other: list[str]) -> None:
    """Check that two jobs have written the same layers."""
    assert [Path(each).name for each in one] == [Path(each).name for each in other]
    assert one
    for each, another in zip(one, other, strict=True):
        for name, layer in layers(each).items():
            np.testing.assert_array_equal(layer, layers(another)[name], err_msg=f"{each} {name}")


METHODS = [
    {"method": "median"}, {"method": "mean", "min_count": 2}, {"method": "geomedian"}, {"method": "medoid"},
    {"method": "best", "score": "-NDVI"}, {"method": "first"}, {"method": "first", "score": "-time"},
]  # fmt: skip


@pytest.mark.parametrize("settings", METHODS, ids=lambda each: "".join(map(str, each.values())))
@pytest.mark.parametrize("in_file", [False, True], ids=["memory", "file"])
def test_strips_of_a_day_are_the_day(
    settings: dict[str, Any], in_file: bool, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A strip has some rows. Masks reach beyond it, because they are dilated; daily images are read strip by strip."""
    indices = {} if settings["method"] == "geomedian" else {"indices": "NDVI"}
    more = {"dilation": 150, "period": "year"} | indices | settings
    whole = compute(archive, tmp_path / "whole", **more).written
    monkeypatch.setattr("s2cube.workers.composite_task._STRIP_CELLS", 1000)
    if in_file:
        monkeypatch.setattr("s2cube.workers.memory._MOST_STACK_BYTES", 1)
    same(compute(archive, tmp_path / "strips", **more).written, whole)
    if settings == METHODS[0]:
        images = {key: value for key, value in more.items() if key not in ("method", "period")}
        s2cube.run(config_of(archive, tmp_path / "daily", **images), progress=False)
        of_images = compute(archive, tmp_path / "daily", **more)
        # One request reads one daily image.
        assert of_images.requests == 6
        same(of_images.written, whole)


@pytest.mark.parametrize("settings", METHODS, ids=lambda each: "".join(map(str, each.values())))
@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_values_are_those_of_the_notebook(
    settings: dict[str, Any], dtype: Any, archive: Archive, tmp_path: Path
) -> None:
    indices = ["NDVI"] if settings["method"] != "geomedian" else []
    bands = {"bands": ["red", "nir"], "indices": indices, "resolution": 60, "dtype": dtype}
    cube = s2cube.open_cube(s2cube.search(archive.aoi, stac=str(archive.items)), archive.aoi, **bands)
    expected = s2cube.composite(cube, period="season", **settings).compute()
    summary = compute(archive, tmp_path, **(bands | {"bands": "red,nir", "period": "season"} | settings))
    periods = expected.period.values.tolist()
    names = sorted(f"farm_{each}_{settings['method']}.tif" for each in periods)
    assert [Path(each).name for each in summary.written] == names
    for path in summary.written:
        at = periods.index(Path(path).stem.split("_")[1])
        found = layers(path)
        np.testing.assert_array_equal(found[""], expected.values[at])
        np.testing.assert_array_equal(found["_count"][0], expected["count"].values[at])
        assert ("_date" in found) == ("date" in expected.coords)
        if "_date" in found:
            np.testing.assert_array_equal(found["_date"][0], expected["date"].values[at])


def test_median_and_count_of_the_images_of_run(archive: Archive, tmp_path: Path) -> None:
    images = s2cube.run(config_of(archive, tmp_path / "images"), progress=False).written
    (path,) = compute(archive, tmp_path / "composites", period="all", datetime="2021/2022").written
    assert Path(path).parent.name == "farm_20210101-20221231_median"
    stack = np.stack([layers(each)[""] for each in images])
    valid = (stack != -9999).all(1)
    expected = np.ma.median(np.ma.masked_equal(stack, -9999), axis=0)
    rounded = np.rint(expected.filled(-9999)).astype("int16")
    found = layers(path)
    np.testing.assert_array_equal(found["_count"][0], valid.sum(0))
    np.testing.assert_array_equal(found[""], np.where(valid.any(0), rounded, -9999))
    assert found["_count"].max() > 1


@pytest.mark.parametrize("settings", METHODS[2:6], ids=lambda each: each["method"])
def test_a_large_area_has_the_bytes_of_a_small_one(
    settings: dict[str, Any], archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh: None
) -> None:
    given = {"period": "year", "dilation": 100} | settings
    small = compute(archive, tmp_path / "small", **given)
    session.reset()
    monkeypatch.setattr("s2cube.cube.chunks._CHUNK_CELLS", 32)
    monkeypatch.setattr("s2cube.workers._composite_days._STRIP_BYTES", 5000)
    # The days are in a file.
    monkeypatch.setattr("s2cube.workers._composite_days.stack_in_memory", lambda: 1000)
    large = compute(archive, tmp_path / "large", **given)
    same(small.written, large.written)


def fields(folder: Path) -> Path:
    """Write fields that are close to each other, two of which overlap, and one that is narrower than a cell."""
    left, bottom, right, _ = FARM
    boxes = [shapely.box(left + 300 * n, bottom + 90, left + 300 * n + 400, bottom + 500) for n in range(3)]
    boxes.append(shapely.box(right, bottom, right + 3, bottom + 800))
    path = folder / "fields.geojson"
    frame = geopandas.GeoDataFrame({"id": list("abcd")}, geometry=boxes, crs="EPSG:32614")
    frame.to_crs("EPSG:4326").to_file(path)
    return path


def each_alone(fields: Path) -> Iterator[Path]:
    """Yield the path of a file of each field."""
    content = json.loads(fields.read_text())
    for feature in content["features"]:
        path = fields.with_name(f"{feature['properties']['id']}.geojson")
        path.write_text(json.dumps(content | {"features": [feature]}))
        yield path


def test_fields_on_blocks_have_the_bytes_of_single_fields(archive: Archive, tmp_path: Path) -> None:
    aois = fields(tmp_path)
    together = compute(archive, tmp_path / "together", aoi=aois, period="year", resolution=30, method="medoid")
    given = {"period": "year", "resolution": 30, "method": "medoid"}
    single = []
    for aoi in each_alone(aois):
        single += compute(archive, tmp_path / "single", aoi=aoi, **given).written
    same(together.written, sorted(single))
    assert len(single) == 8


def test_fields_read_a_tile_once(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh: None
) -> None:
    # No tile stays in the cache.
    monkeypatch.setattr("s2cube.fetch.cache.FileCache.__init__.__defaults__", (0,))
    aois = fields(tmp_path)
    given = {"period": "year", "resolution": 30}
    one = compute(archive, tmp_path / "one", aoi=aois, **given)
    session.reset()
    images = s2cube.run(config_of(archive, tmp_path / "images", aoi=aois, resolution=30), progress=False)
    assert (one.requests, one.bytes) == (images.requests, images.bytes)
    session.reset()
    of_single = [compute(archive, tmp_path / "s", aoi=aoi, **given) for aoi in each_alone(aois)]
    assert sum(each.bytes for each in of_single) > one.bytes


def test_order_of_scenes_changes_nothing(archive: Archive, edited: EditItems, tmp_path: Path, fresh: None) -> None:
    given = {"period": "year", "method": "best"}
    turned = edited(lambda items: items.reverse())
    one, other = compute(archive, tmp_path / "one", **given), compute(archive, tmp_path / "b", stac=turned, **given)
    same(one.written, other.written)


def test_the_winter_begins_in_december(archive: Archive, edited: EditItems, tmp_path: Path) -> None:
    def to_december(items: list[dict[str, Any]]) -> None:
        for item in items:
            if "20220520" in item["id"]:
                item["properties"]["datetime"] = item["properties"]["datetime"].replace("2022-05-20", "2021-12-31")
            if "20220614" in item["id"]:
                item["properties"]["datetime"] = item["properties"]["datetime"].replace("2022-06-14", "2022-01-01")

    given = {"stac": edited(to_december), "period": "season", "datetime": "2021-12/2022-02", "method": "first"}
    given["score"] = "-time"
    (path,) = compute(archive, tmp_path, **given).written
    assert Path(path).stem == "farm_2022DJF_first"
    days = {(date(1970, 1, 1) - date(2021, 12, 31)).days, (date(1970, 1, 1) - date(2022, 1, 1)).days}
    assert {-int(each) for each in np.unique(layers(path)["_date"])} - {0} == days


def test_days_are_counted_from_the_range(archive: Archive, tmp_path: Path) -> None:
    done = compute(archive, tmp_path, period="P10D", datetime="2022-05-11/2022-06-19")
    assert [Path(each).stem for each in done.written] == ["farm_20220511_median", "farm_20220610_median"]


def test_a_period_without_clear_pixels(archive: Archive, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    given = {"datetime": "2022-05", "mask_classes": "0,1,2,3,4,5,6,7,8,9,10,11"}
    with caplog.at_level("INFO"):
        done = compute(archive, tmp_path, **given)
    (path,) = done.written
    assert not done.failed
    found = layers(path)
    assert (found[""] == -9999).all()
    assert not found["_count"].any()
    assert "farm_202205_median: no pixel has an observation" in caplog.text


def test_who_has_the_lease_composes_planned_periods(archive: Archive, tmp_path: Path) -> None:
    config = config_of(archive, tmp_path, period="season")
    items = s2cube.search(archive.aoi, stac=str(archive.items))
    with held(Output.at(tmp_path)) as lease:
        job = plan_composites(config, lease.output, items, parse_times("2022"))
        first = compose(job, lease)
        assert not plan_composites(config, lease.output, items, parse_times("2022")).todo
    assert {task.id[:9] for task in job.todo} == {"farm_2022"}
    assert sorted(task.id for task in job.todo) == [Path(each).stem for each in first.written]


def test_a_second_run_reads_nothing(archive: Archive, tmp_path: Path) -> None:
    first = compute(archive, tmp_path, period="season")
    again = compute(archive, tmp_path, period="season")
    assert (again.written, again.requests, again.bytes) == ([], 0, 0)
    assert sorted(again.skipped) == [Path(each).stem for each in first.written]
    assert len(compute(archive, tmp_path, period="season", overwrite=True).written) == len(first.written)


@pytest.mark.parametrize(
    "change", [{"min_count": 2}, {"bands": "red"}, {"dtype": "float32"}, {"datetime": "2022-05-20/2022-06-14"}]
)
def test_a_changed_setting_computes_again(change: dict[str, Any], archive: Archive, tmp_path: Path) -> None:
    given = {"datetime": "2022-05/2022-06", "period": "year"}
    (path,) = compute(archive, tmp_path, **given).written
    assert compute(archive, tmp_path, **(given | change)).written == [path]
    assert compute(archive, tmp_path, **(given | change)).written == []


def test_a_late_scene_computes_its_period_only(
    archive: Archive, edited: EditItems, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave_out(items: list[dict[str, Any]]) -> None:
        items.remove(next(item for item in items if "20220614" in item["id"]))

    early = edited(leave_out)
    before = compute(archive, tmp_path, stac=early).written
    after = compute(archive, tmp_path)
    assert [Path(each).stem for each in after.written] == ["farm_202206_median"]
    assert len(after.skipped) == len(before) - 1
    # A composite of fewer scenes replaces it only if the catalogue has withdrawn the others.
    with monkeypatch.context() as kept:
        kept.setattr("s2cube.jobs.job.find_withdrawn", lambda *_: set())
        assert compute(archive, tmp_path, stac=early).written == []
    assert compute(archive, tmp_path, stac=early).written == after.written


def damaged(items: list[dict[str, Any]]) -> None:
    next(item for item in items if "20220614" in item["id"])["assets"]["nir"]["href"] = "./nowhere.tif"


@pytest.mark.parametrize("cells", [2048, 100], ids=["small", "large"])
def test_an_asset_that_fails(
    cells: int, archive: Archive, edited: EditItems, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh: None
) -> None:
    monkeypatch.setattr("s2cube.cube.chunks._CHUNK_CELLS", cells)
    given = {"stac": edited(damaged), "period": "year", "slice_retries": 0, "bands": "nir"}
    failed = compute(archive, tmp_path, **given)
    assert [Path(each).stem for each in failed.written] == ["farm_2021_median"]
    assert [each["slice"] for each in failed.failed] == ["farm_2022_median"]
    (line,) = [json.loads(each) for each in (tmp_path / "failures.jsonl").read_text().splitlines()]
    assert (line["slice"], line["asset"]) == ("farm_2022_median", "nir")
    allowed = compute(archive, tmp_path, **given, allow_missing_days=1)
    assert [Path(each).stem for each in allowed.written] == ["farm_2022_median"]
    assert not (tmp_path / "failures.jsonl").exists()
    assert not compute(archive, tmp_path, **given, allow_missing_days=1).written
    assert compute(archive, tmp_path, **given).failed
    item = json.loads(Path(allowed.written[0]).with_suffix(".json").read_text())
    assert item["properties"]["s2cube:missing"] == ["farm_20220614"]
    assert not any("20220614" in each for each in item["properties"]["s2cube:scenes"])
    without = edited(lambda items: items.__setitem__(slice(None), [i for i in items if "20220614" not in i["id"]]))
    same(
        allowed.written,
        compute(archive, tmp_path / "b", stac=without, period="year", datetime="2022", bands="nir").written,
    )


def test_first_reads_masks_of_a_large_area_once(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh: None
) -> None:
    # No tile stays in the cache, and no mask in memory.
    monkeypatch.setattr("s2cube.fetch.cache.FileCache.__init__.__defaults__", (0,))
    given = {"period": "year", "method": "first"}
    in_memory = compute(archive, tmp_path / "memory", **given)
    session.reset()
    for module in ("_composite_days", "_first_days"):
        monkeypatch.setattr(f"s2cube.workers.{module}.stack_in_memory", lambda: 0)
    monkeypatch.setattr("s2cube.workers._composites.stack_limit", lambda: 0)
    in_files = compute(archive, tmp_path / "files", **given)
    assert in_files.bytes == in_memory.bytes
    same(in_memory.written, in_files.written)


@pytest.mark.parametrize("retries", [0, 1])
def test_a_day_is_missing_only_after_the_retries(
    retries: int, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh: None
) -> None:
    """A server fails for one file, until the composite has failed once."""
    monkeypatch.setattr("s2cube.fetch.retry.SLICES", Retry(first_pause_s=0))
    failures = []

    def fault(asked: Asked, _: bytes) -> bytes | None:
        is_broken = "20220614" in asked.path and asked.path.endswith(".tif") and not failures
        if is_broken:
            failures.append(asked)
        return answer(503) if is_broken else None

    with faulty(archive.items.parent) as server:
        server.fault = fault
        done = compute(
            archive, tmp_path, stac=f"{server.url}/items.json", datetime="2022", period="year", slice_retries=retries,
            retries=0, allow_missing_days=1,
        )  # fmt: skip
    assert failures
    item = json.loads(Path(done.written[0]).with_suffix(".json").read_text())
    assert item["properties"].get("s2cube:missing", []) == ([] if retries else ["farm_20220614"])


@pytest.mark.parametrize("method", ["median", "geomedian"])
def test_indices_that_int16_cannot_store_are_counted(
    method: str, archive: Archive, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Those of all days, or for the geomedian those of its own spectrum. Here is one day."""
    given = {"indices": "SR", "datetime": "2022-06", "bands": "red,nir", "mask": "none"}
    (path,) = compute(archive, tmp_path / "composite", **given, method=method).written
    (text,) = [each.getMessage() for each in caplog.records if "beyond" in each.getMessage()]
    caplog.clear()
    s2cube.run(config_of(archive, tmp_path / "images", **given), progress=False)
    (of_image,) = [each.getMessage() for each in caplog.records if "beyond" in each.getMessage()]
    if method == "geomedian":
        red, nir, index = layers(path)[""].astype("float64")
        cells = np.count_nonzero(nir[red > 0] / red[red > 0] > 3.2767)
        assert cells == np.count_nonzero((index == -9999) & (red > 0))
        assert f": {cells} of SR; " in text
    else:
        assert text.partition(": ")[2] == of_image.partition(": ")[2]


def test_first_stops_when_every_cell_is_filled(archive: Archive, tmp_path: Path, fresh: None) -> None:
    given = {"period": "all", "datetime": "2021/2022"}
    every = compute(archive, tmp_path / "median", **given)
    session.reset()
    first = compute(archive, tmp_path / "first", **given, method="first")
    # The first of six days is clear.
    assert first.bytes < every.bytes / 2
    assert first.bytes + first.estimated_bytes_saved == pytest.approx(every.bytes, rel=0.3)
    of_every, of_first = layers(every.written[0]), layers(first.written[0])
    np.testing.assert_array_equal(of_first["_count"], of_every["_count"])


def test_first_reads_what_the_bands_lack(tmp_path: Path) -> None:
    """On day 1, half of the band is nodata, though it is clear. Day 0 is cloudy, day 3 is not needed: no file."""
    items, nir = [], [np.full((600, 600), 1000 * (day + 1), "uint16") for day in range(4)]
    nir[1][:, :300] = 0
    for day, pixels in enumerate(nir):
        scl = np.full((300, 300), 9 if day == 0 else 4, "uint8")
        item = scene(tmp_path, f"day{day}", nir=pixels, scl=scl)
        item.datetime = item.datetime and item.datetime + timedelta(days=day)
        items.append(item)
    for day in (0, 3):
        Path(items[day].assets["nir"].href).unlink()
    s2cube.save_items(items, tmp_path / "items.geojson")
    given = {
        "aoi": rectangle(1500, -4500, 4500, -1500).geometry.to_crs("EPSG:4326").wkt,
        "stac": tmp_path / "items.geojson",
        "bands": "nir",
        "resolution": 30,
        "method": "first",
        "crs": "EPSG:32614",
    }
    done = compute_composites(s2cube.load_config(given | {"out": tmp_path / "out"}, {}))
    found = layers(done.written[0])
    assert done.estimated_bytes_saved > 0
    np.testing.assert_array_equal(found[""][0, :, :50], 3000)
    np.testing.assert_array_equal(found[""][0, :, 50:], 2000)
    assert (found["_date"][:, :, 0] - found["_date"][:, :, 50] == 1).all()
    # The count is the number of days that the masks call clear.
    assert (found["_count"] == 3).all()


def test_an_item_names_the_items_of_its_scenes_if_they_have_an_address(
    archive: Archive, edited: EditItems, tmp_path: Path, fresh: None
) -> None:
    def address(items: list[dict[str, Any]]) -> None:
        for item in items:
            is_known = "_14TNL_" in item["id"]
            item["links"] = [{"rel": "self", "href": f"https://host/{item['id']}?sig=secret"}] if is_known else []

    made = compute(archive, tmp_path / "out", stac=edited(address), period="year", datetime="2022")
    (item,) = (json.loads(Path(path).with_suffix(".json").read_text()) for path in made.written)
    linked = [link["href"] for link in item["links"] if link["rel"] == "derived_from"]
    scenes = item["properties"]["s2cube:scenes"]
    assert linked == [f"https://host/{scene}" for scene in scenes if "_14TNL_" in scene]
    assert 0 < len(linked) < len(scenes)
