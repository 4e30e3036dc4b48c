"""Compute and write the composites of a batch."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import compress
from pathlib import Path

import numpy as np

from s2cube.config.sections import CubeSection, JobConfig
from s2cube.cube.composite_facts import CompositeFacts
from s2cube.cube.cut import inside
from s2cube.cube.facts import slice_facts
from s2cube.cube.open_cube import offsets_dn
from s2cube.errors import SliceError
from s2cube.fetch.store import Access
from s2cube.kernels.offset_check import doubtful
from s2cube.kernels.packing import PACKINGS
from s2cube.output.composite_files import CompositeImage, write_composite
from s2cube.products.composer import Composer
from s2cube.products.day_stack import NO_DAYS, stack_bytes
from s2cube.scenes.assets import bands_read
from s2cube.scenes.time_slice import Task, TimeSlice
from s2cube.storage.output import Output
from s2cube.workers._composite_days import (
    Layers,
    day_of_slice,
    make_units,
    read_units,
)
from s2cube.workers._first_days import read_first
from s2cube.workers.batches import is_small
from s2cube.workers.composite_task import CompositeTask, Unit, chunks_of
from s2cube.workers.delivery import deliver
from s2cube.workers.memory import MOST_READERS, stack_limit
from s2cube.workers.results import SliceResult, Written, attempt

Compute = Callable[[Access], list[SliceResult]]


@dataclass(frozen=True, eq=False)
class CompositeComputation:
    """Computes and writes composites.

    Parameters
    ----------
    output
        None: the results contain the files.
    is_last
        Whether composites that fail are not computed again. Until then, no day is missing because of an error that may
        be temporary.
    """

    config: JobConfig
    output: Output | None
    is_last: bool = True

    @cached_property
    def composer(self) -> Composer:
        """How the composites are computed."""
        return Composer.of(self.config)

    def parts(self, tasks: Sequence[CompositeTask]) -> Iterator[tuple[tuple[CompositeTask, ...], Compute]]:
        """Divide composites into groups that are read together; yield each group and the function that computes it.

        Small areas that are close to each other are a group, if all days of a period fit into memory. Any other area is
        computed by itself, chunk by chunk.
        """
        limit, group, size = stack_limit(), list[CompositeTask](), 0
        for task in sorted(tasks, key=_place):
            needed = self._stack_bytes(task)
            if not is_small(task.geobox) or needed > limit:
                yield (task,), partial(self._large, task)
                continue
            if group and size + needed > limit:
                yield tuple(group), partial(self._small, tuple(group))
                group, size = [], 0
            group, size = [*group, task], size + needed
        if group:
            yield tuple(group), partial(self._small, tuple(group))

    def _stack_bytes(self, task: CompositeTask) -> int:
        shape = len(task.days), len(self.composer.reading.image_bands), math.prod(task.geobox.shape)
        return stack_bytes(shape, self.config.cube.dtype)

    def _small(self, tasks: Sequence[CompositeTask], access: Access) -> list[SliceResult]:
        """Compute composites of small areas. Each tile is read once for all of them."""
        with ExitStack() as opened:
            parts = [(task, task.geobox, inside(task.geobox, task.aoi.geometry)) for task in tasks]
            units = make_units(parts, {}, self.composer, opened)
            clear_days, saved = self._read(units, access)

            def compute(unit: Unit, clear: np.ndarray | None) -> SliceResult:
                self._check(unit.task, unit.errors)
                layers = Layers.empty((unit.geobox.shape.y, unit.geobox.shape.x), self.composer)
                layers.fill(unit, self.composer, clear)
                return self._deliver(unit.task, layers, unit.errors, [unit])

            first, *others = (
                attempt(unit.task, partial(compute, unit, clear)) for unit, clear in zip(units, clear_days, strict=True)
            )
        return [replace(first, estimated_bytes_saved=saved), *others]

    def _read(self, units: Sequence[Unit], access: Access) -> tuple[Sequence[np.ndarray | None], int]:
        """Read the days of units. For the method first, return also the clear days of cells, and the bytes saved."""
        if self.composer.stops_early:
            found = read_first(units, self.composer, access)
            return found.clear_days, found.estimated_bytes_saved
        read_units(units, self.composer, access)
        return [None] * len(units), 0

    def _large(self, task: CompositeTask, access: Access) -> list[SliceResult]:
        """Compute a composite chunk by chunk over space, with all days of the period at a time."""
        return [attempt(task, partial(self._of_large, task, access))]

    def _of_large(self, task: CompositeTask, access: Access) -> SliceResult:
        errors: dict[str, SliceError] = {}
        while True:
            # A day that cannot be read in one chunk is left out in all chunks.
            before = len(errors)
            layers, units, saved = self._of_chunks(task, errors, access)
            if len(errors) == before:
                return replace(self._deliver(task, layers, errors, units), estimated_bytes_saved=saved)

    def _of_chunks(
        self, task: CompositeTask, errors: dict[str, SliceError], access: Access
    ) -> tuple[Layers, list[Unit], int]:
        layers, units, saved = Layers.empty((task.geobox.shape.y, task.geobox.shape.x), self.composer), list[Unit](), 0
        area, known = inside(task.geobox, task.aoi.geometry), dict(errors)
        for rows, columns in chunks_of(task, area, self.config.cube.dilation_m):
            with ExitStack() as opened:
                part = task, task.geobox[rows, columns], area[rows, columns]
                (unit,) = make_units([part], known, self.composer, opened)
                (clear_days,), saved_here = self._read([unit], access)
                errors |= unit.errors
                self._check(task, errors)
                if len(errors) == len(known):
                    layers.part(rows, columns).fill(unit, self.composer, clear_days)
                # Only the images of the days need much memory.
                units.append(replace(unit, stack=NO_DAYS))
                saved += saved_here
        return layers, units, saved

    def _check(self, task: CompositeTask, errors: dict[str, SliceError]) -> None:
        """Raise the error of a day if too many days are missing, or if another attempt may read the day."""
        if not self.is_last and (passing := sorted(day for day, error in errors.items() if error.may_pass)):
            raise errors[passing[0]]
        most = self.config.composite.allow_missing_days
        if errors and (len(errors) + len(task.unusable) > most or len(errors) == len(task.days)):
            raise errors[min(errors)]

    def _deliver(
        self, task: CompositeTask, layers: Layers, errors: dict[str, SliceError], units: Sequence[Unit]
    ) -> SliceResult:
        days = [each for each in task.days if each.id not in errors]
        facts = _facts(task, days, self.config)
        cube = self.config.cube
        area = int(np.count_nonzero(inside(task.geobox, task.aoi.geometry)))
        image = CompositeImage(
            layers.values, layers.count, layers.date, cube.image_bands, task.geobox, PACKINGS[cube.dtype], area
        )
        found = Written(
            _doubtful_scenes(days, [unit.dark for unit in units], self.composer.reading),
            beyond_int16=sum((Counter(each) for unit in units for each in unit.beyond.values()), Counter[str]()),
            observed_cells=int(np.count_nonzero(layers.count)),
            missing=facts.missing,
            damaged=tuple(sorted({text for unit in units for text in unit.damaged.values()})),
        )

        def write(folder: Path) -> Written:
            write_composite(image, facts, folder, self.config.output, MOST_READERS)
            return found

        return deliver(write, task.aoi.id, task.id, self.output)


def _place(task: CompositeTask) -> tuple[object, ...]:
    """Return the period and the place. Areas of a group have the same days, and are close to each other."""
    return task.period.begin, task.period.name, str(task.geobox.crs), -task.geobox.affine.f, task.geobox.affine.c


def _facts(task: CompositeTask, days: Sequence[TimeSlice], config: JobConfig) -> CompositeFacts:
    """Collect the metadata of a composite of some of its days."""
    used = {each.id for each in days}
    scenes = tuple(scene for each in days for scene in each.scenes)
    missing = [*(each.id for each in task.days if each.id not in used), *(each.id for each in task.unusable)]
    own = replace(task.slice, scenes=scenes, time=min(each.time for each in days), end=max(each.end for each in days))
    of_slice = slice_facts(Task(task.aoi, task.geobox, own, task.search), config.cube)
    return CompositeFacts(
        aoi=task.aoi.id,
        outline_lonlat=of_slice.outline_lonlat,
        id=task.id,
        period=task.period,
        method=config.composite.chosen,
        interval=(own.time, own.end),
        scenes=of_slice.scenes,
        days=tuple(day_of_slice(task, each) for each in days),
        missing=tuple(sorted(missing)),
        provenance=of_slice.provenance,
    )


def _doubtful_scenes(
    days: Sequence[TimeSlice], units: Sequence[Mapping[str, np.ndarray]], cube: CubeSection
) -> tuple[str, ...]:
    """Return the ids of scenes whose pixels contradict the offset that is added to them.

    Parameters
    ----------
    units
        `Unit.dark` of all parts of the area.
    """
    found: list[str] = []
    for day in days:
        tallies = [each[day.id] for each in units if day.id in each]
        if tallies:
            doubts = doubtful(np.sum(tallies, axis=0), offsets_dn(day.scenes, cube), bands_read(cube))
            found += compress([scene.id for scene in day.scenes], doubts)
    return tuple(found)
