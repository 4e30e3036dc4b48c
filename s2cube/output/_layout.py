"""The form of the raster of an image: everything but its values and its time."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import odc.geo.xr  # noqa: F401  registers .odc
import xarray as xr
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox

from s2cube.kernels.packing import Packing, packing_of

TILE_CELLS = 512
"""Side of the tiles of a large COG. An image whose sides are not longer has one tile."""

_SMALL_BYTES = 64 << 20
"""A larger image is not written from memory. It is one of many bands, if its sides are not longer than a tile."""


@dataclass(frozen=True)
class Layout:
    """The form of the raster of an image. Images of one area have the same.

    Parameters
    ----------
    bands
        Names, in the order of the file.
    dtype
        Name of the data type.
    """

    bands: tuple[str, ...]
    dtype: str
    geobox: GeoBox
    packing: Packing

    @property
    def shape(self) -> tuple[int, int, int]:
        """Bands, rows, columns."""
        height, width = self.geobox.shape
        return len(self.bands), height, width

    @property
    def crs(self) -> CRS:
        """CRS of the grid."""
        assert self.geobox.crs, "the grid of an image has a CRS"
        return self.geobox.crs

    @property
    def nodata(self) -> float | None:
        """The nodata value; None if every pixel has a value."""
        nodata = self.packing.nodata
        return None if np.dtype(self.dtype).kind != "f" and math.isnan(nodata) else nodata

    @property
    def is_small(self) -> bool:
        """Whether the image is one tile, so that it is written from memory."""
        size = math.prod(self.shape) * np.dtype(self.dtype).itemsize
        return max(self.shape[1:]) <= TILE_CELLS and size <= _SMALL_BYTES

    @property
    def cell_m(self) -> float | None:
        """Size of a cell, metres. None if the grid is in degrees, because it then depends on the place."""
        return None if self.crs.geographic else self.geobox.affine.a

    @property
    def profile(self) -> dict[str, Any]:
        """Keywords of `rasterio.open`."""
        count, height, width = self.shape
        return {
            "count": count, "height": height, "width": width, "dtype": self.dtype,
            "crs": self.crs.to_wkt(), "transform": self.geobox.affine, "nodata": self.nodata,
        }  # fmt: skip


def layout_of(image: xr.DataArray) -> Layout:
    """Return the layout of an image, dims (band, y, x). Its values are not computed."""
    return Layout(tuple(map(str, image.band.values)), image.dtype.name, image.odc.geobox, packing_of(image))
