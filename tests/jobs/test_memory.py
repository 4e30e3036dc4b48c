"""A slice may be larger than the memory of a worker: it goes to its files chunk by chunk, and they are the same."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import dask.array as da
import dask.config
import numpy as np
import pytest
import rasterio
import rasterio.features
import shapely
import xarray as xr
from distributed import Client, LocalCluster
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry
from odc.geo.xr import xr_coords

import s2cube
from s2cube.config.sections import CubeSection
from s2cube.cube.chunks import read_grid
from s2cube.cube.cut import clip
from s2cube.fetch.session import Budget
from s2cube.scenes.plan import make_plan
from s2cube.sentinel2 import BAND_ASSETS
from s2cube.workers import memory
from support.runs import CommandLine
from support.scenes import CLEAR, EPSG, LEFT_M, TOP_M, ramp, rectangle, scene, write_band

SIDE_M, LIMIT_BYTES = 90_000, 900_000_000
BANDS = tuple(BAND_ASSETS)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All bands of most of a granule, in one file of 60 m: quick to read, and as large as any once it is cells."""
    folder = tmp_path_factory.mktemp("large")
    item = scene(folder, blue=ramp(1, 10), scl=CLEAR[:1, :1])
    down, across = np.mgrid[: SIDE_M // 60, : SIDE_M // 60]
    write_band(folder / "band.tif", (500 + (down // 8 + across // 8) % 2000).astype("uint16"), 60, compress="deflate")
    classes = np.full((SIDE_M // 20, SIDE_M // 20), 4, "uint8")
    classes[300:900, 600:1500] = 9
    write_band(folder / "scl.tif", classes, 20, compress="deflate")
    content = item.to_dict()
    content["assets"] = {band: {"href": str(folder / "band.tif")} for band in BANDS} | {
        "scl": {"href": str(folder / "scl.tif")}
    }
    outline = rectangle(0, -SIDE_M, SIDE_M, 0).geometry_lonlat
    content |= {"geometry": outline.json, "bbox": list(outline.boundingbox)}
    (folder / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": [content]}))
    area = rectangle(3000, -SIDE_M + 3000, SIDE_M - 3000, -3000).geometry_lonlat
    feature = {"type": "Feature", "properties": {"id": "large"}, "geometry": area.json}
    (folder / "aoi.geojson").write_text(json.dumps(feature))
    return folder


@pytest.fixture
def small_worker(server_processes: None) -> Iterator[Client]:
    with (
        dask.config.set({"distributed.worker.profile.enabled": False}),
        LocalCluster(
            n_workers=1,
            threads_per_worker=4,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            memory_limit=LIMIT_BYTES,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def test_more_than_a_worker_has(large: Path, small_worker: Client, s2cube_command: CommandLine) -> None:
    pids = small_worker.run(os.getpid)
    address = small_worker.scheduler.address  # type: ignore[union-attr]
    done = s2cube_command(
        "run", "--json", "--aoi", large / "aoi.geojson", "--stac", large / "items.json", "--bands", ",".join(BANDS),
        "--dtype", "float32", "--offset", "none", "--scheduler", address, "--crs", f"EPSG:{EPSG}", "--slice-retries", 0,
        "--compress", "zstd",
    )  # fmt: skip
    assert done.status == 0, done.err
    assert small_worker.run(os.getpid) == pids
    (path,) = done.json["written"]
    with rasterio.open(path) as cog, rasterio.open(path.replace(".tif", "_qa.tif")) as qa:
        assert 4 * cog.count * cog.height * cog.width > 0.4 * LIMIT_BYTES
        for row, column in ((0, 0), (1990, 1990), (cog.height - 60, cog.width - 60), (500, 900)):
            window = rasterio.windows.Window(column, row, 60, 60)
            x, y = cog.transform * (column + np.arange(60) + 0.5, row + np.arange(60) + 0.5)
            across, down = (x - LEFT_M) // 60, (TOP_M - y) // 60
            want = (500 + (down[:, np.newaxis] // 8 + across // 8) % 2000) / 1e4
            seen = qa.read(1, window=window)
            for band in (1, 7, 12):
                np.testing.assert_allclose(cog.read(band, window=window), np.where(seen == 0, want, np.nan), rtol=1e-6)
        classes = np.bincount(qa.read(1).ravel(), minlength=256)
        assert classes[1] == 600 * 900 * 4 / 9
        assert classes[0] + classes[1] + classes[255] == qa.height * qa.width
    item = json.loads(Path(path).with_suffix(".json").read_text())["properties"]
    assert item["s2cube:clear_percent"] == round(100 * classes[0] / (classes[0] + classes[1]), 2)
    assert not [each for each in Path(path).parents[2].rglob("*.tif") if each.parent != Path(path).parent]


def files_of(cube: xr.DataArray, out: Path) -> dict[str, bytes]:
    (path,) = s2cube.write_cogs(cube, out)
    return {each.name: each.read_bytes() for each in Path(path).parent.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("bands", [["blue"], ["blue", "green", "red", "nir"]])
@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_bytes_are_the_same_however_they_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bands: list[str], dtype: Any
) -> None:
    side = 1300
    noise = np.random.default_rng(7).integers(1, 9000, (4, side, side)).astype("uint16")
    noise[1, 900:1000] = 0
    classes = np.random.default_rng(8).choice([4, 4, 4, 8, 3], (side // 2, side // 2)).astype("uint8")
    layers = dict(zip(("blue", "green", "red", "nir"), noise, strict=True))
    item = scene(tmp_path, **layers, scl=classes)
    aoi = rectangle(100, -12900, 12900, -200)

    def cube(**more: Any) -> xr.DataArray:
        return s2cube.open_cube([item], aoi, bands=bands, dtype=dtype, resolution=10, **more)

    usual = files_of(cube(), tmp_path / "usual")
    assert len(usual) == (6 if "red" in bands else 5)
    assert files_of(cube().compute(), tmp_path / "computed") == usual
    assert files_of(cube().chunk(band=-1, y=700, x=333), tmp_path / "rechunked") == usual
    with monkeypatch.context() as patch:
        patch.setattr("s2cube.output._raster._IN_MEMORY_BYTES", 0)
        patch.setattr("s2cube.cube.chunks._CHUNK_CELLS", 517)
        patch.setattr("s2cube.workers.memory.MOST_READERS", 1)
        assert files_of(cube(), tmp_path / "streamed") == usual


FULL = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from s2cube.output._raster import open_spool
import s2cube.output._raster
s2cube.output._raster._IN_MEMORY_BYTES = 0
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    with open_spool(Path(sys.argv[1]), count=1, height=2048, width=2048, dtype="int16") as pixels:
        with pixels.filling():
            pixels.put(np.ones((1, 2048, 2048), "int16"), 0, 0, 0)
        pixels.copy(Path(sys.argv[1]) / "x.tif", "COG")
except OSError as error:
    print("OSError", error)
"""


def test_a_full_disk_is_found_out(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FULL, tmp_path], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("OSError"), done.stderr
    assert not list(tmp_path.iterdir())


GRID = GeoBox.from_bbox((600000, 4500000 - 30 * 60, 600000 + 30 * 80, 4500000), "EPSG:32614", resolution=30)
POINT = st.tuples(st.integers(-10, 170), st.integers(-10, 130)).map(
    lambda at: (600000 + 15 * at[0], 4500000 - 15 * at[1])
)


@pytest.mark.slow
@given(st.lists(POINT, min_size=2, max_size=7, unique=True), st.integers(3, 50), st.integers(3, 50))
@settings(max_examples=50)
def test_a_polygon_is_the_same_in_parts(points: list[tuple[float, float]], rows: int, columns: int) -> None:
    """Edges lie on edges of cells and on their centres, too; where they slant, centres that they meet go either way."""
    shape = shapely.box(*shapely.MultiPoint(points).bounds) if len(points) == 2 else shapely.Polygon(points).buffer(0)
    assume(shape.area)
    whole = da.from_array(np.ones(GRID.shape, "uint8"), chunks=-1)
    polygon = Geometry(shape, "EPSG:32614")
    clipped, in_parts = (
        each.compute() for each in clip(GRID, polygon, (whole, 0), (whole.rechunk((rows, columns)), 0))
    )
    outside = rasterio.features.geometry_mask([shape], GRID.shape, GRID.affine)
    centres = shapely.points(*np.meshgrid(*(xr_coords(GRID)[axis].values for axis in ("x", "y"))))
    sure = (shapely.distance(centres, shape.boundary) > 1e-3) | (len(points) == 2)
    np.testing.assert_array_equal(in_parts[sure], clipped[sure])
    if not outside.all():
        np.testing.assert_array_equal((clipped == 0)[sure], outside[sure])


class TestShare:
    def plan(self, tmp_path: Path, side_m: float, **settings: Any) -> Any:
        item = scene(tmp_path, blue=ramp(60, 10), scl=CLEAR[:30, :30])
        config = CubeSection.of({"bands": "blue", "crs": EPSG, **settings})
        plan = make_plan([item], rectangle(0, -side_m, side_m, 0), config)
        return read_grid(plan.geobox, plan.scenes, config.dilation_m), config

    def test_does_not_grow_with_a_large_slice(self, tmp_path: Path) -> None:
        sizes = [memory.of_slice(*self.plan(tmp_path, side_m)) for side_m in (3000, 30_000, 200_000, 400_000)]
        assert sizes[0] < 10e6
        assert sizes[0] < sizes[1] < sizes[2] == pytest.approx(sizes[3], rel=0.3)

    def test_those_that_fit_go_together_and_a_large_one_alone(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        small, large = self.plan(tmp_path, 3000), self.plan(tmp_path, 90_000)
        size = memory.of_slice(*large) // 2
        enough, too_little = (size, Budget(size)), (1, Budget(1))
        monkeypatch.setattr(memory, "_slice_memory", lambda: enough)
        began = threading.Event()

        def make() -> None:
            with memory.share(partial(memory.of_slice, *large)) as readers:
                assert 1 <= readers < memory.MOST_READERS
                began.set()

        with memory.share(partial(memory.of_slice, *small)) as readers, memory.share(partial(memory.of_slice, *small)):
            assert readers == memory.MOST_READERS
        monkeypatch.setattr(memory, "_slice_memory", lambda: too_little)
        with memory.share(partial(memory.of_slice, *small)) as readers:
            assert readers == 1
            thread = threading.Thread(target=make)
            thread.start()
            assert not began.wait(0.2)
        assert began.wait(30)
        thread.join()
