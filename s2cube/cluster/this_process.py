"""What this process is for Dask: a worker, a client, or neither; and its memory. No function loads distributed.

A process is a worker or a client only if something has imported distributed. The import takes a tenth of a second, so
these functions do not import it where the answer is already known.
"""

import gc
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ctypes import CDLL
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distributed import Client

ARENAS = "MALLOC_ARENA_MAX"
"""Environment variable: maximum number of glibc's arenas."""

MOST_ARENAS = 2
"""Threads allocate memory in arenas, and each arena keeps what they free. By default glibc has 8 arenas per core. With
two, the median of 24 days of a county needs 0.73 of the memory, and no more time (``benchmarks/composites.py``)."""

_M_ARENA_MAX = -8
"""From glibc's malloc.h."""

_this_thread = threading.local()


def limit_arenas() -> None:
    """Limit the arenas of this process, as `ARENAS` does if it is set when a process starts. The user's value is kept.

    It has no effect on arenas that threads have already, and on systems without glibc.
    """
    if sys.platform == "linux" and ARENAS not in os.environ:
        with suppress(OSError, AttributeError):
            CDLL(None).mallopt(_M_ARENA_MAX, MOST_ARENAS)


@contextmanager
def importing() -> Iterator[None]:
    """Import modules in a block. The process must be one that s2cube has started.

    Python looks for garbage again and again while modules define objects, which takes a sixth of the time of imports.
    There is none, and these objects stay until the process ends, so later collections ignore them, too.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


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
