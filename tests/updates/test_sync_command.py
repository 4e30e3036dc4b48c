"""`s2cube sync` as users and their scripts meet it: JSON, exit status, the command of --on-change, status."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from s2cube.demo.archive import Archive
from support.runs import CommandLine, Job
from support.servers import Faulty, faulty

FACTS = {
    "started", "ended", "found", "new", "late", "reprocessed", "withdrawn", "pending", "written", "failed", "requests",
    "bytes",
}  # fmt: skip
WORDS = ("--bands", "blue", "--full")


def lines() -> list[dict[str, object]]:
    return [json.loads(line) for line in Path("out/sync.jsonl").read_text().splitlines()]


def wait_until(true: Callable[[], object], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_two_passes(s2cube_command: CommandLine, job: Job) -> None:
    first = s2cube_command(*job(*WORDS, command="sync"))
    assert first.status == 0, first.err
    assert first.json.keys() >= FACTS
    assert len(first.json["new"]) == first.json["found"] > 0
    assert sorted(first.json["written"]) == sorted(path.stem for path in Path("out").glob("corner/*/*.json"))
    assert f"{first.json['found']} new" in first.err
    again = s2cube_command(*job(*WORDS, command="sync"))
    assert (again.status, again.json["new"], again.json["written"], again.json["requests"]) == (0, [], [], 0)
    assert "nothing new: nothing written" in again.err
    assert [each["new"] for each in lines()] == [first.json["new"], []]


def test_status_reports_the_last_pass(s2cube_command: CommandLine, job: Job) -> None:
    assert s2cube_command(*job(*WORDS, command="sync")).status == 0
    asked = s2cube_command("status", "out", "--json")
    assert asked.status == 0
    assert asked.json["sync"]["last"] == lines()[-1]
    assert "last pass of sync" in asked.err


def test_the_command_of_a_pass_that_changed_files(s2cube_command: CommandLine, job: Job) -> None:
    words = [*WORDS, "--on-change", "cat >> seen"]
    made = s2cube_command(*job(*words, command="sync"))
    assert (made.status, made.json["hook"]) == (0, 0), made.err
    facts = json.loads(Path("seen").read_text())
    assert facts["written"] == made.json["written"]
    assert facts["changed"]
    assert all(Path("out", path).exists() for path in facts["changed"])
    # Nothing is new, so the command does not run.
    assert "hook" not in s2cube_command(*job(*words, command="sync")).json
    assert Path("seen").read_text().count("\n") == 1


def test_a_command_that_fails_loses_nothing(s2cube_command: CommandLine, job: Job) -> None:
    made = s2cube_command(*job(*WORDS, "--on-change", "echo password127; exit 5", command="sync"))
    assert (made.status, made.json["hook"], made.json["failed"]) == (3, 5, [])
    assert "ended with status 5" in made.err
    assert "password127" not in made.err
    assert len(list(Path("out").glob("corner/*/*.tif"))) == 2 * len(made.json["written"])
    assert [each["hook"] for each in lines()] == [5]


def test_a_catalogue_that_fails(s2cube_command: CommandLine, job: Job) -> None:
    failed = s2cube_command(*job(*WORDS, "--stac", "missing.json", command="sync"))
    assert failed.status == 1
    assert "missing.json" in failed.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--every", "soon"], "is not a duration"),
        (["--every", "0d"], "is not more than 0"),
        (["--at", "25:00"], "is not a time of day"),
        (["--every", "1d", "--at", "06:00"], "exclude each other"),
        (["--products", "pictures"], "pictures"),
        (["--also", "https://example.org"], "URL,COLLECTION"),
        (["--lookback", "30"], "is not a duration"),
        # Before the catalogue is asked, and before any image is made.
        (["--products", "images,composites", "--period", "P10D", "--stac", "http://127.0.0.1:9/"], "P10D"),
        (["--products", "composites", "--bands", "scl", "--method", "mean", "--stac", "http://127.0.0.1:9/"], "scl"),
    ],
)
def test_wrong_settings(s2cube_command: CommandLine, job: Job, words: list[str], said: str) -> None:
    refused = s2cube_command(*job(*words, command="sync"))
    assert refused.status == 2
    assert said in refused.err


@pytest.fixture
def server(archive: Archive) -> Iterator[Faulty]:
    with faulty(archive.items.parent) as found:
        yield found


def service(words: list[object]) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "s2cube", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_service(s2cube_command: CommandLine, small_aoi: Path, archive: Archive) -> None:
    words = ["sync", "--aoi", small_aoi, "--stac", archive.items, "--out", "out", *WORDS, "--json", "--every", "1h"]
    process = service(words)
    try:
        wait_until(lambda: Path("out/sync.jsonl").exists())
        asked = s2cube_command("status", "out", "--json")
        assert asked.json["sync"].keys() == {"last", "next"}
        assert "next pass of sync" in asked.err
    finally:
        process.terminate()
        out, err = process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGTERM, err
    assert [json.loads(line)["written"] for line in out.splitlines()] == [lines()[0]["written"]]


@pytest.mark.slow
def test_a_service_that_is_ended_in_a_pass(server: Faulty, small_aoi: Path, s2cube_command: CommandLine) -> None:
    server.fault = lambda *_: time.sleep(0.3)  # type: ignore[func-returns-value]
    stac = f"{server.url}/items.json"
    words = ["sync", "--aoi", small_aoi, "--stac", stac, "--out", "out", *WORDS]
    process = service([*words, "--every", "1h"])
    try:
        wait_until(lambda: len(server.reads) > 4)
    finally:
        began_s = time.monotonic()
        process.terminate()
        _, err = process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGTERM, err
    assert time.monotonic() - began_s < 2
    server.fault = lambda *_: None
    made = s2cube_command(*words, "--json")
    assert (made.status, made.json["failed"]) == (0, []), made.err
    assert len(lines()) == 1
