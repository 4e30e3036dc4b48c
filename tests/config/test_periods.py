"""Periods of composites, and their methods: names, ends, cuts and errors."""

import pickle
from calendar import isleap
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2cube.config.composites import Method
from s2cube.config.periods import DayRange, Period, Periods
from s2cube.config.times import TimeRange
from s2cube.errors import ConfigError

YEAR = DayRange(date(2024, 1, 1), date(2024, 12, 31))
DAYS = st.dates(date(1990, 1, 1), date(2060, 12, 31))
KINDS = st.sampled_from(["month", "season", "year", "all", "P1D", "P10D", "P37D", "P400D"])


def every_period(kind: str, within: DayRange) -> list[Period]:
    """Return the periods of all days of a range that has both ends."""
    assert within.first
    assert within.last
    length = (within.last - within.first).days + 1
    days = (within.first + timedelta(days=number) for number in range(length))
    return list(dict.fromkeys(found for day in days if (found := Periods(kind, within).of(day))))


def names(kind: str, within: DayRange = YEAR) -> list[str]:
    return [each.name for each in every_period(kind, within)]


def test_names() -> None:
    assert names("month") == [f"2024{month:02d}" for month in range(1, 13)]
    assert names("season") == ["2024DJF", "2024MAM", "2024JJA", "2024SON", "2025DJF"]
    assert names("year") == ["2024"]
    assert names("all") == ["20240101-20241231"]
    assert names("P10D")[:4] == ["20240101", "20240111", "20240121", "20240131"]


def test_the_winter_belongs_to_the_year_of_its_january() -> None:
    of = Periods("season").of
    winter = Period("2024DJF", date(2023, 12, 1), date(2024, 2, 29))
    assert of(date(2023, 12, 1)) == of(date(2024, 1, 31)) == of(date(2024, 2, 29)) == winter
    assert of(date(2023, 11, 30)) == Period("2023SON", date(2023, 9, 1), date(2023, 11, 30))
    assert of(date(2025, 2, 28)) == Period("2025DJF", date(2024, 12, 1), date(2025, 2, 28))


def test_days_are_counted_from_the_first_day_also_over_leap_days() -> None:
    within = DayRange(date(2024, 2, 25), date(2024, 3, 12))
    assert every_period("P7D", within) == [
        Period("20240225", date(2024, 2, 25), date(2024, 3, 2)),
        Period("20240303", date(2024, 3, 3), date(2024, 3, 9)),
        Period("20240310", date(2024, 3, 10), date(2024, 3, 12), is_cut=True),
    ]


def test_a_range_cuts_the_periods_at_its_ends() -> None:
    within = DayRange(date(2024, 1, 10), date(2024, 3, 31))
    first, second, third = every_period("month", within)
    assert first == Period("202401", date(2024, 1, 10), date(2024, 1, 31), is_cut=True)
    assert not second.is_cut
    assert not third.is_cut
    assert Periods("month", within).of(date(2024, 1, 9)) is None
    assert Periods("year", DayRange(date(2024, 1, 10), None)).of(date(2025, 6, 1)) == Period(
        "2025", date(2025, 1, 1), date(2025, 12, 31)
    )


@given(KINDS, DAYS, st.integers(0, 1500))
def test_periods_fill_the_range_without_gaps(kind: str, first: date, length: int) -> None:
    within = DayRange(first, first + timedelta(days=length))
    every = every_period(kind, within)
    assert every[0].begin == within.first
    assert every[-1].end == within.last
    for earlier, later in pairwise(every):
        assert later.begin - earlier.end == timedelta(days=1)
        assert earlier.name < later.name or kind == "season"
    assert len({each.name for each in every}) == len(every)
    assert not any(each.is_cut for each in every[1:-1])


@given(KINDS, DAYS, st.integers(0, 1500), st.integers(0, 1500))
def test_the_period_of_a_day_is_one_of_those_of_its_range(kind: str, first: date, length: int, after: int) -> None:
    within, day = DayRange(first, first + timedelta(days=length)), first + timedelta(days=after)
    found = Periods(kind, within).of(day)
    assert found == next((each for each in every_period(kind, within) if each.begin <= day <= each.end), None)


