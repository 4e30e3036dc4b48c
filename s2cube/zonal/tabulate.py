"""Compute the statistics of the fields of a job, and keep them as a table."""

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

from s2cube.config.sections import JobConfig
from s2cube.config.times import timestamp
from s2cube.errors import SearchError
from s2cube.fetch.traffic import Traffic
from s2cube.fields.fields import Fields
from s2cube.fields.spool import FieldSpool
from s2cube.jobs.forecasts import batches_of, forecast
from s2cube.jobs.pipeline import Watch, computer, early_workers
from s2cube.jobs.recorder import Recorder
from s2cube.jobs.results import TableSummary
from s2cube.jobs.slice_policy import SlicePolicy
from s2cube.report.page import write_report_if_wanted
from s2cube.report.request import keep_request
from s2cube.scenes.plan import Planner
from s2cube.scenes.scene_facts import SceneFacts
from s2cube.scenes.search import Catalogue, TwoCatalogues, open_catalogue
from s2cube.stac.api import Api
from s2cube.storage.failures import SliceFailure
from s2cube.storage.lease import Lease, held
from s2cube.storage.output import Output
from s2cube.storage.record import Progress
from s2cube.tables.areas_file import AreasSpool, write_spooled
from s2cube.tables.csv_file import has_csv, write_csv
from s2cube.tables.table import Table, squares_of
from s2cube.tables.writer import TableWriter
from s2cube.workers.results import SliceResult
from s2cube.zonal._overwrite import RowJournal
from s2cube.zonal._plans import FieldPlans, plan_fields, scenes_of
from s2cube.zonal._source import Source
from s2cube.zonal._statistics_job import StatisticsJob, for_statistics, key_of

log = logging.getLogger(__name__)


def tabulate(config: JobConfig, watch: Watch | None = None) -> TableSummary:
    """Compute the statistics of the areas of a job, and write them to the table of its output.

    Parameters
    ----------
    watch
        Object whose methods are called when rows are planned, and after each result.

    Raises
    ------
    S2CubeError
        If the job cannot be done, as `runs.run.run`. A row that fails does not raise an error. The summary and
        ``failures.jsonl`` list it.
    """
    with (
        held(Output.at(config.job.out)) as lease,
        early_workers(config, lease),
        planned_rows(config, lease.output) as (plans, areas),
    ):
        keep_request(lease.output, config, {})
        summary = write_rows(plans, areas, lease, watch)
    write_report_if_wanted(config, lease.output)
    return summary


@dataclass(frozen=True)
class StatisticsPlans:
    """Plans the rows of a job, some squares of the map at a time, so that memory does not grow with their number."""

    config: JobConfig
    output: Output
    source: Source
    catalogue: Catalogue
    scenes: list[SceneFacts]
    planner: Planner
    journal: RowJournal

    @classmethod
    def of(
        cls, config: JobConfig, output: Output, source: Source, catalogue: Catalogue | None = None
    ) -> "StatisticsPlans":
        """Read the areas of a job, and find their scenes.

        Parameters
        ----------
        source
            Receives the areas.
        catalogue
            The catalogue, if it is open already.

        Raises
        ------
        UsageError
            If a setting or the areas are not valid.
        SearchError
            If the catalogue does not return its scenes.
        """
        config = for_statistics(config)
        if catalogue is None:
            try:
                catalogue = open_catalogue(config.search, config.read.timeout_s)
            except SearchError:
                # A mistake in the areas is named first. Otherwise they are read later, because a catalogue in a file
                # tells which of them have scenes.
                check_fields(config)
                raise
        within = (
            None if isinstance(catalogue, Api | TwoCatalogues) else [SceneFacts(each).footprint for each in catalogue]
        )
        source.read(config, within)
        scenes = scenes_of(source.squares(), config, catalogue)
        log.info("%d areas, %d scenes", source.count, len(scenes))
        return cls(config, output, source, catalogue, scenes, Planner(config.cube), RowJournal.of(output, config))

    def jobs(self) -> Iterator[StatisticsJob]:
        """Decide which rows will be computed. No pixel is read."""
        for fields in self.source.parts():
            yield self._job(fields)

    def _job(self, fields: Sequence[Fields]) -> StatisticsJob:
        squares = {name for each in fields for name in squares_of(each.bounds_lonlat)}
        plans = FieldPlans(self.config, key_of(self.config), Table(self.output).stored(squares), self.journal)
        for group in fields:
            for patch in plan_fields(group, self.scenes, self.planner, self.config):
                plans.add(patch)
        plans.decide_on_lost_scenes(lambda: self.catalogue)
        todo = tuple(sorted(plans.todo, key=lambda task: task.slice.time))
        return StatisticsJob(
            self.config, self.output, (), todo, tuple(plans.skipped),
            key=plans.key, failures=tuple(plans.failures), fields=tuple(fields), without_scenes=plans.without_scenes,
        )  # fmt: skip


def check_job(config: JobConfig) -> None:
    """Check the settings and the areas, before statistics are computed elsewhere.

    Raises
    ------
    UsageError
        If they are not valid.
    """
    for_statistics(config)
    check_fields(config)


def check_fields(config: JobConfig) -> None:
    """Read the areas of a job, and keep nothing.

    Raises
    ------
    UsageError
        If they are not valid.
    """
    with FieldSpool() as spool:
        Source(spool).read(config, None)


