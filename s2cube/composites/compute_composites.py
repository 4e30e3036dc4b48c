"""Compute the composites of a job, and write them."""

import logging
from dataclasses import dataclass

from s2cube.area.areas import areas_of_job
from s2cube.composites._daily_images import with_daily_images
from s2cube.composites._plans import Grouping, check_bands, check_score
from s2cube.config.periods import DayRange, Periods
from s2cube.config.sections import JobConfig
from s2cube.config.times import TimeRange
from s2cube.jobs.job import Job, decide, find_plans
from s2cube.jobs.pipeline import Watch, early_workers, run_job
from s2cube.products.composer import Composer
from s2cube.report.page import write_report_if_wanted
from s2cube.report.request import asked_areas, keep_request
from s2cube.scenes.search import Catalogue, open_catalogue
from s2cube.sentinel2 import canonical_bands
from s2cube.storage.lease import Lease, held
from s2cube.storage.output import Output
from s2cube.workers.results import SliceResult

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CompositeSummary:
    """The summary of a run that computes composites.

    Parameters
    ----------
    written
        Paths of COGs.
    skipped
        Ids of composites that were up to date.
    failed
        Composites that failed, with the reason, and whether another attempt may succeed.
    requests, bytes
        Requests and bytes of reading; see `SliceResult.traffic`.
    estimated_bytes_saved
        Bytes of bands that the method ``first`` did not read, because all pixels were filled. It is estimated from the
        days that were read: the size of tiles is in the headers of files, and headers of other days are not read.
    """

    written: list[str]
    skipped: list[str]
    failed: list[dict[str, str | bool]]
    requests: int
    bytes: int
    estimated_bytes_saved: int = 0


def compute_composites(config: JobConfig, watch: Watch | None = None) -> CompositeSummary:
    """Compute a composite of every area and period of a job, and write them.

    Parameters
    ----------
    watch
        Object whose methods are called when composites are planned, and after each result.

    Raises
    ------
    S2CubeError
        If the job cannot be done, as `pipeline.run_job`. A composite that fails does not raise an error. The summary
        and ``failures.jsonl`` list it.
    """
    with held(Output.at(config.job.out)) as lease, early_workers(config, lease):
        job = plan_composites(config, lease.output)
        keep_request(lease.output, config, asked_areas(job.plans))
        summary = compose(job, lease, watch)
    write_report_if_wanted(config, lease.output)
    return summary


def check_composites(config: JobConfig) -> None:
    """Check the settings and the areas, before composites are computed elsewhere.

    Raises
    ------
    UsageError
        If they are not valid.
    """
    for_composites(config)
    areas_of_job(config.job)


def compose(job: Job, lease: Lease, watch: Watch | None = None) -> CompositeSummary:
    """Compute planned composites, and write them. This process must have the lease of the output.

    Raises
    ------
    S2CubeError
        As `compute_composites`.
    """
    results = _Results()
    summary = run_job(job, lease, watch, results)
    return CompositeSummary(
        summary.written, summary.skipped, summary.failed, summary.requests, summary.bytes, results.estimated_bytes_saved
    )


def plan_composites(
    config: JobConfig, output: Output, catalogue: Catalogue | None = None, within: TimeRange | None = None
) -> Job:
    """Decide which composites will be computed. No pixel is read.

    Parameters
    ----------
    catalogue
        The catalogue, if it is open already.
    within
        Range of dates that is searched: complete periods. None: that of the settings.

    Raises
    ------
    UsageError
        If a setting or the AOI is not valid.
    SearchError
        If the catalogue does not return its scenes.
    """
    config = for_composites(config)
    grouping, composer, aois = Grouping(config), Composer.of(config), areas_of_job(config.job)
    catalogue = open_catalogue(config.search, config.read.timeout_s) if catalogue is None else catalogue
    search = config.search.model_copy(update={"datetime": within or config.search.datetime})
    reading = config.model_copy(update={"cube": composer.reading, "search": search})
    daily = find_plans(reading, aois, catalogue)
    check_score(composer.method, daily)
    plans = [each for plan in daily for each in grouping.plans(plan)]
    job = decide(config, output, plans, catalogue, f"composites {config.composite.model_dump_json()}")
    return with_daily_images(job, composer)


def for_composites(config: JobConfig) -> JobConfig:
    """Check the settings of composites, and leave out those that concern only daily images.

    Raises
    ------
    ConfigError
        If a setting is not valid.
    """
    canonical_bands(config.cube.bands)
    check_bands(config.cube, config.composite.chosen)
    # The longitude does not matter: it is known before the search whether the range has both ends.
    Periods(config.composite.period, DayRange.of(config.search.datetime, 0))
    job = config.job.model_copy(update={"max_aoi_cloud_percent": None})
    return config.model_copy(update={"job": job, "cube": config.cube.model_copy(update={"group_by": "solar_day"})})


class _Results:
    """Logs what concerns composites, and sums what they did not read."""

    def __init__(self) -> None:
        self.estimated_bytes_saved = 0

    def begin(self, job: Job) -> None:
        """Receive the job."""

    def advance(self, result: SliceResult) -> None:
        """Receive the final result of a composite."""
        self.estimated_bytes_saved += result.estimated_bytes_saved
        if result.found.observed_cells == 0:
            log.info("%s: no pixel has an observation; all pixels are nodata", result.slice)
        for image in result.found.damaged:
            log.warning(
                "%s: %s; the archive is read instead. Run `s2cube verify --repair`, and then the job",
                result.slice,
                image,
            )
        if result.found.missing:
            days = ", ".join(result.found.missing)
            log.warning("%s is composed without %s, which cannot be read", result.slice, days)
