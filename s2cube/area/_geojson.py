"""Read features from GeoJSON objects: a geometry, a Feature or a FeatureCollection."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from s2cube.area.features import Features, Options, chosen_ids, parse_crs
from s2cube.errors import AOIError

if TYPE_CHECKING:
    from odc.geo.crs import CRS
    from shapely.geometry.base import BaseGeometry

_GEOMETRIES = (
    "Polygon", "MultiPolygon", "GeometryCollection", "Point", "MultiPoint", "LineString", "MultiLineString",
    "LinearRing",
)  # fmt: skip


def geojson_features(content: Mapping[str, Any], subject: str, options: Options) -> Features:
    """Read the features of a GeoJSON object.

    The id is that of a file with the same content: the property `id`, else the id of the feature if it is a text, else
    the property `name`, else the id of the feature if it is a number.

    Raises
    ------
    AOIError
        If it is not GeoJSON, or contains no feature.
    """
    kind = content.get("type")
    members: object = [content]
    if kind == "FeatureCollection":
        members = content.get("features")
    elif kind != "Feature":
        if kind not in _GEOMETRIES:
            problem = f"is not GeoJSON: its type is {kind!r}" if "type" in content else "is not GeoJSON: it has no type"
            raise AOIError(subject, problem, "Give a geometry, a Feature or a FeatureCollection")
        members = [{"type": "Feature", "geometry": content}]
    if not isinstance(members, Sequence) or isinstance(members, str):
        raise AOIError(subject, "is not GeoJSON: its features are not a list", "Correct it")
    if not members:
        raise AOIError(subject, "contains no features", "Draw at least one polygon")
    for number, each in enumerate(members, start=1):
        if not isinstance(each, Mapping) or each.get("type") != "Feature":
            raise AOIError(subject, f"is not GeoJSON: feature {number} is not a Feature", "Correct it")
    names = _names(members, subject, options)
    own = parse_crs(_crs_name(content, subject))
    crs = options.crs_of(subject, own)
    shapes = [_geometry(each.get("geometry"), subject, number) for number, each in enumerate(members, start=1)]
    return Features(subject, names, shapes, crs, _columns([_properties(each) for each in members]))


def _names(members: Sequence[Mapping[str, Any]], subject: str, options: Options) -> Sequence[str | None]:
    numbers = [member.get("id") for member in members]
    # geopandas writes the position of a row as its id, which says nothing about the area.
    are_positions = [str(number) for number in numbers] == [str(position) for position in range(len(members))]
    rows: list[dict[str, object]] = []
    for member, own in zip(members, numbers, strict=True):
        row = dict(_properties(member))
        if row.get("id") is None and isinstance(own, str) and not are_positions:
            row["id"] = own
        rows.append(row)
    table = {name: [None if value == "" else value for value in values] for name, values in _columns(rows).items()}
    if ids := chosen_ids(table, subject, options.id_property):
        return ids
    if not are_positions and all(isinstance(number, int) and not isinstance(number, bool) for number in numbers):
        return [str(number) for number in numbers]
    return [None] * len(members)


def _properties(member: Mapping[str, Any]) -> Mapping[str, object]:
    properties = member.get("properties")
    return properties if isinstance(properties, Mapping) else {}


def _columns(rows: Sequence[Mapping[str, object]]) -> dict[str, list[object]]:
    return {str(name): [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)}


def _geometry(content: object, subject: str, number: int) -> "BaseGeometry | None":
    if content is None:
        return None
    import shapely

    try:
        return shapely.geometry.shape(content)  # type: ignore[arg-type]
    except Exception as error:  # noqa: BLE001  shapely raises errors of many kinds for malformed content
        problem = f"feature {number} has a geometry that cannot be read ({type(error).__name__}: {error})"
        raise AOIError(subject, problem, "Correct it") from None


def _crs_name(content: Mapping[str, Any], subject: str) -> "str | CRS | None":
    """Return the name of the CRS in the member `crs`, which GeoJSON had before RFC 7946."""
    member = content.get("crs")
    if member is None:
        return None
    properties = member.get("properties") if isinstance(member, Mapping) else None
    name = properties.get("name") if isinstance(properties, Mapping) else None
    if not isinstance(name, str):
        raise AOIError(subject, "has a member crs that is not a name", "Remove it, or write a name as EPSG:N")
    return name
