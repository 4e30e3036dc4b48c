"""Decide whether a slice that failed is computed again."""

import logging

from s2cube.cluster.policy import Retry, is_worker_loss
from s2cube.errors import ClusterError, S2CubeError, SliceError, WriteError, redact
from s2cube.fetch import retry
from s2cube.jobs._recorder import log_facts
from s2cube.jobs._worker import failed
from s2cube.jobs.results import SliceResult
from s2cube.scenes.time_slice import Task

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

    def decide(self, task: Task, returned: SliceResult | BaseException, attempt: int) -> SliceResult | Retry:
        """Return the final result of a slice, or a `Retry`.

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
        if attempt <= self._retries and _is_temporary(returned):
            pause_s = retry.SLICES.pause_s(attempt)
            log.info(
                "%s: will be retried in %.0f s, because the problem may be temporary: %s",
                task.id, pause_s, _problem(returned), extra=log_facts(task),
            )  # fmt: skip
            return Retry(pause_s)
        if isinstance(returned, S2CubeError) and not isinstance(returned, SliceError):
            raise returned
        return failed(task, returned) if isinstance(returned, BaseException) else returned


def _is_temporary(returned: SliceResult | BaseException) -> bool:
    if isinstance(returned, BaseException):
        return isinstance(returned, WriteError) or is_worker_loss(returned)
    return returned.may_pass


def _problem(returned: SliceResult | BaseException) -> str:
    if isinstance(returned, BaseException):
        return redact(f"{type(returned).__name__}: {returned}")
    return returned.failure.error if returned.failure else ""
