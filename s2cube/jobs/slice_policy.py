"""Decide whether a slice that failed is computed again."""

import logging
from dataclasses import replace

from s2cube.cluster.policy import Retry, is_worker_loss
from s2cube.errors import ClusterError, S2CubeError, SliceError, WriteError, redact
from s2cube.fetch import retry
from s2cube.fetch.traffic import Traffic
from s2cube.jobs.recorder import log_facts
from s2cube.scenes.time_slice import Task
from s2cube.workers.batches import Batch
from s2cube.workers.results import SliceResult, failed

log = logging.getLogger(__name__)


class SlicePolicy:
    """Retries slices that failed for a reason that may be temporary.

    Parameters
    ----------
    retries
        Maximum number of retries of a slice.
    """

    def __init__(self, retries: int) -> None:
        self._retries = retries

    def decide(
        self, task: Batch, returned: list[SliceResult] | BaseException, attempt: int
    ) -> "list[SliceResult] | Retry[Batch, list[SliceResult]]":
        """Return the final results of the slices of a batch, or a `Retry` of some of them.

        Parameters
        ----------
        returned
            What a worker returned or raised.

        Raises
        ------
        S2CubeError
            If the other slices would fail for the same reason.
        """
        if isinstance(returned, ImportError):
            remedy = "Install the same version of s2cube there as here"
            raise ClusterError("a worker", f"cannot load s2cube ({returned})", remedy)
        if isinstance(returned, BaseException):
            return self._decide_on_error(task, returned, attempt)
        again = {result.slice for result in returned if result.may_pass} if attempt <= self._retries else set()
        if not again:
            return returned
        tasks = tuple(each for each in task.tasks if each.id in again)
        pause_s = retry.SLICES.pause_s(attempt)
        for each in tasks:
            problem = next(result.passing.error for result in returned if result.slice == each.id and result.passing)
            _log_retry(each, pause_s, problem)
        batch = Batch(tasks, attempt + 1)
        final = [each for each in returned if each.slice not in again]
        if final:
            lost = sum((each.traffic for each in returned if each.slice in again), Traffic())
            final[0] = replace(final[0], traffic=final[0].traffic + lost)
        return Retry(pause_s, ((batch.id, batch),), final)

    def _decide_on_error(
        self, batch: Batch, error: BaseException, attempt: int
    ) -> "list[SliceResult] | Retry[Batch, list[SliceResult]]":
        if len(batch.tasks) > 1 and not isinstance(error, S2CubeError):
            # Workers were lost, or there is a bug. Only one of the slices may be the cause.
            return Retry(0, tuple((each.id, Batch((each,), attempt + 1)) for each in batch.tasks))
        if attempt <= self._retries and (isinstance(error, WriteError) or is_worker_loss(error)):
            pause_s = retry.SLICES.pause_s(attempt)
            _log_retry(batch.tasks[0], pause_s, redact(f"{type(error).__name__}: {error}"))
            return Retry(pause_s, ((batch.id, replace(batch, attempt=attempt + 1)),))
        if isinstance(error, S2CubeError) and not isinstance(error, SliceError):
            raise error
        return [failed(task, error) for task in batch.tasks]


def _log_retry(task: Task, pause_s: float, problem: str) -> None:
    message = "%s: will be retried in %.0f s, because the problem may be temporary: %s"
    log.info(message, task.id, pause_s, problem, extra=log_facts(task))
