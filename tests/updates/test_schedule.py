"""Times of passes, also where clocks change. The oracle is the clock of each zone, minute by minute."""

import time as clock
from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2cube.updates.schedule import Schedule

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/Sao_Paulo",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "Pacific/Apia",
    "Asia/Gaza",
)
INSTANTS = st.datetimes(datetime(2005, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    yield monkeypatch
    monkeypatch.undo()
    clock.tzset()


def in_zone(local: pytest.MonkeyPatch, zone: str) -> None:
    local.setenv("TZ", zone)
    clock.tzset()


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def days(at: str, begin: str, count: int) -> list[str]:
    """Return the local times of passes."""
    schedule, now, found = Schedule(at=time.fromisoformat(at)), utc(begin), []
    for _ in range(count):
        now = schedule.after(now, now)
        found.append(now.astimezone().isoformat(timespec="minutes"))
    return found


class TestAt:
    def test_every_day_once(self, local: pytest.MonkeyPatch) -> None:
        in_zone(local, "Europe/Berlin")
        assert days("06:00", "2024-06-01T03:59", 2) == ["2024-06-01T06:00+02:00", "2024-06-02T06:00+02:00"]
        assert days("06:00", "2024-06-01T04:00", 1) == ["2024-06-02T06:00+02:00"]

    def test_a_change_to_summer_time(self, local: pytest.MonkeyPatch) -> None:
        in_zone(local, "Europe/Berlin")
        assert days("06:00", "2024-03-29T12:00", 3) == [
            "2024-03-30T06:00+01:00", "2024-03-31T06:00+02:00", "2024-04-01T06:00+02:00",
        ]  # fmt: skip

    def test_a_time_that_the_change_leaves_out(self, local: pytest.MonkeyPatch) -> None:
        in_zone(local, "Europe/Berlin")
        assert days("02:30", "2024-03-30T12:00", 2) == ["2024-03-31T03:30+02:00", "2024-04-01T02:30+02:00"]

    def test_a_time_that_occurs_twice(self, local: pytest.MonkeyPatch) -> None:
        in_zone(local, "Europe/Berlin")
        assert days("02:30", "2024-10-26T12:00", 2) == ["2024-10-27T02:30+02:00", "2024-10-28T02:30+01:00"]

    def test_a_clock_that_is_corrected_during_a_pass(self, local: pytest.MonkeyPatch) -> None:
        in_zone(local, "Europe/Berlin")
        due = utc("2024-06-01T04:00")
        schedule = Schedule(at=time(6))
        assert schedule.after(due, due - timedelta(seconds=2)) == utc("2024-06-02T04:00")
        assert schedule.after(due, due - timedelta(hours=2)) == due

    @pytest.mark.parametrize("zone", ZONES)
    @given(now=INSTANTS, at=st.times(timezones=st.none()).map(lambda each: each.replace(second=0, microsecond=0)))
    def test_no_day_is_left_out_or_has_two(self, zone: str, now: datetime, at: time) -> None:
        with pytest.MonkeyPatch.context() as local:
            in_zone(local, zone)
            found = Schedule(at=at).after(now, now)
            begun = found.astimezone(ZoneInfo(zone))
        clock.tzset()
        assert now < found <= now + timedelta(hours=49)  # a zone may leave out a whole day
        if begun.time() == at:
            assert begun.fold == 0
        else:
            # The clock left out the time: a minute of this day has no such time.
            day = [found + timedelta(minutes=each) for each in range(-26 * 60, 26 * 60)]
            of_day = [each.astimezone(ZoneInfo(zone)) for each in day]
            assert not [each for each in of_day if each.date() == begun.date() and each.time() == at]
        missed = [now + timedelta(minutes=1) * each for each in range(1, int((found - now) / timedelta(minutes=1)))]
        of_zone = [each.replace(second=0, microsecond=0).astimezone(ZoneInfo(zone)) for each in missed]
        assert not [each for each in of_zone if each.time() == at and each.fold == 0 and each > now]


class TestEvery:
    EVERY = Schedule(every=timedelta(hours=6))

    @pytest.mark.parametrize(
        ("last", "now", "due"),
        [
            ("2024-06-01T06:00", "2024-06-01T06:20", "2024-06-01T12:00"),
            ("2024-06-01T06:00", "2024-06-01T12:00", "2024-06-01T18:00"),
            ("2024-06-01T06:00", "2024-06-02T13:00", "2024-06-02T18:00"),
            ("2024-06-01T06:00", "2024-05-01T06:00", "2024-05-01T12:00"),
        ],
        ids=["in time", "as long as a period", "longer than some periods", "the clock was set back"],
    )
    def test_the_next(self, last: str, now: str, due: str) -> None:
        assert self.EVERY.after(utc(last), utc(now)) == utc(due)

    @given(last=INSTANTS, now=INSTANTS, every=st.timedeltas(timedelta(minutes=1), timedelta(days=400)))
    def test_within_one_period(self, last: datetime, now: datetime, every: timedelta) -> None:
        due = Schedule(every=every).after(last, now)
        assert now < due <= now + every
        if last <= now:
            assert (due - last) % every == timedelta(0)
