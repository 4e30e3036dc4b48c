"""The order of things: search, plan, images on a cluster, catalogue.

What needs pixels is imported where pixels are read: deciding and searching must not wait for it.
"""

import logging
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, nullcontext
from dataclasses import asdict, replace
from functools import partial
from typing import Any, Protocol

from s2cube.config.sections import JobConfig
from s2cube.config.times import timestamp
from s2cube.errors import ClusterError, S2CubeError, SliceError, WriteError, redact
from s2cube.fetch import retry
from s2cube.fetch.traffic import Traffic
from s2cube.jobs._overwrite import journal
from s2cube.jobs._worker import failed, make_slice
from s2cube.jobs.job import Job, forecast, plan_job
from s2cube.jobs.results import SliceResult, Summary
from s2cube.scenes.time_slice import Plan, UnusableSlice
from s2cube.storage.failures import SliceFailure
from s2cube.storage.lease import Lease, held
from s2cube.storage.output import Output
from s2cube.storage.progress import Progress

log = logging.getLogger(__name__)


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
        If the job could not be done: a setting or the AOI cannot be, the catalogue does not give its scenes, there is
        no cluster or it goes away, nothing can be written any more, or another run writes there. A failed slice raises
        nothing: it stands in the summary and in ``failures.jsonl``.
    """
    with held(Output.at(config.job.out)) as lease:
        return run_job(plan_job(config, lease.output), lease, watch)


def run_job(job: Job, lease: Lease, watch: Watch | None = None) -> Summary:
    """Do what a job says, in an output that is held for it; raises as `run` does."""
    forecasts = forecast(job, headers=False)
    job = job.without(forecasts.unusable)
    if watch:
        watch.begin(job)
    expected = sum((cost.traffic for cost in forecasts.costs.values()), Traffic())
    results = []
    with closing(_make_slices(job, lease)) as made:
        for result in made:
            results.append(result)
            if watch:
                watch.advance(result)
    return _summarise(job, results, expected)


def _make_slices(job: Job, lease: Lease) -> Generator[SliceResult, None, None]:
    """Make the slices of a job and yield each as it is done or has failed; write the catalogue at the end."""
    from s2cube.output.catalog import write_catalog

    lease.progress = Progress(total=job.total, failed=len(job.unusable), skipped=len(job.skipped))
    todo = [plan.slices[0].id for plan in job.todo]
    changed = {plan.aoi.id for plan in job.todo} if lease.follows_an_end else None
    try:
        yield from map(_failed, job.unusable)
        if not todo:
            _begin(job, lease)
        with journal(lease.output, job.digest, todo) if job.config.job.overwrite else nullcontext() as kept:
            for result in _compute(job, lease) if todo else ():
                if kept:
                    kept.add(result)
                yield result
    except BaseException as error:
        try:
            write_catalog(lease.output, changed)
        except S2CubeError as another:
            if str(another) != str(error):
                log.warning("%s", another)
        raise
    write_catalog(lease.output, changed)


def _begin(job: Job, lease: Lease) -> None:
    """Note that slices are being made: from now on the record is this run's, and old failures no longer count."""
    failures = [_failed(each).failure for each in job.unusable]
    ids = {plan.slices[0].id for plan in job.todo} | {each.id for each in job.unusable} | set(job.skipped)
    lease.output.failures.remove(ids)
    lease.output.failures.add(filter(None, failures))
    lease.progress = replace(lease.progress, began=timestamp())
    lease.heartbeat()


def _failed(each: UnusableSlice) -> SliceResult:
    failure = SliceFailure(each.id, each.scenes, each.error.asset, str(each.error), timestamp())
    return SliceResult(each.id, failure=failure)


