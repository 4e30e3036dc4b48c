"""What catalogues call things, and how their pixels are scaled: a table, not code paths."""

from datetime import datetime
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

Read off the items these catalogues serve; the first name is the STAC eo extension's common name.
"""

SCL_ASSETS = ("scl", "SCL", "SCL_20m")
"""Asset keys of the scene classification layer, in the same catalogues."""

SCALE = 0.0001
"""Reflectance a digital number: Sentinel-2 L2A's QUANTIFICATION_VALUE is 10000 (Products Specification Document)."""

BOA_ADD_OFFSET_DN = -1000
"""Offset of every L2A band since processing baseline 04.00 (Products Specification Document, BOA_ADD_OFFSET)."""

_FIRST_BASELINE_WITH_OFFSET = (4, 0)


def canonical_bands(names: tuple[str, ...]) -> tuple[str, ...]:
    """Give the common name of each band, whichever catalogue's name it was asked by.

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
    return instant


def address(item: pystac.Item) -> str | None:
    """Give the address of a scene without user name, password, signature or token; None where it has none."""
    own = item.get_self_href()
    if own is None:
        return None
    parts = urlsplit(own)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


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


def granule(item: pystac.Item) -> tuple[str, str] | None:
    """Name the datatake and MGRS tile of a scene, alike for every processing of it; None where the item does not say.

    A datatake id reads GS2A_20231008T175231_043324_N05.09; its last part is the baseline and left out.
    """
    properties = item.properties
    tile = str(properties.get("grid:code") or properties.get("s2:mgrs_tile") or "").removeprefix("MGRS-")
    datatake = str(properties.get("s2:datatake_id") or properties.get("eopf:datatake_id") or "")
    return (datatake.rpartition("_N")[0], tile) if tile and datatake else None


def processed(item: pystac.Item) -> tuple[tuple[int, int], str]:
    """Order the processings of one granule: the newest has the greatest value."""
    properties = item.properties
    when = properties.get("s2:generation_time") or properties.get("processing:datetime") or properties.get("updated")
    return baseline(item) or (0, 0), str(when or "")
