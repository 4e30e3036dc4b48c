"""Measure a command and all processes that it starts. Called by ``fields.py`` and ``field_statistics.py``."""

import contextlib
import ctypes
import os
import resource
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Make processes that survive their parent children of this process, so that their CPU time counts."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def time_processes(
    command: list[str], folder: Path, started: Callable[[int], None] = lambda _: None
) -> tuple[float, float]:
    """Return wall and CPU time of a command and of all processes that it starts, also of those that survive it.

    Parameters
    ----------
    started
        Function that is called with the id of the process, which is also the id of its session.
    """
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    wall_s, log = 0.0, folder / "stderr"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.DEVNULL, stderr=stderr, start_new_session=True
        )
    started(process.pid)
    with contextlib.suppress(ChildProcessError):
        while True:
            ended, status = os.waitpid(-process.pid, 0)
            if ended == process.pid:
                wall_s = time.perf_counter() - began
                process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command} failed:\n{log.read_text()[-3000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
