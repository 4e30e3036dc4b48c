"""Compute the statistics of fields: search, plan, compute the rows, and keep them as a table."""

import logging
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Self

import pyarrow as pa
import pystac

from s2cube.area.aoi import AOI
from s2cube.area.areas import areas_of_job
from s2cube.config.sections import JobConfig
from s2cube.config.times import timestamp
from s2cube.errors import ConfigError, SliceError
from s2cube.fetch.traffic import Traffic
from s2cube.fields.fields import Fields
from s2cube.fields.patches import FieldTask
from s2cube.jobs.job import Job, batches_of, forecast
from s2cube.jobs.pipeline import Watch, computer
from s2cube.jobs.recorder import Recorder
from s2cube.jobs.results import TableSummary
from s2cube.jobs.slice_policy import SlicePolicy
from s2cube.scenes.plan import Planner
from s2cube.scenes.scene_facts import SceneFacts
from s2cube.scenes.search import open_catalogue
from s2cube.scenes.time_slice import UnusableSlice
from s2cube.sentinel2 import class_band_of
from s2cube.storage.failures import SliceFailure
from s2cube.storage.lease import Lease, held
from s2cube.storage.output import Output
from s2cube.storage.record import Progress
from s2cube.tables.areas import write_areas
from s2cube.tables.csv_file import write_csv
from s2cube.tables.rows import Key, schema, slice_ids, value_columns
from s2cube.tables.table import Table, squares_of
from s2cube.tables.writer import TableWriter
from s2cube.workers.results import SliceResult, failures_of
from s2cube.zonal._plans import FieldPlans, plan_fields, scenes_of

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StatisticsJob(Job):
    """The rows that a run will compute. `todo` has one task per patch of fields and slice.

    Parameters
    ----------
    key
        What the rows have in common.
    failures
        Rows that cannot be computed.
    fields
        The fields of each CRS.
    """

    key: Key = field(kw_only=True)
    failures: tuple[SliceFailure, ...] = ()
    fields: tuple[Fields, ...] = ()

    @cached_property
    def row_ids(self) -> list[str]:
        """Ids of the slices of the rows that will be computed."""
        return [name for task in self._tasks for name in slice_ids(task.fields.ids, task.label)]

    @property
    def rows(self) -> int:
        """Number of rows that will be computed."""
        return len(self.row_ids)

    @property
    def total(self) -> int:
        """Number of rows that will be computed, or that fail without an attempt."""
        return self.rows + len(self.failures)

    @property
    def squares(self) -> dict[str, str]:
        """Square of the table of each field, by its id."""
        return {
            name: square
            for each in self.fields
            for name, square in zip(each.ids, squares_of(each.bounds_lonlat), strict=True)
        }

    @property
    def _tasks(self) -> list[FieldTask]:
        return [task for task in self.todo if isinstance(task, FieldTask)]

    def without(self, unusable: Iterable[UnusableSlice]) -> Self:
        """Return the same job, without tasks that cannot be computed: their rows fail."""
        errors = {each.id: each.error for each in unusable}
        failed = [
            failure
            for task in self._tasks
            if task.id in errors
            for failure in failures_of(task, dict.fromkeys(range(len(task.fields)), errors[task.id]))
        ]
        todo = tuple(task for task in self.todo if task.id not in errors)
        return replace(self, todo=todo, failures=(*self.failures, *failed))


def plan_statistics(config: JobConfig, output: Output, fields: Sequence[Fields]) -> StatisticsJob:
    """Decide which rows will be computed. No pixel is read.

    Parameters
    ----------
    fields
        Fields of each CRS. Their ids are unique.

    Raises
    ------
    UsageError
        If a setting is not valid.
    SearchError
        If the catalogue does not return its scenes.
    """
    config = _checked(config)
    key = Key(value_columns(config), _settings(config))
    catalogue = open_catalogue(config.search, config.read.timeout_s)
    scenes = scenes_of(fields, config, catalogue)
    squares = {name for each in fields for name in squares_of(each.bounds_lonlat)}
    plans, planner = FieldPlans(config, key, Table(output).stored(squares)), Planner(config.cube)
    for group in fields:
        for patch in plan_fields(group, scenes, planner, config):
            plans.add(patch)
    plans.decide_on_lost_scenes(catalogue)
    log.info("%d fields, %d scenes", sum(map(len, fields)), len(scenes))
    todo = tuple(sorted(plans.todo, key=lambda task: task.slice.time))
    return StatisticsJob(
        config, output, (), todo, tuple(plans.skipped), key=key, failures=tuple(plans.failures), fields=tuple(fields)
    )


