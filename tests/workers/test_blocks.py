"""Small areas are read together, block by block. Each gets the bytes that it gets alone."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
import rasterio.warp
from odc.geo.geom import box, polygon
from pytest_httpserver import HTTPServer
from rasterio.transform import from_origin

from s2cube.area.aoi import AOI
from s2cube.config.sections import JobConfig
from s2cube.cube.chunks import block_m
from s2cube.fetch import session
from s2cube.jobs.job import plan_job
from s2cube.scenes.plan import make_plan
from s2cube.scenes.time_slice import Task
from s2cube.storage.lease import held
from s2cube.storage.output import Output
from s2cube.workers import memory
from s2cube.workers.batches import Batch, batches
from s2cube.workers.results import SliceResult
from s2cube.workers.worker import compute_batch
from support.apis import FakeApi
from support.scenes import EPSG, LEFT_M, NATIVE_M, TOP_M, rectangle, scene, write_band
from support.servers import faulty

BLOCK_CELLS = 64
"""Side of a block in these tests: 1920 m, so that scenes of 6 km have several."""

AREAS = {
    "inside": (300, -900, 720, -330),
    "near": (600, -1200, 1000, -700),
    "on_an_edge": (1700, -900, 2200, -400),
    "over_four_blocks": (1650, -2200, 2250, -1700),
    "twin": (300, -900, 720, -330),
    "within_a_cell": (1001, -1009, 1009, -1001),
    "larger_than_a_block": (2300, -4900, 4900, -2300),
    "at_the_end_of_the_scene": (5500, -5900, 6300, -5200),
}


def noise(seed: int, side: int, classes: Sequence[int] = ()) -> np.ndarray:
    random = np.random.default_rng(seed)
    if classes:
        return random.choice(classes, size=(side, side)).astype("uint8")
    return random.integers(0, 4000, (side, side)).astype("uint16")


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[pystac.Item]:
    """Two days. On the second one, a scene of the next UTC zone and one of this zone lie over each other."""
    folder, made = tmp_path_factory.mktemp("scenes"), []
    for number, (day, epsg) in enumerate(((1, EPSG), (2, EPSG + 1), (2, EPSG))):
        layers = {
            "blue": noise(number, 600), "swir16": noise(10 + number, 300), "nir": noise(30 + number, 600),
            "scl": noise(20 + number, 300, [4] * 40 + [5, 6, 0, 9, 3]),
        }  # fmt: skip
        item = scene(folder, f"scene{number}", number, **layers)
        item.datetime = item.datetime and item.datetime + timedelta(days=day)
        left, top = float(LEFT_M), float(TOP_M)
        if epsg != EPSG:
            item.properties["proj:epsg"] = epsg
            (left, *_), (top, *_) = rasterio.warp.transform(EPSG, epsg, [LEFT_M + 500], [TOP_M - 700])
            left, top = round(left / 60) * 60, round(top / 60) * 60
            bounds = rasterio.warp.transform_bounds(epsg, 4326, left, top - 6000, left + 6000, top)
            item.geometry, item.bbox = box(*bounds, "EPSG:4326").json, list(bounds)
        for key, pixels in layers.items():
            transform = from_origin(left, top, NATIVE_M[key], NATIVE_M[key])
            write_band(
                Path(item.assets[key].href), pixels, NATIVE_M[key], crs=epsg, transform=transform, tiled=True,
                blockxsize=64, blockysize=64, compress="deflate",
            )  # fmt: skip
        made.append(item)
    return made


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("s2cube.cube.chunks._CHUNK_CELLS", BLOCK_CELLS)
    session.reset()
    yield
    session.reset()


def areas(names: Sequence[str] = tuple(AREAS)) -> list[AOI]:
    return [replace(rectangle(*AREAS[name]), id=name) for name in names]


def tasks_of(items: list[pystac.Item], aois: list[AOI], config: JobConfig) -> list[Task]:
    return [task for aoi in aois for task in make_plan(items, aoi, config.cube).tasks()]


def config_of(out: Path, **settings: Any) -> JobConfig:
    import s2cube

    given = {"aoi": "x.geojson", "stac": "x.json", "bands": "blue,swir16", "dtype": "int16", "crs": f"EPSG:{EPSG}"}
    return s2cube.load_config(given | {"out": out} | settings, {})


def compute(config: JobConfig, found: Sequence[Batch]) -> list[SliceResult]:
    with held(Output.at(config.job.out)) as lease:
        return [result for batch in found for result in compute_batch(batch, config, lease.output)]


def rasters(out: Path) -> dict[str, bytes]:
    """Return the files of all slices, but the Items, which have the time when they were made."""
    return {path.name: path.read_bytes() for path in out.rglob("*") if path.suffix in (".tif", ".png")}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"dilation": 200},
        {"mask": "none", "quality": "fast"},
        {"bands": "blue,scl,qa,swir16", "dtype": "float32"},
        {"resolution": 60},
        {"crs": f"EPSG:{EPSG + 1}"},
        {"max_aoi_cloud": 100},
        {"bands": "scl,swir16", "indices": "BNDVI,DSI"},
        {"bands": "none", "indices": "DSI", "dtype": "float32", "max_aoi_cloud": 100},
    ],
    ids=str,
)
def test_bytes_are_those_of_each_area_alone(items: list[pystac.Item], tmp_path: Path, settings: dict[str, Any]) -> None:
    """Inside a block, on its edge, over four blocks, over each other, twice, smaller than a cell, larger than a block.

    Some scenes are in another UTC zone.
    """
    together, alone = (config_of(tmp_path / name, **settings) for name in ("together", "alone"))
    tasks = tasks_of(items, areas(), together)
    assert len(tasks) == 2 * len(AREAS)
    results = compute(together, [Batch(tuple(tasks))])
    assert [each.failure for each in results if each.failure] == []
    for task in tasks:
        session.reset()
        compute(alone, [Batch((task,))])
    expected = rasters(tmp_path / "alone")
    assert len(expected) == 3 * len(tasks)
    assert rasters(tmp_path / "together") == expected


@pytest.mark.parametrize("dtype", ["int16", "float32"])
@pytest.mark.parametrize("bands", ["scl,swir16", "none"])
def test_bands_and_indices_are_those_of_a_cube(
    items: list[pystac.Item], tmp_path: Path, bands: str, dtype: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A notebook computes chunk by chunk with Dask; a run computes small areas in memory."""
    import s2cube

    corners = [(LEFT_M + 1650, TOP_M - 2200), (LEFT_M + 2250, TOP_M - 2150), (LEFT_M + 1900, TOP_M - 1700)]
    triangle = AOI("triangle", polygon(corners, f"EPSG:{EPSG}"))
    config = config_of(tmp_path, bands=bands, indices="BNDVI,DSI", dtype=dtype, resolution=10)
    tasks = tasks_of(items, [triangle], config)
    results = {each.slice: each for each in compute(config, [Batch(tuple(tasks))])}
    settings = {"bands": bands, "indices": "BNDVI,DSI", "dtype": dtype, "crs": config.cube.crs, "resolution": 10}
    cube = s2cube.open_cube(items, triangle, **settings)  # type: ignore[arg-type]
    for image in cube:
        caplog.clear()
        values, result = image.compute(scheduler="sync").values, results[str(image["slice"].values)]
        with rasterio.open(result.path) as cog:
            np.testing.assert_array_equal(cog.read(), values)
        logged = sum(int(each.getMessage().split()[0]) for each in caplog.records)
        assert logged == result.found.beyond_int16.get("DSI", 0)
        assert bool(logged) == (dtype == "int16")


