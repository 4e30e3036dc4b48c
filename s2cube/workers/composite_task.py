"""Define the work for one composite, and the parts of its area that are computed together."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, pairwise

import numpy as np
import pystac
from odc.geo.geobox import GeoBox

from s2cube.config.periods import Period
from s2cube.cube.chunks import read_grids
from s2cube.errors import SliceError
from s2cube.inventory.stored_image import StoredImage
from s2cube.products.day_stack import DayStack
from s2cube.scenes.time_slice import Task, TimeSlice, UnusableSlice

_STRIP_CELLS = 1 << 18
"""Number of cells of a strip. Its masks on steps fit into the processor's cache."""


@dataclass(frozen=True)
class CompositeTask(Task):
    """The work for the composite of one area and one period. Its slice has the scenes of all days.

    Parameters
    ----------
    days
        The time slices of the period, oldest first: one per solar day.
    unusable
        Days that cannot be computed, because the item of a scene is not usable. The composite lacks them.
    stored
        Daily images in the output that are read instead of the archive, by the ids of their slices. They have the bands
        of the composite, and then the score.
    """

    period: Period = field(kw_only=True)
    days: tuple[TimeSlice, ...] = field(kw_only=True)
    unusable: tuple[UnusableSlice, ...] = ()
    stored: Mapping[str, StoredImage] = field(default_factory=dict)

    @property
    def scenes(self) -> tuple[pystac.Item, ...]:
        """The scenes whose bands are read: not those of days whose images are read."""
        return tuple(scene for day in self.days if day.id not in self.stored for scene in day.scenes)

    def label(self, slice_id: str) -> str:
        """Return the last part of the id of a day: its date, YYYYMMDD."""
        return slice_id.removeprefix(f"{self.aoi.id}_")


@dataclass(frozen=True, eq=False)
class Strip:
    """Some rows of a unit. Days are computed strip by strip, because masks on steps are many times as large as a day.

    Parameters
    ----------
    rows
        Rows of the unit.
    area
        Dims (y, x): True inside the area of interest.
    first
        Number of cells inside the area that are above the strip.
    """

    rows: slice
    geobox: GeoBox
    area: np.ndarray
    first: int

    def inside(self, values: np.ndarray) -> np.ndarray:
        """Return the cells inside the area: dims (band, cell) of dims (band, y, x)."""
        flat, cells = values.reshape(len(values), -1), np.flatnonzero(self.area)
        # To take positions is faster than to test each cell again for each band.
        return flat if len(cells) == flat.shape[1] else flat.take(cells, axis=1)


@dataclass(frozen=True, eq=False)
class Unit:
    """A part of the area of a composite whose days are together in memory, or in a file.

    Parameters
    ----------
    geobox
        Grid of the part.
    area
        Dims (y, x): True inside the area of interest.
    days
        Days that are read.
    stack
        The images of these days, on cells inside the area.
    """

    task: CompositeTask
    geobox: GeoBox
    area: np.ndarray
    days: tuple[TimeSlice, ...]
    stack: DayStack
    errors: dict[str, SliceError] = field(default_factory=dict)
    """Why days cannot be read, by the ids of their slices."""
    dark: dict[str, np.ndarray] = field(default_factory=dict)
    """Result of `count_dark` of each day that was read."""
    read: set[str] = field(default_factory=set)
    """Ids of the slices whose images are in the stack."""
    damaged: dict[str, str] = field(default_factory=dict)
    """Why daily images in the output are not used, by the ids of their slices."""
    beyond: dict[str, dict[str, int]] = field(default_factory=dict)
    """Number of cells of each index that int16 cannot store, of each day that was read from the archive; if indices are
    those of the result, of the composite."""

    @property
    def tasks(self) -> Iterator[Task]:
        """One task per day."""
        return (Task(self.task.aoi, self.geobox, each, self.task.search) for each in self.days)

    @cached_property
    def strips(self) -> tuple[Strip, ...]:
        """The unit, some rows at a time, from the top."""
        height, width = self.area.shape
        rows = max(1, _STRIP_CELLS // width)
        found, first = [], 0
        for top in range(0, height, rows):
            # A slice of a grid may go beyond its end.
            part = slice(top, min(top + rows, height))
            area = self.area[part]
            found.append(Strip(part, self.geobox[part, :], area, first))
            first += int(np.count_nonzero(area))
        return tuple(found)

    @cached_property
    def positions(self) -> Mapping[str, int]:
        """Position of each day, by the id of its slice."""
        return {each.id: position for position, each in enumerate(self.days)}


def chunks_of(task: CompositeTask, area: np.ndarray, dilation_m: float) -> Iterator[tuple[slice, slice]]:
    """Yield the rows and columns of the chunks of a large area. Their edges are edges of tiles.

    Parameters
    ----------
    area
        Dims (y, x): True inside the area of interest. Chunks without such cells are left out.
    """
    chunks = read_grids(task.geobox, [each.scenes for each in task.days], dilation_m)[0].chunks
    for rows in pairwise(accumulate(chunks.rows, initial=0)):
        for columns in pairwise(accumulate(chunks.columns, initial=0)):
            if area[slice(*rows), slice(*columns)].any():
                yield slice(*rows), slice(*columns)
