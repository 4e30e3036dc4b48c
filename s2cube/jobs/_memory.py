"""Memory: how much a slice takes, and how slices share that of a worker."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from s2cube.config.sections import CubeSection
from s2cube.cube.chunks import ReadGrid
from s2cube.fetch.session import Budget, per_session

MOST_READERS = 4
"""Threads that read the files of a slice. Most of the time they wait for an answer."""

PROCESS_BYTES = 500 << 20
"""Of a process with its libraries, its cache and the tiles that it decodes. Slices take more than that."""

_CELL_BYTES, _STEP_BYTES = 16, 3
"""Of a cell of a band, and of a step of a mask, while one thread computes them; for each scene."""

_COPIES, _OVERVIEW_CELLS = 4, 6 << 20
"""Copies of a small image while it is written. Of a large one so many cells are in memory, for overviews."""

_USABLE = 0.75
"""Share of a worker's memory. At 0.8 Dask pauses the worker, at 0.95 it kills it."""

_OF_MACHINE = 0.5
"""Share of a machine's memory, if this process has no limit of its own."""

_GDAL_CACHE_MB = "64"


def of_slice(grid: ReadGrid, config: CubeSection, readers: int = MOST_READERS) -> int:
    """Estimate the memory that a slice takes while so many threads read it: some of its chunks at a time.

    Parameters
    ----------
    grid
        That of the scenes of the slice.
    """
    cut, scenes = grid.chunks, len(grid.nests)
    of_cell = scenes * (_CELL_BYTES + _STEP_BYTES * grid.steps**2 * bool(config.mask))
    reading = max(cut.rows) * max(cut.columns) * of_cell * readers
    pixel_bytes = len(config.bands) * np.dtype(config.dtype).itemsize
    return reading + pixel_bytes * min(math.prod(grid.geobox.shape) * _COPIES, _OVERVIEW_CELLS)


@contextmanager
def share(grid: ReadGrid, config: CubeSection) -> Iterator[int]:
    """Wait until this worker has memory for a slice, and hold it. Yield the number of threads that may read.

    A slice that does not fit, even with one thread, is made alone.
    """
    size, budget = _slice_memory()
    readers = next((count for count in range(MOST_READERS, 1, -1) if of_slice(grid, config, count) <= size), 1)
    with budget.acquire(of_slice(grid, config, readers)):
        yield readers


@per_session()
def _slice_memory() -> tuple[int, Budget]:
    """Give the bytes of this worker that slices may take, and their budget; limit GDAL's cache."""
    from s2cube.cluster.client import worker_memory_bytes

    # By default GDAL takes a twentieth of the machine's memory. Only in workers: a notebook keeps its own limit.
    os.environ.setdefault("GDAL_CACHEMAX", _GDAL_CACHE_MB)

    limit = worker_memory_bytes() or _OF_MACHINE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    size = max(1, int(limit * _USABLE) - PROCESS_BYTES)
    return size, Budget(size)
