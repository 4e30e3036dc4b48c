"""Compute the images of a planned job, and write the catalogue.

Modules that load xarray or Dask are imported inside functions, so that planning and searching start quickly.
"""

import logging
import math
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

from s2cube.cluster.early import workers_starting
from s2cube.cluster.own_process import importing
from s2cube.cluster.this_process import is_worker
from s2cube.config.sections import ClusterSection, JobConfig
from s2cube.fetch.traffic import Traffic
from s2cube.jobs._overwrite import journal
from s2cube.jobs.forecasts import batches_of, forecast
from s2cube.jobs.job import Job
from s2cube.jobs.recorder import Recorder, SliceLog, failure_of
from s2cube.jobs.results import Summary
from s2cube.storage.layout import CATALOG
from s2cube.storage.lease import Lease
from s2cube.storage.record import Progress
from s2cube.workers.results import SliceResult

if TYPE_CHECKING:
    from s2cube.cluster.policy import Policy
    from s2cube.cluster.stream import Stream
    from s2cube.cluster.threads import Threads

log = logging.getLogger(__name__)

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


class Watch(Protocol):
    """Observes a run, for example to show its progress."""

    def begin(self, job: Job) -> None:
        """Receive the job, after the search."""

    def advance(self, result: SliceResult) -> None:
        """Receive the final result of a slice."""


def run_job(job: Job, lease: Lease, *observers: Watch | None) -> Summary:
    """Compute the slices of a planned job. This process must have the lease of the output.

    Parameters
    ----------
    observers
        Their methods are called when the job begins and after each slice. None is ignored.

    Raises
    ------
    S2CubeError
        As `runs.run.run` does.
    """
    forecasts = forecast(job, headers=False)
    job = replace(job.without(forecasts.unusable), threads=forecasts.threads)
    watches: list[Watch] = [SliceLog(), *filter(None, observers)]
    for each in watches:
        each.begin(job)
    at_most = {f"{key}_at_most": value for key, value in asdict(forecasts.at_most).items()}
    expected = asdict(forecasts.total) | at_most
    results = []
    with closing(_make_slices(job, lease)) as final_results:
        for result in final_results:
            for each in watches:
                each.advance(result)
            # An observer has the rows. They would fill the memory here.
            results.append(replace(result, rows=None))
    summary = _summary(job, results, expected)
    lease.progress = replace(
        lease.progress, requests=summary.requests, bytes=summary.bytes, expected_requests=expected["requests"],
        expected_bytes=expected["bytes"],
    )  # fmt: skip
    return summary


def _make_slices(job: Job, lease: Lease) -> Generator[SliceResult, None, None]:
    """Yield the final result of each slice of a job; write the catalogue at the end."""
    from s2cube.inventory.catalog import catalog_at_end
    from s2cube.inventory.renewal import renew

    lease.progress = Progress(total=job.total, failed=len(job.unusable), skipped=len(job.skipped))
    lease.progress = replace(lease.progress, rejected=len(job.rejected))
    todo = [task.id for task in job.todo]
    touched = {task.aoi.id for task in job.todo} | {aoi_id for aoi_id, _ in job.older}
    changed = touched if lease.follows_an_end else None
    with catalog_at_end(lease.output, changed):
        for each in job.unusable:
            yield SliceResult(each.id, failure=failure_of(each))
        yield from job.rejected
        renew(lease.output, job.older)
        if not todo:
            Recorder(lease).begin(job)
        with journal(lease.output, job.digest, todo) if job.config.job.overwrite else nullcontext() as progress:
            for result in _compute(job, lease) if todo else ():
                if progress:
                    progress.add(result)
                yield result


def _compute(job: Job, lease: Lease) -> Iterator[SliceResult]:
    """Compute slices; record and yield the final result of each. Tests replace this function."""
    from s2cube.jobs.slice_policy import SlicePolicy
    from s2cube.workers.worker import compute_batch

    recorder = Recorder(lease)
    function = partial(compute_batch, config=job.config.for_workers(), output=lease.output)
    policy = SlicePolicy(job.config.job.slice_retries)
    tasks = [(batch.id, batch) for batch in batches_of(job)]
    with computer(job.config.cluster, job.threads, function, tasks, policy) as computed:
        recorder.begin(job)
        for batch, results in computed:
            # Batches have about the same number of slices.
            running = math.ceil(computed.running * len(job.todo) / len(tasks))
            yield from recorder.record(batch, results, running)


def early_workers(config: JobConfig, lease: Lease) -> AbstractContextManager[None]:
    """Start workers for a block that first searches, if the settings name their number and the output is empty.

    Otherwise it is not known before the search whether the job needs workers.
    """
    cluster = config.cluster
    is_elsewhere = cluster.scheduler or cluster.cluster_class or is_worker()
    if not cluster.workers or is_elsewhere or lease.output.destination.read(CATALOG) is not None:
        return nullcontext()
    return workers_starting(cluster)


@contextmanager
def computer(
    config: ClusterSection,
    threads: int,
    function: Callable[[_Task], _Result],
    tasks: Sequence[tuple[str, _Task]],
    policy: "Policy[_Task, _Result]",
) -> Iterator["Stream[_Task, _Result] | Threads[_Task, _Result]"]:
    """Yield what computes the tasks of a job: a number of threads of this process, or a cluster if it is 0."""
    if threads:
        with importing():
            import dask.config

            from s2cube.cluster.threads import Threads
            from s2cube.workers.memory import gdal_cache_limited
            from s2cube.workers.worker import load_modules

            load_modules()
        log.info("computing in this process, %d at a time", threads)
        # Otherwise Dask loads distributed only to learn that there is no client.
        with gdal_cache_limited(), dask.config.set({"array.rechunk.method": "tasks"}):
            yield Threads(function, tasks, policy, threads)
    else:
        from s2cube.cluster.client import open_client
        from s2cube.cluster.stream import Stream

        with open_client(config, len(tasks)) as client:
            yield Stream(client, function, tasks, policy, config.worker_wait_s)


def _summary(job: Job, results: Iterable[SliceResult], expected: dict[str, int]) -> Summary:
    ordered = sorted(results, key=lambda result: result.slice)
    traffic = sum((result.traffic for result in ordered), Traffic())
    return Summary(
        written=[result.path for result in ordered if result.path],
        skipped=list(job.skipped),
        rejected=[{"slice": each.slice, "reason": each.rejected} for each in ordered if each.rejected],
        failed=[
            {"slice": each.slice, "error": each.failure.error, "may_pass": each.may_pass}
            for each in ordered
            if each.failure
        ],
        requests=traffic.requests,
        bytes=traffic.bytes,
        expected=expected,
    )
