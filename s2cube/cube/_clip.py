"""What of a grid lies inside a polygon."""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import rasterio.features
import rioxarray  # noqa: F401  registers .rio
import xarray as xr
from affine import Affine
from shapely.geometry.base import BaseGeometry

from s2cube.area.outline import in_crs

if TYPE_CHECKING:
    from odc.geo.geom import Geometry


def clip(raster: xr.DataArray, geometry: "Geometry", nodata: float) -> xr.DataArray:
    """Set to nodata what lies outside a polygon or in its holes.

    A cell is inside when its centre is. A polygon that holds no centre at all, being smaller than a cell or narrower,
    keeps the cells it touches.

    Parameters
    ----------
    raster
        Last dims (y, x), with CRS.
    geometry
        Polygon or MultiPolygon with any CRS.
    nodata
        Value of the raster's dtype.

    Returns
    -------
    xarray.DataArray
        Lazy.
    """
    values = da.asanyarray(raster.data)
    chunks = values.chunks[-2:]
    outline, transform = in_crs(geometry, raster.rio.crs).geom, raster.rio.transform()
    rows, columns = (list(pairwise(accumulate(lengths, initial=0))) for lengths in chunks)
    parts = ((down, across) for down in rows for across in columns)
    narrow = not any(_inside(part, outline, transform, narrow=False).any() for part in parts)
    inside = da.map_blocks(
        _inside_block, outline=outline, transform=transform, narrow=narrow,
        chunks=chunks, dtype=bool, meta=np.empty((0, 0), bool),
    )  # fmt: skip
    return raster.copy(data=da.where(inside, values, values.dtype.type(nodata)))


def _inside_block(block_info: Any, outline: BaseGeometry, transform: Affine, narrow: bool) -> np.ndarray:
    return _inside(block_info[None]["array-location"], outline, transform, narrow)


def _inside(part: Sequence[tuple[int, int]], outline: BaseGeometry, transform: Affine, narrow: bool) -> np.ndarray:
    (top, bottom), (left, right) = part
    inside: np.ndarray = rasterio.features.geometry_mask(
        [outline], (bottom - top, right - left), transform @ Affine.translation(left, top), narrow, invert=True
    )
    return inside