def _compute(job: Job, lease: Lease) -> Iterator[SliceResult]:
    from s2cube.jobs._cluster import open_client
    from s2cube.jobs._stream import Stream

    make = partial(make_slice, config=job.config.for_workers(), output=lease.output)
    tries: Counter[str] = Counter()
    with open_client(job.config.cluster, len(job.todo)) as client:
        _begin(job, lease)
        tasks = ((plan.slices[0].id, plan) for plan in job.todo)
        stream = Stream(client, make, tasks, job.config.cluster.worker_wait_s)
        for slice_id, plan, result in stream:
            tries[slice_id] += 1
            outcome = _judge(plan, result, last=tries[slice_id] > job.config.job.slice_retries)
            if outcome is None:
                pause_s = retry.SLICES.pause_s(tries[slice_id])
                log.info(
                    "%s: will be made again in %.0f s, for this may pass: %s",
                    slice_id, pause_s, _why(result), extra=_facts(plan),
                )  # fmt: skip
                stream.again(slice_id, plan, pause_s)
                continue
            outcome = _bring_home(plan, outcome, lease.output)
            _tell(plan, outcome, lease.output)
            if outcome.failure:
                lease.output.failures.add([outcome.failure])
            lease.progress = _counted(lease.progress, outcome, stream.running)
            yield outcome


def _judge(plan: Plan, result: SliceResult | BaseException, last: bool) -> SliceResult | None:
    """Tell what became of a slice; None where it is to be made again.

    Raises
    ------
    S2CubeError
        If it makes no sense to go on with any slice.
    """
    from s2cube.jobs._stream import is_loss

    if isinstance(result, ImportError):
        raise ClusterError("a worker", f"cannot load s2cube ({result})", "Install s2cube there, as it is here")
    if isinstance(result, WriteError) and not last:
        return None
    if isinstance(result, S2CubeError) and not isinstance(result, SliceError):
        raise result
    if isinstance(result, BaseException):
        outcome = failed(plan, result)
        passing = is_loss(result)
    else:
        outcome, passing = result, result.may_pass
    return None if passing and not last else outcome


def _bring_home(plan: Plan, result: SliceResult, output: Output) -> SliceResult:
    """Write what a worker could not, for it does not see the folder."""
    if not result.files:
        return result
    with output.destination.staging() as folder:
        try:
            for name, content in result.files.items():
                (folder / name).write_bytes(content)
        except OSError as error:
            problem = f"cannot be written ({error.strerror or error})"
            raise WriteError(f"{folder}/{result.slice}", problem, "Make room there, then run again") from None
        path = output.publish(plan.aoi.id, result.slice, folder)
    return replace(result, path=path, files={})


def _why(result: SliceResult | BaseException) -> str:
    if isinstance(result, BaseException):
        return redact(f"{type(result).__name__}: {result}")
    return result.failure.error if result.failure else ""


def _facts(plan: Plan) -> dict[str, Any]:
    """Say what a line of the log is about."""
    (time_slice,) = plan.slices
    return {"slice": time_slice.id, "scenes": [scene.id for scene in time_slice.scenes]}


def _tell(plan: Plan, result: SliceResult, output: Output) -> None:
    facts = _facts(plan)
    for note in result.notes:
        log.debug("%s: %s", result.slice, note, extra=facts)
    if result.doubtful:
        log.warning(
            "%s: the pixels of %s disagree with what its item says of the offset; if they are off by 0.1, "
            "make the slice again with --offset none or --offset -1000",
            result.slice, ", ".join(result.doubtful), extra=facts,
        )  # fmt: skip
    if result.failure:
        log.error("%s failed: %s", result.slice, result.failure.error, extra=facts | {"asset": result.failure.asset})
    elif result.rejected:
        log.info("%s rejected: %s", result.slice, result.rejected, extra=facts)
        if output.state(plan.aoi.id, result.slice, "", ()) != "missing":
            log.warning("%s is rejected, but what was made of it before, otherwise, stays", result.slice, extra=facts)
    else:
        log.debug("%s written", result.slice, extra=facts)


def _counted(progress: Progress, result: SliceResult, running: int) -> Progress:
    return replace(
        progress,
        written=progress.written + bool(result.path),
        failed=progress.failed + bool(result.failure),
        rejected=progress.rejected + bool(result.rejected),
        running=running,
    )


def _summarise(job: Job, results: Iterable[SliceResult], expected: Traffic) -> Summary:
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
        expected=asdict(expected),
    )
