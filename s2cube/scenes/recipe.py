"""Compute the recipe of an image: a digest of all inputs of its pixels. If it changes, the image is recomputed."""

import hashlib
import json
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pystac

from s2cube.area.aoi import AOI
from s2cube.config.sections import CubeSection
from s2cube.fetch.tokens import unsigned
from s2cube.scenes.assets import band_key, bands_read, layer_key, layers_read, used_keys
from s2cube.scenes.provider import offset_dn
from s2cube.scenes.scene import processed

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

DATA_VERSION = 3
"""Increase it if the same scenes and settings result in other pixels. Images are then computed again. A test checks it.
"""


_NAMES = {"bands", "indices"}
"""Settings that only choose the bands of an image. They are compared by the names of its bands."""


def recipe(of_ground: str, of_scenes: Iterable[str]) -> str:
    """Return the digest of everything that affects the pixels of an image, except the choice of bands and indices.

    Its two parts are JSON, because they repeat: areas share scenes, and slices share an area.

    Parameters
    ----------
    of_ground
        See `ground_part`.
    of_scenes
        The scenes of the image in order of time, see `scene_part`.
    """
    content = f"[{of_ground}, [{', '.join(of_scenes)}]]"
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def ground_part(aoi: AOI, geobox: "GeoBox", config: CubeSection) -> str:
    """Return the part of a recipe that all images of an area have in common."""
    # The digest contains the grid and the offset of each scene separately.
    settings = config.model_dump(mode="json", exclude=_NAMES | {"crs", "resolution_m", "group_by", "offset"})
    grid = [str(geobox.crs), geobox.affine[:6], geobox.shape]
    return json.dumps([DATA_VERSION, aoi.ground, *grid, settings], default=str)[1:-1]


@lru_cache(64)
def lattice_part(crs: str, config: CubeSection) -> str:
    """Return the digest that the statistics of all fields on a lattice have in common: of the CRS and the settings.

    Statistics do not depend on the data type of images.
    """
    settings = config.model_dump(mode="json", exclude=_NAMES | {"crs", "group_by", "offset", "dtype"})
    return hashlib.sha256(json.dumps([DATA_VERSION, crs, settings], default=str).encode()).hexdigest()[:16]


def scene_part(scene: pystac.Item, config: CubeSection) -> str:
    """Return the part of a recipe that comes from a scene.

    Raises
    ------
    SceneError
        If a required member of the item is invalid.
    """
    versions = [_file_version(scene, scene.assets[key]) for key in used_keys(scene, config)]
    return json.dumps([*_processing(scene, config), versions], default=str)


def processing_part(scene: pystac.Item, config: CubeSection) -> str:
    """Return the part of a recipe that comes from a scene, without its files: it does not depend on the bands."""
    return json.dumps(_processing(scene, config), default=str)


def file_versions(scene: pystac.Item, config: CubeSection) -> dict[str, str]:
    """Return the version of the file of each band and layer that is read, by name, in the order of names."""
    keys = {band: band_key(scene, band) for band in bands_read(config)}
    keys |= {layer: layer_key(scene, layer) for layer in layers_read(config)}
    return {name: _file_version(scene, scene.assets[key]) for name, key in sorted(keys.items())}


def files_digest(versions: Iterable[str]) -> str:
    """Return the digest of the files of one band, or one layer, of the scenes of a slice: 8 hexadecimal digits."""
    return hashlib.sha256(json.dumps([*versions]).encode()).hexdigest()[:8]


def _processing(scene: pystac.Item, config: CubeSection) -> list[Any]:
    return [scene.id, processed(scene), offset_dn(scene, config.offset)]


def settings_of(config: CubeSection) -> dict[str, Any]:
    """Return the settings that an Item stores, by the names of the flags. Its bands are stored separately."""
    return config.model_dump(mode="json", by_alias=True, exclude=_NAMES)


def _file_version(scene: pystac.Item, asset: pystac.Asset) -> str:
    """Identify the content of a file: by its checksum (file extension), else by its address and its size.

    If the size is not known either, by its address and the time at which the item was changed.
    """
    if checksum := asset.extra_fields.get("file:checksum"):
        return str(checksum)
    size, updated = asset.extra_fields.get("file:size"), scene.properties.get("updated")
    version = size if isinstance(size, int) and not isinstance(size, bool) else updated
    return unsigned(asset.href) if version is None else f"{unsigned(asset.href)} {version}"
