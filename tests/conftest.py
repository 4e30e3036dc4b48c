"""Fixtures: the simulated archive, servers, one Dask cluster for all runs, and the command line."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import dask.config
import geopandas
import obstore
import pytest
import requests
import shapely
from distributed import LocalCluster
from hypothesis import settings
from obstore.store import S3Store

import s2cube
from s2cube.cli import commands
from s2cube.config.loading import load_config
from s2cube.demo.archive import Archive, write_archive
from s2cube.fetch import retry, session
from support import clusters, outside, servers
from support.runs import FARM, KEYS, CommandLine, EditItems, Job, Outcome, Run

# The machine may be busy, so the duration of an example says nothing about the code.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that need servers and tests that need outside data, by their fixtures. Notebooks need servers."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if servers.FIXTURE in fixtures or item.path.suffix == ".ipynb":
            item.add_marker(pytest.mark.servers)
        if outside.FIXTURES & fixtures:
            item.add_marker(pytest.mark.outside_data)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    servers.allow(item.get_closest_marker("servers") is not None)


@pytest.fixture(scope="session")
def server_processes() -> None:
    """Permit server processes. Every test and fixture that starts one must use this; quick tests do not use it."""


@pytest.fixture(scope="session", autouse=True)
def guarded_clusters() -> Iterator[None]:
    """Fail a test without permission for servers that starts a Dask cluster, here or in a child `s2cube run`."""
    start_cluster, start_child = LocalCluster.__init__, subprocess.Popen.__init__

    def cluster(self: LocalCluster, *words: Any, **options: Any) -> None:
        servers.check_allowed("LocalCluster")
        start_cluster(self, *words, **options)

    def child(self: subprocess.Popen[Any], command: Any, *words: Any, **options: Any) -> None:
        if {"s2cube", "run"} <= set(command):
            servers.check_allowed("the cluster of `s2cube run`")
        start_child(self, command, *words, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalCluster, "__init__", cluster)
        patch.setattr(subprocess.Popen, "__init__", child)
        yield


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test in its own folder, without the settings of s2cube and of the terminal in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("S2CUBE_") or name in TERMINAL_VARIABLES:
            monkeypatch.delenv(name)


TERMINAL_VARIABLES = ("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE")
"""Rich reads these even if stdout is not a terminal."""

NETWORK_VARIABLES = (
    "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY",
    "NO_PROXY",
)  # fmt: skip


@pytest.fixture
def new_session(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Start without cached files, tokens, connections and known servers. Pauses before retries are short."""
    monkeypatch.setattr(retry, "REQUESTS", replace(retry.REQUESTS, first_pause_s=0.01))
    session.reset()
    yield
    session.reset()


@pytest.fixture
def open_network(monkeypatch: pytest.MonkeyPatch, new_session: None) -> None:
    """Remove the variables of the machine's own network, and start a new session."""
    for name in os.environ:
        if name.upper() in NETWORK_VARIABLES or name.startswith(("AWS_", "AZURE_", "GOOGLE_")):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def real() -> Path:
    """Real Sentinel-2 granules and Items, which are not part of the project."""
    return outside.require_real()


@pytest.fixture(scope="session")
def recordings() -> Path:
    """Recorded answers of real STAC APIs, which are not part of the project."""
    return outside.require_recordings()


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return write_archive(tmp_path_factory.mktemp("archive"))


@pytest.fixture(scope="session")
def archive_items(archive: Archive) -> list[dict[str, Any]]:
    features: list[dict[str, Any]] = json.loads(archive.items.read_text())["features"]
    return features


@pytest.fixture
def edited(archive: Archive, archive_items: list[dict[str, Any]], tmp_path: Path) -> EditItems:
    """Write a copy of the archive's items that a function has changed."""

    def edit(change: Callable[[list[dict[str, Any]]], Any]) -> Path:
        items = json.loads(json.dumps(archive_items))
        for item in items:
            for asset in item["assets"].values():
                asset["href"] = str(archive.items.parent / asset["href"])
        changed = change(items)
        path = tmp_path / "edited.json"
        path.write_text(json.dumps({"type": "FeatureCollection", "features": changed or items}))
        return path

    return edit


