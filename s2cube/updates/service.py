"""Make a pass of `s2cube sync` again and again, each in a process of its own."""

import json
import logging
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from pydantic import TypeAdapter, ValidationError

from s2cube.config.times import timestamp
from s2cube.errors import OutputError, SliceError, UsageError
from s2cube.storage.layout import SYNC_SERVICE
from s2cube.storage.output import Output
from s2cube.storage.record import Instant
from s2cube.updates.schedule import Schedule

log = logging.getLogger(__name__)

_NAP_S = 30
"""Maximum time (s) between two looks at the clock. Someone may set it, and a machine may have slept."""


@dataclass(frozen=True)
class Service:
    """A process that makes passes on a schedule, as it describes itself in the output.

    Parameters
    ----------
    where
        Host and process.
    next
        Time of the next pass, RFC 3339, UTC.
    """

    where: str
    next: Instant

    @property
    def is_late(self) -> bool:
        """Whether the time of the next pass is over, by more than two looks at the clock."""
        return (datetime.now(UTC) - datetime.fromisoformat(self.next)).total_seconds() > 2 * _NAP_S


def serve(command: Sequence[str], schedule: Schedule, output: Output) -> int:
    """Make passes until a signal ends this process.

    Each pass is a process. So this one needs little memory while it waits, and no fault of a library ends it. A pass
    that fails is reported, and the next one begins at its time. Two passes never run at the same time.

    Parameters
    ----------
    command
        Program and arguments of one pass. Its output is that of this process.

    Returns
    -------
    int
        Exit status, if the first pass ends because of wrong settings. Otherwise a signal ends the service.
    """
    due = datetime.now(UTC)
    is_first = True
    if not schedule.begins_now:
        due = schedule.after(due, due)
    try:
        while True:
            _wait(due, output)
            status = _make_pass(command)
            if is_first and status == UsageError.exit_status:
                return status
            if status not in (0, SliceError.exit_status):
                log.warning("the pass ended with status %d", status)
            is_first, due = False, schedule.after(due, datetime.now(UTC))
    finally:
        _forget(output)


def read_service(output: Output) -> Service | None:
    """Return the service that makes passes for an output; None if there is none."""
    try:
        return _SERVICE.validate_json(output.destination.read(SYNC_SERVICE) or b"", strict=True)
    except ValidationError:
        return None


_SERVICE = TypeAdapter(Service)


def _wait(due: datetime, output: Output) -> None:
    """Sleep until a time, and write to the output that the next pass is at this time."""
    if due <= datetime.now(UTC):
        return
    log.info("the next pass begins at %s", due.astimezone().isoformat(" ", "seconds"))
    service = Service(f"{os.uname().nodename} process {os.getpid()}", timestamp(due))
    try:
        output.destination.prepare()
        output.destination.put(SYNC_SERVICE, json.dumps(asdict(service)).encode())
    except OutputError as error:
        log.warning("%s", error)
    while (left_s := (due - datetime.now(UTC)).total_seconds()) > 0:
        time.sleep(min(left_s, _NAP_S))


def _make_pass(command: Sequence[str]) -> int:
    """Run one pass; return its exit status. If this process is interrupted, the pass is, too."""
    # In its own session, Ctrl-C of a terminal does not reach it. It must receive one signal, because the second one
    # ends it at once.
    process = subprocess.Popen(command, start_new_session=True)
    try:
        return process.wait()
    except BaseException:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait()
        raise


def _forget(output: Output) -> None:
    try:
        output.destination.remove(SYNC_SERVICE)
    except OutputError as error:
        log.warning("%s", error)
