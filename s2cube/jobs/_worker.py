"""Compute one task on a worker, from its scenes to its files."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from s2cube.config.sections import CubeSection, JobConfig
from s2cube.config.times import timestamp
from s2cube.cube.open_cube import offsets_dn, read_access, screen
from s2cube.errors import S2CubeError, SliceError, UsageError, WriteError, safe_text
from s2cube.fetch.session import per_session
from s2cube.fetch.store import Access
from s2cube.jobs.results import SliceResult
from s2cube.scenes.time_slice import Task
from s2cube.sentinel2 import QA, canonical_bands, cloud_percent, reflectance_bands
from s2cube.storage.failures import SliceFailure
from s2cube.storage.output import Output

if TYPE_CHECKING:
    import xarray as xr

    from s2cube.cube.chunks import ReadGrid
    from s2cube.cube.reads import Read

_MAX_KEPT_BYTES = 64 << 20
"""Maximum size of masks that stay in memory if they are computed before bands are read. Larger masks are computed
twice, from tiles that may still be in the cache."""


def make_slice(task: Task, config: JobConfig, output: Output) -> SliceResult:
    """Compute and write the slice of a task, on a worker. The result contains its traffic and the reason of a failure.

    Raises
    ------
    WriteError
        If the slice cannot be written. The slice itself is not the cause.
    BusyError
        If another run writes there now.
    """
    try:
        return _make_slice(task, config, output)
    except S2CubeError as error:
        # Dask also pickles the causes. Errors of GDAL cannot be unpickled, so the client would receive only a text.
        error.__cause__ = error.__context__ = None
        raise


def _make_slice(task: Task, config: JobConfig, output: Output) -> SliceResult:
    is_reachable = can_write(output)
    if (
        is_reachable
        and not config.job.overwrite
        and output.state(task.aoi.id, task.id, task.slice.recipe, config.cube.bands) == "current"
    ):
        # A worker has written the slice, but was lost before it returned the result.
        return SliceResult(task.id, path=output.path(task.aoi.id, task.id))
    from s2cube.cube.chunks import read_grid
    from s2cube.jobs._memory import of_slice, share

    access = read_access(config.read)
    try:
        grid = read_grid(task.geobox, task.scenes, config.cube.dilation_m)
        with share(partial(of_slice, grid, config.cube)) as readers:
            result = _SliceComputation(task, config, grid, access, readers).run(output if is_reachable else None)
    except (SliceError, UsageError) as error:
        result = failed(task, error)
    except (OSError, MemoryError) as error:
        result = failed(task, error, may_pass=True)
    usage = access.usage
    notes = tuple(f"{safe_text(href)}: {text}" for href, text in usage.notes.items())
    return replace(result, traffic=usage.traffic, notes=notes)


@per_session(maxsize=4)
def can_write(output: Output) -> bool:
    """Report whether this process can write to the output of a run. A folder may be on another machine.

    Raises
    ------
    BusyError
        If another run writes to the bucket now.
    WriteError
        If this process has no permission to write to the bucket.
    """
    if output.destination.is_shared:
        output.fence.check()
        output.destination.check_writable()
        return True
    try:
        if output.fence.is_intact():
            output.destination.check_writable()
            return True
    except WriteError:
        return False  # readable but not writable here, so the files are returned
    return False


@dataclass(frozen=True)
class _SliceComputation:
    """Computes and writes the slice of a task.

    Parameters
    ----------
    readers
        Number of threads that read and compute.
    """

    task: Task
    config: JobConfig
    grid: "ReadGrid"
    access: Access
    readers: int

    def run(self, output: Output | None) -> SliceResult:
        """Read, compute and write the slice. Without an output, return the content of its files."""
        from s2cube.cube.reads import reads, with_cloud

        files = reads(self.task.scenes, self.grid, self.config.cube)
        screened = self._screened(files, self.config.cube)
        limit = self.config.job.max_aoi_cloud_percent
        if limit is not None:
            cloud_config = with_cloud(self.config.cube)
            cloud_screened = screened
            if cloud_config != self.config.cube:
                cloud_screened = self._screened(reads(self.task.scenes, self.grid, cloud_config), cloud_config)
            elif screened.nbytes <= _MAX_KEPT_BYTES:
                from dask import threaded

                # Compute the masks once, for the rejection and for the image.
                screened = cloud_screened = screened.persist(scheduler=threaded.get, num_workers=self.readers)
            if reason := self._rejection(cloud_screened, limit):
                return SliceResult(self.task.id, rejected=reason)
        return deliver(partial(self._write, files, screened), self.task.aoi.id, self.task.id, output)

    @property
    def _per_slice(self) -> tuple[int, ...]:
        return (len(self.task.scenes),)

    def _screened(self, files: "list[Read]", config: CubeSection) -> "xr.Dataset":
        return screen(files, self._per_slice, self.grid, config, self.access)

    def _rejection(self, screened: "xr.Dataset", limit_percent: float) -> str | None:
        """Return why the slice is rejected: no data, or too much cloud, inside the AOI; None if it is not rejected."""
        import dask.array as da
        from dask import threaded

        from s2cube.cube.cut import cut_reasons
        from s2cube.cube.mask import explain

        task = self.task
        reasons = cut_reasons(explain(screened, self._per_slice), self.grid.geobox, task.geobox, task.aoi.geometry)
        counts = da.stack([(reasons == value).sum() for value in QA])
        cloud = cloud_percent(counts.compute(scheduler=threaded.get, num_workers=self.readers))
        if cloud is None:
            return "no source data inside the AOI"
        return f"{cloud:.1f} % cloud inside the AOI, more than {limit_percent:g}" if cloud > limit_percent else None

    def _write(self, files: "list[Read]", screened: "xr.Dataset", folder: Path) -> tuple[str, ...]:
        """Write the files of the image; return the ids of scenes whose offset is in doubt."""
        from s2cube.cube.cut import cut
        from s2cube.cube.facts import slice_facts
        from s2cube.cube.mosaic import mosaic
        from s2cube.cube.offset_check import OffsetCheck
        from s2cube.cube.stack import read_bands
        from s2cube.output.files import write_files

        task, config = self.task, self.config.cube
        bands = reflectance_bands(config.bands)
        dn = read_bands(files, bands, config.quality, self.access)
        offsets = offsets_dn(task.scenes, config)
        images = mosaic(dn, screened, offsets, self._per_slice, self.grid.geobox, config)
        image = cut(images, task.geobox, task.aoi.geometry, [task.slice.time])[0]
        check = None if dn is None else OffsetCheck(dn, screened, offsets, canonical_bands(bands))
        facts = slice_facts(task, config)
        return write_files(image, facts, folder, self.config.output, self.readers, check)


def deliver(write: Callable[[Path], tuple[str, ...]], aoi_id: str, slice_id: str, output: Output | None) -> SliceResult:
    """Write the files of a slice, and put them into the output. Without an output, return their content.

    Parameters
    ----------
    write
        Writes the files to a folder; returns the ids of scenes whose offset is in doubt.
    """
    with output.destination.staging() if output else TemporaryDirectory(prefix="s2cube-") as name:
        folder = Path(name)
        doubtful = write(folder)
        if output:
            return SliceResult(slice_id, path=output.publish(aoi_id, slice_id, folder), doubtful=doubtful)
        contents = {each.name: each.read_bytes() for each in folder.iterdir()}
    return SliceResult(slice_id, files=contents, doubtful=doubtful)


def failed(task: Task, error: BaseException, may_pass: bool = False) -> SliceResult:
    """Return the result of a failed task.

    Parameters
    ----------
    may_pass
        Whether another attempt may succeed, even if the error itself does not state this.
    """
    of_slice = isinstance(error, SliceError)
    return SliceResult(
        task.id,
        failure=SliceFailure(
            slice=task.id,
            scenes=tuple(scene.id for scene in task.scenes),
            asset=error.asset if isinstance(error, SliceError) else "",
            error=str(error) if of_slice else safe_text(f"{type(error).__name__}: {error}"),
            time=timestamp(timespec="seconds"),
            may_pass=may_pass or (isinstance(error, SliceError) and error.may_pass),
        ),
    )
