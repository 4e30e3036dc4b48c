"""Run a command in another process of this machine, which continues when the user logs out."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from s2cube.config.sections import JobConfig
from s2cube.errors import ClusterError, SliceError, UsageError
from s2cube.storage.folder import Folder
from s2cube.storage.layout import RUN, RUN_LOG
from s2cube.storage.output import Output
from s2cube.storage.record import Record

_START_S = 120
"""Maximum time (s) until a detached process has begun. Most of it is the search."""

_POLL_S = 0.2
_LOG_TAIL_BYTES = 2000


def run_has_begun(output: Output, pid: int) -> bool:
    """Return whether a process has begun a run in an output."""
    record = Record.parse(output.destination.read(RUN))
    return record is not None and record.pid == pid and record.has_begun


def run_detached(
    config: JobConfig, command: Sequence[str], has_begun: Callable[[Output, int], bool] = run_has_begun
) -> str:
    """Run a command in a process that continues when the user logs out; return a message for the user.

    The process starts a cluster, on this machine or of a configured class, and ends it.

    Parameters
    ----------
    command
        Name of the command, and its arguments.
    has_begun
        Returns whether the process, of this id, does what it was started for.

    Raises
    ------
    OutputError
        If the output cannot be written.
    ClusterError, UsageError
        If the process ends before the run has begun. The message contains the end of its log.
    """
    output = Output.at(config.job.out)
    output.destination.prepare()
    # Append to the log, because another run may still write to it.
    local = output.destination.local("")
    here, name = (Folder(local), RUN_LOG) if local else (Folder(Path.cwd()), "s2cube-run.log")
    with here.open_to_append(name) as file:
        began = file.tell()
        pid = _spawn([sys.executable, "-m", "s2cube", *command], file.fileno())
    log = here.root / name
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        ended, wait_status = os.waitpid(pid, os.WNOHANG)
        # The exit status for failed slices means that the run has begun and has already ended.
        if ended and (status := os.waitstatus_to_exitcode(wait_status)) not in (0, SliceError.exit_status):
            messages = (here.read(name) or b"")[began:][-_LOG_TAIL_BYTES:].decode(errors="replace")
            error = UsageError if status == UsageError.exit_status else ClusterError
            raise error(f"s2cube {command[0]}", f"ended with status {status}: {messages}", f"See {log}")
        if ended or has_begun(output, pid):
            break
        time.sleep(_POLL_S)
    return f"s2cube {command[0]} continues as process {pid} on {os.uname().nodename}; its log is {log}"


def _spawn(command: list[str], log: int) -> int:
    """Start a process that continues when this one ends and writes to an open file; return its id."""
    # subprocess is not used, because it warns if this process does not wait for the end of the other.
    files = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, log, 1),
        (os.POSIX_SPAWN_DUP2, log, 2),
    ]
    return os.posix_spawn(command[0], command, os.environ, file_actions=files, setsid=True)
