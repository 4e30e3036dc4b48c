"""The tasks that are not being computed: those that have not begun, and those that are retried after a pause."""

import heapq
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Generic, TypeVar

from s2cube.cluster.policy import Policy, Retry

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


class TaskQueue(Generic[_Task, _Result]):
    """Queue of tasks, with a policy that decides which of their results are final.

    Tasks are taken from their iterable only when they are needed, and at most one in advance, so that a generator of
    many tasks needs little memory.

    Parameters
    ----------
    tasks
        Pairs of a unique name and a task.
    """

    def __init__(self, tasks: Iterable[tuple[str, _Task]], policy: Policy[_Task, _Result]) -> None:
        self._tasks, self._policy = iter(tasks), policy
        self._next: deque[tuple[str, _Task]] = deque()
        self._delayed: list[tuple[float, str, _Task]] = []
        self._attempts: Counter[str] = Counter()

    def has_tasks(self) -> bool:
        """Return whether a task remains, or waits for its retry."""
        if not self._next and not self._delayed:
            self._next.extend(islice(self._tasks, 1))
        return bool(self._next or self._delayed)

    def take(self) -> tuple[str, _Task] | None:
        """Remove and return the next task with its name; None if there is none, or if each waits for its retry."""
        while self._delayed and self._delayed[0][0] <= time.monotonic():
            self._next.appendleft(heapq.heappop(self._delayed)[1:])
        return self._next.popleft() if self._next else next(self._tasks, None)

    def put_back(self, name: str, task: _Task) -> None:
        """Put a task that was lost at the front of the queue."""
        self._next.appendleft((name, task))

    def finish(self, name: str, task: _Task, returned: _Result | BaseException) -> Iterator[tuple[_Task, _Result]]:
        """Ask the policy about a task that was computed. Yield its final result, or queue its retry, or both."""
        self._attempts[name] += 1
        decision = self._policy.decide(task, returned, self._attempts[name])
        if not isinstance(decision, Retry):
            yield task, decision
            return
        for again in decision.tasks or ((name, task),):
            heapq.heappush(self._delayed, (time.monotonic() + decision.pause_s, *again))
            self._attempts[again[0]] = self._attempts[name]
        if decision.final is not None:
            yield task, decision.final

    def pause_s(self, most_s: float) -> float:
        """Return the time (s) until the next retry, at most `most_s`."""
        return min(most_s, max(0, self._delayed[0][0] - time.monotonic())) if self._delayed else most_s
