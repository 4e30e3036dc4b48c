"""Workers start while a run waits for the catalogue, and none of them survives the run."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from s2cube.demo.archive import Archive
from support.servers import Asked, Faulty, answer, faulty

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("server_processes")]


def workers_of(pid: int) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        children = psutil.Process(pid).children(recursive=True)
        return [each for each in children if "spawn_main" in " ".join(each.cmdline())]
    return []


def wait_until(true: Callable[[], object], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def words(server: Faulty, aoi: Path) -> list[object]:
    return ["run", "--aoi", aoi, "--stac", f"{server.url}/items.json", "--out", "out", "--bands", "blue"]


class Started:
    """A run with two workers. `found` has its workers at the moment when it asks for the catalogue."""

    def __init__(self, server: Faulty, words: list[object], wanted: int = 2) -> None:
        self.found: list[psutil.Process] = []
        self.catalogue: bytes | None = None
        self.wanted = wanted
        server.fault = self.fault
        command = [sys.executable, "-m", "s2cube", *map(str, words)]
        self.process = subprocess.Popen(
            [*command, "--workers", "2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def fault(self, asked: Asked, body: bytes) -> bytes | None:
        if "items.json" not in asked.path:
            return None
        wait_until(lambda: len(workers_of(self.process.pid)) >= self.wanted)
        self.found = workers_of(self.process.pid)
        return self.catalogue

    def end(self) -> tuple[int, str]:
        try:
            _, err = self.process.communicate(timeout=90)
        finally:
            self.process.kill()
        psutil.wait_procs(self.found, timeout=10)
        assert not [each for each in self.found if each.is_running()]
        return self.process.returncode, err


@pytest.fixture
def server(archive: Archive) -> Iterator[Faulty]:
    with faulty(archive.items.parent) as found:
        yield found


def test_workers_start_before_the_catalogue_answers(server: Faulty, small_aoi: Path) -> None:
    run = Started(server, words(server, small_aoi))
    status, err = run.end()
    assert (status, len(run.found)) == (0, 2), err
    assert list(Path("out").rglob("*.tif"))


def test_a_catalogue_that_fails(server: Faulty, small_aoi: Path) -> None:
    run = Started(server, words(server, small_aoi))
    run.catalogue = answer(404, b"")
    status, err = run.end()
    assert (status, len(run.found)) == (1, 2), err


def test_no_slice(server: Faulty, small_aoi: Path) -> None:
    run = Started(server, [*words(server, small_aoi), "--datetime", "1999"])
    status, err = run.end()
    assert (status, len(run.found)) == (0, 2), err


def test_interrupted_during_the_search(server: Faulty, small_aoi: Path) -> None:
    run = Started(server, words(server, small_aoi), wanted=3)
    wait_until(lambda: len(workers_of(run.process.pid)) == 2)
    run.found = workers_of(run.process.pid)
    run.process.send_signal(signal.SIGINT)
    began_s = time.monotonic()
    status, err = run.end()
    assert status == 130, err
    assert time.monotonic() - began_s < 10


def test_an_output_that_has_images_starts_no_worker_early(server: Faulty, small_aoi: Path) -> None:
    assert Started(server, words(server, small_aoi)).end()[0] == 0
    again = Started(server, words(server, small_aoi), wanted=0)
    status, err = again.end()
    assert (status, again.found) == (0, []), err
