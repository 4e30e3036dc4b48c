"""Read a GeoParquet file by row groups and columns: only what may meet the boxes that are asked for."""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely
from pyproj import Transformer

from s2cube.area.features import Features, Options, chosen_column
from s2cube.area.vector_file import check_count, crs_in_file, properties_of, unreadable
from s2cube.config.paths import expand_user
from s2cube.errors import AOIError, AssetReadError
from s2cube.fetch.addresses import is_remote
from s2cube.fetch.store import Access
from s2cube.fields._boxes import Boxes
from s2cube.fields._checks import Named
from s2cube.fields._remote_file import RemoteFile
from s2cube.fields.fields import LONLAT

if TYPE_CHECKING:
    import geopandas
    from numpy.typing import NDArray
    from odc.geo.crs import CRS

log = logging.getLogger(__name__)

_SUFFIXES = (".parquet", ".geoparquet")

BATCH_ROWS = 1 << 16
"""Maximum number of features that are checked together: about 50 MB."""

_SIDES = ("xmin", "ymin", "xmax", "ymax")
_MARGIN_DEG = np.array([-1, -1, 1, 1]) * 0.01
"""Margin around boxes in a file, degrees: 1 km. They are often rounded to float32 (1 m), and old datums are shifted by
up to 0.5 km. A margin only means that a few more geometries are decoded."""


@dataclass(frozen=True, eq=False)
class GeoParquet:
    """An open GeoParquet file whose geometries are WKB.

    Parameters
    ----------
    subject
        Path or address, for errors.
    frame
        The file without its rows, as geopandas reads it: geometry column, and the columns that are properties.
    crs
        CRS of the geometries; None: degrees.
    id_property
        As in `Options`.
    """

    subject: str
    file: pq.ParquetFile
    frame: "geopandas.GeoDataFrame"
    crs: "CRS | None"
    id_property: str | None

    @cached_property
    def properties(self) -> list[str]:
        """Names of the columns that are properties: not the geometry, its boxes or an index."""
        return list(properties_of(self.frame))

    @cached_property
    def id_column(self) -> str | None:
        """Name of the column with the ids; None if the name of the file is used."""

        def is_complete(column: str) -> bool:
            return all(_texts(chunk).null_count == 0 for chunk in self._column(column))

        with as_aoi_errors(self.subject):
            return chosen_column(self.properties, self.subject, self.id_property, is_complete)

    def names(self) -> Iterator[Named]:
        """Yield the names of all features."""
        with as_aoi_errors(self.subject):
            if self.id_column is not None:
                for chunk in self._column(self.id_column):
                    yield self.subject, _texts(chunk)
                return
            for first in range(0, self.file.metadata.num_rows, BATCH_ROWS):
                yield self.subject, self._numbered(first, min(BATCH_ROWS, self.file.metadata.num_rows - first))

    def batches(self, within: Boxes | None) -> Iterator[tuple[Features, pa.StringArray, pa.Table]]:
        """Yield features, their names and their properties, except those that cannot meet the boxes."""
        geometry = self.frame.geometry.name
        covering = sorted({path[0] for path in self._covering}) if within is not None else []
        columns = list(dict.fromkeys([geometry, *self.properties, *covering]))
        first = 0
        with as_aoi_errors(self.subject):
            for group in range(self.file.num_row_groups):
                if within is None or self._may_meet(within, group):
                    row = first
                    for batch in self.file.iter_batches(BATCH_ROWS, row_groups=[group], columns=columns):
                        yield from self._features(batch, row, within)
                        row += batch.num_rows
                first += self.file.metadata.row_group(group).num_rows

    def _features(
        self, batch: pa.RecordBatch, first: int, within: Boxes | None
    ) -> Iterator[tuple[Features, pa.StringArray, pa.Table]]:
        names = self._names(batch, first)
        if within is not None and self._covering and (self.crs is None or self.crs.geographic):
            kept = pa.array(self._rows_near(batch, within))
            batch, names = batch.filter(kept), names.filter(kept)
        if batch.num_rows == 0:
            return
        properties = pa.Table.from_batches([batch]).select(self.properties).replace_schema_metadata()
        column = batch.column(self.frame.geometry.name)
        wkb = getattr(column, "storage", column)
        with np.errstate(invalid="ignore"):  # a coordinate that is NaN
            shapes = shapely.from_wkb(wkb.to_numpy(zero_copy_only=False), on_invalid="ignore")
        given: list[str | None] = names.to_pylist()
        yield Features(self.subject, given, shapes, self.crs), names, properties

    def _names(self, batch: pa.RecordBatch, first: int) -> pa.StringArray:
        return _texts(batch.column(self.id_column)) if self.id_column else self._numbered(first, batch.num_rows)

    def _numbered(self, first: int, count: int) -> pa.StringArray:
        """Return the names of rows from the name of the file, as `names_of_file`."""
        path = unquote(urlsplit(self.subject).path) if is_remote(self.subject) else self.subject
        stem = PurePath(path).stem
        if self.file.metadata.num_rows == 1:
            return pa.array([stem])
        numbers = pa.array(np.arange(first + 1, first + count + 1)).cast(pa.string())
        return pc.binary_join_element_wise(stem, numbers, "_")

    def _column(self, name: str) -> Iterator[pa.Array]:
        for batch in self.file.iter_batches(BATCH_ROWS, columns=[name]):
            yield batch.column(name)

    @cached_property
    def _covering(self) -> tuple[tuple[str, ...], ...]:
        """Paths of the columns with the boxes of the rows (GeoParquet 1.1): west, south, east, north; else empty."""
        box = _facts_of(self.file, self.frame).get("covering", {}).get("bbox", {})
        paths = tuple(tuple(box.get(side, ())) for side in _SIDES)
        known = {self.file.schema.column(number).path for number in range(len(self.file.schema))}
        return paths if all(path and ".".join(path) in known for path in paths) else ()

    def _may_meet(self, within: Boxes, group: int) -> bool:
        """Return whether the rows of a row group may meet the boxes, by its statistics."""
        facts = self.file.metadata.row_group(group)
        columns = {facts.column(number).path_in_schema: facts.column(number) for number in range(facts.num_columns)}
        geometry = columns[self.frame.geometry.name].statistics
        if not self._covering or geometry is None or geometry.null_count != 0:
            # A row without a geometry has no box, and must be reported.
            return True
        statistics = [columns[".".join(path)].statistics for path in self._covering]
        if not all(each is not None and each.has_min_max for each in statistics):
            return True
        bounds = [each.min for each in statistics[:2]] + [each.max for each in statistics[2:]]
        return bool(within.met_by(np.array([self._lonlat(*bounds)]))[0])

    def _lonlat(self, west: float, south: float, east: float, north: float) -> "NDArray[np.float64]":
        """Transform bounds of a row group to degrees. If a row may cross the antimeridian, they go around the globe."""
        if self.crs is not None and not self.crs.geographic:
            transformer = Transformer.from_crs(self.crs.proj, LONLAT.proj, always_xy=True)
            west, south, east, north = transformer.transform_bounds(west, south, east, north)
        if not (-180 <= west <= east <= 180 and east - west <= 180 and np.isfinite([south, north]).all()):
            west, south, east, north = -180, -90, 180, 90
        return np.array([west, south, east, north]) + _MARGIN_DEG

    def _rows_near(self, batch: pa.RecordBatch, within: Boxes) -> "NDArray[np.bool_]":
        """Return whether rows may meet the boxes, by their own boxes in degrees. Rows without a box may."""
        sides = [pc.struct_field(batch.column(path[0]), list(path[1:])) for path in self._covering]
        bounds = np.column_stack([side.to_numpy(zero_copy_only=False).astype(float) for side in sides])
        west, _, east, _ = bounds.T
        # A wider row may cross the antimeridian.
        is_usual = (west >= -180) & (west <= east) & (east <= 180) & (east - west <= 180)
        found: NDArray[np.bool_] = ~is_usual
        found[is_usual] = within.met_by(bounds[is_usual] + _MARGIN_DEG)
        return found


