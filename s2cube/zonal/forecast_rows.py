"""Predict the rows of a run that computes statistics, and what they cost. No pixel is read."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import date
from functools import partial
from typing import Any

from s2cube.config.sections import JobConfig
from s2cube.fetch.traffic import Traffic
from s2cube.fields.patches import FieldTask
from s2cube.fields.spool import FieldSpool
from s2cube.jobs.forecasts import Forecasts, forecast
from s2cube.jobs.job import Job
from s2cube.scenes.search import open_catalogue
from s2cube.storage.failures import SliceFailure
from s2cube.storage.output import Output
from s2cube.zonal._source import Source
from s2cube.zonal._statistics_job import StatisticsJob
from s2cube.zonal.tabulate import StatisticsPlans
from s2cube.zonal.with_images import BothPlans


@dataclass
class DayForecast:
    """The rows of a day, and what they cost."""

    rows: int = 0
    traffic: Traffic = field(default_factory=Traffic)


@dataclass
class RowForecast:
    """The rows of a run, and what they cost. There may be millions of them, so only sums are kept.

    Parameters
    ----------
    rows, skipped
        Number of rows to compute, and of those that exist already.
    days
        The rows to compute, by their solar days.
    failures
        Number of rows that cannot be computed and the id of the first one, by the reason. Areas that cannot be used
        count as one row.
    areas, without_scenes
        Number of areas, and of those that no scene meets.
    cost
        The cost of each task.
    """

    rows: int = 0
    skipped: int = 0
    areas: int = 0
    without_scenes: int = 0
    days: dict[date, DayForecast] = field(default_factory=dict)
    failures: dict[str, tuple[int, str]] = field(default_factory=dict)
    cost: Forecasts = field(default_factory=lambda: Forecasts({}))

    def add(self, job: StatisticsJob, cost: Forecasts) -> None:
        """Add a part of the run.

        Parameters
        ----------
        cost
            From `forecast`, of this part.
        """
        job = job.without(cost.unusable)
        self.rows += job.rows
        self.skipped += len(job.skipped)
        self.areas += sum(map(len, job.fields))
        self.without_scenes += job.without_scenes
        self.cost += cost
        self._add_days(job, cost)
        self.add_failures(job.failures)

    def add_failures(self, failures: Iterable[SliceFailure]) -> None:
        """Add rows that cannot be computed."""
        for each in failures:
            count, first = self.failures.get(each.error, (0, each.slice))
            self.failures[each.error] = count + 1, first

    def facts(self) -> dict[str, Any]:
        """Return the numbers, for scripts."""
        return {
            "rows": self.rows,
            "rows_skipped": self.skipped,
            "areas": self.areas,
            "areas_without_scenes": self.without_scenes,
            "days": {
                str(day): {"rows": each.rows, **asdict(each.traffic)} for day, each in sorted(self.days.items())
            },
            "rows_failed": [
                {"error": error, "rows": count, "first": first} for error, (count, first) in self.failures.items()
            ],
        }  # fmt: skip

    def _add_days(self, job: Job, cost: Forecasts) -> None:
        for task in job.todo:
            if isinstance(task, FieldTask) and task.id in cost.costs:
                of_day = self.days.setdefault(task.day, DayForecast())
                of_day.rows += len(task.fields)
                of_day.traffic += cost.costs[task.id].traffic


def forecast_rows(config: JobConfig, headers: bool) -> RowForecast:
    """Predict the rows of the command `stats`.

    Parameters
    ----------
    headers
        See `jobs.forecasts.forecast`.

    Raises
    ------
    S2CubeError
        As `tabulate` does.
    """
    found = RowForecast()
    with FieldSpool() as spool:
        plans = StatisticsPlans.of(config, Output.at(config.job.out), Source(spool))
        found.add_failures(plans.source.failures)
        for job in plans.jobs():
            found.add(job, forecast(job, headers))
    return found


def forecast_both(job: Job, headers: bool) -> tuple[Job, RowForecast]:
    """Predict the images and the rows of a planned job that computes both from the same pixels.

    Returns
    -------
    Job
        The same job, with statistics.
    RowForecast
        Its rows, and those of slices whose images are up to date. The cost is that of images and rows.
    """
    found, plans = RowForecast(), BothPlans.of(job)
    both = plans.job
    cost = forecast(both, headers)
    both = both.without(cost.unusable)
    with_rows = {task.id for task in both.todo if isinstance(task, FieldTask)}
    catalogue = partial(open_catalogue, job.config.search, job.config.read.timeout_s)
    rest = plans.rest(with_rows | {each.id for each in both.unusable}, catalogue)
    found.add(rest, forecast(rest, headers))
    found.rows += len(with_rows)
    found.cost += cost
    found._add_days(both, cost)
    return both, found
