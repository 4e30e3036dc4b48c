"""Read the properties of a scene from its item. Items may come from any catalogue."""

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import pystac

from s2cube.errors import SceneError, SliceError
from s2cube.sentinel2 import BAND_ASSETS, LAYER_ASSETS
from s2cube.stac.members import (
    REMEDY,
    as_scene_errors,
    check_readable,
    parse_geometry,
    parse_number,
    parse_text,
    parse_time,
    parse_whole_number,
    read_member,
)

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry


_BASELINES = ("s2:processing_baseline", "processing:version", "sentinel:processing_baseline")
_TILES = ("grid:code", "s2:mgrs_tile")
_OLD_TILE = ("sentinel:utm_zone", "sentinel:latitude_band", "sentinel:grid_square")
_DATATAKES = ("s2:datatake_id", "eopf:datatake_id")
_DATASTRIPS = ("s2:datastrip_id", "eopf:datastrip_id")
_GENERATED = ("s2:generation_time", "processing:datetime", "updated")
"""Names of properties. The first property that an item has is used. The names come from the Sentinel-2, processing and
grid extensions, from EOPF, and from Earth Search v0 (sentinel:…). Add the names of other catalogues here."""

_BASELINE = re.compile(r"(\d{1,2})\.(\d{1,2})")
_BASELINE_SUFFIX = re.compile(r"_N\d\d\.\d\d$")
_SENSING_START = re.compile(r"_S(\d{8}T\d{6})")
_BASELINE_WITHOUT_MEANING = 99
"""ESA uses 99.xx for tests and for any reprocessing."""
_PLATFORM = re.compile(r"sentinel-?2([a-d])|s2([a-d])", re.IGNORECASE)
_EPSG = re.compile(r"EPSG:(\d{4,6})")

UNKNOWN_TIME = datetime.max.replace(tzinfo=UTC)
"""Time of a scene whose time is unknown. It is the latest, so that a limit to the newest scenes does not remove it."""


def identity(item: pystac.Item) -> str:
    """Return a key that is equal for the same scene in two answers. Two different scenes may share an id."""
    return repr((item.id, item.properties.get("datetime"), item.bbox))


def acquired(item: pystac.Item) -> datetime:
    """Return the time of acquisition of a scene, UTC.

    Raises
    ------
    SceneError
        If the item does not have it.
    """
    check_readable(item, "datetime", "properties")
    when = read_member(item, {"datetime": item.datetime}, "datetime", parse_time)
    when = when or read_member(item, item.properties, "start_datetime", parse_time)
    if when is None:
        raise SceneError(item.id, "has no datetime", REMEDY)
    return when


def sort_key(item: pystac.Item) -> tuple[datetime, str]:
    """Return time and id, the sort key of scenes; see `UNKNOWN_TIME`."""
    try:
        return acquired(item), item.id
    except SliceError:
        return UNKNOWN_TIME, item.id


def footprint(item: pystac.Item) -> "BaseGeometry":
    """Return the footprint of a scene: degrees, longitude first, valid, cut at the antimeridian.

    Raises
    ------
    SceneError
        If the item has no footprint, or the footprint is invalid.
    """
    import shapely

    from s2cube.area.antimeridian import split, unwrap

    check_readable(item, "geometry")
    if item.geometry is None:
        raise SceneError(item.id, "has no geometry", REMEDY)
    with as_scene_errors(item):
        return split(shapely.make_valid(unwrap(parse_geometry(item.geometry))))


def item_href(item: pystac.Item) -> str | None:
    """Return the address of an item without user name, password, signature or token; None without a link ``self``."""
    own = item.get_self_href()
    if own is None or "://" not in own:
        return own
    parts = urlsplit(own)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def baseline(item: pystac.Item) -> tuple[int, int] | None:
    """Return the processing baseline of a scene, such as (4, 0) for 04.00; None if it is missing or 99.xx.

    ESA uses baselines 99.xx for tests and for any reprocessing, so they contain no information about the pixels.

    Raises
    ------
    SceneError
        If the baseline is neither text nor a number.
    """
    match = _BASELINE.fullmatch(baseline_text(item))
    if match is None or int(match[1]) == _BASELINE_WITHOUT_MEANING:
        return None
    return int(match[1]), int(match[2])


def baseline_text(item: pystac.Item) -> str:
    """Return the processing baseline of a scene as the item writes it; empty if the item does not have it."""
    return _first_property(item, _BASELINES).strip()


def cloud_cover(item: pystac.Item) -> float | None:
    """Return the cloud cover of a scene, percent; None if the item does not have a number."""
    try:
        return read_member(item, item.properties, "eo:cloud_cover", parse_number)
    except SceneError:
        return None


