"""Real Dask clusters, and what befalls them: nothing is lost, nothing is wrong, and what ends a run is named."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pyarrow.parquet
import pytest
from distributed import CancelledError
from distributed.core import clean_exception, error_message
from rasterio._err import CPLE_AppDefinedError

from s2cube import DISTRIBUTION
from s2cube.cluster import stream
from s2cube.config.loading import load_config
from s2cube.demo.archive import PASSES, Archive
from s2cube.errors import ClusterError, OutputError, WriteError
from s2cube.fetch.retry import Retry
from s2cube.jobs.job import Job as PlannedJob
from s2cube.jobs.recorder import Recorder
from s2cube.runs.submit import _run_submitted
from s2cube.storage.lease import held, read_record
from s2cube.storage.output import Output
from s2cube.workers.batches import Batch
from s2cube.workers.results import SliceResult
from s2cube.workers.worker import compute_batch
from support.clusters import DaskCluster, dask_cluster
from support.runs import CommandLine, Job
from support.servers import Faulty, answer, faulty, free_port

# At 5 m, days are so large that they are not read together.
BANDS = ("--bands", "blue,swir16", "--resolution", "5")
DAYS = [f"corner_{each.time:%Y%m%d}" for each in PASSES]
ALL_ARE_FINAL: Any = SimpleNamespace(decide=lambda task, returned, attempt: returned)


def files(out: Path) -> dict[str, bytes]:
    """Read all that a run leaves, but for its record of itself, and for where scenes were read from."""
    found = {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    return {str(name): _anywhere(content) for name, content in found.items() if name.parts[0] != ".s2cube"}


def _anywhere(content: bytes) -> bytes:
    if content.startswith(b"PAR1"):
        rows = pyarrow.parquet.read_table(pyarrow.BufferReader(content)).drop_columns(["s2cube:recipe"])
        return repr(rows.to_pylist()).encode()
    if not content.startswith(b"{"):
        return content
    item = json.loads(content)
    item.get("properties", {}).pop("s2cube:recipe", None)
    return json.dumps(item).encode()


def until(true: Callable[[], object], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def right(archive: Archive, tmp_path_factory: pytest.TempPathFactory, scheduler: str) -> dict[str, bytes]:
    """What an undisturbed run of the corner leaves; to be made by the first test that asks."""
    return {}


@pytest.fixture
def expected(right: dict[str, bytes], s2cube_command: CommandLine, job: Job, tmp_path: Path) -> dict[str, bytes]:
    if not right:
        assert s2cube_command(*job(*BANDS, "--out", tmp_path / "undisturbed")).status == 0
        right |= files(tmp_path / "undisturbed")
    return right


@pytest.fixture
def slow(archive: Archive) -> Iterator[Faulty]:
    """The archive, a tenth of a second before each answer."""
    with faulty(archive.items.parent) as server:
        server.fault = lambda *_: time.sleep(0.1)
        yield server


class Run:
    """A run in a process of its own."""

    def __init__(self, words: list[object]) -> None:
        self.began_s = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "s2cube", *map(str, words)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def is_writing(self, wanted: int) -> bool:
        """Tell whether it is this run that is on its way, and so many slices are done."""
        record = read_record(Output.at("out"))
        return record is not None and record.pid == self.process.pid and bool(record.progress.began) and enough(wanted)

    def end(self, timeout_s: float = 90) -> tuple[int, str, str]:
        try:
            out, err = self.process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise
        return self.process.returncode, out, err


def enough(wanted: int) -> bool:
    return len(done()) >= wanted


def done(out: Path = Path("out")) -> list[str]:
    return sorted(path.stem for path in out.glob("corner/*/*.json"))


class TestHosts:
    """Three workers on hosts of their own, spoken to by TLS."""

    def words(self, hosts: DaskCluster) -> list[object]:
        assert hosts.certificates
        own = hosts.certificates
        return ["--scheduler", hosts.address, "--tls-ca", own.ca, "--tls-cert", own.cert, "--tls-key", own.key]

    def test_a_folder_that_all_see(
        self, hosts: DaskCluster, s2cube_command: CommandLine, job: Job, expected: dict[str, bytes]
    ) -> None:
        ran = s2cube_command(*job(*BANDS, *self.words(hosts)))
        assert ran.status == 0, ran.err
        assert files(Path("out")) == expected

    def test_a_folder_that_only_the_client_sees(
        self, hosts: DaskCluster, s2cube_command: CommandLine, job: Job, expected: dict[str, bytes]
    ) -> None:
        """In its place workers have a folder of their own, which they could write to: but the run is not there."""
        assert hosts.shape.private
        out = hosts.shape.private
        ran = s2cube_command(*job(*BANDS, *self.words(hosts), "--out", out))
        assert ran.status == 0, ran.err
        assert files(out) == expected
        assert ran.json["written"] == [str(out / "corner" / day / f"{day}.tif") for day in DAYS]

        handed = s2cube_command(*job(*BANDS, *self.words(hosts), "--out", out, command="submit"))
        assert handed.status == 2
        assert "cannot be reached by the workers of the cluster" in handed.err

    def test_certificates_that_do_not_fit(self, hosts: DaskCluster, s2cube_command: CommandLine, job: Job) -> None:
        assert hosts.foreign_certificates
        foreign = hosts.foreign_certificates
        words = ["--scheduler", hosts.address, "--tls-ca", foreign.ca, "--tls-cert", foreign.cert]
        began_s = time.monotonic()
        ran = s2cube_command(*job(*words, "--tls-key", foreign.key))
        assert ran.status == 1
        assert f"{hosts.address}: no Dask scheduler answers" in ran.err
        assert "certificate" in ran.err.lower()
        assert time.monotonic() - began_s < 20

    @pytest.mark.parametrize("flaw", ["none", "no such file", "plain"])
    def test_no_certificates(self, hosts: DaskCluster, s2cube_command: CommandLine, job: Job, flaw: str) -> None:
        words = {
            "none": ["--scheduler", hosts.address],
            "no such file": ["--scheduler", hosts.address, "--tls-ca", "nothing.pem"],
            "plain": ["--scheduler", hosts.address.replace("tls", "tcp")],
        }[flaw]
        ran = s2cube_command(*job(*words))
        assert ran.status == 1
        assert "no Dask scheduler answers" in ran.err
        assert "--tls-ca" in ran.err


class LostFuture:
    """A future whose result is lost with its worker after the first look at it. Then it answers no more."""

    def __init__(self) -> None:
        self.status, self.waits_s = "finished", list[float | None]()

    def exception(self, timeout: float | None = None) -> None:
        self.status = "lost"
        self.waits_s.append(timeout)
        if timeout is None:
            pytest.fail("it would wait without end")
        raise TimeoutError


class TestFaults:
    @pytest.fixture
    def cluster(self, server_processes: None, tmp_path: Path) -> Iterator[DaskCluster]:
        with dask_cluster(tmp_path / "cluster", workers=2) as cluster:
            yield cluster

    def words(self, job: Job, slow: Faulty, cluster: DaskCluster) -> list[object]:
        return job(*BANDS, "--stac", f"{slow.url}/items.json", "--scheduler", cluster.address)

    def test_a_worker_killed_in_mid_slice(
        self, cluster: DaskCluster, slow: Faulty, job: Job, expected: dict[str, bytes]
    ) -> None:
        run = Run(self.words(job, slow, cluster))
        until(partial(enough, 1))
        over, at = done(), len(slow.asked)
        cluster.kill_worker(0)
        status, out, err = run.end()
        assert status == 0, err
        assert files(Path("out")) == expected
        assert [Path(path).stem for path in json.loads(out)["written"]] == DAYS
        # What was done is not read again.
        days = {day.removeprefix("corner_") for day in over}
        assert not [each.path for each in slow.asked[at:] if any(day in each.path for day in days)]

    def test_all_workers_gone_and_back(
        self, cluster: DaskCluster, slow: Faulty, job: Job, expected: dict[str, bytes]
    ) -> None:
        run = Run(self.words(job, slow, cluster))
        until(partial(enough, 1))
        for number in range(2):
            cluster.kill_worker(number)
        time.sleep(2)
        assert run.process.poll() is None
        cluster.start_worker()
        status, _, err = run.end()
        assert status == 0, err
        assert files(Path("out")) == expected

    def test_no_worker_for_too_long(self, cluster: DaskCluster, slow: Faulty, job: Job) -> None:
        for number in range(2):
            cluster.kill_worker(number)
        run = Run([*self.words(job, slow, cluster), "--worker-wait", "3"])
        status, _, err = run.end(40)
        assert status == 1
        assert f"{cluster.address}: has had no worker for 3 s. Start workers" in err
        assert err.count(f"info: waiting for workers of {cluster.address}") == 1

    def test_a_frozen_worker_does_not_hold_up_others(
        self, cluster: DaskCluster, slow: Faulty, job: Job, expected: dict[str, bytes]
    ) -> None:
        worker = psutil.Process(cluster.workers[0].pid)
        frozen = [worker, *worker.children(True)]
        for each in frozen:
            each.suspend()
        run = Run(self.words(job, slow, cluster))
        try:
            until(partial(enough, 1), 45)
        finally:
            for each in frozen:
                each.resume()
        status, _, err = run.end()
        assert status == 0, err
        assert "a worker does not answer" in err
        assert files(Path("out")) == expected

    def test_a_result_that_is_lost_while_it_is_taken_is_not_waited_for(self) -> None:
        future = LostFuture()
        with pytest.raises(CancelledError):
            stream._take_result(future)  # type: ignore[arg-type]
        assert future.waits_s == [stream._FETCH_S]

    def test_the_last_worker_gone_with_what_it_has_made(
        self, cluster: DaskCluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is done, but has not come home: it is to be made again, by others."""
        take_result, handed_out = stream._take_result, []

        def too_late(future: Any) -> object:
            handed_out.append(future.key)
            for number in range(2):
                cluster.kill_worker(number)
            return take_result(future)

        monkeypatch.setattr(stream, "_take_result", too_late)
        monkeypatch.setattr(stream, "_FETCH_S", 1)
        raised: list[BaseException] = []

        def work() -> None:
            with cluster.client() as client:
                try:
                    list(stream.Stream(client, abs, [("x", -1)], ALL_ARE_FINAL, worker_wait_s=3))
                except ClusterError as error:
                    raised.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(30)
        assert len(handed_out) == 1
        assert "has had no worker for 3 s" in str(raised[0])

    def test_the_scheduler_gone(self, cluster: DaskCluster, slow: Faulty, job: Job, expected: dict[str, bytes]) -> None:
        run = Run(self.words(job, slow, cluster))
        until(partial(enough, 2))
        cluster.kill_scheduler()
        status, _, err = run.end(60)
        assert status == 1, err
        assert "does not answer any more. Written slices remain" in err
        over = done()
        assert 2 <= len(over) < len(DAYS)
        cluster.start_scheduler()
        cluster.start_worker()
        slow.asked.clear()
        status, out, err = Run(self.words(job, slow, cluster)).end()
        assert status == 0, err
        assert set(json.loads(out)["skipped"]) >= set(over)
        assert files(Path("out")) == expected

    def test_killed_and_stopped(self, cluster: DaskCluster, slow: Faulty, job: Job, expected: dict[str, bytes]) -> None:
        words = self.words(job, slow, cluster)
        slow.fault = lambda *_: time.sleep(0.3)
        for wanted, how, told in ((1, signal.SIGKILL, -9), (2, signal.SIGINT, 130), (3, signal.SIGTERM, 143)):
            # Workers complete what they compute, so on a slow machine the last run may have nothing left.
            has_work = not enough(len(DAYS))
            run = Run(words)
            until(partial(run.is_writing, wanted))
            asked_s = time.monotonic()
            run.process.send_signal(how)
            status, _, err = run.end()
            assert status == told
            assert time.monotonic() - asked_s < 5
            if how != signal.SIGKILL:
                assert "slices written" in err or not has_work
                assert "stopped; written slices remain" in err
                assert "Traceback" not in err
        slow.fault = lambda *_: None
        status, _, err = Run(words).end()
        assert status == 0, err
        assert files(Path("out")) == expected


