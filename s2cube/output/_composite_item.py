"""Describe a composite as a STAC Item."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time
from typing import Any

import numpy as np
from pystac import MediaType

from s2cube.cube.composite_facts import CompositeFacts
from s2cube.kernels.packing import Packing
from s2cube.output._item import (
    QGIS,
    AssetForm,
    FileFacts,
    assets_of,
    instant,
    outline_of,
    raster_of,
    source_properties,
    whole_item,
)
from s2cube.output._raster import Layout
from s2cube.output._statistics import BandStatistics
from s2cube.output.item_form import data_bands, raster_properties
from s2cube.storage.image_item import COUNT, DATA, DATE, METHOD, MISSING, PERIOD, PICTURE, STYLE
from s2cube.storage.json_text import stac_json

COUNT_PACKING = Packing(1.0, float("nan"), "number of observations, 0 outside the area")
"""Packing of the number of observations. It has no nodata, because 0 inside the area is a value."""

DATE_PACKING = Packing(1.0, 0, "days since 1970-01-01, nodata 0", "days since 1970-01-01")
"""Packing of the day of the observation. Its unit is one of UDUNITS, as the CF conventions write it."""

_COUNT_TITLE = "Number of observations"
_DATE_TITLE = "Day of the observation"

_LAST_SECOND = time(23, 59, 59, tzinfo=UTC)


@dataclass(frozen=True)
class Found:
    """Facts about a composite that are known only when its pixels are.

    Parameters
    ----------
    cells_of
        Number of cells of the area with 0, 1, 2 … observations.
    statistics
        Statistics of each band, by the keys of `DATA` and `DATE`.
    """

    cells_of: np.ndarray
    statistics: Mapping[str, tuple[BandStatistics, ...]]


def composite_text(layout: Layout, facts: CompositeFacts, found: Found, files: Mapping[str, FileFacts]) -> bytes:
    """Return the content of the Item's file; for the parameters see `composite_item`."""
    item = composite_item(layout, facts, found, files)
    return stac_json(item, outline_of(facts.outline_lonlat, layout).text)


def composite_item(
    layout: Layout, facts: CompositeFacts, found: Found, files: Mapping[str, FileFacts]
) -> dict[str, Any]:
    """Describe a composite as an Item, in JSON.

    Parameters
    ----------
    layout
        Form of the image.
    facts
        Facts about the composite.
    files
        Facts about each of its files, by the keys of `SUFFIXES`.

    Returns
    -------
    dict
        Its assets are `data`, `count`, `date` (if the method chooses days), `thumbnail` and `style`, as those of an
        image. `datetime` is null. `start_datetime` and `end_datetime` are the first and the last second of the period
        in UTC, or of the part of it that was asked for (`s2cube:period_cut`). They are wider if a scene was acquired
        outside: in UTC it may be one day before or after its solar day.
        `s2cube:clear_percent` is the share of the AOI's cells with enough observations (`s2cube:min_count`).
        `s2cube:score` is written as the user writes it. `s2cube:days` are solar days. `s2cube:missing` are the ids of
        slices that could not be read. The other members are those of images, see `slice_item`.
    """
    outline, raster = outline_of(facts.outline_lonlat, layout), raster_of(layout, found.statistics[DATA])
    begin, end = _bounds(facts)
    properties = source_properties(facts.scenes, facts.provenance) | {
        "start_datetime": instant(begin),
        "end_datetime": instant(end),
        PERIOD: facts.period.name,
        "s2cube:period_cut": facts.period.is_cut,
        METHOD: facts.method.name,
        **({"s2cube:score": facts.method.written_score} if facts.method.written_score else {}),
        "s2cube:min_count": facts.method.min_count,
        "s2cube:days": [each.isoformat() for each in facts.days],
        MISSING: list(facts.missing),
        "s2cube:clear_percent": _clear_percent(found.cells_of, facts.method.min_count),
        "s2cube:geometry_tolerance_m": outline.tolerance_m,
        **raster_properties(raster, facts.scenes),
        "datetime": None,
    }
    forms: dict[str, AssetForm] = {
        DATA: (MediaType.COG, "Reflectance", {"bands": data_bands(raster)}, ["data", "reflectance"]),
        COUNT: (MediaType.COG, _COUNT_TITLE, _count_members(found.cells_of), ["metadata"]),
        DATE: (MediaType.COG, _DATE_TITLE, _date_members(found.statistics.get(DATE, ())), ["metadata", "date"]),
        PICTURE: (MediaType.PNG, "Picture", {}, ["thumbnail"]),
        STYLE: (QGIS, "Style for QGIS", {}, ["style"]),
    }
    assets = assets_of(facts.id, forms, files)
    return whole_item((facts.aoi, facts.id), outline, properties, assets, facts.provenance.derived_from)


def _bounds(facts: CompositeFacts) -> tuple[datetime, datetime]:
    begin = datetime.combine(facts.period.begin, time(tzinfo=UTC))
    end = datetime.combine(facts.period.end, _LAST_SECOND)
    return min(begin, facts.interval[0]), max(end, facts.interval[1])


def _clear_percent(cells_of: np.ndarray, min_count: int) -> float:
    return round(100 * int(cells_of[min_count:].sum()) / max(1, int(cells_of.sum())), 2)


def _count_members(cells_of: np.ndarray) -> dict[str, Any]:
    """Return the members of the asset of the counts: their statistics are those of the area."""
    members: dict[str, Any] = {"data_type": "uint16", "unit": "1"}
    counts = np.flatnonzero(cells_of)
    if not counts.size:
        return members
    cells = cells_of[counts].astype("float64")
    mean = float(counts @ cells / cells.sum())
    spread = float(((counts - mean) ** 2 @ cells / cells.sum()) ** 0.5)
    limits = {"minimum": int(counts[0]), "maximum": int(counts[-1])}
    return members | {"statistics": {**limits, "mean": mean, "stddev": spread, "valid_percent": 100.0}}


def _date_members(statistics: tuple[BandStatistics, ...]) -> dict[str, Any]:
    # The only band of an asset has no own list of bands.
    found = {key: value for each in statistics for key, value in vars(each).items() if value is not None}
    return {"data_type": "uint16", "nodata": 0, "unit": DATE_PACKING.unit, "statistics": found}
