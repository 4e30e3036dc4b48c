"""The command of --on-change: it gets the pass, and what it does never harms the output."""

import json
import logging
from pathlib import Path

import psutil
import pytest

from s2cube.updates._hook import NOT_ENDED, NOT_RUN, run_hook

FACTS = {"written": ["a_20240601"], "changed": ["a/a_20240601/a_20240601.tif", "b\u00e4\n"]}


def test_it_reads_the_pass_as_one_line(tmp_path: Path) -> None:
    assert run_hook(f"cat > {tmp_path}/seen", FACTS) == 0
    seen = (tmp_path / "seen").read_text()
    assert seen.count("\n") == 1
    assert json.loads(seen) == FACTS


def test_what_it_prints_is_not_among_the_json(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_hook("echo said", FACTS) == 0
    assert capfd.readouterr() == ("", "said\n")


def test_it_may_use_the_shell(tmp_path: Path) -> None:
    assert run_hook(f"cat | wc -l > {tmp_path}/lines && exit 0", FACTS) == 0
    assert (tmp_path / "lines").read_text().strip() == "1"


@pytest.mark.parametrize(
    ("command", "status"), [("exit 7", 7), ("no-such-command 2>/dev/null", 127), ("kill -9 $$", -9)]
)
def test_it_fails(command: str, status: int, caplog: pytest.LogCaptureFixture) -> None:
    assert run_hook(command, FACTS) == status
    assert f"ended with status {status}" in caplog.text


def test_it_reads_nothing() -> None:
    assert run_hook("exec 0<&-; sleep 0.2", {"changed": ["x" * 1_000_000]}) == 0


def test_it_hangs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hanging = f"sleep 1000 & echo $! > {tmp_path}/pid; cat > /dev/null; wait"
    assert run_hook(hanging, FACTS, limit_s=1) == NOT_ENDED
    assert "did not end" in caplog.text
    pid = int((tmp_path / "pid").read_text())
    psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=5)
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_it_is_too_long_for_the_system(caplog: pytest.LogCaptureFixture) -> None:
    assert run_hook(f": {'x' * 3_000_000}", FACTS) == NOT_RUN
    assert "did not run: Argument list too long" in caplog.text


def test_the_command_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    assert run_hook("curl -u me:secret127 2>/dev/null; exit 1", FACTS) == 1
    assert "secret127" not in caplog.text
