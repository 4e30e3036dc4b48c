"""Make the products of a pass: images, statistics, composites."""

from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from s2cube.area.aoi import AOI
from s2cube.area.areas import areas_of_job
from s2cube.composites.compute_composites import compose, for_composites, plan_composites
from s2cube.config.sections import JobConfig
from s2cube.jobs.job import Job, decide, plan_scenes
from s2cube.jobs.pipeline import Watch
from s2cube.runs.run import run_planned
from s2cube.scenes.assets import drop_unused_assets
from s2cube.scenes.scene_facts import SceneFacts
from s2cube.scenes.search import Catalogue, find_scenes
from s2cube.scenes.time_slice import Plan
from s2cube.storage.failures import SliceFailure
from s2cube.storage.layout import STATISTICS
from s2cube.storage.lease import Lease
from s2cube.updates._window import periods_around
from s2cube.workers.results import SliceResult
from s2cube.zonal.tabulate import check_fields, planned_rows, write_rows


@dataclass
class Made:
    """Collects what a pass makes. It observes runs, and tells another observer what it receives.

    Parameters
    ----------
    address
        Path or address of the output.

    Attributes
    ----------
    written
        Ids of the slices and composites that have new files or rows.
    failures
        The slices and composites that failed, by id.
    files
        Paths or addresses of the files that were written; of the table, its folder.
    """

    address: str
    watch: Watch | None = None
    written: set[str] = field(default_factory=set)
    failures: dict[str, SliceFailure] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)
    requests: int = 0
    bytes: int = 0

    def begin(self, job: Job) -> None:
        """Receive a job."""
        if self.watch:
            self.watch.begin(job)

    def advance(self, result: SliceResult) -> None:
        """Receive the final result of a slice."""
        if result.path:
            self.written.add(result.slice)
            self.files.add(result.path)
        if result.rows is not None and result.rows.num_rows:
            self.written |= {*result.rows["slice"].to_pylist()}
            self.files.add(f"{self.address}/{STATISTICS}")
        self.failures |= {each.slice: each for each in result.all_failures}
        self.requests += result.traffic.requests
        self.bytes += result.traffic.bytes
        if self.watch:
            self.watch.advance(result)


def for_products(config: JobConfig) -> JobConfig:
    """Check the settings of composites; return settings with statistics exactly if a pass keeps them up to date.

    Raises
    ------
    ConfigError
        If a setting is not valid.
    """
    if "composites" in config.sync.products:
        for_composites(config)
    statistics = config.table.chosen if "statistics" in config.sync.products else ()
    return config.model_copy(update={"table": config.table.model_copy(update={"statistics": statistics})})


def check_areas(config: JobConfig) -> None:
    """Read the areas of a job, and keep nothing.

    Raises
    ------
    UsageError
        If they are not valid.
    """
    if config.sync.products == ("statistics",):
        check_fields(config)
    else:
        areas_of_job(config.job)


@dataclass(frozen=True)
class DailyProducts:
    """The images and rows that a pass may make.

    Parameters
    ----------
    scenes
        All scenes of the search.
    aois
        The areas; none if a pass makes only rows.
    plans
        The slices of each area. Rows without images have none.
    make
        Makes what is missing, or is made of other scenes.
    """

    scenes: Sequence[SceneFacts]
    aois: Sequence[AOI]
    plans: Sequence[Plan]
    make: Callable[[], object]

    @property
    def planned(self) -> frozenset[str]:
        """Ids of the slices that have scenes."""
        usable = (each.id for plan in self.plans for each in plan.slices)
        return frozenset([*usable, *(each.id for plan in self.plans for each in plan.unusable)])

    def times_of(self, slice_ids: Set[str]) -> list[datetime]:
        """Return the times of some slices."""
        return [each.time for plan in self.plans for each in plan.slices if each.id in slice_ids]


@contextmanager
def daily_products(config: JobConfig, lease: Lease, catalogue: Catalogue, made: Made) -> Iterator[DailyProducts]:
    """Search, and yield the images and rows that a pass may make.

    Parameters
    ----------
    config
        Settings with the dates to search.
    made
        Receives what is made.

    Raises
    ------
    SearchError
        If the catalogue does not return its scenes.
    """
    products = config.sync.products
    if "statistics" in products and "images" not in products:
        with planned_rows(config, lease.output, catalogue) as (rows, areas):
            yield DailyProducts(rows.scenes, (), (), partial(write_rows, rows, areas, lease, made))
        return
    aois = areas_of_job(config.job)
    found = find_scenes(aois, config.search, catalogue, partial(drop_unused_assets, config=config.cube))
    scenes = list({id(scene): scene for of_area in found for scene in of_area}.values())
    plans = plan_scenes(config, aois, found) if "images" in products else []

    def make() -> None:
        if "images" in products:
            job = decide(config, lease.output, plans, catalogue)
            run_planned(job, lease, made, has_file=True, is_here=True)

    yield DailyProducts(scenes, aois, plans, make)


def make_composites(
    config: JobConfig, lease: Lease, catalogue: Catalogue, made: Made, touched: Sequence[datetime]
) -> Sequence[datetime]:
    """Make composites whose scenes have changed, each from its complete period.

    Parameters
    ----------
    config
        Settings with all dates of the job.
    touched
        Times of the scenes that have changed.

    Returns
    -------
    sequence of datetime
        Times for which the next pass must try again, because a composite failed.
    """
    if "composites" not in config.sync.products or not (touched or config.sync.full):
        return ()
    within = config.search.datetime
    if not config.sync.full:
        within = periods_around(config.search.datetime, config.composite.period, touched)
        if within is None:
            return ()
    job = plan_composites(config, lease.output, catalogue, within)
    before = {*made.failures}
    compose(job, lease, made)
    has_failed = not before >= {*made.failures}
    return (touched[0], touched[-1]) if has_failed and touched else ()