@contextmanager
def planned_rows(
    config: JobConfig, output: Output, catalogue: Catalogue | None = None
) -> Iterator[tuple[StatisticsPlans, AreasSpool]]:
    """Read the areas of a job into a temporary file, and find their scenes; yield the plans and the areas.

    Parameters
    ----------
    catalogue
        The catalogue, if it is open already.
    """
    with FieldSpool() as spool:
        areas = AreasSpool(spool.folder)
        yield StatisticsPlans.of(config, output, Source(spool, areas), catalogue), areas


@dataclass
class Total:
    """What a run has done."""

    rows: int = 0
    files: set[str] = field(default_factory=set)
    skipped: list[str] = field(default_factory=list)
    failures: list[SliceFailure] = field(default_factory=list)
    without_scenes: int = 0
    traffic: Traffic = field(default_factory=Traffic)
    is_open: bool = False
    """Whether rows have failed that the next run tries again."""

    def summary(self) -> TableSummary:
        """Return the same in the form for people and scripts."""
        failures = sorted(self.failures, key=lambda each: each.slice)
        return TableSummary(
            rows=self.rows,
            written=sorted(self.files),
            skipped=sorted(self.skipped),
            failed=[{"slice": each.slice, "error": each.error, "may_pass": each.may_pass} for each in failures],
            requests=self.traffic.requests,
            bytes=self.traffic.bytes,
        )


def write_rows(plans: StatisticsPlans, areas: AreasSpool, lease: Lease, watch: Watch | None = None) -> TableSummary:
    """Compute the rows of a job, and write the table. This process must have the lease of the output.

    Parameters
    ----------
    areas
        The fields with their other columns.
    """
    output, total = lease.output, Total()
    unusable = plans.source.failures
    output.failures.remove({each.slice for each in unusable})
    output.failures.add(unusable)
    total.failures += unusable
    log_failures(unusable)
    lease.progress = Progress(total=len(unusable), failed=len(unusable), unit="rows")
    write_spooled(output, areas)
    for job in plans.jobs():
        writer = TableWriter(Table(output), job.key, job.squares, plans.journal.add)
        with writer.flushed():
            write_part(job, lease, writer, total, watch)
        total.rows += writer.rows
        total.files |= writer.files
        total.skipped += job.skipped
        total.without_scenes += job.without_scenes
    begin(lease)
    if not total.is_open:
        plans.journal.end()
    if total.without_scenes and (total.rows or total.skipped or total.failures):
        log.info("areas that no scene meets, and that have no row: %d", total.without_scenes)
    if plans.config.table.format == "csv" or (total.rows and has_csv(output)):
        total.files.add(write_csv(Table(output)))
    return total.summary()


def write_part(job: StatisticsJob, lease: Lease, writer: TableWriter, total: Total, watch: Watch | None) -> None:
    """Compute the rows of a planned job, and add them to a writer. The caller flushes it."""
    forecasts = forecast(job, headers=False)
    job = replace(job.without(forecasts.unusable), threads=forecasts.threads)
    if watch:
        watch.begin(job)
        if job.failures:
            watch.advance(SliceResult(job.failures[0].slice, failures=job.failures))
    log_failures(job.failures)
    before = lease.progress
    lease.progress = replace(
        before,
        total=before.total + job.total,
        failed=before.failed + len(job.failures),
        skipped=before.skipped + len(job.skipped),
    )
    lease.output.failures.remove(job.replaced_failures)
    lease.output.failures.add(job.failures)
    total.failures += job.failures
    for result in _compute(job, lease) if job.todo else ():
        writer.add(result.rows)
        log_failures(result.all_failures)
        total.failures += result.all_failures
        total.is_open |= bool(result.all_failures)
        total.traffic += result.traffic
        if watch:
            watch.advance(result)


def begin(lease: Lease) -> None:
    """Record that the run computes rows, or has none to compute. From now on, `status` reports this run."""
    if not lease.progress.began:
        lease.progress = replace(lease.progress, began=timestamp())
        lease.heartbeat()


def log_failures(failures: Sequence[SliceFailure]) -> None:
    """Log rows that fail, in one line for each reason."""
    alike: dict[str, list[SliceFailure]] = {}
    for each in failures:
        alike.setdefault(each.error, []).append(each)
    for error, (first, *others) in alike.items():
        rows = f"{first.slice} and {len(others)} more" if others else first.slice
        log.error("%s failed: %s", rows, error, extra={"slice": first.slice, "asset": first.asset})


def _compute(job: StatisticsJob, lease: Lease) -> Iterator[SliceResult]:
    """Compute rows; record and yield the final result of each patch and slice. Tests replace this function."""
    from s2cube.workers.worker import compute_batch

    recorder = Recorder(lease)
    function = partial(compute_batch, config=job.config.for_workers(), output=None)
    tasks = [(batch.id, batch) for batch in batches_of(job)]
    policy = SlicePolicy(job.config.job.slice_retries)
    with computer(job.config.cluster, job.threads, function, tasks, policy) as computed:
        begin(lease)
        for batch, results in computed:
            running = math.ceil(computed.running * job.rows / len(tasks))
            yield from recorder.record(batch, results, running)
