"""The dates that a pass searches."""

from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta

from s2cube.config.periods import DayRange, Periods
from s2cube.config.times import TimeRange

_DAY = timedelta(days=1)


def after(times: TimeRange | None, earliest: datetime) -> TimeRange | None:
    """Return the part of a range of dates that begins with the day of an instant. None: nothing is left.

    Days are complete: a slice must have all its scenes.
    """
    return _within(times, earliest.date(), None)


def periods_around(times: TimeRange | None, kind: str, acquired: Iterable[datetime]) -> TimeRange | None:
    """Return the shortest range of dates with all periods of composites that may contain scenes. None: there are none.

    Parameters
    ----------
    kind
        See `Periods`.
    """
    # The solar day of a scene may be the day before or after the day in UTC.
    periods = Periods(kind, DayRange.of(times, 0))
    days = {(each + shift).date() for each in acquired for shift in (-_DAY, timedelta(0), _DAY)}
    found = [period for day in days if (period := periods.of(day))]
    return _within(times, min(each.begin for each in found), max(each.end for each in found)) if found else None


def _within(times: TimeRange | None, first: date, last: date | None) -> TimeRange | None:
    """Return the part of a range from a first to a last day."""
    times = times or TimeRange(None, None)
    start = datetime.combine(first, time.min, UTC)
    end = None if last is None else datetime.combine(last, time.max, UTC)
    is_later = times.start is None or start > times.start
    is_earlier = end is not None and (times.end is None or end < times.end)
    found = TimeRange(
        start if is_later else times.start,
        end if is_earlier else times.end,
        is_later or times.starts_with_day,
        is_earlier or times.ends_with_day,
    )
    is_empty = found.start is not None and found.end is not None and found.start > found.end
    return None if is_empty else found
