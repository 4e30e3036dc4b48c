"""The fields of the table of statistics: ``areas.parquet``, a GeoParquet file that any GIS opens."""

import json
import math
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray
from odc.geo.crs import CRS

from s2cube.errors import OutputError
from s2cube.fields.fields import Fields
from s2cube.storage.layout import AREAS
from s2cube.storage.output import Output
from s2cube.tables._files import WRITING, opened
from s2cube.tables.table import Table, squares_of

Bounds: TypeAlias = tuple[float, float, float, float]

_EDGES = ("xmin", "ymin", "xmax", "ymax")
_NOWHERE = (math.inf, math.inf, -math.inf, -math.inf)
_BBOX = pa.struct([(name, pa.float64()) for name in _EDGES])

GEOMETRY_COLUMNS = ("geometry", "bbox")
"""Columns of the file that are neither the id nor those of the user's file."""


class AreasSpool:
    """Fields with their other columns, in a temporary folder, so that memory does not grow with their number.

    Parameters
    ----------
    folder
        Folder for temporary files.

    Attributes
    ----------
    ids, squares
        Id and square (see `table.squares_of`) of each field, batch by batch.
    bounds
        Box around all fields: west, south, east, north, degrees.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[pa.Schema, tuple[Path, pq.ParquetWriter]] = {}
        self.ids: list[pa.Array] = []
        self.squares: list[pa.Array] = []
        self.bounds = _NOWHERE

    def add(self, fields: Fields, columns: pa.Table) -> None:
        """Add fields, and a table with their other columns."""
        rows = _rows(fields, columns)
        if rows.schema not in self._writers:
            path = self._folder / f"areas-{len(self._writers)}.parquet"
            self._writers[rows.schema] = path, pq.ParquetWriter(path, rows.schema)
        self._writers[rows.schema][1].write_table(rows)
        self.ids.append(pa.array(fields.ids, pa.string()))
        self.squares.append(pa.array(squares_of(fields.bounds_lonlat), pa.string()).dictionary_encode())
        self.bounds = _around(self.bounds, rows)

    @property
    def schemas(self) -> list[pa.Schema]:
        """Schemas of the rows."""
        return list(self._writers)

    def parts(self) -> Iterator[pa.Table]:
        """Close the files, and read them, some rows at a time."""
        for path, writer in self._writers.values():
            writer.close()
            file = pq.ParquetFile(path)
            yield from map(file.read_row_group, range(file.num_row_groups))


def write_areas(output: Output, groups: Iterable[tuple[Fields, pa.Table]]) -> None:
    """Add fields to the file, see `write_spooled`.

    Parameters
    ----------
    groups
        Fields, and a table with their other columns.
    """
    with TemporaryDirectory(prefix="s2cube-areas-") as name:
        spool = AreasSpool(Path(name))
        for fields, columns in groups:
            spool.add(fields, columns)
        write_spooled(output, spool)


def write_spooled(output: Output, spool: AreasSpool) -> None:
    """Add fields to the file, with the columns of the file that they come from.

    Fields of earlier runs remain, unless their ids are the same. Outlines are in degrees, cut at the antimeridian.
    Rows of fields that are in another square now (see `table.squares_of`) are moved there first.

    Raises
    ------
    OutputError
        If the existing file is no GeoParquet file of s2cube, or a file of the table is no table.
    WriteError
        If the file cannot be written.
    """
    if not spool.ids:
        return
    ids, squares = pa.chunked_array(spool.ids), pa.chunked_array(spool.squares)
    old, bounds = open_areas(output), spool.bounds
    if old is not None:
        moved: dict[str, tuple[str, str]] = {}
        for rows in _kept(read_areas(output, old), ids, is_new=True):
            moved |= _moved(rows, ids, squares)
        # The file is written afterwards: if the run is killed, the next one moves the rows.
        Table(output).move(moved)
        for rows in _kept(read_areas(output, old), ids, is_new=False):
            bounds = _around(bounds, rows)
    schema = _common_schema([*([old.schema_arrow.remove_metadata()] if old else []), *spool.schemas])
    with output.destination.staging() as folder:
        path = Path(folder) / AREAS
        with pq.ParquetWriter(path, schema.with_metadata({b"geo": _metadata(bounds)}), **WRITING) as writer:
            for rows in chain(_kept(read_areas(output, old), ids, is_new=False) if old else (), spool.parts()):
                writer.write_table(_with_schema(rows, schema))
        output.fence.check()
        output.destination.put(AREAS, path)


def read_outlines(output: Output) -> Iterator[tuple[str, bytes]]:
    """Yield the id and the outline of each field, WKB in degrees.

    Raises
    ------
    OutputError
        If the file is no GeoParquet file of s2cube.
    """
    file = open_areas(output)
    for rows in read_areas(output, file) if file else ():
        yield from zip(rows["aoi"].to_pylist(), rows["geometry"].to_pylist(), strict=True)


def _rows(fields: Fields, columns: pa.Table) -> pa.Table:
    shapes = _lonlat(fields)
    others = [name for name in columns.column_names if name.casefold() != "aoi"]
    content = {"aoi": pa.array(fields.ids, pa.string()), **{name: columns[name] for name in others}}
    content["geometry"] = pa.array(shapely.to_wkb(shapes), pa.binary())
    content["bbox"] = pa.StructArray.from_arrays(list(map(pa.array, shapely.bounds(shapes).T)), fields=list(_BBOX))
    return pa.table(content)


def _lonlat(fields: Fields) -> NDArray[np.object_]:
    """Return the outlines in degrees, as RFC 7946 requires."""
    shapes = fields.shapes_in(CRS("EPSG:4326")).copy()
    west, east = fields.bounds_lonlat[:, 0], fields.bounds_lonlat[:, 2]
    for position in np.flatnonzero((east > 180) | (west < -180)).tolist():
        shapes[position] = fields.aoi(position).geometry_lonlat.geom
    return shapes


def open_areas(output: Output) -> pq.ParquetFile | None:
    """Open the file of areas; None if it does not exist.

    Raises
    ------
    OutputError
        If it is no GeoParquet file of s2cube.
    """
    content = output.destination.read(AREAS)
    if content is None:
        return None
    try:
        file = opened(content)
        if missing := {"aoi", *GEOMETRY_COLUMNS} - {*file.schema_arrow.names}:
            raise KeyError(*missing)
    except (pa.ArrowException, KeyError, OSError) as error:
        raise _error(output, error) from None
    return file


def read_areas(output: Output, file: pq.ParquetFile) -> Iterator[pa.Table]:
    """Read the file of areas, some rows at a time.

    Raises
    ------
    OutputError
        If it is damaged.
    """
    for group in range(file.num_row_groups):
        try:
            yield file.read_row_group(group)
        except (pa.ArrowException, OSError) as error:
            raise _error(output, error) from None


def _error(output: Output, error: Exception) -> OutputError:
    problem = f"is not a file of areas of s2cube, or it is damaged ({error})"
    remedy = "Remove it, or use verify --repair: the next run writes its areas"
    return OutputError(f"{output.destination.address}/{AREAS}", problem, remedy)


def _kept(old: Iterable[pa.Table], ids: pa.ChunkedArray, is_new: bool) -> Iterator[pa.Table]:
    """Yield the old rows whose ids are, or are not, among others."""
    for rows in old:
        common = pc.is_in(rows["aoi"], ids)
        found = rows.filter(common if is_new else pc.invert(common))
        if found.num_rows:
            yield found.replace_schema_metadata(None)


def _moved(rows: pa.Table, ids: pa.ChunkedArray, squares: pa.ChunkedArray) -> dict[str, tuple[str, str]]:
    """Return the old and the new square of fields that are in another square now, by their ids."""
    now = squares.take(pc.index_in(rows["aoi"].combine_chunks(), ids)).to_pylist()
    pairs = zip(_squares(rows), now, strict=True)
    return {name: (before, after) for (name, before), after in pairs if before != after}


def _squares(rows: pa.Table) -> Iterator[tuple[str, str]]:
    bounds = np.column_stack([pc.struct_field(rows["bbox"], name).to_numpy() for name in _EDGES])
    for position in np.flatnonzero(bounds[:, 2] - bounds[:, 0] > 180).tolist():
        # The field is cut at the antimeridian. Its square is that of the field in one piece.
        parts = shapely.bounds(shapely.get_parts(shapely.from_wkb(rows["geometry"][position].as_py())))
        parts[parts[:, 0] < 0, ::2] += 360
        bounds[position, ::2] = parts[:, 0].min(), parts[:, 2].max()
    return zip(rows["aoi"].to_pylist(), squares_of(bounds), strict=True)


def _common_schema(schemas: list[pa.Schema]) -> pa.Schema:
    """Return the columns of all rows. If columns of one name have types that cannot be joined, they become text."""
    try:
        common = pa.unify_schemas(schemas, promote_options="permissive")
    except pa.ArrowException:
        types: dict[str, set[pa.DataType]] = {}
        for column in (column for each in schemas for column in each):
            types.setdefault(column.name, set()).add(column.type)
        common = pa.schema([(name, found.pop() if len(found) == 1 else pa.string()) for name, found in types.items()])
    names = [*(name for name in common.names if name not in GEOMETRY_COLUMNS), *GEOMETRY_COLUMNS]
    return pa.schema([common.field(name) for name in names])


def _with_schema(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    texts = {column.name for column in schema if column.type == pa.string()}
    rows = _as_text(rows, texts - {column.name for column in rows.schema if column.type == pa.string()})
    missing = (name for name in schema.names if name not in rows.column_names)
    content = {name: rows[name] for name in rows.column_names} | {
        name: pa.nulls(rows.num_rows, schema.field(name).type) for name in missing
    }
    return pa.table({name: content[name] for name in schema.names}).cast(schema)


def _as_text(rows: pa.Table, names: set[str]) -> pa.Table:
    for name in names & {*rows.column_names}:
        texts = [None if each is None else str(each) for each in rows[name].to_pylist()]
        rows = rows.set_column(rows.column_names.index(name), name, pa.array(texts, pa.string()))
    return rows


def _around(bounds: Bounds, rows: pa.Table) -> Bounds:
    """Return a box that is extended to the boxes of rows."""
    west, south, east, north = (pc.struct_field(rows["bbox"], name) for name in _EDGES)
    lows = [min(one, pc.min(each).as_py()) for one, each in zip(bounds[:2], (west, south), strict=True)]
    highs = [max(one, pc.max(each).as_py()) for one, each in zip(bounds[2:], (east, north), strict=True)]
    return lows[0], lows[1], highs[0], highs[1]


def _metadata(bounds: Bounds) -> bytes:
    """Return the metadata of GeoParquet 1.1 (https://geoparquet.org/releases/v1.1.0)."""
    covering = {name: ["bbox", name] for name in _EDGES}
    column: dict[str, Any] = {
        "encoding": "WKB",
        "geometry_types": ["MultiPolygon", "Polygon"],
        "bbox": list(bounds),
        "covering": {"bbox": covering},
    }
    return json.dumps({"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}).encode()
