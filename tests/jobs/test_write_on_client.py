"""`write_cogs` on the cluster of the active Dask client, and scripts without a main guard."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import dask
import geopandas
import numpy as np
import pytest
import rasterio
import xarray as xr
from dask import array as da
from distributed import Client, LocalCluster

import s2cube
from s2cube.cluster import client as cluster_client
from s2cube.cluster import stream
from s2cube.demo.archive import Archive
from s2cube.errors import ClusterError, OutputError, SliceError
from s2cube.progress_bar import _NotebookBar, shown_bar
from support.clusters import DaskCluster


@pytest.fixture
def cube(archive: Archive, small_aoi: Path) -> xr.DataArray:
    items = s2cube.search(small_aoi, stac=archive.items, datetime="2022-05/2022-07")
    return s2cube.open_cube(items, small_aoi, bands=["red", "nir"], resolution=60, dtype="int16")


@pytest.fixture
def client(scheduler: str) -> Any:
    with Client(scheduler, set_as_default=True) as connected:
        yield connected


def contents(folder: Path) -> dict[str, bytes]:
    """The files of all images; in an Item the time of its creation differs."""
    found = {}
    for path in sorted(folder.glob("*/*/*")):
        content = path.read_bytes()
        if path.suffix == ".json":
            item = json.loads(content)
            for name in ("created", "updated"):
                item["properties"].pop(name, None)
            content = json.dumps(item).encode()
        found[path.name] = content
    return found


def derived(cube: xr.DataArray) -> xr.DataArray:
    values = cube.where(cube != -9999)
    red, nir = values.sel(band="red", drop=True), values.sel(band="nir", drop=True)
    return ((nir - red) / (nir + red)).max("time").rename("NDVI")


def test_files_are_those_of_threads(client: Client, cube: xr.DataArray, tmp_path: Path) -> None:
    def write(out: Path) -> None:
        s2cube.write_cogs(cube, out)
        s2cube.write_cogs(derived(cube), out, name="highest")
        # Integers show whether the packing of the image has reached the worker.
        s2cube.write_cogs(cube.max("time"), out, name="brightest")

    calls = []
    submit = cluster_client.submit
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "submit", lambda *words, **options: calls.append(1) or submit(*words, **options))
        write(tmp_path / "cluster")
        assert len(calls) == cube.sizes["time"] + 2
        with dask.config.set(scheduler="threads"):
            write(tmp_path / "threads")
        assert len(calls) == cube.sizes["time"] + 2
    assert contents(tmp_path / "cluster") == contents(tmp_path / "threads")
    with rasterio.open(tmp_path / "cluster/corner/corner_brightest/corner_brightest.tif") as file:
        assert (file.dtypes[0], file.scales, file.nodata) == ("int16", (1, 1), -9999)


def test_what_the_cluster_keeps_is_written(client: Client, cube: xr.DataArray, tmp_path: Path) -> None:
    s2cube.write_cogs(cube.persist(), tmp_path / "kept")
    s2cube.write_cogs(cube.compute(), tmp_path / "here")
    assert contents(tmp_path / "kept") == contents(tmp_path / "here")


def test_a_worker_that_cannot_reach_the_output_sends_the_files(
    hosts: DaskCluster, archive: Archive, small_aoi: Path, cube: xr.DataArray, tmp_path: Path
) -> None:
    """The hosts cannot reach the folder `private`."""
    private = hosts.folder / "private" / "notebook"
    with hosts.client() as connected, connected.as_current():
        paths = s2cube.write_cogs(cube, private)
    with dask.config.set(scheduler="threads"):
        s2cube.write_cogs(cube, tmp_path)
    assert contents(private) == contents(tmp_path)
    assert all(Path(path).exists() for path in paths)


def test_a_file_that_is_missing_is_the_error_of_threads(
    client: Client, archive: Archive, small_aoi: Path, tmp_path: Path
) -> None:
    items = s2cube.search(small_aoi, stac=archive.items, datetime="2022-05")
    for item in items:
        item.assets["red"].href = str(tmp_path / "nowhere.tif")
    broken = s2cube.open_cube(items, small_aoi, bands=["red"])
    errors = []
    for scheduler in ({}, {"scheduler": "threads"}):
        with dask.config.set(scheduler), pytest.raises(SliceError, match=r"nowhere\.tif") as raised:
            s2cube.write_cogs(broken, tmp_path / "out")
        errors.append(str(raised.value))
    assert errors[0] == errors[1]
    assert not list((tmp_path / "out").glob("*/*/*"))


def test_images_that_are_complete_are_listed_after_an_error(archive: Archive, small_aoi: Path, tmp_path: Path) -> None:
    items = s2cube.search(small_aoi, stac=archive.items, datetime="2022-05/2022-06")
    items[-1].assets["red"].href = str(tmp_path / "nowhere.tif")
    cube = s2cube.open_cube(items, small_aoi, bands=["red"])
    with pytest.raises(SliceError, match=r"nowhere\.tif"):
        s2cube.write_cogs(cube, tmp_path / "out")
    assert s2cube.open_output(tmp_path / "out").sizes["time"] == 1
    (table,) = (tmp_path / "out").glob("items.parquet")
    assert len(geopandas.read_parquet(table)) == 1


class _Bound:
    """It cannot be pickled."""

    def __call__(self, values: np.ndarray) -> np.ndarray:
        return values

    def __reduce__(self) -> Any:
        raise TypeError("bound to this process")


def test_what_cannot_be_sent_is_named(client: Client, cube: xr.DataArray, tmp_path: Path) -> None:
    bound = cube.copy(data=da.map_blocks(_Bound(), cube.data, dtype="int16"))
    with pytest.raises(OutputError, match=r"cannot be sent to the workers .*bound to this process.*threads"):
        s2cube.write_cogs(bound, tmp_path, name="bound")


@pytest.fixture
def own_cluster(server_processes: None) -> Any:
    """A cluster whose worker a test may kill. Its nanny starts another."""
    with (
        # Python below 3.11.9 may deadlock when its threads are profiled. Dask's own retries are not what is tested, and
        # a nanny sometimes does not replace a worker that dies several times.
        dask.config.set({"distributed.worker.profile.enabled": False, "distributed.scheduler.allowed-failures": 0}),
        LocalCluster(n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster, set_as_default=True) as connected,
    ):
        yield connected


def deadly(cube: xr.DataArray, marks: Path, deaths: int) -> xr.DataArray:
    """Computing it kills the worker so many times."""
    marks.mkdir()

    def die(values: np.ndarray) -> np.ndarray:
        import os

        if values.size and len(list(marks.iterdir())) < deaths:
            (marks / str(os.getpid())).touch()
            os._exit(1)
        return values

    one = cube.isel(time=[0], band=[0])
    return one.copy(data=da.map_blocks(die, one.data, dtype="int16", meta=np.empty((0,) * 4, "int16")))


def test_a_worker_that_dies_is_replaced(own_cluster: Client, cube: xr.DataArray, tmp_path: Path) -> None:
    (path,) = s2cube.write_cogs(deadly(cube, tmp_path / "marks", 1), tmp_path / "out", name="survived")
    assert len(list((tmp_path / "marks").iterdir())) == 1
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read(1), cube[0, 0].values)


def test_a_slice_that_always_kills_its_worker_ends_the_writing(
    own_cluster: Client, cube: xr.DataArray, tmp_path: Path
) -> None:
    with pytest.raises(ClusterError, match="died each time"):
        s2cube.write_cogs(deadly(cube, tmp_path / "marks", 99), tmp_path / "out", name="deadly")


SCRIPT = """
import sys
import s2cube
with open("imported", "a") as file:
    file.write("x")
