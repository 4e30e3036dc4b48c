"""Run the command that a user names for passes that change files."""

import json
import logging
import os
import signal
import subprocess
from dataclasses import replace
from typing import Any

from s2cube.errors import S2CubeError
from s2cube.storage.lease import held
from s2cube.storage.output import Output
from s2cube.updates.pass_record import Pass, replace_last_pass

log = logging.getLogger(__name__)

NOT_ENDED = -1
"""Status of a command that did not end in time."""

_LIMIT_S = 3600
"""Maximum time (s) of a command. The next pass must not wait for it for ever."""


def after_pass(command: str, made: Pass, output: Output) -> Pass:
    """Run a command if a pass changed files; return the pass with the exit status of the command.

    The command runs when the pass is complete and does not hold the lease. Its status is in ``sync.jsonl``, too.

    Parameters
    ----------
    command
        See `run_hook`. It reads the facts of the pass, and ``changed``: the written files, relative to the output.
    """
    if not made.has_changes:
        return made
    changed = [path.removeprefix(f"{output.destination.address}/") for path in made.files]
    made = replace(made, hook=run_hook(command, made.line() | {"changed": changed}))
    try:
        with held(output, ends_as=None) as lease:
            replace_last_pass(lease.output.destination, made)
    except S2CubeError as error:
        log.warning("--on-change: its exit status is not in sync.jsonl: %s", error)
    return made


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
