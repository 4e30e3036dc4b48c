"""Resample pixels of a raster to cells of a grid with another CRS, or with other axes, by GDAL's warp.

GDAL's values depend on the windows that it warps. So the lattice of the grid, which has cell edges at multiples of the
cell size from the origin of the CRS, is cut into fixed tiles, and always a complete tile is warped, from the pixels
under the complete tile. The value of a cell then depends only on the file and on the lattice, not on the grid, its
chunks or its parts. Only the pixels that needed cells need are read. The other pixels of a tile are nodata, which
changes only cells that are not needed.
"""

import warnings
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import rasterio.warp
from affine import Affine
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window

from s2cube.errors import SliceError
from s2cube.raster.lattice import (
    DN_NODATA,
    Block,
    Lattice,
    Raster,
    Report,
    classes_of,
    clipped,
    cut,
    overlap,
    slices,
    zero_as_nodata,
)

# rasterio suppresses this warning for its own in-memory rasters, but not reliably with several threads. AssetReader
# raises an error for files that are not georeferenced.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning, module=r"rasterio\.")

_MOST_CELLS, _MOST_PIXELS = 128, 1024
"""Maximum side of a tile in cells, and approximately in pixels of the raster: 2 MB of digital numbers, 8 MB of
intermediate arrays. With smaller tiles, large areas take longer, with larger tiles small areas."""

_CLASS_TILES = 4
"""Number of tiles per side that are warped together for classes: sampling a cell takes much less time than averaging
its pixels, but a warp takes 2.5 ms in any case."""

_MARGIN = 4
"""Margin around the pixels that cells need. It is larger than the errors of GDAL's approximate transformer (1/8 pixel)
and of `_bounds`."""

_POINTS = 5
"""Number of points along a side of a rectangle that are transformed. Between them, a side of 110 km deviates from a
straight line by less than 20 m."""

_SNAP = 1e-6
"""Fraction of a cell. An offset of a grid from multiples of the cell size that is smaller is a rounding error."""

_DEGREE_M = 111_320
"""Length of a degree on the equator. It is only used to choose the size of tiles."""


class _Tile(NamedTuple):
    """A tile of the lattice.

    Parameters
    ----------
    lattice
        Its cells.
    cells
        Rectangle of its cells in the grid; a part of it may lie outside the grid.
    pixels
        Rectangle of the pixels under the complete tile.
    needed
        Rectangle of the pixels in it that are needed.
    """

    lattice: Lattice
    cells: np.ndarray
    pixels: np.ndarray
    needed: np.ndarray


def pixels_of_parts(raster: Lattice, grid: Lattice, parts: np.ndarray) -> np.ndarray:
    """Return the rectangles of pixels that are read for parts of a grid, (n, 4)."""
    return _plan(raster, grid, parts, 1)[1]


def sum_by_warp(raster: Raster, grid: Lattice, parts: np.ndarray, out: np.ndarray, report: Report | None) -> None:
    """Sum the digital numbers of the pixels in each cell, see `_resample.sum_areas`."""
    for tile, dn in _sources(raster, grid, parts, None, report):
        # A pixel without data adds 0 to both sums, as pixels beyond the file do.
        pixels = np.stack([dn, dn != DN_NODATA]).astype("float32")
        warped = np.zeros((2, tile.lattice.height, tile.lattice.width), "float32")
        rasterio.warp.reproject(pixels, warped, **_warp_options(raster.lattice, tile), resampling=Resampling.average)
        inside, of_tile = _overlap(tile, out)
        out.real[inside], out.imag[inside] = warped[0][of_tile], warped[1][of_tile]


def warp_classes(raster: Raster, grid: Lattice, parts: np.ndarray, out: np.ndarray, report: Report | None) -> None:
    """Fill an array with the class at the centre of each cell, see `_resample.sample_classes`."""
    for tile, classes in _sources(raster, grid, parts, out.dtype, report):
        warped = np.zeros((tile.lattice.height, tile.lattice.width), out.dtype)
        rasterio.warp.reproject(classes, warped, **_warp_options(raster.lattice, tile), resampling=Resampling.nearest)
        inside, of_tile = _overlap(tile, out)
        out[inside] = warped[of_tile]