@pytest.fixture(scope="session")
def archive_url(server_processes: None, archive: Archive, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of the archive, served over HTTP with range requests."""
    with servers.nginx(archive.items.parent, tmp_path_factory.mktemp("nginx")) as url:
        yield url


@pytest.fixture(scope="session")
def scheduler(server_processes: None) -> Iterator[str]:
    """Address of a Dask cluster with one worker process, shared by all runs of the suite."""
    with (
        # As in s2cube's own cluster: Python below 3.11.9 may deadlock when its threads are profiled.
        dask.config.set({"distributed.worker.profile.enabled": False}),
        LocalCluster(n_workers=1, threads_per_worker=2, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster,
    ):
        yield cluster.scheduler_address


@pytest.fixture(scope="session")
def hosts(server_processes: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[clusters.DaskCluster]:
    """A Dask cluster of three hosts, with TLS. It cannot reach the folder `private`. Tests must not kill processes."""
    folder = tmp_path_factory.mktemp("hosts")
    (folder / "private").mkdir()
    with clusters.dask_cluster(folder, hosts=True, tls=True, private=folder / "private") as cluster:
        yield cluster


@pytest.fixture(scope="session")
def slurm_options(server_processes: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Options of `dask_jobqueue.SLURMCluster` for a SLURM that runs on this machine."""
    with clusters.slurm(tmp_path_factory.mktemp("slurm")) as slurm, pytest.MonkeyPatch.context() as patch:
        for name, value in slurm.environment.items():
            patch.setenv(name, value)
        yield slurm.options


@pytest.fixture(scope="session")
def gateway_options(server_processes: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Options of `dask_gateway.GatewayCluster`."""
    with clusters.gateway(tmp_path_factory.mktemp("gateway")) as options:
        yield options


@pytest.fixture
def s2cube_command(capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """Call the command line in this process, as `python -m s2cube` does."""

    def call(*arguments: object) -> Outcome:
        with pytest.raises(SystemExit) as exit_:
            commands.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert isinstance(exit_.value.code, int)
        return Outcome(exit_.value.code, captured.out, captured.err)

    return call


@pytest.fixture
def small_aoi(tmp_path: Path) -> Path:
    """File with a corner of the demo's farm, so that a run is quick."""
    path = tmp_path / "corner.geojson"
    frame = geopandas.GeoDataFrame({"id": ["corner"]}, geometry=[shapely.box(*FARM)], crs="EPSG:32614")
    frame.to_crs("EPSG:4326").to_file(path)
    return path


@pytest.fixture
def job(archive: Archive, small_aoi: Path, scheduler: str) -> Job:
    """Return the arguments of a run on the demo's archive. Flags of a test replace the default flags."""
    usual = {"--aoi": small_aoi, "--stac": archive.items, "--scheduler": scheduler, "--out": "out"}

    def words(*given: object, command: str = "run") -> list[object]:
        flags = usual.items() if command != "search" else list(usual.items())[:2]
        return [command, "--json", *given, *(word for flag in flags if flag[0] not in given for word in flag)]

    return words


@pytest.fixture(scope="session")
def s3(server_processes: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Store]:
    """A bucket, through a client that is not s2cube's."""
    with servers.object_store(tmp_path_factory.mktemp("weed")) as url:
        bucket = S3Store(
            "results", endpoint=url, access_key_id="AKTEST", secret_access_key="SKTEST", region="us-east-1",
            client_options={"allow_http": True},
        )  # fmt: skip
        requests.put(obstore.sign(bucket, "PUT", "", timedelta(minutes=1)), timeout=30).raise_for_status()
        yield bucket


@pytest.fixture
def keys(s3: S3Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Set keys with permission to write in the environment."""
    for name, value in zip(KEYS, ("AKTEST", "SKTEST", "us-east-1", s3.config["endpoint"], "true"), strict=True):
        monkeypatch.setenv(name, value)
    session.reset()
    yield
    session.reset()


@pytest.fixture(scope="session")
def corner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """File with the corner of the demo's farm, for the whole session."""
    path = tmp_path_factory.mktemp("aoi") / "corner.geojson"
    frame = geopandas.GeoDataFrame({"id": ["corner"]}, geometry=[shapely.box(*FARM)], crs="EPSG:32614")
    frame.to_crs("EPSG:4326").to_file(path)
    return path


@pytest.fixture(scope="session")
def whole(archive: Archive, corner: Path, scheduler: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output of the corner. Tests must not change it."""
    out = tmp_path_factory.mktemp("whole") / "out"
    flags = {"aoi": corner, "stac": str(archive.items), "scheduler": scheduler, "bands": "blue", "out": out}
    s2cube.run(load_config(flags, {}))
    return out


@pytest.fixture
def out(whole: Path, tmp_path: Path) -> Path:
    """A copy of the output `whole`, for one test."""
    shutil.copytree(whole, tmp_path / "out")
    return Path("out")


@pytest.fixture
def run(s2cube_command: CommandLine, archive: Archive, corner: Path, scheduler: str) -> Run:
    """Run the job of the output `whole` by the command line. Flags of a test are added, or replace its flags."""
    usual = {"--aoi": corner, "--stac": archive.items, "--scheduler": scheduler, "--bands": "blue", "--out": "out"}

    def call(*more: object, command: str = "run") -> Outcome:
        rest = (word for flag in usual.items() if flag[0] not in more for word in flag)
        return s2cube_command(command, "--json", *more, *rest)

    return call
