"""Decide what a run will do: search, plan, and compare with the output."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar, Self

from s2cube.area.aoi import AOI
from s2cube.area.areas import areas_of_job
from s2cube.config.sections import JobConfig
from s2cube.errors import AOIError
from s2cube.inventory.comparison import Comparison, compare
from s2cube.jobs._overwrite import interrupted, job_digest
from s2cube.scenes.assets import drop_unused_assets
from s2cube.scenes.plan import Planner, narrow
from s2cube.scenes.scene_facts import SceneFacts
from s2cube.scenes.search import Catalogue, find_scenes, find_withdrawn, open_catalogue
from s2cube.scenes.time_slice import Plan, Task, UnusableSlice
from s2cube.sentinel2 import canonical_bands
from s2cube.storage.layout import OVERWRITE
from s2cube.storage.output import Output
from s2cube.storage.record import Unit
from s2cube.workers.results import SliceResult, rejection

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """The slices that a run will compute.

    Parameters
    ----------
    plans
        One plan per AOI, with every slice that was found.
    todo
        One task per slice that will be computed.
    skipped
        Ids of the slices that already exist, computed from the same scenes with the same settings.
    digest
        See `overwrite.job_digest`.
    unusable
        Slices that cannot be computed. They fail without an attempt.
    rejected
        Results of the slices that have too much cloud, as an earlier run found out. Their masks are not read again.
    changes
        Why existing slices are recomputed: descriptions of the changes, by slice id.
    older
        Ids of AOI and slice of the skipped slices whose Items have an older form. The run rewrites these Items.
    threads
        Number of threads of this process that compute batches, because the job is small; 0 if a cluster does.
    """

    config: JobConfig
    output: Output
    plans: tuple[Plan, ...]
    todo: tuple[Task, ...]
    skipped: tuple[str, ...]
    digest: str = ""
    unusable: tuple[UnusableSlice, ...] = ()
    rejected: tuple[SliceResult, ...] = ()
    changes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    older: tuple[tuple[str, str], ...] = ()
    threads: int = 0
    unit: ClassVar[Unit] = "slices"

    @property
    def total(self) -> int:
        """Number of slices that will be computed, or that fail or are rejected without an attempt."""
        return len(self.todo) + len(self.unusable) + len(self.rejected)

    def without(self, unusable: Iterable[UnusableSlice]) -> Self:
        """Return the same job, with some of its slices marked as unusable."""
        found = {each.id: each for each in unusable}
        todo = tuple(task for task in self.todo if task.id not in found)
        return replace(self, todo=todo, unusable=(*self.unusable, *found.values()))


def plan_job(config: JobConfig, output: Output, aois: Sequence[AOI] | None = None) -> Job:
    """Decide which slices will be computed. No pixel is read.

    Parameters
    ----------
    aois
        Areas of interest. None: those that the settings name.

    Raises
    ------
    UsageError
        If a setting or the AOI is not valid.
    SearchError
        If the catalogue does not return its scenes.
    """
    canonical_bands(config.cube.bands)
    aois = areas_of_job(config.job) if aois is None else aois
    catalogue = open_catalogue(config.search, config.read.timeout_s)
    return decide(config, output, find_plans(config, aois, catalogue), catalogue)


def find_plans(config: JobConfig, aois: Sequence[AOI], catalogue: Catalogue) -> list[Plan]:
    """Search the scenes of areas of interest, and group them into time slices: one plan per area.

    Raises
    ------
    SearchError
        If the catalogue does not return its scenes.
    """
    found = find_scenes(aois, config.search, catalogue, partial(drop_unused_assets, config=config.cube))
    return plan_scenes(config, aois, found)


def plan_scenes(config: JobConfig, aois: Sequence[AOI], found: Sequence[Sequence[SceneFacts]]) -> list[Plan]:
    """Group the scenes of each area of interest into time slices: one plan per area."""
    of_area = logging.INFO if len(aois) == 1 else logging.DEBUG
    plans: list[Plan] = []
    planner = Planner(config.cube)
    for aoi, scenes in zip(aois, found, strict=True):
        plan = narrow(planner.plan(scenes, aoi), config.search)
        log.log(of_area, "%s: %d scenes, %d time slices", aoi.id, len(scenes), len(plan.slices))
        plans.append(plan)
    if len(plans) > 1:
        log.info("%d areas: %d time slices", len(plans), sum(len(plan.slices) for plan in plans))
    return plans


def decide(config: JobConfig, output: Output, plans: Sequence[Plan], catalogue: Catalogue, product: str = "") -> Job:
    """Compare plans with the output, and decide which slices will be computed.

    Parameters
    ----------
    product
        What is computed of the slices, and its settings; empty for images.
    """
    digest, sizes = job_digest(config, [plan.aoi for plan in plans], product), output.sizes()
    overwritten = _overwritten(config, output, digest)
    tasks = (task for plan in plans for task in plan.tasks())
    comparisons = compare(plans, output, sizes, config.cube, config.composite.allow_missing_days)
    compared = list(zip(tasks, comparisons, strict=True))
    _warn_of_flaws([each for _, each in compared if each.flaw])
    _check_names(plans)
    if config.job.overwrite:
        done = {each.slice.id for _, each in compared if each.is_same and each.slice.id in overwritten}
    else:
        done = {each.slice.id for _, each in compared if each.is_same}
        done |= _kept([each for _, each in compared if each.would_lose_scenes], config, catalogue)
    rejected = _rejected([task for task, _ in compared if task.id not in done], config, output)
    todo = [(task, each) for task, each in compared if task.id not in done and task.id not in rejected]
    # Slices of one scene follow each other. If two areas share tiles, the tiles are still in the cache.
    todo.sort(key=lambda each: each[0].slice.time)
    return Job(
        config, output, tuple(plans), tuple(task for task, _ in todo),
        skipped=tuple(task.id for task, _ in compared if task.id in done),
        digest=digest,
        unusable=tuple(each for plan in plans for each in plan.unusable),
        rejected=tuple(rejected.values()),
        changes={} if config.job.overwrite else {task.id: each.changes for task, each in todo if each.changes},
        older=tuple((task.aoi.id, task.id) for task, each in compared if task.id in done and each.is_older),
    )  # fmt: skip


def _warn_of_flaws(flawed: list[Comparison]) -> None:
    """Report images whose files are damaged: in one line, and in a line for each that loses scenes."""
    for each in (each for each in flawed if each.lost):
        log.warning("%s: %s", each.slice.id, each.flaw)
    if whole := [each for each in flawed if not each.lost]:
        others = f" ({len(whole) - 1} others for such a reason, too)" if whole[1:] else ""
        log.warning("%s: %s%s", whole[0].slice.id, whole[0].flaw, others)


def _check_names(plans: Sequence[Plan]) -> None:
    """Check that slice ids are unique. Area ``a`` with scene ``b_c`` and area ``a_b`` with scene ``c`` share an id."""
    owners: dict[str, str] = {}
    for plan in plans:
        for slice_id in [*(each.id for each in plan.slices), *(each.id for each in plan.unusable)]:
            if (other := owners.setdefault(slice_id, plan.aoi.id)) != plan.aoi.id:
                problem = f"has a slice {slice_id}, and area {other} has a slice with the same id"
                raise AOIError(f"area {plan.aoi.id}", problem, "Rename one of them (--aoi-id)")


def _kept(compared: list[Comparison], config: JobConfig, catalogue: Catalogue) -> set[str]:
    """Return the slices whose images are kept, because new images would lack scenes that were not withdrawn."""
    if not compared:
        return set()
    lost = {scene for each in compared for scene in each.lost}
    withdrawn = find_withdrawn(lost, compared[0].slice.scenes[0].id, config.search, catalogue)
    kept = [each for each in compared if not withdrawn.issuperset(each.lost)]
    if recomputed := [each for each in compared if withdrawn.issuperset(each.lost)]:
        others = f", and {len(recomputed) - 1} other slices for the same reason" if recomputed[1:] else ""
        log.warning(
            "%s: will be recomputed without %s, which the catalogue has withdrawn%s",
            recomputed[0].slice.id, ", ".join(recomputed[0].lost), others,
        )  # fmt: skip
    if kept:
        others = f" and {len(kept) - 1} other images stay as they are" if kept[1:] else " stays as it is"
        log.warning(
            "%s%s: a new image would lack scenes, such as %s, which the search does not find, though the "
            "catalogue has not withdrawn them. --overwrite recomputes the images from the scenes that are found",
            kept[0].slice.id, others, kept[0].lost[0],
        )  # fmt: skip
    return {each.slice.id for each in kept}


def _rejected(tasks: Sequence[Task], config: JobConfig, output: Output) -> dict[str, SliceResult]:
    """Return the results of slices that an earlier run rejected, by id. Their cloud is known, and still too much."""
    limit = config.job.max_aoi_cloud_percent
    if limit is None or config.job.overwrite or not tasks:
        return {}
    known, found = output.rejections.read(), {}
    for task in tasks:
        if (before := known.get(task.id)) is None or before.recipe != task.slice.recipe:
            continue
        if reason := rejection(before.cloud_percent, limit):
            found[task.id] = SliceResult(task.id, rejected=reason, cloud_percent=before.cloud_percent)
    return found


def _overwritten(config: JobConfig, output: Output, digest: str) -> frozenset[str]:
    """Return the slices that a stopped --overwrite of this job has already written."""
    begun = interrupted(output, digest)
    if begun is None:
        return frozenset()
    if config.job.overwrite:
        path = f"{output.destination.address}/{OVERWRITE}"
        log.warning("%s: %s; this run computes the others (delete %s to start again)", config.job.out, begun, path)
    else:
        log.warning("%s: %s; the others are unchanged (--overwrite recomputes them)", config.job.out, begun)
    return frozenset(begun.slices)


def without_overwritten(job: Job) -> Job:
    """Leave out the slices that another run of the same --overwrite has written since the job was planned."""
    begun = interrupted(job.output, job.digest) if job.config.job.overwrite else None
    if begun is None:
        return job
    todo: list[Task] = []
    written: list[Task] = []
    bands = job.config.cube.image_bands
    for task in job.todo:
        state = job.output.state(task.aoi.id, task.id, task.slice.recipe, bands)
        (written if task.id in begun.slices and state == "current" else todo).append(task)
    return replace(job, todo=tuple(todo), skipped=(*job.skipped, *(task.id for task in written)))
