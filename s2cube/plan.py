"""Items and a grid become a plan: which scenes make which time slice."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable
from copy import copy
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

import pystac

from s2cube.config import CubeSection
from s2cube.errors import SliceError
from s2cube.grid import aoi_geobox
from s2cube.model import AOI, Dropped, Offset, Plan, TimeSlice, unique_file_names
from s2cube.provider import (
    LAYER_ASSETS,
    band_key,
    canonical_bands,
    crs_code,
    crs_codes,
    layer_key,
    offset_dn,
    provider,
)
from s2cube.scene import acquired, granule, processed, version

log = logging.getLogger(__name__)

_SUN_DEG_PER_HOUR = 15

_DATA_VERSION = 1
"""Grows when the same scenes and settings give other pixels, so that slices are made again. A test holds it to them."""


def make_plan(items: Iterable[pystac.Item], aoi: AOI, config: CubeSection) -> Plan:
    """Deduplicate scenes and group them to time slices.

    Of one datatake and tile the newest processing is kept; what is left out is logged and stands in the slice. Slices
    come oldest first. The scenes of a slice that lie in the grid's CRS, so that they need no warp, come before others;
    then the order is by acquisition and id, whatever the order of `items`.
    """
    geobox = aoi_geobox(aoi, config.crs, config.resolution_m)
    kept, dropped = _newest_processing(items)
    _tell_what_is_assumed(kept, config.offset)
    scenes = sorted(kept, key=lambda item: (acquired(item), item.id))
    if config.group_by == "scene":
        groups = list(zip(unique_file_names([item.id for item in scenes]), ([item] for item in scenes), strict=True))
    else:
        days = groupby(scenes, key=lambda item: solar_day(acquired(item), aoi.lon))
        groups = [(day, list(of_day)) for day, of_day in days]
    # The grid and the offset of each scene stand in the recipe themselves.
    settings = config.model_dump(mode="json", exclude={"bands", "crs", "resolution_m", "group_by", "offset"})
    ground = [aoi.ground, str(geobox.crs), geobox.affine[:6], geobox.shape, settings]
    slices = []
    for name, group in groups:
        ids = {item.id for item in group}
        slices.append(
            TimeSlice(
                id=f"{aoi.id}_{name}",
                time=acquired(group[0]),
                scenes=tuple(sorted(group, key=lambda item: crs_codes(item) != {str(geobox.crs)})),
                dropped=tuple(each for each in dropped if each.kept in ids),
                recipe=_recipe(ground, group, config),
            )
        )
    return Plan(aoi, geobox, tuple(slices))


def solar_day(instant: datetime, lon: float) -> str:
    """Name the day at a longitude (degrees east) by the sun: UTC + longitude / 15 h, as YYYYMMDD."""
    return f"{instant + timedelta(hours=lon / _SUN_DEG_PER_HOUR):%Y%m%d}"


def lean(item: pystac.Item, config: CubeSection) -> pystac.Item:
    """Leave out the assets that nothing will be read from: a plan of ten thousand scenes is kept, and sent to workers.

    A scene that cannot be used stays as it is, so that its slice fails for the reason that it has.
    """
    try:
        offset_dn(item, config.offset)
        crs_code(item)
        keys = used_keys(item, config)
    except SliceError:
        return item
    light = copy(item)
    light.links, light.assets = [], {}
    if own := item.get_self_href():
        light.set_self_href(own)
    for key in keys:
        light.add_asset(key, item.assets[key].clone())
    return light


def used_keys(item: pystac.Item, config: CubeSection) -> list[str]:
    """Name the assets that a scene may be read by, or is known by.

    Raises
    ------
    AssetMissingError
        If it lacks one.
    """
    keys = [band_key(item, band) for band in canonical_bands(config.bands)]
    keys += [layer_key(item, layer) for layer in config.mask]
    known = provider(item)
    keys += [known.blue_key] if known else []
    return list(dict.fromkeys([*keys, *(key for key in LAYER_ASSETS["scl"] if key in item.assets)]))


def _recipe(ground: list[Any], scenes: list[pystac.Item], config: CubeSection) -> str:
    of_scenes = [
        (scene.id, processed(scene), _or_none(offset_dn, scene, config.offset), _or_none(_versions, scene, config))
        for scene in scenes
    ]
    content = json.dumps([_DATA_VERSION, *ground, of_scenes], default=str)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _versions(scene: pystac.Item, config: CubeSection) -> list[str]:
    return [version(scene.assets[key]) for key in used_keys(scene, config)]


def _or_none(ask: Callable[..., Any], scene: pystac.Item, wanted: Any) -> Any:
    try:
        return ask(scene, wanted)
    except SliceError:
        return None  # its slice will fail by name


def _newest_processing(items: Iterable[pystac.Item]) -> tuple[list[pystac.Item], list[Dropped]]:
    """Keep one item of each granule; what is dropped points to the one that is kept in the end."""
    rivals: dict[object, list[pystac.Item]] = {}
    for item in items:
        rivals.setdefault(granule(item) or item.id, []).append(item)
    kept, dropped = [], []
    for of_granule in rivals.values():
        # Whatever the order of the answer: items that are alike in all that decides differ in their text.
        newest, *others = sorted(of_granule, key=lambda item: (processed(item), item.id, _text(item)), reverse=True)
        kept.append(newest)
        for other in others:
            again = processed(other) == processed(newest)
            reason = "listed twice" if again else "older processing of the same granule"
            dropped.append(Dropped(other.id, newest.id, reason))
    dropped.sort(key=lambda each: (each.kept, each.scene))
    for each in dropped:
        log.info("%s: left out for %s (%s)", each.scene, each.kept, each.reason)
    return kept, dropped


def _text(item: pystac.Item) -> str:
    return json.dumps(item.to_dict(include_self_link=False, transform_hrefs=False), sort_keys=True, default=str)


def _tell_what_is_assumed(scenes: list[pystac.Item], wanted: Offset) -> None:
    strange = sorted({scene.collection_id or "none" for scene in scenes if provider(scene) is None})
    if strange and wanted == "auto":
        log.warning(
            "collection %s is of no catalogue that s2cube knows: bands are found by name, and the offset of pixels is "
            "assumed to be what the raster extension tells, or else what ESA delivers at the baseline (see --offset)",
            ", ".join(strange),
        )
