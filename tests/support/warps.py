"""The reference for warped cells: GDAL, in the tiles in which s2cube warps."""

from pathlib import Path

import numpy as np
import rasterio
import rasterio.warp
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.transform import from_origin

TILE_CELLS = 128


def warped_by_tiles(path: str | Path, grid: GeoBox, nodata: float = 0) -> np.ndarray:
    """Let GDAL average a file in tiles of 128 cells of 30 m, counted from the origin of the CRS."""
    (height, width), to_x_y = grid.shape, grid.affine
    top, left = round(to_x_y.f / -30), round(to_x_y.c / 30)
    cells = np.zeros((height + 2 * TILE_CELLS, width + 2 * TILE_CELLS), "float32")
    with rasterio.open(path) as source:
        for row in range(-(top % TILE_CELLS), height, TILE_CELLS):
            for column in range(-(left % TILE_CELLS), width, TILE_CELLS):
                corner = from_origin((left + column) * 30, (top + row) * -30, 30, 30)
                rows, columns = (slice(TILE_CELLS + at, 2 * TILE_CELLS + at) for at in (row, column))
                rasterio.warp.reproject(
                    rasterio.band(source, 1), cells[rows, columns], dst_transform=corner, dst_crs=str(grid.crs),
                    src_nodata=nodata, dst_nodata=0, resampling=Resampling.average,
                )  # fmt: skip
    return cells[TILE_CELLS:-TILE_CELLS, TILE_CELLS:-TILE_CELLS]
