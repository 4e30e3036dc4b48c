"""Create the plan of an area of interest: its grid, and the scenes of each time slice."""

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from itertools import accumulate, groupby

import pystac

from s2cube.area.aoi import AOI
from s2cube.area.grid import aoi_geobox
from s2cube.area.names import unique_file_names
from s2cube.config.literals import Offset
from s2cube.config.sections import CubeSection, SearchSection
from s2cube.config.times import solar_day
from s2cube.errors import SliceError
from s2cube.scenes._granules import Granule, find_granules, log_dropped
from s2cube.scenes.assets import check_scene
from s2cube.scenes.provider import provider
from s2cube.scenes.recipe import recipe
from s2cube.scenes.scene import acquired, crs_codes, tile
from s2cube.scenes.time_slice import Plan, TimeSlice, UnusableSlice
from s2cube.stac.members import as_scene_errors

log = logging.getLogger(__name__)

_UNKNOWN = datetime.max.replace(tzinfo=UTC)
"""Time of a scene whose time is unknown. It is the latest, so that a limit to the newest scenes does not remove it."""


def make_plan(items: Iterable[pystac.Item], aoi: AOI, config: CubeSection) -> Plan:
    """Deduplicate scenes and group them into time slices.

    Only the newest processing of each granule is used. The others are logged and stored in `TimeSlice.dropped`. Slices
    are sorted by time. In a slice, scenes in the CRS of the grid come first, because they are not warped. Then scenes
    are sorted by time of acquisition and id. The order of `items` has no effect. A slice with a scene that cannot be
    used is in `Plan.unusable`.
    """
    geobox = aoi_geobox(aoi, config.crs, config.resolution_m)
    granules = find_granules(items)
    log_dropped(granules)
    dated, undated = _dated(granules)
    _warn_about_assumptions([each.scene for each in granules], config.offset)
    labels = _labels(granules)
    groups = _groups(dated, aoi, config, labels)
    # Names must be unique even if the id of a scene looks like a day.
    names = unique_file_names([*(name for name, _ in groups), *(labels[scene] for scene, _ in undated)])
    slices, unusable = [], []
    for name, (_, group) in zip(names, groups, strict=False):
        slice_id = f"{aoi.id}_{name}"
        scenes = [each.scene for each in group]
        if error := _first_error(scenes, config):
            ids = tuple(scene.id for scene in scenes)
            unusable.append(UnusableSlice(slice_id, ids, error, acquired(scenes[0]), acquired(scenes[-1])))
            continue
        slices.append(
            TimeSlice(
                id=slice_id,
                time=acquired(scenes[0]),
                end=acquired(scenes[-1]),
                scenes=tuple(sorted(scenes, key=lambda item: crs_codes(item) != {str(geobox.crs)})),
                dropped=tuple(dropped for each in group for dropped in each.dropped),
                recipe=recipe(aoi, geobox, scenes, config),
            )
        )
    for name, (scene, error) in zip(names[len(groups) :], undated, strict=True):
        unusable.append(UnusableSlice(f"{aoi.id}_{name}", (scene.id,), error))
    return Plan(aoi, geobox, tuple(slices), tuple(unusable))


def narrow(plan: Plan, config: SearchSection) -> Plan:
    """Remove slices that were not requested. `find_scenes` returns complete days, and may return more days than needed.

    A slice whose scenes are only partly within `config.datetime` is also removed, with a log message. The newest of the
    other slices are kept until they have `config.max_items` scenes. `Plan.search` stores the settings.
    """
    slices: list[TimeSlice | UnusableSlice] = [*plan.slices, *plan.unusable]
    if config.datetime:
        times = config.datetime.at(plan.aoi.lon)
        for each in slices:
            if not times.holds(each.time, each.end) and times.meets(each.time, each.end):
                log.warning("%s: left out, because only a part of its day is requested", each.id)
        slices = [each for each in slices if times.holds(each.time, each.end)]
    if config.max_items is not None:
        slices.sort(key=lambda each: each.end or _UNKNOWN, reverse=True)
        counts = accumulate((len(each.scenes) for each in slices), initial=0)
        slices = [each for each, before in zip(slices, counts, strict=False) if before < config.max_items]
    kept = {each.id for each in slices}
    return replace(
        plan,
        slices=tuple(each for each in plan.slices if each.id in kept),
        unusable=tuple(each for each in plan.unusable if each.id in kept),
        search={"collection": config.collection, "max_cloud": config.max_cloud_percent},
    )  # fmt: skip


def _dated(granules: list[Granule]) -> tuple[list[Granule], list[tuple[pystac.Item, SliceError]]]:
    """Sort granules by time, id and tile. Return scenes whose time is unknown separately, with the error."""
    dated, undated = [], []
    for each in granules:
        try:
            dated.append((acquired(each.scene), each.scene.id, _tile(each.scene), each))
        except SliceError as error:
            undated.append((each.scene, error))
    dated.sort(key=lambda each: each[:3])
    undated.sort(key=lambda each: each[0].id)
    return [each for *_, each in dated], undated


def _labels(granules: list[Granule]) -> dict[pystac.Item, str]:
    """Name scenes by their ids. If several scenes have the same id, add their tiles."""
    ids = Counter(each.scene.id for each in granules)
    return {
        each.scene: f"{each.scene.id}_{_tile(each.scene)}" if ids[each.scene.id] > 1 else each.scene.id
        for each in granules
    }


def _groups(
    granules: list[Granule], aoi: AOI, config: CubeSection, labels: dict[pystac.Item, str]
) -> list[tuple[str, list[Granule]]]:
    """Group granules by time slice. Return each group with the last part of the id of its slice."""
    if config.group_by == "scene":
        return [(labels[each.scene], [each]) for each in granules]
    days = groupby(granules, key=lambda each: solar_day(acquired(each.scene), aoi.lon))
    return [(day, list(of_day)) for day, of_day in days]


def _tile(item: pystac.Item) -> str:
    try:
        return tile(item)
    except SliceError:
        return ""


def _first_error(scenes: list[pystac.Item], config: CubeSection) -> SliceError | None:
    """Check the items of scenes. Return the error of the first scene that cannot be used; None if all can be used."""
    for scene in scenes:
        try:
            with as_scene_errors(scene):
                check_scene(scene, config)
        except SliceError as error:
            return error
    return None


def _warn_about_assumptions(scenes: list[pystac.Item], offset: Offset) -> None:
    unknown = sorted({scene.collection_id or "none" for scene in scenes if provider(scene) is None})
    if unknown and offset == "auto":
        log.warning(
            "collection %s is not from a catalogue that s2cube knows: bands are found by name, and the offset is "
            "assumed. It is that of the raster extension, or else ESA's for the processing baseline (see --offset)",
            ", ".join(unknown),
        )
