"""A lease is the right to write to an output. Only one run holds it at a time, and writes heartbeats."""

import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from uuid import uuid4

from s2cube.config.times import timestamp
from s2cube.errors import BusyError, OutputError, S2CubeError, WriteError
from s2cube.storage.layout import RUN
from s2cube.storage.output import Output
from s2cube.storage.progress import Progress
from s2cube.storage.record import DEAD_S, Record, RunState, machine_id

log = logging.getLogger(__name__)

_HEARTBEAT_S = 3
"""Interval of heartbeats."""

_DEAD_S = DEAD_S
"""Time that a run waits for a heartbeat of the previous run."""


class Lease:
    """The right to write to an output. A thread writes a heartbeat to the record of the run every few seconds.

    Attributes
    ----------
    progress
        Progress of the run. Set it: the next heartbeat writes it to the record.
    follows_an_end
        Whether the previous run has completed.
    """

    def __init__(self, output: Output) -> None:
        self.id = uuid4().hex[:12]
        self.output = output.held_by(self.id)
        self.progress = Progress()
        self.follows_an_end = False
        where, began = f"{socket.gethostname()}:{os.getpid()}", timestamp()
        self._record = Record(self.id, "running", where, machine_id(), os.getpid(), began, began)
        self._beats = 0
        self._content: bytes | None = None
        self._found: bytes | None = None
        self._last_problem = ""
        self._ended = threading.Event()
        self._writing = threading.Lock()

    def acquire(self) -> None:
        """Acquire the lease. The previous run must have ended, or must be dead.

        Raises
        ------
        BusyError
            If another run writes to the output.
        OutputError
            If the output cannot be written.
        """
        self.output.destination.prepare()
        found = self.output.destination.read(RUN)
        record = _parsed(self.output, found)
        if record and record.is_open and not record.is_dead:
            found = self._wait_for_heartbeat(found, record)
            record = Record.parse(found)
        self._content = self._found = found
        # Until this run has written a slice, `status` reports the previous run.
        last = record and (record if record.has_begun else record.before)
        self._record = replace(self._record, before=last and replace(last, before=None))
        self.follows_an_end = last is not None and last.state == "done"
        try:
            is_acquired = self._write("running")
        except WriteError as error:
            raise OutputError(error.subject, error.problem, "Choose another --out") from None
        if not is_acquired:
            raise self._busy(Record.parse(self.output.destination.read(RUN)))
        self.output.destination.clean_up()
        threading.Thread(target=self._send_heartbeats, name="s2cube-lease", daemon=True).start()

    def release(self, state: RunState | None, error: str = "") -> None:
        """End the run and release the lease.

        If this run failed or was stopped before it wrote a slice, it restores the record of the previous run, and adds
        a note about itself.

        Parameters
        ----------
        state
            State of the run at its end. None if this was not a run: the record is restored.
        """
        self._ended.set()
        try:
            if self.output.fence.is_intact():
                # Otherwise another run holds the lease now, and the incomplete files may belong to it.
                self.output.destination.clean_up()
            if state is None:
                self._restore()
            else:
                self._write(state, error)
        except (OutputError, WriteError) as problem:
            if str(problem) not in (error, self._last_problem):
                log.warning("%s", problem)

    def check(self) -> None:
        """Check that this run still holds the lease. It raises the errors of `Fence.check`."""
        self.output.fence.check()

    def heartbeat(self) -> None:
        """Write the record of the run, with its progress."""
        try:
            # If another run holds the lease now, writing the next slice raises an error.
            self._write("running")
        except (OutputError, WriteError) as error:
            if str(error) != self._last_problem:
                log.warning("%s", error)
            self._last_problem = str(error)

    def _send_heartbeats(self) -> None:
        while not self._ended.wait(_HEARTBEAT_S):
            self.heartbeat()

    def _write(self, state: RunState, error: str = "") -> bool:
        with self._writing:
            if self._ended.is_set() and state == "running":
                return True
            self._beats += 1
            record = replace(
                self._record, state=state, error=error, progress=self.progress, updated=timestamp(), beats=self._beats
            )
            if state in ("failed", "stopped") and not record.has_begun and record.before:
                record = record.before.followed_by(record)
            elif state != "running" or record.has_begun:
                record = replace(record, before=None)
            return self._store(record.to_json())

    def _store(self, content: bytes) -> bool:
        if not self.output.destination.compare_and_swap(RUN, self._content, content):
            # The content may be written, although the answer of the store was lost.
            stored = self.output.destination.read(RUN)
            if not _belongs_to(self.id, stored) or not self.output.destination.compare_and_swap(RUN, stored, content):
                return False
        self._content = content
        return True

    def _restore(self) -> None:
        with self._writing:
            if self._found is not None:
                self._store(self._found)
            elif self.output.fence.is_intact():
                self.output.destination.remove(RUN)

    def _wait_for_heartbeat(self, before: bytes | None, record: Record) -> bytes | None:
        log.info("%s: waiting for a heartbeat of the run that %s started", self._address, record.where)
        deadline = time.monotonic() + _DEAD_S
        while time.monotonic() < deadline:
            found = self.output.destination.read(RUN)
            if found != before:
                record_now = Record.parse(found)
                if record_now and record_now.is_open:
                    raise self._busy(record_now)
                return found
            time.sleep(1)
        log.warning(
            "%s: the run that %s started has failed (no heartbeat); this run continues its work",
            self._address,
            record.where,
        )
        return before

    @property
    def _address(self) -> str:
        return self.output.destination.address

    def _busy(self, record: Record | None) -> BusyError:
        writer = f"by a run of {record.where} since {record.started}" if record else "by another run"
        return BusyError(
            self._address, f"is being written {writer}", "Wait for it (s2cube status), or choose another --out"
        )


@contextmanager
def held(output: Output, ends_as: RunState | None = "done") -> Iterator[Lease]:
    """Hold the lease of an output during a block.

    Parameters
    ----------
    ends_as
        State at the end if no error is raised; None if this is not a run.

    Raises
    ------
    BusyError
        If another run writes to the output.
    OutputError
        If the output cannot be written.
    """
    lease = Lease(output)
    lease.acquire()
    try:
        yield lease
    except S2CubeError as error:
        lease.release(ends_as and "failed", str(error))
        raise
    except BaseException as error:
        state: RunState = "stopped" if isinstance(error, KeyboardInterrupt) else "failed"
        lease.release(ends_as and state, type(error).__name__)
        raise
    lease.release(ends_as)


def read_record(output: Output) -> Record | None:
    """Read the record of the last run in an output; None if there was no run.

    A record that cannot be read is ignored, with a warning. If the last run is dead and wrote no slice, the record of
    the previous run is returned.
    """
    record = _parsed(output, output.destination.read(RUN))
    if record and record.before and not record.is_alive:
        return record.before.followed_by(record)
    return record


def _parsed(output: Output, content: bytes | None) -> Record | None:
    record = Record.parse(content)
    if content is not None and record is None:
        log.warning("%s/%s cannot be read as the record of a run: it is ignored", output.destination.address, RUN)
    return record


def _belongs_to(run: str, content: bytes | None) -> bool:
    record = Record.parse(content)
    return record is not None and record.run == run
