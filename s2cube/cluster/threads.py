"""Compute a few tasks in threads of this process, without a cluster."""

import heapq
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from s2cube.cluster.policy import Policy, Retry

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
        Pairs of a unique name and a task.
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
        self._function, self._policy, self._threads = function, policy, threads
        self._waiting = deque(tasks)
        self._delayed: list[tuple[float, str, _Task]] = []
        self._attempts: Counter[str] = Counter()
        self._begun: queue.SimpleQueue[tuple[str, _Task] | None] = queue.SimpleQueue()
        self._finished: queue.SimpleQueue[tuple[str, _Task, _Result | BaseException]] = queue.SimpleQueue()
        self.running = 0
        """Number of tasks that are being computed."""

    def __iter__(self) -> Iterator[tuple[_Task, _Result]]:
        count = min(self._threads, len(self._waiting))
        for number in range(count):
            # Python waits for its other threads before it exits. These must not delay a Ctrl-C.
            threading.Thread(target=self._compute, name=f"s2cube-slice-{number}", daemon=True).start()
        try:
            while self._waiting or self._delayed or self.running:
                self._begin(count)
                try:
                    name, task, returned = self._finished.get(timeout=self._pause_s())
                except queue.Empty:
                    continue
                self.running -= 1
                self._attempts[name] += 1
                decision = self._policy.decide(task, returned, self._attempts[name])
                if not isinstance(decision, Retry):
                    yield task, decision
                    continue
                for again in decision.tasks or ((name, task),):
                    heapq.heappush(self._delayed, (time.monotonic() + decision.pause_s, *again))
                    self._attempts[again[0]] = self._attempts[name]
                if decision.final is not None:
                    yield task, decision.final
        finally:
            for _ in range(count):
                self._begun.put(None)

    def _begin(self, count: int) -> None:
        """Hand tasks to threads that are free."""
        while self._delayed and self._delayed[0][0] <= time.monotonic():
            self._waiting.appendleft(heapq.heappop(self._delayed)[1:])
        while self._waiting and self.running < count:
            self._begun.put(self._waiting.popleft())
            self.running += 1

    def _pause_s(self) -> float:
        """Return the time (s) until the next retry, or until this thread looks for signals."""
        return min(_TICK_S, max(0, self._delayed[0][0] - time.monotonic())) if self._delayed else _TICK_S

    def _compute(self) -> None:
        while (begun := self._begun.get()) is not None:
            name, task = begun
            returned: _Result | BaseException
            try:
                returned = self._function(task)
            except BaseException as error:  # noqa: BLE001  the policy decides what it means
                returned = error
            self._finished.put((name, task, returned))
