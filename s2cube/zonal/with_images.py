"""Compute images and statistics of a job from the same pixels."""

from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa

from s2cube.area.aoi import AOI
from s2cube.fetch.traffic import Traffic
from s2cube.fields.fields import Fields
from s2cube.fields.patches import patch_of, with_statistics
from s2cube.fields.reading import read_fields
from s2cube.jobs.job import Job
from s2cube.jobs.pipeline import Watch, run_job
from s2cube.jobs.results import Summary
from s2cube.scenes.recipe import lattice_part
from s2cube.scenes.time_slice import Task
from s2cube.storage.lease import Lease
from s2cube.tables.areas import write_areas
from s2cube.tables.csv_file import write_csv
from s2cube.tables.table import Table
from s2cube.tables.writer import TableWriter
from s2cube.workers.results import SliceResult
from s2cube.zonal._plans import FieldPlans
from s2cube.zonal._statistics_job import StatisticsJob, for_statistics, key_of
from s2cube.zonal.tabulate import Total, write_part


def compute_both(job: Job, lease: Lease, watch: Watch | None, has_file: bool) -> Summary:
    """Compute the images of a planned job, and the rows of all its slices.

    The rows of slices whose images are up to date, rejected or larger than a block are computed afterwards, if the
    table does not have them.

    Parameters
    ----------
    has_file
        See `runs.run.run_planned`.
    """
    output, config = lease.output, for_statistics(job.config)
    fields = _columns([plan.aoi for plan in job.plans])
    key, table = key_of(config), Table(output)
    whole = StatisticsJob(config, output, (), (), (), key=key, fields=fields)
    writer = TableWriter(table, key, whole.squares, write_areas(output, _areas(job, fields, has_file)))
    patches = {plan.aoi.id: patch_of(plan) for plan in job.plans}
    todo = tuple(with_statistics(task, patches[task.aoi.id], _lattice(task, job), key.id) for task in job.todo)
    rows = _Rows(writer, watch)
    with writer.flushed():
        summary = run_job(replace(job, todo=todo), lease, rows)
    failed = {str(each["slice"]) for each in summary.failed}
    plans = FieldPlans(config.model_copy(update={"job": config.job.model_copy(update={"overwrite": False})}), key,
                       table.stored({*whole.squares.values()}))  # fmt: skip
    for plan in job.plans:
        slices = tuple(each for each in plan.slices if each.id not in failed)
        plans.add(replace(patches[plan.aoi.id], plan=replace(plan, slices=slices, unusable=())))
    total = Total()
    rest = replace(whole, todo=tuple(plans.todo))
    with writer.flushed():
        write_part(rest, lease, writer, total, watch)
    if config.table.format == "csv":
        write_csv(table)
    traffic = Traffic(summary.requests, summary.bytes) + total.traffic
    return replace(
        summary,
        failed=[*summary.failed, *total.summary().failed],
        rows=writer.rows,
        requests=traffic.requests,
        bytes=traffic.bytes,
    )


class _Rows:
    """Collects the rows of results, and passes the results on to another observer."""

    def __init__(self, writer: TableWriter, watch: Watch | None) -> None:
        self._writer, self._watch = writer, watch

    def begin(self, job: Job) -> None:
        """Receive the job."""
        if self._watch:
            self._watch.begin(job)

    def advance(self, result: SliceResult) -> None:
        """Receive the final result of a slice."""
        self._writer.add(result.rows)
        if self._watch:
            self._watch.advance(result)


def _lattice(task: Task, job: Job) -> str:
    return lattice_part(str(task.geobox.crs), job.config.cube)


def _columns(aois: list[AOI]) -> tuple[Fields, ...]:
    """Return areas as columns, those of each CRS."""
    groups: dict[str, list[AOI]] = {}
    for aoi in aois:
        groups.setdefault(str(aoi.geometry.crs), []).append(aoi)
    return tuple(map(Fields.of_aois, groups.values()))


def _areas(job: Job, fields: tuple[Fields, ...], has_file: bool) -> Iterator[tuple[Fields, pa.Table]]:
    """Yield the areas of a job with the other columns of their file."""
    if has_file:
        of_job = job.config.job
        batches = read_fields(of_job.aoi, of_job.aoi_id, layer=of_job.aoi_layer)
        yield from ((batch.fields, batch.attributes) for batch in batches)
    else:
        yield from ((each, pa.table({})) for each in fields)
