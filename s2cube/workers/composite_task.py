"""Define the work for one composite."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

import numpy as np
import pystac

from s2cube.config.periods import Period
from s2cube.cube.chunks import read_grids
from s2cube.inventory.stored_image import StoredImage
from s2cube.scenes.time_slice import Task, TimeSlice, UnusableSlice


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