def test_cells_that_int16_cannot_store_are_counted(items: list[pystac.Item], tmp_path: Path) -> None:
    """DSI is swir16 / nir, which is great where nir is small. The counts are those of the same job in floats."""
    names = {"indices": "DSI,BNDVI", "bands": "none"}
    packed, floats = config_of(tmp_path / "a", **names), config_of(tmp_path / "b", dtype="float32", **names)
    tasks = tasks_of(items, areas(), packed)
    found = {each.slice: each.found.beyond_int16 for each in compute(packed, [Batch(tuple(tasks))])}
    assert {each.slice for each in compute(floats, [Batch(tuple(tasks_of(items, areas(), floats)))])} == set(found)
    for slice_id, counts in found.items():
        (path,) = (tmp_path / "b").rglob(f"{slice_id}.tif")
        with rasterio.open(path) as cog:
            dsi = cog.read(1)
        beyond = np.count_nonzero(np.abs(dsi) > np.float32(3.2767))
        assert counts == ({"DSI": beyond} if beyond else {})
        with rasterio.open(tmp_path / "a" / path.relative_to(tmp_path / "b")) as cog:
            assert np.count_nonzero(cog.read(1) == -9999) == beyond + np.count_nonzero(np.isnan(dsi))
    assert any(found.values())


