"""Define patches: fields that are read and computed together, and the work that they are divided into."""

from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox

from s2cube.area.aoi import AOI, box_of_areas
from s2cube.config.times import solar_day
from s2cube.fields.fields import Fields
from s2cube.scenes.time_slice import Plan, Task, TimeSlice, UnusableSlice

_NOISE_CELLS = 1e-7
"""A field that extends beyond the edge of a cell by less than this share of the cell does not need the next cell. Less
than a millionth of a cell has no weight, see `coverage`."""


@dataclass(frozen=True, eq=False)
class Patch:
    """Fields that are read and computed together, on each day.

    Parameters
    ----------
    fields
        At least one. Their outlines are in the CRS of the grid.
    digests
        Digest of the outline of each field, see `Fields.digests`.
    geobox
        Grid that contains all fields.
    parts
        Parts of the grid that are read. Together they contain all fields.
    plan
        The time slices of the fields. Their ids end with the day or the scene, after the id of the plan's area.
    """

    fields: Fields
    digests: NDArray[np.object_]
    geobox: GeoBox
    parts: tuple[GeoBox, ...]
    plan: Plan

    @property
    def id(self) -> str:
        """Id of the first field: a field is in one patch only."""
        return str(self.fields.ids[0])

    @cached_property
    def aoi(self) -> AOI:
        """The box around the fields, as an area of interest."""
        bounds = self.fields.bounds_lonlat
        (west, south), (east, north) = bounds[:, :2].min(axis=0).tolist(), bounds[:, 2:].max(axis=0).tolist()
        return box_of_areas(self.id, (west, south, east, north), self.plan.aoi.lon)

    def label(self, time_slice: TimeSlice | UnusableSlice) -> str:
        """Return the last part of the ids of a slice: its day, or its scene."""
        return time_slice.id.removeprefix(f"{self.plan.aoi.id}_")

    def task(self, time_slice: TimeSlice, positions: NDArray[np.intp], lattice: str, key: str) -> "FieldTask":
        """Return the work for one of the slices, and for some of the fields.

        Parameters
        ----------
        positions
            Positions of the fields.
        lattice, key
            See `FieldTask`.
        """
        is_all = len(positions) == len(self.fields)
        whole = FieldTask(
            self.aoi,
            self.geobox,
            replace(time_slice, id=f"{self.id}_{self.label(time_slice)}"),
            self.plan.search,
            fields=self.fields,
            digests=self.digests,
            day=date.fromisoformat(solar_day(time_slice.time, self.plan.aoi.lon)),
            lattice=lattice,
            key=key,
            read=self.parts,
        )
        # Tasks of all fields share the columns, so that a batch is small.
        return whole if is_all else whole.part(positions)


@dataclass(frozen=True, eq=False)
class FieldTask(Task):
    """The work that a worker receives: the statistics of some fields of a patch, for one time slice.

    Parameters
    ----------
    fields, digests
        The fields, and the digest of the outline of each.
    day
        The solar day.
    lattice
        The CRS and the settings, see `recipe.lattice_part`.
    key
        Last part of the recipes of the rows.
    read
        See `Patch.parts`.
    image
        Grid of the image of the only field, if it is also written. The other grid contains it.
    """

    fields: Fields = field(kw_only=True)
    digests: NDArray[np.object_] = field(kw_only=True)
    day: date = field(kw_only=True)
    lattice: str = field(kw_only=True)
    key: str = field(kw_only=True)
    read: tuple[GeoBox, ...] = field(kw_only=True)
    image: GeoBox | None = None

    @property
    def parts(self) -> tuple[GeoBox, ...]:
        """Parts of the grid that are read."""
        return self.read

    @property
    def image_task(self) -> Task | None:
        """The work for the image of the only field; None if it is not written."""
        return Task(self.aoi, self.image, self.slice, self.search) if self.image else None

    @property
    def label(self) -> str:
        """Last part of the ids of the slices: the day, or the scene."""
        return self.id.removeprefix(f"{self.aoi.id}_")

    def part(self, positions: "NDArray[np.intp] | NDArray[np.bool_]") -> "FieldTask":
        """Return the work for some of the fields: their positions, or True for each of them."""
        return replace(self, fields=self.fields.take(positions), digests=self.digests[positions])

    def by_parts(self) -> list["FieldTask"]:
        """Return the work for the fields of each part that is read. They need the same tiles, so they fail together."""
        corners = np.array([[each.boundingbox.left, each.boundingbox.bottom] for each in self.read])
        ends = np.array([[each.boundingbox.right, each.boundingbox.top] for each in self.read])
        bounds, noise_m = shapely.bounds(self.fields.shapes)[:, None], _NOISE_CELLS * self.geobox.affine.a
        is_inside = (bounds[..., :2] >= corners - noise_m).all(axis=2) & (bounds[..., 2:] <= ends + noise_m).all(axis=2)
        number = is_inside.argmax(axis=1)
        found = ((each, self.part(number == at)) for at, each in enumerate(self.read) if (number == at).any())
        return [replace(task, geobox=each, read=(each,)) for each, task in found]

    def windows(self) -> list[GeoBox]:
        """Return the part of the grid that each field needs."""
        size_m = self.geobox.affine.a
        cells = cells_of(shapely.bounds(self.fields.shapes), size_m)
        return [grid_of(each, size_m, self.geobox.crs) for each in cells]


def cells_of(bounds: NDArray[np.float64], size_m: float) -> NDArray[np.int64]:
    """Return the cells of the lattice that boxes touch: left, bottom, right, top, in cells from the origin."""
    low = np.floor(bounds[:, :2] / size_m + _NOISE_CELLS)
    high = np.maximum(np.ceil(bounds[:, 2:] / size_m - _NOISE_CELLS), low + 1)
    return np.hstack([low, high]).astype(np.int64)


def grid_of(cells: NDArray[np.int64], size_m: float, crs: CRS | None) -> GeoBox:
    """Return the grid of a box of cells, from `cells_of`."""
    left, bottom, right, top = cells.tolist()
    return GeoBox((top - bottom, right - left), Affine(size_m, 0, left * size_m, 0, -size_m, top * size_m), crs)
