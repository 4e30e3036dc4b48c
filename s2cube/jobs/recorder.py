"""Record the results of slices in the output and in the log."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from s2cube.config.times import timestamp
from s2cube.errors import WriteError
from s2cube.jobs.job import Job
from s2cube.kernels.indices import LARGEST_INT16
from s2cube.scenes.time_slice import Task, UnusableSlice
from s2cube.storage.failures import Rejection, SliceFailure
from s2cube.storage.lease import Lease
from s2cube.storage.output import Output
from s2cube.workers.results import SliceResult

if TYPE_CHECKING:
    from s2cube.workers.batches import Batch

log = logging.getLogger(__name__)


class Recorder:
    """Records results in an output: files, the list of failures, and the progress of the run."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease

    def begin(self, job: Job) -> None:
        """Record that slices are being computed, and replace their entries in the list of failures."""
        ids = {task.id for task in job.todo} | {each.id for each in job.unusable} | set(job.skipped)
        self._lease.output.failures.remove(ids)
        self._lease.output.rejections.remove({task.id for task in job.todo})
        self._lease.output.failures.add(map(failure_of, job.unusable))
        self._lease.progress = replace(self._lease.progress, began=timestamp())
        self._lease.heartbeat()

    def record(self, batch: "Batch", results: Sequence[SliceResult], running: int) -> Iterator[SliceResult]:
        """Record the final results of slices of a batch; yield them with the paths of their COGs.

        Parameters
        ----------
        running
            Number of slices that are being computed, as far as this process knows.
        """
        tasks = {task.id: task for task in batch.tasks}
        self._lease.output.rejections.add(
            Rejection(each.slice, each.rejected, each.cloud_percent, tasks[each.slice].slice.recipe)
            for each in results
            if each.rejected
        )
        areas = {task.id: task.aoi.id for task in batch.tasks}
        for result in results:
            yield self._record(areas[result.slice], result, running)

    def _record(self, aoi_id: str, result: SliceResult, running: int) -> SliceResult:
        if result.files:
            result = put_files(aoi_id, result, self._lease.output)
        if result.all_failures:
            self._lease.output.failures.add(result.all_failures)
        before = self._lease.progress
        after = replace(
            before,
            written=before.written + result.written,
            failed=before.failed + len(result.all_failures),
            rejected=before.rejected + bool(result.rejected),
        )
        self._lease.progress = replace(after, running=min(running, after.total - after.over))
        return result


class SliceLog:
    """Logs results. It observes a run, as a progress bar does."""

    def begin(self, job: Job) -> None:
        """Receive the job."""
        self._job = job
        self._tasks = {task.id: task for task in job.todo}

    def advance(self, result: SliceResult) -> None:
        """Log the result of a slice. Unusable slices were reported before."""
        task = self._tasks.get(result.slice)
        if task is None:
            return
        facts = log_facts(task)
        for note in result.notes:
            log.debug("%s: %s", result.slice, note, extra=facts)
        if result.found.doubtful:
            log.warning(
                "%s: the pixels of %s contradict the offset that is added to them; if the reflectance is wrong by 0.1, "
                "recompute the slice with --offset none or --offset -1000",
                result.slice, ", ".join(result.found.doubtful), extra=facts,
            )  # fmt: skip
        if result.found.beyond_int16:
            cells = ", ".join(f"{count} of {name}" for name, count in result.found.beyond_int16.items())
            log.warning(
                "%s: cells with an index beyond ±%g become nodata, because int16 cannot store it: %s; --dtype float32 "
                "keeps them",
                result.slice, LARGEST_INT16, cells, extra=facts,
            )  # fmt: skip
        if result.failure:
            facts |= {"asset": result.failure.asset}
            log.error("%s failed: %s", result.slice, result.failure.error, extra=facts)
        elif result.rejected:
            log.info("%s rejected: %s", result.slice, result.rejected, extra=facts)
            if self._has_image(task):
                log.warning("%s is rejected, but its image from an earlier run remains", result.slice, extra=facts)
        else:
            log.debug("%s written", result.slice, extra=facts)

    def _has_image(self, task: Task) -> bool:
        recipe, bands = task.slice.recipe, self._job.config.cube.image_bands
        return self._job.output.state(task.aoi.id, task.id, recipe, bands) != "missing"


def failure_of(unusable: UnusableSlice) -> SliceFailure:
    """Return the entry in the list of failures for a slice that cannot be computed."""
    error = unusable.error
    absent = error.scene if error.is_absent else ""
    return SliceFailure(unusable.id, unusable.scenes, error.asset, str(error), timestamp(), absent=absent)


def log_facts(task: Task) -> dict[str, Any]:
    """Return the slice and the scenes of a log line as extra facts."""
    return {"slice": task.id, "scenes": [scene.id for scene in task.scenes]}


def put_files(aoi_id: str, result: SliceResult, output: Output) -> SliceResult:
    """Put the files into the output that a worker has returned because it cannot reach the output."""
    with output.destination.staging() as folder:
        try:
            for name, content in result.files.items():
                (folder / name).write_bytes(content)
        except OSError as error:
            problem = f"cannot be written ({error.strerror or error})"
            raise WriteError(f"{folder}/{result.slice}", problem, "Free disk space there, then run again") from None
        path = output.publish(aoi_id, result.slice, folder)
    return replace(result, path=path, files={})
