"""Read features from a vector file."""

import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s2cube.area._geojson_file import plain_features
from s2cube.area.features import ID_COLUMNS, Features, Options, chosen_ids, names_of_file
from s2cube.errors import AOIError

if TYPE_CHECKING:
    import geopandas
    import pandas
    from odc.geo.crs import CRS

log = logging.getLogger(__name__)

_GEOJSON = (".geojson", ".json")
_PARQUET = (".parquet", ".geoparquet")
_ONE_LAYER = (*_GEOJSON, *_PARQUET, ".shp", ".fgb", ".geojsonl")
_KML = (".kml", ".kmz")
_KML_COLUMNS = ("Name", *ID_COLUMNS)
"""In KML, a program that saves a file generates the id of a feature. Its name is what people see."""

_FORMATS = "Use GeoJSON, GeoPackage, a shapefile or the like"


def read_file(path: Path, options: Options) -> Features:
    """Read every feature of a vector file.

    Raises
    ------
    AOIError
        If the file cannot be read, has no features or no CRS, or has several layers with polygons and none is chosen.
    """
    if (features := plain_features(path, options)) is not None:
        return features
    layer = _layer(path, options.layer)
    frame = _read(path, layer)
    check_count(str(path), len(frame))
    columns = _KML_COLUMNS if path.suffix.lower() in _KML else ID_COLUMNS
    ids = chosen_ids(table_of(frame), str(path), options.id_property, columns) or _ids_without_property(frame, path)
    crs = crs_in_file(str(path), frame, options)
    return Features(str(path), ids, frame.geometry.to_numpy(), crs, properties_of(frame))


def check_count(subject: str, count: int) -> None:
    """Check that a file has features.

    Raises
    ------
    AOIError
        If it has none.
    """
    if count == 0:
        raise AOIError(subject, "contains no features", "Draw at least one polygon")


def crs_in_file(subject: str, frame: "geopandas.GeoDataFrame", options: Options) -> "CRS | None":
    """Return the CRS of the features of a file.

    Raises
    ------
    AOIError
        If the file has none and none is given, or if it has another than is given.
    """
    if frame.crs is None and options.crs is None:
        raise AOIError(subject, "has no CRS", "Save it with a CRS (a shapefile needs its .prj file)")
    return options.crs_of(subject, crs_of(frame))


def properties_of(frame: "geopandas.GeoDataFrame") -> "dict[str, pandas.Series[Any]]":
    """Return the properties of a frame by name. If two have the same name, the first is returned."""
    found: dict[str, pandas.Series[Any]] = {}
    for position, name in enumerate(frame.columns):
        if name != frame.geometry.name:
            found.setdefault(str(name), frame.iloc[:, position])
    return found


def table_of(frame: "geopandas.GeoDataFrame") -> dict[str, list[object]]:
    """Return the properties of a frame by name. Missing values are None, also empty texts."""
    return {
        name: [
            None if missing or (isinstance(value, str) and not value) else value
            for value, missing in zip(column, column.isna(), strict=True)
        ]
        for name, column in properties_of(frame).items()
    }


def crs_of(frame: "geopandas.GeoDataFrame | geopandas.GeoSeries") -> "CRS | None":
    """Return the CRS of a frame as odc-geo's; None if it has none."""
    from odc.geo.crs import CRS

    return None if frame.crs is None else CRS(frame.crs)


def _ids_without_property(frame: "geopandas.GeoDataFrame", path: Path) -> list[str]:
    if path.suffix in _GEOJSON and list(frame.index) != list(range(len(frame))):
        # GDAL uses the numeric ids of features as the index.
        return [str(number) for number in frame.index]
    return names_of_file(path, len(frame))


def _layer(path: Path, chosen: str | int | None) -> str | None:
    """Return the layer to read; None for the only layer of a file."""
    if chosen is None and path.suffix.lower() in _ONE_LAYER:
        return None
    if path.suffix.lower() in _PARQUET:
        raise AOIError(str(path), f"has no layer '{chosen}': GeoParquet has no layers", "Leave out --aoi-layer (layer)")
    import geopandas

    try:
        layers = geopandas.list_layers(path)
    except Exception as error:  # noqa: BLE001  every driver has errors of its own
        raise unreadable(path, error) from None
    names = [str(name) for name in layers["name"]]
    if chosen is not None:
        position = chosen if isinstance(chosen, int) and not isinstance(chosen, bool) else None
        if position is not None and position in range(len(names)):
            return names[position]
        if chosen not in names:
            raise AOIError(str(path), f"has no layer '{chosen}'", f"Its layers: {', '.join(names) or 'none'}")
        return str(chosen)
    if len(names) == 1:
        return names[0]
    with_polygons = [
        name for name, kind in zip(names, layers["geometry_type"], strict=True) if _has_polygons(path, name, kind)
    ]
    if len(with_polygons) == 1:
        return with_polygons[0]
    if not with_polygons:
        raise AOIError(str(path), f"has no layer with polygons (layers: {', '.join(names)})", "Draw a polygon")
    problem = f"has several layers with polygons: {', '.join(with_polygons)}"
    raise AOIError(str(path), problem, "Choose one of them by --aoi-layer (layer in Python)")


def _has_polygons(path: Path, layer: str, kind: str | None) -> bool:
    if kind is None:
        return False
    if not kind.startswith(("Unknown", "Geometry")):
        return "Polygon" in kind or "Surface" in kind
    # The layers of KML, for example, do not declare the kind of their geometries.
    kinds = _read(path, layer, columns=[]).geometry.geom_type
    return bool(kinds.isin(["Polygon", "MultiPolygon"]).any())


def _read(path: Path, layer: str | None, **options: Any) -> "geopandas.GeoDataFrame":
    import geopandas

    if layer is not None:
        options["layer"] = layer
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            if path.suffix.lower() in _PARQUET:
                frame = geopandas.read_parquet(path)
            else:
                frame = geopandas.read_file(path, fid_as_index=True, **options)
    except Exception as error:  # noqa: BLE001  every driver has errors of its own
        raise unreadable(path, error) from None
    for warning in warned:
        log.warning("%s: %s", path, warning.message)
    if not isinstance(frame, geopandas.GeoDataFrame):
        raise AOIError(str(path), "contains no geometries", "Use a file with polygons")
    return frame


def unreadable(subject: object, error: Exception) -> AOIError:
    """Return the error about a file that a library cannot read."""
    # GDAL's advice after the semicolon is to name a driver, which s2cube does not take.
    reason = str(error).partition(";")[0]
    return AOIError(str(subject), f"cannot be read as a vector file ({reason})", _FORMATS)
