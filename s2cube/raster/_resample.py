"""Resample pixels of a raster to cells of a grid: by areas if their axes are parallel, else by GDAL's warp."""

import math
import warnings
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import rasterio
import rasterio.warp
from affine import Affine
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window

from s2cube.raster.lattice import DN_NODATA, Axis, Block, Lattice, Raster, Weights, classes_of, digital_numbers

# rasterio suppresses this warning for its own in-memory rasters, but not reliably with several threads. AssetReader
# raises an error for files that are not georeferenced.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning, module=r"rasterio\.")

_STRIPE_PIXELS = 4_000_000
"""Maximum number of pixels in one warp: 8 MB of digital numbers, 32 MB of intermediate arrays."""

_WARP_MARGIN = 4
"""Margin around a warped window, pixels: cells at its edge need them. Pixels outside the file are nodata."""

_SNAP = 1e-6
"""Fraction of a pixel (10 µm of 10 m). Edges of cells and pixels that are closer than this are treated as equal."""

_DECIMALS = 9
"""Decimals of positions in pixels. Positions are rounded, so that results do not depend on how a grid is divided."""

_KEPT_AXES = 16
"""Number of pairs of a raster and a grid whose overlap is kept. Scenes of a tile have the same."""

_NEST_IN_M = 20
"""Pixel size of the scene classification. Coordinates of granule edges are multiples of it, also for 60 m pixels."""

_LATTICE_TOLERANCE = 0.01
"""Fraction of a cell by which pixels may deviate from the lattice of the grid."""


_Level = TypeVar("_Level", bound=Raster)


def choose_level(levels: Sequence[_Level], grid: Lattice) -> _Level:
    """Choose the coarsest level whose pixels are not larger than grid cells. The first level is full resolution."""
    full = levels[0]
    if not full.lattice.crs.is_projected:
        return full
    fitting = [level for level in levels[1:] if level.lattice.pixel_m <= grid.transform.a * (1 + 1e-6)]
    return max(fitting, key=lambda level: level.lattice.pixel_m) if fitting else full


def window_under(raster: Lattice, grid: Lattice) -> Window | None:
    """Return the window of a raster that `sum_areas` and `sample_classes` read for a grid. None: no overlap."""
    if not _is_aligned(raster, grid):
        return _window_in_other_crs(raster, grid)
    rows, columns = (
        (max(0, math.floor(edges[0])), min(length, math.ceil(edges[-1])))
        for edges, length in zip(_edges(raster, grid), (raster.height, raster.width), strict=True)
    )
    if rows[0] >= rows[1] or columns[0] >= columns[1]:
        return None
    return Window.from_slices(rows, columns)


def sum_areas(raster: Raster, grid: Lattice, out: np.ndarray) -> None:
    """Sum the digital numbers of the pixels in each cell, weighted by area.

    Parameters
    ----------
    out
        (rows, columns), complex64, filled with zeros by the caller. The imaginary part becomes the share of the cell
        that valid pixels cover, 0 to 1. The real part becomes the sum of their digital numbers, each multiplied by the
        share of the cell that its pixel covers.
    """
    if _is_aligned(raster.lattice, grid):
        _sum_by_shares(raster, grid, out)
    else:
        for rows, stripe in _stripes(raster.lattice, grid):
            _sum_by_warp(raster, stripe, out[rows])


def _is_aligned(raster: Lattice, grid: Lattice) -> bool:
    """Return whether rows and columns of a raster are parallel to those of the grid."""
    transform = raster.transform
    return bool(raster.crs == grid.crs and transform.b == transform.d == 0 and transform.a > 0 > transform.e)


def _edges(raster: Lattice, grid: Lattice) -> tuple[np.ndarray, np.ndarray]:
    """Return the edges of the grid's rows and columns, as row and column positions in the raster."""
    return _positions(raster, grid, np.arange(grid.height + 1), np.arange(grid.width + 1))


