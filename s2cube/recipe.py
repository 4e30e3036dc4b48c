"""What decides the pixels of an image, as a digest: an image is made again when that changes."""

import hashlib
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pystac

from s2cube.assets import used_keys
from s2cube.config import CubeSection
from s2cube.model import AOI
from s2cube.provider import offset_dn
from s2cube.scene import processed, version

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

DATA_VERSION = 2
"""Grows when the same scenes and settings give other pixels, so that images are made again. A test holds it to them."""


def recipe(aoi: AOI, geobox: "GeoBox", scenes: Iterable[pystac.Item], config: CubeSection) -> str:
    """Give the digest of all that decides the pixels of an image but the choice of bands.

    Raises
    ------
    SceneError
        If a member of an item that it depends on cannot be understood.
    """
    # The grid and the offset of each scene stand beside the settings.
    settings = config.model_dump(mode="json", exclude={"bands", "crs", "resolution_m", "group_by", "offset"})
    grid = [str(geobox.crs), geobox.affine[:6], geobox.shape]
    of_scenes = [
        (scene.id, processed(scene), offset_dn(scene, config.offset), _versions(scene, config)) for scene in scenes
    ]
    content = json.dumps([DATA_VERSION, aoi.ground, *grid, settings, of_scenes], default=str)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def settings_of(config: CubeSection) -> dict[str, Any]:
    """Give the settings that stand in an Item: by the names of the flags, without the bands, which stand apart."""
    return config.model_dump(mode="json", by_alias=True, exclude={"bands"})


def _versions(scene: pystac.Item, config: CubeSection) -> list[str]:
    return [version(scene.assets[key]) for key in used_keys(scene, config)]
