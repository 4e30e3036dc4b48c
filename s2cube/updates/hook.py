"""Run the command that a user names for passes that change files."""

import json
import logging
import os
import signal
import subprocess
from typing import Any

log = logging.getLogger(__name__)

NOT_ENDED = -1
"""Status of a command that did not end in time."""

_LIMIT_S = 3600
"""Maximum time (s) of a command. The next pass must not wait for it for ever."""


def run_hook(command: str, facts: dict[str, Any], limit_s: float = _LIMIT_S) -> int:
    """Run a command in a shell; return its exit status.

    A command that fails changes nothing in the output. It is reported by a warning.

    Parameters
    ----------
    command
        Text for the shell ``/bin/sh``. It is never logged, because it may contain a password.
    facts
        The command reads them from its stdin, as one line of JSON.
    limit_s
        A command that runs longer is killed, with the processes that it started.

    Returns
    -------
    int
        Exit status, negative if a signal ended the command; `NOT_ENDED` if it did not end in time.
    """
    process = subprocess.Popen(["/bin/sh", "-c", command], stdin=subprocess.PIPE, text=True, start_new_session=True)
    try:
        # A command that does not read its stdin is not an error: `communicate` ignores the broken pipe.
        process.communicate(json.dumps(facts) + "\n", limit_s)
        status = process.returncode
    except subprocess.TimeoutExpired:
        status = NOT_ENDED
    finally:
        _end(process)
    if status == NOT_ENDED:
        log.warning("--on-change: the command did not end within %g s, and was killed", limit_s)
    elif status:
        log.warning("--on-change: the command ended with status %d; the files of the pass are complete", status)
    return status


def _end(process: "subprocess.Popen[str]") -> None:
    """Kill a command that still runs, with all processes of its session."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
