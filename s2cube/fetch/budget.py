"""What threads of a process share out among themselves, so that they take no more memory or cores than there are."""

import math
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

_HELD_BYTES = 64 << 20
"""Of arrays that are being read: two chunks of 2048 x 2048 cells. More at a time are not done sooner."""


class Room:
    """So much of something, taken and given back by threads."""

    def __init__(self, size: int) -> None:
        self._size, self._taken = size, 0
        self._change = threading.Condition()

    def take(self, size: int, anyway: bool = False) -> bool:
        """Take so much if there is room, or anyway; tell whether it was taken."""
        with self._change:
            if not anyway and self._taken and self._taken + size > self._size:
                return False
            self._taken += size
            return True

    def give_back(self, size: int) -> None:
        """Give back what was taken."""
        with self._change:
            self._taken -= size
            self._change.notify_all()

    @contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Wait until there is room for so much, and take it for a while; what is larger than all goes alone."""
        with self._change:
            self._change.wait_for(lambda: not self._taken or self._taken + size <= self._size)
            self._taken += size
        try:
            yield
        finally:
            self.give_back(size)


CORES = threading.BoundedSemaphore(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4)
"""One for each core: more threads that decode at a time take each other's cache, and the interpreter's lock."""

_ARRAYS = Room(_HELD_BYTES)
_spare: list[np.ndarray] = []


@contextmanager
def scratch(shape: tuple[int, int], dtype: "np.dtype[Any]") -> Iterator[np.ndarray]:
    """Lend an array of zeros, as soon as there is room; its memory is used again, so nothing may keep a view of it."""
    size = math.prod(shape) * dtype.itemsize
    with _ARRAYS.hold(size):
        try:
            memory = _spare.pop()
        except IndexError:
            memory = np.empty(0, "uint8")
        if len(memory) < size:
            memory = np.empty(size, "uint8")
        memory[:size] = 0
        try:
            yield memory[:size].view(dtype).reshape(shape)
        finally:
            if sum(map(len, _spare)) + len(memory) <= _HELD_BYTES:
                _spare.append(memory)
