"""Commands that are submitted to a cluster: a worker plans and runs them, and they make what they make here."""

import json
import time
import zipfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import geopandas
import pandas
import psutil
import pytest
from distributed import Client, Future

from s2cube.area.areas import areas_of_job
from s2cube.config import sync
from s2cube.config.loading import load_config
from s2cube.demo.archive import Archive
from s2cube.errors import OutputError, SearchError
from s2cube.runs._sent_areas import areas_received, send_areas
from s2cube.runs.submit import _Command, _run_command
from s2cube.storage.lease import held, read_record
from s2cube.storage.output import Output
from support.clusters import DaskCluster, dask_cluster, until
from support.runs import CommandLine, Job
from support.servers import free_port

MAY = ("--bands", "blue", "--datetime", "2022-05/2022-06", "--resolution", "60")
OWN = Path("out/.s2cube")


def content(out: Path) -> dict[str, Any]:
    """Return what a command made: Items without times, the table and images as bytes."""
    found: dict[str, Any] = {}
    for path in sorted(out.rglob("*")):
        name = str(path.relative_to(out))
        if path.suffix in (".tif", ".png", ".parquet") and name != "items.parquet":
            found[name] = path.read_bytes()
        elif path.suffix == ".json" and path.parent.parent.parent == out:
            item = json.loads(path.read_text())
            found[name] = {key: value for key, value in item["properties"].items() if key not in ("created", "updated")}
    return found


def lines() -> list[dict[str, Any]]:
    path = Path("out/sync.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def quick_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes each "minute" follow each other after three seconds. Workers get the schedule from this process."""
    monkeypatch.setitem(sync._UNITS, "m", timedelta(seconds=3))


@pytest.fixture
def cluster(server_processes: None, tmp_path: Path) -> Iterator[DaskCluster]:
    with dask_cluster(tmp_path / "cluster", workers=2) as cluster:
        yield cluster


@pytest.mark.parametrize(
    "words",
    [
        ["stats", "--statistics", "mean,max", "--format", "csv"],
        ["composite", "--method", "median"],
        ["sync", "--products", "images,statistics,composites", "--lookback", "9999d"],
    ],
    ids=lambda words: words[0],
)
def test_a_command(
    words: list[str], s2cube_command: CommandLine, job: Job, archive: Archive, small_aoi: Path, scheduler: str
) -> None:
    name, *flags = words
    usual = [*MAY, *flags, "--stac", archive.items, "--aoi", small_aoi]
    assert s2cube_command(name, *usual, "--out", "here").status == 0
    handed = s2cube_command("submit", name, *usual, "--out", "out", "--scheduler", scheduler, "--json")
    assert (handed.status, handed.json) == (0, {"out": "out"}), handed.err
    assert f"Submitted {name} to {scheduler} as task s2cube-{name}-" in handed.err
    over = s2cube_command("status", "out", "--watch", "--json")
    assert (over.status, over.json["state"]) == (0, "done"), over.err
    until(lambda: not list(OWN.glob("areas-*")), "the copy of the areas to be removed")
    assert content(Path("out")) == content(Path("here"))
    assert len(content(Path("out"))) > 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["stats", "--aoi", "none.geojson"], "none.geojson: there is no such file"),
        (["composite", "--period", "P0D"], "P0D"),
        (["composite", "--aoi", "none.geojson"], "none.geojson: there is no such file"),
        (["sync", "--aoi", "none.geojson"], "none.geojson: there is no such file"),
        (["sync", "--products", "composites", "--period", "all"], "period: 'all' is a part of the range"),
        (["stats", "--bands", "scl"], "scl"),
        (["sync", "--out", "/proc/x"], "/proc/x: cannot be"),
    ],
    ids=" ".join,
)
def test_a_mistake_is_named_before_it_is_submitted(
    words: list[str], told: str, s2cube_command: CommandLine, small_aoi: Path, scheduler: str
) -> None:
    name, *flags = words
    given = [*flags, *(["--aoi", small_aoi] if "--aoi" not in flags else []), "--scheduler", scheduler]
    handed = s2cube_command("submit", name, *given)
    assert handed.status == 2
    assert told in handed.err
    assert not Path("out").exists()


