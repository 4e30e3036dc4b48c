"""What the item of a scene says of it, alike in every catalogue."""

import re
from datetime import UTC, datetime
from urllib.parse import urlsplit, urlunsplit

import pystac

from s2cube.errors import SearchError
from s2cube.sign import unsigned

_BASELINE_SUFFIX = re.compile(r"_N\d\d\.\d\d$")
_SENSING_START = re.compile(r"_S(\d{8}T\d{6})")


def acquired(item: pystac.Item) -> datetime:
    """Give the acquisition of a scene, UTC.

    Raises
    ------
    SearchError
        If the item does not say it.
    """
    instant = item.datetime or item.common_metadata.start_datetime
    if instant is None:
        raise SearchError(item.id, "has no datetime", "Leave it out, or tell whoever runs the catalogue")
    return instant.astimezone(UTC) if instant.tzinfo else instant.replace(tzinfo=UTC)


def address(item: pystac.Item) -> str | None:
    """Give the address of a scene without user name, password, signature or token; None where it has none."""
    own = item.get_self_href()
    if own is None:
        return None
    parts = urlsplit(own)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def version(asset: pystac.Asset) -> str:
    """Name what a file holds: its checksum where the item tells it (file extension), else its address."""
    return str(asset.extra_fields.get("file:checksum") or unsigned(asset.href))


def baseline(item: pystac.Item) -> tuple[int, int] | None:
    """Processing baseline of a scene, as (4, 0) for 04.00; None where the item does not say."""
    properties = item.properties
    text = properties.get("s2:processing_baseline") or properties.get("processing:version")
    major, _, minor = str(text or "").partition(".")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else None


def tile(item: pystac.Item) -> str:
    """Name the MGRS tile of a scene, as 32TNT; empty where the item does not say."""
    return str(item.properties.get("grid:code") or item.properties.get("s2:mgrs_tile") or "").removeprefix("MGRS-")


def granule(item: pystac.Item) -> tuple[str, str, str] | None:
    """Name the datatake, datastrip and MGRS tile of a scene, alike for every processing of it.

    A datatake id reads GS2A_20231008T175231_043324_N05.09; its last part is the baseline and left out. Of a datastrip
    id, S2A_OPER_MSI_L2A_DS_2APS_20231008T233154_S20231008T175927_N05.09, only the start of sensing is taken: two
    strips of one datatake may share a tile and are no processings of each other. None where the item does not say.
    """
    properties = item.properties
    datatake = str(properties.get("s2:datatake_id") or properties.get("eopf:datatake_id") or "")
    if not tile(item) or not datatake:
        return None
    strip = _SENSING_START.search(str(properties.get("s2:datastrip_id") or properties.get("eopf:datastrip_id") or ""))
    return _BASELINE_SUFFIX.sub("", datatake), strip[1] if strip else "", tile(item)


def processed(item: pystac.Item) -> tuple[tuple[int, int], str]:
    """Order the processings of one granule: the newest has the greatest value."""
    properties = item.properties
    when = properties.get("s2:generation_time") or properties.get("processing:datetime") or properties.get("updated")
    return baseline(item) or (0, 0), str(when or "")
