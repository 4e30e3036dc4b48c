"""An output is written by one run at a time; the record of that run says how it goes."""

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from uuid import uuid4

from s2cube.errors import BusyError, OutputError, S2CubeError, WriteError
from s2cube.outcome import Progress
from s2cube.output import RUN, Output

log = logging.getLogger(__name__)

State = Literal["submitted", "running", "done", "failed", "stopped"]

_BEAT_S = 3
"""So often a run says that it lives."""

_DEAD_S = 30
"""Who has said nothing for so long is dead; ten beats, so that a slow store kills nobody."""


_BEGIN_S = 3600
"""What was handed over and has not begun after so long is taken for lost by who asks how it goes."""


@dataclass(frozen=True)
class Record:
    """What a run says of itself.

    Parameters
    ----------
    run
        Id, a new one for each run.
    where
        Host and process that look after it.
    machine
        Tells whether `pid` is a process of this machine, as it runs now.
    started, updated
        RFC 3339, UTC.
    beats
        Grows as long as it lives.
    error
        Why it failed.
    """

    run: str
    state: State
    where: str
    machine: str
    pid: int
    started: str
    updated: str
    beats: int = 0
    progress: Progress = field(default_factory=Progress)
    error: str = ""

    @classmethod
    def parse(cls, content: bytes | None) -> "Record | None":
        """Read a record; None where there is none, or one of another kind."""
        try:
            facts = json.loads(content or b"")
            return cls(**facts | {"progress": Progress(**facts["progress"])})
        except (ValueError, TypeError, KeyError):
            return None

    @property
    def is_alive(self) -> bool:
        """Whether it goes on, as far as that is to be seen from here."""
        if self.state == "submitted":
            return self._silent_s <= _BEGIN_S
        return self.is_open and not self.is_dead and self._silent_s <= _DEAD_S

    @property
    def _silent_s(self) -> float:
        return (datetime.now(UTC) - datetime.fromisoformat(self.updated)).total_seconds()

    @property
    def is_open(self) -> bool:
        """Whether it has not ended, as far as it says itself."""
        return self.state == "running"

    @property
    def told(self) -> str:
        """The state, as far as it is to be believed, in words."""
        if self.is_open and not self.is_alive:
            return f"dead (no sign of life for {self._silent_s:.0f} s; run again to go on)"
        return f"{self.state} ({self.error})" if self.error else self.state

    @property
    def pace(self) -> float:
        """Slices a second, of those that this run made itself; 0 as long as there is none."""
        if not self.progress.began or not self.progress.over:
            return 0
        began, now = (datetime.fromisoformat(each) for each in (self.progress.began, self.updated))
        return self.progress.over / max((now - began).total_seconds(), 0.001)

    @property
    def is_dead(self) -> bool:
        """Whether it was a process of this machine that is gone."""
        if self.machine != _machine():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False  # it is another user's, and lives
        return False


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
        self._facts = {"run": self.id, "where": f"{socket.gethostname()}:{os.getpid()}", "machine": _machine()}
        self._started = now()
        self._beats = 0
        self._content: bytes | None = None
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
        before = self.output.place.read(RUN)
        record = Record.parse(before)
        if record and record.is_open and not record.is_dead:
            before = self._wait_for_a_sign(before, record)
        self._content = before
        self.follows_an_end = record is not None and record.state == "done"
        try:
            taken = self._write("running")
        except WriteError as error:
            raise OutputError(error.subject, error.problem, "Choose another --out") from None
        if not taken:
            raise self._busy(Record.parse(self.output.place.read(RUN)))
        self.output.place.sweep()
        threading.Thread(target=self._keep, name="s2cube-lease", daemon=True).start()

    def give_back(self, state: State, error: str = "") -> None:
        """Say how the run ended; another may write there then."""
        self._ended.set()
        try:
            if self.output.is_reached():
                # Who has lost it must leave alone what another is writing.
                self.output.place.sweep()
            self._write(state, error)
        except WriteError as problem:
            log.warning("%s", problem)

    def tell(self) -> None:
        """Say that the run lives, and how it goes."""
        try:
            # Who has lost it sees that when it next writes a slice.
            self._write("running")
        except WriteError as error:
            log.warning("%s", error)

    def _keep(self) -> None:
        while not self._ended.wait(_BEAT_S):
            self.tell()

    def _write(self, state: State, error: str = "") -> bool:
        with self._writing:
            if self._ended.is_set() and state == "running":
                return True
            self._beats += 1
            record = {**self._facts, "state": state, "pid": os.getpid(), "started": self._started, "updated": now()}
            record |= {"beats": self._beats, "progress": asdict(self.progress), "error": error}
            content = json.dumps(record, indent=2, ensure_ascii=False).encode()
            if not self.output.place.swap(RUN, self._content, content):
                # What was written may be there though the answer was lost.
                there = self.output.place.read(RUN)
                if not _is_of(self.id, there) or not self.output.place.swap(RUN, there, content):
                    return False
            self._content = content
            return True

    def _wait_for_a_sign(self, before: bytes | None, record: Record) -> bytes | None:
        log.info("%s: waiting to see whether the run that %s began there still lives", self._address, record.where)
        deadline = time.monotonic() + _DEAD_S
        while time.monotonic() < deadline:
            now = self.output.place.read(RUN)
            if now != before:
                record_now = Record.parse(now)
                if record_now and record_now.is_open:
                    raise self._busy(record_now)
                return now
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
def held(output: Output, ends_as: State = "done") -> Iterator[Lease]:
    """Hold an output for a while.

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
        lease.give_back("failed", str(error))
        raise
    except BaseException as error:
        lease.give_back("stopped" if isinstance(error, KeyboardInterrupt) else "failed", type(error).__name__)
        raise
    lease.give_back(ends_as)


def read_record(output: Output) -> Record | None:
    """Read what the last run in an output says of itself; None where there was none."""
    return Record.parse(output.place.read(RUN))


def _is_of(run: str, content: bytes | None) -> bool:
    record = Record.parse(content)
    return record is not None and record.run == run


def now() -> str:
    """Give this moment, RFC 3339, UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _machine() -> str:
    """Name this machine as it runs now, and the processes it sees; a name for nothing where that is not told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}-{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return uuid4().hex