@given(DAYS)
def test_calendar_periods_are_those_of_numpy(day: date) -> None:
    instant = np.datetime64(day)
    month, year = Periods("month").of(day), Periods("year").of(day)
    assert month is not None
    assert year is not None
    assert month.begin == instant.astype("M8[M]").astype("M8[D]").item()
    assert month.end == (instant.astype("M8[M]") + np.timedelta64(1, "M")).astype("M8[D]").item() - timedelta(days=1)
    assert (year.end - year.begin).days + 1 == 365 + isleap(day.year)


@given(st.dates())
def test_every_day_has_a_period(day: date) -> None:
    for kind in ("month", "season", "year"):
        found = Periods(kind).of(day)
        assert found is not None
        assert found.begin <= day <= found.end


def test_solar_days_of_a_range() -> None:
    """A date is a solar day as it is; an instant is in the solar day of its longitude."""
    assert DayRange.of(None, 10) == DayRange()
    assert DayRange.of(TimeRange.parse("2024-06"), 170) == DayRange(date(2024, 6, 1), date(2024, 6, 30))
    late = TimeRange.parse("2024-06-01T23:00:00Z/..")
    assert DayRange.of(late, 30) == DayRange(date(2024, 6, 2), None)
    assert DayRange.of(late, -30) == DayRange(date(2024, 6, 1), None)
    assert late.start == datetime(2024, 6, 1, 23, tzinfo=UTC)


@pytest.mark.parametrize("kind", ["", "week", "Month", "P0D", "P-1D", "P10", "10D", "P1M", "P99999D"])
def test_unknown_periods(kind: str) -> None:
    with pytest.raises(ConfigError, match="is not a period. Choose month, season, year, all") as caught:
        Periods(kind, YEAR)
    assert caught.value.subject == "period"
    assert caught.value.exit_status == 2
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize("kind", ["all", "P10D"])
@pytest.mark.parametrize(
    ("within", "lacks"),
    [
        (DayRange(), "neither a beginning nor an end"),
        (DayRange(date(2024, 1, 1), None), "no end"),
        (DayRange(None, date(2024, 1, 1)), "no beginning"),
    ],
)
def test_these_periods_need_a_closed_range(kind: str, within: DayRange, lacks: str) -> None:
    with pytest.raises(ConfigError, match=f"this range has {lacks}. Give a range with both ends"):
        Periods(kind, within)


def test_a_range_that_ends_before_it_begins() -> None:
    with pytest.raises(ConfigError, match="before 2024-02-02"):
        Periods("month", DayRange(date(2024, 2, 2), date(2024, 1, 1)))


def test_methods() -> None:
    assert Method.parse("median") == Method("median")
    assert Method.parse("best") == Method("best", "NDVI")
    assert Method.parse("best", "-NDWI", 3) == Method("best", "NDWI", is_least=True, min_count=3)
    assert Method.parse("first") == Method.parse("first", "time") == Method("first")
    assert Method.parse("first", "-time") == Method("first", is_least=True)


@pytest.mark.parametrize(
    ("arguments", "subject", "message"),
    [
        (("max",), "method", "'max' is unknown. Choose median, mean, geomedian, medoid, best or first"),
        (("median", "NDVI"), "score", "has no effect on the method median"),
        (("first", "NDVI"), "score", "'NDVI' is not a score of the method first. Write -time"),
        (("best", "time"), "score", "'time' is not the name of an index"),
        (("best", "--NDVI"), "score", "'--NDVI' is not the name of an index"),
        (("median", None, 0), "min_count", "0 is not a whole number of 1 or more"),
        (("median", None, -1), "min_count", "-1 is not"),
        (("median", None, 1.5), "min_count", "1.5 is not"),
        (("median", None, True), "min_count", "True is not"),
    ],
)
def test_wrong_methods(arguments: tuple[str], subject: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        Method.parse(*arguments)
    assert caught.value.subject == subject
