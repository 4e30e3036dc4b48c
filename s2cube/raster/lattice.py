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
    inside: np.ndarray = np.clip(rects, 0, np.repeat(shape, 2)).astype("int64")
    return inside[(inside[:, 0] < inside[:, 1]) & (inside[:, 2] < inside[:, 3])]


def around(rects: np.ndarray) -> np.ndarray:
    """Return the rectangle around rectangles, (4,)."""
    return np.array([rects[:, 0].min(), rects[:, 1].max(), rects[:, 2].min(), rects[:, 3].max()])


def slices(rect: np.ndarray) -> tuple[slice, slice]:
    """Return the rows and columns of a rectangle."""
    top, bottom, left, right = rect.tolist()
    return slice(top, bottom), slice(left, right)


def overlap(rects: np.ndarray, rect: np.ndarray) -> np.ndarray:
    """Return for each rectangle whether it overlaps another one, (rectangles,)."""
    return np.asarray(
        (rects[:, 0] < rect[1]) & (rect[0] < rects[:, 1]) & (rects[:, 2] < rect[3]) & (rect[2] < rects[:, 3])
    )


def cut(rects: np.ndarray, tile_shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Cut rectangles at the edges of tiles.

    Parameters
    ----------
    rects
        (rectangles, 4), none empty, see `rectangles`.
    tile_shape
        Rows and columns of a tile.

    Returns
    -------
    numpy.ndarray
        (pieces, 2): tile row and tile column of each piece.
    numpy.ndarray
        (pieces, 4): the pieces.
    """
    starts, stops = rects[:, ::2], rects[:, 1::2]
    first, last = starts // tile_shape, -(-stops // tile_shape)
    counts = (last - first).prod(axis=1)
    of = np.repeat(np.arange(len(rects)), counts)
    position = np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts)
    tiles = first[of] + np.stack(np.divmod(position, (last - first)[of, 1]), axis=1)
    low, high = np.maximum(starts[of], tiles * tile_shape), np.minimum(stops[of], (tiles + 1) * tile_shape)
    return tiles, np.stack([low, high], axis=2).reshape(-1, 4)


def tiles_under(rects: np.ndarray, tile_shape: tuple[int, int], tiles_across: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the tiles that rectangles of pixels touch.

    Parameters
    ----------
    rects, tile_shape
        As those of `cut`.
    tiles_across
        Number of tile columns.

    Returns
    -------
    numpy.ndarray
        (tiles,): numbers of the tiles, row by row, in ascending order.
    numpy.ndarray
        (tiles, 4): in each tile the rectangle around all rectangles in it.
    """
    of, pieces = cut(rects, tile_shape)
    tiles, of_tiles = np.unique(of @ np.array([tiles_across, 1]), return_inverse=True)
    low, high = np.full((len(tiles), 2), np.iinfo("int64").max), np.zeros((len(tiles), 2), "int64")
    np.minimum.at(low, of_tiles, pieces[:, ::2])
    np.maximum.at(high, of_tiles, pieces[:, 1::2])
    return tiles, np.stack([low, high], axis=2).reshape(-1, 4)


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

    def extents(self, rects: np.ndarray) -> np.ndarray:
        """Return the rectangles of the blocks that `blocks` yields, in the same order, (blocks, 4)."""

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


def zero_as_nodata(block: Block, nodata: float | None) -> np.ndarray:
    """Return pixels with 0 as nodata."""
    if block.mask is None and nodata in (None, DN_NODATA):
        return block.pixels
    return np.where(_valid(block, nodata), block.pixels, np.zeros((), block.pixels.dtype))


def classes_of(block: Block, nodata: float | None, dtype: "np.dtype[Any]") -> np.ndarray:
    """Return classes in a dtype, with 0 as nodata."""
    pixels = zero_as_nodata(block, nodata)
    if pixels.dtype == dtype:
        return pixels
    # Classes fit into a byte. A larger value is not a class. Clip it, so that a cast does not wrap it to a class.
    return np.asarray(np.clip(pixels, 0, np.iinfo(dtype).max), dtype)
