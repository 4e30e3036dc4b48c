"""Items and a grid become a plan: which scenes make which time slice."""

import hashlib
import json
import logging
from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

import pystac

from s2cube.config import CubeSection
from s2cube.grid import aoi_geobox
from s2cube.model import AOI, Plan, TimeSlice, file_name
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
        groups = [(item.id, [item]) for item in scenes]
    else:
        days = groupby(scenes, key=lambda item: solar_day(acquired(item), aoi.lon))
        groups = [(day, list(of_day)) for day, of_day in days]
    ground = [aoi.geometry.wkt, str(geobox.crs), geobox.affine[:6], geobox.shape, config.mask, config.dtype]
    slices = (
        TimeSlice(f"{aoi.id}_{file_name(name)}", acquired(group[0]), tuple(group), _recipe(ground, group))
        for name, group in groups
    )
    return Plan(aoi, geobox, tuple(slices))


def solar_day(instant: datetime, lon: float) -> str:
    """Name the day at a longitude (degrees east) by the sun: UTC + longitude / 15 h, as YYYYMMDD."""
    return f"{instant + timedelta(hours=lon / _SUN_DEG_PER_HOUR):%Y%m%d}"


def _recipe(ground: list[Any], scenes: list[pystac.Item]) -> str:
    content = json.dumps([*ground, [(scene.id, processed(scene)) for scene in scenes]], default=str)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


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
