"""Compute the recipe of an image: a digest of all inputs of its pixels. If it changes, the image is recomputed."""

import hashlib
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pystac

from s2cube.area.aoi import AOI
from s2cube.config.sections import CubeSection
from s2cube.fetch.tokens import unsigned
from s2cube.scenes.assets import used_keys
from s2cube.scenes.provider import offset_dn
from s2cube.scenes.scene import processed

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

DATA_VERSION = 3
"""Increase it if the same scenes and settings result in other pixels. Images are then computed again. A test checks it.
"""


def recipe(aoi: AOI, geobox: "GeoBox", scenes: Iterable[pystac.Item], config: CubeSection) -> str:
    """Return the digest of everything that affects the pixels of an image, except the choice of bands.

    Raises
    ------
    SceneError
        If a required member of an item is invalid.
    """
    # The digest contains the grid and the offset of each scene separately.
    settings = config.model_dump(mode="json", exclude={"bands", "crs", "resolution_m", "group_by", "offset"})
    grid = [str(geobox.crs), geobox.affine[:6], geobox.shape]
    of_scenes = [
        (scene.id, processed(scene), offset_dn(scene, config.offset), _file_versions(scene, config)) for scene in scenes
    ]
    content = json.dumps([DATA_VERSION, aoi.ground, *grid, settings, of_scenes], default=str)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def settings_of(config: CubeSection) -> dict[str, Any]:
    """Return the settings that an Item stores, by the names of the flags. The Item stores the bands separately."""
    return config.model_dump(mode="json", by_alias=True, exclude={"bands"})


def _file_versions(scene: pystac.Item, config: CubeSection) -> list[str]:
    return [_file_version(scene.assets[key]) for key in used_keys(scene, config)]


def _file_version(asset: pystac.Asset) -> str:
    """Identify the content of a file: by its checksum if the item has it (file extension), else by its address."""
    return str(asset.extra_fields.get("file:checksum") or unsigned(asset.href))
