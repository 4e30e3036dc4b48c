"""Compute a few tasks in threads of this process, without a cluster."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from s2cube.cluster._queue import TaskQueue
from s2cube.cluster.policy import Policy

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


_TICK_S = 0.5
"""Python handles a signal in its main thread, which would not notice a signal that came just before it waits."""


class Threads(Generic[_Task, _Result]):
    """Call a function with tasks in threads of this process, in any order, a bounded number at a time.

    Iterating yields pairs of a task and its final result, as `stream.Stream` does. If the iteration ends early, it does
    not wait for the tasks that are being computed. Their results are lost. No other task begins.

    Parameters
    ----------
    tasks
        Pairs of a unique name and a task. A task is taken when a thread is free.
    threads
        Maximum number of tasks that are computed at the same time.
    """

    def __init__(
        self,
        function: Callable[[_Task], _Result],
        tasks: Iterable[tuple[str, _Task]],
        policy: Policy[_Task, _Result],
        threads: int,
    ) -> None:
        self._function, self._queue, self._threads = function, TaskQueue(tasks, policy), threads
        self._started = 0
        self._begun: queue.SimpleQueue[tuple[str, _Task] | None] = queue.SimpleQueue()
        self._finished: queue.SimpleQueue[tuple[str, _Task, _Result | BaseException]] = queue.SimpleQueue()
        self.running = 0
        """Number of tasks that are being computed."""

    def __iter__(self) -> Iterator[tuple[_Task, _Result]]:
        try:
            while self.running or self._queue.has_tasks():
                self._begin()
                try:
                    name, task, returned = self._finished.get(timeout=self._queue.pause_s(_TICK_S))
                except queue.Empty:
                    continue
                self.running -= 1
                yield from self._queue.finish(name, task, returned)
        finally:
            for _ in range(self._started):
                self._begun.put(None)

    def _begin(self) -> None:
        """Hand tasks to threads that are free. Start a thread if none is free."""
        while self.running < self._threads and (taken := self._queue.take()) is not None:
            if self._started == self.running:
                # Python waits for its other threads before it exits. These must not delay a Ctrl-C.
                name = f"s2cube-slice-{self._started}"
                threading.Thread(target=self._compute, name=name, daemon=True).start()
                self._started += 1
            self._begun.put(taken)
            self.running += 1

    def _compute(self) -> None:
        while (begun := self._begun.get()) is not None:
            name, task = begun
            returned: _Result | BaseException
            try:
                returned = self._function(task)
            except BaseException as error:  # noqa: BLE001  the policy decides what it means
                returned = error
            self._finished.put((name, task, returned))
