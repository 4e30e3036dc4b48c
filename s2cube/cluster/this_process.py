"""What this process is for Dask: a worker, a client, or neither. No function loads distributed.

A process is a worker or a client only if something has imported distributed. The import takes a tenth of a second, so
these functions do not import it where the answer is already known.
"""

import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distributed import Client

_this_thread = threading.local()


def is_worker() -> bool:
    """Report whether this thread computes a task of a Dask worker."""
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return False
    try:
        distributed.get_worker()
    except ValueError:
        return False
    return True


def leave_pool() -> None:
    """Let another task use the thread of this task, which waits. This process must be a worker.

    A second call by the same task does nothing. The thread ends with the task, so that no other task inherits this.
    """
    if not getattr(_this_thread, "has_left", False):
        sys.modules["distributed"].secede()
        _this_thread.has_left = True


def task_key() -> str:
    """Return the key of the task that this thread computes. This process must be a worker."""
    return str(sys.modules["distributed"].get_worker().get_current_task())


def is_cancelled(key: str) -> bool:
    """Report whether the task of this key, which this worker computes, was cancelled."""
    task = sys.modules["distributed"].get_worker().state.tasks.get(key)
    return task is None or task.state == "cancelled"


def worker_memory_bytes() -> int | None:
    """Return the memory limit of this worker; None if this process is not a worker, or has no limit."""
    if not is_worker():
        return None
    limit: int | None = sys.modules["distributed"].get_worker().memory_manager.memory_limit
    return limit


def active_client() -> "Client | None":
    """Return the client by which Dask computes in this process; None if it computes in another way, or on a worker."""
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return None
    from dask.base import get_scheduler

    owner = getattr(get_scheduler(), "__self__", None)
    return owner if isinstance(owner, distributed.Client) and not is_worker() else None
