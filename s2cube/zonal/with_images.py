"""Compute images and statistics of a job from the same pixels."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from typing import Self

import pyarrow as pa

from s2cube.fetch.traffic import Traffic
from s2cube.fields.division import patch_of, with_statistics
from s2cube.fields.fields import Fields
from s2cube.fields.patches import Patch
from s2cube.fields.reading import check_columns, read_fields
from s2cube.jobs.job import Job
from s2cube.jobs.pipeline import Watch, run_job
from s2cube.jobs.results import Summary
from s2cube.scenes.recipe import lattice_part
from s2cube.scenes.search import Catalogue
from s2cube.scenes.time_slice import Task
from s2cube.storage.lease import Lease
from s2cube.tables.areas_file import write_areas
from s2cube.tables.csv_file import has_csv, write_csv
from s2cube.tables.table import Table
from s2cube.tables.writer import TableWriter
from s2cube.workers.results import SliceResult
from s2cube.zonal._overwrite import RowJournal
from s2cube.zonal._plans import FieldPlans
from s2cube.zonal._source import reserved_columns
from s2cube.zonal._statistics_job import StatisticsJob, for_statistics, key_of
from s2cube.zonal.tabulate import Total, write_part


@dataclass(frozen=True)
class Origin:
    """Where a job comes from.

    Parameters
    ----------
    has_file
        Whether the file that the settings name has the areas: its columns are kept beside the table.
    catalogue
        Returns the catalogue, or no item if it is not known here.
    has_areas
        Whether the process that submitted the job has written the areas, see `save_areas`.
    """

    has_file: bool
    catalogue: Callable[[], Catalogue]
    has_areas: bool = False


def compute_both(job: Job, lease: Lease, watch: Watch | None, origin: Origin) -> Summary:
    """Compute the images of a planned job, and the rows of all its slices.

    The rows of slices whose images are up to date, rejected or larger than a block are computed afterwards, if the
    table does not have them.
    """
    output, plans = lease.output, BothPlans.of(job)
    config, whole = plans.whole.config, plans.whole
    if not origin.has_areas:
        save_areas(job, origin.has_file)
    writer = TableWriter(Table(output), whole.key, whole.squares, plans.journal.add)
    with writer.flushed():
        summary = run_job(plans.job, lease, watch, _Rows(writer))
    total = Total()
    # The rows that were written with the images are among those that are skipped.
    failed = {str(each["slice"]) for each in summary.failed}
    rest = replace(plans.rest(failed, origin.catalogue), skipped=())
    with writer.flushed():
        write_part(rest, lease, writer, total, watch)
    if not failed and not total.is_open:
        plans.journal.end()
    if config.table.format == "csv" or (writer.rows and has_csv(output)):
        write_csv(Table(output))
    traffic = Traffic(summary.requests, summary.bytes) + total.traffic
    return replace(
        summary,
        failed=[*summary.failed, *total.summary().failed],
        rows=writer.rows,
        requests=traffic.requests,
        bytes=traffic.bytes,
    )


def save_areas(job: Job, has_file: bool) -> None:
    """Write the areas of a planned job beside the table. This process must have the lease of the output.

    Parameters
    ----------
    has_file
        See `Origin`.

    Raises
    ------
    ConfigError
        If a band has classes.
    AOIError
        If a column of the file has the name of a column of the table.
    """
    for_statistics(job.config)
    write_areas(job.output, _areas(job, has_file))


@dataclass(frozen=True)
class BothPlans:
    """Plans a job that computes images and statistics.

    Parameters
    ----------
    job
        The images, with the statistics that are computed from the same pixels.
    whole
        The fields, without tasks.
    patches
        The patch of each area, by its id.
    journal
        The rows that this --overwrite has written.
    """

    job: Job
    whole: StatisticsJob
    patches: dict[str, Patch]
    journal: RowJournal

    @classmethod
    def of(cls, job: Job) -> Self:
        """Add statistics to a planned job.

        Raises
        ------
        ConfigError
            If a band has classes.
        """
        config = for_statistics(job.config)
        key, fields = key_of(config), tuple(Fields.groups(plan.aoi for plan in job.plans))
        patches = {plan.aoi.id: patch_of(plan) for plan in job.plans}
        todo = tuple(with_statistics(task, patches[task.aoi.id], _lattice(task, job), key.id) for task in job.todo)
        whole = StatisticsJob(config, job.output, (), (), (), key=key, fields=fields)
        return cls(replace(job, todo=todo), whole, patches, RowJournal.of(job.output, config))

    def rest(self, without: Collection[str], catalogue: Callable[[], Catalogue]) -> StatisticsJob:
        """Return the rows that the table does not have.

        Parameters
        ----------
        without
            Ids of slices that are left out.
        catalogue
            See `Origin`.
        """
        stored = Table(self.job.output).stored({*self.whole.squares.values()})
        plans = FieldPlans(self.whole.config, self.whole.key, stored, self.journal)
        for plan in self.job.plans:
            slices = tuple(each for each in plan.slices if each.id not in without)
            plans.add(replace(self.patches[plan.aoi.id], plan=replace(plan, slices=slices, unusable=())))
        plans.decide_on_lost_scenes(catalogue)
        return replace(self.whole, todo=tuple(plans.todo), skipped=tuple(plans.skipped))


class _Rows:
    """Collects the rows of results."""

    def __init__(self, writer: TableWriter) -> None:
        self._writer = writer

    def begin(self, job: Job) -> None:
        """Receive the job."""

    def advance(self, result: SliceResult) -> None:
        """Receive the final result of a slice."""
        self._writer.add(result.rows)


def _lattice(task: Task, job: Job) -> str:
    return lattice_part(str(task.geobox.crs), job.config.cube)


def _areas(job: Job, has_file: bool) -> Iterator[tuple[Fields, pa.Table]]:
    """Yield the areas of a job with the other columns of their file."""
    if has_file:
        of_job = job.config.job
        for batch in read_fields(of_job.aoi, of_job.aoi_id, layer=of_job.aoi_layer):
            check_columns(batch.attributes.column_names, reserved_columns(job.config), str(of_job.aoi))
            yield batch.fields, batch.attributes
    else:
        yield from ((each, pa.table({})) for each in Fields.groups(plan.aoi for plan in job.plans))
