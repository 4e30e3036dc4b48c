"""Read areas of interest from files, and from what Python has."""

import sys
from collections.abc import Iterable, Iterator, Mapping
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeGuard

from s2cube.area._geojson import geojson_features
from s2cube.area._text import box, exists, missing_file, parse_text
from s2cube.area.aoi import AOI
from s2cube.area.features import Features, Options, chosen_ids, make_aois, parse_crs
from s2cube.area.vector_file import crs_of, properties_of, read_file, table_of
from s2cube.config.paths import expand_user
from s2cube.config.sections import JobSection
from s2cube.errors import AOIError

if TYPE_CHECKING:
    import geopandas
    import numpy as np
    import pandas
    from odc.geo.geom import Geometry
    from shapely.geometry.base import BaseGeometry

    class GeoInterface(Protocol):
        """An object of any library that describes itself as GeoJSON."""

        @property
        def __geo_interface__(self) -> Mapping[str, Any]: ...

    OneArea: TypeAlias = (
        str | Path | AOI | Geometry | BaseGeometry | geopandas.GeoDataFrame | geopandas.GeoSeries | GeoInterface
        | Mapping[str, Any] | Iterable[float]
    )  # fmt: skip
    AreaLike: TypeAlias = OneArea | Iterable[OneArea]

_TAKEN = (
    "Give a path, a GeoDataFrame or GeoSeries, a shapely or odc-geo geometry, GeoJSON, a box of degrees (west, south, "
    "east, north), WKT, an AOI, or a list of these"
)
_MOST_DEPTH = 3
"""Maximum number of lists in lists. A list may contain itself."""

_MOST_IDS = 5
_NO_NAMES = (None, "", "geometry")
"""Names of a GeoSeries that say nothing about its areas."""


def read_aois(
    area: "AreaLike", id_property: str | None = None, *, crs: object = None, layer: str | int | None = None
) -> tuple[AOI, ...]:
    """Read one or several areas of interest from a file, or from what Python has.

    A feature may cross the antimeridian, in any usual notation.

    Parameters
    ----------
    area
        One of these, or a list of these: a path of a vector file in any format that geopandas can read, also
        ``file.gpkg|layername=b``; a GeoDataFrame or GeoSeries; a geometry of shapely or odc-geo; GeoJSON (geometry,
        Feature, FeatureCollection) as a dict or text; an object with `__geo_interface__`; a box of degrees, 4 numbers
        or the text ``west,south,east,north``, which crosses the antimeridian if west is greater than east; WKT; an
        `AOI`.
    id_property
        Property or column with the id. Default: `id`, else `name` (in KML `Name` precedes both). Without them: the
        index or the name of a GeoSeries or GeoDataFrame; for a file its name; else ``area``. Areas of the same name get
        a number. Ids are converted to safe file names.
    crs
        CRS of geometries that have none of their own, such as those of shapely, in any notation of PROJ. Default:
        degrees, longitude first (EPSG:4326). Files, GeoDataFrames and GeoSeries must have a CRS, or get this one.
    layer
        Name or number of the layer of a file. Default: the only layer with polygons.

    Returns
    -------
    tuple of AOI
        In the order of the file or list.

    Raises
    ------
    AOIError
        If the area is none of these, or if a file cannot be read, or has no features or no CRS, or has several layers
        with polygons. If a geometry is missing, empty, invalid or not a polygon, extends over more than 180 degrees of
        longitude, or contains a pole. If two ids result in the same file name.

    Examples
    --------
    The files are those of the command ``s2cube demo``.

    >>> import s2cube
    >>> [aoi.id for aoi in s2cube.read_aois("s2cube-demo/archive/aoi.geojson")]
    ['farm']
    >>> [aoi.bounds_lonlat for aoi in s2cube.read_aois([(179.9, -17, -179.9, -16.9), (10, 50, 10.1, 50.1)])]
    [(179.9, -17.0, -179.9, -16.9), (10.0, 50.0, 10.1, 50.1)]
    """
    return make_aois(read_features(area, id_property, crs=crs, layer=layer))


