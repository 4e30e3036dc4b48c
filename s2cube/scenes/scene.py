"""What the item of a scene says of it, alike in every catalogue."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import pystac

from s2cube.errors import SceneError
from s2cube.fetch.tokens import unsigned
from s2cube.stac.members import UNREADABLE, check_geometry, guarded, instant, number, read, shown, text

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry


_BASELINES = ("s2:processing_baseline", "processing:version", "sentinel:processing_baseline")
_TILES = ("grid:code", "s2:mgrs_tile")
_OLD_TILE = ("sentinel:utm_zone", "sentinel:latitude_band", "sentinel:grid_square")
_DATATAKES = ("s2:datatake_id", "eopf:datatake_id")
_DATASTRIPS = ("s2:datastrip_id", "eopf:datastrip_id")
_GENERATED = ("s2:generation_time", "processing:datetime", "updated")
"""Names of properties; the first one present counts: of the Sentinel-2, processing and grid extensions, of EOPF, and
of Earth Search v0 (sentinel:…)."""

_BASELINE = re.compile(r"(\d{1,2})\.(\d{1,2})")
_BASELINE_SUFFIX = re.compile(r"_N\d\d\.\d\d$")
_SENSING_START = re.compile(r"_S(\d{8}T\d{6})")
_BASELINES_OF_NO_FIXED_KIND = 99
"""ESA gives 99.xx to tests and reprocessings of any kind."""


def acquired(item: pystac.Item) -> datetime:
    """Give the acquisition of a scene, UTC.

    Raises
    ------
    SceneError
        If the item does not say it.
    """
    check_readable(item, "datetime", "properties")
    when = read(item, {"datetime": item.datetime}, "datetime", instant)
    when = when or read(item, item.properties, "start_datetime", instant)
    if when is None:
        raise SceneError(item.id, "has no datetime", "Leave it out, or report it to the operator of the catalogue")
    return when


def check_readable(item: pystac.Item, *members: str) -> None:
    """Check that some members could be read when the item was made; without names, all except those of assets.

    Raises
    ------
    SceneError
        If one could not.
    """
    unreadable = item.properties.get(UNREADABLE) or {}
    if not isinstance(unreadable, Mapping):
        unreadable = {UNREADABLE: shown(unreadable)}
    for name, value in unreadable.items():
        if name in members or (not members and not name.startswith("assets.")):
            remedy = "Leave the scene out, or report it to the operator of the catalogue"
            raise SceneError(item.id, f"has {name} {value}, which cannot be understood", remedy)


def footprint(item: pystac.Item) -> "BaseGeometry":
    """Give the footprint of a scene: degrees, longitude first, valid, cut at the antimeridian.

    Raises
    ------
    SceneError
        If the item has none, or it cannot be understood.
    """
    import shapely

    from s2cube.area.antimeridian import split, unwrap

    check_readable(item, "geometry")
    if item.geometry is None:
        raise SceneError(item.id, "has no geometry", "Leave it out, or report it to the operator of the catalogue")
    with guarded(item):
        return split(shapely.make_valid(unwrap(check_geometry(item.geometry))))


def address(item: pystac.Item) -> str | None:
    """Give the address of a scene without user name, password, signature or token; None where it has none."""
    own = item.get_self_href()
    if own is None or "://" not in own:
        return own
    parts = urlsplit(own)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def version(asset: pystac.Asset) -> str:
    """Name what a file holds: its checksum where the item tells it (file extension), else its address."""
    return str(asset.extra_fields.get("file:checksum") or unsigned(asset.href))


def baseline(item: pystac.Item) -> tuple[int, int] | None:
    """Give the processing baseline of a scene, as (4, 0) for 04.00; None if the item gives none with a meaning.

    ESA gives baselines 99.xx to tests and to reprocessings of no fixed kind, so they say nothing about the pixels.

    Raises
    ------
    SceneError
        If it is neither text nor a number.
    """
    match = _BASELINE.fullmatch(baseline_text(item))
    if match is None or int(match[1]) == _BASELINES_OF_NO_FIXED_KIND:
        return None
    return int(match[1]), int(match[2])


def baseline_text(item: pystac.Item) -> str:
    """Give the processing baseline of a scene as its item writes it; empty if it does not."""
    return _first(item, _BASELINES).strip()


def cloud_cover(item: pystac.Item) -> float | None:
    """Give the cloud cover of a scene, percent; None if the item does not give a number."""
    try:
        return read(item, item.properties, "eo:cloud_cover", number)
    except SceneError:
        return None


def tile(item: pystac.Item) -> str:
    """Give the MGRS tile of a scene, such as 33TWM; empty if the item does not give it.

    Raises
    ------
    SceneError
        If it is neither text nor a number.
    """
    parts = [_first(item, (name,)) for name in _OLD_TILE]
    return _first(item, _TILES).removeprefix("MGRS-") or ("".join(parts) if all(parts) else "")


def granule(item: pystac.Item) -> tuple[str, str, str] | None:
    """Name the datatake, datastrip and MGRS tile of a scene, alike for every processing of it.

    A datatake id reads GS2A_20231008T175231_043324_N05.09; its last part is the baseline and left out. Of a datastrip
    id, S2A_OPER_MSI_L2A_DS_2APS_20231008T233154_S20231008T175927_N05.09, only the start of sensing is taken: two
    strips of one datatake may share a tile and are no processings of each other. None where the item does not say.

    Raises
    ------
    SceneError
        If one of them is neither text nor a number.
    """
    datatake = _first(item, _DATATAKES)
    if not tile(item) or not datatake:
        return None
    strip = _SENSING_START.search(_first(item, _DATASTRIPS))
    return _BASELINE_SUFFIX.sub("", datatake), strip[1] if strip else "", tile(item)


def processed(item: pystac.Item) -> tuple[tuple[int, int], str]:
    """Order the processings of one granule: the newest has the greatest value.

    Raises
    ------
    SceneError
        If baseline or time are neither text nor numbers.
    """
    return baseline(item) or (0, 0), _first(item, _GENERATED)


def _first(item: pystac.Item, names: tuple[str, ...]) -> str:
    found: list[Any] = [read(item, item.properties, name, text) for name in names]
    return next((each for each in found if each), "")