config = s2cube.load_config({settings})
if {condition}:
    print(len(s2cube.run(config).written))
"""


@pytest.mark.parametrize("how", ["file", "file with a guard", "stdin", "-c"])
def test_a_script_needs_no_main_guard(
    server_processes: None, archive: Archive, small_aoi: Path, tmp_path: Path, how: str
) -> None:
    settings = {"aoi": str(small_aoi), "stac": str(archive.items), "datetime": "2022-05", "bands": "red", "workers": 2}
    text = SCRIPT.format(settings=settings, condition='__name__ == "__main__"' if "guard" in how else "True")
    (tmp_path / "script.py").write_text(text)
    words = {"stdin": ["-"], "-c": ["-c", text]}.get(how, ["script.py"])
    done = subprocess.run(
        [sys.executable, *words], input=text if how == "stdin" else None, capture_output=True, text=True, cwd=tmp_path,
        timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["1"], "")
    assert (tmp_path / "imported").read_text() == "x"


class Handle:
    """What IPython's function `display` returns."""

    def __init__(self) -> None:
        self.updates = 0

    def update(self, _: object) -> None:
        self.updates += 1


def test_a_bar_in_a_notebook() -> None:
    handle, shown = Handle(), []

    class Job:
        total, unit = 2, "slices"

    class Done:
        written, all_failures = 1, ()

    bar = _NotebookBar(lambda progress, display_id: shown.append(progress) or handle)
    assert not shown
    bar.begin(Job())
    assert len(shown) == 1
    bar.advance(Done())
    bar.advance(Done())
    bar.show()
    assert bar.written == 2
    assert handle.updates >= 1
    assert shown[0].tasks[0].completed == 2


def test_no_bar_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with shown_bar() as bar:
        assert bar is None
    assert capsys.readouterr() == ("", "")
