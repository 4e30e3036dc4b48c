"""Compute many tasks on a cluster, a bounded number at a time, and retry the tasks that a policy selects."""

import logging
import queue
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, Generic, TypeVar
from uuid import uuid4

from distributed import CancelledError, Client, Future
from distributed.client import ClosedClientError
from distributed.comm.core import CommClosedError

from s2cube.cluster._queue import TaskQueue
from s2cube.cluster._versions import check_versions
from s2cube.cluster.client import submit
from s2cube.cluster.policy import Policy
from s2cube.errors import ClusterError

log = logging.getLogger(__name__)

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")

_IN_FLIGHT_PER_THREAD = 2
"""Number of tasks per thread of a worker: one is computed, while the next one is sent to the worker."""

_LOSSES = (CommClosedError, CancelledError, ClosedClientError, TimeoutError)
"""Errors that are raised when the connection to the scheduler is lost, or when a result is lost with its worker."""

_FETCH_S = 30
"""Seconds to wait for a result before asking whether it still exists."""

_TICK_S = 1
_WARN_EVERY_S = 60
_MOST_LOSSES = 10
"""Maximum number of times that a task may be lost, with its worker or the scheduler. Then the stream fails."""


class Stream(Generic[_Task, _Result]):
    """Call a function with many tasks on a cluster, in any order, a bounded number at a time.

    Iterating yields pairs of a task and its final result. Finished tasks are released, so that the memory of client and
    scheduler is bounded. A task that is lost with its worker, or with the scheduler, is submitted again.

    Parameters
    ----------
    tasks
        Pairs of a unique name and a task. A task is taken when a worker has a free place.
    worker_wait_s
        Time (s) without any worker after which the stream fails.
    """

    def __init__(
        self,
        client: Client,
        function: Callable[[_Task], _Result],
        tasks: Iterable[tuple[str, _Task]],
        policy: Policy[_Task, _Result],
        worker_wait_s: float,
    ) -> None:
        self._client, self._function = client, function
        self._queue, self._worker_wait_s = TaskQueue(tasks, policy), worker_wait_s
        self._id = uuid4().hex
        self._in_flight: dict[Future[Any], tuple[str, _Task]] = {}
        self._finished: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
        self._submissions: Counter[str] = Counter()
        self._losses: Counter[str] = Counter()
        self._workers: dict[str, int] = {}
        self._is_waiting = False
        self._checked_s = self._alive_s = self._warned_s = time.monotonic() - _TICK_S

    @property
    def running(self) -> int:
        """Number of tasks that are being computed, as far as this process knows."""
        return min(len(self._in_flight), sum(self._workers.values()))

    def __iter__(self) -> Iterator[tuple[_Task, _Result]]:
        try:
            while self._in_flight or self._queue.has_tasks():
                self._check_workers()
                self._submit()
                try:
                    future = self._finished.get(timeout=_TICK_S)
                except queue.Empty:
                    continue
                name, task = self._in_flight.pop(future)
                try:
                    returned = _take_result(future)
                except _LOSSES:
                    self._count_loss(name, task)
                    continue
                yield from self._queue.finish(name, task, returned)
        finally:
            with suppress(Exception):  # the scheduler and its tasks may not exist any more
                self._client.cancel(list(self._in_flight))

    def _check_workers(self) -> None:
        now_s = time.monotonic()
        if now_s - self._checked_s < _TICK_S:
            return
        self._checked_s = now_s
        if self._client.status == "closed":
            raise self._error("does not answer any more", "Written slices remain; run again when it is available")
        try:
            workers = self._client.nthreads() if self._client.status == "running" else {}
            if workers.keys() - self._workers.keys():
                check_versions(self._client)
        except (OSError, TimeoutError):
            workers = {}
        self._workers = workers
        if workers:
            self._alive_s = self._warned_s = now_s
        elif now_s - self._alive_s > self._worker_wait_s:
            raise self._error(f"has had no worker for {self._worker_wait_s:g} s", "Start workers, then run again")
        elif now_s - self._warned_s > _WARN_EVERY_S:
            self._warned_s = now_s
            log.warning("no worker for %.0f s: waiting for one", now_s - self._alive_s)
        elif not self._is_waiting:
            log.info("waiting for workers of %s", self._name)
        self._is_waiting = not workers

    def _submit(self) -> None:
        free = max(1, sum(self._workers.values())) * _IN_FLIGHT_PER_THREAD - len(self._in_flight)
        for _ in range(free if self._client.status == "running" else 0):
            if (taken := self._queue.take()) is None:
                return
            name, task = taken
            self._submissions[name] += 1
            # All keys have the same prefix, because a scheduler keeps every prefix in memory.
            key = ("s2cube", name, self._submissions[name], self._id)
            try:
                future = submit(self._client, key, self._function, task)
            except _LOSSES:
                return self._count_loss(name, task)
            self._in_flight[future] = name, task
            future.add_done_callback(self._finished.put)

    def _count_loss(self, name: str, task: _Task) -> None:
        """Put a lost task at the front of the queue; raise an error after too many losses."""
        self._losses[name] += 1
        if self._losses[name] > _MOST_LOSSES:
            raise self._error(f"has lost {name} {_MOST_LOSSES} times", "Check the cluster, then run again")
        self._queue.put_back(name, task)

    @property
    def _name(self) -> str:
        """The class of the cluster, such as SLURMCluster, if this process started it; otherwise the address."""
        return type(self._client.cluster).__name__ if self._client.cluster else self._address

    @property
    def _address(self) -> str:
        scheduler = self._client.scheduler
        return str(scheduler.address if scheduler else "the scheduler")

    def _error(self, problem: str, remedy: str) -> ClusterError:
        return ClusterError(self._address, problem, remedy)


def _take_result(future: "Future[Any]") -> Any:
    """Return what a call returned or raised, and release the future; raise one of `_LOSSES` if it is lost."""
    if future.status in ("cancelled", "lost"):
        raise CancelledError
    returned = _fetch(future)
    future.release()
    return returned


def _fetch(future: "Future[Any]") -> Any:
    wait_s = _FETCH_S
    while True:
        try:
            # The result may be lost at any moment. Without a time limit, both would wait until it is computed again.
            error = future.exception(timeout=wait_s)
            return future.result(timeout=wait_s) if error is None else error
        except TimeoutError:
            if future.status != "finished":
                # The result was lost with its worker. The stream submits the task again.
                raise CancelledError from None
            wait_s *= 2
