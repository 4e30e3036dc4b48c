"""The areas of an output, with their days: what the page shows of Items. Frozen once they are gathered."""

import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal

from s2cube.config.times import solar_day
from s2cube.sentinel2 import QA
from s2cube.storage.image_item import QA_IMAGE, ImageItem

State = Literal["clear", "partly", "cloudy", "empty", "rejected", "failed"]
"""What became of a day. `empty` has no data for most of the area."""

CLEAR_PERCENT = 80
"""A day is clear if at least this share of the area is valid in every band."""

_CLOUDY_PERCENT = 20
"""A day is cloudy if less than this share of the area is valid."""

_EMPTY_PERCENT = 50

SHARES = {"clear": QA.CLEAR, "cloud": QA.CLOUD, "shadow": QA.SHADOW, "other": QA.OTHER, "no_data": QA.NO_DATA}
"""Names of the shares of an area, and the QA values that they count."""


@dataclass
class Day:
    """A slice of an area: one image, or the reason why there is none.

    Parameters
    ----------
    label
        The id of the slice without that of the area.
    shares
        Percent of the area by the names of `SHARES`. Shares that are not known are left out.
    scenes
        Ids of its scenes.
    note
        Reason of a rejection or failure.
    has_picture
        Whether there is a PNG of it.
    """

    label: str
    day: date
    state: State
    shares: Mapping[str, float] = field(default_factory=dict)
    scenes: tuple[str, ...] = ()
    note: str = ""
    has_picture: bool = False


@dataclass
class Period:
    """A composite, or an image that a user computed from a cube.

    Parameters
    ----------
    days
        Number of days that were used; None if it is not known.
    missing
        Number of slices that were left out because they could not be read.
    """

    label: str
    begin: date
    end: date
    method: str
    clear_percent: float | None
    days: int | None
    missing: int
    has_picture: bool


@dataclass
class Area:
    """An area of interest and what was made of it.

    Parameters
    ----------
    outline
        GeoJSON or WKB, longitude and latitude; None if it is not known.
    values
        Series of statistics by the name of the column: days and values.
    asked_slices
        Number of slices for which the last job has found scenes; None if it is not known.
    """

    id: str
    outline: Mapping[str, Any] | bytes | None = None
    days: list[Day] = field(default_factory=list)
    periods: list[Period] = field(default_factory=list)
    values: dict[str, tuple[list[date], list[float]]] = field(default_factory=dict)
    asked_slices: int | None = None


def day_of(item: ImageItem, has_picture: bool) -> Day:
    """Return the day of an image."""
    label = item.slice[len(item.aoi) + 1 :]
    shares = _shares(item)
    return Day(label, solar_day_of(label, item), state_of(shares), shares, item.scenes, has_picture=has_picture)


def period_of(item: ImageItem, method: str, days: int | None, missing: int, has_picture: bool) -> Period:
    """Return the period of a composite, or of an image that a user computed."""
    begin, end = (each.date() for each in item.interval)
    clear = number(item.properties.get("s2cube:clear_percent"))
    return Period(item.slice[len(item.aoi) + 1 :], begin, end, method, clear, days, missing, has_picture)


def number(value: object, most: float = 100) -> float | None:
    """Return a number from 0 to a limit. Anything else is None, because it comes from a file that may be damaged."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= most:
        return value
    return None


def state_of(shares: Mapping[str, float]) -> State:
    """Return the state of a day with an image."""
    clear = shares.get("clear", 0)
    if clear >= CLEAR_PERCENT:
        return "clear"
    if shares.get("no_data", 0) >= _EMPTY_PERCENT:
        return "empty"
    return "cloudy" if clear < _CLOUDY_PERCENT else "partly"


def day_in(label: str) -> date | None:
    """Return the solar day that a label names: ``YYYYMMDD``, or the first such part of the id of a scene."""
    for part in label.replace("T", "_").split("_"):
        if len(part) == 8 and not part.strip(string.digits):
            try:
                return date.fromisoformat(part)
            except ValueError:
                continue
    return None


def solar_day_of(label: str, item: ImageItem) -> date:
    """Return the solar day of an image."""
    if len(label) == 8 and (named := day_in(label)):
        return named
    bbox = item.document["bbox"]
    return date.fromisoformat(solar_day(item.time, (bbox[0] + bbox[len(bbox) // 2]) / 2))


def _shares(item: ImageItem) -> dict[str, float]:
    """Return the shares of the area, from the counts of QA values, or from the percentages of an older Item."""
    counts = _counts(item)
    inside = sum(counts.get(value, 0) for value in SHARES.values())
    if inside and len(counts) >= len(SHARES):
        return {name: 100 * counts.get(value, 0) / inside for name, value in SHARES.items()}
    clear = number(item.properties.get("s2cube:clear_percent"))
    return {} if clear is None else {"clear": clear}


def _counts(item: ImageItem) -> dict[int, int]:
    classes = item.document["assets"].get(QA_IMAGE, {}).get("classification:classes")
    found = {}
    for each in classes if isinstance(classes, list) else ():
        if isinstance(each, dict) and isinstance(value := each.get("value"), int):
            count = number(each.get("count"), 1e15)
            if count is not None:
                found[value] = int(count)
    return found
