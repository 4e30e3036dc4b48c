"""State and limits that all threads of this process share.

`per_session` and `kept_within` keep results of functions in the current session. A session contains: the cache of
files, the budgets of memory and cores, tokens, connections, clients of object stores, the servers that have answered,
the warnings that were logged, and what all days need of areas. A process has one session. A pass of `sync` starts a new
one (`reset`), and so do tests.

Three things are not in the session. The time limit of a request belongs to its thread (`connections.time_limit`).
Functions with `functools.lru_cache` depend only on their arguments. GDAL and warnings have their own settings. The
code sets them where it uses them.
"""

import functools
import logging
import math
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

import numpy as np
from cachetools import LRUCache, cached

from s2cube.errors import redact

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

_ARRAY_BYTES = 64 << 20
"""Limit for temporary arrays: two chunks of 2048 x 2048 cells. A higher limit is not faster."""

SMALL_FILE_THREADS = 16
"""Number of threads that read image headers, or Items of an output. They mainly wait for servers."""

_LOGGERS = ("urllib3.connectionpool", "rasterio._base", "rasterio._env", "rasterio._err")
"""Loggers of libraries that log complete addresses, including secrets."""


class Session:
    """The results that `per_session` keeps. A new session adds a filter that removes secrets from log lines."""

    def __init__(self) -> None:
        self._kept: dict[Callable[..., Any], Callable[..., Any]] = {}
        # A limit of `kept_within` may come from a function whose result is kept, too.
        self._lock = threading.RLock()
        for name in _LOGGERS:
            logging.getLogger(name).addFilter(_REDACTION)

    def kept(self, function: Callable[_Parameters, _Result], keeping: "_Keeping") -> Callable[_Parameters, _Result]:
        """Return a function that computes its result once per set of arguments, and keeps it."""
        if (known := self._kept.get(function)) is not None:
            return known
        with self._lock:
            return self._kept.setdefault(function, keeping(function))


def _cached_with_lock(function: Callable[..., Any], maxsize: int) -> Callable[..., Any]:
    remembered, lock = functools.lru_cache(maxsize)(function), threading.RLock()

    def call_with_lock(*arguments: Any, **options: Any) -> Any:
        # Without the lock, two threads could each create an object that must exist only once.
        with lock:
            return remembered(*arguments, **options)

    return call_with_lock


_Keeping = Callable[[Callable[..., Any]], Callable[..., Any]]
"""Makes a function that keeps the results of another one."""


def _in_session(keeping: _Keeping) -> Callable[[Callable[_Parameters, _Result]], Callable[_Parameters, _Result]]:
    def decorate(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
        @functools.wraps(function)
        def call_in_session(*arguments: _Parameters.args, **options: _Parameters.kwargs) -> _Result:
            return current().kept(function, keeping)(*arguments, **options)

        return call_in_session

    return decorate


def per_session(
    maxsize: int = 1,
) -> Callable[[Callable[_Parameters, _Result]], Callable[_Parameters, _Result]]:
    """Keep the results of a function in the current session.

    Parameters
    ----------
    maxsize
        Maximum number of results. The least recently used ones are dropped.
    """
    return _in_session(functools.partial(_cached_with_lock, maxsize=maxsize))


def kept_within(
    limit_bytes: Callable[[], int], size_of: Callable[[Any], int]
) -> Callable[[Callable[_Parameters, _Result]], Callable[_Parameters, _Result]]:
    """Keep the results of a function in the current session, up to a number of bytes.

    Two threads may compute the same result at the same time. The least recently used results are dropped.

    Parameters
    ----------
    limit_bytes
        Returns the number of bytes, once per session.
    size_of
        Returns the size of a result, bytes.
    """

    def keeping(function: Callable[..., Any]) -> Callable[..., Any]:
        cache: LRUCache[Any, Any] = LRUCache(limit_bytes(), size_of)
        kept: Callable[..., Any] = cached(cache, lock=threading.Lock())(function)
        return kept

    return _in_session(keeping)


class _Redaction(logging.Filter):
    """Remove secrets from log lines."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redact(record.getMessage()), ()
        return True


_REDACTION = _Redaction()
_SESSIONS: list[Session] = []
"""Contains the current session. Empty until a session is first needed."""

_SESSIONS_LOCK = threading.Lock()


def current() -> Session:
    """Return the session of this process."""
    if not _SESSIONS:
        with _SESSIONS_LOCK:
            if not _SESSIONS:
                _SESSIONS.append(Session())
    return _SESSIONS[0]


def reset() -> None:
    """Start a new session without any state."""
    with _SESSIONS_LOCK:
        _SESSIONS[:] = [Session()]


class Budget:
    """A limited amount, such as bytes, that threads acquire and release.

    Parameters
    ----------
    limit
        Maximum amount. A larger amount is granted only while nothing else is acquired.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._acquired = limit, 0
        self._change = threading.Condition()

    def try_acquire(self, size: int, beyond_limit: bool = False) -> bool:
        """Acquire an amount without waiting, if the limit allows it or is ignored. Return whether it is acquired."""
        with self._change:
            if not beyond_limit and not self._fits(size):
                return False
            self._acquired += size
            return True

    def release(self, size: int) -> None:
        """Release an amount."""
        with self._change:
            self._acquired -= size
            self._change.notify_all()

    @contextmanager
    def acquire(self, size: int) -> Iterator[None]:
        """Wait until an amount can be acquired, acquire it, and release it at the end."""
        with self._change:
            self._change.wait_for(lambda: self._fits(size))
            self._acquired += size
        try:
            yield
        finally:
            self.release(size)

    def _fits(self, size: int) -> bool:
        return not self._acquired or self._acquired + size <= self._limit


@per_session()
def cores() -> threading.BoundedSemaphore:
    """Return a semaphore that admits one thread per core.

    If more threads decode at the same time, they compete for the processor's cache and the interpreter's lock.
    """
    return threading.BoundedSemaphore(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4)


@per_session()
def _array_memory() -> tuple[Budget, list[np.ndarray]]:
    """Return the budget of temporary arrays, and the memory blocks that can be reused."""
    return Budget(_ARRAY_BYTES), []


@contextmanager
def temporary_array(shape: tuple[int, int], dtype: "np.dtype[Any]") -> Iterator[np.ndarray]:
    """Yield an array of zeros as soon as the budget allows it. Do not keep a view of it: its memory is reused."""
    size = math.prod(shape) * dtype.itemsize
    budget, free = _array_memory()
    with budget.acquire(size):
        try:
            memory = free.pop()
        except IndexError:
            memory = np.empty(0, "uint8")
        if len(memory) < size:
            memory = np.empty(size, "uint8")
        memory[:size] = 0
        try:
            yield memory[:size].view(dtype).reshape(shape)
        finally:
            if sum(map(len, free)) + len(memory) <= _ARRAY_BYTES:
                free.append(memory)
