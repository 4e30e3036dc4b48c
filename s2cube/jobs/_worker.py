"""The work of a worker: one task, from its scenes to its files."""

from dataclasses import dataclass, replace
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
from s2cube.sentinel2 import QA, canonical_bands, cloud_percent
from s2cube.storage.failures import SliceFailure
from s2cube.storage.output import Output

if TYPE_CHECKING:
    import xarray as xr

    from s2cube.cube.chunks import ReadGrid
    from s2cube.cube.reads import Read

_KEPT_BYTES = 64 << 20
"""Largest size of masks that are kept if they are computed before bands are read. Larger ones are computed twice; the
cache still has what was fetched for them, as far as it has room."""


def make_slice(task: Task, config: JobConfig, output: Output) -> SliceResult:
    """Make the slice of a task, on a worker. If it fails, the result says why; the result also says what it read.

    Raises
    ------
    WriteError
        If it cannot be written. The slice is not the reason.
    BusyError
        If another run writes there now.
    """
    try:
        return _make_slice(task, config, output)
    except S2CubeError as error:
        # Dask pickles causes too. Some (GDAL's) cannot be unpickled; then only a text would arrive.
        error.__cause__ = error.__context__ = None
        raise


def _make_slice(task: Task, config: JobConfig, output: Output) -> SliceResult:
    reached = _reaches(output)
    if (
        reached
        and not config.job.overwrite
        and output.state(task.aoi.id, task.id, task.slice.recipe, config.cube.bands) == "current"
    ):
        # A worker made it, but was lost before it returned the result.
        return SliceResult(task.id, path=output.path(task.aoi.id, task.id))
    from s2cube.cube.chunks import read_grid
    from s2cube.jobs._memory import share

    access = read_access(config.read)
    try:
        grid = read_grid(task.geobox, task.scenes, config.cube.dilation_m)
        with share(grid, config.cube) as readers:
            result = _Making(task, config, grid, access, readers).make(output if reached else None)
    except (SliceError, UsageError) as error:
        result = failed(task, error)
    except (OSError, MemoryError) as error:
        result = failed(task, error, may_pass=True)
    usage = access.usage
    notes = tuple(f"{safe_text(href)}: {text}" for href, text in usage.notes.items())
    return replace(result, traffic=usage.traffic, notes=notes)


@per_session(maxsize=4)
def _reaches(output: Output) -> bool:
    """Find out whether this process can write to the output of a run; a folder may be another machine's.

    Raises
    ------
    BusyError
        If another run writes to the bucket now.
    WriteError
        If this process may not write to it.
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
        return False  # readable but not writable here: the files are returned
    return False


@dataclass(frozen=True)
class _Making:
    """The slice of a task while it is made.

    Parameters
    ----------
    readers
        Threads that read and compute.
    """

    task: Task
    config: JobConfig
    grid: "ReadGrid"
    access: Access
    readers: int

    def make(self, output: Output | None) -> SliceResult:
        """Read, compute and write; without an output, return the files."""
        from s2cube.cube.reads import reads, with_cloud

        files = reads(self.task.scenes, self.grid, self.config.cube)
        screened = self._screened(files, self.config.cube)
        limit = self.config.job.max_aoi_cloud_percent
        if limit is not None:
            judging = with_cloud(self.config.cube)
            judged = screened
            if judging != self.config.cube:
                judged = self._screened(reads(self.task.scenes, self.grid, judging), judging)
            elif screened.nbytes <= _KEPT_BYTES:
                # Computed once, for this and for the image.
                screened = judged = screened.persist(scheduler="threads", num_workers=self.readers)
            if reason := self._rejection(judged, limit):
                return SliceResult(self.task.id, rejected=reason)
        with output.destination.staging() if output else TemporaryDirectory(prefix="s2cube-") as place:
            folder = Path(place)
            doubted = self._write(files, screened, folder)
            if output:
                path = output.publish(self.task.aoi.id, self.task.id, folder)
                return SliceResult(self.task.id, path=path, doubtful=doubted)
            contents = {each.name: each.read_bytes() for each in folder.iterdir()}
        return SliceResult(self.task.id, files=contents, doubtful=doubted)

    @property
    def _per_slice(self) -> tuple[int, ...]:
        return (len(self.task.scenes),)

    def _screened(self, files: "list[Read]", config: CubeSection) -> "xr.Dataset":
        return screen(files, self._per_slice, self.grid, config, self.access)

    def _rejection(self, screened: "xr.Dataset", limit_percent: float) -> str | None:
        """Say why the slice is not written: masks show too much cloud inside the AOI."""
        import dask.array as da

        from s2cube.cube.cut import cut_reasons
        from s2cube.cube.mask import explain

        task = self.task
        reasons = cut_reasons(explain(screened, self._per_slice), self.grid.geobox, task.geobox, task.aoi.geometry)
        counts = da.stack([(reasons == value).sum() for value in QA])
        cloud = cloud_percent(counts.compute(scheduler="threads", num_workers=self.readers))
        if cloud is None:
            return "no source data inside the AOI"
        return f"{cloud:.1f} % cloud inside the AOI, more than {limit_percent:g}" if cloud > limit_percent else None

    def _write(self, files: "list[Read]", screened: "xr.Dataset", folder: Path) -> tuple[str, ...]:
        """Write the files of the image; give the ids of scenes whose offset is in doubt."""
        from s2cube.cube.cut import cut
        from s2cube.cube.facts import slice_facts
        from s2cube.cube.mosaic import mosaic
        from s2cube.cube.offset_check import OffsetCheck
        from s2cube.cube.stack import read_bands
        from s2cube.output.files import write_files

        task, config = self.task, self.config.cube
        dn = read_bands(files, config.bands, config.quality, self.access)
        offsets = offsets_dn(task.scenes, config)
        images = mosaic(dn, screened, offsets, self._per_slice, self.grid.geobox, config.dtype)
        image = cut(images, task.geobox, task.aoi.geometry, [task.slice.time])[0]
        check = OffsetCheck(dn, screened, offsets, canonical_bands(config.bands))
        facts = slice_facts(task, config)
        return write_files(image, facts, folder, self.config.output, self.readers, check)


def failed(task: Task, error: BaseException, may_pass: bool = False) -> SliceResult:
    """Give the result of a task that has failed.

    Parameters
    ----------
    may_pass
        Whether another try may succeed, if the error does not say so itself.
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