def test_what_may_pass_is_tried_again_and_what_will_not_is_not(
    s2cube_command: CommandLine, job: Job, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two slices fail: one for as long as an archive is busy, the other for good."""
    monkeypatch.setattr("s2cube.fetch.retry.SLICES", Retry(first_pause_s=0.5))
    with faulty(archive.items.parent) as server:
        refused = {"busy": 0, "gone": 0}

        def fault(asked: Any, _: bytes) -> bytes | None:
            if "20210724" in asked.path and "B02" in asked.path and refused["busy"] < 2:
                refused["busy"] += 1
                return answer(503)
            if "20220520" in asked.path and "B02" in asked.path:
                refused["gone"] += asked.method == "GET"
                return answer(404)
            return None

        server.fault = fault
        ran = s2cube_command(*job("--bands", "blue", "--stac", f"{server.url}/items.json", "--retries", "0"))
    assert ran.status == 3
    assert [each["slice"] for each in ran.json["failed"]] == ["corner_20220520"]
    assert refused == {"busy": 2, "gone": 1}
    assert "corner_20210724: will be retried" in ran.err
    assert len(ran.json["written"]) == len(DAYS) - 1


def test_an_error_comes_home_whole_whatever_it_came_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dask pickles causes too, and GDAL's cannot be unpickled."""

    def full(*_: object) -> None:
        try:
            raise CPLE_AppDefinedError(3, 1, "No space left")
        except CPLE_AppDefinedError:
            raise WriteError("a.tif", "cannot be written", "Make room") from None

    monkeypatch.setattr("s2cube.workers.worker._results", full)
    with pytest.raises(WriteError) as caught:
        compute_batch(None, None, None)  # type: ignore[arg-type]
    message = error_message(caught.value)
    assert isinstance(clean_exception(message["exception"].data)[1], WriteError)


def test_a_disk_that_is_full_at_home_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    brought = SliceResult("corner_1", files={"corner_1.tif": b"1"})
    with held(Output.at(tmp_path)) as lease, monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        task = SimpleNamespace(id="corner_1", aoi=SimpleNamespace(id="corner"))
        with pytest.raises(WriteError, match=r"corner_1: cannot be written \(No space left on device\)"):
            list(Recorder(lease).record(Batch((task,)), [brought], running=0))  # type: ignore[arg-type]


def test_nobody_there(s2cube_command: CommandLine, job: Job) -> None:
    began_s = time.monotonic()
    ran = s2cube_command(*job("--scheduler", f"tcp://127.0.0.1:{free_port()}"))
    assert ran.status == 1
    assert "no Dask scheduler answers" in ran.err
    assert time.monotonic() - began_s < 15


ODD = """
import importlib.metadata

real, odd = importlib.metadata.version, {0}

def version(name):
    if name in odd and odd[name] is None:
        raise importlib.metadata.PackageNotFoundError(name)
    return odd.get(name) or real(name)

importlib.metadata.version = version
"""


class TestWhatWorkersHave:
    @pytest.mark.parametrize(
        ("odd", "told"),
        [
            ({DISTRIBUTION: None}, f"lacks {DISTRIBUTION}. Install the same version"),
            ({"rasterio": None}, "lacks rasterio"),
            ({DISTRIBUTION: "9.9"}, f"has {DISTRIBUTION} 9.9, not 0.1.0"),
        ],
    )
    def test_is_looked_at_before_work_starts(
        self, s2cube_command: CommandLine, job: Job, tmp_path: Path, odd: dict[str, str | None], told: str
    ) -> None:
        (tmp_path / "odd").mkdir()
        (tmp_path / "odd" / "sitecustomize.py").write_text(ODD.format(odd))
        with dask_cluster(tmp_path / "c", workers=1, worker_env={"PYTHONPATH": str(tmp_path / "odd")}) as cluster:
            ran = s2cube_command(*job("--scheduler", cluster.address))
        assert ran.status == 1
        assert told in ran.err
        assert "worker tcp://" in ran.err
        assert not done()


class TestClasses:
    def test_slurm(
        self, s2cube_command: CommandLine, job: Job, slurm_options: dict[str, Any], expected: dict[str, bytes]
    ) -> None:
        words = _without_scheduler(job(*BANDS, "--class", "dask_jobqueue.SLURMCluster", "--workers", "1"))
        ran = s2cube_command("run", *words, "--options", json.dumps(slurm_options))
        assert "info: starting dask_jobqueue.SLURMCluster with 1 workers" in ran.err
        assert ran.err.count("info: waiting for workers of SLURMCluster") == 1
        assert ran.status == 0, ran.err
        assert files(Path("out")) == expected

    def test_gateway(
        self, s2cube_command: CommandLine, job: Job, gateway_options: dict[str, Any], expected: dict[str, bytes]
    ) -> None:
        table = "".join(f"{key} = {json.dumps(value)}\n" for key, value in gateway_options.items())
        cluster = '[cluster]\nclass = "dask_gateway.GatewayCluster"\nworkers = 1\n[cluster.options]\n'
        Path("job.toml").write_text(cluster + table)
        ran = s2cube_command("run", *_without_scheduler(job(*BANDS, "--config", "job.toml")))
        assert ran.status == 0, ran.err
        assert files(Path("out")) == expected

    @pytest.mark.parametrize(
        ("more", "status", "told"),
        [
            (
                ["--class", "coiled.Cluster", "--workers", "2"],
                2,
                "clone of s2cube: pip install -e '.[coiled]'",
            ),
            (
                ["--class", "dask_kubernetes.operator.KubeCluster", "--workers", "2"],
                2,
                "install -e '.[kubernetes]'",
            ),
            (["--class", "distributed.NoCluster", "--workers", "2"], 2, "has no attribute 'NoCluster'"),
            (["--class", "builtins.dict", "--workers", "2"], 2, "is not a class of Dask clusters"),
            (["--options", '{"queue": "x"}'], 2, "options need a class"),
            (["--class", "nonsense", "--workers", "2"], 2, "--class nonsense: cannot be imported"),
            (["--class", "distributed.LocalCluster"], 2, "[cluster]: a class needs the number of workers"),
            (["--class", "distributed.SpecCluster", "--workers", "1", "--options", '{"colour": 1}'], 2, "colour"),
            (["--class", "distributed.LocalCluster", "--workers", "1", "--options", "{"], 2, "--options: not a JSON"),
            (
                ["--class", "x.Y", "--workers", "1", "--scheduler", "tcp://x:1"],
                2,
                "scheduler and class exclude each other",
            ),
        ],
    )
    def test_wrong(self, s2cube_command: CommandLine, job: Job, more: list[str], status: int, told: str) -> None:
        ran = s2cube_command("run", *_without_scheduler(job()), *more)
        assert ran.status == status, ran.err
        assert told in ran.err


def _without_scheduler(words: list[object]) -> list[object]:
    at = words.index("--scheduler")
    return [*words[1:at], *words[at + 2 :]]


class TestSubmit:
    def test_to_a_cluster(
        self, s2cube_command: CommandLine, job: Job, slow: Faulty, tmp_path: Path, expected: dict[str, bytes]
    ) -> None:
        """The client goes away, and so does the worker that looks after the job."""
        with dask_cluster(tmp_path / "c", workers=2) as cluster:
            words = [*BANDS, "--stac", f"{slow.url}/items.json", "--scheduler", cluster.address]
            handed = s2cube_command(*job(*words, command="submit"))
            assert handed.status == 0, handed.err
            assert "Submitted 6 slices to" in handed.err
            until(partial(enough, 1))
            going = s2cube_command("status", "--out", "out", "--json")
            assert going.status == 0
            assert going.json["alive"]
            over = s2cube_command("status", "--out", "out", "--json", "--watch")
        assert over.status == 0
        assert over.json["state"] == "done"
        assert over.json["progress"]["written"] + over.json["progress"]["skipped"] == len(DAYS)
        assert files(Path("out")) == expected

    def test_the_worker_that_looks_after_it_is_killed(
        self, s2cube_command: CommandLine, job: Job, slow: Faulty, tmp_path: Path, expected: dict[str, bytes]
    ) -> None:
        with dask_cluster(tmp_path / "c", workers=2) as cluster:
            words = [*BANDS, "--stac", f"{slow.url}/items.json", "--scheduler", cluster.address]
            assert s2cube_command(*job(*words, command="submit")).status == 0
            until(partial(enough, 1))
            first = read_record(Output.at("out"))
            assert first
            children = [[each.pid for each in psutil.Process(one.pid).children(True)] for one in cluster.workers]
            (number,) = (number for number, pids in enumerate(children) if first.pid in pids)
            cluster.kill_worker(number)
            until(lambda: (record := read_record(Output.at("out"))) and record.run != first.run)
            over = s2cube_command("status", "--out", "out", "--json", "--watch")
        assert over.status == 0
        assert over.json["state"] == "done"
        assert files(Path("out")) == expected

    def test_that_is_begun_before_its_client_has_left(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The client still beats, while it closes its connection."""
        monkeypatch.setattr("s2cube.storage.lease._HEARTBEAT_S", 0.05)
        config = load_config({"out": "out"}, {})
        with held(Output.at("out"), ends_as="submitted") as lease:
            doing = threading.Thread(target=_run_submitted, args=(PlannedJob(config, lease.output, (), (), ()),))
            doing.start()
            time.sleep(1)
        doing.join(60)
        record = read_record(Output.at("out"))
        assert record
        assert record.state == "done"
        assert record.run != lease.id

    def test_is_not_done_where_nobody_will_look(self) -> None:
        """There was no worker to ask when it was submitted, and the first that came does not see the folder."""
        config = load_config({"out": "out"}, {})
        with pytest.raises(OutputError, match="out: cannot be reached by this worker"):
            _run_submitted(PlannedJob(config, Output.at("out").held_by("a run"), (), (), ()))
        assert not Path("out").exists()

    def test_to_a_process_of_its_own(self, s2cube_command: CommandLine, job: Job, expected: dict[str, bytes]) -> None:
        handed = s2cube_command("submit", *_without_scheduler(job(*BANDS)))
        assert handed.status == 0, handed.err
        over = s2cube_command("status", "--out", "out", "--json", "--watch")
        assert over.status == 0
        assert over.json["state"] == "done"
        assert files(Path("out")) == expected
        log = Path("out/.s2cube/run.log").read_text()
        assert "6 slices written" in log

    def test_that_cannot_begin(self, s2cube_command: CommandLine, job: Job) -> None:
        handed = s2cube_command("submit", *_without_scheduler(job("--stac", "nothing.json")))
        assert handed.status == 1
        assert "nothing.json" in handed.err

    @pytest.mark.parametrize(
        ("flag", "value", "told"),
        [("--aoi", "none.geojson", "none.geojson: there is no such file"), ("--out", "/proc/x", "/proc/x: cannot be")],
    )
    def test_that_is_wrong(self, s2cube_command: CommandLine, job: Job, flag: str, value: str, told: str) -> None:
        handed = s2cube_command("submit", *_without_scheduler(job(flag, value)))
        assert handed.status == 2
        assert told in handed.err


def test_log_lines_for_programs(
    s2cube_command: CommandLine, job: Job, archive: Archive, archive_items: list[dict[str, Any]], tmp_path: Path
) -> None:
    items = json.loads(json.dumps(archive_items))
    for item in items:
        for asset in item["assets"].values():
            asset["href"] = str(archive.items.parent / asset["href"])
    items[0]["assets"]["blue"]["href"] = str(tmp_path / "not there.tif")
    stac = tmp_path / "items.json"
    stac.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    ran = s2cube_command(*job("--bands", "blue", "--stac", stac, "--log-json", "-v"))
    assert ran.status == 3
    lines = [json.loads(line) for line in ran.err.splitlines()]
    assert all(set(line) >= {"time", "level", "event"} for line in lines)
    assert {line["slice"] for line in lines if line["event"].endswith("written")} == set(DAYS[1:])
    assert all(line["scenes"] for line in lines if "slice" in line)
    failed = next(line for line in lines if "failed: " in line["event"])
    assert (failed["level"], failed["slice"], failed["asset"]) == ("error", DAYS[0], "blue")
    assert failed["scenes"] == [items[0]["id"]]
    wrong = s2cube_command("run", "--log-json", "--nonsense", "1")
    assert json.loads(wrong.err.splitlines()[-1])["level"] == "critical"


def test_a_scheduler_that_goes_while_versions_are_compared_may_come_back(
    scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distributed import Client
    from distributed.comm.core import CommClosedError

    check, checked = stream.check_versions, []

    def broken_off(client: Client) -> None:
        checked.append(client)
        if len(checked) == 1:
            raise CommClosedError
        check(client)

    monkeypatch.setattr(stream, "check_versions", broken_off)
    with Client(scheduler, set_as_default=False) as client:
        assert list(stream.Stream(client, abs, [("x", -1)], ALL_ARE_FINAL, 10)) == [(-1, 1)]


def test_one_client_at_a_time_is_enough_for_many_threads(scheduler: str) -> None:
    """A stream is used from whatever thread calls it."""
    from distributed import Client

    results: list[int] = []

    def work() -> None:
        with Client(scheduler, set_as_default=False) as client:
            calls = stream.Stream(client, abs, (("x", -1), ("y", -2)), ALL_ARE_FINAL, 10)
            results.extend(result for _, result in calls)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert sorted(results) == [1, 2]