def read_features(
    area: "AreaLike", id_property: str | None = None, *, crs: object = None, layer: str | int | None = None
) -> list[Features]:
    """Read areas as features: with their properties, and before their geometries and ids are checked.

    Parameters
    ----------
    area, id_property, crs, layer
        As in `read_aois`.

    Returns
    -------
    list of Features
        The features of each file, table or object. Each has at least one feature.

    Raises
    ------
    AOIError
        If the area is none of the things that `read_aois` reads, or cannot be read.
    """
    features = list(_features(area, Options(id_property, layer, parse_crs(crs))))
    if not features:
        raise AOIError("the area of interest", "is an empty list", _TAKEN)
    return features


def read_aoi(
    area: "AreaLike", id_property: str | None = None, *, crs: object = None, layer: str | int | None = None
) -> AOI:
    """Read one area of interest from a file that contains one feature, or from what Python has.

    Parameters
    ----------
    area, id_property, crs, layer
        As in `read_aois`.

    Returns
    -------
    AOI
        Area of interest with its id and its geometry.

    Raises
    ------
    AOIError
        As in `read_aois`, and if there are several areas.

    Examples
    --------
    The files are those of the command ``s2cube demo``.

    >>> import s2cube
    >>> aoi = s2cube.read_aoi("s2cube-demo/archive/aoi.geojson")
    >>> aoi.id, [round(degrees, 2) for degrees in aoi.bounds_lonlat]
    ('farm', [-98.25, 41.08, -98.14, 41.13])
    """
    aois = read_aois(area, id_property, crs=crs, layer=layer)
    if len(aois) > 1:
        subject = str(area) if isinstance(area, str | Path) else "the area of interest"
        ids = ", ".join(aoi.id for aoi in aois[:_MOST_IDS]) + (" …" if len(aois) > _MOST_IDS else "")
        problem = f"contains {len(aois)} features, not one: {ids}"
        raise AOIError(subject, problem, "Read them with s2cube.read_aois, and use one at a time")
    return aois[0]


def named_area(job: JobSection) -> Path | str:
    """Return the file or text that the settings name. It is an AOIError to name none without the default file."""
    if "aoi" not in job.model_fields_set and not Path(job.aoi).exists():
        remedy = "Name your area by --aoi: a vector file, west,south,east,north in degrees, or WKT"
        raise AOIError("the area of interest", f"is not named, and there is no file {job.aoi}", remedy)
    return job.aoi


def areas_of_job(job: JobSection) -> tuple[AOI, ...]:
    """Read the areas of interest that the settings name.

    Raises
    ------
    AOIError
        As in `read_aois` and `named_area`.
    """
    return read_aois(named_area(job), job.aoi_id, layer=job.aoi_layer)


def _features(area: object, options: Options, where: str = "", depth: int = 0) -> Iterator[Features]:
    """Yield the features of anything that is an area.

    Parameters
    ----------
    where
        Position in a list, for errors; empty if it is not in a list.
    depth
        Number of lists that contain the area.
    """
    from odc.geo.geom import BoundingBox, Geometry
    from shapely.geometry.base import BaseGeometry

    if isinstance(area, str):
        area, options = parse_text(area, options)
    subject = f"{type(area).__name__} {where} of the list" if where else f"the {type(area).__name__}"
    if isinstance(area, Path):
        path = expand_user(area)
        if not exists(path):
            raise missing_file(path)
        yield read_file(path, options)
    elif isinstance(area, AOI):
        yield Features(subject, [area.id], [area.geometry.geom], area.geometry.crs)
    elif isinstance(area, Geometry | BoundingBox | BaseGeometry):
        options.check_unused(subject, f"a {type(area).__name__}")
        geometry = area.polygon if isinstance(area, BoundingBox) else area
        own = geometry.crs if isinstance(geometry, Geometry) else None
        shape = geometry.geom if isinstance(geometry, Geometry) else geometry
        yield Features(subject, [None], [shape], options.crs_of(subject, own))
    elif _is_of_geopandas(area):
        yield _of_geopandas(area, subject, options)
    elif content := _geojson_of(area):
        options.check_no_layer(subject, "GeoJSON")
        yield geojson_features(content, subject, options)
    elif numbers := _numbers_of(area):
        options.check_unused(subject, "a box")
        shape = box(numbers, f"box {where} of the list" if where else f"the box {numbers}", options.crs)
        yield Features(subject, [None], [shape], options.crs)
    else:
        for position, each in enumerate(_list_of(area, where, depth), start=1):
            yield from _features(each, options, f"{where}{',' if where else ''}{position}", depth + 1)