def _checked(config: JobConfig) -> JobConfig:
    """Check the bands, and leave out settings that concern only images."""
    for name in config.cube.bands:
        if class_band_of(name):
            problem = "is a band of classes, which have no statistics"
            raise ConfigError(f"band '{name}'", problem, "Remove it from --bands")
    return config.model_copy(update={"job": config.job.model_copy(update={"max_aoi_cloud_percent": None})})


def _settings(config: JobConfig) -> str:
    """Return the settings on which the scenes of a row depend."""
    search = config.search
    return f"{search.collection} {search.max_cloud_percent:g} {config.cube.group_by}"


def run_statistics(job: StatisticsJob, lease: Lease, watch: Watch | None = None) -> TableSummary:
    """Compute the rows of a planned job. This process must have the lease of the output."""
    forecasts = forecast(job, headers=False)
    job = replace(job.without(forecasts.unusable), in_threads=forecasts.in_threads)
    lease.progress = Progress(total=job.total, failed=len(job.failures), skipped=len(job.skipped))
    if watch:
        watch.begin(job)
    lease.output.failures.remove({*job.skipped, *job.row_ids})
    lease.output.failures.add(job.failures)
    moved = write_areas(lease.output, [(each, pa.table({})) for each in job.fields])
    writer = TableWriter(Table(lease.output), job.key, job.squares, moved)
    failures, traffic = [*job.failures], Traffic()
    try:
        for result in _compute(job, lease) if job.todo else ():
            writer.add(result.rows)
            failures += result.all_failures
            traffic += result.traffic
            if watch:
                watch.advance(result)
    finally:
        writer.flush()
    if job.config.table.format == "csv":
        writer.files.add(write_csv(Table(lease.output)))
    return TableSummary(
        rows=writer.rows,
        written=sorted(writer.files),
        skipped=list(job.skipped),
        failed=[{"slice": each.slice, "error": each.error, "may_pass": each.may_pass} for each in failures],
        requests=traffic.requests,
        bytes=traffic.bytes,
    )


def _compute(job: StatisticsJob, lease: Lease) -> Iterator[SliceResult]:
    """Compute rows; record and yield the final result of each patch and slice."""
    from s2cube.workers.worker import compute_batch

    recorder = Recorder(lease)
    function = partial(compute_batch, config=job.config.for_workers(), output=None)
    tasks = [(batch.id, batch) for batch in batches_of(job)]
    policy = SlicePolicy(job.config.job.slice_retries)
    with computer(job.config.cluster, job.in_threads, function, tasks, policy) as computed:
        lease.progress = replace(lease.progress, began=timestamp())
        lease.heartbeat()
        for batch, results in computed:
            running = math.ceil(computed.running * job.rows / len(tasks))
            yield from recorder.record(batch, results, running)


def tabulate(config: JobConfig, watch: Watch | None = None) -> TableSummary:
    """Compute the statistics of the areas of a job, and write them to its output."""
    with held(Output.at(config.job.out)) as lease:
        job = plan_statistics(config, lease.output, _columns(areas_of_job(config.job)))
        return run_statistics(job, lease, watch)


def rows_of_scenes(items: Iterable[pystac.Item], aois: Sequence[AOI], config: JobConfig) -> "pd.DataFrame":
    """Compute statistics in threads of this process, see `statistics_of.statistics`.

    Raises
    ------
    SliceError
        If a row cannot be computed.
    """
    from s2cube.workers.batches import batches
    from s2cube.workers.worker import compute_batch

    config = _checked(config)
    columns = value_columns(config)
    plans = FieldPlans(config, Key(columns, _settings(config)), {})
    planner, scenes = Planner(config.cube), list(map(SceneFacts, items))
    for group in _columns(aois):
        for patch in plan_fields(group, scenes, planner, config):
            plans.add(patch)
    function = partial(compute_batch, config=config, output=None)
    tasks = [(batch.id, batch) for batch in batches(plans.todo, os.cpu_count() or 1)]
    rows, failures = [schema(columns).empty_table()], plans.failures
    with computer(config.cluster, True, function, tasks, SlicePolicy(config.job.slice_retries)) as computed:
        for _, results in computed if tasks else ():
            failures += (each for result in results for each in result.all_failures)
            rows += [result.rows for result in results if result.rows is not None]
            if failures:
                break
    for each in failures:
        raise SliceError(each.slice, each.error, "Correct the cause, or leave out the scene", each.asset)
    ordered = pa.concat_tables(rows).sort_by([("aoi", "ascending"), ("date", "ascending"), ("slice", "ascending")])
    frame: pd.DataFrame = ordered.to_pandas(date_as_object=False)
    return frame


def _columns(aois: Iterable[AOI]) -> list[Fields]:
    """Return areas as columns, those of each CRS."""
    groups: dict[str, list[AOI]] = {}
    for aoi in aois:
        groups.setdefault(str(aoi.geometry.crs), []).append(aoi)
    return [Fields.of_aois(each) for each in groups.values()]
