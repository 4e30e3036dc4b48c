"""Rows and columns of pixels, and blocks of pixels: the input of `_resample`."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import rasterio
from affine import Affine
from rasterio.windows import Window

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
