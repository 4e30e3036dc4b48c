"""Find the assets of an item with the bands and layers of a cube, and check that the scene can be used."""

from collections.abc import Iterable
from copy import copy
from typing import Never

import pystac

from s2cube.config.sections import CubeSection
from s2cube.errors import AssetMissingError, AssetReadError, SceneError, SliceError
from s2cube.scenes._level import check_level
from s2cube.scenes.provider import offset_dn, provider
from s2cube.scenes.scene import acquired, crs_code, footprint, granule, processed
from s2cube.sentinel2 import BAND_ASSETS, COMMON_NAMES, EO2_NAMES, LAYER_ASSETS, canonical_bands, reflectance_bands
from s2cube.spectral_indices import bands_of_indices
from s2cube.stac.members import REMEDY, check_readable, unreadable_members

_UNREAD_FORMATS = ("zarr", "netcdf", "hdf")
"""Parts of unsupported media types: EOPF's Zarr (application/vnd+zarr), and other formats with many arrays per file."""


def check_scene(item: pystac.Item, config: CubeSection) -> None:
    """Check the item of a scene: can the scene be used?

    Raises
    ------
    SliceError
        If a required member of the item is missing or invalid. If the scene is not Level-2A. If an asset is missing, or
        its format is not supported. If the offset of the pixels is unknown.
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
    """Copy an item without the links and assets that are not needed. This makes plans, which workers receive, smaller.

    A plan may have ten thousand scenes. An item that cannot be used is returned unchanged, so that the error of its
    slice has the correct reason.
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
    """Return the keys of the assets that may be read, and of the asset by which `provider` recognises the catalogue.

    Raises
    ------
    AssetMissingError
        If the scene has no asset of a band or layer.
    AssetReadError
        If the format of an asset is not supported.
    """
    keys = [band_key(item, band) for band in bands_read(config)]
    keys += [layer_key(item, layer) for layer in layers_read(config)]
    known = provider(item)
    keys += [known.blue_key] if known else []
    return list(dict.fromkeys([*keys, *(key for key in LAYER_ASSETS["scl"] if key in item.assets)]))


def bands_read(config: CubeSection) -> tuple[str, ...]:
    """Return the bands of reflectance that a cube is made of: those asked for, then others that its indices need.

    Raises
    ------
    ConfigError
        If a band is unknown.
    """
    asked = canonical_bands(reflectance_bands(config.bands))
    needed = bands_of_indices(config.indices) if config.indices else ()
    return (*asked, *(band for band in needed if band not in asked))


def layers_read(config: CubeSection) -> tuple[str, ...]:
    """Return the layers that a cube is made of: those of its masks, and the scene classification if it is a band."""
    is_band = "scl" in canonical_bands(config.bands)
    return tuple(dict.fromkeys((*config.mask, *(["scl"] if is_band else []))))


def band_key(item: pystac.Item, band: str) -> str:
    """Find the asset of a band: by its keys in `BAND_ASSETS`, else by the band's name in the eo extension.

    Raises
    ------
    AssetMissingError
        If the scene has no such asset.
    AssetReadError
        If the format of the asset is not supported.
    """
    keys = BAND_ASSETS[band]
    # In eo 1, the three red edge bands have the same common name, so it does not identify a band.
    names = {*keys, EO2_NAMES.get(band, COMMON_NAMES[band])}
    described = (key for key, asset in item.assets.items() if names & _described_names(asset))
    return _find_key(item, (*keys, *described)) or _raise_missing(item, keys, "other bands")


def layer_key(item: pystac.Item, layer: str) -> str:
    """Find the asset of a mask layer, by its keys in `LAYER_ASSETS`.

    Raises
    ------
    AssetMissingError
        If the scene has no such asset.
    AssetReadError
        If the format of the asset is not supported.
    """
    keys = LAYER_ASSETS[layer]
    without_scl = "--mask none, without --max-aoi-cloud and without scl in --bands"
    alternative = without_scl if layer == "scl" else "--mask scl, or none"
    return _find_key(item, keys) or _raise_missing(item, keys, alternative)


def _find_key(item: pystac.Item, keys: Iterable[str]) -> str | None:
    key = next((key for key in keys if key in item.assets), None)
    if key is not None and (unread := _unread_format(item.assets[key])):
        problem = f"cannot be read: asset '{key}' is {unread}: only GeoTIFF and JPEG 2000 are read"
        raise AssetReadError(item.id, problem, "Choose a catalogue with GeoTIFF or JPEG 2000 files", key)
    return key


def _unread_format(asset: pystac.Asset) -> str:
    """Return the format of an asset if s2cube cannot read it; else an empty text."""
    media_type = asset.media_type if isinstance(asset.media_type, str) else ""
    # A Zarr store is a folder in the path, before the name of an array.
    folders = asset.href.partition("?")[0].lower().split("/")
    in_zarr = any(folder.endswith(".zarr") for folder in folders)
    named = next((each for each in _UNREAD_FORMATS if each in media_type.lower()), None)
    return media_type if named else "in a Zarr store" if in_zarr else ""


def _raise_missing(item: pystac.Item, keys: tuple[str, ...], alternative: str) -> Never:
    unreadable = unreadable_members(item)
    for key in keys:
        if value := unreadable.get(f"assets.{key}"):
            raise SceneError(item.id, f"has asset '{key}' {value}, which cannot be understood", REMEDY, key)
    unread = next(filter(None, map(_unread_format, item.assets.values())), "")
    raise AssetMissingError(
        item.id,
        f"has no asset '{keys[0]}' (nor {', '.join(keys[1:])})" + (f"; some are {unread}" if unread else ""),
        f"Ask for {alternative}; the scene has {', '.join(sorted(item.assets)) or 'no assets'}",
        keys[0],
        scene=item.id,
        is_absent=True,
    )


def _described_names(asset: pystac.Asset) -> set[str]:
    """Return the names of the band of an asset, from eo 1 or STAC 1.1; an empty set if the asset has several bands."""
    fields = asset.extra_fields
    lists = [value for name in ("eo:bands", "bands") if isinstance(value := fields.get(name), list) and value]
    roles = asset.roles if isinstance(asset.roles, list) and asset.roles else ["data"]
    is_data = any(role in ("data", "reflectance") for role in roles)
    # In old STAC versions, the elements are numbers: positions in another list of the item.
    if not lists or len(lists[0]) != 1 or not isinstance(lists[0][0], dict) or not is_data:
        return set()
    return {str(lists[0][0].get(field)) for field in ("name", "common_name", "eo:common_name")}
