"""Time ranges and solar days."""

import re
from calendar import isleap, monthrange
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Self, TypeAlias

if TYPE_CHECKING:
    import numpy as np

    Moment: TypeAlias = str | date | np.datetime64 | None
    TimesLike: TypeAlias = "TimeRange | Moment | Sequence[Moment]"

_INSTANT = re.compile(
    r"(?P<year>\d{4})(-(?P<month>\d\d)(-(?P<day>\d\d)([T ](?P<clock>\d\d:\d\d:\d\d(\.\d+)?)(Z|\+00:?00)?)?)?)?"
)

SUN_DEG_PER_HOUR = 15
"""Degrees of longitude per hour of solar time."""

_EARLIEST, _LATEST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
_LIKE = "write a date such as 2022-06-14 or 2022-06, or a pair of dates"


@dataclass(frozen=True)
class TimeRange:
    """A closed time range. None means that an end is open.

    Parameters
    ----------
    start, end
        Instants, UTC.
    starts_with_day, ends_with_day
        Whether this end is a date. A date means the complete solar day at the longitude of the search. `start` and
        `end` store it as a day in UTC.
    """

    start: datetime | None
    end: datetime | None
    starts_with_day: bool = False
    ends_with_day: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``A/B``, ``A``, ``A/..`` or ``../B``, each a year, month, day or second, in UTC.

        A year, month or day is a complete period: ``2024-01/2024-06`` includes 30 June.

        Raises
        ------
        ValueError
            If the text has another form, or if the range ends before it begins. If it is one second, because hardly any
            scene is of exactly this second.
        """
        first, slash, last = text.strip().partition("/")
        if not slash:
            last = first
            if (match := _INSTANT.fullmatch(first)) and match["clock"]:
                problem = f"'{text}' is one instant, at which there is hardly any scene; write the day, {first[:10]}"
                raise ValueError(f"{problem}, or a range, {first}/{first[:10]}T23:59:59Z")
        if first in ("", "..") and last in ("", ".."):
            raise ValueError(f"'{text}' has no beginning and no end")
        start = None if first in ("", "..") else _first_instant(first)
        end = None if last in ("", "..") else _last_instant(last)
        if start and end and start > end:
            raise ValueError(f"'{text}' ends before it begins: {first} is later than {last}")
        return cls(start, end, start is not None and _is_date(first), end is not None and _is_date(last))

    @classmethod
    def around(cls, ranges: Sequence[Self]) -> Self | None:
        """Return the shortest range that contains others; None if there are none."""
        if not ranges:
            return None
        starts, ends = [each.start for each in ranges], [each.end for each in ranges]
        known_starts, known_ends = [each for each in starts if each], [each for each in ends if each]
        return cls(
            min(known_starts) if len(known_starts) == len(starts) else None,
            max(known_ends) if len(known_ends) == len(ends) else None,
        )

    def at(self, lon: float) -> Self:
        """Return the range at a longitude, degrees east, where a date means the solar day."""
        # The solar day is the date of UTC + lon / 15 h.
        shift = timedelta(hours=-lon / SUN_DEG_PER_HOUR)
        start = _moved(self.start, shift) if self.start and self.starts_with_day else self.start
        end = _moved(self.end, shift) if self.end and self.ends_with_day else self.end
        return type(self)(start, end)

    def whole_days_at(self, lon: float) -> Self:
        """Extend the range to complete solar days at a longitude, degrees east."""
        exact = self.at(lon)
        start = exact.start and day_begin(exact.start, lon)
        end = exact.end and _moved(day_begin(exact.end, lon), timedelta(days=1, microseconds=-1))
        return type(self)(start, end)

    def holds(self, first: datetime | None, last: datetime | None) -> bool:
        """Check whether this range contains another range. An unknown end is ignored."""
        return all(each is None or each in self for each in (first, last))

    def meets(self, first: datetime | None, last: datetime | None) -> bool:
        """Check whether this range overlaps another range. An unknown end is an open end."""
        after = first is None or self.end is None or first <= self.end
        return after and (last is None or self.start is None or self.start <= last)

    def __contains__(self, instant: datetime) -> bool:
        return (self.start is None or self.start <= instant) and (self.end is None or instant <= self.end)

    def __str__(self) -> str:
        return f"{_formatted(self.start, self.starts_with_day)}/{_formatted(self.end, self.ends_with_day)}"


def solar_day(instant: datetime, lon: float) -> str:
    """Return the solar day at a longitude (degrees east) as YYYYMMDD: the date of UTC + longitude / 15 h."""
    return f"{instant + timedelta(hours=lon / SUN_DEG_PER_HOUR):%Y%m%d}"


def day_begin(instant: datetime, lon: float) -> datetime:
    """Return the beginning of the solar day that contains an instant, at a longitude in degrees east."""
    solar_time = _moved(instant, timedelta(hours=lon / SUN_DEG_PER_HOUR))
    midnight = solar_time.replace(hour=0, minute=0, second=0, microsecond=0)
    return _moved(midnight, timedelta(hours=-lon / SUN_DEG_PER_HOUR))


def parse_times(value: object) -> TimeRange | None:
    """Read a time range: a text, a date, a datetime (also of numpy and pandas), or a pair of them; None for all times.

    A date is the complete day. A datetime without a clock time (00:00:00) is also a day. Any other datetime is an
    instant, in UTC if it has no time zone. In a pair, None is an open end.

    Raises
    ------
    ValueError
        If the value is none of these, or is one instant.
    """
    if value is None or isinstance(value, TimeRange):
        return value
    if isinstance(value, list | tuple):
        if len(value) != 2:
            raise ValueError(f"has {len(value)} dates; {_LIKE}")
        if value[0] is value[1] is None:
            return None
        return TimeRange.parse("/".join(map(_text_of, value)))
    return TimeRange.parse(_text_of(value))


def _text_of(value: object) -> str:
    """Write one end of a range as text."""
    if value is None:
        return ".."
    if not isinstance(value, str | date) and hasattr(value, "dtype"):
        value = _without_numpy(value)
    if isinstance(value, str):
        return value.strip()
    if not isinstance(value, date) or value != value:
        raise ValueError(f"is not a time; {_LIKE}")
    if not isinstance(value, datetime) or value.time() == time.min:
        return value.isoformat()[:10]
    utc = value if value.tzinfo is None else value.astimezone(UTC)
    return f"{utc.replace(tzinfo=None).isoformat()}Z"


def _without_numpy(value: object) -> object:
    """Convert a datetime64 to a text (a year, month or day), or to a datetime. Return any other value unchanged."""
    import numpy as np

    if not isinstance(value, np.datetime64) or np.isnat(value):
        return value
    unit, _ = np.datetime_data(value.dtype)
    return str(value) if unit in ("Y", "M", "D") else value.astype("datetime64[us]").item()


def _moved(instant: datetime, by: timedelta) -> datetime:
    """Add a duration. The result does not leave the years 1 to 9999."""
    try:
        return instant + by
    except OverflowError:
        return _LATEST if by > timedelta(0) else _EARLIEST


def _is_date(text: str) -> bool:
    match = _INSTANT.fullmatch(text)
    return match is not None and match["clock"] is None


def _first_instant(text: str) -> datetime:
    match = _INSTANT.fullmatch(text)
    if not match:
        raise ValueError(f"'{text}' is not a date such as 2024, 2024-06, 2024-06-30 or 2024-06-30T12:00:00Z")
    day = f"{match['year']}-{match['month'] or '01'}-{match['day'] or '01'}"
    return datetime.fromisoformat(f"{day}T{match['clock'] or '00:00:00'}").replace(tzinfo=UTC)


def _last_instant(text: str) -> datetime:
    first = _first_instant(text)
    parts = text.count("-")
    if "T" in text or " " in text:
        return first
    # The length of the period is known before its end is computed, because there is no year 10000.
    if parts == 2:
        days = 1
    elif parts == 1:
        days = monthrange(first.year, first.month)[1]
    else:
        days = 365 + isleap(first.year)
    return first + timedelta(days=days, microseconds=-1)


def _formatted(instant: datetime | None, is_date: bool) -> str:
    """Format an instant as RFC 3339, or as a date."""
    if instant is None:
        return ".."
    return instant.date().isoformat() if is_date else instant.isoformat().replace("+00:00", "Z")


def timestamp(instant: datetime | None = None, timespec: str = "milliseconds") -> str:
    """Format an instant (default: now) as RFC 3339 in UTC. `timespec` is that of `datetime.isoformat`."""
    return (instant or datetime.now(UTC)).isoformat(timespec=timespec).replace("+00:00", "Z")
