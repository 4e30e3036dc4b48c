"""Read usual GeoJSON files without GDAL: importing geopandas takes longer than reading a small file."""

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from s2cube.area._geojson import geojson_features
from s2cube.area.features import ID_COLUMNS, Features, Options, names_of_file
from s2cube.errors import AOIError

_SUFFIXES = (".geojson", ".json")
_DEGREES = "urn:ogc:def:crs:OGC:1.3:CRS84"
"""CRS in files of QGIS and GDAL, although RFC 7946 has removed the member."""

_COLLECTION, _FEATURE = {"type", "name", "crs", "bbox", "features"}, {"type", "id", "bbox", "properties", "geometry"}
_GEOMETRY = {"type", "bbox", "coordinates"}
_DEPTHS = {"Polygon": 2, "MultiPolygon": 3}
"""Number of lists around a position, by geometry type."""

_LIKE_A_DATE = re.compile(r"\d[-/:]\d")
"""GDAL converts texts to dates, if all values of a property look like dates. Their text may then be another."""

_INTEGER = 1 << 31

_MOST_BYTES = 4 << 20
"""Largest file (10,000 fields). GDAL reads a larger one faster: 100,000 fields in 1.1 s instead of 4.2 s, imports
included."""


def plain_features(path: Path, options: Options) -> Features | None:
    """Read a GeoJSON file of polygons in degrees, if it is certain that GDAL reads the same from it.

    Returns
    -------
    Features or None
        The features, with the ids of `vector_file.read_file`. None if GDAL must read the file: if it is large, or has
        members that GDAL interprets, heights, another CRS, unusual ids, or an error.
    """
    if path.suffix not in _SUFFIXES or options.layer is not None or options.crs is not None:
        return None
    try:
        if path.stat().st_size > _MOST_BYTES:
            return None
        content = json.loads(path.read_bytes().decode(), parse_constant=_refuse)
    except (OSError, ValueError, RecursionError):
        return None
    if not _is_plain(content, options):
        return None
    from odc.geo.crs import CRS

    try:
        features = geojson_features(content, str(path), options)
    except AOIError:
        return None
    names = features.names
    if names[0] is None:
        names = names_of_file(path, len(names))
    return replace(features, names=names, crs=CRS("EPSG:4326"))


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _is_plain(content: object, options: Options) -> bool:
    if not isinstance(content, dict) or content.get("type") != "FeatureCollection" or content.keys() - _COLLECTION:
        return False
    features = content.get("features")
    if not isinstance(features, list) or not features or not all(map(_is_plain_feature, features)):
        return False
    if "crs" in content:
        if content["crs"] != {"type": "name", "properties": {"name": _DEGREES}}:
            return False
        del content["crs"]
    columns = {*ID_COLUMNS, options.id_property}
    properties = [each["properties"] for each in features]
    if any("id" in each for each in features) and any(None in map(row.get, columns & row.keys()) for row in properties):
        # GDAL fills a property that is null with the id of the feature.
        return False
    return _are_plain_ids([each.get("id") for each in features]) and all(
        _are_plain_ids([row.get(column) for row in properties]) for column in columns
    )


def _is_plain_feature(feature: object) -> bool:
    if not isinstance(feature, dict) or feature.get("type") != "Feature" or feature.keys() - _FEATURE:
        return False
    geometry = feature.get("geometry")
    if not isinstance(geometry, dict) or geometry.keys() - _GEOMETRY or not isinstance(feature.get("properties"), dict):
        return False
    depth = _DEPTHS.get(str(geometry.get("type")))
    rings = list(_lists(geometry.get("coordinates"), depth - 1)) if depth else []
    return bool(rings) and all(map(_is_plain_ring, rings))


def _lists(value: object, depth: int) -> Iterator[object]:
    """Yield what is in nested lists of this depth."""
    if depth == 0:
        yield value
    elif isinstance(value, list) and value:
        for each in value:
            yield from _lists(each, depth - 1)
    else:
        yield None


def _is_plain_ring(ring: object) -> bool:
    """Return whether a value is a closed ring of positions without heights."""
    if not isinstance(ring, list) or len(ring) < 4 or ring[0] != ring[-1]:
        return False
    return all(isinstance(each, list) and len(each) == 2 and all(map(_is_coordinate, each)) for each in ring)


def _is_coordinate(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


def _are_plain_ids(values: Sequence[Any]) -> bool:
    """Return whether GDAL keeps all values of a property as they are: texts, or integers that no feature lacks."""
    if all(type(value) is int and 0 <= value < _INTEGER for value in values):
        return True
    return all(value is None or (isinstance(value, str) and not _LIKE_A_DATE.search(value)) for value in values)
