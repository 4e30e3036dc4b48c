"""What readers of a process share: each part of a file is fetched once, many at a time, and kept for a while."""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from s2cube.fetch.budget import Room

_Value = TypeVar("_Value")

_ROOM_BYTES = 64 << 20
"""Kept of what was read, for the next chunk or AOI that needs it: some forty tiles of 1.4 MB."""

_AHEAD_BYTES = 64 << 20
"""On the way or waiting to be decoded, of all readers: enough for 1 GB/s at 50 ms a request."""

_FETCHERS = 32
"""Requests at a time: threads that wait for answers."""


@dataclass(frozen=True)
class Span:
    """Bytes [start, stop) of a file, which are one thing: a tile."""

    key: Hashable
    start: int
    stop: int

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self.stop - self.start


_Request = list[tuple[Span, Future[memoryview]]]
"""What is, or becomes, the bytes of spans."""


class Shelf:
    """Values by key, the least recently used put away first; threads that want the same wait for one of them.

    Parameters
    ----------
    room_bytes
        Bound of what is kept.
    """

    def __init__(self, room_bytes: int = _ROOM_BYTES) -> None:
        self._room_bytes = room_bytes
        self._kept: OrderedDict[Hashable, tuple[Future[Any], int]] = OrderedDict()
        self._kept_bytes = 0
        self._ahead = Room(_AHEAD_BYTES)
        self._lock = threading.Lock()

    @cached_property
    def _fetchers(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(_FETCHERS, thread_name_prefix="s2cube-fetch")

    def once(self, key: Hashable, make: Callable[[], tuple[_Value, int]]) -> _Value:
        """Give what is kept under a key, or make it, and say how large it is. What fails is not kept."""
        with self._lock:
            known = self._find(key)
            if known is None:
                mine: Future[Any] = Future()
                self._keep(key, mine, 0)
        if known is not None:
            value: _Value = known.result()
            return value
        try:
            value, size = make()
        except BaseException as error:
            self.forget(key)
            mine.set_exception(error)
            raise
        mine.set_result(value)
        with self._lock:
            if key in self._kept:
                self._keep(key, mine, size)
        return value

    def forget(self, key: Hashable) -> None:
        """Put away what is kept under a key."""
        with self._lock:
            _, size = self._kept.pop(key, (None, 0))
            self._kept_bytes -= size

    def stream(
        self, runs: Sequence[Sequence[Span]], fetch: Callable[[int, int], memoryview]
    ) -> Iterator[tuple[Span, memoryview]]:
        """Yield spans with their bytes, in their order, fetched ahead and many at a time.

        Parameters
        ----------
        runs
            Spans that lie one behind the other in the file, and are fetched as one if none of them is kept.
        fetch
            Gives bytes [start, stop), all of them, or raises.
        """
        waiting, ahead = deque(runs), deque[tuple[int, _Request]]()
        try:
            while waiting or ahead:
                own: list[_Request] = []
                # A reader that has nothing to wait for must go on, or all would wait for each other.
                while waiting and self._ahead.take(_size(waiting[0]), anyway=not ahead):
                    run = waiting.popleft()
                    found, requests = self._start(run)
                    ahead.append((_size(run), found))
                    # What is wanted first is fetched here, for this thread would wait for it.
                    if len(ahead) == 1:
                        own = requests
                    else:
                        self._hand_out(requests, fetch)
                for request in own:
                    self._fill(request, fetch)
                size, started = ahead[0]
                for span, future in started:
                    yield span, future.result()
                ahead.popleft()
                self._ahead.give_back(size)
        finally:
            self._ahead.give_back(sum(size for size, _ in ahead))

    def _start(self, run: Sequence[Span]) -> tuple[_Request, list[_Request]]:
        """Give where the bytes of a run are or will be, and what is to be asked for, in as few requests as may be."""
        found: _Request = []
        requests: list[_Request] = [[]]
        with self._lock:
            for span in run:
                future = self._find(span.key)
                if future is None:
                    future = Future()
                    self._keep(span.key, future, span.size)
                    requests[-1].append((span, future))
                elif requests[-1]:
                    requests.append([])
                found.append((span, future))
        return found, [request for request in requests if request]

    def _hand_out(self, requests: list[_Request], fetch: Callable[[int, int], memoryview]) -> None:
        for request in requests:
            self._fetchers.submit(self._fill, request, fetch)

    def _fill(self, request: _Request, fetch: Callable[[int, int], memoryview]) -> None:
        start = request[0][0].start
        try:
            data = fetch(start, request[-1][0].stop)
        except BaseException as error:  # noqa: BLE001  it belongs to those who wait
            for span, future in request:
                self.forget(span.key)
                future.set_exception(error)
            return
        for span, future in request:
            future.set_result(data[span.start - start : span.stop - start])

    def _find(self, key: Hashable) -> Future[Any] | None:
        if key not in self._kept:
            return None
        self._kept.move_to_end(key)
        return self._kept[key][0]

    def _keep(self, key: Hashable, future: Future[Any], size: int) -> None:
        self._kept_bytes += size - self._kept.get(key, (None, 0))[1]
        self._kept[key] = future, size
        # What is on its way stays: another reader must find it. It is bounded by what readers fetch ahead.
        while self._kept_bytes > self._room_bytes:
            old = next((key for key, (each, _) in self._kept.items() if each.done()), None)
            if old is None:
                return
            self._kept_bytes -= self._kept.pop(old)[1]


def _size(run: Sequence[Span]) -> int:
    return run[-1].stop - run[0].start


SHELF = Shelf()
"""The one of this process."""