def _is_of_geopandas(area: object) -> bool:
    # Importing geopandas takes a second. A value of its types exists only if it is imported.
    geopandas = sys.modules.get("geopandas")
    return geopandas is not None and isinstance(
        area, geopandas.GeoDataFrame | geopandas.GeoSeries | geopandas.array.GeometryArray
    )


def _of_geopandas(area: Any, subject: str, options: Options) -> Features:
    import geopandas

    options.check_no_layer(subject, "a table")
    series: Any = geopandas.GeoSeries(area) if isinstance(area, geopandas.array.GeometryArray) else area
    ids: list[str] | None = None
    properties: Mapping[str, pandas.Series[Any]] = {}
    if isinstance(area, geopandas.GeoDataFrame):
        if area.active_geometry_name is None:
            raise AOIError(subject, "has no geometry column", "Set it by set_geometry")
        series = area.geometry
        ids = chosen_ids(table_of(area), subject, options.id_property)
        properties = properties_of(area)
    else:
        options.check_unused(subject, f"a {type(area).__name__}")
    if len(series) == 0:
        raise AOIError(subject, "contains no features", "Check how it was selected")
    if series.crs is None and options.crs is None:
        raise AOIError(subject, "has no CRS", "Set it by set_crs, for example set_crs('EPSG:4326') for degrees")
    crs = options.crs_of(subject, crs_of(series))
    names = ids or _labels(series, None if isinstance(area, geopandas.GeoDataFrame) else series.name)
    return Features(subject, names, series.to_numpy(), crs, properties)


def _labels(series: "geopandas.GeoSeries", series_name: object) -> list[str | None]:
    """Return ids of areas that no column names: the labels of the index, or the name of the series and a number."""
    labels = series.index.tolist()
    if series.index.name is not None or labels != list(range(len(labels))):
        return ["-".join(map(str, label)) if isinstance(label, tuple) else str(label) for label in labels]
    if series_name in _NO_NAMES:
        return [None] * len(labels)
    return [str(series_name)] if len(labels) == 1 else [f"{series_name}_{label + 1}" for label in labels]


def _geojson_of(area: object) -> Mapping[str, Any] | None:
    """Return GeoJSON as a mapping; None if the area is not GeoJSON."""
    if isinstance(area, Mapping):
        return area or {"type": None}
    content = None if isinstance(area, type) else getattr(area, "__geo_interface__", None)
    return content if isinstance(content, Mapping) else None


def _numbers_of(area: object) -> list[float] | None:
    """Return the numbers of a box; None if the area is not a list of numbers."""
    values = area.tolist() if _is_numpy_array(area) else area
    if not isinstance(values, list | tuple) or not values:
        return None
    return list(values) if all(isinstance(each, Real) and not isinstance(each, bool) for each in values) else None


def _is_numpy_array(area: object) -> "TypeGuard[np.ndarray]":
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(area, numpy.ndarray)


def _list_of(area: object, where: str, depth: int) -> Iterable[object]:
    """Return the elements of a list.

    Raises
    ------
    AOIError
        If the area is not a list.
    """
    elements: object = list(area) if _is_numpy_array(area) and area.ndim else area
    if isinstance(elements, list | tuple | set | frozenset | Iterator) and depth < _MOST_DEPTH:
        return elements
    given = "None" if area is None else f"of the type {type(area).__name__}, which is not an area of interest"
    raise AOIError(f"area {where} of the list" if where else "the area of interest", f"is {given}", _TAKEN)
