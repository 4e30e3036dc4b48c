"""One run at a time writes to an output, and its record says how it goes."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from s2cube.config.times import timestamp
from s2cube.demo.archive import PASSES, Archive
from s2cube.errors import BusyError, WriteError
from s2cube.storage.layout import RUN
from s2cube.storage.lease import Lease, held, read_record
from s2cube.storage.output import Output
from support.runs import CommandLine, Job

TAKEN_AND_KILLED = """
import os, signal, sys
from s2cube.storage.lease import Lease
from s2cube.storage.output import Output
Lease(Output.at(sys.argv[1])).acquire()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def output(tmp_path: Path) -> Output:
    return Output.at(tmp_path / "out")


def record(output: Output) -> dict[str, object]:
    content: dict[str, object] = json.loads(output.destination.read(RUN) or b"")
    return content


def test_the_second_is_refused_as_soon_as_the_first_shows_that_it_lives(
    s2cube_command: CommandLine, job: Job, output: Output
) -> None:
    with held(output) as lease:
        began = time.monotonic()
        done = s2cube_command(*job())
        assert time.monotonic() - began < 15
        assert done.status == 1
        assert f"is being written by a run of {record(output)['where']} since" in done.err
        assert "s2cube status" in done.err
        lease.output.fence.check()
    assert record(output)["state"] == "done"
    assert s2cube_command(*job("--bands", "blue")).status == 0


def test_a_dead_run_of_this_machine_is_followed_at_once(s2cube_command: CommandLine, job: Job, output: Output) -> None:
    output.destination.prepare()
    subprocess.run([sys.executable, "-c", TAKEN_AND_KILLED, output.destination.address], check=False)
    assert record(output)["state"] == "running"
    dead = s2cube_command("status", "--out", "out")
    assert dead.status == 1
    assert dead.err.startswith("failed (no heartbeat for ")
    began = time.monotonic()
    done = s2cube_command(*job("--bands", "blue"))
    assert done.status == 0, done.err
    assert "waiting" not in done.err
    assert time.monotonic() - began < 20


