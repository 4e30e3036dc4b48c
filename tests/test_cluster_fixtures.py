"""The clusters of the tests are what they are taken for."""

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from clusters import DaskCluster, dask_cluster
from dask_gateway import GatewayCluster
from dask_jobqueue import SLURMCluster
from distributed import Client


def test_processes_are_killed_and_started(tmp_path: Path) -> None:
    with dask_cluster(tmp_path / "dask", workers=2, worker_env={"FRUIT": "pear"}) as cluster:
        workers = psutil.Process(cluster.workers[0].pid).children(recursive=True)
        cluster.kill_worker(0)
        assert workers
        assert psutil.wait_procs(workers, timeout=10)[1] == []
        cluster.start_worker()
        with cluster.client() as client:
            assert client.submit(pow, 2, 5).result() == 32
            assert list(client.run(os.getenv, "FRUIT").values()) == ["pear", "pear"]
        cluster.kill_scheduler()
        cluster.start_scheduler()
        cluster.start_worker()
        with cluster.client() as client:
            assert client.submit(pow, 2, 6).result() == 64
    assert all(each.poll() is not None for each in (cluster.scheduler, *cluster.workers))


def test_a_folder_is_not_the_workers(tmp_path: Path) -> None:
    for name in ("shared", "private"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    with (
        dask_cluster(tmp_path / "dask", workers=1, private=tmp_path / "private") as cluster,
        cluster.client() as client,
    ):
        assert list(client.run(os.listdir, str(tmp_path / "shared")).values()) == [["file"]]
        assert list(client.run(os.listdir, str(tmp_path / "private")).values()) == [[]]
        client.run(Path.touch, tmp_path / "private" / "lost")
    assert [each.name for each in (tmp_path / "private").iterdir()] == ["file"]


def test_hosts_have_addresses_of_their_own(hosts: DaskCluster) -> None:
    with hosts.client() as client:
        addresses = {urlsplit(address) for address in client.nthreads()}
        assert client.submit(pow, 2, 5).result() == 32
    assert {each.scheme for each in addresses} == {"tls"}
    assert len({each.hostname for each in addresses} - {hosts.host}) == 3
    with pytest.raises(OSError, match="(?i)certificate"):
        hosts.client(hosts.foreign_certificates, timeout_s=2)


def test_slurm(slurm_options: dict[str, Any]) -> None:
    with SLURMCluster(**slurm_options) as cluster, Client(cluster, set_as_default=False) as client:
        cluster.scale(1)
        assert client.submit(os.getenv, "SLURM_JOB_PARTITION").result(60) == "test"


def test_gateway(gateway_options: dict[str, Any]) -> None:
    with GatewayCluster(**gateway_options) as cluster, Client(cluster, set_as_default=False) as client:
        cluster.scale(1)
        assert client.submit(os.getenv, "DASK_GATEWAY_CLUSTER_NAME").result(60) == cluster.name
