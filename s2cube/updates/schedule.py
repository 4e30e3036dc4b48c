"""When the passes of `s2cube sync` begin."""

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

from s2cube.config.sync import SyncSection

_DAYS = range(-1, 3)
"""Days around today, whose times are compared. A clock change moves a time by at most a day."""

CORRECTION = timedelta(minutes=1)
"""A clock that goes back by less was corrected: the same time of day does not come twice."""


@dataclass(frozen=True)
class Schedule:
    """Times of passes: one after each period, or one each day.

    Parameters
    ----------
    every
        Time between the beginnings of two passes. A pass that takes longer leaves out the passes that it delays.
    at
        Time of day by the clock of this machine. A time that a clock change leaves out moves by this change. A time
        that occurs twice is the first of the two.

    Examples
    --------
    >>> from datetime import UTC, datetime, timedelta
    >>> began, ended = datetime(2024, 6, 1, 6, tzinfo=UTC), datetime(2024, 6, 1, 14, tzinfo=UTC)
    >>> Schedule(every=timedelta(hours=6)).after(began, ended).isoformat()
    '2024-06-01T18:00:00+00:00'
    """

    every: timedelta | None = None
    at: time | None = None

    @classmethod
    def of(cls, config: SyncSection) -> "Schedule | None":
        """Return the schedule of the settings; None for one pass."""
        if config.once or not (config.every or config.at):
            return None
        return cls(config.every, config.at)

    @property
    def begins_now(self) -> bool:
        """Whether the first pass begins at once."""
        return self.at is None

    def after(self, last: datetime, now: datetime) -> datetime:
        """Return the time of the next pass, UTC.

        Parameters
        ----------
        last
            Time at which the last pass should have begun, UTC. If it is in the future, the clock was changed.
        now
            Present time, UTC.
        """
        if self.at is not None:
            return self._next_daily(last if now < last < now + CORRECTION else now)
        every = self.every or timedelta(days=1)
        begin = min(last, now)
        return begin + ((now - begin) // every + 1) * every

    def _next_daily(self, now: datetime) -> datetime:
        today = now.astimezone().date()
        times = (_first_instant(datetime.combine(today + timedelta(days), self.at or time())) for days in _DAYS)
        return min(each for each in times if each > now)


def _first_instant(local: datetime) -> datetime:
    """Return the first instant at which the clock of this machine shows a time; in a gap, the time moves by the gap."""
    # A datetime without a time zone is local time.
    first, second = (local.replace(fold=fold).astimezone() for fold in (0, 1))
    is_in_gap = first.replace(tzinfo=None, fold=0) != local
    return (max(first, second) if is_in_gap else first).astimezone(UTC)
