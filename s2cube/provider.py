"""What catalogues call things, and how their pixels are scaled: a table, not code paths."""

import re
from datetime import UTC, datetime
from urllib.parse import urlsplit, urlunsplit

import pystac

from s2cube.errors import AssetMissingError, ConfigError, HarmonisationError, SearchError

BAND_ASSETS: dict[str, tuple[str, ...]] = {
    "coastal": ("coastal", "B01", "B01_60m"),
    "blue": ("blue", "B02", "B02_10m"),
    "green": ("green", "B03", "B03_10m"),
    "red": ("red", "B04", "B04_10m"),
    "rededge1": ("rededge1", "B05", "B05_20m"),
    "rededge2": ("rededge2", "B06", "B06_20m"),
    "rededge3": ("rededge3", "B07", "B07_20m"),
    "nir": ("nir", "B08", "B08_10m"),
    "nir08": ("nir08", "B8A", "B8A_20m"),
    "nir09": ("nir09", "B09", "B09_60m"),
    "swir16": ("swir16", "B11", "B11_20m"),
    "swir22": ("swir22", "B12", "B12_20m"),
}
"""Asset keys of each band: Earth Search and Digital Earth Africa, Planetary Computer, Copernicus Data Space.

Read off the items these catalogues serve.
"""

COMMON_NAMES = {band: "rededge" if band.startswith("rededge") else band for band in BAND_ASSETS}
"""The STAC eo extension's common name of each band: it has one for all three of the red edge."""

SCL_ASSETS = ("scl", "SCL", "SCL_20m")
"""Asset keys of the scene classification layer, in the same catalogues."""

SCALE = 0.0001
"""Reflectance a digital number: Sentinel-2 L2A's QUANTIFICATION_VALUE is 10000 (Products Specification Document)."""

BOA_ADD_OFFSET_DN = -1000
"""Offset of every L2A band since processing baseline 04.00 (Products Specification Document, BOA_ADD_OFFSET)."""

_BASELINE_SUFFIX = re.compile(r"_N\d\d\.\d\d$")
_SENSING_START = re.compile(r"_S(\d{8}T\d{6})")
_FIRST_BASELINE_WITH_OFFSET = (4, 0)


def canonical_bands(names: tuple[str, ...]) -> tuple[str, ...]:
    """Give the name of each band in `BAND_ASSETS`, whichever catalogue's name it was asked by.

    Raises
    ------
    ConfigError
        If a name is no band's; the message lists the known ones.
    """
    return tuple(_canonical_band(name) for name in names)


def _canonical_band(name: str) -> str:
    for band, keys in BAND_ASSETS.items():
        if name in keys:
            return band
    raise ConfigError(f"band '{name}'", "no such band", f"Known: {', '.join(BAND_ASSETS)} (or B02, B02_10m, …)")


def asset_key(item: pystac.Item, keys: tuple[str, ...]) -> str:
    """Find the first of some asset keys that an item has.

    Raises
    ------
    AssetMissingError
        If it has none.
    """
    for key in keys:
        if key in item.assets:
            return key
    otherwise = "--mask none" if keys is SCL_ASSETS else "other bands"
    raise AssetMissingError(
        item.id,
        f"has no asset '{keys[0]}' (nor {', '.join(keys[1:])})",
        f"Ask for {otherwise}; the scene has {', '.join(sorted(item.assets))}",
        keys[0],
    )


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


def crs_code(item: pystac.Item, key: str) -> str | None:
    """Give the CRS of an asset as the item declares it, ``EPSG:N``; None where it does not."""
    for fields in (item.assets[key].extra_fields, item.properties):
        if fields.get("proj:code") or fields.get("proj:epsg"):
            return str(fields.get("proj:code") or f"EPSG:{fields['proj:epsg']}")
    return None


def baseline(item: pystac.Item) -> tuple[int, int] | None:
    """Processing baseline of a scene, as (4, 0) for 04.00; None where the item does not say."""
    properties = item.properties
    text = properties.get("s2:processing_baseline") or properties.get("processing:version")
    major, _, minor = str(text or "").partition(".")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else None


def offset_dn(item: pystac.Item) -> int:
    """Tell what is to be added to the digital numbers of a scene, so that reflectance is their ten-thousandth.

    -1000 for processing baseline 04.00 and later, unless the catalogue has applied it already, as Earth Search's
    `earthsearch:boa_offset_applied` says; 0 before. Never by date: reprocessed scenes of 2016 have it too.

    Raises
    ------
    HarmonisationError
        If the item does not say its processing baseline.
    """
    made_by = baseline(item)
    if made_by is None:
        raise HarmonisationError(
            item.id,
            "does not say its processing baseline, so the offset of its pixels is unknown",
            "Use a catalogue with s2:processing_baseline or processing:version",
        )
    if made_by < _FIRST_BASELINE_WITH_OFFSET or item.properties.get("earthsearch:boa_offset_applied") is True:
        return 0
    return BOA_ADD_OFFSET_DN


def granule(item: pystac.Item) -> tuple[str, str, str] | None:
    """Name the datatake, datastrip and MGRS tile of a scene, alike for every processing of it.

    A datatake id reads GS2A_20231008T175231_043324_N05.09; its last part is the baseline and left out. Of a datastrip
    id, S2A_OPER_MSI_L2A_DS_2APS_20231008T233154_S20231008T175927_N05.09, only the start of sensing is taken: two
    strips of one datatake may share a tile and are no processings of each other. None where the item does not say.
    """
    properties = item.properties
    tile = str(properties.get("grid:code") or properties.get("s2:mgrs_tile") or "").removeprefix("MGRS-")
    datatake = str(properties.get("s2:datatake_id") or properties.get("eopf:datatake_id") or "")
    if not tile or not datatake:
        return None
    strip = _SENSING_START.search(str(properties.get("s2:datastrip_id") or properties.get("eopf:datastrip_id") or ""))
    return _BASELINE_SUFFIX.sub("", datatake), strip[1] if strip else "", tile


def processed(item: pystac.Item) -> tuple[tuple[int, int], str]:
    """Order the processings of one granule: the newest has the greatest value."""
    properties = item.properties
    when = properties.get("s2:generation_time") or properties.get("processing:datetime") or properties.get("updated")
    return baseline(item) or (0, 0), str(when or "")
