"""The periods of composites: months, seasons, years, numbers of days."""

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Self

from s2cube.config.times import TimeRange, solar_day
from s2cube.errors import ConfigError

_DAYS = re.compile(r"P(\d{1,4})D")
_SEASONS = {12: "DJF", 3: "MAM", 6: "JJA", 9: "SON"}
"""Names of the seasons by their first month: the meteorological seasons."""


@dataclass(frozen=True)
class DayRange:
    """A range of solar days. None means that an end is open.

    Parameters
    ----------
    first, last
        The first and the last day, both inside.
    """

    first: date | None = None
    last: date | None = None

    @classmethod
    def of(cls, times: TimeRange | None, lon: float) -> Self:
        """Return the solar days of a time range at a longitude, degrees east."""
        if times is None:
            return cls()
        return cls(
            times.start and _day(times.start, times.starts_with_day, lon),
            times.end and _day(times.end, times.ends_with_day, lon),
        )

    def __contains__(self, day: date) -> bool:
        return (self.first is None or self.first <= day) and (self.last is None or day <= self.last)


@dataclass(frozen=True)
class Period:
    """One period of composites.

    Parameters
    ----------
    name
        Part of the names of files: ``202406``, ``2024JJA``, ``2024``, ``20240601`` or ``20240101-20241231``.
    begin, end
        The first and the last solar day of the period that are inside the range of the job.
    is_cut
        Whether the range leaves out days of the period.
    """

    name: str
    begin: date
    end: date
    is_cut: bool = False


@dataclass(frozen=True)
class Periods:
    """The periods of a range of days.

    Parameters
    ----------
    kind
        ``month``, ``season``, ``year``, ``all``, or ``P<N>D``: N days, counted from the first day of the range.
    within
        The range. ``P<N>D`` and ``all`` need both ends.
    """

    kind: str
    within: DayRange = DayRange()

    def __post_init__(self) -> None:
        days = _DAYS.fullmatch(self.kind)
        if self.kind not in ("month", "season", "year", "all") and not (days and int(days[1])):
            problem = f"{self.kind!r} is not a period"
            raise ConfigError("period", problem, "Choose month, season, year, all or a number of days, such as P10D")
        first, last = self.within.first, self.within.last
        if (days or self.kind == "all") and (first is None or last is None):
            lacks = "neither a beginning nor an end" if first is last else "no beginning" if first is None else "no end"
            problem = f"{self.kind!r} is a part of the range of dates, and this range has {lacks}"
            raise ConfigError("period", problem, "Give a range with both ends, for example 2024-01/2024-06")
        if first and last and last < first:
            raise ConfigError("period", f"the range ends on {last}, before {first}", "Exchange the dates")

    def of(self, day: date) -> Period | None:
        """Return the period of a solar day; None if the day is outside the range.

        Examples
        --------
        >>> Periods("season").of(date(2023, 12, 31))
        Period(name='2024DJF', begin=datetime.date(2023, 12, 1), end=datetime.date(2024, 2, 29), is_cut=False)
        """
        if day not in self.within:
            return None
        name, begin, end = self._whole(day)
        inside = max(begin, self.within.first or begin), min(end, self.within.last or end)
        return Period(name, *inside, inside != (begin, end))

    def _whole(self, day: date) -> tuple[str, date, date]:
        """Return the name, the first and the last day of the period of a day, also if days are outside the range."""
        if self.kind == "month":
            return _digits(day)[:6], day.replace(day=1), _last_of_month(day)
        if self.kind == "season":
            return _season(day)
        if self.kind == "year":
            return _digits(day)[:4], date(day.year, 1, 1), date(day.year, 12, 31)
        first, last = self.within.first, self.within.last
        assert first is not None
        assert last is not None
        if self.kind == "all":
            return f"{_digits(first)}-{_digits(last)}", first, last
        length = int(self.kind[1:-1])
        begin = day - timedelta(days=(day - first).days % length)
        return _digits(begin), begin, _later(begin, length - 1)


def check_period(kind: str) -> str:
    """Check that a text names a kind of periods.

    Raises
    ------
    ValueError
        If it does not. The second argument is the remedy.
    """
    try:
        Periods(kind, DayRange(date.min, date.min))
    except ConfigError as error:
        raise ValueError(error.problem, error.remedy) from None
    return kind


def _day(instant: datetime, is_date: bool, lon: float) -> date:
    return instant.date() if is_date else date.fromisoformat(solar_day(instant, lon))


def _digits(day: date) -> str:
    return day.isoformat().replace("-", "")


def _season(day: date) -> tuple[str, date, date]:
    # December belongs to the season of the next January.
    month = day.month // 3 * 3 or 12
    year = day.year - (month == 12 and day.month != 12)
    named = year + (month == 12)
    begin = date(year, month, 1) if year else date.min
    end = _last_of_month(date(named, (month + 2) % 12 or 12, 1)) if named <= date.max.year else date.max
    return f"{named:04d}{_SEASONS[month]}", begin, end


def _last_of_month(day: date) -> date:
    return day.replace(day=monthrange(day.year, day.month)[1])


def _later(day: date, days: int) -> date:
    return day + timedelta(days=min(days, (date.max - day).days))
