"""Rows and columns of pixels, blocks of pixels, and their overlap with cells: the input of `_resample`."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np
import rasterio
from affine import Affine
from rasterio.windows import Window
from scipy.sparse import csr_array

DN_NODATA = 0
"""Digital number 0 is nodata in every Sentinel-2 L2A band (Products Specification Document)."""


_UNITS, _MOST_UNITS = (1, 2, 3, 6), 16
"""Numbers of units per pixel: edges of cells of 10, 20, 30 m and more are at whole units of pixels of 10, 20 and 60 m.
Largest number of units per cell: float32 represents sums of 16 × 16 pixels of 16 bits exactly (less than 2 ** 24)."""

_LENGTH_ERROR, _EDGE_ERROR = 1e-12, 1e-8
"""Rounding errors of the length of a cell and of edges, pixels. Edges have nine decimals."""

_KEPT_BLOCKS = 32
"""Number of blocks whose weights are kept for each axis. They are the same for all scenes of a tile."""


@dataclass(frozen=True)
class Lattice:
    """Rows and columns of a grid, north-up or rotated."""

    crs: rasterio.crs.CRS
    transform: Affine
    height: int
    width: int

    def part(self, window: Window) -> "Lattice":
        """Return the lattice of a window."""
        shifted = self.transform @ Affine.translation(window.col_off, window.row_off)
        return Lattice(self.crs, shifted, window.height, window.width)

    @property
    def pixel_m(self) -> float:
        """Length of a pixel's longer side, in units of the CRS."""
        transform = self.transform
        return max(math.hypot(transform.a, transform.d), math.hypot(transform.b, transform.e))


class Block(NamedTuple):
    """Pixels of a raster, (rows, columns). `row` and `column` are those of the first one. `mask`: True where valid."""

    row: int
    column: int
    pixels: np.ndarray
    mask: np.ndarray | None = None


class Raster(Protocol):
    """One band of integers on a lattice, read in blocks."""

    @property
    def lattice(self) -> Lattice:
        """Rows and columns of pixels, and their location."""

    @property
    def nodata(self) -> float | None:
        """Nodata value of the file, if it has one."""

    def blocks(self, window: Window) -> Iterator[Block]:
        """Yield the pixels of a window, each once. Pixels that are not yielded are nodata."""


