"""Memory: what a slice takes of it, and the share of a worker's that slices wait for."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from s2cube.config.sections import CubeSection
from s2cube.cube.chunks import chunks, steps_per_cell
from s2cube.fetch.session import Budget, per_session
from s2cube.scenes.time_slice import Plan

MOST_READERS = 4
"""Threads that read a slice's files: most of their time they wait for an answer."""

PROCESS_BYTES = 500 << 20
"""Of a process with its libraries, the tiles that it keeps and what is decoded: slices come on top of it."""

_CELL_BYTES, _STEP_BYTES = 16, 3
"""Of a thread that reads, and of each scene: a cell of a band, and a step of a mask, while they are computed."""

_COPIES, _OVERVIEW_CELLS = 4, 6 << 20
"""Of a small image while it is written; of a large one it is these cells that are held, for overviews."""

_USABLE = 0.75
"""Of a worker's memory: at 0.8 Dask pauses it, at 0.95 it is killed."""

_OF_MACHINE = 0.5
"""Of a machine's, where nobody says how much there is for this process."""

_GDAL_CACHE_MB = "64"


def of_slice(plan: Plan, config: CubeSection, readers: int = MOST_READERS) -> int:
    """Estimate what a slice takes while so many threads read it: some chunks of it, but never all of a large one."""
    cut, scenes = chunks(plan), max(plan.scenes_per_slice)
    of_cell = scenes * (_CELL_BYTES + _STEP_BYTES * steps_per_cell(plan) ** 2 * bool(config.mask))
    reading = max(cut.rows) * max(cut.columns) * of_cell * readers
    pixel_bytes = len(config.bands) * np.dtype(config.dtype).itemsize
    return reading + pixel_bytes * min(math.prod(plan.geobox.shape) * _COPIES, _OVERVIEW_CELLS)


@contextmanager
def share(plan: Plan, config: CubeSection) -> Iterator[int]:
    """Wait until this worker has memory for a slice, take it for a while, and tell how many threads may read.

    What does not fit with fewer threads either goes alone.
    """
    size, budget = _slice_memory()
    readers = next((count for count in range(MOST_READERS, 1, -1) if of_slice(plan, config, count) <= size), 1)
    with budget.acquire(of_slice(plan, config, readers)):
        yield readers


@per_session()
def _slice_memory() -> tuple[int, Budget]:
    """Give the bytes of this worker that slices may take, and their budget; limit GDAL's cache."""
    from s2cube.jobs._cluster import memory_limit

    # Otherwise GDAL takes a twentieth of the machine's memory. Only in workers: a notebook keeps its own limit.
    os.environ.setdefault("GDAL_CACHEMAX", _GDAL_CACHE_MB)

    limit = memory_limit() or _OF_MACHINE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    size = max(1, int(limit * _USABLE) - PROCESS_BYTES)
    return size, Budget(size)
