"""What a run reports of itself, in a file of the output that it writes to."""

import json
import os
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, Self
from uuid import uuid4

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from s2cube.storage.progress import Progress

State = Literal["submitted", "running", "done", "failed", "stopped"]

DEAD_S = 30
"""Who has said nothing for so long is dead; ten beats, so that a slow store kills nobody."""

_BEGIN_S = 3600
"""What was handed over and has not begun after so long is taken for lost by who asks how it goes."""

_MOST = 10**9
"""No run has more slices, or takes more seconds."""


def now() -> str:
    """Give this moment, RFC 3339, UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def machine() -> str:
    """Name this machine as it runs now, and the processes it sees; a name for nothing where that is not told."""
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
    if progress.began:
        _check_instant(progress.began)
    return progress


Instant = Annotated[str, AfterValidator(_check_instant)]
"""RFC 3339, with a time zone."""

_Progress = Annotated[Progress, AfterValidator(_check_counts)]


@dataclass(frozen=True)
class Attempt:
    """A run that ended before it made anything.

    Parameters
    ----------
    where
        Host and process that supervised it.
    started
        RFC 3339, UTC.
    ended
        How it ended, in words.
    """

    where: str
    started: str
    ended: str


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
    attempt
        The last later run, if it ended before it made anything.
    before
        Until this run begins to make slices: the record of the last run that did.
    """

    run: str
    state: State
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
        """Read a record; None where there is none, or one of another kind."""
        try:
            return _RECORD.validate_json(content or b"", strict=True)
        except ValidationError:
            return None

    def written(self) -> bytes:
        """Write the record."""
        facts = {key: value for key, value in asdict(self).items() if value is not None}
        # A lone surrogate, which the text of an error may hold, would make the record unreadable.
        return json.dumps(facts, indent=2, ensure_ascii=False).encode(errors="replace")

    @property
    def is_alive(self) -> bool:
        """Whether it goes on, as far as that is to be seen from here."""
        if self.state == "submitted":
            return self._silent_s <= _BEGIN_S
        return self.is_open and not self.is_dead and self._silent_s <= DEAD_S

    @property
    def _silent_s(self) -> float:
        return (datetime.now(UTC) - datetime.fromisoformat(self.updated)).total_seconds()

    @property
    def is_open(self) -> bool:
        """Whether it has not ended, as far as it says itself."""
        return self.state == "running"

    @property
    def has_begun(self) -> bool:
        """Whether it has begun to make slices."""
        return bool(self.progress.began)

    @property
    def told(self) -> str:
        """The state, as far as it is to be believed, in words."""
        if self.is_open and not self.is_alive:
            return f"dead (no sign of life for {self._silent_s:.0f} s; run again to go on)"
        if self.is_open and not self.has_begun:
            return "running (no slice has begun yet)"
        if self.state == "done" and self.progress.failed:
            return "ended with failures"
        return f"{self.state} ({self.error})" if self.error else self.state

    @property
    def pace(self) -> float:
        """Slices a second, of those that this run made itself; 0 as long as there is none."""
        if not self.has_begun or not self.progress.over:
            return 0
        began, now = (datetime.fromisoformat(each) for each in (self.progress.began, self.updated))
        return self.progress.over / max((now - began).total_seconds(), 0.001)

    @property
    def left_s(self) -> float | None:
        """Seconds left at this pace; None if there is no pace yet."""
        return min(max(self.progress.left, 0) / self.pace, _MOST) if self.pace else None

    @property
    def is_dead(self) -> bool:
        """Whether it was a process of this machine that is gone."""
        if self.machine != machine():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False  # it is another user's, and lives
        return False

    def followed_by(self, other: Self) -> "Record":
        """Give the record of a run, followed by one that ended before it made anything."""
        ended = replace(self, state="failed", error=f"no sign of life since {self.updated}") if self.is_open else self
        return replace(ended, attempt=Attempt(other.where, other.started, other.told), before=None)


_RECORD = TypeAdapter(Record)
