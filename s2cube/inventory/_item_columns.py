"""Convert Items to the columns of a table, and back."""

import json
import math
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from s2cube.storage.image_item import DROPPED, OFFSETS, SEARCH, SETTINGS

if TYPE_CHECKING:
    import pyarrow as pa

_FREE = (SETTINGS, SEARCH, OFFSETS, DROPPED)
"""Properties that are always JSON, because a column has one type also if some of them are empty."""

_OWN = "s2cube:"
"""Start of the names of the properties of s2cube. Objects in them may have any members: a column has them as JSON."""

_MEMBERS = ("type", "stac_version", "stac_extensions", "id", "geometry", "bbox", "links", "assets", "collection")
"""Members of an Item beside its properties."""


def as_table(documents: Sequence[Mapping[str, Any]]) -> "pa.Table":
    """Convert Items as JSON to rows. If Arrow has no columns for them, an error of `_items_table` is raised."""
    import pyarrow as pa
    from stac_geoparquet.arrow import parse_stac_items_to_arrow

    free = {name for each in documents for name, value in each["properties"].items() if _is_free(name, value)}
    table = parse_stac_items_to_arrow([_for_columns(each, free) for each in documents]).read_all()
    for position, name in enumerate(table.column_names):
        if name in free:
            texts = table[name].combine_chunks()
            table = table.set_column(position, name, pa.ExtensionArray.from_storage(pa.json_(), texts))
    return table


def _is_free(name: str, value: Any) -> bool:
    """Return whether a property may contain objects whose members have any name."""
    objects = value if isinstance(value, list) else [value]
    return name in _FREE or (name.startswith(_OWN) and any(isinstance(each, dict) for each in objects))


def _for_columns(document: Mapping[str, Any], free: Container[str]) -> dict[str, Any]:
    # The library reads the member datetime even if it is null.
    properties = {"datetime": None} | {
        name: json.dumps(value) if name in free else value
        for name, value in document["properties"].items()
        if value is not None
    }
    # A column has one type, but nodata is a number or the text "nan".
    columns = {**document, "properties": properties, "assets": _clean(document["assets"], float)}
    return {name: _without_empty(value) for name, value in columns.items()}


def _without_empty(value: Any) -> Any:
    """Remove members that are empty objects, because Parquet has no type for them."""
    if isinstance(value, dict):
        return {key: _without_empty(each) for key, each in value.items() if each != {}}
    return [_without_empty(each) for each in value] if isinstance(value, list) else value


def documents_of(table: "pa.Table") -> Iterator[dict[str, Any]]:
    """Convert rows to Items as JSON."""
    import pyarrow as pa
    import shapely

    free = {field.name for field in table.schema if field.type == pa.json_()}
    geometries = shapely.to_geojson(shapely.from_wkb(table["geometry"].to_pylist()))
    for row, geometry in zip(table.drop_columns("geometry").to_pylist(), geometries, strict=True):
        row["geometry"] = json.loads(geometry)
        row["bbox"] = list(row["bbox"].values())
        row["assets"] = _clean(row["assets"], _nodata_as_json)
        document = {name: row.pop(name) for name in _MEMBERS if row.get(name) is not None}
        document["links"] = [_clean(each) for each in document["links"]]
        properties = {name: _value(value, name in free) for name, value in row.items() if value is not None}
        yield {**document, "properties": {"datetime": None} | properties}


def _value(value: Any, is_free: bool) -> Any:
    if is_free:
        return json.loads(value)
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else _clean(value)


def _clean(value: Any, nodata: Callable[[Any], Any] | None = None) -> Any:
    """Remove members whose value is null, and convert every member `nodata` that is not a bool."""
    if isinstance(value, dict):
        return {
            key: nodata(each) if nodata and key == "nodata" and not isinstance(each, bool) else _clean(each, nodata)
            for key, each in value.items()
            if each is not None
        }
    return [_clean(each, nodata) for each in value] if isinstance(value, list) else value


def _nodata_as_json(nodata: float) -> int | float | str:
    """Write nodata as STAC does: a number, or a text if JSON has no such number."""
    if not math.isfinite(nodata):
        return str(nodata)
    return int(nodata) if nodata.is_integer() else nodata
