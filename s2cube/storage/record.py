"""The record of a run: a file in the output. Other processes read its state, and which run holds the lease."""

import json
import os
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, Self
from uuid import uuid4

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from s2cube.errors import BusyError, WriteError
from s2cube.storage.destination import Destination
from s2cube.storage.layout import RUN

RunState = Literal["submitted", "running", "done", "failed", "stopped"]

Unit = Literal["slices", "rows"]
"""What a run computes: images of time slices, or rows of the table of statistics."""

DEAD_S = 30
"""A run without a heartbeat for this time (ten intervals, because a store may be slow) is considered dead."""

_SUBMITTED_S = 3600
"""A submitted run that has not begun after this time is considered lost."""

_MOST = 10**9
"""Limit for numbers of slices, and for seconds."""

_MOST_BYTES = 10**18


@dataclass(frozen=True)
class Progress:
    """The progress of a run: numbers of time slices, or of rows of statistics.

    Parameters
    ----------
    total
        Slices to compute. `written`, `failed`, `rejected` and `running` are parts of this number.
    skipped
        Slices that existed before the run. They are not part of the total.
    began
        Time at which the first slice was submitted, RFC 3339, UTC; empty before that.
    unit
        What the numbers count.
    requests, bytes
        Requests and bytes of reading. They are known at the end of the run.
    expected_requests, expected_bytes
        What was predicted before the run; 0 if nothing was.
    """

    total: int = 0
    written: int = 0
    failed: int = 0
    rejected: int = 0
    running: int = 0
    skipped: int = 0
    began: str = ""
    unit: Unit = "slices"
    requests: int = 0
    bytes: int = 0
    expected_requests: int = 0
    expected_bytes: int = 0

    @property
    def over(self) -> int:
        """Slices that are written, failed or rejected."""
        return self.written + self.failed + self.rejected

    @property
    def left(self) -> int:
        """Slices that are not yet written, failed or rejected."""
        return self.total - self.over


