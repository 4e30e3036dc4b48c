"""Pixels of an open file become cells of a grid: by shares of areas where both run along, by GDAL's warp elsewhere."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import rasterio
import rasterio.warp
from affine import Affine
from rasterio.enums import MaskFlags, Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window
from scipy.sparse import csr_array

# rasterio mutes this warning at its own rasters in memory, but when two threads do so at once it gets through. Of files
# that are not georeferenced AssetReader makes an error.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning, module=r"rasterio\.")

_DN_NODATA = 0
"""Digital number 0 is no data in every Sentinel-2 L2A band (Products Specification Document)."""

_STRIPE_PIXELS = 4_000_000
"""Bound of the native pixels held at a time: 8 MB of digital numbers, 32 MB of what is computed of them."""

_WARP_MARGIN = 4
"""Pixels around a warped window: no cell at its rim may miss one, and those beyond the file count as no data."""

_SNAP = 6
"""Decimals of a pixel to which edges are told apart: 10 µm of a 10 m pixel."""


_WHOLE_WITHIN = 0.01
"""Of a cell: edges that are told apart to a millionth of a pixel, over tens of thousands of them."""


@dataclass(frozen=True)
class Lattice:
    """Rows and columns of a north-up or turned grid."""

    crs: rasterio.crs.CRS
    transform: Affine
    height: int
    width: int

    def part(self, window: Window) -> "Lattice":
        """Cut out a window."""
        shifted = self.transform @ Affine.translation(window.col_off, window.row_off)
        return Lattice(self.crs, shifted, window.height, window.width)


def choose_overview(file: rasterio.DatasetReader, grid: Lattice) -> int | None:
    """Choose the coarsest overview whose pixels are no larger than the grid's cells; None for the native pixels.

    The resolution levels of JPEG 2000 are no such overviews: its wavelets blend no data into what is beside it.
    """
    if file.driver != "GTiff" or not file.crs.is_projected:
        return None
    fitting = [
        (factor, level)
        for level, factor in enumerate(file.overviews(1))
        if factor * max(file.res) <= grid.transform.a * (1 + 1e-6)
    ]
    return max(fitting)[1] if fitting else None


def stripes(file: rasterio.DatasetReader, grid: Lattice) -> Iterator[tuple[slice, Lattice]]:
    """Cut a grid into stripes of whole rows under which no more than so many pixels lie."""
    pixels_per_cell = max(1.0, (grid.transform.a / max(file.res)) ** 2) if file.crs.is_projected else 1.0
    rows = max(1, int(_STRIPE_PIXELS / (pixels_per_cell * grid.width)))
    for top in range(0, grid.height, rows):
        height = min(rows, grid.height - top)
        yield slice(top, top + height), grid.part(Window(0, top, grid.width, height))


def sum_areas(file: rasterio.DatasetReader, grid: Lattice, out: np.ndarray) -> None:
    """Fill an array (rows, columns), complex64, with digital numbers summed by shares of areas, and these shares.

    The imaginary part is the share of a cell that valid pixels cover, 0 to 1; the real part the sum of their digital
    numbers by these shares.
    """
    (_closed_form if _is_aligned(file, grid) else _warped)(file, grid, out)


def _is_aligned(file: rasterio.DatasetReader, grid: Lattice) -> bool:
    """Tell whether rows and columns of a file run along those of the grid."""
    turned = file.transform
    return bool(file.crs == grid.crs and turned.b == turned.d == 0 and turned.a > 0 > turned.e)


def _edges(file: rasterio.DatasetReader, grid: Lattice) -> tuple[np.ndarray, np.ndarray]:
    """Give the edges of the grid's rows and columns in rows and columns of the file."""
    to_file = ~file.transform @ grid.transform
    rows = to_file.f + to_file.e * np.arange(grid.height + 1)
    columns = to_file.c + to_file.a * np.arange(grid.width + 1)
    return np.round(rows, _SNAP), np.round(columns, _SNAP)


def _closed_form(file: rasterio.DatasetReader, grid: Lattice, out: np.ndarray) -> None:
    (rows, first_row), (columns, first_column) = (
        _shares(edges, length) for edges, length in zip(_edges(file, grid), file.shape, strict=True)
    )
    if not (rows.shape[1] and columns.shape[1]):
        return
    dn, valid = _pixels(file, Window(first_column, first_row, columns.shape[1], rows.shape[1]))
    if valid.all():
        out.imag = np.outer(rows.sum(axis=1), columns.sum(axis=1))
    else:
        out.imag = _over(rows, columns, valid.astype("float32"))
    out.real = _over(rows, columns, dn)


def _shares(edges: np.ndarray, length: int) -> tuple[csr_array, int]:
    """Give which share of each cell each pixel of an axis covers: (cells, pixels), and the first of these pixels."""
    first, last = (int(np.clip(edge, 0, length)) for edge in (np.floor(edges[0]), np.ceil(edges[-1])))
    low, high = edges[:-1, np.newaxis], edges[1:, np.newaxis]
    at_most = int(np.ceil(high - low).max()) + 1
    pixels = np.floor(low).astype(int) + np.arange(at_most)
    share = np.clip(np.minimum(pixels + 1, high) - np.maximum(pixels, low), 0, None) / (high - low)
    there = (share > 0) & (pixels >= first) & (pixels < last)
    cells = np.broadcast_to(np.arange(len(low))[:, np.newaxis], pixels.shape)
    shape = (len(low), last - first)
    return csr_array((share[there].astype("float32"), (cells[there], pixels[there] - first)), shape=shape), first


