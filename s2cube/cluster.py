"""A Dask client from configuration: the only file that knows distributed."""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

import dask.config
from dask.system import CPU_COUNT
from distributed import Client, LocalCluster, as_completed

from s2cube.config import ClusterSection
from s2cube.errors import ClusterError

log = logging.getLogger(__name__)

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")

_CONNECT_TIMEOUT_S = 10
_WORKER_SETTINGS = {"distributed.worker.profile.enabled": False}
"""Python below 3.11.9 may lock up when a profiler looks at its threads (its issue 106883), and nobody looks at this
profile: the cluster goes with the run."""

_IN_FLIGHT_PER_THREAD = 2
"""Tasks a thread has at hand: one it computes, one that is on its way to it."""


@contextmanager
def open_client(config: ClusterSection, tasks: int) -> Iterator[Client]:
    """Connect to the configured scheduler, or start a cluster on this machine for as long as it is needed.

    By default that is one process for every four cores, and two threads a core: slices wait for answers, and starting
    processes takes CPU time and memory. On two cores and 50 ms a request, for 12 slices, one process of four threads
    took 1.12 of the wall time and 1.08 of the CPU time of two processes of one thread each
    (``benchmarks/workers.py``): what it saves in starting it loses where threads wait for each other. But one process
    fetches a tile that two slices need once, two fetch it twice. It is a process of its own, not threads of the
    caller's, so that a worker that dies or leaks is replaced.

    Parameters
    ----------
    tasks
        How many there will be; no more workers than that are started.

    Raises
    ------
    ClusterError
        If there is no scheduler at the address.
    """
    if config.scheduler is not None:
        try:
            client = Client(config.scheduler, timeout=_CONNECT_TIMEOUT_S)
        except (OSError, ValueError) as error:
            raise ClusterError(
                config.scheduler, f"no Dask scheduler answers ({error})", "Check --scheduler, as in tcp://host:8786"
            ) from None
        with client:
            if not client.nthreads():
                log.warning("%s has no worker yet: waiting for one", config.scheduler)
            yield client
        return
    with (
        dask.config.set(_WORKER_SETTINGS),
        LocalCluster(
            n_workers=min(config.workers_on(CPU_COUNT), tasks),
            threads_per_worker=config.threads_on(CPU_COUNT),
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.ERROR,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def compute(
    client: Client, function: Callable[[_Task], _Result], tasks: Iterable[_Task]
) -> Iterator[tuple[_Task, _Result | BaseException]]:
    """Compute a function of each task, in any order, a bounded number at a time.

    Yields
    ------
    The task, and its result or what it raised.
    """
    todo = iter(tasks)
    threads = max(1, sum(client.nthreads().values()))
    at_hand = {}
    running = as_completed()
    for task in islice(todo, threads * _IN_FLIGHT_PER_THREAD):
        at_hand[future := client.submit(function, task, pure=False)] = task
        running.add(future)
    for future in running:
        for task in islice(todo, 1):
            at_hand[more := client.submit(function, task, pure=False)] = task
            running.add(more)
        error = future.exception()
        yield at_hand.pop(future), future.result() if error is None else error
