"""Set up a process that s2cube has started for itself, such as a command: its memory, and how it imports modules."""

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ctypes import CDLL

ARENAS = "MALLOC_ARENA_MAX"
"""Environment variable: maximum number of glibc's arenas."""

MOST_ARENAS = 2
"""Threads allocate memory in arenas, and each arena keeps what they free. By default glibc has 8 arenas per core. With
two, the median of 24 days of a county needs 0.73 of the memory, and no more time (``benchmarks/composites.py``)."""

_M_ARENA_MAX = -8
"""From glibc's malloc.h."""

_is_own = False


def set_up() -> None:
    """Set up this process, which nothing else uses. Processes of users, such as a notebook, keep their own ways.

    The arenas are limited as `ARENAS` does if it is set when a process starts. The user's value is kept. The limit has
    no effect on arenas that threads have already, and on systems without glibc.
    """
    global _is_own
    _is_own = True
    if sys.platform == "linux" and ARENAS not in os.environ:
        with suppress(OSError, AttributeError):
            CDLL(None).mallopt(_M_ARENA_MAX, MOST_ARENAS)


@contextmanager
def importing() -> Iterator[None]:
    """Import modules in a block. If `set_up` was called, Python does not look for garbage meanwhile.

    It would look again and again while modules define objects: a sixth of the time of imports. There is no garbage, and
    these objects stay until the process ends. So later collections ignore them, too, also the last one at the end. A
    command that computes six images takes 0.77 of the time (``benchmarks/fields.py``).
    """
    if not (_is_own and gc.isenabled()):
        yield
        return
    modules = len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > modules:
            gc.freeze()
        gc.enable()
