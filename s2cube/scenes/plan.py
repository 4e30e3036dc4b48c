"""Create the plans of areas of interest: its grid, and the scenes of each time slice."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from itertools import accumulate, groupby
from types import MappingProxyType
from typing import NamedTuple

import pystac

from s2cube.area.aoi import AOI
from s2cube.area.grid import aoi_geobox
from s2cube.area.names import unique_file_names
from s2cube.config.sections import CubeSection, SearchSection
from s2cube.config.times import solar_day
from s2cube.errors import SliceError
from s2cube.scenes._granules import Granule, find_granules
from s2cube.scenes.assets import check_scene
from s2cube.scenes.provider import provider
from s2cube.scenes.recipe import file_versions, files_digest, ground_part, processing_part, recipe, scene_part
from s2cube.scenes.scene import UNKNOWN_TIME, acquired, crs_codes
from s2cube.scenes.scene_facts import SceneFacts
from s2cube.scenes.time_slice import Dropped, Plan, TimeSlice, UnusableSlice
from s2cube.stac.members import as_scene_errors

log = logging.getLogger(__name__)


def make_plan(items: Iterable[pystac.Item], aoi: AOI, config: CubeSection) -> Plan:
    """Deduplicate scenes and group them into time slices, see `Planner.plan`."""
    return Planner(config).plan(map(SceneFacts, items), aoi)


class _Checked(NamedTuple):
    """What the item of a scene decides for every area.

    Parameters
    ----------
    error
        Why the scene cannot be used; None if it can be used.
    crs
        See `scene.crs_codes`.
    recipe_part, processing, files
        See `recipe.scene_part`, `recipe.processing_part` and `recipe.file_versions`.
    """

    error: SliceError | None
    crs: frozenset[str] = frozenset()
    recipe_part: str = ""
    processing: str = ""
    files: Mapping[str, str] = MappingProxyType({})


class Planner:
    """Plans several areas of interest with the same settings. The item of each scene is checked once."""

    def __init__(self, config: CubeSection) -> None:
        self._config = config
        self._checked: dict[SceneFacts, _Checked] = {}
        self._logged: set[Dropped | str] = set()
        """Unused scenes and unknown collections that are logged already."""

    def plan(self, scenes: Iterable[SceneFacts], aoi: AOI) -> Plan:
        """Deduplicate scenes and group them into the time slices of an area, see `slices`."""
        geobox = aoi_geobox(aoi, self._config.crs, self._config.resolution_m)
        ground = ground_part(aoi, geobox, self._config)
        return Plan(aoi, geobox, *self.slices(scenes, aoi.id, aoi.lon, str(geobox.crs), ground))

    def slices(
        self, scenes: Iterable[SceneFacts], area_id: str, lon: float, crs: str, ground: str
    ) -> tuple[tuple[TimeSlice, ...], tuple[UnusableSlice, ...]]:
        """Deduplicate scenes and group them into time slices.

        Only the newest processing of each granule is used. The others are logged and stored in `TimeSlice.dropped`.
        Slices are sorted by time. In a slice, scenes in the CRS of the grid come first, because they are not warped.
        Then scenes are sorted by time of acquisition and id. The order of `scenes` has no effect.

        Parameters
        ----------
        area_id
            First part of the ids of the slices.
        lon
            Longitude of the area, degrees east.
        crs
            The CRS of the grid.
        ground
            First part of the recipes, see `recipe.ground_part`.

        Returns
        -------
        tuple of TimeSlice
            The slices that can be computed.
        tuple of UnusableSlice
            Slices with a scene that cannot be used.
        """
        granules = find_granules(scenes)
        self._log_dropped(granules)
        self._check([each.scene for each in granules])
        dated = sorted((each for each in granules if each.scene.sort_key[0] != UNKNOWN_TIME), key=_order)
        undated = sorted(
            (each.scene for each in granules if each.scene.sort_key[0] == UNKNOWN_TIME), key=lambda each: each.item.id
        )
        labels = _labels(granules)
        groups = _groups(dated, lon, self._config, labels)
        # Names must be unique even if the id of a scene looks like a day.
        names = unique_file_names([*(name for name, _ in groups), *(labels[scene] for scene in undated)])
        ids = [f"{area_id}_{name}" for name in names]
        found = [self._slice(each, group, {crs}, ground) for each, (_, group) in zip(ids, groups, strict=False)]
        found += [
            UnusableSlice(each, (scene.item.id,), _error_of_time(scene.item))
            for each, scene in zip(ids[len(groups) :], undated, strict=True)
        ]
        slices = tuple(each for each in found if isinstance(each, TimeSlice))
        return slices, tuple(each for each in found if isinstance(each, UnusableSlice))

    def _slice(self, slice_id: str, group: list[Granule], crs: set[str], ground: str) -> TimeSlice | UnusableSlice:
        """Make the time slice of granules, which are in order of time.

        Parameters
        ----------
        crs
            The CRS of the grid.
        ground
            First part of the recipe.
        """
        scenes = [each.scene for each in group]
        checked = [self._checked[scene] for scene in scenes]
        first, last = scenes[0].sort_key[0], scenes[-1].sort_key[0]
        if error := next((each.error for each in checked if each.error), None):
            return UnusableSlice(slice_id, tuple(scene.item.id for scene in scenes), error, first, last)
        return TimeSlice(
            id=slice_id,
            time=first,
            end=last,
            scenes=tuple(scene.item for scene in sorted(scenes, key=lambda scene: self._checked[scene].crs != crs)),
            dropped=tuple(dropped for each in group for dropped in each.dropped),
            recipe=recipe(ground, [each.recipe_part for each in checked]),
            files="".join(files_digest(each.files[name] for each in checked) for name in checked[0].files),
            processing=recipe("", [each.processing for each in checked]),
        )

    def _check(self, scenes: Iterable[SceneFacts]) -> None:
        """Check the items of scenes that are not checked yet. Warn if a catalogue is unknown."""
        new = [scene for scene in scenes if scene not in self._checked]
        self._checked |= {scene: _check(scene.item, self._config) for scene in new}
        unknown = {scene.item.collection_id or "none" for scene in new if provider(scene.item) is None} - self._logged
        self._logged |= unknown
        if unknown and self._config.offset == "auto":
            log.warning(
                "collection %s is not from a catalogue that s2cube knows: bands are found by name, and the offset is "
                "assumed. It is that of the raster extension, or else ESA's for the processing baseline (see --offset)",
                ", ".join(sorted(unknown)),
            )

    def _log_dropped(self, granules: Iterable[Granule]) -> None:
        """Log the scenes that are not used, once for all areas."""
        new = {dropped for each in granules if each.older for dropped in each.dropped} - self._logged
        self._logged |= new
        for each in sorted(new, key=lambda each: (each.kept, each.scene)):
            log.info("%s: not used; %s is used instead (%s)", each.scene, each.kept, each.reason)


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
        slices.sort(key=lambda each: each.end or UNKNOWN_TIME, reverse=True)
        counts = accumulate((len(each.scenes) for each in slices), initial=0)
        slices = [each for each, before in zip(slices, counts, strict=False) if before < config.max_items]
    kept = {each.id for each in slices}
    return replace(
        plan,
        slices=tuple(each for each in plan.slices if each.id in kept),
        unusable=tuple(each for each in plan.unusable if each.id in kept),
        search={"collection": config.collection, "max_cloud": config.max_cloud_percent},
    )  # fmt: skip


def _order(granule: Granule) -> tuple[datetime, str, str]:
    """Return time, id and tile."""
    return (*granule.scene.sort_key, granule.scene.tile)


def _error_of_time(item: pystac.Item) -> SliceError:
    """Return why the time of a scene is unknown."""
    try:
        acquired(item)
    except SliceError as error:
        return error
    raise AssertionError(f"{item.id} has a time")


def _labels(granules: list[Granule]) -> dict[SceneFacts, str]:
    """Name scenes by their ids. If several scenes have the same id, add their tiles."""
    ids = Counter(each.scene.item.id for each in granules)
    return {
        scene: f"{scene.item.id}_{scene.tile}" if ids[scene.item.id] > 1 else scene.item.id
        for scene in (each.scene for each in granules)
    }


def _groups(
    granules: list[Granule], lon: float, config: CubeSection, labels: dict[SceneFacts, str]
) -> list[tuple[str, list[Granule]]]:
    """Group granules by time slice. Return each group with the last part of the id of its slice."""
    if config.group_by == "scene":
        return [(labels[each.scene], [each]) for each in granules]
    days = groupby(granules, key=lambda each: solar_day(each.scene.sort_key[0], lon))
    return [(day, list(of_day)) for day, of_day in days]


def _check(item: pystac.Item, config: CubeSection) -> _Checked:
    """Check the item of a scene, and read what plans need of it."""
    try:
        with as_scene_errors(item):
            check_scene(item, config)
            parts = scene_part(item, config), processing_part(item, config), file_versions(item, config)
            return _Checked(None, frozenset(crs_codes(item)), *parts)
    except SliceError as error:
        return _Checked(error)
