"""Divide the slices of a job into batches, so that each tile of an archive is read for only one of them."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import pystac
from odc.geo.geobox import GeoBox

from s2cube.cube.chunks import block_m
from s2cube.fields.patches import FieldTask
from s2cube.raster.placement import corner
from s2cube.scenes.scene import crs_code
from s2cube.scenes.time_slice import Task

_PER_WORKER = 4
"""Number of batches per worker, so that all workers finish at about the same time."""

_MOST_SLICES = 1000
"""A batch with more slices is divided by blocks, or has only one day: results arrive when a batch is done."""

_LEAST_CELLS = 1 << 15
"""Batches of the same areas are merged until they have this number of cells. With fewer cells, a batch costs more than
its slices."""


@dataclass(frozen=True)
class Batch:
    """Slices that a worker computes one after the other. Small areas that are close to each other are read together."""

    tasks: tuple[Task, ...]
    attempt: int = 1
    """How often it is computed, with this time."""

    @property
    def id(self) -> str:
        """Id of the first slice. A slice is in one batch only."""
        return self.tasks[0].id


def batches(tasks: Sequence[Task], workers: int) -> list[Batch]:
    """Divide the slices of a job.

    Batches of different days share no file. So slices are divided by days first. If there are too few days for all
    workers, or too many slices in a day, they are also divided by blocks: squares of the granule, whose edges are edges
    of tiles. An area that is larger than a block has a batch for each of its slices.

    Parameters
    ----------
    tasks
        One task per slice.
    workers
        Number of workers of the cluster.

    Returns
    -------
    list of Batch
        In the order of time.
    """
    small = [task for task in tasks if is_small(task.geobox)]
    found = [Batch((task,)) for task in tasks if not is_small(task.geobox)]
    wanted = max(1, workers) * _PER_WORKER
    days = [tuple(of_day) for _, of_day in groupby(sorted(small, key=day_of), day_of)]
    # Patches of fields extend over the edges of blocks, so that two workers would read the same tiles.
    is_of_fields = any(isinstance(task, FieldTask) for task in small)
    by_block = len(days) + len(found) < (max(1, workers) if is_of_fields else wanted)
    units = [unit for day in days for unit in (_blocks(day) if by_block or len(day) > _MOST_SLICES else [day])]
    found += map(Batch, _merged(units, min(_MOST_SLICES, math.ceil(len(small) / wanted))))
    return sorted(found, key=lambda batch: min(task.slice.time for task in batch.tasks))


def is_small(geobox: GeoBox) -> bool:
    """Return whether an area fits into a block, so that it can be read together with other areas."""
    return bool(max(geobox.shape) * geobox.affine.a <= block_m(geobox.affine.a))


def day_of(task: Task) -> str:
    """Return what follows the AOI in the id of a slice: its day, or its scene."""
    return task.id.removeprefix(f"{task.aoi.id}_")


def _blocks(tasks: Iterable[Task]) -> Iterator[tuple[Task, ...]]:
    """Divide the slices of a day by blocks. An area belongs to the block of its centre."""
    of_blocks: dict[tuple[object, ...], list[Task]] = {}
    places = Places()
    for task in tasks:
        of_blocks.setdefault(places.block_of(task), []).append(task)
    return map(tuple, of_blocks.values())


@dataclass
class Places:
    """Finds the blocks of areas. What an Item says is read once.

    Attributes
    ----------
    scenes
        CRS and upper left corner of scenes, by the id of the object.
    """

    scenes: dict[int, tuple[str | None, tuple[float, float] | None]] = field(default_factory=dict)

    def block_of(self, task: Task) -> tuple[object, ...]:
        """Return the CRS and the place of the block that the centre of an area is in."""
        crs, (height, width), to_x_y = str(task.geobox.crs), task.geobox.shape, task.geobox.affine
        corners = (at for scene in task.scenes for code, at in [self._of(scene)] if code == crs)
        left, top = next(filter(None, corners), (0.0, 0.0))
        side_m = block_m(to_x_y.a)
        column, row = to_x_y.c + width / 2 * to_x_y.a - left, top - to_x_y.f + height / 2 * to_x_y.a
        return crs, left, top, math.floor(column / side_m), math.floor(row / side_m)

    def together(self, task: Task) -> tuple[object, ...]:
        """Return what is equal for areas that are read together: the block, or for fields only the granule.

        Patches of fields lie over the edges of blocks, so that their tiles would be read twice.
        """
        block = self.block_of(task)
        return block[:3] if isinstance(task, FieldTask) else block

    def in_crs(self, task: Task) -> tuple[bool, ...]:
        """Return for each scene of a slice whether it has the CRS of the grid."""
        crs = str(task.geobox.crs)
        return tuple(self._of(scene)[0] == crs for scene in task.scenes)

    def _of(self, scene: pystac.Item) -> tuple[str | None, tuple[float, float] | None]:
        key = id(scene)
        if key not in self.scenes:
            corners = (corner(asset) for asset in scene.assets.values())
            self.scenes[key] = crs_code(scene), next(filter(None, corners), None)
        return self.scenes[key]


def _merged(units: Sequence[tuple[Task, ...]], slices: int) -> Iterator[tuple[Task, ...]]:
    """Merge units of the same areas until they have enough slices, or cells, for a batch."""
    of_areas: dict[frozenset[str], list[tuple[Task, ...]]] = {}
    for unit in units:
        of_areas.setdefault(frozenset(task.aoi.id for task in unit), []).append(unit)
    for alike in of_areas.values():
        run: tuple[Task, ...] = ()
        for unit in alike:
            run += unit
            if len(run) >= slices and sum(math.prod(task.geobox.shape) for task in run) >= _LEAST_CELLS:
                yield run
                run = ()
        if run:
            yield run