def _overlap(tile: _Tile, out: np.ndarray) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return where a tile lies in the grid's array, and which cells of the tile these are."""
    (inside,) = clipped(tile.cells[np.newaxis], (out.shape[0], out.shape[1]))
    return slices(inside), slices(inside - np.repeat(tile.cells[::2], 2))


def _sources(
    raster: Raster, grid: Lattice, parts: np.ndarray, dtype: "np.dtype[Any] | None", report: Report | None
) -> Iterator[tuple[_Tile, np.ndarray]]:
    """Yield tiles of the lattice and the pixels under them, with a margin, as soon as these are complete.

    Each block is read once, and a tile is kept only until its last block has been read. Tiles without a valid pixel are
    left out.

    Parameters
    ----------
    dtype
        dtype of classes. None: digital numbers, in the dtype of the file.
    """
    tiles, needed = _plan(raster.lattice, grid, parts, 1 if dtype is None else _CLASS_TILES)
    extents = raster.extents(needed)
    order = {(top, left): position for position, (top, _, left, _) in enumerate(extents.tolist())}
    lasts = [int(np.flatnonzero(overlap(extents, tile.needed)).max(initial=-1)) for tile in tiles]
    waiting = deque(sorted(range(len(tiles)), key=lasts.__getitem__))
    all_needed = np.array([tile.needed for tile in tiles]).reshape(-1, 4)
    sources: dict[int, np.ndarray] = {}
    for block in raster.blocks(needed, _of_cells(raster.lattice, grid, report)):
        pixels = zero_as_nodata(block, raster.nodata) if dtype is None else classes_of(block, raster.nodata, dtype)
        extent = np.array([block.row, block.row + len(pixels), block.column, block.column + pixels.shape[1]])
        for number in np.flatnonzero(overlap(all_needed, extent)).tolist():
            tile = tiles[number]
            if number not in sources:
                sources[number] = np.zeros(_padded(tile), pixels.dtype)
            _copy(block, pixels, tile, sources[number])
        while waiting and lasts[waiting[0]] <= order[block.row, block.column]:
            number = waiting.popleft()
            if (source := sources.pop(number, None)) is not None and source.any():
                yield tiles[number], source
    # The last blocks may have been left out, because they cannot be read.
    yield from ((tiles[number], source) for number, source in sources.items() if source.any())


def _padded(tile: _Tile) -> tuple[int, int]:
    top, bottom, left, right = tile.pixels.tolist()
    return bottom - top + 2 * _MARGIN, right - left + 2 * _MARGIN


def _copy(block: Block, pixels: np.ndarray, tile: _Tile, source: np.ndarray) -> None:
    """Copy the pixels of a block to the pixels under a tile."""
    first = np.repeat([block.row, block.column], 2)
    ((top, bottom, left, right),) = clipped(tile.pixels[np.newaxis] - first, pixels.shape).tolist()
    row, column = first[::2] - tile.pixels[::2] + _MARGIN
    source[row + top : row + bottom, column + left : column + right] = pixels[top:bottom, left:right]


def _warp_options(raster: Lattice, tile: _Tile) -> dict[str, Any]:
    shift = Affine.translation(tile.pixels[2] - _MARGIN, tile.pixels[0] - _MARGIN)
    return {
        "src_crs": raster.crs, "src_transform": raster.transform @ shift,
        "dst_crs": tile.lattice.crs, "dst_transform": tile.lattice.transform,
    }  # fmt: skip


def _of_cells(raster: Lattice, grid: Lattice, report: Report | None) -> Report | None:
    """Convert a report of cells to a report of pixels."""
    if report is None:
        return None

    def report_pixels(pixels: np.ndarray, error: SliceError) -> None:
        near = pixels + np.array([-_MARGIN, _MARGIN, -_MARGIN, _MARGIN])
        for cells in clipped(_bounds(raster, grid, near[np.newaxis]), (grid.height, grid.width)):
            report(cells, error)

    return report_pixels


