"""Turn what an output says of itself into the data of the page. The script of the page describes the same members."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from typing import Any

from s2cube import __version__
from s2cube.config.times import timestamp
from s2cube.errors import safe_text
from s2cube.report._areas import CLEAR_PERCENT, SHARES, Area, Period, State
from s2cube.report._gathering import Facts
from s2cube.report._logs import text
from s2cube.report._outlines import rings_of
from s2cube.report._thumbnails import thumbnails
from s2cube.report.request import MOST_AREAS
from s2cube.storage.image_item import PICTURE, SUFFIXES
from s2cube.storage.layout import slice_file
from s2cube.storage.output import Output
from s2cube.storage.record import Record

_MOST_THUMBNAILS = 2000
_MOST_DAYS_WITH_SCENES = 100_000
"""If there are more days, the page has the number of scenes of each, not their ids, and shares without decimals."""

_MOST_LINES = 1000
"""Number of failures, dropped scenes and doubted scenes that are listed."""

_LETTERS: dict[State, str] = {
    "clear": "c", "partly": "p", "cloudy": "k", "empty": "e", "rejected": "r", "failed": "f",
}  # fmt: skip

_EPOCH = date(1970, 1, 1)


def page_data(facts: Facts) -> dict[str, Any]:
    """Return the data of the page, as values of JSON."""
    areas = sorted(facts.areas.values(), key=lambda each: each.id)
    if len(areas) > MOST_AREAS:
        facts.note(f"The page has the first {MOST_AREAS} of {len(areas)} areas.")
    shown = areas[:MOST_AREAS]
    pictures, numbers = _pictures(facts, shown)
    scenes = _Scenes(sum(len(each.days) for each in shown) <= _MOST_DAYS_WITH_SCENES)
    rings = rings_of([each.outline for each in shown])
    listed = [
        {
            "id": area.id,
            "shape": ring,
            "days": _days(area, scenes, numbers),
            **({"asked": area.asked_slices} if area.asked_slices is not None else {}),
            **({"periods": [_period(area, each, numbers) for each in area.periods]} if area.periods else {}),
            **({"values": {name: _series(*each) for name, each in area.values.items()}} if area.values else {}),
        }
        for area, ring in zip(shown, rings, strict=True)
    ]
    return {
        "output": _name_of(facts.output),
        "written": timestamp(timespec="seconds"),
        "version": __version__,
        "clear_percent": CLEAR_PERCENT,
        "asked_dates": None if facts.request is None else text(facts.request.datetime),
        "all_areas": len(areas),
        "areas": listed,
        "scenes": scenes.ids,
        "pictures": pictures,
        **_lists(facts),
    }


def _name_of(output: Output) -> str:
    """Return the address of an output; of a folder only the last two names, because others may read the page."""
    local = output.destination.local("")
    return safe_text("/".join(local.parts[-2:]) if local else output.destination.address)


def _pictures(facts: Facts, areas: Sequence[Area]) -> tuple[list[str], dict[str, int]]:
    """Return the small pictures of the clearest days, and their numbers by the name of the PNG.

    Each area gets its clearest day before any gets its second.
    """
    ranked = []
    for area in areas:
        days = sorted((day for day in area.days if day.has_picture), key=lambda each: -each.shares.get("clear", 0))
        ranked += [(rank, -day.shares.get("clear", 0), picture_of(area, day.label)) for rank, day in enumerate(days)]
        shown = [each for each in area.periods if each.has_picture]
        ranked += [(rank, 0.0, picture_of(area, each.label)) for rank, each in enumerate(shown)]
    names = [name for *_, name in sorted(ranked)[:_MOST_THUMBNAILS]]
    small = [
        (name, each) for name, each in zip(names, thumbnails(facts.output, names, facts.note), strict=True) if each
    ]
    return [each for _, each in small], {name: number for number, (name, _) in enumerate(small)}


def picture_of(area: Area, label: str) -> str:
    """Return the name of the PNG of a slice, relative to the output."""
    return slice_file(area.id, f"{area.id}_{label}", SUFFIXES[PICTURE])


class _Scenes:
    """Numbers of scenes. Areas that are near each other have the same scenes."""

    def __init__(self, has_ids: bool) -> None:
        self.has_ids = has_ids
        self._numbers: dict[str, int] = {}

    def numbers(self, ids: Sequence[str]) -> list[int] | int:
        """Return the numbers of scenes, or only how many they are."""
        if not self.has_ids:
            return len(ids)
        return [self._numbers.setdefault(each, len(self._numbers)) for each in ids]

    @property
    def ids(self) -> list[str]:
        """Their ids, in the order of their numbers."""
        return [text(each, 200) for each in self._numbers]


def _days(area: Area, scenes: _Scenes, numbers: dict[str, int]) -> dict[str, Any]:
    """Return the days of an area, column by column: the page would be twice as large with an object for each day."""
    days = area.days
    columns: dict[str, Any] = {
        "day": _differences([_number_of(each.day) for each in days]),
        "state": "".join(_LETTERS[each.state] for each in days),
        "scenes": _column([scenes.numbers(each.scenes) for each in days]),
    }
    for name in SHARES:
        shares = [_share(each.shares.get(name), scenes.has_ids) for each in days]
        if any(share is not None for share in shares):
            columns[name] = _column(shares)
    found = {at: numbers.get(picture_of(area, each.label)) for at, each in enumerate(days) if each.has_picture}
    if found:
        # -1: a picture that is not embedded.
        columns["picture"] = {str(at): -1 if number is None else number for at, number in found.items()}
    if notes := {str(at): each.note for at, each in enumerate(days) if each.note}:
        columns["note"] = notes
    if labels := {str(at): each.label for at, each in enumerate(days) if each.label != f"{each.day:%Y%m%d}"}:
        columns["label"] = labels
    return columns


def _share(share: float | None, has_decimals: bool) -> float | None:
    """Round a share. A share without decimals takes less of the page."""
    if share is None:
        return None
    rounded = round(share, 1 if has_decimals else 0)
    return rounded if rounded % 1 else int(rounded)


def _column(values: list[Any]) -> Any:
    """Return the values of a column; only one number if all are the same number."""
    first = values[0] if values else None
    return first if isinstance(first, int) and values.count(first) == len(values) else values


def _differences(numbers: list[int]) -> list[int]:
    """Return the first number, and then differences, which have fewer digits."""
    return [number - before for number, before in zip(numbers, [0, *numbers], strict=False)]


def _number_of(day: date) -> int:
    return (day - _EPOCH).days


def _period(area: Area, each: Period, numbers: dict[str, int]) -> dict[str, Any]:
    picture = numbers.get(picture_of(area, each.label), -1)
    return asdict(each) | {"begin": each.begin.isoformat(), "end": each.end.isoformat(), "picture": picture}


def _series(days: Sequence[date], values: Sequence[float]) -> list[list[float]]:
    ordered = sorted(zip(map(_number_of, days), values, strict=True))
    return [[day for day, _ in ordered], [float(f"{value:.4g}") for _, value in ordered]]


def _lists(facts: Facts) -> dict[str, Any]:
    dropped = sorted(facts.dropped.items())
    return {
        "failures": [asdict(each) for each in facts.failures[:_MOST_LINES]],
        "all_failures": len(facts.failures),
        "dropped": [[*names, count] for names, count in dropped[:_MOST_LINES]],
        "all_dropped": len(dropped),
        "doubted": [[scene, len(ids), ids[:10]] for scene, ids in sorted(facts.doubted.items())[:_MOST_LINES]],
        "all_doubted": len(facts.doubted),
        "passes": [asdict(each) for each in facts.passes],
        "settings": [[_settings(each), count] for each, count in facts.settings.most_common(20)],
        "versions": [[*names, count] for names, count in facts.versions.most_common(20)],
        "record": facts.record and _record(facts.record),
        "problems": facts.problems,
        "other_problems": facts.other_problems,
    }


def _settings(content: str) -> dict[str, str]:
    """Return settings as texts, by their names."""
    bands, *members = json.loads(content)
    found = {"bands": _shown(bands)}
    for each in members:
        if isinstance(each, dict):
            found |= {text(name): _shown(value) for name, value in each.items()}
    return found


def _shown(value: object) -> str:
    """Return the value of a setting as text."""
    if isinstance(value, list):
        return text(", ".join(map(_shown, value)))
    return text(value if isinstance(value, str) else json.dumps(value))


def _record(record: Record) -> dict[str, Any]:
    return {
        "state": record.state if not record.is_open or record.is_alive else "ended without a report",
        "started": record.started,
        "updated": record.updated,
        "error": safe_text(record.error),
        "progress": asdict(record.progress),
    }
