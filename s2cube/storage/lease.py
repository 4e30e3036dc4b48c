"""An output is written by one run at a time; the record of that run says how it goes."""

import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from uuid import uuid4

from s2cube.errors import BusyError, OutputError, S2CubeError, WriteError
from s2cube.storage.output import RUN, Output
from s2cube.storage.progress import Progress
from s2cube.storage.record import DEAD_S, Record, State, machine, now

log = logging.getLogger(__name__)

_BEAT_S = 3
"""So often a run says that it lives."""

_DEAD_S = DEAD_S
"""Seconds that a run waits for a sign of life of the run before it."""


class Lease:
    """The right to write to an output, kept by saying every few seconds that this run lives.

    Parameters
    ----------
    progress
        Set it: it is told with the next beat, or by `tell`.
    follows_an_end
        Whether the run before came to its end.
    """

    def __init__(self, output: Output) -> None:
        self.id = uuid4().hex[:12]
        self.output = output.of(self.id)
        self.progress = Progress()
        self.follows_an_end = False
        where, began = f"{socket.gethostname()}:{os.getpid()}", now()
        self._record = Record(self.id, "running", where, machine(), os.getpid(), began, began)
        self._beats = 0
        self._content: bytes | None = None
        self._found: bytes | None = None
        self._told = ""
        self._ended = threading.Event()
        self._writing = threading.Lock()

    def take(self) -> None:
        """Take the output, from a run that has ended or died.

        Raises
        ------
        BusyError
            If another run writes there.
        OutputError
            If it cannot be written.
        """
        self.output.place.prepare()
        found = self.output.place.read(RUN)
        record = _parsed(self.output, found)
        if record and record.is_open and not record.is_dead:
            found = self._wait_for_a_sign(found, record)
            record = Record.parse(found)
        self._content = self._found = found
        # Until this run has made something, the run before it stays the last one that did.
        last = record and (record if record.has_begun else record.before)
        self._record = replace(self._record, before=last and replace(last, before=None))
        self.follows_an_end = last is not None and last.state == "done"
        try:
            taken = self._write("running")
        except WriteError as error:
            raise OutputError(error.subject, error.problem, "Choose another --out") from None
        if not taken:
            raise self._busy(Record.parse(self.output.place.read(RUN)))
        self.output.place.sweep()
        threading.Thread(target=self._keep, name="s2cube-lease", daemon=True).start()

    def give_back(self, state: State | None, error: str = "") -> None:
        """Say how the run ended; from now on another run may write there.

        A run that failed or was stopped before it made anything restores the record of the run before it, and adds a
        line about itself.

        Parameters
        ----------
        state
            None for what is not a run: the record stays as it was.
        """
        self._ended.set()
        try:
            if self.output.is_reached():
                # Who has lost it must leave alone what another is writing.
                self.output.place.sweep()
            if state is None:
                self._restore()
            else:
                self._write(state, error)
        except (OutputError, WriteError) as problem:
            if str(problem) not in (error, self._told):
                log.warning("%s", problem)

    def tell(self) -> None:
        """Say that the run lives, and how it goes."""
        try:
            # Who has lost it sees that when it next writes a slice.
            self._write("running")
        except (OutputError, WriteError) as error:
            if str(error) != self._told:
                log.warning("%s", error)
            self._told = str(error)

    def _keep(self) -> None:
        while not self._ended.wait(_BEAT_S):
            self.tell()

    def _write(self, state: State, error: str = "") -> bool:
        with self._writing:
            if self._ended.is_set() and state == "running":
                return True
            self._beats += 1
            record = replace(
                self._record, state=state, error=error, progress=self.progress, updated=now(), beats=self._beats
            )
            if state in ("failed", "stopped") and not record.has_begun and record.before:
                record = record.before.followed_by(record)
            elif state != "running" or record.has_begun:
                record = replace(record, before=None)
            return self._store(record.written())

    def _store(self, content: bytes) -> bool:
        if not self.output.place.swap(RUN, self._content, content):
            # What was written may be there though the answer was lost.
            there = self.output.place.read(RUN)
            if not _is_of(self.id, there) or not self.output.place.swap(RUN, there, content):
                return False
        self._content = content
        return True

    def _restore(self) -> None:
        with self._writing:
            if self._found is not None:
                self._store(self._found)
            elif self.output.is_reached():
                self.output.place.remove(RUN)

    def _wait_for_a_sign(self, before: bytes | None, record: Record) -> bytes | None:
        log.info("%s: waiting to see whether the run that %s began there still lives", self._address, record.where)
        deadline = time.monotonic() + _DEAD_S
        while time.monotonic() < deadline:
            found = self.output.place.read(RUN)
            if found != before:
                record_now = Record.parse(found)
                if record_now and record_now.is_open:
                    raise self._busy(record_now)
                return found
            time.sleep(1)
        log.warning("%s: the run that %s began there is dead; this one goes on from there", self._address, record.where)
        return before

    @property
    def _address(self) -> str:
        return self.output.place.address

    def _busy(self, record: Record | None) -> BusyError:
        who = f"by a run of {record.where} since {record.started}" if record else "by another run"
        return BusyError(
            self._address, f"is being written {who}", "Wait for it (s2cube status), or choose another --out"
        )


@contextmanager
def held(output: Output, ends_as: State | None = "done") -> Iterator[Lease]:
    """Hold an output for a while.

    Parameters
    ----------
    ends_as
        State at the end if nothing is raised; None for what is not a run.

    Raises
    ------
    BusyError
        If another run writes there.
    OutputError
        If it cannot be written.
    """
    lease = Lease(output)
    lease.take()
    try:
        yield lease
    except S2CubeError as error:
        lease.give_back(ends_as and "failed", str(error))
        raise
    except BaseException as error:
        how: State = "stopped" if isinstance(error, KeyboardInterrupt) else "failed"
        lease.give_back(ends_as and how, type(error).__name__)
        raise
    lease.give_back(ends_as)


def read_record(output: Output) -> Record | None:
    """Read the record of the last run in an output; None if there was no run.

    A record that cannot be read counts as none, with a warning. A run that died before it made anything does not hide
    the run before it.
    """
    record = _parsed(output, output.place.read(RUN))
    if record and record.before and not record.is_alive:
        return record.before.followed_by(record)
    return record


def _parsed(output: Output, content: bytes | None) -> Record | None:
    record = Record.parse(content)
    if content is not None and record is None:
        log.warning("%s/%s cannot be read as the record of a run: it is ignored", output.place.address, RUN)
    return record


def _is_of(run: str, content: bytes | None) -> bool:
    record = Record.parse(content)
    return record is not None and record.run == run
