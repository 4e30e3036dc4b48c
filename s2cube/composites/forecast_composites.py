"""Predict the composites of a run, and what they cost. No pixel is read."""

import math
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from s2cube.composites.compute_composites import plan_composites
from s2cube.config.composites import DAY_METHODS
from s2cube.config.sections import JobConfig
from s2cube.cube.cut import inside
from s2cube.fetch.traffic import Traffic
from s2cube.jobs.forecasts import Forecasts, forecast
from s2cube.jobs.job import Job
from s2cube.jobs.results import Cost
from s2cube.products.composer import Composer
from s2cube.products.day_stack import stack_bytes
from s2cube.raster.assumed import FULL_RESOLUTION_SHARE
from s2cube.scenes.time_slice import Task, UnusableSlice
from s2cube.storage.output import Output
from s2cube.workers.batches import is_small
from s2cube.workers.composite_task import CompositeTask, chunks_of
from s2cube.workers.memory import stack_in_memory

_PLANE_BYTES = 2
"""Size of a cell of the count, and of the date."""


@dataclass(frozen=True)
class CompositeForecast:
    """The composites of a run, and what they cost.

    Parameters
    ----------
    job
        The composites to compute, those that exist already, and those that cannot be computed.
    days, stored
        Number of days of each composite, and of those whose images are read from the output, by its id.
    cost
        The cost of each composite. For the method ``first`` it is the maximum: the bands of all days.
    is_most
        Whether it is the maximum.
    stack_bytes
        Size of all days of the largest block, which are needed at the same time. If they are larger than a quarter of
        the memory of a worker, they are in a temporary file. No tile is read twice for this reason.
    """

    job: Job
    days: dict[str, int]
    stored: dict[str, int]
    cost: Forecasts
    is_most: bool
    stack_bytes: int

    def facts(self) -> dict[str, Any]:
        """Return the composites, for scripts."""
        return {
            "todo": [task.id for task in self.job.todo],
            "skipped": list(self.job.skipped),
            "failed": [{"slice": each.id, "error": str(each.error)} for each in self.job.unusable],
            "days": self.days,
            "days_stored": self.stored,
            "stack_bytes": self.stack_bytes,
        }


def forecast_composites(config: JobConfig, headers: bool) -> CompositeForecast:
    """Predict the composites of a run. Raises as `plan_composites`.

    Parameters
    ----------
    headers
        Read the headers of all files, so that the forecast is exact. Otherwise use the items.
    """
    job = plan_composites(config, Output.at(config.job.out))
    days = _Days(job)
    daily = forecast(days.job, headers)
    job = job.without(days.failed(daily.unusable))
    costs = days.costs(daily)
    total = sum((cost.traffic for cost in costs.values()), Traffic())
    processes = forecast(job, headers=False).processes
    of_images = sum((days.of_images(task) for task in days.tasks), Traffic())
    at_most = total if processes == 1 else daily.at_most + of_images
    cost = replace(daily, costs=costs, processes=processes, at_most=at_most)
    return CompositeForecast(
        job,
        {task.id: len(task.days) for task in days.tasks},
        {task.id: len(task.stored) for task in days.tasks},
        cost,
        days.composer.stops_early,
        max(map(days.stack_bytes, days.tasks), default=0),
    )


@dataclass
class _Days:
    """The days of composites, each as the slice of a job. A large area has a slice for each of its chunks.

    Attributes
    ----------
    owners
        Id of the composite, and of the day, of each slice.
    """

    composites: Job
    owners: dict[str, tuple[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        config = self.composites.config
        self.composer = Composer.of(config)
        self.tasks = [task for task in self.composites.todo if isinstance(task, CompositeTask)]
        todo = tuple(slice_ for task in self.tasks for slice_ in self._slices(task))
        reading = config.model_copy(update={"cube": self.composer.reading})
        self.job = replace(self.composites, config=reading, todo=todo)

    def _slices(self, task: CompositeTask) -> Iterator[Task]:
        for number, (rows, columns) in enumerate(self._parts(task)):
            for day in task.days:
                # The method first needs the masks of all days.
                if day.id not in task.stored or self.composer.stops_early:
                    # Names have the order of the chunks, in which tiles are read.
                    name = f"{day.id}.{number:06}"
                    self.owners[name] = task.id, day.id
                    yield Task(task.aoi, task.geobox[rows, columns], replace(day, id=name), task.search)

    def _parts(self, task: CompositeTask) -> list[tuple[slice, slice]]:
        if is_small(task.geobox):
            return [(slice(0, task.geobox.shape.y), slice(0, task.geobox.shape.x))]
        area = inside(task.geobox, task.aoi.geometry)
        return list(chunks_of(task, area, self.composites.config.cube.dilation_m))

    def failed(self, unusable: tuple[UnusableSlice, ...]) -> list[UnusableSlice]:
        """Return the composites that lack too many days."""
        errors = {self.owners[each.id]: each for each in unusable}
        lacking = Counter(composite for composite, _ in errors)
        most, found = self.composites.config.composite.allow_missing_days, []
        for task in self.tasks:
            count = lacking[task.id]
            if count and (count + len(task.unusable) > most or count == len(task.days)):
                first = next(each for (composite, _), each in sorted(errors.items()) if composite == task.id)
                found.append(replace(first, id=task.id))
        return found

    def costs(self, daily: Forecasts) -> dict[str, Cost]:
        """Add the costs of slices to costs of composites."""
        found = {task.id: self._own_cost(task) for task in self.tasks}
        threads = self.composites.config.cluster.threads_on(os.cpu_count() or 1)
        memory = {task.id: threads * self._memory_bytes(task) for task in self.tasks}
        for name, cost in daily.costs.items():
            owner, _ = self.owners[name]
            before = found[owner]
            found[owner] = replace(
                before,
                traffic=before.traffic + cost.traffic,
                peak_bytes=max(before.peak_bytes, cost.peak_bytes + memory[owner]),
                by_gdal=before.by_gdal + cost.by_gdal,
            )
        return found

    def _own_cost(self, task: CompositeTask) -> Cost:
        return Cost(self.of_images(task), 0, math.ceil(self._layer_bytes(task) / FULL_RESOLUTION_SHARE), 0)

    def of_images(self, task: CompositeTask) -> Traffic:
        """Return what is read of the daily images in the output."""
        if self.composer.stops_early:
            return Traffic()
        return sum((image.traffic for image in task.stored.values()), Traffic())

    def stack_bytes(self, task: CompositeTask) -> int:
        """Return the size of all days of the largest chunk."""
        cells = max((rows.stop - rows.start) * (columns.stop - columns.start) for rows, columns in self._parts(task))
        shape = len(task.days), len(self.composer.reading.image_bands), cells
        return stack_bytes(shape, self.composites.config.cube.dtype)

    def _memory_bytes(self, task: CompositeTask) -> int:
        held = self.stack_bytes(task)
        return self._layer_bytes(task) + (held if held <= stack_in_memory() else 0)

    def _layer_bytes(self, task: CompositeTask) -> int:
        cube, planes = self.composites.config.cube, 1 + (self.composer.method.name in DAY_METHODS)
        of_cell = len(cube.image_bands) * np.dtype(cube.dtype).itemsize + planes * _PLANE_BYTES
        return math.prod(task.geobox.shape) * of_cell
