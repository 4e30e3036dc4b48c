"""Run the command that a user names for passes that change files."""

import json
import logging
import os
import signal
import subprocess
from collections.abc import Iterable
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from s2cube.errors import S2CubeError
from s2cube.storage.layout import (
    AREAS,
    CATALOG,
    FAILURES,
    ITEMS,
    REJECTED,
    REPORT,
    SLICE_DEPTH,
    STATISTICS_CSV,
)
from s2cube.storage.lease import held
from s2cube.storage.output import Output
from s2cube.updates.pass_record import Pass, replace_last_pass

log = logging.getLogger(__name__)

NOT_ENDED = 124
"""Status of a command that did not end in time, as of the program `timeout`."""

NOT_RUN = 126
"""Status of a command that could not be run, as in shells."""

_OF_ALL = {CATALOG, ITEMS, AREAS, STATISTICS_CSV, REPORT, FAILURES, REJECTED}
"""Files that a pass with changes may write anew."""

_LIMIT_S = 3600
"""Maximum time (s) of a command. The next pass must not wait for it for ever."""


def after_pass(command: str, made: Pass, output: Output) -> Pass:
    """Run a command if a pass changed files; return the pass with the exit status of the command.

    The command runs when the pass is complete and does not hold the lease. Its status is in ``sync.jsonl``, too.

    Parameters
    ----------
    command
        See `run_hook`. It reads the facts of the pass, and ``changed``, see `changed_files`.
    """
    if not made.has_changes:
        return made
    try:
        changed = changed_files(made, output)
    except S2CubeError as error:
        log.warning("--on-change: the command did not run: %s", error)
        status = NOT_RUN
    else:
        status = run_hook(command, made.line() | {"changed": changed})
    made = replace(made, hook=status)
    try:
        with held(output, ends_as=None) as lease:
            replace_last_pass(lease.output.destination, made)
    except S2CubeError as error:
        log.warning("--on-change: its exit status is not in sync.jsonl: %s", error)
    return made


def changed_files(made: Pass, output: Output) -> list[str]:
    """Return all files of the slices and composites that a pass wrote, and other files that it may have written.

    The names are relative to the output, sorted. Missing are the files that only s2cube reads, and ``sync.jsonl``,
    because the line of the pass is not complete yet.

    Raises
    ------
    S2CubeError
        If the output cannot be listed.
    """
    names = {path.removeprefix(f"{output.destination.address}/") for path in made.files}
    # A pass names the image of a slice. The other files lie in the same folder.
    folders = {PurePosixPath(each).parent for each in names if len(PurePosixPath(each).parts) == SLICE_DEPTH}
    listed = output.destination.sizes(SLICE_DEPTH, least=SLICE_DEPTH - 1)
    names |= {each for each in listed if PurePosixPath(each).parent in folders}
    of_areas = {each for each in listed if len(PurePosixPath(each).parts) < SLICE_DEPTH}
    areas = {each.parts[0] for each in folders}
    areas |= {area for area in {each.split("/")[0] for each in of_areas} if _has_any(area, made.removed)}
    names |= {each for each in of_areas if each.split("/")[0] in areas}
    return sorted(names | (_OF_ALL & output.destination.sizes(1).keys()))


def _has_any(area: str, slice_ids: Iterable[str]) -> bool:
    return any(each.startswith(f"{area}_") for each in slice_ids)


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
        Exit status, negative if a signal ended the command; `NOT_ENDED` if it did not end in time; `NOT_RUN`.
    """
    shell = ["/bin/sh", "-c", command]
    try:
        # The stdout of s2cube is for its JSON, so that of the command is stderr.
        process = subprocess.Popen(shell, stdin=subprocess.PIPE, stdout=2, text=True, start_new_session=True)
    except OSError as error:
        log.warning("--on-change: the command did not run: %s", error.strerror)
        return NOT_RUN
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