def _positions(raster: Lattice, grid: Lattice, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Convert row and column positions in the grid to positions in the raster."""
    to_raster = ~raster.transform @ grid.transform
    return _snapped(to_raster.f + to_raster.e * rows), _snapped(to_raster.c + to_raster.a * columns)


def _snapped(positions: np.ndarray) -> np.ndarray:
    whole = np.rint(positions)
    return np.where(np.abs(positions - whole) < _SNAP, whole, np.round(positions, _DECIMALS))


@lru_cache(_KEPT_AXES)
def _axes(raster: Affine, grid: Affine, height: int, width: int) -> tuple[Axis, Axis]:
    """Return the overlaps of rows and of columns."""
    to_raster = ~raster @ grid
    rows = _snapped(to_raster.f + to_raster.e * np.arange(height + 1))
    columns = _snapped(to_raster.c + to_raster.a * np.arange(width + 1))
    return Axis(rows, to_raster.e), Axis(columns, to_raster.a)


def _sum_by_shares(raster: Raster, grid: Lattice, out: np.ndarray) -> None:
    window = window_under(raster.lattice, grid)
    if window is None:
        return
    rows, columns = _axes(raster.lattice.transform, grid.transform, grid.height, grid.width)
    for block in raster.blocks(window):
        down = rows.weights(block.row, block.row + block.pixels.shape[0])
        across = columns.weights(block.column, block.column + block.pixels.shape[1])
        dn, valid = digital_numbers(block, raster.nodata)
        sums = out[down.cells, across.cells]
        sums.real += _weighted_sums(down, across, dn)
        sums.imag += (
            np.outer(down.sums, across.sums) if valid is None else _weighted_sums(down, across, valid.view("uint8"))
        )
    # Only now, so that each sum is rounded once, however many blocks a cell consists of.
    if (whole := rows.whole * columns.whole) != 1:
        numbers = out.view("float32")
        numbers /= np.float32(whole)


def _weighted_sums(rows: Weights, columns: Weights, pixels: np.ndarray) -> np.ndarray:
    return columns.sum_rows(rows.sum_rows(pixels).T).T


def _stripes(raster: Lattice, grid: Lattice) -> Iterator[tuple[slice, Lattice]]:
    """Cut a grid into stripes of whole rows, so that the number of raster pixels per stripe is limited."""
    pixels_per_cell = max(1.0, (grid.transform.a / raster.pixel_m) ** 2) if raster.crs.is_projected else 1.0
    rows = max(1, int(_STRIPE_PIXELS / (pixels_per_cell * grid.width)))
    for top in range(0, grid.height, rows):
        height = min(rows, grid.height - top)
        yield slice(top, top + height), grid.part(Window(0, top, grid.width, height))


def _sum_by_warp(raster: Raster, grid: Lattice, out: np.ndarray) -> None:
    window = _window_in_other_crs(raster.lattice, grid)
    if window is None:
        return
    padded = (window.height + 2 * _WARP_MARGIN, window.width + 2 * _WARP_MARGIN)
    dn, share = np.zeros((2, *padded), "float32")
    for block in raster.blocks(window):
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


def _window_in_other_crs(raster: Lattice, grid: Lattice) -> Window | None:
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


def sample_classes(raster: Raster, grid: Lattice, out: np.ndarray) -> None:
    """Fill an array (rows, columns) with the class at the centre of each cell, 0 if there is no pixel.

    Raises
    ------
    ValueError
        If a pixel is several cells wide and begins inside a cell: that cell would get the class of only one of its
        pixels. This does not matter if cells do not nest in 20 m pixels: then `mask.screen` widens masks by one cell.
    """
    if not _is_aligned(raster.lattice, grid):
        for rows, stripe in _stripes(raster.lattice, grid):
            _warp_classes(raster, stripe, out[rows])
        return
    window = window_under(raster.lattice, grid)
    if window is None:
        return
    if _begin_within_cells(raster.lattice.part(window), grid):
        raise ValueError("its pixels are not aligned with those of Sentinel-2 granules")
    centres = _positions(raster.lattice, grid, np.arange(grid.height) + 0.5, np.arange(grid.width) + 0.5)
    rows, columns = (np.floor(each).astype(int) for each in centres)
    for block in raster.blocks(window):
        height, width = block.pixels.shape
        down, across = (
            slice(*np.searchsorted(pixels, (start, start + length)))
            for pixels, start, length in ((rows, block.row, height), (columns, block.column, width))
        )
        # Select columns first, so that the second step copies whole rows, which is faster.
        classes = classes_of(block, raster.nodata, out.dtype).take(columns[across] - block.column, axis=1)
        out[down, across] = classes.take(rows[down] - block.row, axis=0)


def _begin_within_cells(raster: Lattice, grid: Lattice) -> bool:
    """Return whether any pixel that is a whole number of cells wide begins inside a cell."""
    cells_per_pixel = _NEST_IN_M / grid.transform.a
    if abs(cells_per_pixel - round(cells_per_pixel)) > _SNAP:
        return False
    to_grid = ~grid.transform @ raster.transform
    axes = ((to_grid.e, to_grid.f, raster.height), (to_grid.a, to_grid.c, raster.width))
    for width, first, pixels in axes:
        off = abs(width - round(width))
        if round(width) and off < _LATTICE_TOLERANCE <= abs(first - round(first)) + off * pixels:
            return True
    return False


def _warp_classes(raster: Raster, grid: Lattice, out: np.ndarray) -> None:
    window = _window_in_other_crs(raster.lattice, grid)
    if window is None:
        return
    classes = np.zeros((window.height + 2 * _WARP_MARGIN, window.width + 2 * _WARP_MARGIN), out.dtype)
    for block in raster.blocks(window):
        classes[_slices(block, window)] = classes_of(block, raster.nodata, out.dtype)
    rasterio.warp.reproject(classes, out, **_warp_options(raster.lattice, window, grid), resampling=Resampling.nearest)