def test_workers_on_other_machines(
    hosts: DaskCluster, s2cube_command: CommandLine, job: Job, archive: Archive, small_aoi: Path
) -> None:
    """They see neither the file of the areas, which is sent, nor a catalogue in a folder of the client."""
    assert hosts.certificates
    assert hosts.shape.private
    own, private = hosts.certificates, hosts.shape.private
    words = ["--scheduler", hosts.address, "--tls-ca", own.ca, "--tls-cert", own.cert, "--tls-key", own.key, *MAY]
    words += ["--lookback", "9999d"]
    aoi = small_aoi.rename(private / "corner.geojson")
    handed = s2cube_command("submit", "sync", *job(*words, "--aoi", aoi)[1:])
    assert handed.status == 0, handed.err
    over = s2cube_command("status", "out", "--watch", "--json")
    assert (over.json["state"], over.json["sync"]["last"]["error"]) == ("done", "")
    assert len(over.json["sync"]["last"]["written"]) == 2

    (private / "items.json").write_bytes(archive.items.read_bytes())
    words += ["--aoi", aoi]
    stac = s2cube_command("submit", "sync", *job(*words, "--stac", private / "items.json")[1:])
    assert stac.status == 2
    assert f"--stac {private}/items.json: cannot be read by the workers of the cluster" in stac.err
    out = s2cube_command("submit", "sync", *job(*words, "--out", private)[1:])
    assert out.status == 2
    assert "cannot be reached by the workers of the cluster" in out.err


def test_an_error_is_in_the_record_and_in_the_log_of_the_worker(
    s2cube_command: CommandLine, job: Job, tmp_path: Path, server_processes: None
) -> None:
    gone = f"http://127.0.0.1:{free_port()}/stac?token=HUSH"
    with dask_cluster(tmp_path / "cluster", workers=1) as cluster:
        words = job("--stac", gone, "--scheduler", cluster.address)[1:]
        for name in ("composite", "sync"):
            assert s2cube_command("submit", name, *words).status == 0
            over = s2cube_command("status", "out", "--watch", "--json")
            assert (over.status, over.json["state"]) == (1, "failed")
            assert "HUSH" not in over.out + over.err
        assert "HUSH" not in lines()[-1]["error"]
        assert lines()[-1]["error"].startswith("http://127.0.0.1")
        until(lambda: logs(cluster).count(lines()[-1]["error"]) == 2, "two errors in the logs", *cluster.logs)


@pytest.mark.parametrize("error", [SearchError("a", "b", "c"), ValueError("x")], ids=["ours", "other"])
def test_dask_does_not_receive_an_error(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """It would log the call with the settings, in which the address of the catalogue may be a secret."""

    def fail(_: object) -> None:
        raise error

    config = load_config({"aoi": "1,1,2,2", "out": "out"}, {})
    with held(Output.at("out")) as lease:
        command = _Command(fail, config, lease.output, None)
    _run_command(command)
    assert str(error) in caplog.text


def test_images_and_then_rows_on_one_worker(s2cube_command: CommandLine, job: Job) -> None:
    """The table lacks rows of images that exist: they are computed after the images, by the same task."""
    first = ("--bands", "blue", "--resolution", "5")
    assert s2cube_command(*job(*first, "--datetime", "2022-05")).status == 0
    handed = s2cube_command(*job(*first, "--datetime", "2022-05/2022-06", "--statistics", "mean", command="submit"))
    assert handed.status == 0
    over = s2cube_command("status", "out", "--watch", "--json")
    assert (over.status, over.json["state"]) == (0, "done"), over.json
    table = pandas.read_parquet("out/statistics")
    assert len(table) > len(list(Path("out/corner").glob("corner_202205*"))) > 0


@pytest.mark.slow
def test_a_service(cluster: DaskCluster, s2cube_command: CommandLine, job: Job, quick_minutes: None) -> None:
    """It survives its worker, gives way to another service, and ends if its task is cancelled."""
    words = job(*MAY, "--scheduler", cluster.address, "--lookback", "9999d")[1:]
    handed = s2cube_command("submit", "sync", *words, "--every", "1m")
    assert handed.status == 0, handed.err
    until(lambda: len(lines()) >= 2, "two passes", *cluster.logs)
    assert (len(lines()[0]["written"]), lines()[1]["written"], lines()[1]["error"]) == (2, [], "")
    state = s2cube_command("status", "out", "--json")
    assert (state.status, state.json["sync"]["last"]["error"]) == (0, "")
    assert "task s2cube-sync-" in state.err

    record = read_record(Output.at("out"))
    assert record
    children = [[each.pid for each in psutil.Process(one.pid).children(True)] for one in cluster.workers]
    (number,) = (number for number, pids in enumerate(children) if record.pid in pids)
    cluster.kill_worker(number)
    before = len(lines())
    until(lambda: len(lines()) > before + 1, "passes on the other worker", *cluster.logs)
    assert json.loads((OWN / "sync").read_bytes())["where"].split(" process ")[1].split(",")[0] != str(record.pid)

    first = json.loads((OWN / "sync").read_bytes())["where"]
    again = s2cube_command("submit", "sync", *words, "--every", "2m")
    assert again.status == 0, again.err
    with cluster.client() as client:
        until(lambda: processing(client) == [key_in(again.err)], "the first service to end", *cluster.logs)
        assert key_in(handed.err) in first
        before = len(lines())
        until(lambda: len(lines()) > before, "a pass of the second service", *cluster.logs)
        client.cancel(Future(key_in(again.err), client), force=True)
        until(lambda: not (OWN / "sync").exists(), "the second service to end", *cluster.logs)
        assert not processing(client)
    before = len(lines())
    time.sleep(7)
    assert len(lines()) == before


def logs(cluster: DaskCluster) -> str:
    return "".join(each.read_text() for each in cluster.logs)


def key_in(message: str) -> str:
    return message.partition(" as task ")[2].partition(".")[0]


def processing(client: Client) -> list[str]:
    """Return the tasks of services that workers run now."""
    return sorted({str(key) for keys in client.processing().values() for key in keys if "s2cube-sync" in str(key)})


@pytest.mark.slow
def test_a_service_in_a_process_of_this_machine(s2cube_command: CommandLine, job: Job, server_processes: None) -> None:
    words = job(*MAY, "--lookback", "9999d")[1:]
    at = words.index("--scheduler")
    handed = s2cube_command("submit", "sync", *words[:at], *words[at + 2 :], "--every", "1d")
    assert handed.status == 0, handed.err
    process = psutil.Process(int(handed.err.partition("as process ")[2].split()[0]))
    try:
        until(lambda: len(lines()) == 1, "a pass")
        assert len(lines()[0]["written"]) == 2
        state = s2cube_command("status", "out", "--json")
        assert (state.status, f"process {process.pid}" in state.err) == (0, True)
    finally:
        process.terminate()
    until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE, "the service to end")
    assert not (OWN / "sync").exists()
    assert "2 written" in (OWN / "run.log").read_text()


