"""Estimate the memory of a slice, and share the memory of a worker among its slices."""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from s2cube.cluster.this_process import is_worker, worker_memory_bytes
from s2cube.config.sections import CubeSection
from s2cube.cube.block import Block
from s2cube.cube.chunks import ReadGrid, small_grid
from s2cube.fetch.session import Budget, per_session
from s2cube.fields.patches import FieldTask
from s2cube.raster.cells import CELLS
from s2cube.scenes.assets import bands_read, layers_read
from s2cube.scenes.time_slice import Task
from s2cube.sentinel2 import canonical_bands
from s2cube.workers.batches import Places, day_of

if TYPE_CHECKING:
    import xarray as xr

MOST_READERS = 4
"""Maximum number of threads that read the files of a slice. Most of the time they wait for a server."""

BLOCK_READERS = 16
"""Maximum number of threads that read the files of a block. Small areas need few bytes of many files."""

_MOST_BLOCK_BYTES = 256 << 20
"""Maximum size of a block, if it has more than one day: a larger one is not faster."""

_MOST_STACK_BYTES = 128 << 20
"""A larger stack of days is in a file, and so are more masks. This takes little of the time that tiles take."""

PROCESS_BYTES = 500 << 20
"""Memory of a process for libraries, the cache and the tiles that it decodes. The memory of slices is additional."""

_CELL_BYTES, _STEP_BYTES, _CLASS_BYTES = 16, 3, 1
"""Bytes per scene of a cell of a band, and of a step of a mask, while one thread computes them. If the scene
classification is also a band, its steps need more bytes."""

_MEAN_BYTES = 4
"""Bytes of a cell of a harmonised band."""

_REASON_BYTES, _STATISTICS_BYTES = 1, 90
"""Bytes of a cell: why it is not valid, and for the weights and the statistics of an area. Statistics of a large area
are computed band by band. Measured."""

_MOST_WEIGHTS_BYTES = 512 << 20
"""Maximum size of the weights of fields that a process keeps: of 110,000 fields of 25 ha on cells of 30 m."""

_MOST_STEPS = 3
"""Number of steps per side of a 30 m cell on the grid of masks, if it is the finest one."""

_COPIES, _OVERVIEW_CELLS = 4, 6 << 20
"""While a small image is written, this number of its copies is in memory. Of a large image, this number of cells is in
memory while its overviews are computed."""

_USABLE = 0.75
"""Share of a worker's memory that s2cube uses. Dask pauses a worker at 0.8 and kills it at 0.95."""

_OF_MACHINE = 0.5
"""Share of a machine's memory that a process without a memory limit uses."""

_GDAL_CACHE_BYTES = 64 << 20
"""Limit of GDAL's cache of pixels. By default it is 5 % of the machine's memory."""


def of_slice(grid: ReadGrid, config: CubeSection, readers: int = MOST_READERS) -> int:
    """Estimate the memory (bytes) of a slice while threads read it, each thread one chunk at a time.

    Parameters
    ----------
    grid
        Grid of the scenes of the slice.
    readers
        Number of these threads.
    """
    chunks, scenes = grid.chunks, len(grid.nests)
    of_step = _STEP_BYTES * bool(layers_read(config)) + _CLASS_BYTES * ("scl" in canonical_bands(config.bands))
    of_cell = scenes * (_CELL_BYTES + of_step * grid.steps**2)
    reading = max(chunks.rows) * max(chunks.columns) * of_cell * readers
    pixel_bytes = len(config.image_bands) * np.dtype(config.dtype).itemsize
    if config.indices:
        # Of each band that is read, the reflectance of a chunk is in memory until the indices are computed.
        reading += max(chunks.rows) * max(chunks.columns) * _MEAN_BYTES * len(bands_read(config))
    return reading + pixel_bytes * min(math.prod(grid.geobox.shape) * _COPIES, _OVERVIEW_CELLS)


def of_task(task: Task, grid: ReadGrid, config: CubeSection, readers: int = MOST_READERS) -> int:
    """Estimate the memory (bytes) of a slice that is computed by itself, as `of_slice` does, with its statistics.

    All pixels are kept until the image is computed (see `cube.tap`), and then the statistics.
    """
    if not isinstance(task, FieldTask):
        return of_slice(grid, config, readers)
    kept = _MEAN_BYTES * len(bands_read(config)) + _REASON_BYTES
    statistics = _MEAN_BYTES * len(config.image_bands) + _STATISTICS_BYTES
    cells = math.prod(grid.geobox.shape)
    return cells * kept + max(of_slice(grid, config, readers), cells * statistics)


def of_block(grid: ReadGrid, config: CubeSection, readers: int = MOST_READERS) -> int:
    """Estimate the memory (bytes) of a block, see `cube.block`: the pixels of all its scenes.

    Parameters
    ----------
    grid
        Grid of the scenes of all slices of the block.
    readers
        Number of threads that read, each the complete grid.
    """
    of_step = len(layers_read(config)) * grid.steps**2
    bands = len(bands_read(config))
    of_cell = len(grid.nests) * (CELLS.itemsize * bands + of_step) + readers * (_CELL_BYTES + of_step)
    return math.prod(grid.geobox.shape) * of_cell


def day_blocks(tasks: Sequence[Task], config: CubeSection) -> Iterator[Block]:
    """Group slices of small areas that are read together: those of one block whose grids have the same steps."""
    places = Places()
    grids = {task.id: small_grid(task.geobox, places.in_crs(task), config.dilation_m) for task in tasks}
    alike: dict[tuple[object, int], list[Task]] = {}
    for task in tasks:
        alike.setdefault((places.together(task), grids[task.id].steps), []).append(task)
    return (Block(tuple(group), grids) for group in alike.values())


