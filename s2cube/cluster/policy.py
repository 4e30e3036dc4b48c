"""Decide which results of many tasks are final, wherever the tasks are computed."""

import sys
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

_Task = TypeVar("_Task")
_AnyTask = TypeVar("_AnyTask", contravariant=True)
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Retry(Generic[_Task, _Result]):
    """The decision to compute a task, or parts of it, again after a pause.

    Parameters
    ----------
    tasks
        Pairs of a unique name and a task that are computed instead of the task; None: the same task.
    final
        Final result of the other parts of the task, if there are any.
    """

    pause_s: float
    tasks: tuple[tuple[str, _Task], ...] | None = None
    final: _Result | None = None


class Policy(Protocol[_AnyTask, _Result]):
    """Decides which results are final."""

    def decide(self, task: _AnyTask, returned: _Result | BaseException, attempt: int) -> _Result | Retry[Any, _Result]:
        """Return the final result of a task, or a `Retry`. An error that this method raises ends all tasks.

        Parameters
        ----------
        returned
            What the function returned or raised.
        attempt
            How often the task has been computed: 1, 2, …
        """


def is_worker_loss(error: BaseException) -> bool:
    """Report whether an error means that workers were lost while they computed a task. The task itself did not fail."""
    # Importing distributed takes a tenth of a second. An error of its types exists only if it is imported.
    distributed = sys.modules.get("distributed")
    return distributed is not None and isinstance(
        error, distributed.KilledWorker | distributed.comm.core.CommClosedError
    )
