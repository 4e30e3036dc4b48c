"""Define the rows of the table of statistics: their columns, and how they are made of arrays."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property
from itertools import repeat
from typing import ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from s2cube.config.sections import JobConfig
from s2cube.scenes.time_slice import TimeSlice

FIELD_COLUMNS = {
    "aoi": pa.string(),
    "slice": pa.string(),
    "date": pa.date32(),
    "time": pa.timestamp("us", "UTC"),
    "cells": pa.float64(),
    "clear_percent": pa.float32(),
    "cloud_percent": pa.float32(),
}
"""Columns before the statistics. `date` is the solar day, `time` that of the earliest scene, `cells` the area of the
field in cells of the grid."""

SOURCE_COLUMNS = {"scenes": pa.list_(pa.string()), "recipe": pa.string()}
"""Columns after the statistics."""


ORDER = [(name, "ascending") for name in ("aoi", "date", "slice")]
"""Columns by which rows are sorted."""


def value_columns(config: JobConfig) -> tuple[str, ...]:
    """Return the names of the columns of statistics: ``<band or index>_<statistic>``."""
    names = config.cube.image_bands
    return tuple(f"{name}_{each}" for name in names for each in config.table.chosen)


def schema(columns: Sequence[str]) -> pa.Schema:
    """Return the schema of rows with these columns of statistics."""
    return pa.schema([*FIELD_COLUMNS.items(), *((name, pa.float32()) for name in columns), *SOURCE_COLUMNS.items()])


@dataclass(frozen=True)
class Key:
    """What rows have in common that are computed with the same settings. The table stores it once per file.

    Parameters
    ----------
    columns
        Names of the columns of statistics.
    settings
        The settings of the search and of the pixels, as text.
    files
        Names of the bands and layers that are read, sorted: `Recipe.files` has a digest for each.
    """

    LENGTH: ClassVar = 8

    columns: tuple[str, ...]
    settings: str
    files: tuple[str, ...] = ()

    @cached_property
    def id(self) -> str:
        """Last part of the recipes of these rows: 8 hexadecimal digits."""
        return hashlib.sha256(json.dumps([self.columns, self.settings, self.files]).encode()).hexdigest()[: self.LENGTH]


@dataclass(frozen=True)
class Recipe:
    """The recipe of a row: digests of what its values are computed from. If one changes, the row is computed again.

    Parameters
    ----------
    processing
        Digest of the outline, the grid, the settings and the scenes. It does not depend on the bands.
    files
        Digest of the files of each band and layer, 8 digits each, in the order of `Key.files`.
    outline
        Digest of the outline, see `Fields.digests`.
    key
        See `Key.id`.
    """

    LENGTH: ClassVar = 16
    FILE_LENGTH: ClassVar = 8

    processing: str
    files: str
    outline: str
    key: str

    @classmethod
    def of_fields(cls, outlines: Sequence[str], time_slice: TimeSlice, lattice: str, key: str) -> list["Recipe"]:
        """Return the recipes of fields and a slice.

        Parameters
        ----------
        outlines
            Digest of the outline of each field.
        lattice
            See `recipe.lattice_part`.
        """
        processing = f" {lattice} {time_slice.processing}".encode()
        digests = [hashlib.sha256(each.encode() + processing).hexdigest()[: cls.LENGTH] for each in outlines]
        return [cls(*parts, key) for parts in zip(digests, repeat(time_slice.files), outlines)]

    @classmethod
    def parse(cls, text: str) -> "Recipe":
        """Read the text of a recipe. A text that is not a recipe is that of other values."""
        return cls(*f"{text}---".split("-")[:4])

    def files_of(self, key: Key) -> dict[str, str]:
        """Return the digest of the files of each band and layer, by name."""
        size = self.FILE_LENGTH
        return {name: self.files[size * at : size * (at + 1)] for at, name in enumerate(key.files)}

    def __str__(self) -> str:
        return f"{self.processing}-{self.files}-{self.outline}-{self.key}"


@dataclass(frozen=True, eq=False)
class DayRows:
    """The rows of some fields for one time slice, as arrays of equal length.

    Parameters
    ----------
    ids
        Ids of the fields.
    label
        Last part of the ids of the slices: the day, or the scene.
    day
        The solar day.
    time
        Time of the earliest scene, UTC.
    scenes
        Ids of the scenes.
    cells, clear_percent, cloud_percent
        See `FIELD_COLUMNS`. NaN where the percentage is not known.
    values
        Statistics by the name of the column. NaN where nothing is valid.
    recipes
        Text.
    """

    ids: NDArray[np.object_]
    label: str
    day: date
    time: datetime
    scenes: tuple[str, ...]
    cells: NDArray[np.float64]
    clear_percent: NDArray[np.float64]
    cloud_percent: NDArray[np.float64]
    values: dict[str, NDArray[np.float32]]
    recipes: Sequence[str]


def slice_ids(ids: NDArray[np.object_], label: str) -> list[str]:
    """Return the ids of the slices of fields."""
    return [f"{each}_{label}" for each in ids]


def scene_ids(time_slice: TimeSlice) -> tuple[str, ...]:
    """Return the ids of the scenes of a slice, in the order of the mosaic."""
    return tuple(scene.id for scene in time_slice.scenes)


def table_of(days: Sequence[DayRows], columns: Sequence[str]) -> pa.Table:
    """Return rows as a table. Percentages and statistics that are not known are null."""
    counts = [len(each.ids) for each in days]
    of_day = np.repeat(np.arange(len(days)), counts)

    def repeated(values: list[object], kind: pa.DataType) -> pa.Array:
        return pa.array(values, kind).take(pa.array(of_day))

    def joined(arrays: list[NDArray[np.float64]] | list[NDArray[np.float32]], kind: pa.DataType) -> pa.Array:
        return pa.array(np.concatenate(arrays), kind, from_pandas=True)  # NaN becomes null

    content = {
        "aoi": pa.array([name for each in days for name in each.ids], pa.string()),
        "slice": pa.array([name for each in days for name in slice_ids(each.ids, each.label)], pa.string()),
        "date": repeated([each.day for each in days], FIELD_COLUMNS["date"]),
        "time": repeated([each.time for each in days], FIELD_COLUMNS["time"]),
        "cells": joined([each.cells for each in days], FIELD_COLUMNS["cells"]),
        "clear_percent": joined([each.clear_percent for each in days], FIELD_COLUMNS["clear_percent"]),
        "cloud_percent": joined([each.cloud_percent for each in days], FIELD_COLUMNS["cloud_percent"]),
        **{name: joined([each.values[name] for each in days], pa.float32()) for name in columns},
        "scenes": repeated([list(each.scenes) for each in days], SOURCE_COLUMNS["scenes"]),
        "recipe": pa.array([recipe for each in days for recipe in each.recipes], pa.string()),
    }
    return pa.table(content, schema(columns)) if days else schema(columns).empty_table()
