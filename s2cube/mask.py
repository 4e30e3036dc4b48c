"""What of an image is valid: pure functions of arrays."""

import warnings
from typing import TYPE_CHECKING

import dask.array as da
import numpy as np
import rasterio.features
import rioxarray  # noqa: F401  registers .rio
import xarray as xr
from rasterio.errors import NotGeoreferencedWarning

if TYPE_CHECKING:
    from odc.geo.geom import Geometry

# rasterio mutes this warning at its own raster in memory, but when two threads do so at once it gets through.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning, module=r"rasterio\.features")

MASKED_SCL_CLASSES = (0, 1, 3, 8, 9, 10)
"""Scene classes that are no clear ground: no data, saturated or defective, cloud shadow, cloud of medium and of high
probability, thin cirrus (Sen2Cor's scene classification, Sentinel-2 Products Specification Document)."""


def clear_cells(scl: xr.DataArray, steps: int, masked_classes: tuple[int, ...] = MASKED_SCL_CLASSES) -> xr.DataArray:
    """Tell which cells of a grid see nothing but clear ground.

    Parameters
    ----------
    scl
        Dims (scene, y, x), scene classes on a grid `steps` times finer each way. Where the coordinate `nests` is False
        a source pixel may overlap a cell without falling on one of its steps; it then falls on one beside it.
    masked_classes
        One of these on any step masks its whole cell; where steps do not nest, on a step beside the cell too.

    Returns
    -------
    xarray.DataArray
        Dims (scene, y, x), True where valid.
    """
    # A table of 256 answers is quicker than one comparison a class.
    clear = np.ones(256, dtype=bool)
    clear[list(masked_classes)] = False
    fine = da.map_blocks(clear.__getitem__, scl.data, dtype=bool)
    shrunk = da.map_overlap(_shrink, fine, depth={0: 0, 1: 1, 2: 1}, boundary={1: True, 2: True}, dtype=bool)
    chosen = [(fine if nests else shrunk)[scene] for scene, nests in enumerate(scl.nests.values)]
    return xr.DataArray(da.coarsen(np.all, da.stack(chosen), {1: steps, 2: steps}), dims=scl.dims)


def _shrink(clear: np.ndarray) -> np.ndarray:
    """Keep only steps whose eight neighbours are clear too."""
    rows = clear & np.roll(clear, 1, axis=1) & np.roll(clear, -1, axis=1)
    shrunk: np.ndarray = rows & np.roll(rows, 1, axis=2) & np.roll(rows, -1, axis=2)
    return shrunk


def clip(cube: xr.DataArray, geometry: "Geometry") -> xr.DataArray:
    """Set to nodata what lies outside a polygon or in its holes.

    A cell is inside when its centre is. A polygon that holds no centre at all, being smaller than a cell or narrower,
    keeps the cells it touches.

    Parameters
    ----------
    cube
        Last dims (y, x), with CRS and nodata.
    geometry
        Polygon or MultiPolygon with any CRS.

    Returns
    -------
    xarray.DataArray
        As `cube`, with the attributes `aoi_pixels`, how many cells are inside, and `grid`, rows x columns.
    """
    outline = geometry.to_crs(cube.rio.crs, resolution="auto").geom
    for all_touched in (False, True):
        outside = rasterio.features.geometry_mask(
            [outline], cube.shape[-2:], cube.rio.transform(), all_touched=all_touched
        )
        if not outside.all():
            break
    grid = f"{cube.sizes['y']}x{cube.sizes['x']}"
    clipped = cube.rio.clip([outline], cube.rio.crs, all_touched=all_touched, drop=False)
    return clipped.assign_attrs(cube.attrs, aoi_pixels=int((~outside).sum()), grid=grid)  # type: ignore[no-any-return]
