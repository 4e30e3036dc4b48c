"""A worker is lost while it writes the slices of many fields: nothing is lost, and nothing is written twice."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import geopandas
import psutil
import pytest
import shapely

import s2cube
from s2cube.cluster import stream
from s2cube.config.loading import load_config
from s2cube.demo.archive import PASSES, Archive
from support.clusters import DaskCluster, dask_cluster
from support.runs import FARM

FIELDS = 64
DAYS = [f"{each.time:%Y%m%d}" for each in PASSES]


def files(out: Path) -> dict[str, bytes]:
    """Read all files of an output, except those about the run."""
    found = {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    return {str(name): content for name, content in found.items() if name.parts[0] != ".s2cube"}


def items_of(out: Path, day: str) -> dict[Path, int]:
    """Return the Items of a day, with the time at which they were written."""
    return {path: path.stat().st_mtime_ns for path in out.glob(f"*/*_{day}/*_{day}.json")}


@contextmanager
def frozen(cluster: DaskCluster) -> Iterator[None]:
    """Suspend the workers."""
    workers = [psutil.Process(each.pid) for each in cluster.workers]
    processes = [process for worker in workers for process in (worker, *worker.children(True))]
    for each in processes:
        each.suspend()
    try:
        yield
    finally:
        for each in processes:
            if each.is_running():
                each.resume()


class Killer(threading.Thread):
    """Kills a worker that has written some slices of a batch, and not all."""

    def __init__(self, cluster: DaskCluster, out: Path) -> None:
        super().__init__(daemon=True)
        self.cluster, self.out = cluster, out
        self.batch, self.written = "", dict[Path, int]()

    def run(self) -> None:
        deadline = time.monotonic() + 60
        with self.cluster.client() as client:
            while not self.batch and time.monotonic() < deadline:
                time.sleep(0.005)
                if any(self.is_in_the_middle(day) for day in DAYS):
                    with frozen(self.cluster):
                        self.kill(client)

    def is_in_the_middle(self, day: str) -> bool:
        return 0 < len(items_of(self.out, day)) < FIELDS

    def kill(self, client: Any) -> None:
        names = {address: each["name"] for address, each in client.scheduler_info(n_workers=-1)["workers"].items()}
        for address, keys in client.processing().items():
            for _, batch, *_ in keys:
                day = batch.rpartition("_")[2]
                if not self.batch and self.is_in_the_middle(day):
                    self.batch, self.written = batch, items_of(self.out, day)
                    self.cluster.kill_worker(int(names[address].rpartition("-")[2]))


@pytest.fixture
def fields(tmp_path: Path) -> Path:
    """File with fields side by side."""
    left, bottom, right, top = FARM
    side = int(FIELDS**0.5)
    width, height = (right - left) / side, (top - bottom) / side
    boxes = [
        shapely.box(x, y, x + width * 0.9, y + height * 0.9)
        for x in (left + column * width for column in range(side))
        for y in (bottom + row * height for row in range(side))
    ]
    frame = geopandas.GeoDataFrame({"id": [f"f{each}" for each in range(FIELDS)]}, geometry=boxes, crs="EPSG:32614")
    frame.to_crs("EPSG:4326").to_file(tmp_path / "fields.geojson")
    return tmp_path / "fields.geojson"


@pytest.mark.slow
@pytest.mark.usefixtures("server_processes")
@pytest.mark.parametrize("failures", [3, 0], ids="the scheduler retries {} times".format)
def test_a_worker_is_lost_in_the_middle_of_many_fields(
    archive: Archive, fields: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    """Another worker goes on with the batch. If the scheduler gives the batch up, it is divided into its slices."""
    words = {"aoi": fields, "stac": str(archive.items), "bands": "blue"}
    undisturbed = s2cube.run(load_config(words | {"out": "undisturbed"}, {}))
    assert len(undisturbed.written) == FIELDS * len(DAYS)
    submitted: list[tuple[str, int]] = []
    submit = stream.submit

    def counted(client: Any, key: Any, function: Any, task: Any) -> Any:
        submitted.append((task.id, len(task.tasks)))
        return submit(client, key, function, task)

    monkeypatch.setattr(stream, "submit", counted)
    monkeypatch.setattr("s2cube.workers.batches._LEAST_CELLS", 1)  # a batch has one day
    variables = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": str(failures)}
    out = tmp_path / "out"
    with dask_cluster(tmp_path / "cluster", workers=2, env=variables) as cluster:
        killer = Killer(cluster, out)
        killer.start()
        summary = s2cube.run(load_config(words | {"out": out, "scheduler": cluster.address}, {}))
        killer.join(60)
    assert 0 < len(killer.written) < FIELDS
    assert summary.failed == []
    assert [Path(path).name for path in summary.written] == [Path(path).name for path in undisturbed.written]
    assert files(out) == files(Path("undisturbed"))
    assert {path: path.stat().st_mtime_ns for path in killer.written} == killer.written
    alone = {name for name, tasks in submitted if tasks == 1}
    day = killer.batch.rpartition("_")[2]
    assert {name for name in alone if name.endswith(day)} == (
        set() if failures else {f"f{number}_{day}" for number in range(FIELDS)}
    )
    assert sum(tasks > 1 for _, tasks in submitted) == len(DAYS)
