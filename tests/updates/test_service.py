"""Passes on a schedule: they follow each other, survive what fails, and end within a second when they are told to."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from s2cube.storage.output import Output
from s2cube.updates.pass_record import read_passes
from s2cube.updates.service import Service, read_service
from support.servers import require_server

SERVE = """
import logging
import sys
from datetime import timedelta
from functools import partial
from pathlib import Path
from s2cube.cli.commands import _stopped_by_signals
from s2cube.storage.output import Output
from s2cube.updates.schedule import Schedule
from s2cube.updates.pass_record import read_passes
from s2cube.updates.service import in_own_process, process_host, serve

code, every_s = sys.argv[1], float(sys.argv[2])
logging.basicConfig(level=logging.INFO, format="%(message)s")
with _stopped_by_signals():
    make_pass = partial(in_own_process, [sys.executable, "-c", code])
    output, schedule = Output.at(Path("out")), Schedule(every=timedelta(seconds=every_s))
    sys.exit(serve(make_pass, schedule, output, process_host()))
"""
A_PASS = "import pathlib, time; p = pathlib.Path('passes'); p.touch(); p.open('a').write(f'{time.time()}\\n')"


def wait_until(true: Callable[[], object], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def passes() -> list[float]:
    path = Path("passes")
    return [float(line) for line in path.read_text().split()] if path.exists() else []


def ended(process: "subprocess.Popen[bytes]", signum: signal.Signals = signal.SIGTERM) -> tuple[int, float]:
    process.send_signal(signum)
    began_s = time.monotonic()
    process.wait(30)
    return process.returncode, time.monotonic() - began_s


def is_asleep() -> bool:
    """Return whether a service has made a pass and waits for the next one."""
    return "the next pass begins at" in Path("log").read_text()


Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start services in an empty folder; `log` there has what they print."""
    monkeypatch.chdir(tmp_path)
    with ExitStack() as stack, Path("log").open("wb") as log:

        def start(code: str, every_s: float, *before: str) -> "subprocess.Popen[bytes]":
            command = [*before, sys.executable, "-c", SERVE, code, str(every_s)]
            process = stack.enter_context(subprocess.Popen(command, stderr=log))
            stack.callback(process.kill)
            return process

        yield start


def test_passes_follow_each_other_without_drift(start: Start) -> None:
    process = start(A_PASS, 1)
    wait_until(lambda: len(passes()) >= 4)
    ended(process)
    first, *others = passes()
    for number, each in enumerate(others, 1):
        assert number - 0.1 < each - first < number + 0.9


def test_a_pass_that_fails_ends_nothing(start: Start) -> None:
    process = start(f"{A_PASS}; raise SystemExit(1)", 0.2)
    wait_until(lambda: len(passes()) >= 3)
    ended(process)
    assert "ended with status 1" in Path("log").read_text()


def test_wrong_settings_end_the_service(start: Start) -> None:
    process = start(f"{A_PASS}; raise SystemExit(2)", 0.2)
    assert process.wait(30) == 2
    assert len(passes()) == 1


def test_two_passes_never_run_at_the_same_time(start: Start) -> None:
    process = start(f"import time; {A_PASS}; time.sleep(0.7); {A_PASS.replace('passes', 'ends')}", 0.2)
    wait_until(lambda: len(passes()) >= 3)
    ended(process)
    ends = [float(line) for line in Path("ends").read_text().split()]
    assert all(begin > end for begin, end in zip(passes()[1:], ends, strict=False))


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_at_once_while_it_sleeps(start: Start, signum: signal.Signals) -> None:
    process = start(A_PASS, 3600)
    wait_until(is_asleep)
    service = read_service(Output.at(Path("out")))
    assert service is not None
    assert str(process.pid) in service.where
    due = datetime.fromisoformat(service.next)
    assert timedelta(minutes=55) < due - datetime.now(UTC) <= timedelta(hours=1)
    assert psutil.Process(process.pid).cpu_percent(0.5) < 5
    _, took_s = ended(process, signum)
    assert took_s < 1
    assert read_service(Output.at(Path("out"))) is None