def digital_numbers(block: Block, nodata: float | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Return digital numbers with 0 as nodata, and where they are valid. None: valid everywhere."""
    pixels = block.pixels
    if block.mask is None and nodata in (None, DN_NODATA):
        return pixels, None if pixels.all() else pixels != DN_NODATA
    valid = _valid(block, nodata) & (pixels != DN_NODATA)
    return np.where(valid, pixels, np.zeros((), pixels.dtype)), valid


def _valid(block: Block, nodata: float | None) -> np.ndarray:
    """Return which pixels are valid by the nodata value and the mask of the file."""
    valid = np.ones(block.pixels.shape, bool) if nodata is None else block.pixels != nodata
    return valid if block.mask is None else valid & block.mask


def classes_of(block: Block, nodata: float | None, dtype: "np.dtype[Any]") -> np.ndarray:
    """Return classes in a dtype, with 0 as nodata."""
    pixels = block.pixels
    if pixels.dtype != dtype:
        # Classes fit into a byte. A larger value is not a class. Clip it, so that a cast does not wrap it to a class.
        pixels = np.clip(pixels, 0, np.iinfo(dtype).max).astype(dtype)
    if block.mask is None and nodata in (None, 0):
        return pixels
    return np.where(_valid(block, nodata), pixels, np.zeros((), dtype))


@dataclass(frozen=True)
class _Matrix:
    """Weights of pixels of a block (columns of `matrix`) in cells (its rows), and the sum of each row."""

    cells: slice
    sums: np.ndarray
    matrix: csr_array

    def sum_rows(self, pixels: np.ndarray) -> np.ndarray:
        """Sum rows of pixels to rows of cells."""
        return np.asarray(self.matrix @ np.ascontiguousarray(pixels, "float32"))


@dataclass(frozen=True)
class _Steps:
    """Weights of pixels that follow a pattern: each step adds every n-th pixel to every m-th cell.

    Parameters
    ----------
    whole
        Sum of the weights of a cell that is completely covered.
    steps
        Cells, pixels and their weight.
    """

    cells: slice
    sums: np.ndarray
    whole: int
    steps: tuple[tuple[slice, slice, int], ...]

    def sum_rows(self, pixels: np.ndarray) -> np.ndarray:
        """Sum rows of pixels to rows of cells."""
        shape = (len(self.sums), pixels.shape[1])
        if len(self.steps) == 1 and self.steps[0][2] == 1 and pixels.shape == shape:
            return pixels
        # Integers are faster if sums fit into their type: usually they do, because few pixels are very bright.
        fits = pixels.dtype.kind == "u" and int(pixels.max(initial=0)) * self.whole <= np.iinfo(pixels.dtype).max
        sums = np.zeros_like(pixels, pixels.dtype if fits else "float32", shape=shape)
        for cells, rows, weight in self.steps:
            sums[cells] += pixels[rows] if weight == 1 else pixels[rows] * sums.dtype.type(weight)
        return sums


Weights = _Matrix | _Steps
"""How pixels of a block are summed to cells along an axis."""


class Axis:
    """Overlap of the rows of a grid with the rows of a raster, or of the columns with the columns.

    If all edges of cells are at whole units of pixels, weights are counted in units. Sums are then exact.

    Parameters
    ----------
    edges
        Edges of cells, pixels, ascending.
    cell
        Length of a cell, pixels.

    Attributes
    ----------
    whole
        Sum of the weights of a cell that is completely covered.
    """

    def __init__(self, edges: np.ndarray, cell: float) -> None:
        self._edges, self._units, self.whole = edges, 0, 1
        for units in _UNITS:
            # Parts of a grid have the same length, so that all of them, or none, are counted in units.
            length, whole_edges = round(cell * units), np.rint(edges * units)
            is_whole = abs(cell * units - length) < _LENGTH_ERROR and 0 < length <= _MOST_UNITS
            if is_whole and np.abs(edges * units - whole_edges).max() < _EDGE_ERROR:
                self._edges, self._units, self.whole = whole_edges, units, length
                break
        self.weights = lru_cache(_KEPT_BLOCKS)(self._weights)

    def _weights(self, start: int, stop: int) -> Weights:
        """Return the weights of pixels [start, stop)."""
        edges, pixel = self._edges, self._units or 1
        first = max(0, int(np.searchsorted(edges, start * pixel, "right")) - 1)
        last = min(len(edges) - 1, int(np.searchsorted(edges, stop * pixel, "left")))
        if self._units:
            return self._steps(slice(first, last), start, stop)
        low, high = (edges[at : at + last - first, np.newaxis] for at in (first, first + 1))
        at_most = int(np.ceil(high - low).max(initial=0)) + 1
        pixels = np.floor(low).astype(int) + np.arange(at_most)
        weights = np.clip(np.minimum(pixels + 1, high) - np.maximum(pixels, low), 0, None) / (high - low)
        covers = (weights > 0) & (pixels >= start) & (pixels < stop)
        of_cells = np.broadcast_to(np.arange(last - first)[:, np.newaxis], pixels.shape)
        places = (of_cells[covers], pixels[covers] - start)
        matrix = csr_array((weights[covers].astype("float32"), places), shape=(last - first, stop - start))
        return _Matrix(slice(first, last), matrix @ np.ones(stop - start, "float32"), matrix)

    def _steps(self, cells: slice, start: int, stop: int) -> _Steps:
        units, whole, count = self._units, self.whole, cells.stop - cells.start
        steps = []
        # The pattern repeats: `units` cells are as long as `whole` pixels.
        for cell in range(units):
            low = int(self._edges[cells.start]) + cell * whole
            for pixel in range(low // units, -(-(low + whole) // units)):
                weight = min((pixel + 1) * units, low + whole) - max(pixel * units, low)
                first = max(0, -(-(start - pixel) // whole))
                last = min(-(-(count - cell) // units), -(-(stop - pixel) // whole)) - 1
                if first <= last:
                    of_cells = slice(cell + first * units, cell + last * units + 1, units)
                    of_pixels = slice(pixel - start + first * whole, pixel - start + last * whole + 1, whole)
                    steps.append((of_cells, of_pixels, weight))
        sums = np.zeros(count, "float32")
        for of_cells, _, weight in steps:
            sums[of_cells] += weight
        return _Steps(cells, sums, whole, tuple(steps))
