"""Start a Dask cluster on this machine whose workers do not import the user's script."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any

import dask.config
from dask.system import CPU_COUNT
from distributed import LocalCluster, Nanny

from s2cube.cluster.own_process import ARENAS, MOST_ARENAS
from s2cube.config.sections import ClusterSection

_PROFILE = "distributed.worker.profile.enabled"
"""Python below 3.11.9 may deadlock when a profiler inspects its threads (CPython issue 106883). The profile is not
needed: it is lost when the cluster ends with the run."""

_ENVIRONMENT = "distributed.nanny.pre-spawn-environ"
"""Environment variables of new workers."""

_TRIM = "MALLOC_TRIM_THRESHOLD_"
"""Dask sets it, so that glibc returns freed memory at once. Then every large array is mapped anew, and its pages are
faults: the median of 24 days of a county needs 1.9 times the CPU time (``benchmarks/composites.py``)."""

_ORIGIN = ("__file__", "__spec__")
"""Attributes of the main module from which a new process learns what it must import."""

_hiding = threading.Lock()
_hidden: dict[str, Any] = {}
_users = 0


@contextmanager
def main_hidden() -> Iterator[None]:
    """Start processes that do not import the main module of this process, for the duration of a block.

    Python imports the user's script in every process that it spawns. The functions of s2cube do not need it. Without
    the import a script may call `run` without ``if __name__ == "__main__":``, and workers start sooner.
    """
    global _users
    main = vars(sys.modules["__main__"])
    with _hiding:
        if not _users:
            _hidden.update({name: main[name] for name in _ORIGIN if name in main})
            main.pop("__file__", None)
            main["__spec__"] = None
        _users += 1
    try:
        yield
    finally:
        with _hiding:
            _users -= 1
            if not _users:
                main.update(_hidden)
                _hidden.clear()


class _Nanny(Nanny):
    """Starts a worker process, also in place of one that has died, without the user's script."""

    async def instantiate(self) -> Any:
        with main_hidden():
            return await super().instantiate()


def start_here(config: ClusterSection, tasks: int) -> LocalCluster:
    """Start a cluster on this machine, with at most one worker per task. Ctrl-C does not reach its processes.

    Each worker is a new process that imports all libraries. Two workers that are forked from one server, which has
    imported them once, need half of the CPU time, but start no sooner if two cores are free. The server is not used: it
    would fork with threads of native libraries, it would keep the environment that it started with, and a process has
    only one such server, which also serves the user's own code.
    """
    # A terminal sends Ctrl-C to all processes of a command. Workers must ignore it, because this process ends them.
    # A process inherits the signal mask of the thread that starts it. The resource tracker removes the mask when it
    # starts, so it is started first.
    resource_tracker.ensure_running()
    old_mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with dask.config.set({_PROFILE: False, _ENVIRONMENT: _worker_environment()}):
            return LocalCluster(
                n_workers=min(config.workers_on(CPU_COUNT), tasks),
                threads_per_worker=config.threads_on(CPU_COUNT),
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                silence_logs=logging.CRITICAL,
                worker_class=_Nanny,
            )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old_mask)


def _worker_environment() -> dict[str, Any]:
    variables = {name: value for name, value in dask.config.get(_ENVIRONMENT, {}).items() if name != _TRIM}
    return {**variables, ARENAS: MOST_ARENAS}


def kill_workers(cluster: LocalCluster) -> None:
    """Kill the workers of a cluster of `start_here`. Their unfinished tasks are not needed."""
    for nanny in cluster.workers.values():
        nanny.auto_restart = False
        if nanny.pid:
            os.kill(nanny.pid, signal.SIGKILL)
