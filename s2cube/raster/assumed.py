"""Assume the layout of a file from its item, without reading its header."""

import math

import numpy as np
import pystac
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError

from s2cube.errors import SceneError
from s2cube.fetch.store import Access
from s2cube.raster._codec import Codec
from s2cube.raster._tiles import TiledRaster
from s2cube.raster.lattice import Lattice
from s2cube.raster.placement import corner
from s2cube.raster.tiff import HEADER_BYTES, Level, Tiff
from s2cube.scenes.scene import crs_code
from s2cube.sentinel2 import LAYER_ASSETS, NATIVE_M

_GRANULE_M = 109_800
_TILE_PIXELS, _OVERVIEW_TILE_PIXELS = 1024, 512
_OVERVIEW_FACTORS = (2, 4, 8, 16)
"""Size of a granule (Sentinel-2 Products Specification Document). Tiles and overviews of the files of Earth Search."""

FULL_RESOLUTION_SHARE = 0.75
"""Share of full resolution in the size of a file. Its overviews have 1/4, 1/16 and so on of the pixels."""

_BYTES_PER_PIXEL = {"u2": 1.3, "u1": 0.04}
"""Used if the item does not contain the size of the file. Medians over items of Earth Search and Digital Earth
Africa."""


def assumed_levels(scene: pystac.Item, key: str, name: str, grid: Lattice, access: Access) -> list[TiledRaster]:
    """Return the levels of a file, full resolution first. The layout is assumed to be that of Earth Search's files.

    Parameters
    ----------
    key
        Key of the asset.
    name
        Name of the band or layer, in `NATIVE_M`.
    grid
        Used if the item lacks the corner or the CRS of the file: the centre of the grid is then used as the centre
        of the granule, its CRS as the CRS of the file.

    Raises
    ------
    SceneError
        If the item declares a CRS that does not exist.
    """
    asset = scene.assets[key]
    pixel_m = _pixel_m(asset) or NATIVE_M[name]
    high, wide = _shape(asset, round(_GRANULE_M / pixel_m))
    left, top = corner(asset) or _corner_around(grid)
    crs = _crs(scene, grid)
    dtype = np.dtype("u1" if name in LAYER_ASSETS else "u2")
    file_bytes = declared_bytes(asset)
    per_pixel = file_bytes * FULL_RESOLUTION_SHARE / (high * wide) if file_bytes else _BYTES_PER_PIXEL[dtype.str[1:]]
    levels, at = [], HEADER_BYTES
    for factor in (1, *_OVERVIEW_FACTORS):
        height, width = math.ceil(high / factor), math.ceil(wide / factor)
        tile = _TILE_PIXELS if factor == 1 else _OVERVIEW_TILE_PIXELS
        transform = Affine(pixel_m * wide / width, 0, left, 0, -pixel_m * high / height, top)
        down, across = (np.minimum(tile, length - np.arange(0, length, tile)) for length in (height, width))
        sizes = np.ceil(np.outer(down, across) * per_pixel).astype("int64").ravel()
        offsets = at + np.cumsum(sizes) - sizes
        at = int(offsets[-1] + sizes[-1])
        levels.append(Level(Lattice(crs, transform, height, width), (tile, tile), offsets, sizes, strips=False))
    tiff = Tiff(asset.href, "", 0, Codec(dtype), tuple(levels))
    return [TiledRaster(tiff, level, access) for level in levels]


def declared_bytes(asset: pystac.Asset) -> int | None:
    """Return the size of a file that its item declares; None if it does not."""
    size = asset.extra_fields.get("file:size")
    return size if isinstance(size, int) and size > 0 else None


def _pixel_m(asset: pystac.Asset) -> float | None:
    """Return the width of a pixel that the item declares; None if it is not one of Sentinel-2's files in metres."""
    if corner(asset) is None:
        return None
    width_m: float = asset.extra_fields["proj:transform"][0]
    return width_m if min(NATIVE_M.values()) <= width_m <= max(NATIVE_M.values()) else None


def _crs(scene: pystac.Item, grid: Lattice) -> CRS:
    try:
        code = crs_code(scene)
        return CRS.from_user_input(code) if code else grid.crs
    except CRSError:
        remedy = "Report it to the operator of the catalogue"
        raise SceneError(scene.id, "declares a CRS that does not exist", remedy) from None


def _corner_around(grid: Lattice) -> tuple[float, float]:
    """Return the upper left corner of a granule that is centred on the middle cell of a grid."""
    x, y = grid.transform @ (grid.width // 2 + 0.5, grid.height // 2 + 0.5)
    return x - _GRANULE_M / 2, y + _GRANULE_M / 2


def _shape(asset: pystac.Asset, side: int) -> tuple[int, int]:
    """Return the rows and columns that the item declares, or those of a granule if they are missing or larger."""
    shape = asset.extra_fields.get("proj:shape")
    if (
        isinstance(shape, list)
        and len(shape) == 2
        and all(isinstance(each, int) and 0 < each <= side for each in shape)
    ):
        return shape[0], shape[1]
    return side, side
