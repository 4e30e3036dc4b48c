"""Sum pixels to cells along an axis, and pack the mean and the valid share of each cell into four bytes.

A cell is an unsigned integer of 32 bits. It is 0 if the cell has no valid pixel. If valid pixels cover the whole cell,
the integer has the bits of their mean, a positive float32. If they cover only a part, the highest bit is set. The next
15 bits are the share, in 16380ths of the cell's area. The last 16 bits are the rounded mean.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.sparse import csr_array

CELLS = np.dtype("uint32")
"""dtype of an array of packed cells. Unpack it before any arithmetic."""

WHOLE = 0.999
"""A cell with at least this share is considered completely covered, because shares are rounded."""

_SHARE_UNITS = 16380
"""Less than 2 to the power of 14. It is a multiple of 4, 5, 7 and 9, because pixels of 10, 20 and 60 m cover
such fractions of cells."""

_PARTIAL_BIT = np.uint32(1 << 31)
_LARGEST_DN = 65535
_CELLS_AT_ONCE = 1 << 15


_UNITS, _MOST_UNITS = (1, 2, 3, 6), 16
"""Numbers of units per pixel: edges of cells of 10, 20, 30 m and more are at whole units of pixels of 10, 20 and 60 m.
Largest number of units per cell: float32 represents sums of 16 × 16 pixels of 16 bits exactly (less than 2 ** 24)."""

_LENGTH_ERROR, _EDGE_ERROR = 1e-12, 1e-8
"""Rounding errors of the length of a cell and of edges, pixels. Edges have nine decimals."""

_KEPT_BLOCKS = 32
"""Number of blocks whose weights are kept for each axis. They are the same for all scenes of a tile."""


def pack(sums: np.ndarray) -> np.ndarray:
    """Pack sums into cells.

    Parameters
    ----------
    sums
        (rows, columns), complex64, as `_resample.sum_areas` computes it. Real part: sum of digital numbers, weighted by
        the share of the cell's area. Imaginary part: sum of these shares.

    Returns
    -------
    numpy.ndarray
        (rows, columns), `CELLS`.

    Raises
    ------
    ValueError
        If a mean is outside the range of 16-bit digital numbers.
    """
    cells = np.empty(sums.shape, CELLS)
    # Process a few rows at a time, so that intermediate arrays stay in the processor's cache.
    rows = max(1, _CELLS_AT_ONCE // sums.shape[1])
    for top in range(0, len(sums), rows):
        _pack_rows(sums[top : top + rows], cells[top : top + rows])
    return cells


def _pack_rows(sums: np.ndarray, out: np.ndarray) -> None:
    share, mean = sums.imag, out.view("float32")
    if all_whole := share.min() >= WHOLE:
        np.divide(sums.real, share, out=mean)
    else:
        some = share > 0
        mean[:] = 1
        np.divide(sums.real, share, out=mean, where=some)
    low, high = mean.min(), mean.max()
    if not 0 < low <= high <= _LARGEST_DN:
        raise ValueError(f"it contains {low if low <= 0 else high:g}, which is not a 16-bit digital number")
    if not all_whole:
        out *= some
        cut = some & (share < WHOLE)
        units = np.clip(np.rint(share[cut] * np.float32(_SHARE_UNITS)), 1, _SHARE_UNITS - 1).astype(CELLS)
        out[cut] = units << 16 | np.rint(mean[cut]).astype(CELLS) | _PARTIAL_BIT


def whole_means(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the means of cells, float32, and where they are valid: in completely covered cells. Means are a view."""
    return cells.view("float32"), cells.view("int32") > 0


def unpack(cells: np.ndarray) -> np.ndarray:
    """Return the sums that `pack` has packed, complex64. They are rounded where a cell is partly covered."""
    means, whole = whole_means(cells)
    partial = cells >= _PARTIAL_BIT
    share = np.where(partial, (cells >> 16 & 0x7FFF) / np.float32(_SHARE_UNITS), whole.astype("float32"))
    sums = np.empty(cells.shape, "complex64")
    sums.real, sums.imag = np.where(partial, (cells & 0xFFFF).astype("float32"), means) * share, share
    return sums


@dataclass(frozen=True)
class _Matrix:
    """Weights of pixels of a block (columns of `matrix`) in cells (its rows), and the sum of each row."""

    cells: slice
    sums: np.ndarray
    matrix: csr_array

    def sum_rows(self, pixels: np.ndarray) -> np.ndarray:
        """Sum rows of pixels to rows of cells."""
        return np.asarray(self.matrix @ np.ascontiguousarray(pixels, "float32"))

    def times(self, sums: np.ndarray) -> np.ndarray:
        """Return the weights in cells of another axis and this one, from the sums of weights of the other axis.

        A cell must not depend on whether pixels of other cells are valid, so this equals `sum_rows` of valid pixels to
        the last bit. It is faster, because few sums differ.
        """
        different, of_rows = np.unique(sums, return_inverse=True)
        shape = (self.matrix.shape[1], len(different))
        return np.asarray(self.matrix @ np.broadcast_to(different, shape)).T[of_rows]


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

    def times(self, sums: np.ndarray) -> np.ndarray:
        """Return the weights in cells of another axis and this one, from the sums of weights of the other axis."""
        return np.outer(sums, self.sums)


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

    def cells(self, start: int, stop: int) -> tuple[int, int]:
        """Return the first cell that pixels [start, stop) overlap, and the cell after the last one."""
        edges, pixel = self._edges, self._units or 1
        first = max(0, int(np.searchsorted(edges, start * pixel, "right")) - 1)
        return first, min(len(edges) - 1, int(np.searchsorted(edges, stop * pixel, "left")))

    def _weights(self, start: int, stop: int) -> Weights:
        """Return the weights of pixels [start, stop)."""
        first, last = self.cells(start, stop)
        if self._units:
            return self._steps(slice(first, last), start, stop)
        low, high = (self._edges[at : at + last - first, np.newaxis] for at in (first, first + 1))
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
