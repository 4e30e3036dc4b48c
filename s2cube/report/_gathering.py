"""Gather what an output says of itself: Items, failures, rejections, passes, the last run. Problems are collected."""

import json
from collections import Counter
from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

from s2cube.errors import OutputError, S2CubeError
from s2cube.inventory.stored_items import stored_items
from s2cube.report._areas import Area, Day, day_in, day_of, number, period_of
from s2cube.report._logs import (
    Failure,
    Pass,
    read_failures,
    read_passes,
    read_rejections,
    text,
    texts,
)
from s2cube.report.request import Request, read_request
from s2cube.storage.image_item import (
    DATA_VERSION,
    DROPPED,
    METHOD,
    MISSING,
    PICTURE,
    SEARCH,
    SETTINGS,
    SUFFIXES,
    ImageItem,
)
from s2cube.storage.layout import slice_file
from s2cube.storage.lease import read_record
from s2cube.storage.output import Output
from s2cube.storage.record import Record

_MOST_PROBLEMS = 200

_UNFIT = (ValueError, TypeError, KeyError, AttributeError, OverflowError)
"""Errors of an Item whose members are not what they should be."""


@dataclass
class Facts:
    """What an output says of itself.

    Parameters
    ----------
    dropped
        Unused scenes of the same granules: (scene, kept scene, reason), with the number of images.
    doubted
        Scenes whose pixels contradict their offset, with the ids of their slices.
    settings
        Number of images by JSON of their bands, the settings of their search and those of their pixels.
    versions
        Number of images by the version of s2cube and of the data.
    problems
        Texts about files that cannot be read.
    """

    output: Output
    areas: dict[str, Area] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    passes: list[Pass] = field(default_factory=list)
    record: Record | None = None
    request: Request | None = None
    dropped: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    doubted: dict[str, list[str]] = field(default_factory=dict)
    settings: Counter[str] = field(default_factory=Counter)
    versions: Counter[tuple[str, str]] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    other_problems: int = 0

    def note(self, problem: str) -> None:
        """Add a problem. Only the first ones are named."""
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(text(problem))
        else:
            self.other_problems += 1

    def area(self, aoi_id: str) -> Area:
        """Return an area; add it if it is not there."""
        return self.areas.setdefault(aoi_id, Area(aoi_id))


def gather(output: Output) -> Facts:
    """Read an output.

    Raises
    ------
    WriteError
        If the output cannot be listed.
    """
    facts = Facts(output)
    sizes = output.sizes()
    keys = list(output.items(sizes))

    def read(aoi_id: str, slice_id: str) -> ImageItem | None:
        try:
            item = output.whole_item(aoi_id, slice_id, sizes)
        except OutputError as error:
            facts.note(f"{slice_id}: its Item {error.problem}.")
            return None
        if item is None:
            facts.note(f"{slice_id}: its Item cannot be read.")
        return item

    is_remote = output.destination.local("") is None
    for (aoi_id, _), item in zip(keys, stored_items(output, keys, sizes, read, is_remote), strict=True):
        area = facts.area(aoi_id)
        if item is not None:
            try:
                _add_item(facts, area, item, sizes)
            except _UNFIT as error:
                facts.note(f"{item.slice}: its Item has a member that is not valid ({type(error).__name__}: {error}).")
    _add_logs(facts)
    return facts


def add_areas_without_days(facts: Facts) -> None:
    """Add the areas of the last job that have nothing in the output."""
    try:
        facts.request = read_request(facts.output)
    except OutputError as error:
        facts.note(str(error))
    for aoi_id, asked in (facts.request.areas if facts.request else {}).items():
        area = facts.area(aoi_id)
        area.asked_slices = asked.slices
        area.outline = area.outline or asked.outline


def _add_item(facts: Facts, area: Area, item: ImageItem, sizes: Mapping[str, int]) -> None:
    picture = slice_file(item.aoi, item.slice, SUFFIXES[PICTURE])
    has_picture = picture in item.files and picture in sizes
    properties = item.properties
    if item.period or item.name:
        days, missing = properties.get("s2cube:days"), properties.get(MISSING)
        method = text(properties.get(METHOD)) or item.name
        count = len(days) if isinstance(days, list) else None
        area.periods.append(
            period_of(item, method, count, len(missing) if isinstance(missing, list) else 0, has_picture)
        )
    else:
        area.days.append(day_of(item, has_picture))
    area.outline = item.geometry
    for each in _objects(properties.get(DROPPED)):
        facts.dropped[text(each.get("scene")), text(each.get("kept")), text(each.get("reason"))] += 1
    for scene in texts(properties.get("s2cube:offset_doubts")):
        facts.doubted.setdefault(scene, []).append(item.slice)
    # The same settings are in all Items, so they become texts for people only once.
    facts.settings[json.dumps([item.bands, properties.get(SEARCH), properties.get(SETTINGS)])] += 1
    software = properties.get("processing:software")
    version = text(software.get("s2cube")) if isinstance(software, Mapping) else ""
    facts.versions[version, str(number(properties.get(DATA_VERSION)) or "")] += 1


def _add_logs(facts: Facts) -> None:
    facts.failures = read_failures(facts.output, facts.note)
    facts.passes = read_passes(facts.output, facts.note)
    labels = {aoi_id: {each.label: each for each in area.days} for aoi_id, area in facts.areas.items()}
    for slice_id, each in read_rejections(facts.output, facts.note).items():
        cloud = {} if each.cloud_percent is None else {"cloud": each.cloud_percent}
        _add_day(facts, labels, slice_id, Day("", date.min, "rejected", cloud, note=each.reason or "Rejected."))
    for failure in facts.failures:
        day = Day("", date.min, "failed", scenes=failure.scenes, note=failure.error or "Failed.")
        _add_day(facts, labels, failure.slice, day)
    for area in facts.areas.values():
        area.days.sort(key=lambda each: (each.day, each.label))
    try:
        facts.record = read_record(facts.output)
    except S2CubeError as error:
        facts.note(f"The record of the last run cannot be read: {error}.")


def _add_day(facts: Facts, labels: dict[str, dict[str, Day]], slice_id: str, day: Day) -> None:
    """Add a day without an image to its area. If there is an image of an earlier run, it gets the note."""
    aoi_id, label = _parts(slice_id, facts.areas)
    named = day_in(label)
    existing = labels.setdefault(aoi_id, {}).get(label)
    if existing:
        existing.note = day.note
    elif named:
        labels[aoi_id][label] = new = replace(day, label=label, day=named)
        facts.area(aoi_id).days.append(new)


def _parts(slice_id: str, areas: Container[str]) -> tuple[str, str]:
    """Divide the id of a slice into the id of its area and the rest. An area that has no image is not known."""
    aoi_id = slice_id
    while "_" in aoi_id:
        aoi_id = aoi_id.rpartition("_")[0]
        if aoi_id in areas:
            return aoi_id, slice_id[len(aoi_id) + 1 :]
    aoi_id, _, label = slice_id.rpartition("_")
    return aoi_id or slice_id, label


def _objects(value: object) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []
