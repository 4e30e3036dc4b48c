"""Rows and columns of pixels, and blocks of pixels: the input of `_resample`."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import rasterio
from affine import Affine
from rasterio.windows import Window

from s2cube.errors import SliceError

DN_NODATA = 0
"""Digital number 0 is nodata in every Sentinel-2 L2A band (Products Specification Document)."""


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


def rectangles(windows: Iterable[Window]) -> np.ndarray:
    """Convert windows to rectangles.

    Returns
    -------
    numpy.ndarray
        int64, (windows, 4): the first row, the row after the last one, the first column, the column after the last one.
    """
    edges = [(each.row_off, each.row_off + each.height, each.col_off, each.col_off + each.width) for each in windows]
    return np.array(edges, "int64").reshape(-1, 4)


def clipped(rects: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return the parts of rectangles that lie in an array of this shape. Rectangles outside it are left out."""
    inside: np.ndarray = np.clip(rects, 0, np.repeat(shape, 2))
    return inside[(inside[:, 0] < inside[:, 1]) & (inside[:, 2] < inside[:, 3])]


def around(rects: np.ndarray) -> np.ndarray:
    """Return the rectangle around rectangles, (4,)."""
    return np.array([rects[:, 0].min(), rects[:, 1].max(), rects[:, 2].min(), rects[:, 3].max()])


def slices(rect: np.ndarray) -> tuple[slice, slice]:
    """Return the rows and columns of a rectangle."""
    top, bottom, left, right = rect.tolist()
    return slice(top, bottom), slice(left, right)


def tiles_under(rects: np.ndarray, tile_shape: tuple[int, int], tiles_across: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the tiles that rectangles of pixels touch.

    Parameters
    ----------
    rects
        (rectangles, 4), none empty, see `rectangles`.
    tile_shape
        Rows and columns of a tile.
    tiles_across
        Number of tile columns.

    Returns
    -------
    numpy.ndarray
        (tiles,): numbers of the tiles, row by row, in ascending order.
    numpy.ndarray
        (tiles, 4): in each tile the rectangle around all rectangles in it.
    """
    if not len(rects):
        return np.empty(0, "int64"), rects
    starts, stops = rects[:, ::2], rects[:, 1::2]
    first, last = starts // tile_shape, -(-stops // tile_shape)
    counts = (last - first).prod(axis=1)
    # One line for each pair of a rectangle and a tile that it touches.
    of = np.repeat(np.arange(len(rects)), counts)
    position = np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts)
    tile = first[of] + np.stack(np.divmod(position, (last - first)[of, 1]), axis=1)
    low, high = np.maximum(starts[of], tile * tile_shape), np.minimum(stops[of], (tile + 1) * tile_shape)
    number = tile @ np.array([tiles_across, 1])
    order = np.argsort(number, kind="stable")
    tiles, begin = np.unique(number[order], return_index=True)
    low, high = np.minimum.reduceat(low[order], begin), np.maximum.reduceat(high[order], begin)
    return tiles, np.stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1]], axis=1)


class Block(NamedTuple):
    """Pixels of a raster, (rows, columns). `row` and `column` are those of the first one. `mask`: True where valid."""

    row: int
    column: int
    pixels: np.ndarray
    mask: np.ndarray | None = None


Report: TypeAlias = Callable[[np.ndarray, SliceError], None]
"""Called for each tile that cannot be read, with its rectangle, (4,), and the error."""


class Raster(Protocol):
    """One band of integers on a lattice, read in blocks."""

    @property
    def lattice(self) -> Lattice:
        """Rows and columns of pixels, and their location."""

    @property
    def nodata(self) -> float | None:
        """Nodata value of the file, if it has one."""

    def blocks(self, rects: np.ndarray, report: Report | None = None) -> Iterator[Block]:
        """Yield the pixels of rectangles, each once, in an order that does not depend on the rectangles.

        Pixels that are not yielded are nodata. Pixels between the rectangles may be yielded, too.

        Parameters
        ----------
        rects
            (rectangles, 4), none empty, see `rectangles`.
        report
            If given, tiles that cannot be read are reported and left out. Otherwise the first one raises its error.
        """


def digital_numbers(block: Block, nodata: float | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Return digital numbers, float32, with 0 as nodata, and where they are valid. None: valid everywhere."""
    dn = block.pixels.astype("float32")
    if block.mask is None and nodata in (None, DN_NODATA):
        return dn, None if block.pixels.all() else block.pixels != DN_NODATA
    valid = _valid(block, nodata) & (block.pixels != DN_NODATA)
    return np.where(valid, dn, np.float32(0)), valid


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
