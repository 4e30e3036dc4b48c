"""Small jobs: threads of the process compute them, without a cluster, with the same files and the same retries."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from distributed import Client
from rasterio._env import get_gdal_config

import s2cube.jobs.forecasts
import s2cube.workers.worker
from s2cube.cluster.policy import Retry
from s2cube.cluster.this_process import active_client, is_worker, worker_memory_bytes
from s2cube.cluster.threads import Threads
from s2cube.config.loading import load_config
from s2cube.demo.archive import Archive
from s2cube.jobs.forecasts import batches_of, forecast
from s2cube.jobs.job import Job, plan_job
from s2cube.storage.lease import read_record
from s2cube.storage.output import Output
from support.runs import CORNER_DAYS as DAYS
from support.runs import CommandLine
from support.servers import faulty


class Decisions:
    """A policy that keeps what it was asked. `is_final` gets what a task returned, and the attempt."""

    def __init__(self, is_final: Callable[[Any, int], bool] | None = None, pause_s: float = 0) -> None:
        self.is_final, self.pause_s = is_final, pause_s
        self.asked: list[tuple[Any, Any, int]] = []

    def decide(self, task: Any, returned: Any, attempt: int) -> Any:
        self.asked.append((task, returned, attempt))
        return returned if self.is_final is None or self.is_final(returned, attempt) else Retry(self.pause_s)


def compute(
    function: Callable[[Any], Any], tasks: Iterable[Any], policy: Any = None, threads: int = 2
) -> Iterator[tuple[Any, Any]]:
    return iter(Threads(function, [(str(each), each) for each in tasks], policy or Decisions(), threads))


def slice_threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name.startswith("s2cube-slice")]


def until(true: Callable[[], object], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class TestThreads:
    def test_yield_the_result_of_every_task(self) -> None:
        assert dict(compute(lambda number: number**2, range(50))) == {number: number**2 for number in range(50)}
        assert list(compute(abs, [])) == []
        until(lambda: not slice_threads())

    @pytest.mark.parametrize(("threads", "at_once"), [(1, 1), (3, 3), (9, 4)])
    def test_compute_as_many_at_once_as_allowed_and_no_more(self, threads: int, at_once: int) -> None:
        """Nobody passes the barrier unless so many are there, and nobody finds more than them."""
        barrier, lock, running, most = threading.Barrier(at_once, timeout=30), threading.Lock(), [0], [0]

        def wait(_: int) -> int:
            with lock:
                running[0] += 1
                most[0] = max(most[0], running[0])
            barrier.wait()
            with lock:
                running[0] -= 1
            return barrier.n_waiting

        tasks = [(str(number), number) for number in range(2 * at_once if at_once < 4 else 4)]
        stream = Threads(wait, tasks, Decisions(), threads)
        seen = [stream.running for _ in stream]
        assert most == [at_once]
        assert max(seen) < at_once
        assert stream.running == 0

    def test_hand_errors_to_the_policy(self) -> None:
        def fail(number: int) -> int:
            raise ValueError(number)

        policy = Decisions()
        ((task, error),) = compute(fail, [7], policy)
        assert (task, type(error), error.args) == (7, ValueError, (7,))
        assert policy.asked == [(7, error, 1)]

    def test_retry_after_a_pause_while_others_go_on(self) -> None:
        times: dict[int, list[float]] = {0: [], 1: [], 2: []}

        def note(number: int) -> int:
            times[number].append(time.monotonic())
            return number

        policy = Decisions(lambda returned, attempt: returned != 0 or attempt == 3, pause_s=0.3)
        results = [task for task, _ in compute(note, [0, 1, 2], policy, threads=1)]
        assert results == [1, 2, 0]
        assert [attempt for task, _, attempt in policy.asked if task == 0] == [1, 2, 3]
        first, second, third = times[0]
        assert second - first >= 0.3
        assert third - second >= 0.3
        assert times[1][0] < second

    def test_an_error_of_the_policy_ends_it(self) -> None:
        begun: list[int] = []

        class Strict:
            def decide(self, task: int, returned: int, attempt: int) -> int:
                raise OSError(28, "No space left")

        with pytest.raises(OSError, match="No space left"):
            list(compute(begun.append, range(9), Strict(), threads=1))
        until(lambda: not slice_threads())
        assert begun == [0]

    def test_take_tasks_only_when_a_thread_is_free(self) -> None:
        """Of a generator, at most one task is in memory in addition to those that are computed. Some are retried."""
        taken, done = 0, 0

        def tasks() -> Iterator[tuple[str, int]]:
            nonlocal taken
            for number in range(1000):
                taken += 1
                assert taken - done <= 2 + 1
                yield str(number), number

        policy = Decisions(lambda number, attempt: number % 50 or attempt == 2)
        for _ in Threads(lambda number: number, tasks(), policy, 2):
            done += 1
        assert taken == done == 1000
        assert len(policy.asked) == 1020

    def test_an_error_of_the_tasks_ends_it(self) -> None:
        def tasks() -> Iterator[tuple[str, int]]:
            yield "0", 0
            raise OSError(28, "No space left")

        with pytest.raises(OSError, match="No space left"):
            list(Threads(abs, tasks(), Decisions(), 1))
        until(lambda: not slice_threads())

    def test_an_early_end_waits_for_nobody(self) -> None:
        begun, gate = [], threading.Event()

        def wait(number: int) -> int:
            begun.append(number)
            if number:
                gate.wait(30)
            return number

        stream = compute(wait, range(9))
        assert next(stream) == (0, 0)
        until(lambda: 1 in begun)
        stream.close()  # type: ignore[attr-defined]
        here, begun_then = slice_threads(), len(begun)
        assert here
        assert all(each.daemon for each in here)
        gate.set()
        until(lambda: not slice_threads())
        assert len(begun) == begun_then <= 3


class TestThisProcess:
    def test_is_nothing_for_dask(self) -> None:
        assert not is_worker()
        assert worker_memory_bytes() is None
        assert active_client() is None

    def test_is_a_worker_or_a_client(self, scheduler: str) -> None:
        with Client(scheduler) as client:
            assert active_client() is client
            assert client.submit(is_worker).result()
            limit = client.submit(worker_memory_bytes).result()
            assert limit == next(iter(client.scheduler_info()["workers"].values()))["memory_limit"]
            assert client.submit(active_client).result() is None


@pytest.fixture
def planned(archive: Archive, corner: Path) -> Callable[..., Job]:
    def plan(**settings: object) -> Job:
        flags = {"aoi": corner, "stac": str(archive.items), "bands": "blue", "out": "out"} | settings
        return plan_job(load_config(flags, {}), Output.at("out"))

    return plan


class TestWhichJobsAreSmall:
    def test_six_slices_are(self, planned: Callable[..., Job]) -> None:
        found = forecast(planned(), headers=False)
        assert found.threads
        assert found.processes == 1
        assert found.at_most == found.total

    @pytest.mark.parametrize(
        "settings", [{"workers": 1}, {"scheduler": "tcp://x:1"}, {"class": "a.B", "workers": 1}], ids=str
    )
    def test_none_is_if_a_cluster_is_chosen(self, planned: Callable[..., Job], settings: dict[str, Any]) -> None:
        assert not forecast(planned(**settings), headers=False).threads

    def test_number_of_threads(self, planned: Callable[..., Job], monkeypatch: pytest.MonkeyPatch) -> None:
        """Batches with many bytes need one thread per core. More threads than batches are not needed."""
        monkeypatch.setattr(os, "cpu_count", lambda: 2)
        job = planned(resolution=5)
        assert len(batches_of(job)) == len(job.todo) == 6
        bytes_ = forecast(job, headers=False).total.bytes // len(job.todo)
        for limit, threads in ((bytes_ + 1, 4), (bytes_ - 1, 2)):
            monkeypatch.setattr(s2cube.jobs.forecasts, "_BUSY_BATCH_BYTES", limit)
            assert forecast(job, headers=False).threads == threads
        assert forecast(planned(resolution=5, threads=3), headers=False).threads == 3
        assert forecast(planned(resolution=5, threads=30), headers=False).threads == len(job.todo)

    def test_a_batch_that_workers_cannot_share(
        self, planned: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(s2cube.jobs.forecasts, "_small_cpu_s", lambda _: 0)
        assert forecast(planned(), headers=False).threads == len(batches_of(planned())) == 1
        assert forecast(planned(resolution=5), headers=False).threads == 0

    @pytest.mark.parametrize("limited", ["_SLICE_CPU_S", "_READ_CPU_S", "_WRITTEN_CPU_S"])
    def test_many_slices_and_many_bytes_are_not(
        self, planned: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, limited: str
    ) -> None:
        """Of three amounts, only one costs anything. The limit is a little above it, then a little below."""
        job = planned(resolution=5)
        costs = forecast(job, headers=False).costs.values()
        amount = {
            "_SLICE_CPU_S": len(costs),
            "_READ_CPU_S": sum(cost.traffic.bytes for cost in costs),
            "_WRITTEN_CPU_S": sum(cost.output_bytes for cost in costs),
        }[limited]
        for name in ("_SLICE_CPU_S", "_READ_CPU_S", "_WRITTEN_CPU_S"):
            monkeypatch.setattr(s2cube.jobs.forecasts, name, float(name == limited))
        monkeypatch.setattr(s2cube.jobs.forecasts, "_small_cpu_s", lambda _: amount + 0.5)
        assert forecast(job, headers=False).threads
        monkeypatch.setattr(s2cube.jobs.forecasts, "_small_cpu_s", lambda _: amount - 0.5)
        assert not forecast(job, headers=False).threads


def files(out: Path) -> dict[str, bytes]:
    """Read all files of an output, except those about the run."""
    found = {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    return {name: content for name, content in found.items() if not name.startswith(".s2cube")}


WORDS = ("--bands", "blue", "--out", "out", "--json")


class TestSmallRun:
    """A run of the command line without a scheduler."""

    def test_writes_the_same_files_as_workers(
        self, s2cube_command: CommandLine, archive: Archive, corner: Path, whole: Path
    ) -> None:
        done = s2cube_command("run", "--aoi", corner, "--stac", archive.items, *WORDS)
        assert done.status == 0, done.err
        assert "info: computing in this process" in done.err
        assert "starting" not in done.err
        assert files(Path("out")) == files(whole)

    def test_has_its_own_gdal_cache_and_a_notebook_has_its_own_again(
        self, s2cube_command: CommandLine, archive: Archive, corner: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen, make = [], s2cube.workers.worker._results

        def look(*words: Any) -> Any:
            seen.append(get_gdal_config("GDAL_CACHEMAX"))
            return make(*words)

        monkeypatch.delenv("GDAL_CACHEMAX", raising=False)
        monkeypatch.setattr(s2cube.workers.worker, "_results", look)
        before = get_gdal_config("GDAL_CACHEMAX")
        assert before != 64 << 20
        assert s2cube_command("run", "--aoi", corner, "--stac", archive.items, *WORDS).status == 0
        assert set(seen) == {64 << 20}
        assert get_gdal_config("GDAL_CACHEMAX") == before
        assert "GDAL_CACHEMAX" not in os.environ

    def test_loads_only_what_it_needs(self, archive: Archive, corner: Path) -> None:
        """A second run, with nothing new, needs no array library."""
        look = "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
        code = f"{look}from s2cube.cli.commands import main; main()"
        words = ["run", "--aoi", str(corner), "--stac", str(archive.items), *WORDS, "--quiet"]

        def loaded(written: int) -> set[str]:
            done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
            assert len(json.loads(done.stdout)["written"]) == written
            return set(done.stderr.split())

        never = {
            "distributed", "pyogrio", "matplotlib", "pystac_client", "jsonschema", "requests", "IPython", "zarr",
            "netCDF4", "bokeh", "fsspec", "s2cube.cluster.client", "s2cube.cluster.stream",
        }  # fmt: skip
        first, second = loaded(len(DAYS)), loaded(0)
        assert {"stackstac", "xarray", "rasterio"} <= first
        assert not first & never
        assert not second & never
        assert not second & {"stackstac", "xarray", "dask.array", "pandas", "geopandas", "scipy", "tifffile"}

    @pytest.mark.parametrize(("how", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_ends_at_once_and_the_next_one_continues(
        self, server_processes: None, s2cube_command: CommandLine, archive: Archive, how: int, status: int
    ) -> None:
        """One day is written. The server is silent about the others for longer than this test.

        The area is so large that its days are not read together.
        """
        days = [day.replace("corner", "farm") for day in DAYS]
        with faulty(archive.items.parent) as server:
            silent = threading.Event()

            def fault(asked: Any, _: bytes) -> None:
                if ".tif" in asked.path and "20210724" not in asked.path:
                    silent.wait(60)

            server.fault = fault
            words = ["run", "--aoi", archive.aoi, "--stac", f"{server.url}/items.json", *WORDS]
            going = subprocess.Popen(
                [sys.executable, "-m", "s2cube", *map(str, words)],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
            until(Path("out", "farm", days[0], f"{days[0]}.json").exists, 60)
            assert not psutil.Process(going.pid).children(recursive=True)
            asked_s = time.monotonic()
            going.send_signal(how)
            _, err = going.communicate(timeout=60)
            took_s = time.monotonic() - asked_s
            silent.set()
            assert going.returncode == status
            assert took_s < 10
            assert "1 of 6 slices written" in err
            assert "stopped; written slices remain" in err
            assert "Traceback" not in err
            record = read_record(Output.at("out"))
            assert record
            assert record.state == "stopped"
            server.fault = lambda *_: None
            done = s2cube_command(*words)
        assert done.status == 0, done.err
        assert done.json["skipped"] == [days[0]]
        assert len(done.json["written"]) == len(DAYS) - 1
