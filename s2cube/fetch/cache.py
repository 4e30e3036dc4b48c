"""Cache parts of files for all readers of a process. Each part is fetched once; many parts are fetched in parallel.

`cachetools.LRUCache` is not used: it would drop a part that is still being fetched, and another reader would then fetch
it a second time. It also does not let a reader wait for a part that another reader fetches.
"""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from s2cube.fetch.session import Budget, per_session

_Value = TypeVar("_Value")

_LIMIT_BYTES = 64 << 20
"""Limit for kept parts: about forty tiles of 1.4 MB. The next chunk or AOI may need them."""

_AHEAD_BYTES = 64 << 20
"""Limit for parts that are being fetched or wait for the decoder, for all readers together.
It is enough for 1 GB/s at 50 ms per request."""

_THREADS = 32
"""Maximum number of parallel requests. Each thread waits for the answer to one request."""


@dataclass(frozen=True)
class Span:
    """Bytes [start, stop) of a file that are kept together: a tile."""

    key: Hashable
    start: int
    stop: int

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self.stop - self.start


_Request = list[tuple[Span, Future[memoryview]]]
"""Spans that are fetched together, and their bytes."""


class FileCache:
    """A cache of values by key. The least recently used value is dropped first.

    If several threads need the same value, one of them makes it and the others wait.

    Parameters
    ----------
    limit_bytes
        Limit for all values together.
    """

    def __init__(self, limit_bytes: int = _LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._kept: OrderedDict[Hashable, tuple[Future[Any], int]] = OrderedDict()
        self._kept_bytes = 0
        self._ahead = Budget(_AHEAD_BYTES)
        self._lock = threading.Lock()

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(_THREADS, thread_name_prefix="s2cube-fetch")

    def get(self, key: Hashable, make: Callable[[], tuple[_Value, int]]) -> _Value:
        """Return the value of a key; if there is none, make it and keep it. `make` returns the value and its size."""
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
            self.drop(key)
            mine.set_exception(error)
            raise
        mine.set_result(value)
        with self._lock:
            if key in self._kept:
                self._keep(key, mine, size)
        return value

    def drop(self, key: Hashable) -> None:
        """Drop the value of a key."""
        with self._lock:
            _, size = self._kept.pop(key, (None, 0))
            self._kept_bytes -= size

    def stream(
        self,
        runs: Sequence[Sequence[Span]],
        fetch: Callable[[int, int], memoryview],
        failed: Callable[[Span, BaseException], None] | None = None,
    ) -> Iterator[tuple[Span, memoryview]]:
        """Yield spans with their bytes, in the given order. Many spans are fetched in advance.

        Parameters
        ----------
        runs
            Runs of spans that are adjacent in the file. One request fetches adjacent spans that are not in the cache.
        fetch
            Returns all bytes [start, stop) of the file, or raises an error.
        failed
            Called for each span that cannot be fetched, with its error. If None, the error is raised.
        """
        waiting, ahead = deque(runs), deque[tuple[int, _Request]]()
        try:
            while waiting or ahead:
                own_requests: list[_Request] = []
                # A reader without a request in flight may exceed the budget: otherwise readers could deadlock.
                while waiting and self._ahead.try_acquire(_size(waiting[0]), beyond_limit=not ahead):
                    run = waiting.popleft()
                    found, requests = self._start(run)
                    ahead.append((_size(run), found))
                    # This thread must wait for the first run, so it fetches that run itself.
                    if len(ahead) == 1:
                        own_requests = requests
                    else:
                        self._submit(requests, fetch)
                for request in own_requests:
                    self._fetch_request(request, fetch)
                size, started = ahead[0]
                for span, future in started:
                    error = future.exception()
                    if error is not None and failed is not None:
                        failed(span, error)
                    else:
                        yield span, future.result()
                ahead.popleft()
                self._ahead.release(size)
        finally:
            self._ahead.release(sum(size for size, _ in ahead))

    def _start(self, run: Sequence[Span]) -> tuple[_Request, list[_Request]]:
        """Return the futures for the bytes of a run, and the requests to send: as few as possible."""
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

    def _submit(self, requests: list[_Request], fetch: Callable[[int, int], memoryview]) -> None:
        for request in requests:
            self._threads.submit(self._fetch_request, request, fetch)

    def _fetch_request(self, request: _Request, fetch: Callable[[int, int], memoryview]) -> None:
        start = request[0][0].start
        try:
            data = fetch(start, request[-1][0].stop)
        except BaseException as error:  # noqa: BLE001  the waiting threads receive it
            for span, future in request:
                self.drop(span.key)
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
        # A part that is being fetched is not dropped, because another reader may need it. `_ahead` limits such parts.
        while self._kept_bytes > self._limit_bytes:
            old = next((key for key, (each, _) in self._kept.items() if each.done()), None)
            if old is None:
                return
            self._kept_bytes -= self._kept.pop(old)[1]


def _size(run: Sequence[Span]) -> int:
    return run[-1].stop - run[0].start


@per_session()
def file_cache() -> FileCache:
    """Return the cache of this process."""
    return FileCache()