@contextmanager
def as_aoi_errors(subject: str) -> Iterator[None]:
    """Convert errors of pyarrow, geopandas and `fetch` to errors about the area."""
    try:
        yield
    except AssetReadError as error:
        raise AOIError(subject, error.problem, error.remedy) from None
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise unreadable(subject, error) from None


def geoparquet_address(area: object) -> str | None:
    """Return the address of a GeoParquet file; None if the area is something else."""
    if not isinstance(area, str | Path):
        return None
    text = str(area)
    if is_remote(text):
        return text if urlsplit(text).path.lower().endswith(_SUFFIXES) else None
    path = expand_user(Path(text))
    return str(path) if text.lower().endswith(_SUFFIXES) and path.is_file() else None


def open_geoparquet(address: str, options: Options, access: Access) -> GeoParquet | None:
    """Open a GeoParquet file.

    Returns
    -------
    GeoParquet or None
        None for a local file whose geometries are not WKB: geopandas must read it.

    Raises
    ------
    AOIError
        If it cannot be read, or has no rows, or has no CRS.
    """
    remote = is_remote(address)
    with as_aoi_errors(address):
        source = pa.PythonFile(RemoteFile(address, access), "r") if remote else address
        file = pq.ParquetFile(source, memory_map=not remote, pre_buffer=remote)
        frame = _without_rows(file.schema_arrow, address)
        encoding = str(_facts_of(file, frame)["encoding"])
    if encoding.upper() != "WKB":
        if not remote:
            return None
        raise AOIError(address, f"has geometries as {encoding}, not as WKB", "Download the file")
    check_count(address, file.metadata.num_rows)
    return GeoParquet(address, file, frame, crs_in_file(address, frame, options), options.id_property)


def _without_rows(schema: pa.Schema, address: str) -> "geopandas.GeoDataFrame":
    """Return a file without rows as geopandas reads it: it knows all versions of the metadata."""
    import geopandas

    sink = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), sink)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        frame = geopandas.read_parquet(pa.BufferReader(sink.getvalue()))
    for warning in warned:
        log.warning("%s: %s", address, warning.message)
    return frame


def _facts_of(file: pq.ParquetFile, frame: "geopandas.GeoDataFrame") -> dict[str, Any]:
    """Return what the metadata of a file say about its geometry column."""
    facts: dict[str, Any] = json.loads(file.schema_arrow.metadata[b"geo"])["columns"][frame.geometry.name]
    return facts


def _texts(column: pa.Array) -> pa.StringArray:
    """Return values as texts, as `table_of` reads them: null where a value is missing or an empty text."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        texts = column.cast(pa.string())
        return pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)
    if pa.types.is_integer(column.type):
        return column.cast(pa.string())
    series = column.to_pandas()
    values = (
        None if missing or value == "" else str(value) for value, missing in zip(series, series.isna(), strict=True)
    )
    return pa.array(values, pa.string())
