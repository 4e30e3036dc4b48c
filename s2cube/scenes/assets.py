"""Find the assets of an item that hold the bands and layers of a cube, and check that the scene can be used."""

from collections.abc import Iterable
from copy import copy
from typing import Never

import pystac

from s2cube.config.sections import CubeSection
from s2cube.errors import AssetMissingError, AssetReadError, SceneError, SliceError
from s2cube.scenes._level import check_level
from s2cube.scenes.provider import offset_dn, provider
from s2cube.scenes.scene import acquired, crs_code, footprint, granule, processed
from s2cube.sentinel2 import BAND_ASSETS, COMMON_NAMES, EO2_NAMES, LAYER_ASSETS, canonical_bands
from s2cube.stac.members import REMEDY, check_readable, unreadable_members

_UNREAD_FORMATS = ("zarr", "netcdf", "hdf")
"""Parts of media types: EOPF's Zarr (application/vnd+zarr), and other formats whose files hold many arrays."""


def check_scene(item: pystac.Item, config: CubeSection) -> None:
    """Check that a scene can be used, as far as its item shows.

    Raises
    ------
    SliceError
        If a needed member of the item is missing or cannot be understood; if the scene is not Level-2A; if it lacks
        an asset, or has one in a format that is not supported; if the offset of its pixels is unknown.
    """
    check_readable(item)
    acquired(item)
    footprint(item)
    granule(item)
    processed(item)
    check_level(item)
    crs_code(item)
    used_keys(item, config)
    offset_dn(item, config.offset)


def drop_unused_assets(item: pystac.Item, config: CubeSection) -> pystac.Item:
    """Copy an item without the links and assets that are not needed, because plans are sent to workers.

    A plan may have ten thousand scenes. A scene that cannot be used is returned as it is, so that its slice fails for
    the right reason.
    """
    try:
        check_scene(item, config)
    except SliceError:
        return item
    light = copy(item)
    light.links, light.assets = [], {}
    if own := item.get_self_href():
        light.set_self_href(own)
    for key in used_keys(item, config):
        light.add_asset(key, copy(item.assets[key]))
    return light


def used_keys(item: pystac.Item, config: CubeSection) -> list[str]:
    """Give the keys of the assets that may be read, and of the one by which `provider` recognises the catalogue.

    Raises
    ------
    AssetMissingError
        If the scene lacks one.
    AssetReadError
        If one is in a format that is not supported.
    """
    keys = [band_key(item, band) for band in canonical_bands(config.bands)]
    keys += [layer_key(item, layer) for layer in config.mask]
    known = provider(item)
    keys += [known.blue_key] if known else []
    return list(dict.fromkeys([*keys, *(key for key in LAYER_ASSETS["scl"] if key in item.assets)]))


def band_key(item: pystac.Item, band: str) -> str:
    """Find the asset of a band: by its keys in `BAND_ASSETS`, else by the band's name in the eo extension.

    Raises
    ------
    AssetMissingError
        If the scene has none.
    AssetReadError
        If it is in a format that is not supported.
    """
    keys = BAND_ASSETS[band]
    # In eo 1, the three red edge bands share one common name, so it does not identify them.
    names = {*keys, EO2_NAMES.get(band, COMMON_NAMES[band])}
    described = (key for key, asset in item.assets.items() if names & _described_names(asset))
    return _present(item, (*keys, *described)) or _raise_missing(item, keys, "other bands")


def layer_key(item: pystac.Item, layer: str) -> str:
    """Find the asset of a mask layer, by its keys in `LAYER_ASSETS`.

    Raises
    ------
    AssetMissingError
        If the scene has none.
    AssetReadError
        If it is in a format that is not supported.
    """
    keys = LAYER_ASSETS[layer]
    otherwise = "--mask none, without --max-aoi-cloud" if layer == "scl" else "--mask scl, or none"
    return _present(item, keys) or _raise_missing(item, keys, otherwise)


def _present(item: pystac.Item, keys: Iterable[str]) -> str | None:
    key = next((key for key in keys if key in item.assets), None)
    if key is not None and (unread := _unread_format(item.assets[key])):
        problem = f"cannot be read: asset '{key}' is {unread}: only GeoTIFF and JPEG 2000 are read"
        raise AssetReadError(item.id, problem, "Choose a catalogue with GeoTIFF or JPEG 2000 files", key)
    return key


def _unread_format(asset: pystac.Asset) -> str:
    """Name the format of an asset if s2cube cannot read it; else give an empty text."""
    media_type = asset.media_type if isinstance(asset.media_type, str) else ""
    # A Zarr store is a folder. The name of an array follows it.
    folders = asset.href.partition("?")[0].lower().split("/")
    in_zarr = any(folder.endswith(".zarr") for folder in folders)
    named = next((each for each in _UNREAD_FORMATS if each in media_type.lower()), None)
    return media_type if named else "in a Zarr store" if in_zarr else ""


def _raise_missing(item: pystac.Item, keys: tuple[str, ...], otherwise: str) -> Never:
    unreadable = unreadable_members(item)
    for key in keys:
        if value := unreadable.get(f"assets.{key}"):
            raise SceneError(item.id, f"has asset '{key}' {value}, which cannot be understood", REMEDY, key)
    unread = next(filter(None, map(_unread_format, item.assets.values())), "")
    raise AssetMissingError(
        item.id,
        f"has no asset '{keys[0]}' (nor {', '.join(keys[1:])})" + (f"; some are {unread}" if unread else ""),
        f"Ask for {otherwise}; the scene has {', '.join(sorted(item.assets)) or 'no assets'}",
        keys[0],
    )


def _described_names(asset: pystac.Asset) -> set[str]:
    """Give the names of the band of an asset by eo 1 or STAC 1.1; none if the asset has several bands."""
    fields = asset.extra_fields
    lists = [value for name in ("eo:bands", "bands") if isinstance(value := fields.get(name), list) and value]
    roles = asset.roles if isinstance(asset.roles, list) and asset.roles else ["data"]
    is_data = any(role in ("data", "reflectance") for role in roles)
    # In old STAC, the elements are numbers: positions in a list elsewhere in the item.
    if not lists or len(lists[0]) != 1 or not isinstance(lists[0][0], dict) or not is_data:
        return set()
    return {str(lists[0][0].get(field)) for field in ("name", "common_name", "eo:common_name")}
