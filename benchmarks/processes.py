"""Measure a command and all processes that it starts. Called by other benchmarks."""

import contextlib
import ctypes
import os
import resource
import subprocess
import threading
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


class PeakMemory(threading.Thread):
    """Samples the memory of all processes of a session: the peak of their sum, and that of the largest process."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_mb, self.process_mb, self.ended, self._session = 0.0, 0.0, threading.Event(), 0

    def watch(self, session: int) -> None:
        self._session = session
        self.start()

    def run(self) -> None:
        while not self.ended.wait(0.25):
            sizes = [self._pss_mb(int(each.name)) for each in Path("/proc").iterdir() if each.name.isdecimal()]
            self.peak_mb, self.process_mb = max(self.peak_mb, sum(sizes)), max(self.process_mb, *sizes)

    def _pss_mb(self, process: int) -> float:
        with contextlib.suppress(OSError, StopIteration):  # a process may end at any moment
            if os.getsid(process) == self._session:
                lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
                return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1000
        return 0.0