def test_a_pass_receives_the_signal_once(start: Start) -> None:
    count = (
        "import signal, time, pathlib\n"
        "seen = []\n"
        "signal.signal(signal.SIGTERM, lambda *_: seen.append(1))\n"
        f"{A_PASS}\n"
        "while not seen: time.sleep(0.02)\n"
        "time.sleep(0.4)\n"
        "pathlib.Path('signals').write_text(str(len(seen)))"
    )
    process = start(count, 3600)
    wait_until(passes)
    time.sleep(0.3)
    _, took_s = ended(process)
    assert took_s < 2
    assert Path("signals").read_text() == "1"


def test_a_pass_that_is_killed_is_noted(start: Start) -> None:
    process = start(f"{A_PASS}; import os; os.kill(os.getpid(), 9)", 3600)
    wait_until(is_asleep)
    ended(process)
    (made,) = read_passes(Output.at(Path("out")).destination)
    assert made.error == "the process of the pass was ended by SIGKILL"


def test_an_output_that_cannot_be_written_ends_nothing(start: Start) -> None:
    Path("out").touch()
    process = start(A_PASS, 0.2)
    wait_until(lambda: len(passes()) >= 3)
    ended(process)
    assert "out" in Path("log").read_text()


def test_it_leaves_what_another_service_announced(start: Start) -> None:
    process = start(A_PASS, 3600)
    wait_until(is_asleep)
    other = Service("another machine process 1", "2024-06-01T00:00:00Z")
    Path("out/.s2cube/sync").write_text(json.dumps(asdict(other)))
    ended(process)
    assert read_service(Output.at(Path("out"))) == other


def next_pass() -> datetime:
    service = read_service(Output.at(Path("out")))
    assert service is not None
    return datetime.fromisoformat(service.next)


@pytest.fixture
def clock(tmp_path: Path) -> list[str]:
    """Words before a command whose clock is that of the file `clock`."""
    require_server(Path("/usr/bin/faketime").exists(), "faketime")
    file = tmp_path / "clock"
    file.write_text("+0d")
    library = next(Path("/usr/lib").rglob("libfaketime.so.1"))
    return ["env", f"LD_PRELOAD={library}", f"FAKETIME_TIMESTAMP_FILE={file}", "FAKETIME_NO_CACHE=1"]


@pytest.mark.slow
@pytest.mark.usefixtures("server_processes")
def test_a_clock_that_is_set_forward(start: Start, clock: list[str]) -> None:
    process = start(A_PASS, 86_400, *clock)
    wait_until(is_asleep)
    Path("clock").write_text("+2d")
    # The service looks at the clock at least twice a minute.
    wait_until(lambda: len(passes()) == 2, 60)
    ended(process)


@pytest.mark.slow
@pytest.mark.usefixtures("server_processes")
def test_a_clock_that_is_set_back(start: Start, clock: list[str]) -> None:
    Path("clock").write_text("+400d")
    process = start(A_PASS, 86_400, *clock)
    wait_until(is_asleep)
    assert next_pass() - datetime.now(UTC) > timedelta(days=400)
    Path("clock").write_text("+0d")
    wait_until(lambda: next_pass() - datetime.now(UTC) <= timedelta(days=1), 60)
    assert next_pass() - datetime.now(UTC) > timedelta(hours=23)
    ended(process)


def test_a_service_that_is_late() -> None:
    now = datetime.now(UTC)
    assert Service("a", (now - timedelta(minutes=5)).isoformat()).is_late
    assert not Service("a", (now + timedelta(minutes=5)).isoformat()).is_late


@pytest.mark.parametrize("content", [b"", b"{", b"[]", json.dumps({"where": "a", "next": "tomorrow"}).encode()])
def test_a_damaged_description_is_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / ".s2cube").mkdir(parents=True)
    (tmp_path / ".s2cube/sync").write_bytes(content)
    assert read_service(Output.at(tmp_path)) is None
