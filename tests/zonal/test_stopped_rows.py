"""Runs that are killed and run again make the same table."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import geopandas
import pandas as pd
import pytest

from s2cube.demo.archive import PASSES, Archive
from support.clusters import PATIENCE_S, dask_cluster, until
from support.runs import CommandLine
from support.servers import Asked, Faulty, faulty
from support.tables import files_of, rows_of, write_fields

DAY_BY_DAY = (
    "import s2cube.tables.writer, s2cube.workers.batches; "
    "s2cube.tables.writer._MOST_S = 0; s2cube.workers.batches._LEAST_CELLS = 0; "
)
"""Each day is a batch, and rows are written as soon as they are there, so that a part of them is written when a run is
killed."""


@pytest.fixture
def slow(server_processes: None, archive: Archive) -> Iterator[Faulty]:
    with faulty(archive.items.parent) as server:
        server.fault = lambda *_: time.sleep(0.04)  # type: ignore[func-returns-value]
        yield server


def words_of(command: str, slow: Faulty, out: str) -> list[str]:
    fields = write_fields(Path("fields.parquet"))
    words = [command, "--aoi", fields, "--aoi-id", "name", "--stac", f"{slow.url}/items.json", "--bands", "red,nir"]
    words += ["--statistics", "mean,median", "--out", out, "--json", "--threads", 1]
    return list(map(str, words))


def started(words: list[str]) -> subprocess.Popen[bytes]:
    code = DAY_BY_DAY + "from s2cube.cli.commands import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip


def killed(run: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(run.pid, signal.SIGKILL)
    run.wait()


@pytest.mark.slow
@pytest.mark.parametrize("command", ["stats", "run"])
def test_killed_at_random_moments(s2cube_command: CommandLine, slow: Faulty, command: str) -> None:
    """The files of the table are equal, so each row is there once. Most runs have written some rows when they end."""
    assert s2cube_command(*words_of(command, slow, "whole")).status == 0
    for number in range(10):
        out, moment = f"out{number}", random.Random(f"{command} {number}")
        slow.fault = lambda *_: time.sleep(0.1)  # type: ignore[func-returns-value]
        run = started(words_of(command, slow, out))
        if number % 5:
            until(lambda: any(Path(out, "statistics").glob("*.parquet")), "rows")  # noqa: B023
            time.sleep(moment.uniform(0, 1.5))
        else:
            time.sleep(moment.uniform(0, 5))
        killed(run)
        slow.fault = lambda *_: None
        again = s2cube_command(*words_of(command, slow, out))
        assert again.status == 0, again.err
        assert again.json["failed"] == []
        assert files_of(out) == files_of("whole")
        assert len(rows_of(out)) == 54


@pytest.mark.parametrize("command", ["stats", "run"])
def test_killed_after_the_first_rows(s2cube_command: CommandLine, slow: Faulty, command: str) -> None:
    is_killed = threading.Event()
    last_day = f"{max(each.time for each in PASSES):%Y%m%d}"

    def hold_the_last_day(asked: Asked, _: bytes) -> None:
        """Send no pixel of one day until the run is killed, so that its rows cannot be there."""
        if last_day in asked.path and asked.path.endswith(".tif"):
            is_killed.wait(PATIENCE_S)

    slow.fault = hold_the_last_day  # type: ignore[assignment]
    run = started(words_of(command, slow, "out"))
    try:
        until(lambda: any(Path("out/statistics").glob("*.parquet")), "rows")
    finally:
        killed(run)
        is_killed.set()
    left = len(rows_of("out"))
    assert 0 < left < 54
    asked = s2cube_command("status", "out", "--json")
    assert asked.status == 1
    assert asked.json["progress"]["unit"] == ("rows" if command == "stats" else "slices")
    slow.fault = lambda *_: None
    slow.asked.clear()
    again = s2cube_command(*words_of(command, slow, "out"))
    assert again.status == 0, again.err
    assert again.json["rows"] == 54 - left
    # The tiles of days whose rows are there are not read again.
    days = set(rows_of("out")["slice"].str[-8:])
    read = {day for day in days for each in slow.reads if day in each.path and each.path.endswith(".tif")}
    assert len(read) <= len(days) - left // 9
    assert s2cube_command(*words_of(command, slow, "whole")).status == 0
    assert files_of("out") == files_of("whole")


def test_a_worker_is_lost(s2cube_command: CommandLine, slow: Faulty, tmp_path: Path) -> None:
    assert s2cube_command(*words_of("stats", slow, "whole")).status == 0
    slow.asked.clear()
    slow.fault = lambda *_: time.sleep(0.3)  # type: ignore[func-returns-value]
    with dask_cluster(tmp_path / "cluster", workers=2) as cluster:
        words = [*words_of("stats", slow, "out"), "--scheduler", cluster.address]
        code = "from s2cube.cli.commands import main; main()"
        run = subprocess.Popen(
            [sys.executable, "-c", code, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        until(partial(has_read, slow, 5), "tiles")
        cluster.kill_worker(0)
        slow.fault = lambda *_: None
        out, err = run.communicate(timeout=120)
    assert run.returncode == 0, err
    done: dict[str, Any] = json.loads(out.splitlines()[-1])
    assert (done["rows"], done["failed"]) == (54, [])
    pd.testing.assert_frame_equal(rows_of("out"), rows_of("whole"))


def has_read(server: Faulty, count: int) -> bool:
    return sum(each.path.endswith(".tif") for each in server.reads) > count


def test_submitted(s2cube_command: CommandLine, slow: Faulty, scheduler: str) -> None:
    slow.fault = lambda *_: None
    words = words_of("submit", slow, "out")
    write_fields(Path("fields.parquet"), crop=[f"crop {number}" for number in range(9)])
    done = s2cube_command(*words, "--scheduler", scheduler)
    assert done.status == 0, done.err
    until(lambda: s2cube_command("status", "out", "--json").json["state"] == "done", "the run")
    assert len(rows_of("out")) == 54
    assert len(list(Path("out").glob("f*/*/*.json"))) == 54
    areas = geopandas.read_parquet("out/areas.parquet").set_index("aoi")
    assert areas["crop"].to_dict() == {f"f{number}": f"crop {number}" for number in range(9)}
    asked = s2cube_command("status", "out", "--json").json
    assert asked["progress"]["written"] == asked["progress"]["total"] == 54
