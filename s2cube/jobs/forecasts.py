"""Predict the cost of a job, divide it into batches, and decide where it is computed."""

import math
import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from s2cube.cluster.this_process import is_worker
from s2cube.config.sections import THREADS_PER_CORE, ClusterSection
from s2cube.errors import SliceError
from s2cube.fetch.traffic import Traffic
from s2cube.jobs.job import Job
from s2cube.jobs.results import Cost
from s2cube.scenes.time_slice import UnusableSlice

if TYPE_CHECKING:
    from s2cube.workers.batches import Batch

_WORKERS_ELSEWHERE = 50
"""Number of workers of a cluster whose size is not known. With fewer, there are more batches than needed, which costs
a little; with more, some have no work."""

_SLICE_CPU_S, _READ_CPU_S, _WRITTEN_CPU_S = 0.01, 1e-8, 5e-8
"""CPU time (s) of a slice, of a byte that it reads, and of a byte of its files without compression. Measured."""

_START_S, _CORES_OF_THREADS = 3.5, 1.4
"""Time (s) that workers need to start, and number of cores that the threads of one process use, because only one of
them runs Python code at a time. Measured."""

_BUSY_BATCH_BYTES = 8 << 20
"""A thread that computes a batch with more bytes is busy all the time, because other threads read for it. So one thread
per core is enough: with two, statistics of 1,000 fields and 24 days need 1.1 times the CPU time and 1.25 times
the memory."""


def batches_of(job: Job) -> "list[Batch]":
    """Divide the slices of a job into batches for the workers that the settings name."""
    from s2cube.workers.batches import batches

    config = job.config.cluster
    cores = os.cpu_count() or 1
    is_here = config.scheduler is None and config.cluster_class is None
    return batches(job.todo, config.workers_on(cores) if is_here else config.workers or _WORKERS_ELSEWHERE)


@dataclass(frozen=True)
class Forecasts:
    """The cost of each slice of a job, by id, and the slices that the forecast found to be unusable.

    Parameters
    ----------
    processes
        Number of worker processes of the run; None if it is not known.
    at_most
        Maximum for all slices and this number of processes. Each process fetches parts of files that slices share.
    threads
        Number of threads of the run's own process that compute batches; 0 if workers compute them.
    tiles
        Number of tiles of files that are needed, each counted once.
    """

    costs: dict[str, Cost]
    unusable: tuple[UnusableSlice, ...] = ()
    processes: int | None = None
    at_most: Traffic = field(default_factory=Traffic)
    threads: int = 0
    tiles: int = 0

    def __add__(self, other: "Forecasts") -> "Forecasts":
        """Return the forecast of two parts of a run, which are computed one after the other."""
        is_known = None not in (self.processes if self.costs else 0, other.processes if other.costs else 0)
        return Forecasts(
            self.costs | other.costs,
            (*self.unusable, *other.unusable),
            max(self.processes or 0, other.processes or 0) if is_known else None,
            self.at_most + other.at_most,
            min(self.threads, other.threads),
            self.tiles + other.tiles,
        )

    @property
    def total(self) -> Traffic:
        """Sum of the slices, if one process computes them."""
        return sum((cost.traffic for cost in self.costs.values()), Traffic())


def forecast(job: Job, headers: bool) -> Forecasts:
    """Predict the cost of the slices of a job.

    Parameters
    ----------
    headers
        Read the headers of all files, so that the forecast is exact. Otherwise use the items.
    """
    if not job.todo:
        return Forecasts({})
    from s2cube.jobs._cost import Forecast

    predictor, costs, unusable = Forecast(job.config, headers), {}, []
    divided = batches_of(job)
    tasks = {task.id: task for task in job.todo}
    for batch in divided:
        for slice_id, cost in predictor.of(batch).items():
            if isinstance(cost, SliceError):
                task = tasks[slice_id]
                ids = tuple(scene.id for scene in task.scenes)
                unusable.append(UnusableSlice(task.id, ids, cost, task.slice.time, task.slice.end))
            else:
                costs[slice_id] = cost
    found, cluster = Forecasts(costs, tuple(unusable)), job.config.cluster
    if threads := _threads(found, cluster, len(divided)):
        processes: int | None = 1
    else:
        processes = None if cluster.scheduler else min(cluster.workers_on(os.cpu_count() or 1), len(divided))
    at_most = found.total if processes == 1 else predictor.at_most(processes or len(divided))
    return replace(found, processes=processes, at_most=at_most, threads=threads, tiles=predictor.tiles)


def _threads(forecasts: Forecasts, config: ClusterSection, batches: int) -> int:
    """Return how many threads of this process compute a job; 0 if workers do."""
    if not _is_for_threads(forecasts, config, batches):
        return 0
    cores = os.cpu_count() or 1
    is_busy = forecasts.total.bytes > _BUSY_BATCH_BYTES * batches
    return min(config.threads or cores * (1 if is_busy else THREADS_PER_CORE), batches)


def _is_for_threads(forecasts: Forecasts, config: ClusterSection, batches: int) -> bool:
    """Return whether threads of this process complete a job sooner than workers, which must start first.

    Workers cannot share a job of one batch. A cluster that the user has chosen is used. So is the cluster of a worker,
    for a job that was submitted to it.
    """
    if config.scheduler or config.cluster_class or config.workers or is_worker():
        return False
    if batches == 1:
        return True
    written_bytes = sum(cost.output_bytes for cost in forecasts.costs.values())
    cpu_s = len(forecasts.costs) * _SLICE_CPU_S + forecasts.total.bytes * _READ_CPU_S + written_bytes * _WRITTEN_CPU_S
    return cpu_s <= _small_cpu_s(os.cpu_count() or 1)


def _small_cpu_s(cores: int) -> float:
    """Return the CPU time (s) of a job that threads of one process complete as soon as workers on all cores.

    It is the solution w of ``w / 1.4 = 3.5 + w / cores``: 16 s on two cores, 6 s on eight.
    """
    return _START_S / (1 / _CORES_OF_THREADS - 1 / cores) if cores > _CORES_OF_THREADS else math.inf