def blocks(tasks: Sequence[Task], config: CubeSection, at_once: int = 1) -> Iterator[Block]:
    """Divide the slices of a batch into blocks that fit into memory.

    As many days as possible are in a block, because files of several days can be read at the same time.

    Parameters
    ----------
    at_once
        Number of blocks that are in memory at the same time.
    """
    limit = min(_slice_memory()[0] // 2, _MOST_BLOCK_BYTES) // at_once
    for together in day_blocks(tasks, config):
        for part in _fitting(together, config):
            one, two = (of_block(replace(part.grid, nests=(True,) * scenes), config) for scenes in (1, 2))
            yield from _runs(part, limit // max(1, two - one))


def fits(block: Block, config: CubeSection) -> bool:
    """Return whether every day of a block fits into the memory of this worker."""
    days = (list(of_day) for _, of_day in groupby(block.tasks, day_of))
    most_scenes = max(len({id(scene) for task in day for scene in task.scenes}) for day in days)
    of_a_day = replace(block.grid, nests=block.grid.nests[:most_scenes])
    return of_block(of_a_day, config, readers=1) <= _slice_memory()[0]


def stack_limit() -> int:
    """Return the memory (bytes) that the days of composites that are read together may use."""
    return _slice_memory()[0] // 4


def weights_limit() -> int:
    """Return the memory (bytes) of the weights of fields that a process keeps from one day to the next."""
    return min(_slice_memory()[0] // 16, _MOST_WEIGHTS_BYTES)


def stack_in_memory() -> int:
    """Return the size (bytes) of the largest stack of days, and of the masks of days, that is not in a file."""
    return min(stack_limit(), _MOST_STACK_BYTES)


def _fitting(block: Block, config: CubeSection) -> Iterator[Block]:
    """Divide a block into halves until they fit, or until they have only one area."""
    areas = {task.aoi.id: task.geobox.affine for task in block.tasks}
    if len(areas) == 1 or fits(block, config):
        yield block
        return
    height, width = block.grid.geobox.shape
    order = sorted(areas, key=lambda area: areas[area].c if width > height else areas[area].f)
    first = {*order[: len(order) // 2]}
    for is_first in (True, False):
        tasks = tuple(task for task in block.tasks if (task.aoi.id in first) == is_first)
        yield from _fitting(replace(block, tasks=tasks), config)


def _runs(block: Block, most_scenes: int) -> Iterator[Block]:
    """Divide a block by days, so that a part has at most this number of scenes, or one day."""
    run: list[Task] = []
    scenes = set[int]()
    for _, of_day in groupby(block.tasks, day_of):
        day = list(of_day)
        of_these = {id(scene) for task in day for scene in task.scenes}
        if run and len(scenes | of_these) > most_scenes:
            yield replace(block, tasks=tuple(run))
            run, scenes = [], set()
        run, scenes = [*run, *day], scenes | of_these
    yield replace(block, tasks=tuple(run))


def of_image(image: "xr.DataArray", scenes: int, readers: int = MOST_READERS) -> int:
    """Estimate the memory (bytes) of an image of a notebook's cube, as `of_slice` does.

    The cube does not contain the steps of its masks: as many steps as possible at 30 m are assumed.

    Parameters
    ----------
    image
        Lazy or computed, dims (band, y, x).
    scenes
        Number of scenes that the image is computed from.
    """
    longest = [max(lengths) for lengths in image.chunks or [(length,) for length in image.shape]]
    reading = math.prod(longest) * max(1, scenes) * (_CELL_BYTES + _STEP_BYTES * _MOST_STEPS**2) * readers
    bands, *shape = image.shape
    return reading + bands * image.dtype.itemsize * min(math.prod(shape) * _COPIES, _OVERVIEW_CELLS)


@contextmanager
def share(needed: Callable[[int], int], most: int = MOST_READERS) -> Iterator[int]:
    """Wait until this worker has memory for a slice, and reserve it. Yield the number of threads that may read.

    A slice that does not fit even with one thread is computed alone.

    Parameters
    ----------
    needed
        Returns the memory (bytes) of the slice for a number of threads.
    most
        Maximum number of threads.
    """
    size, budget = _slice_memory()
    readers = next((count for count in range(most, 1, -1) if needed(count) <= size), 1)
    with budget.acquire(needed(readers)):
        yield readers


@per_session()
def _slice_memory() -> tuple[int, Budget]:
    """Return the memory (bytes) of this process that slices may use, and the budget for it; limit a worker's cache."""
    if is_worker():
        os.environ.setdefault("GDAL_CACHEMAX", str(_GDAL_CACHE_BYTES))
    limit = worker_memory_bytes() or _OF_MACHINE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    size = max(1, int(limit * _USABLE) - PROCESS_BYTES)
    return size, Budget(size)


@contextmanager
def gdal_cache_limited() -> Iterator[None]:
    """Limit GDAL's cache while threads of this process compute slices. Afterwards a notebook has its own limit again.

    A limit that the user has set in the environment is not changed.
    """
    if "GDAL_CACHEMAX" in os.environ:
        yield
        return
    import rasterio
    from rasterio.env import get_gdal_config

    before = get_gdal_config("GDAL_CACHEMAX")
    try:
        with rasterio.Env(GDAL_CACHEMAX=_GDAL_CACHE_BYTES):
            yield
    finally:
        # With rasterio 1.5 the limit remained after other threads had used GDAL.
        with rasterio.Env(GDAL_CACHEMAX=before):
            pass
