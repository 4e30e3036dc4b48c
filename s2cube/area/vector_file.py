"""Read areas of interest from a vector file."""

import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from s2cube.area.antimeridian import unwrap
from s2cube.area.aoi import AOI
from s2cube.area.names import file_name, name_key
from s2cube.errors import AOIError

if TYPE_CHECKING:
    import geopandas
    from shapely.geometry.base import BaseGeometry

log = logging.getLogger(__name__)

_ID_COLUMNS = ("id", "name")
_GEOJSON = (".geojson", ".json")


def read_aois(path: str | Path, id_property: str | None = None) -> tuple[AOI, ...]:
    """Read every feature of a vector file as one area of interest.

    A feature may cross the antimeridian, in any usual notation.

    Parameters
    ----------
    path
        File in any vector format that geopandas can read, in any CRS.
    id_property
        Property with the id. Default: `id`, else `name`, else the name of the file, with the number of the feature if
        there are several features. Ids are converted to safe file names.

    Returns
    -------
    tuple of AOI
        In the order of the file.

    Raises
    ------
    AOIError
        If the file cannot be read, or has no features or no CRS. If a geometry is missing, empty, invalid or not a
        polygon, extends over more than 180 degrees of longitude, or contains a pole. If two ids result in the same
        file name.

    Examples
    --------
    The files are those of the command ``s2cube demo``.

    >>> import s2cube
    >>> [aoi.id for aoi in s2cube.read_aois("s2cube-demo/archive/aoi.geojson")]
    ['farm']
    """
    path = Path(path)
    frame = _read_frame(path)
    ids = _ids(frame, path, id_property)
    aois = tuple(_aoi(path, name, geometry, frame) for name, geometry in zip(ids, frame.geometry, strict=True))
    seen: dict[str, str] = {}
    for raw, aoi in zip(ids, aois, strict=True):
        first_id = seen.get(name_key(aoi.id))
        if first_id is not None:
            raise AOIError(
                str(path),
                f"features '{first_id}' and '{raw}' would both be written as '{aoi.id}'",
                "Set a property with unique values by --aoi-id",
            )
        seen[name_key(aoi.id)] = raw
    return aois


def read_aoi(path: str | Path, id_property: str | None = None) -> AOI:
    """Read a vector file that contains one feature.

    Parameters
    ----------
    path, id_property
        As in `read_aois`.

    Returns
    -------
    AOI
        Area of interest with its id and its geometry.

    Raises
    ------
    AOIError
        As in `read_aois`, and if there are several features.

    Examples
    --------
    The files are those of the command ``s2cube demo``.

    >>> import s2cube
    >>> aoi = s2cube.read_aoi("s2cube-demo/archive/aoi.geojson")
    >>> aoi.id, [round(degrees, 2) for degrees in aoi.bounds_lonlat]
    ('farm', [-98.25, 41.08, -98.14, 41.13])
    """
    aois = read_aois(path, id_property)
    if len(aois) > 1:
        raise AOIError(str(path), f"contains {len(aois)} features, not one", "Read it with s2cube.read_aois")
    return aois[0]


def _read_frame(path: Path) -> "geopandas.GeoDataFrame":
    if not path.exists():
        raise AOIError(str(path), "there is no such file", "Set the file with the area of interest by --aoi")
    import geopandas

    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            if path.suffix in (".parquet", ".geoparquet"):
                frame = geopandas.read_parquet(path)
            else:
                frame = geopandas.read_file(path, fid_as_index=True)
    except Exception as error:  # noqa: BLE001  every driver has errors of its own
        raise AOIError(
            str(path), f"cannot be read as a vector file ({error})", "Use GeoJSON, GeoPackage, a shapefile or the like"
        ) from None
    for warning in warned:
        # For example, a warning that only the first layer of the file is read.
        log.warning("%s: %s", path, warning.message)
    if not isinstance(frame, geopandas.GeoDataFrame):
        raise AOIError(str(path), "contains no geometries", "Use a file with polygons")
    if frame.empty:
        raise AOIError(str(path), "contains no features", "Draw at least one polygon")
    if frame.crs is None:
        raise AOIError(str(path), "has no CRS", "Save it with a CRS (a shapefile needs its .prj file)")
    return frame


def _ids(frame: "geopandas.GeoDataFrame", path: Path, id_property: str | None) -> list[str]:
    if id_property is not None and id_property not in frame.columns:
        known = ", ".join(str(column) for column in frame.columns if column != frame.geometry.name) or "none"
        raise AOIError(str(path), f"has no property '{id_property}'", f"Its properties: {known}")
    for column in (id_property,) if id_property else _ID_COLUMNS:
        if column not in frame.columns:
            continue
        if frame[column].notna().all():
            return [str(value) for value in frame[column]]
        if id_property:
            raise AOIError(str(path), f"a feature has no '{id_property}'", "Set this property for every feature")
    if path.suffix in _GEOJSON and list(frame.index) != list(range(len(frame))):
        # GDAL uses the numeric ids of features as the index.
        return [str(number) for number in frame.index]
    if len(frame) == 1:
        return [path.stem]
    return [f"{path.stem}_{number}" for number in range(1, len(frame) + 1)]


def _aoi(path: Path, name: str, geometry: "BaseGeometry | None", frame: "geopandas.GeoDataFrame") -> AOI:
    import shapely
    from odc.geo.geom import Geometry

    subject = f"{path}, feature '{name}'"
    if geometry is None or geometry.is_empty:
        raise AOIError(subject, "has an empty geometry", "Draw its polygon or remove it")
    if not isinstance(geometry, shapely.Polygon | shapely.MultiPolygon):
        raise AOIError(subject, f"is a {geometry.geom_type}, not a polygon", "Buffer it, or draw its area")
    geometry = shapely.force_2d(geometry)
    if frame.crs is None or frame.crs.is_geographic:
        _check_degrees(subject, geometry.bounds)
        # A valid outline that crosses the antimeridian may be invalid until `unwrap` removes the jump of longitudes.
        geometry = unwrap(geometry)
    if not geometry.is_valid:
        raise AOIError(
            subject,
            f"has an invalid geometry ({shapely.is_valid_reason(geometry)})",
            "Repair it, as QGIS's 'Fix geometries' does",
        )
    aoi_id = file_name(name)
    if not aoi_id:
        raise AOIError(subject, "has an id with no letter or digit", "Set another property by --aoi-id")
    try:
        aoi = AOI(aoi_id, Geometry(geometry, frame.crs))
    except ValueError as error:
        raise AOIError(
            subject, str(error), "Draw a smaller one, and save it with the CRS in which it is drawn"
        ) from None
    west, _, east, _ = aoi.bounds_lonlat
    if west > east:
        log.info("%s crosses the antimeridian: it goes from %.6g to %.6g degrees east", aoi_id, west, east)
    return aoi


def _check_degrees(subject: str, bounds_lonlat: tuple[float, float, float, float]) -> None:
    west, south, east, north = bounds_lonlat
    if not (-360 <= west <= east <= 360 and -90 <= south <= north <= 90):
        raise AOIError(
            subject,
            f"has coordinates that are not degrees ({west:g} … {east:g} east, {south:g} … {north:g} north)",
            "They may be swapped, or in metres: save the file with longitude first, or with its own CRS",
        )
