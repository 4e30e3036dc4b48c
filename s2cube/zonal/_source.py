"""Read the fields of a job into a temporary file, from which they are taken square by square."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from s2cube.area.aoi import AOI
from s2cube.area.areas import named_area
from s2cube.config.sections import JobConfig
from s2cube.config.times import timestamp
from s2cube.cube.open_cube import read_access
from s2cube.errors import AOIError
from s2cube.fields.fields import Fields
from s2cube.fields.reading import FieldBatch, check_columns, read_fields
from s2cube.fields.spool import FieldSpool
from s2cube.storage.failures import SliceFailure
from s2cube.tables.areas_file import GEOMETRY_COLUMNS, AreasSpool
from s2cube.tables.rows import FIELD_COLUMNS, SOURCE_COLUMNS, value_columns
from s2cube.tables.table import squares_of

_FIELDS_AT_ONCE = 100_000
"""Number of fields that are planned and computed together, so that the memory of plans is limited. The fields of a
granule are together, because tiles at the edges between others are read twice."""


@dataclass(eq=False)
class Source:
    """The fields of a job, in a temporary file.

    Parameters
    ----------
    spool
        Receives the fields. The key is the square of the table, and the CRS.
    areas
        Receives the fields with their other columns, for ``areas.parquet``. A plan does not need them.

    Attributes
    ----------
    failures
        Features that cannot be areas of interest.
    boxes
        Box around the fields of each square: west, south, east, north, degrees.
    count
        Number of fields.
    """

    spool: FieldSpool
    areas: AreasSpool | None = None
    failures: list[SliceFailure] = field(default_factory=list)
    boxes: dict[str, tuple[float, float, float, float]] = field(default_factory=dict)
    count: int = 0
    _sizes: dict[str, int] = field(default_factory=dict)

    def squares(self) -> list[AOI]:
        """Return the box around the fields of each square as an area of interest, for a search."""
        return [AOI(name, shapely.box(*box)) for name, box in sorted(self.boxes.items())]

    def parts(self) -> Iterator[list[Fields]]:
        """Yield all fields: some squares at a time."""
        part: list[Fields] = []
        for key in self.spool.keys().tolist():
            if part and sum(map(len, part)) + self._sizes[key] > _FIELDS_AT_ONCE:
                yield part
                part = []
            part.append(self.spool.fields(key))
        if part:
            yield part

    def read(self, config: JobConfig, within: Sequence[BaseGeometry] | None) -> None:
        """Read the fields of a job.

        Parameters
        ----------
        within
            Footprints, degrees: fields that meet the box of none of them are left out. None: all fields.

        Raises
        ------
        AOIError
            If the areas cannot be read, or two have the same name, or a column has the name of a column of the table.
            If none of them can be used.
        """
        job, reserved = config.job, reserved_columns(config)
        boxes = None if within is None else [each.bounds for each in within if not each.is_empty]
        access = read_access(config.read)
        for batch in read_fields(named_area(job), job.aoi_id, layer=job.aoi_layer, within=boxes, access=access):
            check_columns(batch.attributes.column_names, reserved, str(job.aoi))
            self.add(batch)
        if self.failures and not self.count:
            where = "" if within is None else " where there are scenes"
            problem = f"has no usable area{where}: {self.failures[0].error}"
            raise AOIError(str(job.aoi), problem, "Repair the geometries")

    def add(self, batch: FieldBatch) -> None:
        """Add fields."""
        failed_at = timestamp(timespec="seconds")
        self.failures += [SliceFailure(each.id, (), "", str(each.error), failed_at) for each in batch.invalid]
        if not len(batch.fields):
            return
        self.count += len(batch.fields)
        names, numbers = np.unique(squares_of(batch.fields.bounds_lonlat).astype(str), return_inverse=True)
        self._extend_boxes(names.tolist(), batch.fields.bounds_lonlat, numbers)
        keys = np.array([f"{name} {batch.fields.crs}" for name in names])
        for key, count in zip(keys.tolist(), np.bincount(numbers).tolist(), strict=True):
            self._sizes[key] = self._sizes.get(key, 0) + count
        keys = keys[numbers]
        self.spool.add(batch.fields, keys)
        if self.areas:
            self.areas.add(batch.fields, batch.attributes)

    def _extend_boxes(self, names: list[str], bounds: NDArray[np.float64], numbers: NDArray[np.intp]) -> None:
        """Extend the boxes of squares. Each name is the square of the boxes with its number."""
        order = np.argsort(numbers, kind="stable")
        first = np.searchsorted(numbers[order], np.arange(len(names)))
        low = np.minimum.reduceat(bounds[order, :2], first)
        high = np.maximum.reduceat(bounds[order, 2:], first)
        for name, box in zip(names, np.hstack([low, high]).tolist(), strict=True):
            west, south, east, north = self.boxes.get(name, box)
            self.boxes[name] = (min(west, box[0]), min(south, box[1]), max(east, box[2]), max(north, box[3]))


def reserved_columns(config: JobConfig) -> set[str]:
    """Return the names of columns that a file of areas must not have, because s2cube writes such columns."""
    names = {*FIELD_COLUMNS, *SOURCE_COLUMNS, *GEOMETRY_COLUMNS, *value_columns(config)}
    # The column of the ids may have the name that it gets.
    return names - {"aoi"} if (config.job.aoi_id or "").casefold() == "aoi" else names
