"""Slices streamed through a cluster: a bounded number at a time, and forgotten when they are done."""

import logging
import queue
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, Generic, TypeVar
from uuid import uuid4

from distributed import CancelledError, Client, Future, KilledWorker
from distributed.client import ClosedClientError
from distributed.comm.core import CommClosedError

from s2cube.errors import ClusterError
from s2cube.jobs._cluster import call, check_versions

log = logging.getLogger(__name__)

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")

_IN_FLIGHT_PER_THREAD = 2
"""Tasks a thread has at hand: one it computes, one that is on its way to it."""

_LOSSES = (CommClosedError, CancelledError, ClosedClientError, TimeoutError)
"""What is raised when the scheduler has gone, or a result with its worker."""

_FETCH_S = 30
"""So long a result may be on its way before it is asked whether it still is somewhere."""

_TICK_S = 1
_TELL_S = 60
_MOST_LOSSES = 10
"""So often a task may be lost with a scheduler or its workers before it is to blame."""


class Stream(Generic[_Task, _Result]):
    """Calls of a function, computed on a cluster in any order, a bounded number at a time.

    Iterate over it for the tasks, each with its result or what it raised. What is done is forgotten: neither the
    scheduler nor the client holds more than what is in flight. A task that is lost, with its worker or scheduler, is
    handed out again.

    Parameters
    ----------
    tasks
        Named by `name`.
    worker_wait_s
        So long it goes on without any worker.
    """

    def __init__(
        self,
        client: Client,
        function: Callable[[_Task], _Result],
        tasks: Iterable[tuple[str, _Task]],
        worker_wait_s: float,
    ) -> None:
        self._client, self._function, self._worker_wait_s = client, function, worker_wait_s
        self._id = uuid4().hex
        self._todo = deque(tasks)
        self._later: list[tuple[float, str, _Task]] = []
        self._at_hand: dict[Future[Any], tuple[str, _Task]] = {}
        self._over: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
        self._handed_out: Counter[str] = Counter()
        self._losses: Counter[str] = Counter()
        self._workers: dict[str, int] = {}
        self._looked_s = self._alive_s = self._told_s = time.monotonic() - _TICK_S

    @property
    def running(self) -> int:
        """How many are being computed, as far as is known here."""
        return min(len(self._at_hand), sum(self._workers.values()))

    def again(self, name: str, task: _Task, pause_s: float) -> None:
        """Hand out a task again, after a pause."""
        self._later.append((time.monotonic() + pause_s, name, task))

    def __iter__(self) -> Iterator[tuple[str, _Task, _Result | BaseException]]:
        try:
            while self._todo or self._later or self._at_hand:
                self._look_at_workers()
                self._hand_out()
                try:
                    future = self._over.get(timeout=_TICK_S)
                except queue.Empty:
                    continue
                name, task = self._at_hand.pop(future)
                try:
                    result = _result(future)
                except _LOSSES:
                    self._lose(name, task)
                    continue
                yield name, task, result
        finally:
            with suppress(Exception):  # a scheduler that is gone has forgotten them anyway
                self._client.cancel(list(self._at_hand))

    def _look_at_workers(self) -> None:
        now_s = time.monotonic()
        if now_s - self._looked_s < _TICK_S:
            return
        self._looked_s = now_s
        if self._client.status == "closed":
            raise self._gone("is gone", "What is done stays; run again when it is back")
        try:
            workers = self._client.nthreads() if self._client.status == "running" else {}
            if workers.keys() - self._workers.keys():
                check_versions(self._client)
        except (OSError, TimeoutError):
            workers = {}
        self._workers = workers
        if workers:
            self._alive_s = self._told_s = now_s
        elif now_s - self._alive_s > self._worker_wait_s:
            raise self._gone(f"has had no worker for {self._worker_wait_s:g} s", "Start workers, then run again")
        elif now_s - self._told_s > _TELL_S:
            self._told_s = now_s
            log.warning("no worker for %.0f s: waiting for one", now_s - self._alive_s)

    def _hand_out(self) -> None:
        now_s = time.monotonic()
        for due in [each for each in self._later if each[0] <= now_s]:
            self._later.remove(due)
            self._todo.appendleft(due[1:])
        room = max(1, sum(self._workers.values())) * _IN_FLIGHT_PER_THREAD - len(self._at_hand)
        for _ in range(min(room, len(self._todo)) if self._client.status == "running" else 0):
            name, task = self._todo.popleft()
            self._handed_out[name] += 1
            # One prefix: a scheduler remembers each that it has seen.
            key = ("s2cube", name, self._handed_out[name], self._id)
            try:
                future = call(self._client, key, self._function, task)
            except _LOSSES:
                return self._lose(name, task)
            self._at_hand[future] = name, task
            future.add_done_callback(self._over.put)

    def _lose(self, name: str, task: _Task) -> None:
        self._losses[name] += 1
        if self._losses[name] > _MOST_LOSSES:
            raise self._gone(f"has lost {name} {_MOST_LOSSES} times", "See to the cluster, then run again")
        self._todo.appendleft((name, task))

    def _gone(self, problem: str, remedy: str) -> ClusterError:
        scheduler = self._client.scheduler
        return ClusterError(str(scheduler.address if scheduler else "the scheduler"), problem, remedy)


def _result(future: "Future[Any]") -> Any:
    """Give what a call returned or raised, and forget it; raise if it is lost."""
    if future.status in ("cancelled", "lost"):
        raise CancelledError
    error = future.exception()
    result = _fetched(future) if error is None else error
    future.release()
    return result


def _fetched(future: "Future[Any]") -> Any:
    wait_s = _FETCH_S
    while True:
        try:
            return future.result(timeout=wait_s)
        except TimeoutError:
            if future.status != "finished":
                # It went with its worker, and whether another makes it anew is for the stream to see.
                raise CancelledError from None
            wait_s *= 2


def is_loss(error: BaseException) -> bool:
    """Tell whether an error says that workers died under a task, not that it failed."""
    return isinstance(error, KilledWorker | CommClosedError)