class TestAreas:
    """The worker gets all files that belong to the areas."""

    @pytest.fixture(params=["fields.geojson", "fields.shp", "fields.gdb", "fields.gpkg|layername=b", "fields.parquet"])
    def aoi(self, request: pytest.FixtureRequest, small_aoi: Path) -> str:
        name, _, layer = str(request.param).partition("|layername=")
        frame = geopandas.read_file(small_aoi)
        if name.endswith(".parquet"):
            frame.to_parquet(name)
        elif name.endswith(".gdb"):
            frame.to_file(name, driver="OpenFileGDB")
        else:
            frame.to_file(name, layer=layer or None)
        return str(request.param)

    def test_are_sent(self, aoi: str) -> None:
        config = load_config({"aoi": aoi, "out": "out"}, {})
        with held(Output.at("out"), ends_as=None) as lease:
            name = send_areas(config.job, lease.output)
            assert name
            with areas_received(config, lease.output, name) as received:
                assert Path(str(received.job.aoi).partition("|")[0]).parent != Path.cwd()
                (sent,), (here,) = areas_of_job(received.job), areas_of_job(config.job)
                assert (sent.id, sent.geometry.wkt) == (here.id, here.geometry.wkt)
                assert zipfile.is_zipfile(Path("out") / name)
            assert not (Path("out") / name).exists()

    @pytest.mark.parametrize("area", ["-98.5,41.9,-98.4,42", "POLYGON((" + "0 0," * 2000 + "0 1,1 1,0 0))", "s3://b/a"])
    def test_that_are_in_the_settings_are_not_sent(self, area: str) -> None:
        config = load_config({"aoi": area, "out": "out"}, {})
        with held(Output.at("out"), ends_as=None) as lease:
            assert send_areas(config.job, lease.output) is None
            with areas_received(config, lease.output, None) as received:
                assert received == config

    def test_that_someone_has_removed(self, small_aoi: Path) -> None:
        config = load_config({"aoi": small_aoi, "out": "out"}, {})
        with held(Output.at("out"), ends_as=None) as lease:
            name = send_areas(config.job, lease.output)
            assert name
            lease.output.destination.remove(name)
            with (
                pytest.raises(OutputError, match="Submit the command again"),
                areas_received(config, lease.output, name),
            ):
                pass
