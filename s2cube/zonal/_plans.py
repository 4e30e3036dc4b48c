"""Plan the statistics of fields: find the scenes of each field, and compare with the rows of the table."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import compress

import numpy as np
from odc.geo.crs import CRS

from s2cube.area.aoi import AOI
from s2cube.config.sections import JobConfig
from s2cube.config.times import solar_day, timestamp
from s2cube.fields.division import crs_of_fields, patches
from s2cube.fields.fields import Fields
from s2cube.fields.join import join, same_scenes
from s2cube.fields.patches import FieldTask, Patch, grid_of
from s2cube.jobs.recorder import failure_of
from s2cube.scenes.assets import drop_unused_assets
from s2cube.scenes.plan import Planner, narrow
from s2cube.scenes.recipe import lattice_part
from s2cube.scenes.scene_facts import SceneFacts
from s2cube.scenes.search import Catalogue, find_scenes, find_withdrawn
from s2cube.scenes.time_slice import Plan, TimeSlice
from s2cube.storage.failures import SliceFailure
from s2cube.tables.rows import Key, Recipe, scene_ids, slice_ids
from s2cube.tables.table import StoredRow
from s2cube.zonal._overwrite import RowJournal

log = logging.getLogger(__name__)


@dataclass
class FieldPlans:
    """What will be done for fields, collected patch by patch.

    Parameters
    ----------
    stored
        Rows of earlier runs, by the id of the slice.
    journal
        The rows that this --overwrite has written before it was stopped; None if the rows are not kept.

    Attributes
    ----------
    todo
        One task per patch and slice.
    skipped
        Ids of the slices whose rows are there.
    failures
        Slices that cannot be computed.
    without_scenes
        Number of fields that no scene meets.
    """

    config: JobConfig
    key: Key
    stored: dict[str, StoredRow]
    journal: RowJournal | None = None
    todo: list[FieldTask] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failures: list[SliceFailure] = field(default_factory=list)
    without_scenes: int = 0
    _losing: list["_Losing"] = field(default_factory=list)

    def add(self, patch: Patch) -> None:
        """Add the slices of a patch."""
        if not patch.plan.slices and not patch.plan.unusable:
            self.without_scenes += len(patch.fields)
        for each in patch.plan.unusable:
            failed_at = timestamp(timespec="seconds")
            self.failures += [
                replace(failure_of(each), slice=slice_id, time=failed_at)
                for slice_id in slice_ids(patch.fields.ids, patch.label(each))
            ]
        for time_slice in patch.plan.slices:
            self._add_slice(patch, time_slice)

    def _add_slice(self, patch: Patch, time_slice: TimeSlice) -> None:
        todo: dict[int, frozenset[str]] = {}
        found = {*scene_ids(time_slice), *(dropped.scene for dropped in time_slice.dropped)}
        lattice = lattice_part(str(patch.geobox.crs), self.config.cube)
        journal = self.journal if self.config.job.overwrite else None
        if not self.stored or (self.config.job.overwrite and (journal is None or journal.is_empty)):
            self.todo.append(patch.task(time_slice, np.arange(len(patch.fields)), lattice, self.key.id))
            return
        ids = slice_ids(patch.fields.ids, patch.label(time_slice))
        recipes = Recipe.of_fields(patch.digests.tolist(), time_slice, lattice, self.key.id)
        for position, (slice_id, recipe) in enumerate(zip(ids, recipes, strict=True)):
            row = self.stored.get(slice_id)
            if row is None or (journal and not journal.has(slice_id)):
                todo[position] = frozenset()
            elif row.has(recipe, self.key):
                self.skipped.append(slice_id)
            else:
                is_alike = row.key and row.key.settings == self.key.settings and row.recipe.outline == recipe.outline
                todo[position] = frozenset({*row.scenes} - found) if is_alike else frozenset()
        if todo:
            task = patch.task(time_slice, np.array([*todo], np.intp), lattice, self.key.id)
            if any(todo.values()):
                self._losing.append(_Losing(task, tuple(todo.values())))
            else:
                self.todo.append(task)

    def decide_on_lost_scenes(self, catalogue: Callable[[], Catalogue]) -> None:
        """Keep rows whose new ones would lack scenes, unless the catalogue has withdrawn the scenes.

        Parameters
        ----------
        catalogue
            Returns the catalogue. It is called only if there are such rows.
        """
        if not self._losing:
            return
        lost = frozenset[str]().union(*(each for losing in self._losing for each in losing.lost))
        known = self._losing[0].task.scenes[0].id
        withdrawn = find_withdrawn(lost, known, self.config.search, catalogue())
        kept: list[str] = []
        for each in self._losing:
            is_kept = np.array([not of_row <= withdrawn for of_row in each.lost])
            kept += compress(slice_ids(each.task.fields.ids, each.task.label), is_kept)
            if not is_kept.all():
                self.todo.append(each.task.part(~is_kept))
        self.skipped += kept
        if kept:
            log.warning(
                "%s and %d other rows stay as they are: new rows would lack scenes, such as %s, which the search does "
                "not find, though the catalogue has not withdrawn them. --overwrite computes the rows from the scenes "
                "that are found",
                kept[0], len(kept) - 1, min(lost - withdrawn),
            )  # fmt: skip
        self._losing = []


@dataclass(frozen=True)
class _Losing:
    """A task of which some rows would lack scenes that the rows in the table have.

    Parameters
    ----------
    lost
        The scenes that each row would lack.
    """

    task: FieldTask
    lost: tuple[frozenset[str], ...]


def scenes_of(squares: Sequence[AOI], config: JobConfig, catalogue: Catalogue) -> list[SceneFacts]:
    """Find the scenes of squares of the map. The number of scenes is limited for each field, not for a square.

    Raises
    ------
    SearchError
        If the search fails.
    """
    search = config.search.model_copy(update={"max_items": None})
    found = find_scenes(squares, search, catalogue, partial(drop_unused_assets, config=config.cube))
    return list({id(scene): scene for of_square in found for scene in of_square}.values())


def plan_fields(fields: Fields, scenes: Sequence[SceneFacts], planner: Planner, config: JobConfig) -> Iterator[Patch]:
    """Divide fields into patches, each with its time slices.

    Parameters
    ----------
    scenes
        Scenes that may meet them.
    """
    # A scene whose footprint is unknown may cover every field.
    footprints = [each.footprint for each in scenes]
    everywhere = [each for each in scenes if each.footprint.is_empty]
    numbers, sets = same_scenes(*join(fields, footprints, config.table.join), len(fields))
    crs_of = crs_of_fields(fields, config.cube.crs)
    order = np.argsort(numbers, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1):
        chosen = [*(scenes[at] for at in sets[numbers[group[0]]]), *everywhere]
        for crs in sorted({*crs_of[group]}):
            some = fields.take(group[crs_of[group] == crs])
            for part, plan in _plans(some, str(crs), chosen, planner, config):
                yield from patches(part, plan, config.cube)


def _plans(
    fields: Fields, crs: str, scenes: Sequence[SceneFacts], planner: Planner, config: JobConfig
) -> Iterator[tuple[Fields, Plan]]:
    """Group the scenes of fields into slices. All fields have these scenes.

    Solar days depend on the longitude. Fields are divided if their days differ.
    """
    lons = fields.centres_lonlat[:, 0]
    ends = dict.fromkeys((int(lons.argmin()), int(lons.argmax())))
    one, *other = (_plan(fields.box(position), crs, scenes, planner, config) for position in ends)
    if len(fields) == 1 or all(_days(one) == _days(each) for each in other):
        yield fields, one
        return
    order = np.argsort(lons, kind="stable")
    for half in np.array_split(order, 2):
        yield from _plans(fields.take(half), crs, scenes, planner, config)


def _plan(aoi: AOI, crs: str, scenes: Sequence[SceneFacts], planner: Planner, config: JobConfig) -> Plan:
    # Patches have grids of their own. They need only the CRS of this one.
    geobox = grid_of(np.array([0, 0, 1, 1]), config.cube.resolution_m, CRS(crs))
    found = planner.slices(scenes, aoi.id, aoi.lon, crs, "")
    return narrow(Plan(aoi, geobox, *found), config.search)


def _days(plan: Plan) -> list[tuple[str, str, tuple[str, ...]]]:
    """Return what must be equal for fields that are planned together."""
    lon, name = plan.aoi.lon, plan.aoi.id
    dated = [(each.id.removeprefix(name), solar_day(each.time, lon), scene_ids(each)) for each in plan.slices]
    return dated + [(each.id.removeprefix(name), "", each.scenes) for each in plan.unusable]