def machine_id() -> str:
    """Return an id of this boot of this machine, and of its process namespace; a random id if they are unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}-{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return uuid4().hex


def _check_instant(text: str) -> str:
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None or not 1970 <= instant.year < 9000:
        raise ValueError("is not a possible time of a run")
    return text


def _check_counts(progress: Progress) -> Progress:
    counts = (progress.total, progress.written, progress.failed, progress.rejected, progress.running, progress.skipped)
    if not all(0 <= count <= _MOST for count in counts):
        raise ValueError("has a count of slices that is negative or too large")
    traffic = (progress.requests, progress.bytes, progress.expected_requests, progress.expected_bytes)
    if not all(0 <= each <= _MOST_BYTES for each in traffic):
        raise ValueError("has a number of requests or bytes that is negative or too large")
    if progress.began:
        _check_instant(progress.began)
    return progress


Instant = Annotated[str, AfterValidator(_check_instant)]
"""RFC 3339, with a time zone."""

_Progress = Annotated[Progress, AfterValidator(_check_counts)]


@dataclass(frozen=True)
class Attempt:
    """A run that ended before it wrote a slice.

    Parameters
    ----------
    where
        Host and process that supervised it.
    started
        RFC 3339, UTC.
    ended
        Description of the end of the run.
    """

    where: str
    started: Instant
    ended: str


@dataclass(frozen=True)
class Record:
    """The record of a run.

    Parameters
    ----------
    run
        Id, a new one for each run.
    where
        Host and process that supervise it.
    machine
        See `machine_id`. It shows whether `pid` is a process of this machine.
    started, updated
        RFC 3339, UTC.
    beats
        Number of heartbeats. It grows while the run is active.
    error
        Cause of the failure.
    attempt
        The last run after this one, if that run ended before it wrote a slice.
    before
        The record of the last run that began a slice. None as soon as this run begins one.
    """

    run: str
    state: RunState
    where: str
    machine: str
    pid: Annotated[int, Field(gt=0, lt=1 << 31)]
    started: Instant
    updated: Instant
    beats: int = 0
    progress: _Progress = field(default_factory=Progress)
    error: str = ""
    attempt: Attempt | None = None
    before: "Record | None" = None

    @classmethod
    def parse(cls, content: bytes | None) -> "Record | None":
        """Read a record; None if there is no record, or if it is invalid."""
        try:
            return _RECORD.validate_json(content or b"", strict=True)
        except ValidationError:
            return None

    def to_json(self) -> bytes:
        """Return the content of the file."""
        facts = {key: value for key, value in asdict(self).items() if value is not None}
        # The text of an error may contain a lone surrogate, which would make the record unreadable.
        return json.dumps(facts, indent=2, ensure_ascii=False).encode(errors="replace")

    @property
    def is_alive(self) -> bool:
        """Whether the run is active, as far as this process can see."""
        if self.state == "submitted":
            return self._silence_s <= _SUBMITTED_S
        return self.is_open and not self.is_dead and self._silence_s <= DEAD_S

    @property
    def _silence_s(self) -> float:
        return (datetime.now(UTC) - datetime.fromisoformat(self.updated)).total_seconds()

    @property
    def is_open(self) -> bool:
        """Whether the record says that the run has not ended."""
        return self.state == "running"

    @property
    def has_begun(self) -> bool:
        """Whether the run has begun a slice."""
        return bool(self.progress.began)

    @property
    def description(self) -> str:
        """The state, a `RunState`, with its reason. A run may have failed although its record says ``running``."""
        if self.is_open and not self.is_alive:
            return f"failed (no heartbeat for {self._silence_s:.0f} s; run again to continue)"
        if self.is_open and not self.has_begun:
            return f"running (no {self.progress.unit[:-1]} has begun yet)"
        if self.state == "stopped":
            return "stopped (run again to continue)"
        return f"{self.state} ({self.error})" if self.error else self.state

    @property
    def pace(self) -> float:
        """Slices per second of this run; 0 before the first slice."""
        if not self.has_begun or not self.progress.over:
            return 0
        began, updated = (datetime.fromisoformat(each) for each in (self.progress.began, self.updated))
        return self.progress.over / max((updated - began).total_seconds(), 0.001)

    @property
    def left_s(self) -> float | None:
        """Seconds until the end at this pace; None before the first slice."""
        return min(max(self.progress.left, 0) / self.pace, _MOST) if self.pace else None

    @property
    def is_dead(self) -> bool:
        """Whether the run was a process of this machine, and this process has ended."""
        if self.machine != machine_id():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False  # a living process of another user
        return False

    def followed_by(self, other: Self) -> "Record":
        """Return this record with a note about a later run that ended before it wrote a slice."""
        ended = replace(self, state="failed", error=f"no heartbeat since {self.updated}") if self.is_open else self
        return replace(ended, attempt=Attempt(other.where, other.started, other.description), before=None)


_RECORD = TypeAdapter(Record)


@dataclass(frozen=True)
class Fence:
    """The check that a run still holds the lease of its output. It is sent to workers with the output.

    Parameters
    ----------
    run
        Id of the run. Empty if no run holds the lease: nothing is checked.
    """

    destination: Destination
    run: str

    def check(self) -> None:
        """Check that the run still holds the lease.

        Raises
        ------
        BusyError
            If another run holds the lease.
        WriteError
            If the output or the record of the run was deleted.
        """
        if not self.run:
            return
        record, address = self.destination.read(RUN), self.destination.address
        if record is None:
            self.destination.check_writable()  # raises another error if the folder is missing
            problem = "was deleted or emptied during the run: the record of the run is missing"
            raise WriteError(address, problem, "Check what happened to it, then run again")
        if _run_of(record) != self.run:
            raise BusyError(address, "is written by another run now", "Wait for it, then run again")

    def is_intact(self) -> bool:
        """Return whether this process finds the record of the run in the output. If so, it is the same output."""
        return _run_of(self.destination.read(RUN) or b"") == self.run


def _run_of(record: bytes) -> str | None:
    """Return the id of the run in a record, which may be of another version; None if it cannot be read."""
    try:
        return str(json.loads(record)["run"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