def _plan(raster: Lattice, grid: Lattice, parts: np.ndarray, together: int) -> tuple[list[_Tile], np.ndarray]:
    """Return the tiles of the lattice that parts touch, and the rectangles of pixels that the parts need, (n, 4).

    Parameters
    ----------
    together
        Number of tiles per side that are joined to one. The rectangles of pixels do not depend on it.
    """
    side, shape = _side(raster, grid), np.array([raster.height, raster.width])
    lattice, first = _place(grid)
    numbers, cells = cut(parts + first, (side, side))
    pixels = np.clip(_bounds(lattice, raster, cells, _MARGIN), 0, np.repeat(shape, 2))
    some = (pixels[:, 0] < pixels[:, 1]) & (pixels[:, 2] < pixels[:, 3])
    numbers, of = np.unique(numbers[some] // together, axis=0, return_inverse=True)
    pixels, side = pixels[some], side * together
    low, high = np.repeat(shape[np.newaxis], len(numbers), axis=0), np.zeros((len(numbers), 2), int)
    np.minimum.at(low, of.ravel(), pixels[:, ::2])
    np.maximum.at(high, of.ravel(), pixels[:, 1::2])
    needed = np.stack([low, high], axis=2).reshape(-1, 4)
    complete = np.repeat(numbers * side, 2, axis=1) + np.array([0, side, 0, side])
    under = np.clip(_bounds(lattice, raster, complete, _MARGIN), 0, np.repeat(shape, 2))
    tiles = [
        _Tile(lattice.part(Window(each[2], each[0], side, side)), each - first, *rects)
        for each, *rects in zip(complete, under, needed, strict=True)
    ]
    return tiles, pixels


def _place(grid: Lattice) -> tuple[Lattice, np.ndarray]:
    """Return the lattice of a grid, from the origin of the CRS, and what is added to a rectangle to be one of it."""
    a, e = grid.transform.a, grid.transform.e
    places = grid.transform.f / e, grid.transform.c / a
    numbers = [round(place) for place in places]
    # Cell edges of a grid that is not ours may lie between multiples of the cell size.
    down, right = (
        0.0 if abs(place - number) < _SNAP else round(place - number, 6)
        for place, number in zip(places, numbers, strict=True)
    )
    return Lattice(grid.crs, Affine.scale(a, e) @ Affine.translation(right, down), 0, 0), np.repeat(numbers, 2)


def _side(raster: Lattice, grid: Lattice) -> int:
    """Return the side of a tile of the lattice, cells. It depends only on the sizes of cells and pixels."""
    pixel_m = raster.pixel_m * (1 if raster.crs.is_projected else _DEGREE_M)
    side = _MOST_CELLS
    while side > 1 and side * grid.transform.a > _MOST_PIXELS * pixel_m:
        side //= 2
    return side


def _bounds(source: Lattice, target: Lattice, rects: np.ndarray, margin: int = 0) -> np.ndarray:
    """Return the rectangles of one lattice that cover rectangles of another one, (n, 4)."""
    along = np.linspace(0, 1, _POINTS)
    down, across = (each.ravel() for each in np.meshgrid(along, along, indexing="ij"))
    outer = (down % 1 == 0) | (across % 1 == 0)
    rows, columns = (
        rects[:, start, np.newaxis] + (rects[:, stop] - rects[:, start])[:, np.newaxis] * shares[outer]
        for start, stop, shares in ((0, 1, down), (2, 3, across))
    )
    x, y = source.transform @ (columns, rows)
    there = rasterio.warp.transform(source.crs, target.crs, x.ravel(), y.ravel())
    columns, rows = ~target.transform @ tuple(np.reshape(each, x.shape) for each in there)
    lows, highs = (np.stack([reduce(rows, 1), reduce(columns, 1)], axis=1) for reduce in (np.min, np.max))
    bounds = np.stack([np.floor(lows) - margin, np.ceil(highs) + margin], axis=2).reshape(-1, 4)
    # A projection may have no values for some points.
    everything = np.array([0, target.height, 0, target.width])
    return np.where(np.isfinite(bounds), bounds, everything).clip(-(2**40), 2**40).astype("int64")
