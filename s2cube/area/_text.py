"""Areas of interest that are written as text: a file and its layer, a box of degrees, WKT or GeoJSON."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s2cube.area.features import Options, parse_crs
from s2cube.config.paths import expand_user
from s2cube.errors import AOIError

if TYPE_CHECKING:
    from odc.geo.crs import CRS
    from shapely.geometry.base import BaseGeometry

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_NUMBERS = re.compile(rf"\s*{_NUMBER}(?:\s*,\s*{_NUMBER})+\s*")
_WKT = re.compile(
    r"\s*(?:SRID=(?P<srid>\d{1,7})\s*;)?\s*(?P<wkt>(?:POINT|(?:MULTI)?(?:LINESTRING|POLYGON|CURVE|SURFACE|POINT)"
    r"|GEOMETRYCOLLECTION|CURVEPOLYGON|TRIANGLE|TIN|LINEARRING)\s*(?:ZM|Z|M)?\s*(?:\(.*|EMPTY\s*))",
    re.IGNORECASE | re.DOTALL,
)
_SUFFIXES = (".geojson", ".json", ".gpkg", ".shp", ".kml", ".kmz", ".fgb", ".parquet", ".gml", ".zip")
_MOST_NAMES = 5
_BOX_REMEDY = "Write west,south,east,north in degrees"


def parse_text(text: str, options: Options) -> "tuple[Path | Mapping[str, Any] | BaseGeometry, Options]":
    """Read a text: return the path of a file, a GeoJSON object or a geometry, and the options with its layer or CRS.

    A file of this name precedes all other readings of the text.

    Raises
    ------
    AOIError
        If the text is none of these.
    """
    path = expand_user(Path(text))
    if text and exists(path):
        return path, options
    if not text.strip():
        raise AOIError("the area of interest", "is an empty text", "Name a file, west,south,east,north, or WKT")
    if text.lstrip().startswith("{"):
        return _geojson(text), options
    if _NUMBERS.fullmatch(text):
        return box([float(number) for number in text.split(",")], f"the box {text.strip()}", options.crs), options
    if found := _WKT.fullmatch(text):
        return _from_wkt(found, options)
    if "|" in text:
        return _layer_of_file(text, options)
    if "://" in text:
        raise AOIError(text, "is an address, and areas are read from files of this machine", "Download the file")
    raise missing_file(path)


def box(numbers: Sequence[float], subject: str, crs: "CRS | None") -> "BaseGeometry":
    """Return a box (west, south, east, north) as a polygon. If west is greater than east, it crosses the antimeridian.

    Parameters
    ----------
    crs
        CRS of the numbers; None: degrees.

    Raises
    ------
    AOIError
        If the numbers are not a box, or are not degrees although the CRS is.
    """
    import shapely

    if len(numbers) != 4 or not all(map(math.isfinite, numbers)):
        raise AOIError(subject, "is not a box of 4 numbers", _BOX_REMEDY)
    west, south, east, north = map(float, numbers)
    if south >= north or west == east:
        raise AOIError(subject, "has no area: its south is not less than its north, or west equals east", _BOX_REMEDY)
    if crs is None or crs.geographic:
        if max(abs(south), abs(north)) > 90 or max(abs(west), abs(east)) > 360:
            raise AOIError(subject, "has numbers that are not degrees", f"{_BOX_REMEDY}, or give their CRS")
        if west > east:
            east += 360
            if east - west > 180:
                problem = "spans more than half the globe: its west is east of its east, so it crosses the antimeridian"
                raise AOIError(subject, problem, _BOX_REMEDY)
    elif west > east:
        raise AOIError(subject, "has a first x that is greater than its last x", "Write xmin,ymin,xmax,ymax")
    return shapely.box(west, south, east, north)


def exists(path: Path) -> bool:
    """Return whether a file exists. The name may be too long for a file, because it is WKT."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def missing_file(path: Path) -> AOIError:
    """Return the error about a file that does not exist. It names what the folder has instead."""
    folder = path.parent
    if not exists(folder):
        return AOIError(str(path), "there is no such file", f"There is no folder {folder}, either. Check the path")
    try:
        names = sorted(each.name for each in folder.iterdir() if each.suffix.lower() in _SUFFIXES)
    except OSError:
        names = []
    more = " …" if len(names) > _MOST_NAMES else ""
    others = f". In this folder: {', '.join(names[:_MOST_NAMES])}{more}" if names else ""
    return AOIError(str(path), "there is no such file", f"Check the path{others}")


def _geojson(text: str) -> Mapping[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise AOIError("the GeoJSON text", f"cannot be read ({error})", "Correct it") from None
    return content if isinstance(content, dict) else {}


def _from_wkt(found: re.Match[str], options: Options) -> "tuple[BaseGeometry, Options]":
    import shapely

    try:
        geometry = shapely.from_wkt(found["wkt"])
    except (shapely.errors.ShapelyError, ValueError, TypeError) as error:
        raise AOIError("the WKT text", f"cannot be read ({error})", "Correct it") from None
    if found["srid"] is None:
        return geometry, options
    crs = parse_crs(f"EPSG:{found['srid']}")
    return geometry, replace(options, crs=options.crs_of("the WKT text", crs))


def _layer_of_file(text: str, options: Options) -> tuple[Path, Options]:
    """Read the notation of QGIS: ``FILE|layername=NAME`` or ``FILE|layerid=NUMBER``."""
    name, *parts = text.split("|")
    layer: str | int | None = None
    for part in parts:
        key, _, value = part.partition("=")
        match key.strip().lower():
            case "layername" if value:
                layer = value
            case "layerid" if value.isdecimal():
                layer = int(value)
            case "geometrytype":
                pass
            case _:
                problem = f"has the option '{part}', which s2cube does not read"
                raise AOIError(text, problem, "Write FILE|layername=NAME. Save a selection as a file of its own")
    if options.layer is not None and layer is not None and options.layer != layer:
        raise AOIError(text, f"names another layer than --aoi-layer, '{options.layer}'", "Name one of them")
    path = expand_user(Path(name))
    if not exists(path):
        raise missing_file(path)
    return path, replace(options, layer=options.layer if layer is None else layer)
