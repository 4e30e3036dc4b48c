"""The order of things: search, plan, images on a cluster, catalogue.

What needs pixels is imported where pixels are read: deciding and searching must not wait for it.
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Protocol

from s2cube.aoi import read_aois
from s2cube.config import JobConfig
from s2cube.errors import SliceError
from s2cube.model import Cost, Plan, SliceResult, Summary, Traffic
from s2cube.output import Output
from s2cube.plan import make_plan
from s2cube.provider import canonical_bands
from s2cube.search import find_scenes, open_catalogue
from s2cube.worker import failed, make_slice

log = logging.getLogger(__name__)


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


def plan_job(config: JobConfig) -> Job:
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
    output = Output(config.job.out)
    catalogue = open_catalogue(config.search)
    plans, todo, skipped = [], [], []
    for aoi in aois:
        items = find_scenes(aoi, config.search, catalogue)
        plan = make_plan(items, aoi, config.cube)
        log.info("%s: %d scenes, %d time slices", aoi.id, len(items), len(plan.slices))
        plans.append(plan)
        for each in plan.slices:
            made = output.is_made(aoi.id, each.id, each.recipe, config.cube.bands)
            if made and not config.job.overwrite:
                skipped.append(each.id)
            else:
                if output.file(aoi.id, each.id, ".json").exists() and not config.job.overwrite:
                    log.info("%s: will be made again, for its scenes or settings have changed", each.id)
                todo.append(replace(plan, slices=(each,)))
    # Slices of one scene behind one another: tiles that two areas share are still there.
    todo.sort(key=lambda plan: plan.slices[0].time)
    return Job(config, output, tuple(plans), tuple(todo), tuple(skipped))


def forecast(job: Job, headers: bool) -> dict[str, Cost]:
    """Predict what the slices of a job take, by id; those that are sure to fail are named, and left out.

    Parameters
    ----------
    headers
        Read the headers of all files, so that it is exact; else it goes by their items.
    """
    from s2cube.cost import Forecast

    predicting, costs = Forecast(job.config, headers), {}
    for plan in job.todo:
        slice_id = plan.slices[0].id
        try:
            costs[slice_id] = predicting.of(plan)
        except SliceError as error:
            log.info("%s will fail: %s", slice_id, error)
    return costs


def run_job(job: Job) -> Iterator[SliceResult]:
    """Make the slices of a job and yield each as it is done or has failed; write the catalogue at the end.

    A slice that fails does not stop the others; why it failed goes to ``failures.jsonl``.

    Raises
    ------
    ClusterError
        If there is no Dask cluster to compute on.
    """
    job.output.forget_failures({plan.slices[0].id for plan in job.todo} | set(job.skipped))
    from s2cube.catalog import write_catalog

    try:
        if job.todo:
            yield from _compute(job)
    finally:
        write_catalog(job.output)


def _compute(job: Job) -> Iterator[SliceResult]:
    from s2cube.cluster import compute, open_client

    make = partial(make_slice, config=job.config, output=Output(job.output.root.absolute()))
    with open_client(job.config.cluster, len(job.todo)) as client:
        for plan, result in compute(client, make, job.todo):
            outcome = failed(plan, result) if isinstance(result, BaseException) else result
            for note in outcome.notes:
                log.debug("%s", note)
            if outcome.failure:
                job.output.note_failure(outcome.failure)
            if outcome.doubtful:
                log.warning(
                    "%s: the pixels of %s disagree with what its item says of the offset; if they are off by 0.1, "
                    "make the slice again with --offset none or --offset -1000",
                    outcome.slice,
                    ", ".join(outcome.doubtful),
                )
            if outcome.rejected and job.output.file(plan.aoi.id, outcome.slice, ".json").exists():
                log.warning("%s is rejected, but what was made of it before, otherwise, stays", outcome.slice)
            yield outcome


class Watch(Protocol):
    """Who wants to be told how a run goes."""

    def begin(self, job: Job) -> None:
        """The search is over; this is what will be made."""

    def advance(self, result: SliceResult) -> None:
        """A slice is done or has failed."""


def run(config: JobConfig, watch: Watch | None = None) -> Summary:
    """Do a whole job: search, cube, mask, clip, and one COG a time slice.

    A script that calls this wants ``if __name__ == "__main__":`` around it: worker processes import the script anew.

    Raises
    ------
    S2CubeError
        If the job could not be done. A failed slice raises nothing: it stands in the summary.
    """
    Output(config.job.out).prepare()
    job = plan_job(config)
    if watch:
        watch.begin(job)
    expected = sum((cost.traffic for cost in forecast(job, headers=False).values()), Traffic())
    results = []
    for result in run_job(job):
        results.append(result)
        if watch:
            watch.advance(result)
    return _summarise(job, results, expected)


def _summarise(job: Job, results: Iterable[SliceResult], expected: Traffic) -> Summary:
    ordered = sorted(results, key=lambda result: result.slice)
    traffic = sum((result.traffic for result in ordered), Traffic())
    return Summary(
        written=[result.path for result in ordered if result.path],
        skipped=list(job.skipped),
        rejected=[{"slice": each.slice, "reason": each.rejected} for each in ordered if each.rejected],
        failed=[{"slice": each.slice, "error": each.failure.error} for each in ordered if each.failure],
        requests=traffic.requests,
        bytes=traffic.bytes,
        expected=asdict(expected),
    )
