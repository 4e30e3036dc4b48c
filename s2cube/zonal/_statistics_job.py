"""Define the job of a run that computes statistics."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar, Self

from s2cube.config.sections import JobConfig
from s2cube.errors import ConfigError
from s2cube.fields.fields import Fields
from s2cube.fields.patches import FieldTask
from s2cube.jobs.job import Job
from s2cube.scenes.assets import bands_read, layers_read
from s2cube.scenes.time_slice import UnusableSlice
from s2cube.sentinel2 import class_band_of
from s2cube.storage.failures import SliceFailure
from s2cube.storage.record import Unit
from s2cube.tables.rows import Key, slice_ids, value_columns
from s2cube.tables.table import squares_of
from s2cube.workers.results import failures_of


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
    without_scenes
        Number of fields that no scene meets.
    """

    key: Key = field(kw_only=True)
    failures: tuple[SliceFailure, ...] = ()
    fields: tuple[Fields, ...] = ()
    without_scenes: int = 0
    unit: ClassVar[Unit] = "rows"

    @cached_property
    def row_ids(self) -> list[str]:
        """Ids of the slices of the rows that will be computed."""
        return [name for task in self._tasks for name in slice_ids(task.fields.ids, task.label)]

    @property
    def replaced_failures(self) -> set[str]:
        """Ids in the list of failures that this run replaces: of rows, and of areas that could not be used before."""
        areas = (name for each in self.fields for name in each.ids)
        return {*areas, *self.skipped, *self.row_ids, *(each.slice for each in self.failures)}

    @property
    def rows(self) -> int:
        """Number of rows that will be computed."""
        return sum(len(task.fields) for task in self._tasks)

    @property
    def total(self) -> int:
        """Number of rows that will be computed, or that fail without an attempt."""
        return self.rows + len(self.failures)

    @property
    def squares(self) -> dict[str, str]:
        """Square of the table of each field, by its id."""
        pairs = (zip(each.ids, squares_of(each.bounds_lonlat), strict=True) for each in self.fields)
        return {name: square for of_group in pairs for name, square in of_group}

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


def for_statistics(config: JobConfig) -> JobConfig:
    """Check the bands of a job, and leave out settings that concern only images.

    Raises
    ------
    ConfigError
        If a band has classes.
    """
    for name in config.cube.bands:
        if class_band_of(name):
            problem = "is a band of classes, which have no statistics"
            raise ConfigError(f"band '{name}'", problem, "Remove it from --bands")
    return config.model_copy(update={"job": config.job.model_copy(update={"max_aoi_cloud_percent": None})})


def key_of(config: JobConfig) -> Key:
    """Return what the rows of a job have in common. The settings are those on which the scenes of a row depend."""
    search = config.search
    settings = f"{search.collection} {search.max_cloud_percent:g} {search.max_items} {config.cube.group_by}"
    files = sorted({*bands_read(config.cube), *layers_read(config.cube)})
    return Key(value_columns(config), settings, tuple(files))