def tile(item: pystac.Item) -> str:
    """Return the MGRS tile of a scene, such as 33TWM; empty if the item does not have it.

    Raises
    ------
    SceneError
        If a property is neither text nor a number.
    """
    parts = [_first_property(item, (name,)) for name in _OLD_TILE]
    return _first_property(item, _TILES).removeprefix("MGRS-") or ("".join(parts) if all(parts) else "")


def granule(item: pystac.Item) -> tuple[str, str, str] | None:
    """Return the datatake, the start of the datastrip and the MGRS tile of a scene; None if they are missing.

    They are the same for every processing of a granule. The last part of a datatake id, such as
    GS2A_20231008T175231_043324_N05.09, is the baseline and is removed. The only part used of a datastrip id, such as
    S2A_OPER_MSI_L2A_DS_2APS_20231008T233154_S20231008T175927_N05.09, is the start of sensing. It is needed because two
    datastrips of one datatake may contain the same tile. These are different granules.

    Raises
    ------
    SceneError
        If a property is neither text nor a number.
    """
    datatake = _first_property(item, _DATATAKES)
    if not tile(item) or not datatake:
        return None
    strip = _SENSING_START.search(_first_property(item, _DATASTRIPS))
    return _BASELINE_SUFFIX.sub("", datatake), strip[1] if strip else "", tile(item)


def name_of_granule(item: pystac.Item) -> tuple[str, str, str] | None:
    """Return what `granule` does; None also if a property is not valid."""
    try:
        return granule(item)
    except SceneError:
        return None


def view(item: pystac.Item) -> tuple[str, str, str] | None:
    """Return the satellite (a to d), the MGRS tile and the day in UTC of a scene; None if a fact is missing or invalid.

    A satellite sees a tile once in a day, except near the poles.
    """
    try:
        satellite = _PLATFORM.search(_first_property(item, ("platform",)) or item.id)
        if not satellite or not tile(item):
            return None
        return (satellite[1] or satellite[2]).lower(), tile(item), f"{acquired(item):%Y%m%d}"
    except SceneError:
        return None


def baseline_of(item: pystac.Item) -> tuple[int, int]:
    """Return the processing baseline of a scene; 0.0 if it is not known or not valid."""
    try:
        return baseline(item) or (0, 0)
    except SceneError:
        return 0, 0


def processed(item: pystac.Item) -> tuple[tuple[int, int], str]:
    """Return baseline and time of processing, the sort key of the processings of a granule. The newest is the greatest.

    Raises
    ------
    SceneError
        If a property is neither text nor a number.
    """
    return baseline(item) or (0, 0), _first_property(item, _GENERATED)


def crs_codes(item: pystac.Item) -> set[str]:
    """Return all CRS that a scene declares for its bands and layers, as ``EPSG:N``. More than one is a contradiction.

    Earth Search, Planetary Computer and Digital Earth Africa declare ``proj:epsg`` of the item, Copernicus Data Space
    ``proj:code`` of each asset. They also declare the shape and transform of assets, but s2cube uses those of the file.

    Raises
    ------
    SceneError
        If a declared CRS is not an EPSG code.
    """
    keys = {key for names in (*BAND_ASSETS.values(), *LAYER_ASSETS.values()) for key in names}
    of_assets = [asset.extra_fields for key, asset in item.assets.items() if key in keys]
    return {code for fields in (item.properties, *of_assets) for code in _crs_codes(item, fields)}


def crs_code(item: pystac.Item) -> str | None:
    """Return the CRS that a scene declares, ``EPSG:N``; None if it declares no CRS.

    Raises
    ------
    SceneError
        If the item declares two CRS, or a CRS that is not an EPSG code.
    """
    codes = crs_codes(item)
    if len(codes) > 1:
        problem = f"declares two projections: {' and '.join(sorted(codes))}"
        raise SceneError(item.id, problem, "Report it to the operator of the catalogue")
    return next(iter(codes), None)


def _crs_codes(item: pystac.Item, fields: dict[str, Any]) -> set[str]:
    epsg = read_member(item, fields, "proj:epsg", parse_whole_number)
    code = read_member(item, fields, "proj:code", _parse_epsg_code)
    return {each for each in (code, f"EPSG:{epsg}" if epsg else None) if each}


def _parse_epsg_code(value: object) -> str:
    code = parse_text(value).strip().upper()
    if not _EPSG.fullmatch(code):
        raise ValueError("an EPSG code")
    return code


def _first_property(item: pystac.Item, names: tuple[str, ...]) -> str:
    """Return the first property that is present and not empty, as text; else an empty text."""
    found: list[Any] = [read_member(item, item.properties, name, parse_text) for name in names]
    return next((each for each in found if each), "")
