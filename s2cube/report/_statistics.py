"""Series of statistics for the charts of the page, from the table of an output."""

from collections.abc import Container
from datetime import date
from math import isfinite
from typing import Any

import pyarrow as pa

from s2cube.errors import OutputError
from s2cube.report._areas import Day, number, state_of
from s2cube.report._gathering import Facts
from s2cube.report.request import MOST_AREAS
from s2cube.sentinel2 import band_of, class_band_of
from s2cube.tables.areas_file import read_outlines
from s2cube.tables.rows import FIELD_COLUMNS, SOURCE_COLUMNS
from s2cube.tables.table import Table

_MOST_COLUMNS = 3
_MOST_VALUES = 400_000
"""Number of values that a page shows. One takes some five bytes of it."""

_MOST_ROWS = 2_000_000

_PREFERRED = ("mean", "median")


def add_statistics(facts: Facts) -> None:
    """Add series of statistics, and the days and outlines of areas that have no image."""
    parts: list[pa.Table] = []
    rows = 0
    for name, part in Table(facts.output).readable(facts.note):
        if rows + part.num_rows > _MOST_ROWS:
            facts.note(f"{name} and later files of the table are not shown: the page has {_MOST_ROWS} rows at most.")
            break
        rows += part.num_rows
        parts.append(part)
    if not rows:
        _add_outlines(facts)
        return
    shown = chosen_columns([name for part in parts for name in part.column_names])
    fitting = shown[: max(1, _MOST_VALUES // rows)] if rows <= _MOST_VALUES else []
    if len(fitting) < len(shown):
        facts.note(f"{', '.join(shown[len(fitting) :])} are not shown, because the table has {rows} rows.")
    has_images = {aoi_id for aoi_id, area in facts.areas.items() if any(each.state != "failed" for each in area.days)}
    for part in parts:
        _add_rows(facts, part, [name for name in fitting if name in part.column_names], has_images)
    for area in facts.areas.values():
        area.days.sort(key=lambda each: (each.day, each.label))
    _add_outlines(facts)


def chosen_columns(names: list[str]) -> list[str]:
    """Choose the statistics that are shown: those of indices before those of bands, means before medians."""
    own = dict.fromkeys(name for name in names if name not in FIELD_COLUMNS and name not in SOURCE_COLUMNS)
    pairs = [(name, *name.rpartition("_")[::2]) for name in own]
    usual = next((each for each in _PREFERRED if any(kind == each for *_, kind in pairs)), None)
    chosen = [(name, source) for name, source, kind in pairs if usual in (kind, None)]
    # Sorting keeps the order of those that are alike.
    chosen.sort(key=lambda pair: bool(band_of(pair[1]) or class_band_of(pair[1])))
    return [name for name, _ in chosen[:_MOST_COLUMNS]]


def _add_rows(facts: Facts, part: pa.Table, names: list[str], has_images: Container[str]) -> None:
    columns: dict[str, list[Any]] = {
        name: part[name].to_pylist() for name in ("aoi", "slice", "date", "clear_percent", *names)
    }
    for position, (aoi_id, day) in enumerate(zip(columns["aoi"], columns["date"], strict=True)):
        if not isinstance(aoi_id, str) or not isinstance(day, date):
            continue
        area = facts.area(aoi_id)
        if aoi_id not in has_images:
            clear = number(columns["clear_percent"][position])
            shares = {} if clear is None else {"clear": clear}
            label = str(columns["slice"][position])[len(aoi_id) + 1 :]
            area.days.append(Day(label, day, state_of(shares), shares))
        for name in names:
            value = columns[name][position]
            if isinstance(value, float | int) and isfinite(value):
                days, values = area.values.setdefault(name, ([], []))
                days.append(day)
                values.append(value)


def _add_outlines(facts: Facts) -> None:
    left_out = 0
    try:
        for aoi_id, outline in read_outlines(facts.output):
            # Fields that no scene meets have no row.
            if aoi_id not in facts.areas and len(facts.areas) >= MOST_AREAS:
                left_out += 1
            elif (area := facts.area(aoi_id)).outline is None:
                area.outline = outline
    except OutputError as error:
        facts.note(str(error))
    if left_out:
        facts.note(f"{left_out} fields without rows are not shown: the page has {MOST_AREAS} areas at most.")
