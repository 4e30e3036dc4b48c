"""Make a pass of `s2cube sync` again and again."""

import json
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from pydantic import TypeAdapter, ValidationError

from s2cube.config.times import timestamp
from s2cube.errors import S2CubeError, SliceError, UsageError
from s2cube.storage.layout import SYNC_SERVICE
from s2cube.storage.output import Output
from s2cube.storage.record import Instant
from s2cube.updates._failed_passes import note_failure
from s2cube.updates.schedule import CORRECTION, Schedule

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


@dataclass(frozen=True)
class Host:
    """The process or the task that is a service.

    Parameters
    ----------
    where
        Its name for `status`. No other service of the output has this name.
    is_cancelled
        Returns whether the service must end. A process ends by signals instead.
    """

    where: str
    is_cancelled: Callable[[], bool] = lambda: False


def process_host(pid: int | None = None) -> Host:
    """Return a service that is a process of this machine: of an id, or this one."""
    return Host(f"{os.uname().nodename} process {pid or os.getpid()}")


def serve(make_pass: Callable[[], int], schedule: Schedule, output: Output, host: Host) -> int:
    """Make passes until a signal ends this process, or the service is cancelled.

    A pass that fails is reported, and the next one begins at its time. Two passes never run at the same time.

    Parameters
    ----------
    make_pass
        Makes one pass, and returns its exit status: negative if a signal ended its process. See `in_own_process`.

    Returns
    -------
    int
        Exit status, if the first pass ends because of wrong settings; 0 if the service is cancelled.
    """
    due = datetime.now(UTC)
    is_first = True
    if not schedule.begins_now:
        due = schedule.after(due, due)
    # At once: a service ends if the output names another one, such as one that has died.
    _announce(due, output, host)
    try:
        while True:
            due = _wait(due, schedule, output, host)
            if host.is_cancelled():
                return 0
            # While the pass runs, `status` reports the pass after it.
            _announce(schedule.after(due, datetime.now(UTC)), output, host)
            began = timestamp()
            status = make_pass()
            if is_first and status == UsageError.exit_status:
                return status
            if status not in (0, SliceError.exit_status):
                log.warning("the pass ended with status %d", status)
            if status < 0:
                # It could not write its line itself.
                note_failure(output, began, f"the process of the pass was ended by {signal.Signals(-status).name}")
            is_first, due = False, schedule.after(due, datetime.now(UTC))
    finally:
        _forget(output, host)


def read_service(output: Output) -> Service | None:
    """Return the service that makes passes for an output; None if there is none."""
    try:
        return _SERVICE.validate_json(output.destination.read(SYNC_SERVICE) or b"", strict=True)
    except ValidationError:
        return None


_SERVICE = TypeAdapter(Service)


def _wait(due: datetime, schedule: Schedule, output: Output, host: Host) -> datetime:
    """Sleep until a time; return it. If someone sets the clock back meanwhile, the time is found anew."""
    last_look = datetime.now(UTC)
    if last_look < due and not host.is_cancelled():
        log.info("the next pass begins at %s", due.astimezone().isoformat(" ", "seconds"))
        _announce(due, output, host)
    while (now := datetime.now(UTC)) < due and not host.is_cancelled():
        if now + CORRECTION < last_look and (sooner := schedule.after(now, now)) < due:
            due = sooner
            log.info("the clock was set back: the next pass begins at %s", due.astimezone().isoformat(" ", "seconds"))
            _announce(due, output, host)
        last_look = now
        time.sleep(min((due - now).total_seconds(), _NAP_S))
    return due


def _announce(due: datetime, output: Output, host: Host) -> None:
    """Write to the output when the next pass is, for `status`. A pass does not depend on it."""
    try:
        output.destination.prepare()
        output.destination.put(SYNC_SERVICE, json.dumps(asdict(Service(host.where, timestamp(due)))).encode())
    except S2CubeError as error:
        log.warning("%s", error)


def in_own_process(command: Sequence[str]) -> int:
    """Run the command of one pass; return its exit status. If this process is interrupted, the pass is, too.

    So the process that waits needs little memory, and no fault of a library ends it.

    Parameters
    ----------
    command
        Program and arguments. Its output is that of this process.
    """
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


def _forget(output: Output, host: Host) -> None:
    """Remove what this service has announced. Another one may make passes for the same output."""
    try:
        if (service := read_service(output)) and service.where == host.where:
            output.destination.remove(SYNC_SERVICE)
    except S2CubeError as error:
        log.warning("%s", error)