def _over(rows: csr_array, columns: csr_array, pixels: np.ndarray) -> np.ndarray:
    return np.asarray((columns @ np.ascontiguousarray((rows @ pixels).T)).T)


def _pixels(file: rasterio.DatasetReader, window: Window) -> tuple[np.ndarray, np.ndarray]:
    """Read digital numbers, float32, 0 where they are no data; and where they are valid."""
    dn, valid = _read(file, window)
    valid &= dn != _DN_NODATA
    return np.where(valid, dn, 0).astype("float32"), valid


def _read(file: rasterio.DatasetReader, window: Window) -> tuple[np.ndarray, np.ndarray]:
    """Read a window, and where neither the file's nodata nor its internal mask leaves a pixel out."""
    pixels = file.read(1, window=window)
    valid = np.ones(pixels.shape, bool) if file.nodata is None else pixels != file.nodata
    if MaskFlags.per_dataset in file.mask_flag_enums[0]:
        valid &= file.read_masks(1, window=window) != 0
    return pixels, valid


def _warped(file: rasterio.DatasetReader, grid: Lattice, out: np.ndarray) -> None:
    source = _under(file, grid)
    if source is None:
        return
    window, transform = source
    dn, valid = (np.pad(each, _WARP_MARGIN) for each in _pixels(file, window))
    shares, means = np.zeros((2, *out.shape), "float32")
    common = {"src_crs": file.crs, "src_transform": transform, "dst_crs": grid.crs, "dst_transform": grid.transform}
    common |= {"resampling": Resampling.average}
    rasterio.warp.reproject(valid.astype("float32"), shares, **common)
    rasterio.warp.reproject(dn, means, src_nodata=_DN_NODATA, dst_nodata=_DN_NODATA, **common)
    out.imag, out.real = shares, means * shares


def _under(file: rasterio.DatasetReader, grid: Lattice) -> tuple[Window, Affine] | None:
    """Find the window of a file under a grid, and the transform of that window with the margin around it."""
    bounds = rasterio.transform.array_bounds(grid.height, grid.width, grid.transform)
    within = rasterio.warp.transform_bounds(grid.crs, file.crs, *bounds, densify_pts=21)
    corners = [~file.transform @ (x, y) for x in within[::2] for y in within[1::2]]
    columns, rows = zip(*corners, strict=True)
    left, right = (_clamped(edge, file.width) for edge in (min(columns) - _WARP_MARGIN, max(columns) + _WARP_MARGIN))
    top, bottom = (_clamped(edge, file.height) for edge in (min(rows) - _WARP_MARGIN, max(rows) + _WARP_MARGIN))
    if left == right or top == bottom:
        return None
    transform = file.transform @ Affine.translation(left - _WARP_MARGIN, top - _WARP_MARGIN)
    return Window(left, top, right - left, bottom - top), transform


def _clamped(edge: float, length: int) -> int:
    return int(np.clip(np.round(edge), 0, length))


def take_classes(file: rasterio.DatasetReader, grid: Lattice, out: np.ndarray) -> None:
    """Fill an array (rows, columns) with the class under the middle of each cell, 0 where there is none.

    Raises
    ------
    ValueError
        If pixels are as wide as several cells, but begin within one: a cell would be told by a part of what it sees.
    """
    if not _is_aligned(file, grid):
        source = _under(file, grid)
        if source is not None:
            classes = np.pad(_valid_classes(file, source[0], out.dtype), _WARP_MARGIN)
            rasterio.warp.reproject(
                classes, out, src_crs=file.crs, src_transform=source[1], dst_crs=grid.crs,
                dst_transform=grid.transform, resampling=Resampling.nearest,
            )  # fmt: skip
        return
    both = _edges(file, grid)
    for edges in both:
        cells_per_pixel = 1 / (edges[1] - edges[0])
        if _is_whole(cells_per_pixel) and not _is_whole(edges[0] * cells_per_pixel):
            raise ValueError("its pixels do not lie on the lattice of Sentinel-2's granules")
    rows, columns = (np.floor((edges[1:] + edges[:-1]) / 2).astype(int) for edges in both)
    there = [(index >= 0) & (index < length) for index, length in zip((rows, columns), file.shape, strict=True)]
    rows, columns = rows[there[0]], columns[there[1]]
    if rows.size and columns.size:
        window = Window(columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1)
        classes = _valid_classes(file, window, out.dtype)
        out[np.ix_(*there)] = classes[np.ix_(rows - rows[0], columns - columns[0])]


def _is_whole(number: float) -> bool:
    return bool(abs(number - round(number)) < _WHOLE_WITHIN)


def _valid_classes(file: rasterio.DatasetReader, window: Window, dtype: np.dtype[Any]) -> np.ndarray:
    classes, valid = _read(file, window)
    # Bytes hold them: what lies beyond is no class, and must not become one.
    return np.where(valid, np.clip(classes, 0, np.iinfo(dtype).max), 0).astype(dtype)
