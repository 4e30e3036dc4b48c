"""List the files that an image is computed from, and the grid of each."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pystac
from odc.geo.geobox import GeoBox

from s2cube.config.sections import CubeSection
from s2cube.cube.chunks import Chunks, ReadGrid
from s2cube.raster.cells import CELLS
from s2cube.scenes.assets import band_key, bands_read, layer_key, layers_read
from s2cube.sentinel2 import CLOUD_CLASSES, LAYER_ASSETS, NO_DATA_CLASS

_LAYER_DTYPES = {layer: np.dtype("uint16" if layer == "qa60" else "uint8") for layer in LAYER_ASSETS}


class Read(NamedTuple):
    """One file to read: an asset of a scene, and its grid.

    Parameters
    ----------
    key
        Key of the asset.
    name
        Name of the band or layer: a key of `BAND_ASSETS` or `LAYER_ASSETS`.
    dtype
        dtype of the values that `AssetReader` returns.
    """

    scene: pystac.Item
    key: str
    name: str
    dtype: "np.dtype[Any]"
    geobox: GeoBox
    chunks: Chunks

    @property
    def asset(self) -> pystac.Asset:
        """The asset of the file."""
        return self.scene.assets[self.key]

    @property
    def is_layer(self) -> bool:
        """Whether the file is a layer of classes or probabilities, not a band of reflectance."""
        return self.name in LAYER_ASSETS


def reads(scenes: Iterable[pystac.Item], grid: ReadGrid, config: CubeSection) -> list[Read]:
    """List the files of scenes. Order: scene by scene, first layers, then bands of reflectance.

    The scene classification is there once, even if masks and a band are made of it.

    Raises
    ------
    ConfigError
        If a band is unknown.
    AssetMissingError
        If a scene lacks a band or a layer.
    AssetReadError
        If an asset is in a format that is not supported.
    """
    found = []
    bands, layers = bands_read(config), layers_read(config)
    for scene in scenes:
        for layer in layers:
            key = layer_key(scene, layer)
            found.append(Read(scene, key, layer, _LAYER_DTYPES[layer], grid.step_geobox, grid.step_chunks))
        for band in bands:
            found.append(Read(scene, band_key(scene, band), band, CELLS, grid.geobox, grid.chunks))
    return found


def with_cloud(config: CubeSection) -> CubeSection:
    """Return settings that always mask cloud and missing data.

    They are used to measure the cloud cover inside the area, even if the job does not mask cloud.
    """
    mask = tuple(dict.fromkeys((*config.mask, "scl")))
    classes = {*config.mask_classes, *CLOUD_CLASSES, NO_DATA_CLASS}
    if mask == config.mask and classes == set(config.mask_classes):
        return config
    return config.model_copy(update={"mask": mask, "mask_classes": tuple(sorted(classes))})
