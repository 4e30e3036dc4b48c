"""The result of a slice, also of one that fails."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from s2cube.config.times import timestamp
from s2cube.errors import SliceError, UsageError, safe_text
from s2cube.fetch.traffic import Traffic
from s2cube.fields.patches import FieldTask
from s2cube.scenes.time_slice import Task
from s2cube.storage.failures import SliceFailure
from s2cube.tables.rows import slice_ids


@dataclass(frozen=True)
class Written:
    """What is known about an image when its files are written.

    Parameters
    ----------
    doubtful
        Ids of scenes whose pixels contradict the offset that is added to them.
    beyond_int16
        Number of cells of each index whose values int16 cannot store, by the name of the index. Of a composite, the sum
        over its days, or the number of its own cells if it has the indices of its own spectrum.
    observed_cells
        Number of cells of a composite that have an observation. None for other images.
    missing
        Ids of the slices of the days that a composite lacks, because they cannot be read.
    damaged
        Daily images that a composite does not use, because they are not as their Items say, with the problem of each.
    """

    doubtful: tuple[str, ...] = ()
    beyond_int16: Mapping[str, int] = field(default_factory=dict)
    observed_cells: int | None = None
    missing: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()


@dataclass(frozen=True)
class SliceResult:
    """The result of a time slice: written, failed or rejected.

    Parameters
    ----------
    path
        Path or address of the COG, if the slice was written.
    failure
        The reason, if the slice failed.
    rejected
        The reason, if the slice was rejected.
    cloud_percent
        Cloud in the area, if the slice was rejected. None if nothing is observed.
    found
        What is known about the image, if the slice was written.
    traffic
        Requests and bytes; also of files on the network that GDAL reads, but not of its files on this machine. `notes`
        name the files that GDAL reads.
    notes
        Lines for the log about files.
    files
        Content of the files of the slice by name, if the worker cannot reach the output.
    rows
        Rows of the table of statistics, if they were computed; see `tables.rows`.
    failures
        Fields of the slice that failed, and therefore have no row.
    estimated_bytes_saved
        Bytes that the method ``first`` of composites did not read.
    """

    slice: str
    path: str | None = None
    failure: SliceFailure | None = None
    rejected: str | None = None
    cloud_percent: float | None = None
    found: Written = field(default_factory=Written)
    traffic: Traffic = field(default_factory=Traffic)
    notes: tuple[str, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    rows: pa.Table | None = None
    failures: tuple[SliceFailure, ...] = ()
    estimated_bytes_saved: int = 0

    @property
    def all_failures(self) -> tuple[SliceFailure, ...]:
        """The failure of the slice, and those of its fields."""
        return (*([self.failure] if self.failure else []), *self.failures)

    @property
    def written(self) -> int:
        """Number of images that were written, or of rows that were computed without an image."""
        if self.path or self.rows is None:
            return int(self.path is not None)
        return int(self.rows.num_rows)

    @property
    def passing(self) -> SliceFailure | None:
        """A failure of the slice, or of a field, that another attempt may not have; None if there is none."""
        return next((each for each in self.all_failures if each.may_pass), None)

    @property
    def may_pass(self) -> bool:
        """Whether the slice, or a field, failed and another attempt may succeed."""
        return self.passing is not None


def rejection(cloud_percent: float | None, limit_percent: float) -> str | None:
    """Return why a slice is rejected; None if it is not rejected.

    Parameters
    ----------
    cloud_percent
        Cloud in the area, percent of what is observed; None if nothing is observed.
    """
    if cloud_percent is None:
        return "no source data inside the AOI"
    is_rejected = cloud_percent > limit_percent
    return f"{cloud_percent:.1f} % cloud inside the AOI, more than {limit_percent:g}" if is_rejected else None


def failed(task: Task, error: BaseException, may_pass: bool = False) -> SliceResult:
    """Return the result of a failed task.

    Parameters
    ----------
    may_pass
        Whether another attempt may succeed, even if the error itself does not state this.
    """
    if isinstance(task, FieldTask) and task.image is None:
        return SliceResult(task.id, failures=failures_of(task, dict.fromkeys(range(len(task.fields)), error), may_pass))
    return SliceResult(task.id, failure=_failure(task, task.id, error, may_pass))


def failures_of(
    task: FieldTask, errors: Mapping[int, BaseException], may_pass: bool = False
) -> tuple[SliceFailure, ...]:
    """Return the failures of fields, whose errors are given by their positions."""
    ids = slice_ids(task.fields.ids, task.label)
    return tuple(_failure(task, ids[position], error, may_pass) for position, error in errors.items())


def joined(task: FieldTask, parts: Sequence[SliceResult]) -> SliceResult:
    """Return the results of parts of a task as one."""
    rows = [each.rows for each in parts if each.rows is not None]
    failures = tuple(failure for each in parts for failure in each.failures)
    return SliceResult(task.id, rows=pa.concat_tables(rows) if rows else None, failures=failures)


def _failure(task: Task, slice_id: str, error: BaseException, may_pass: bool) -> SliceFailure:
    of_slice = isinstance(error, SliceError)
    return SliceFailure(
        slice=slice_id,
        scenes=tuple(scene.id for scene in task.scenes),
        asset=error.asset if isinstance(error, SliceError) else "",
        error=str(error) if of_slice else safe_text(f"{type(error).__name__}: {error}"),
        time=timestamp(timespec="seconds"),
        may_pass=may_pass or (isinstance(error, SliceError) and error.may_pass),
        absent=error.scene if isinstance(error, SliceError) and error.is_absent else "",
    )


def attempt(task: Task, compute: Callable[[], SliceResult]) -> SliceResult:
    """Return the result of a task, also if it fails. Errors that concern all slices are raised."""
    try:
        return compute()
    except (SliceError, UsageError) as error:
        return failed(task, error)
    except (OSError, MemoryError) as error:
        return failed(task, error, may_pass=True)
