"""Items and a grid become a plan: which scenes make which time slice."""

import logging
from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import groupby

import pystac

from s2cube.config import CubeSection
from s2cube.grid import aoi_geobox
from s2cube.model import AOI, Plan, TimeSlice
from s2cube.provider import acquired, granule, processed

log = logging.getLogger(__name__)

_SUN_DEG_PER_HOUR = 15


def make_plan(items: Iterable[pystac.Item], aoi: AOI, config: CubeSection) -> Plan:
    """Deduplicate scenes and group them to time slices.

    Of one datatake and tile the newest processing is kept; the rest is logged. Slices come oldest first; the scenes
    of a slice by acquisition and id, whatever the order of `items`.
    """
    scenes = sorted(_newest_processing(items), key=lambda item: (acquired(item), item.id))
    geobox = aoi_geobox(aoi, config.crs, config.resolution_m)
    if config.group_by == "scene":
        slices = tuple(TimeSlice(f"{aoi.id}_{item.id}", acquired(item), (item,)) for item in scenes)
    else:
        slices = tuple(_day_slices(scenes, aoi))
    return Plan(aoi, geobox, slices)


def solar_day(instant: datetime, lon: float) -> str:
    """Name the day at a longitude (degrees east) by the sun: UTC + longitude / 15 h, as YYYYMMDD."""
    return f"{instant + timedelta(hours=lon / _SUN_DEG_PER_HOUR):%Y%m%d}"


def _day_slices(scenes: list[pystac.Item], aoi: AOI) -> Iterable[TimeSlice]:
    for day, group in groupby(scenes, key=lambda item: solar_day(acquired(item), aoi.lon)):
        of_day = tuple(group)
        yield TimeSlice(f"{aoi.id}_{day}", acquired(of_day[0]), of_day)


def _newest_processing(items: Iterable[pystac.Item]) -> list[pystac.Item]:
    kept: dict[object, pystac.Item] = {}
    for item in sorted(items, key=lambda item: item.id):
        key = granule(item) or item.id
        rival = kept.get(key)
        if rival is None:
            kept[key] = item
            continue
        older, newer = sorted((rival, item), key=processed)
        kept[key] = newer
        log.info("%s: left out, %s is a newer processing of the same granule", older.id, newer.id)
    return list(kept.values())