def test_the_number_of_workers_does_not_matter(items: list[pystac.Item], tmp_path: Path) -> None:
    found = {}
    for workers in (1, 2, 40):
        config = config_of(tmp_path / str(workers))
        tasks = tasks_of(items, areas(), config)
        divided = batches(tasks, workers)
        assert sorted(task.id for batch in divided for task in batch.tasks) == sorted(task.id for task in tasks)
        compute(config, divided)
        found[workers] = rasters(tmp_path / str(workers))
    assert found[1] == found[2] == found[40]
    assert found[1]


class TestTiles:
    """Reads of the files of one day, counted."""

    NAMES = ("inside", "near", "twin")

    @pytest.fixture
    def fetched(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
        from s2cube.raster import _tiles

        parts: list[tuple[str, int, int]] = []
        fetch = _tiles.fetch

        def counted(href: str, start: int, stop: int, access: Any) -> Any:
            parts.append((href, start, stop))
            return fetch(href, start, stop, access)

        monkeypatch.setattr(_tiles, "fetch", counted)
        return parts

    def test_each_tile_is_read_once_for_all_areas(
        self, items: list[pystac.Item], tmp_path: Path, fetched: list[tuple[str, int, int]]
    ) -> None:
        config = config_of(tmp_path / "out")
        tasks = tasks_of(items[:1], areas(self.NAMES), config)
        compute(config, batches(tasks, 1))
        assert len(set(fetched)) == len(fetched)
        spans = {href: sorted((start, stop) for name, start, stop in fetched if name == href) for href, *_ in fetched}
        for parts in spans.values():
            assert all(stop <= start for (_, stop), (start, _) in pairwise(parts))
        # No byte that no area needs.
        fetched.clear()
        session.reset()
        for task in tasks:
            compute(config_of(tmp_path / task.id), [Batch((task,))])
        needed = {href: set[int]() for href in spans}
        for href, start, stop in fetched:
            needed[href].update(range(start, stop))
        assert {href: sum(stop - start for start, stop in parts) for href, parts in spans.items()} == {
            href: len(places) for href, places in needed.items()
        }

    def test_each_is_read_once_for_areas_of_two_gatherings(
        self, items: list[pystac.Item], tmp_path: Path, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The catalogue is asked for each of two areas in one block. Their scene is one, also for requests."""
        folder = Path(items[0].assets["blue"].href).parent
        requests = {}
        with faulty(folder) as server:
            content = items[0].to_dict()
            for asset in content["assets"].values():
                asset["href"] = f"{server.url}/{Path(asset['href']).name}"
            api = FakeApi(httpserver, [content | {"collection": "sentinel-2-l2a"}])
            for most_m, searches in ((150_000, 1), (500, 2)):
                monkeypatch.setattr("s2cube.area.gathering._MOST_M", most_m)
                session.reset()
                server.asked, api.asked = [], []
                config, aois = config_of(tmp_path / str(searches), stac=api.root), areas(("inside", "near"))
                job = plan_job(config, Output.at(config.job.out), aois)
                assert len(api.asked) == searches
                (batch,) = batches(job.todo, 1)
                assert len({id(each) for task in batch.tasks for each in task.scenes}) == 1
                results = compute(config, [batch])
                assert [each.failure for each in results] == [None, None]
                requests[searches] = sorted((each.path, each.start, each.stop) for each in server.reads)
        assert requests[1] == requests[2]
        assert len(set(requests[1])) == len(requests[1]) > 3
        assert rasters(tmp_path / "1") == rasters(tmp_path / "2")

    def test_a_damaged_tile_fails_the_areas_that_need_it(self, items: list[pystac.Item], tmp_path: Path) -> None:
        item = items[0].clone()
        path = Path(item.assets["blue"].href)
        content = bytearray(path.read_bytes())
        with rasterio.open(path) as file:
            tile = (330 // 10 // 64, 1001 // 10 // 64)
            offset = int(file.get_tag_item(f"BLOCK_OFFSET_{tile[1]}_{tile[0]}", "TIFF", bidx=1))
            size = int(file.get_tag_item(f"BLOCK_SIZE_{tile[1]}_{tile[0]}", "TIFF", bidx=1))
        content[offset : offset + size] = bytes(size)
        damaged = tmp_path / "damaged.tif"
        damaged.write_bytes(content)
        item.assets["blue"].href = str(damaged)
        left, top = 64 * 10 * tile[1], -64 * 10 * tile[0]
        fields = [
            replace(rectangle(x, y - 60, x + 60, y), id=f"field_{x}_{-y}")
            for x in range(120, 1800, 240) for y in range(-120, -1800, -240)
        ]  # fmt: skip
        touched = {
            each.id for each in fields for x, y in [map(int, each.id.split("_")[1:])]
            if x < left + 640 and x + 60 > left and -y > top - 640 and -y - 60 < top
        }  # fmt: skip
        assert 2 <= len(touched) < len(fields) == 49
        config = config_of(tmp_path / "out", bands="blue")
        tasks = tasks_of([item], fields, config)
        results = compute(config, [Batch(tuple(tasks))])
        failed = {each.slice.rpartition("_")[0]: each.failure for each in results if each.failure}
        assert set(failed) == touched
        for failure in failed.values():
            assert failure
            assert "cannot be decoded" in failure.error
            assert failure.asset == "blue"
        compute(config_of(tmp_path / "whole", bands="blue"), [Batch(tuple(tasks_of(items[:1], fields, config)))])
        whole = rasters(tmp_path / "whole")
        assert rasters(tmp_path / "out") == {
            name: content for name, content in whole.items() if name.rpartition("_2020")[0] not in touched
        }


@pytest.mark.parametrize("size_kb", [1, 30, 60])
def test_a_block_that_does_not_fit_into_memory_is_divided(
    items: list[pystac.Item], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size_kb: int
) -> None:
    """If not even one area fits, it is computed chunk by chunk. The bytes are the same."""
    names = [name for name in AREAS if name != "larger_than_a_block"]
    config = config_of(tmp_path / "much")
    tasks = tasks_of(items, areas(names), config)
    compute(config, [Batch(tuple(tasks))])
    size = size_kb << 10
    monkeypatch.setattr("s2cube.workers.memory._slice_memory", lambda: (size, session.Budget(size)))
    monkeypatch.setattr("s2cube.workers.memory.BLOCK_READERS", 1)
    divided = list(memory.blocks(tasks, config.cube))
    assert len(divided) > len(list(memory.day_blocks(tasks, config.cube)))
    assert sorted(task.id for block in divided for task in block.tasks) == sorted(task.id for task in tasks)
    for block in divided:
        assert memory.fits(block, config.cube) or len({task.aoi.id for task in block.tasks}) == 1
    little = config_of(tmp_path / "little")
    results = compute(little, [Batch(tuple(tasks))])
    assert all(each.path for each in results)
    assert rasters(tmp_path / "little") == rasters(tmp_path / "much")


@pytest.mark.parametrize(
    ("cell_m", "side_m"), [(10, 20_480), (20, 30_720), (30, 61_440), (60, 61_440), (300, 61_200), (1000, 61_000)]
)
def test_a_block_ends_at_tiles_and_is_bounded(monkeypatch: pytest.MonkeyPatch, cell_m: float, side_m: float) -> None:
    """Also if cells are large, because masks are read on steps of 10 or 20 m."""
    monkeypatch.undo()
    assert block_m(cell_m) == side_m


class TestBatches:
    def tasks(self, items: list[pystac.Item], tmp_path: Path, names: Sequence[str]) -> list[Task]:
        return tasks_of(items, areas(names), config_of(tmp_path))

    def test_days_are_divided_first(self, items: list[pystac.Item], tmp_path: Path) -> None:
        """Batches of different days share no file."""
        tasks = [
            replace(task, slice=replace(task.slice, id=f"{task.aoi.id}_{day:04}"))
            for task in self.tasks(items[:1], tmp_path, ("inside", "on_an_edge", "near"))
            for day in range(160)
        ]
        divided = batches(tasks, 2)
        days = [{task.id.rpartition("_")[2] for task in batch.tasks} for batch in divided]
        assert len(divided) > 2
        assert sum(map(len, days)) == len(set.union(*days)) == 160

    def test_many_workers_divide_a_day_by_blocks(self, items: list[pystac.Item], tmp_path: Path) -> None:
        divided = batches(self.tasks(items[:1], tmp_path, ("inside", "near", "on_an_edge")), 40)
        assert sorted(sorted(task.aoi.id for task in batch.tasks) for batch in divided) == [
            ["inside", "near"], ["on_an_edge"],
        ]  # fmt: skip

    def test_an_area_larger_than_a_block_is_alone(self, items: list[pystac.Item], tmp_path: Path) -> None:
        divided = batches(self.tasks(items, tmp_path, ("larger_than_a_block", "inside", "near")), 1)
        assert [len(batch.tasks) for batch in divided if batch.tasks[0].aoi.id == "larger_than_a_block"] == [1, 1]
