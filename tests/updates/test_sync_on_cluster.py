"""Passes that compute on a Dask cluster: once, and on a schedule while the cluster goes and comes back."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed import Client
from updates.conftest import Items, Sync

from s2cube.demo.archive import Archive
from s2cube.errors import ClusterError
from support.clusters import DaskCluster, dask_cluster, until
from support.servers import free_port

MAY, JUNE = "20220520", "20220614"
SERVE = """
import sys
from datetime import timedelta
from s2cube.cli import commands
from s2cube.config import sync

sync._UNITS["m"] = timedelta(seconds=4)
commands.main(sys.argv[1:])
"""
"""The command line, with minutes of four seconds. The passes are other processes, which do not see this."""


@pytest.fixture
def observer(scheduler: str) -> Iterator[Client]:
    with Client(scheduler, set_as_default=False) as client:
        yield client


def transitions(client: Client) -> int:
    """Return how often tasks have changed their state on a scheduler. What an observer does there does not count."""
    counted: int = client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.transition_counter)
    return counted


def connected(client: Client) -> list[str]:
    """Return the clients of a scheduler, without the observer and the scheduler's own."""
    found: list[str] = client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.clients))
    return [each for each in found if each.startswith("Client-") and each != client.id]


@pytest.mark.parametrize("products", ["images", "statistics", "composites", "images,statistics,composites"])
def test_a_pass(
    sync: Sync, every_item: Items, scheduler: str, observer: Client, products: str,
    digests: Callable[[Path], dict[str, Any]],
) -> None:  # fmt: skip
    sync.flags = {"products": products, "lookback": "90d", "datetime": "2022-05/2022-12"}
    sync.items = [item for item in every_item if f"_{MAY}_" in item["id"] or f"_{JUNE}_" in item["id"]]
    # Other tests may have left clients on the shared scheduler.
    others = {*connected(observer)}
    at_first = transitions(observer)
    here = sync("2022-06-15", out="here")
    assert transitions(observer) == at_first
    made = sync("2022-06-15", scheduler=scheduler)
    assert transitions(observer) > at_first
    assert (made.written, made.failed, made.requests) == (here.written, (), here.requests)
    assert digests(Path("out")) == digests(Path("here"))
    until(lambda: others >= {*connected(observer)}, "the client of the pass to go")
    at_end = transitions(observer)
    assert sync("2022-06-16", scheduler=scheduler).written == ()
    assert transitions(observer) == at_end


def test_a_cluster_that_is_started_for_a_pass(sync: Sync, every_item: Items, server_processes: None) -> None:
    sync.items = [item for item in every_item if f"_{MAY}_" in item["id"]]
    words = {"class": "distributed.LocalCluster", "options": '{"threads_per_worker": 1}', "workers": 1}
    assert sync("2022-05-21", **words).written == (f"corner_{MAY}",)


def test_no_cluster_is_asked_for_if_nothing_is_new(sync: Sync, every_item: Items) -> None:
    sync.items = [item for item in every_item if f"_{MAY}_" in item["id"]]
    gone = f"tcp://127.0.0.1:{free_port()}"
    with pytest.raises(ClusterError, match="no Dask scheduler answers"):
        sync("2022-05-21", scheduler=gone)
    assert sync("2022-05-21").new == tuple(item["id"] for item in sync.items)
    assert sync("2022-05-22", scheduler=gone).written == ()


def lines() -> list[dict[str, Any]]:
    path = Path("out/sync.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def cluster(server_processes: None, tmp_path: Path) -> Iterator[DaskCluster]:
    with dask_cluster(tmp_path / "cluster", workers=1) as cluster:
        yield cluster


@pytest.mark.slow
def test_a_service_whose_cluster_goes_and_comes_back(cluster: DaskCluster, archive: Archive, small_aoi: Path) -> None:
    cluster.kill_scheduler()
    words = ["sync", "--aoi", small_aoi, "--stac", archive.items, "--out", "out", "--bands", "blue", "--full"]
    words += ["--datetime", "2022-05", "--scheduler", cluster.address, "--every", "1m", "--json"]
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        until(lambda: len(lines()) == 2, "two passes")
        assert process.poll() is None
        assert all(f"{cluster.address}: no Dask scheduler answers" in each["error"] for each in lines())
        cluster.start_scheduler()
        cluster.start_worker()
        until(lambda: not lines()[-1]["error"], "a pass that works")
        first, after = lines()[-1], len(lines())
        assert (len(first["written"]), first["failed"]) == (1, [])
        with cluster.client() as client:
            assert transitions(client) > 0
            until(lambda: len(lines()) > after, "another pass")
            until(lambda: not connected(client), "the client of the pass to go")
        assert (lines()[after]["error"], lines()[after]["written"]) == ("", [])
    finally:
        process.terminate()
        _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM, err
    assert "the pass ended with status 1" in err
