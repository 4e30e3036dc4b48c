"""What a run is going to do: search and plan, held against what is there."""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

from s2cube.aoi import read_aois
from s2cube.config import JobConfig
from s2cube.errors import SliceError
from s2cube.model import Plan
from s2cube.outcome import Cost
from s2cube.output import Output, State
from s2cube.plan import lean, make_plan
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
    """

    config: JobConfig
    output: Output
    plans: tuple[Plan, ...]
    todo: tuple[Plan, ...]
    skipped: tuple[str, ...]


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
    plans, todo, skipped = [], [], []
    for aoi in aois:
        items = find_scenes(aoi, config.search, catalogue, partial(lean, config=config.cube))
        plan = make_plan(items, aoi, config.cube)
        log.info("%s: %d scenes, %d time slices", aoi.id, len(items), len(plan.slices))
        plans.append(plan)
        for each, state in zip(plan.slices, _states(plan, output, config), strict=True):
            if state == "made" and not config.job.overwrite:
                skipped.append(each.id)
                continue
            if state == "other" and not config.job.overwrite:
                log.info("%s: will be made again, for its scenes or settings have changed", each.id)
            todo.append(replace(plan, slices=(each,)))
    # Slices of one scene behind one another: tiles that two areas share are still there.
    todo.sort(key=lambda plan: plan.slices[0].time)
    return Job(config, output, tuple(plans), tuple(todo), tuple(skipped))


def _states(plan: Plan, output: Output, config: JobConfig) -> Iterator[State]:
    with ThreadPoolExecutor(_READERS) as threads:
        yield from threads.map(
            lambda each: output.state(plan.aoi.id, each.id, each.recipe, config.cube.bands), plan.slices
        )


def forecast(job: Job, headers: bool) -> dict[str, Cost]:
    """Predict what the slices of a job take, by id; those that are sure to fail are named, and left out.

    Parameters
    ----------
    headers
        Read the headers of all files, so that it is exact; else it goes by their items.
    """
    if not job.todo:
        return {}
    from s2cube.cost import Forecast

    predicting, costs = Forecast(job.config, headers), {}
    for plan in job.todo:
        slice_id = plan.slices[0].id
        try:
            costs[slice_id] = predicting.of(plan)
        except SliceError as error:
            log.info("%s will fail: %s", slice_id, error)
    return costs
