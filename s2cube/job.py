"""What a run is going to do: search and plan, held against what is there."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Self

from s2cube.aoi import read_aois
from s2cube.assets import lean
from s2cube.config import JobConfig
from s2cube.errors import SliceError
from s2cube.model import Plan, TimeSlice, UnusableSlice
from s2cube.outcome import Cost
from s2cube.output import Output, State
from s2cube.overwrite import OVERWRITE, interrupted, job_digest
from s2cube.plan import make_plan, narrow
from s2cube.provider import canonical_bands
from s2cube.search import find_scenes, open_catalogue

log = logging.getLogger(__name__)

_READERS = 16
"""Threads that look at Items: in a bucket each takes an answer's time."""


@dataclass(frozen=True)
class Job:
    """What a run is going to do.

    Parameters
    ----------
    plans
        One an AOI, with every slice found.
    todo
        One a slice that is to be made.
    skipped
        Ids of the slices that are there already, made of the same scenes by the same settings.
    digest
        See `overwrite.job_digest`.
    unusable
        Slices that cannot be made: they fail without being tried.
    """

    config: JobConfig
    output: Output
    plans: tuple[Plan, ...]
    todo: tuple[Plan, ...]
    skipped: tuple[str, ...]
    digest: str = ""
    unusable: tuple[UnusableSlice, ...] = ()

    @property
    def total(self) -> int:
        """How many slices are to be made, or to fail."""
        return len(self.todo) + len(self.unusable)

    def without(self, unusable: Iterable[UnusableSlice]) -> Self:
        """Give the job that does not try some of its slices, for they cannot be made."""
        found = {each.id: each for each in unusable}
        todo = tuple(plan for plan in self.todo if plan.slices[0].id not in found)
        return replace(self, todo=todo, unusable=(*self.unusable, *found.values()))


def plan_job(config: JobConfig, output: Output) -> Job:
    """Decide what is to be made, without reading a pixel.

    Raises
    ------
    UsageError
        If a setting or the AOI cannot be.
    SearchError
        If the catalogue does not give its scenes.
    """
    canonical_bands(config.cube.bands)
    aois = read_aois(config.job.aoi, config.job.aoi_id)
    catalogue = open_catalogue(config.search, config.read.timeout_s)
    digest, sizes = job_digest(config), output.sizes()
    overwritten = _overwritten(config, output, digest)
    plans, todo, skipped = [], [], []
    for aoi in aois:
        items = find_scenes(aoi, config.search, catalogue, partial(lean, config=config.cube))
        plan = narrow(make_plan(items, aoi, config.cube), config.search)
        log.info("%s: %d scenes, %d time slices", aoi.id, len(items), len(plan.slices))
        plans.append(plan)
        for each, state in zip(plan.slices, _states(plan, output, sizes, config.cube.bands), strict=True):
            if state == "made" and (not config.job.overwrite or each.id in overwritten):
                skipped.append(each.id)
                continue
            if state == "other" and not config.job.overwrite:
                log.info("%s: will be made again, for its scenes or settings have changed", each.id)
            todo.append(replace(plan, slices=(each,)))
    # Slices of one scene behind one another: tiles that two areas share are still there.
    todo.sort(key=lambda plan: plan.slices[0].time)
    unusable = tuple(each for plan in plans for each in plan.unusable)
    return Job(config, output, tuple(plans), tuple(todo), tuple(skipped), digest, unusable)


def _overwritten(config: JobConfig, output: Output, digest: str) -> frozenset[str]:
    """Name the slices that an --overwrite of this job, which was stopped, has made already."""
    begun = interrupted(output, digest)
    if begun is None:
        return frozenset()
    if config.job.overwrite:
        path = f"{output.place.address}/{OVERWRITE}"
        log.warning("%s: %s; this run makes the others (delete %s to begin anew)", config.job.out, begun, path)
    else:
        log.warning("%s: %s; the others are as before (--overwrite makes them, too)", config.job.out, begun)
    return frozenset(begun.slices)


def without_overwritten(job: Job) -> Job:
    """Leave out what another run of the same --overwrite has made since the job was planned."""
    begun = interrupted(job.output, job.digest) if job.config.job.overwrite else None
    if begun is None:
        return job
    todo: list[Plan] = []
    made: list[Plan] = []
    bands = job.config.cube.bands
    for plan in job.todo:
        (each,) = plan.slices
        is_made = each.id in begun.slices and job.output.state(plan.aoi.id, each.id, each.recipe, bands) == "made"
        (made if is_made else todo).append(plan)
    return replace(job, todo=tuple(todo), skipped=(*job.skipped, *(plan.slices[0].id for plan in made)))


def _states(plan: Plan, output: Output, sizes: Mapping[str, int], bands: tuple[str, ...]) -> Iterator[State]:
    with ThreadPoolExecutor(_READERS) as threads:
        yield from threads.map(lambda each: _state(plan.aoi.id, each, output, sizes, bands), plan.slices)


def _state(aoi_id: str, each: TimeSlice, output: Output, sizes: Mapping[str, int], bands: tuple[str, ...]) -> State:
    made = output.made(aoi_id, each.id)
    if made is None:
        return "none"
    if (made.recipe, made.bands) != (each.recipe, bands):
        return "other"
    if flaw := made.flaw(sizes):
        log.warning("%s: will be made again, for %s", each.id, flaw)
        return "none"
    return "made"


@dataclass(frozen=True)
class Forecasts:
    """What the slices of a job take, by id; and those that turn out to be unusable."""

    costs: dict[str, Cost]
    unusable: tuple[UnusableSlice, ...] = ()


def forecast(job: Job, headers: bool) -> Forecasts:
    """Predict what the slices of a job take.

    Parameters
    ----------
    headers
        Read the headers of all files, so that it is exact; else it goes by their items.
    """
    if not job.todo:
        return Forecasts({})
    from s2cube.cost import Forecast

    predicting, costs, unusable = Forecast(job.config, headers), {}, []
    for plan in job.todo:
        (each,) = plan.slices
        try:
            costs[each.id] = predicting.of(plan)
        except SliceError as error:
            ids = tuple(scene.id for scene in each.scenes)
            unusable.append(UnusableSlice(each.id, ids, error, each.time, each.end))
    return Forecasts(costs, tuple(unusable))
