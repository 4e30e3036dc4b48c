"""State and limits that all threads of this process share, in one place.

`per_session` keeps the result of a function in the current session: the cache of files, the budgets of memory and
cores, tokens, connections, clients of object stores, the servers that have answered, the warnings that were given. A
process has one session; only tests begin a new one (`reset`).

Three things are outside: the time limit of a request belongs to its thread (`connections.time_limit`); functions with
`functools.lru_cache` depend on nothing but their arguments; GDAL, tifffile and warnings have settings of their own,
which are set where they are used.
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

from s2cube.errors import redact

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

_ARRAY_BYTES = 64 << 20
"""Limit for arrays that are being filled: two chunks of 2048 x 2048 cells. More at a time are not faster."""

SMALL_FILE_THREADS = 16
"""Threads that read headers of images, or Items of an output: each waits for the answer of a server."""

_LOGGERS = ("urllib3.connectionpool", "rasterio._base", "rasterio._env", "rasterio._err")
"""Loggers of libraries that write whole addresses, with the secrets in them."""


class Session:
    """The results that `per_session` keeps. A new session removes secrets from the log lines of libraries."""

    def __init__(self) -> None:
        self._kept: dict[Callable[..., Any], Callable[..., Any]] = {}
        self._lock = threading.Lock()
        for name in _LOGGERS:
            logging.getLogger(name).addFilter(_REDACTION)

    def kept(self, function: Callable[_Parameters, _Result], maxsize: int) -> Callable[_Parameters, _Result]:
        """Give a function that calls another one once for each set of arguments, and then repeats its result."""
        if (known := self._kept.get(function)) is not None:
            return known
        with self._lock:
            return self._kept.setdefault(function, _called_once(function, maxsize))


def _called_once(function: Callable[..., Any], maxsize: int) -> Callable[..., Any]:
    remembered, lock = functools.lru_cache(maxsize)(function), threading.RLock()

    def call(*arguments: Any, **options: Any) -> Any:
        # Without the lock, threads that call at the same time would make two of a thing that must be one.
        with lock:
            return remembered(*arguments, **options)

    return call


def per_session(
    maxsize: int = 1,
) -> Callable[[Callable[_Parameters, _Result]], Callable[_Parameters, _Result]]:
    """Keep the results of a function in the current session.

    Parameters
    ----------
    maxsize
        Number of results; the least recently used ones are dropped.
    """

    def decorate(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
        @functools.wraps(function)
        def call(*arguments: _Parameters.args, **options: _Parameters.kwargs) -> _Result:
            return current().kept(function, maxsize)(*arguments, **options)

        return call

    return decorate


class _Redaction(logging.Filter):
    """Remove secrets from log lines."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redact(record.getMessage()), ()
        return True


_REDACTION = _Redaction()
_SESSIONS: list[Session] = []
"""The current session; empty before it is first needed."""

_CHANGE = threading.Lock()


def current() -> Session:
    """Give the session of this process."""
    if not _SESSIONS:
        with _CHANGE:
            if not _SESSIONS:
                _SESSIONS.append(Session())
    return _SESSIONS[0]


def reset() -> None:
    """Begin a new session, which has no state."""
    with _CHANGE:
        _SESSIONS[:] = [Session()]


class Budget:
    """A limited amount, such as bytes, that threads acquire and release.

    Parameters
    ----------
    limit
        A larger amount than this is granted only while nothing else is acquired.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._acquired = limit, 0
        self._change = threading.Condition()

    def try_acquire(self, size: int, beyond_limit: bool = False) -> bool:
        """Acquire an amount if that is possible without waiting, or beyond the limit; say whether it is acquired."""
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
    """Give a semaphore with one place for each core.

    More threads that decode at the same time compete for the processor's cache and the interpreter's lock.
    """
    return threading.BoundedSemaphore(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4)


@per_session()
def _array_memory() -> tuple[Budget, list[np.ndarray]]:
    """Give the budget of temporary arrays, and the memory that is free to be used again."""
    return Budget(_ARRAY_BYTES), []


@contextmanager
def temporary_array(shape: tuple[int, int], dtype: "np.dtype[Any]") -> Iterator[np.ndarray]:
    """Lend an array of zeros as soon as the budget allows. Its memory is used again: nothing may keep a view of it."""
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
