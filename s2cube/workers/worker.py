"""Compute one batch on a worker, from its scenes to its files."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from s2cube.config.sections import JobConfig
from s2cube.cube.open_cube import read_access
from s2cube.errors import S2CubeError, SliceError, UsageError, safe_text
from s2cube.fetch.store import Access
from s2cube.fields.patches import FieldTask
from s2cube.scenes.time_slice import Task
from s2cube.storage.image_item import MISSING
from s2cube.storage.output import Output
from s2cube.workers.batches import Batch, is_small
from s2cube.workers.composite_task import CompositeTask
from s2cube.workers.delivery import can_write
from s2cube.workers.results import SliceResult, attempt, failed, joined

if TYPE_CHECKING:
    from s2cube.cube.block import Block
    from s2cube.workers._block import BlockComputation
    from s2cube.workers._composites import CompositeComputation


def load_modules() -> None:
    """Import the modules that compute. Otherwise the threads that compute import them."""
    import s2cube.workers._block  # noqa: F401


def compute_batch(batch: Batch, config: JobConfig, output: Output | None) -> list[SliceResult]:
    """Compute the slices of a batch and write their images. A slice that fails has a result with the reason.

    Parameters
    ----------
    output
        None if there are no images, but only rows of statistics.

    Returns
    -------
    list of SliceResult
        One per slice. Slices that are read together share their traffic: it is in the result of the first one.

    Raises
    ------
    WriteError
        If the slices cannot be written. No slice is the cause.
    BusyError
        If another run writes there now.
    """
    try:
        return list(_results(batch, config, output))
    except S2CubeError as error:
        # Dask also pickles the causes. Errors of GDAL cannot be unpickled, so the client would receive only a text.
        error.__cause__ = error.__context__ = None
        raise


def _results(batch: Batch, config: JobConfig, output: Output | None) -> Iterator[SliceResult]:
    reachable = output if output and can_write(output) else None
    todo = []
    for task in batch.tasks:
        if output and reachable and not config.job.overwrite and _is_current(task, config, output):
            # A worker has written the slice, but was lost before it returned the result.
            yield SliceResult(task.id, path=output.path(task.aoi.id, task.id))
        else:
            todo.append(task)
    if composites := [task for task in todo if isinstance(task, CompositeTask)]:
        from s2cube.workers._composites import CompositeComputation

        if not reachable:
            # Neither can it read the daily images there.
            composites = [replace(task, stored={}) for task in composites]
        is_last = batch.attempt > config.job.slice_retries
        yield from _composites(composites, CompositeComputation(config, reachable, is_last))
    todo = [task for task in todo if not isinstance(task, CompositeTask)]
    yield from _small([task for task in todo if is_small(task.geobox)], config, reachable)
    for task in todo:
        if not is_small(task.geobox):
            yield from _with_traffic(config, partial(_large, task, config, reachable))


def _is_current(task: Task, config: JobConfig, output: Output) -> bool:
    if output.state(task.aoi.id, task.id, task.slice.recipe, config.cube.image_bands) != "current":
        return False
    item = output.item(task.aoi.id, task.id) if isinstance(task, CompositeTask) else None
    return item is None or len(item.properties.get(MISSING, ())) <= config.composite.allow_missing_days


def _large(task: Task, config: JobConfig, output: Output | None, access: Access) -> list[SliceResult]:
    from s2cube.cube.chunks import read_grid
    from s2cube.workers._large import LargeSlice
    from s2cube.workers.memory import of_task, share

    def compute(task: Task) -> SliceResult:
        grid = read_grid(task.geobox, task.scenes, config.cube.dilation_m)
        with share(partial(of_task, task, grid, config.cube)) as readers:
            return LargeSlice(task, config, grid, access, readers).run(output)

    result = attempt(task, partial(compute, task))
    if result.failures and isinstance(task, FieldTask) and len(parts := task.by_parts()) > 1:
        # Only the fields on a tile that cannot be read fail.
        result = joined(task, [attempt(each, partial(compute, each)) for each in parts])
    return [result]


def _composites(tasks: Sequence[CompositeTask], computation: "CompositeComputation") -> Iterator[SliceResult]:
    for group, compute in computation.parts(tasks):
        try:
            yield from _with_traffic(computation.config, compute)
        except (SliceError, UsageError, OSError, MemoryError) as error:
            if len(group) == 1:
                yield failed(group[0], error, may_pass=not isinstance(error, S2CubeError))
            for task in group if group[1:] else ():
                yield from _composites([task], computation)


def _small(tasks: Sequence[Task], config: JobConfig, output: Output | None) -> Iterator[SliceResult]:
    from s2cube.workers._block import BlockComputation
    from s2cube.workers.memory import blocks, fits

    computation = BlockComputation(config, output)
    for block in blocks(tasks, config.cube):
        if fits(block, config.cube):
            yield from _of_block(block, computation)
        else:
            for task in block.tasks:
                yield from _with_traffic(config, partial(_large, task, config, output))


def _of_block(block: "Block", computation: "BlockComputation") -> Iterator[SliceResult]:
    """Compute the slices of a block; if it cannot be read as a whole, each slice by itself."""
    from s2cube.workers.memory import BLOCK_READERS, of_block, share

    def compute(access: Access) -> list[SliceResult]:
        with share(partial(of_block, block.grid, computation.config.cube), most=BLOCK_READERS) as readers:
            return list(computation.results(block, access, readers))

    try:
        yield from _with_traffic(computation.config, compute)
    except (SliceError, UsageError, OSError, MemoryError) as error:
        if len(block.tasks) == 1:
            yield failed(block.tasks[0], error, may_pass=not isinstance(error, S2CubeError))
        for task in block.tasks if block.tasks[1:] else ():
            yield from _of_block(replace(block, tasks=(task,)), computation)


def _with_traffic(config: JobConfig, compute: Callable[[Access], list[SliceResult]]) -> list[SliceResult]:
    """Compute slices, and add the traffic to the first result."""
    access = read_access(config.read)
    first, *others = compute(access)
    usage = access.usage
    notes = tuple(f"{safe_text(href)}: {text}" for href, text in usage.notes.items())
    return [replace(first, traffic=usage.traffic, notes=notes), *others]