def test_a_dead_run_of_another_machine_is_followed_after_a_while(
    output: Output, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with held(output):
        content = record(output) | {"machine": "another", "pid": 1}
    output.destination.put(RUN, json.dumps(content | {"state": "running"}).encode())
    monkeypatch.setattr("s2cube.storage.lease._DEAD_S", 2)
    began = time.monotonic()
    with held(output):
        assert time.monotonic() - began >= 2
    assert "has failed (no heartbeat); this run continues its work" in caplog.text


def test_of_two_that_follow_a_dead_one_one_is_refused(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have seen that it is dead, before either has taken its place."""
    other = Lease(output)
    swap = type(output.destination).compare_and_swap

    def late(*arguments: object) -> bool:
        monkeypatch.setattr(type(output.destination), "compare_and_swap", swap)
        other.acquire()
        return bool(swap(*arguments))  # type: ignore[arg-type]

    monkeypatch.setattr(type(output.destination), "compare_and_swap", late)
    with pytest.raises(BusyError, match="is being written by a run of"):
        Lease(output).acquire()
    other.release("done")


def test_who_has_lost_it_writes_no_more(
    s2cube_command: CommandLine, job: Job, output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a laptop that slept: its run was taken for dead, and another has begun."""
    import s2cube.jobs.pipeline

    forecast = s2cube.jobs.pipeline.forecast

    def while_it_sleeps(*arguments: object, **more: object) -> object:
        content = record(output) | {"run": "another", "machine": "another"}
        output.destination.put(RUN, json.dumps(content).encode())
        return forecast(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("s2cube.jobs.pipeline.forecast", while_it_sleeps)
    done = s2cube_command(*job("--bands", "blue"))
    assert done.status == 1
    assert "is written by another run now" in done.err
    assert not list(Path("out").rglob("*.tif"))
    assert record(output)["run"] == "another"


def test_who_has_lost_it_writes_neither_failures_nor_a_catalogue(
    s2cube_command: CommandLine, job: Job, output: Output, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert s2cube_command(*job("--bands", "blue", "--datetime", "2021")).status == 0
    Path("out/catalog.json").unlink()
    items = json.loads(archive.items.read_text())
    for item in items["features"]:
        for asset in item["assets"].values():
            asset["href"] = str(archive.items.parent / "gone" / asset["href"])
    Path("items.json").write_text(json.dumps(items))
    heartbeat = Lease.heartbeat

    def lose_it(lease: Lease) -> None:
        heartbeat(lease)
        output.destination.put(RUN, json.dumps(record(output) | {"run": "another", "machine": "another"}).encode())

    monkeypatch.setattr(Lease, "heartbeat", lose_it)
    lost = s2cube_command(*job("--bands", "blue", "--stac", "items.json", "--slice-retries", "0"))
    assert lost.status == 1
    assert "is written by another run now" in lost.err
    assert not Path("out/catalog.json").exists()
    assert not Path("out/failures.jsonl").exists()


def test_who_has_lost_it_takes_nothing_away_from_who_has_it(output: Output) -> None:
    asleep = Lease(output)
    asleep.acquire()
    asleep._ended.set()  # it beats no more
    output.destination.put(RUN, json.dumps(record(output) | {"state": "stopped"}).encode())
    with held(output) as lease, lease.output.destination.staging() as folder:
        asleep.release("failed")
        asleep.release("failed")
        assert folder.exists()
        assert record(output)["state"] == "running"


def test_beats_go_on_while_it_is_held(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s2cube.storage.lease._HEARTBEAT_S", 0.05)
    with held(output):
        first = record(output)["beats"]
        deadline = time.monotonic() + 10
        while record(output)["beats"] == first and time.monotonic() < deadline:
            time.sleep(0.02)
        assert record(output)["beats"] != first
    last = record(output)
    time.sleep(0.2)
    assert record(output) == last


@pytest.mark.parametrize("lost", [1, 2])
def test_a_beat_whose_answer_is_lost_is_not_the_last(
    output: Output, monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    """It was written, but who wrote it was told otherwise: by an error, or by the answer to a second try."""
    swap, calls = type(output.destination).compare_and_swap, []

    def unheard(*arguments: object) -> bool:
        calls.append(arguments)
        answer = bool(swap(*arguments))  # type: ignore[arg-type]
        if len(calls) != lost:
            return answer
        if lost == 1:
            return False
        raise WriteError("run", "cannot be written (no answer)", "Run again")

    monkeypatch.setattr(type(output.destination), "compare_and_swap", unheard)
    with held(output) as lease:
        lease.heartbeat()
        lease.heartbeat()
        assert record(output)["beats"] == lease._beats
    assert record(output)["state"] == "done"


def test_status(s2cube_command: CommandLine, job: Job, archive: Archive, output: Output) -> None:
    assert s2cube_command("status", "--out", "out").status == 1
    s2cube_command(*job("--bands", "blue"))
    done = s2cube_command("status", "--out", "out", "--json", "--watch")
    assert done.status == 0
    assert f"done: {len(PASSES)} of {len(PASSES)} slices written" in done.err
    assert done.json["progress"]["written"] == len(PASSES)
    assert done.json["alive"] is False

    content = record(output) | {"state": "running", "updated": timestamp()}
    began = {"began": content["started"], "written": 2, "failed": 1, "running": 2, "total": 6}
    content |= {"progress": {**content["progress"], **began}, "machine": "another"}  # type: ignore[dict-item]
    output.destination.put(RUN, json.dumps(content).encode())
    running = s2cube_command("status", "--out", "out", "--json")
    assert running.status == 0
    assert "running: 2 of 6 slices written, 1 FAILED, 2 running, " in running.err
    assert running.json["left_s"] == pytest.approx(3 / running.json["slices_per_s"], rel=0.1, abs=0.06)

    output.destination.put(RUN, json.dumps(content | {"state": "done"}).encode())
    assert s2cube_command("status", "--out", "out").status == 3

    for updated, status in ((timestamp(), 0), ("2020-01-01T00:00:00Z", 1)):
        output.destination.put(RUN, json.dumps(content | {"state": "submitted", "updated": updated}).encode())
        assert s2cube_command("status", "--out", "out").status == status


def test_a_record_of_another_kind_is_none(output: Output) -> None:
    output.destination.prepare()
    for content in (b"", b"{", b"[]", b'{"run": 1}', b'{"progress": 3}'):
        output.destination.put(RUN, content)
        assert read_record(output) is None
