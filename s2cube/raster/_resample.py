"""Resample pixels of a raster to cells of a grid: by areas if their axes are parallel, else by GDAL's warp."""

from collections.abc import Sequence
from functools import lru_cache
from typing import TypeVar

import numpy as np
from affine import Affine

from s2cube.errors import SliceError
from s2cube.raster._warp import pixels_of_parts, sum_by_warp, warp_classes
from s2cube.raster.cells import Axis, Weights
from s2cube.raster.lattice import Lattice, Raster, Report, classes_of, clipped, digital_numbers

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


def pixels_under(raster: Lattice, grid: Lattice, parts: np.ndarray) -> np.ndarray:
    """Return the rectangles of pixels that `sum_areas` and `sample_classes` read for parts of a grid, (n, 4)."""
    if not _is_aligned(raster, grid):
        return pixels_of_parts(raster, grid, parts)
    rows, columns = _edges(raster, grid)
    low, high = (np.stack([rows[parts[:, top]], columns[parts[:, left]]], axis=1) for top, left in ((0, 2), (1, 3)))
    edges = np.stack([np.floor(low), np.ceil(high)], axis=2).reshape(-1, 4)
    return clipped(edges, (raster.height, raster.width))


def sum_areas(raster: Raster, grid: Lattice, parts: np.ndarray, out: np.ndarray, report: Report | None = None) -> None:
    """Sum the digital numbers of the pixels in each cell, weighted by area.

    Parameters
    ----------
    parts
        (parts, 4): rectangles of cells, see `rectangles`. Values of other cells are not specified.
    out
        (rows, columns), complex64, filled with zeros by the caller. The imaginary part becomes the share of the cell
        that valid pixels cover, 0 to 1. The real part becomes the sum of their digital numbers, each multiplied by the
        share of the cell that its pixel covers.
    report
        If given, each rectangle of cells that needs a tile that cannot be read is reported, and the other cells are
        summed. Otherwise the error is raised.
    """
    if _is_aligned(raster.lattice, grid):
        _sum_by_shares(raster, grid, parts, out, report)
    else:
        sum_by_warp(raster, grid, parts, out, report)


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


def _sum_by_shares(raster: Raster, grid: Lattice, parts: np.ndarray, out: np.ndarray, report: Report | None) -> None:
    rows, columns = _axes(raster.lattice.transform, grid.transform, grid.height, grid.width)
    for block in raster.blocks(pixels_under(raster.lattice, grid, parts), _of_cells(rows, columns, report)):
        down = rows.weights(block.row, block.row + block.pixels.shape[0])
        across = columns.weights(block.column, block.column + block.pixels.shape[1])
        dn, valid = digital_numbers(block, raster.nodata)
        sums = out[down.cells, across.cells]
        sums.real += _weighted_sums(down, across, dn)
        sums.imag += across.times(down.sums) if valid is None else _weighted_sums(down, across, valid.view("uint8"))
    # Only now, so that each sum is rounded once, however many blocks a cell consists of.
    if (whole := rows.whole * columns.whole) != 1:
        numbers = out.view("float32")
        numbers /= np.float32(whole)


def _weighted_sums(rows: Weights, columns: Weights, pixels: np.ndarray) -> np.ndarray:
    return columns.sum_rows(rows.sum_rows(pixels).T).T


def _of_cells(rows: Axis, columns: Axis, report: Report | None) -> Report | None:
    """Convert a report of cells to a report of pixels."""
    if report is None:
        return None

    def report_pixels(pixels: np.ndarray, error: SliceError) -> None:
        top, bottom, left, right = pixels.tolist()
        report(np.array([*rows.cells(top, bottom), *columns.cells(left, right)]), error)

    return report_pixels


def sample_classes(
    raster: Raster, grid: Lattice, parts: np.ndarray, out: np.ndarray, report: Report | None = None
) -> None:
    """Fill an array (rows, columns) with the class at the centre of each cell, 0 if there is no pixel.

    Parameters
    ----------
    parts, report
        As those of `sum_areas`.

    Raises
    ------
    ValueError
        If a pixel is several cells wide and begins inside a cell: that cell would get the class of only one of its
        pixels. This does not matter if cells do not nest in 20 m pixels: then `mask.screen` widens masks by one cell.
    """
    if not _is_aligned(raster.lattice, grid):
        warp_classes(raster, grid, parts, out, report)
        return
    needed = pixels_under(raster.lattice, grid, parts)
    if _begin_within_cells(raster.lattice, grid, needed):
        raise ValueError("its pixels are not aligned with those of Sentinel-2 granules")
    centres = _positions(raster.lattice, grid, np.arange(grid.height) + 0.5, np.arange(grid.width) + 0.5)
    rows, columns = (np.floor(each).astype(int) for each in centres)
    row_axis, column_axis = _axes(raster.lattice.transform, grid.transform, grid.height, grid.width)
    for block in raster.blocks(needed, _of_cells(row_axis, column_axis, report)):
        height, width = block.pixels.shape
        down, across = (
            slice(*np.searchsorted(pixels, (start, start + length)))
            for pixels, start, length in ((rows, block.row, height), (columns, block.column, width))
        )
        # Select columns first, so that the second step copies whole rows, which is faster.
        classes = classes_of(block, raster.nodata, out.dtype).take(columns[across] - block.column, axis=1)
        out[down, across] = classes.take(rows[down] - block.row, axis=0)


def _begin_within_cells(raster: Lattice, grid: Lattice, needed: np.ndarray) -> bool:
    """Return whether any needed pixel that is a whole number of cells wide begins inside a cell."""
    cells_per_pixel = _NEST_IN_M / grid.transform.a
    if abs(cells_per_pixel - round(cells_per_pixel)) > _SNAP:
        return False
    to_grid = ~grid.transform @ raster.transform
    axes = ((to_grid.e, to_grid.f, *needed[:, :2].T), (to_grid.a, to_grid.c, *needed[:, 2:].T))
    for width, origin, start, stop in axes:
        off = abs(width - round(width))
        first = origin + width * start
        deviation = np.abs(first - np.round(first)) + off * (stop - start)
        if round(width) and off < _LATTICE_TOLERANCE <= deviation.max(initial=0):
            return True
    return False
