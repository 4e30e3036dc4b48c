"""The fields of the table of statistics: ``areas.parquet``, a GeoParquet file that any GIS opens."""

import json
from collections.abc import Iterable, Iterator
from io import BytesIO
from typing import Any

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
from s2cube.tables.table import Table, squares_of

_EDGES = ("xmin", "ymin", "xmax", "ymax")
_BBOX = pa.struct([(name, pa.float64()) for name in _EDGES])

GEOMETRY_COLUMNS = ("geometry", "bbox")
"""Columns of the file that are neither the id nor those of the user's file."""


def write_areas(output: Output, groups: Iterable[tuple[Fields, pa.Table]]) -> None:
    """Add fields to the file, with the columns of the file that they come from.

    Fields of earlier runs remain, unless their ids are the same. Outlines are in degrees, cut at the antimeridian.
    Rows of fields that are in another square now (see `table.squares_of`) are moved there first.

    Parameters
    ----------
    groups
        Fields, and a table with their other columns.

    Raises
    ------
    OutputError
        If the existing file is no GeoParquet file of s2cube, or a file of the table is no table.
    WriteError
        If the file cannot be written.
    """
    parts = [_rows(fields, columns) for fields, columns in groups]
    if not parts:
        return
    if (old := _read(output)) is not None:
        new = pa.concat_tables([each.select(["aoi", *GEOMETRY_COLUMNS]) for each in parts])
        # The file is written afterwards: if the run is killed, the next one moves the rows.
        Table(output).move(_moved(old, new))
        parts.insert(0, old.filter(pc.invert(pc.is_in(old["aoi"], new["aoi"]))))
    rows = _joined([each for each in parts if each.num_rows])
    content = BytesIO()
    pq.write_table(rows.replace_schema_metadata({b"geo": _metadata(rows)}), content, compression="zstd")
    output.fence.check()
    output.destination.put(AREAS, content.getvalue())


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


def _read(output: Output) -> pa.Table | None:
    content = output.destination.read(AREAS)
    if content is None:
        return None
    try:
        rows = pq.read_table(BytesIO(content))
        rows.select(["aoi", *GEOMETRY_COLUMNS])
    except (pa.ArrowException, KeyError, OSError) as error:
        problem = f"is not a file of areas of s2cube ({error})"
        raise OutputError(f"{output.destination.address}/{AREAS}", problem, "Remove it: the run writes it") from None
    return rows.replace_schema_metadata(None)


def _moved(old: pa.Table, new: pa.Table) -> dict[str, tuple[str, str]]:
    """Return the old and the new square of fields that are in another square now, by their ids."""
    common = pc.is_in(old["aoi"], new["aoi"].combine_chunks())
    before, now = (dict(_squares(each)) for each in (old.filter(common), new))
    return {name: (square, now[name]) for name, square in before.items() if now[name] != square}


def _squares(rows: pa.Table) -> Iterator[tuple[str, str]]:
    bounds = np.column_stack([pc.struct_field(rows["bbox"], name).to_numpy() for name in _EDGES])
    for position in np.flatnonzero(bounds[:, 2] - bounds[:, 0] > 180).tolist():
        # The field is cut at the antimeridian. Its square is that of the field in one piece.
        parts = shapely.bounds(shapely.get_parts(shapely.from_wkb(rows["geometry"][position].as_py())))
        parts[parts[:, 0] < 0, ::2] += 360
        bounds[position, ::2] = parts[:, 0].min(), parts[:, 2].max()
    return zip(rows["aoi"].to_pylist(), squares_of(bounds), strict=True)


def _joined(parts: list[pa.Table]) -> pa.Table:
    """Join tables. If columns of one name have types that cannot be joined, they become text."""
    types: dict[str, set[pa.DataType]] = {}
    for each in parts:
        for column in each.schema:
            types.setdefault(column.name, set()).add(column.type)
    try:
        rows = pa.concat_tables(parts, promote_options="permissive")
    except pa.ArrowException:
        mixed = {name for name, found in types.items() if len(found) > 1}
        rows = pa.concat_tables([_as_text(each, mixed) for each in parts], promote_options="permissive")
    return rows.select([*(name for name in rows.column_names if name not in GEOMETRY_COLUMNS), *GEOMETRY_COLUMNS])


def _as_text(rows: pa.Table, names: set[str]) -> pa.Table:
    for name in names & {*rows.column_names}:
        texts = [None if each is None else str(each) for each in rows[name].to_pylist()]
        rows = rows.set_column(rows.column_names.index(name), name, pa.array(texts, pa.string()))
    return rows


def _metadata(rows: pa.Table) -> bytes:
    """Return the metadata of GeoParquet 1.1 (https://geoparquet.org/releases/v1.1.0)."""
    box = [pc.struct_field(rows["bbox"], name) for name in _EDGES]
    covering = {name: ["bbox", name] for name in _EDGES}
    column: dict[str, Any] = {
        "encoding": "WKB",
        "geometry_types": ["MultiPolygon", "Polygon"],
        "bbox": [*(pc.min(each).as_py() for each in box[:2]), *(pc.max(each).as_py() for each in box[2:])],
        "covering": {"bbox": covering},
    }
    return json.dumps({"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}).encode()
