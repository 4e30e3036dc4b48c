"""Write the images of a notebook's cube: on the Dask cluster that is active, else in threads of this process."""

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import xarray as xr
from dask.base import is_dask_collection, optimize

from s2cube.cluster.policy import Retry, is_worker_loss
from s2cube.cluster.this_process import active_client
from s2cube.config.sections import ClusterSection, OutputSection
from s2cube.cube.facts import SliceFacts
from s2cube.errors import ClusterError, OutputError, S2CubeError, safe_text
from s2cube.jobs.recorder import put_files
from s2cube.output.files import write_files
from s2cube.products.derived import Image
from s2cube.storage.output import Output
from s2cube.workers.delivery import can_write, deliver
from s2cube.workers.memory import MOST_READERS, of_image, share
from s2cube.workers.results import SliceResult, Written


@dataclass(frozen=True)
class _Task:
    """An image that a worker computes. Its graph is one task for the scheduler.

    Parameters
    ----------
    content
        The image, pickled: its facts, and the part of the cube's graph that it needs.
    is_persisted
        Whether the cluster keeps parts of the image.
    """

    facts: SliceFacts
    content: bytes
    is_persisted: bool


def write_images(images: Sequence[Image], output: Output, settings: OutputSection) -> Iterator[SliceResult]:
    """Compute images, write their files, and yield the result of each: on a cluster in any order.

    The cluster of the active Dask client computes lazy images. Images in memory are written by this process.

    Parameters
    ----------
    output
        Output whose lease this process has.

    Raises
    ------
    ClusterError
        If the cluster fails, or loses the workers of an image twice.
    OutputError
        If an image cannot be sent to workers, or has values outside its area of interest.
    WriteError
        If the files cannot be written.
    SliceError
        If a source file cannot be read.
    """
    client = active_client() if any(is_dask_collection(image.variable) for image, _ in images) else None
    if client is None:
        for image, facts in images:
            yield _written(image, facts, output, settings, MOST_READERS)
        return
    from s2cube.cluster.stream import Stream

    function = partial(_write_on_worker, output=output, settings=settings)
    tasks = ((facts.slice, _task(image, facts)) for image, facts in images)
    for task, result in Stream(client, function, tasks, _OnceMore(), ClusterSection().worker_wait_s):
        yield put_files(task.facts.aoi, result, output) if result.files else result


def _written(
    image: xr.DataArray, facts: SliceFacts, output: Output | None, settings: OutputSection, readers: int
) -> SliceResult:
    def write(folder: Path) -> Written:
        return Written(write_files(image, facts, folder, settings, readers))

    return deliver(write, facts.aoi, facts.slice, output)


def _task(image: xr.DataArray, facts: SliceFacts) -> _Task:
    from s2cube.cluster.client import has_futures, pickled

    is_persisted = has_futures(image)
    if not is_persisted:
        (image,) = optimize(image)  # the graph of the image, without the rest of the cube
    try:
        content = pickled(image)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        problem = f"cannot be sent to the workers of the Dask cluster ({safe_text(str(error))})"
        remedy = 'Compute it first, or write it in this process: with dask.config.set(scheduler="threads")'
        raise OutputError(f"the cube of {facts.aoi}", problem, remedy) from None
    return _Task(facts, content, is_persisted)


def _write_on_worker(task: _Task, output: Output, settings: OutputSection) -> SliceResult:
    """Compute and write an image, on a worker. If the worker cannot reach the output, return the files."""
    from s2cube.cluster.client import compute_from_worker

    try:
        reachable = output if can_write(output) else None
        image: xr.DataArray = pickle.loads(task.content)
        with share(partial(of_image, image, len(task.facts.scenes))) as readers:
            if task.is_persisted:
                image = compute_from_worker(image)
            return _written(image, task.facts, reachable, settings, readers)
    except S2CubeError as error:
        # As in `make_slice`: errors of GDAL among the causes cannot be unpickled.
        error.__cause__ = error.__context__ = None
        raise


class _OnceMore:
    """Computes an image once more if its workers were lost. Every other error ends the writing."""

    def decide(
        self, task: _Task, returned: SliceResult | BaseException, attempt: int
    ) -> SliceResult | Retry[_Task, SliceResult]:
        if not isinstance(returned, BaseException):
            return returned
        if is_worker_loss(returned):
            if attempt == 1:
                return Retry(0)
            remedy = "Give the workers more memory, or open the cube in smaller parts"
            raise ClusterError("the workers", f"died each time that they computed {task.facts.slice}", remedy)
        if isinstance(returned, ImportError):
            problem = f"cannot load what the cube needs ({returned})"
            raise ClusterError("a worker", problem, "Install the same packages there as here")
        raise returned
