"""Resample pixels of a raster to cells of a grid whose axes are not parallel, by GDAL's warp."""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import rasterio
import rasterio.warp
from affine import Affine
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window

from s2cube.raster.lattice import DN_NODATA, Block, Lattice, Raster, classes_of, digital_numbers, rectangles

# rasterio suppresses this warning for its own in-memory rasters, but not reliably with several threads. AssetReader
# raises an error for files that are not georeferenced.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning, module=r"rasterio\.")

_STRIPE_PIXELS = 4_000_000
"""Maximum number of pixels in one warp: 8 MB of digital numbers, 32 MB of intermediate arrays."""

_WARP_MARGIN = 4
"""Margin around a warped window, pixels: cells at its edge need them. Pixels outside the file are nodata."""


def stripes(raster: Lattice, grid: Lattice) -> Iterator[tuple[slice, Lattice]]:
    """Cut a grid into stripes of whole rows, so that the number of raster pixels per stripe is limited."""
    pixels_per_cell = max(1.0, (grid.transform.a / raster.pixel_m) ** 2) if raster.crs.is_projected else 1.0
    rows = max(1, int(_STRIPE_PIXELS / (pixels_per_cell * grid.width)))
    for top in range(0, grid.height, rows):
        height = min(rows, grid.height - top)
        yield slice(top, top + height), grid.part(Window(0, top, grid.width, height))


def sum_by_warp(raster: Raster, grid: Lattice, out: np.ndarray) -> None:
    window = window_in_other_crs(raster.lattice, grid)
    if window is None:
        return
    padded = (window.height + 2 * _WARP_MARGIN, window.width + 2 * _WARP_MARGIN)
    dn, share = np.zeros((2, *padded), "float32")
    for block in raster.blocks(rectangles([window])):
        inside = _slices(block, window)
        dn[inside], valid = digital_numbers(block, raster.nodata)
        share[inside] = 1 if valid is None else valid
    shares, means = np.zeros((2, *out.shape), "float32")
    common = _warp_options(raster.lattice, window, grid) | {"resampling": Resampling.average}
    rasterio.warp.reproject(share, shares, **common)
    rasterio.warp.reproject(dn, means, src_nodata=DN_NODATA, dst_nodata=DN_NODATA, **common)
    out.imag, out.real = shares, means * shares


def _slices(block: Block, window: Window) -> tuple[slice, slice]:
    """Return the rows and columns of a block in a window with a margin around it."""
    row, column = block.row - window.row_off + _WARP_MARGIN, block.column - window.col_off + _WARP_MARGIN
    return slice(row, row + block.pixels.shape[0]), slice(column, column + block.pixels.shape[1])


def _warp_options(raster: Lattice, window: Window, grid: Lattice) -> dict[str, Any]:
    shift = Affine.translation(window.col_off - _WARP_MARGIN, window.row_off - _WARP_MARGIN)
    return {
        "src_crs": raster.crs, "src_transform": raster.transform @ shift,
        "dst_crs": grid.crs, "dst_transform": grid.transform,
    }  # fmt: skip


def window_in_other_crs(raster: Lattice, grid: Lattice) -> Window | None:
    """Return the window of a raster that covers a grid in another CRS. None: no overlap."""
    bounds = rasterio.transform.array_bounds(grid.height, grid.width, grid.transform)
    within = rasterio.warp.transform_bounds(grid.crs, raster.crs, *bounds, densify_pts=21)
    corners = [~raster.transform @ (x, y) for x in within[::2] for y in within[1::2]]
    columns, rows = zip(*corners, strict=True)
    left, right = (_clamped(edge, raster.width) for edge in (min(columns) - _WARP_MARGIN, max(columns) + _WARP_MARGIN))
    top, bottom = (_clamped(edge, raster.height) for edge in (min(rows) - _WARP_MARGIN, max(rows) + _WARP_MARGIN))
    return None if left == right or top == bottom else Window(left, top, right - left, bottom - top)


def _clamped(edge: float, length: int) -> int:
    return int(np.clip(np.round(edge), 0, length))


def warp_classes(raster: Raster, grid: Lattice, out: np.ndarray) -> None:
    window = window_in_other_crs(raster.lattice, grid)
    if window is None:
        return
    classes = np.zeros((window.height + 2 * _WARP_MARGIN, window.width + 2 * _WARP_MARGIN), out.dtype)
    for block in raster.blocks(rectangles([window])):
        classes[_slices(block, window)] = classes_of(block, raster.nodata, out.dtype)
    rasterio.warp.reproject(classes, out, **_warp_options(raster.lattice, window, grid), resampling=Resampling.nearest)
