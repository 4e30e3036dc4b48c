"""Items and a grid become a plan: which scenes make which time slice."""

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
from s2cube.scenes.assets import check_scene, crs_codes
from s2cube.scenes.provider import provider
from s2cube.scenes.recipe import recipe
from s2cube.scenes.scene import acquired, tile
from s2cube.scenes.time_slice import Plan, TimeSlice, UnusableSlice
from s2cube.stac.members import guarded

log = logging.getLogger(__name__)

_UNKNOWN = datetime.max.replace(tzinfo=UTC)
"""Time of a scene without one: later than all others, so that a limit to the newest scenes does not hide it."""


def make_plan(items: Iterable[pystac.Item], aoi: AOI, config: CubeSection) -> Plan:
    """Deduplicate scenes and group them to time slices.

    Of one datatake and tile the newest processing is kept; what is left out is logged and stands in the slice. Slices
    come oldest first. The scenes of a slice that lie in the grid's CRS, so that they need no warp, come before others;
    then the order is by acquisition and id, whatever the order of `items`. A slice with a scene that cannot be used
    is not among the slices of the plan, but in its `unusable`.
    """
    geobox = aoi_geobox(aoi, config.crs, config.resolution_m)
    granules = find_granules(items)
    log_dropped(granules)
    dated, undated = _dated(granules)
    _warn_about_assumptions([each.scene for each in granules], config.offset)
    labels = _labels(granules)
    groups = _groups(dated, aoi, config, labels)
    # Unique also if the id of a scene looks like a day.
    names = unique_file_names([*(name for name, _ in groups), *(labels[scene] for scene, _ in undated)])
    slices, unusable = [], []
    for name, (_, group) in zip(names, groups, strict=False):
        slice_id = f"{aoi.id}_{name}"
        scenes = [each.scene for each in group]
        if error := _why_not(scenes, config):
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
    """Remove from a plan what was found only to make slices whole, and what is older than the newest requested.

    A slice that `config.datetime` cuts, as a time of day may, is left out and logged. Of the rest, the newest slices
    stay: those that hold `config.max_items` scenes. The plan says what was searched for.
    """
    slices: list[TimeSlice | UnusableSlice] = [*plan.slices, *plan.unusable]
    if config.datetime:
        times = config.datetime.at(plan.aoi.lon)
        for each in slices:
            if not times.holds(each.time, each.end) and times.meets(each.time, each.end):
                log.warning("%s: left out, because the requested times cut its day", each.id)
        slices = [each for each in slices if times.holds(each.time, each.end)]
    if config.max_items is not None:
        slices.sort(key=lambda each: each.end or _UNKNOWN, reverse=True)
        counts = accumulate((len(each.scenes) for each in slices), initial=0)
        slices = [each for each, before in zip(slices, counts, strict=False) if before < config.max_items]
    wanted = {each.id for each in slices}
    return replace(
        plan,
        slices=tuple(each for each in plan.slices if each.id in wanted),
        unusable=tuple(each for each in plan.unusable if each.id in wanted),
        search={"collection": config.collection, "max_cloud": config.max_cloud_percent},
    )  # fmt: skip


def _dated(granules: list[Granule]) -> tuple[list[Granule], list[tuple[pystac.Item, SliceError]]]:
    """Sort granules by time and id; give those of unknown time separately, with the reason."""
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
    """Name scenes by their ids; if some share an id, by their tiles, too."""
    ids = Counter(each.scene.id for each in granules)
    return {
        each.scene: f"{each.scene.id}_{_tile(each.scene)}" if ids[each.scene.id] > 1 else each.scene.id
        for each in granules
    }


def _groups(
    granules: list[Granule], aoi: AOI, config: CubeSection, labels: dict[pystac.Item, str]
) -> list[tuple[str, list[Granule]]]:
    """Give the scenes of each image, with the text that its name is made of."""
    if config.group_by == "scene":
        return [(labels[each.scene], [each]) for each in granules]
    days = groupby(granules, key=lambda each: solar_day(acquired(each.scene), aoi.lon))
    return [(day, list(of_day)) for day, of_day in days]


def _tile(item: pystac.Item) -> str:
    try:
        return tile(item)
    except SliceError:
        return ""


def _why_not(scenes: list[pystac.Item], config: CubeSection) -> SliceError | None:
    """Say why an image of some scenes cannot be made, as far as their items show."""
    for scene in scenes:
        try:
            with guarded(scene):
                check_scene(scene, config)
        except SliceError as error:
            return error
    return None


def _warn_about_assumptions(scenes: list[pystac.Item], wanted: Offset) -> None:
    strange = sorted({scene.collection_id or "none" for scene in scenes if provider(scene) is None})
    if strange and wanted == "auto":
        log.warning(
            "collection %s is of no catalogue that s2cube knows: bands are found by name, and the offset of pixels is "
            "assumed to be what the raster extension tells, or else what ESA delivers at the baseline (see --offset)",
            ", ".join(strange),
        )
