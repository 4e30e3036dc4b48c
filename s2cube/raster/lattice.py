"""Rows and columns of pixels, and blocks of pixels on them: what `resample` works on."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import rasterio
from affine import Affine
from rasterio.windows import Window

DN_NODATA = 0
"""Digital number 0 is no data in every Sentinel-2 L2A band (Products Specification Document)."""


@dataclass(frozen=True)
class Lattice:
    """Rows and columns of a grid, north-up or turned."""

    crs: rasterio.crs.CRS
    transform: Affine
    height: int
    width: int

    def part(self, window: Window) -> "Lattice":
        """Cut out a window."""
        shifted = self.transform @ Affine.translation(window.col_off, window.row_off)
        return Lattice(self.crs, shifted, window.height, window.width)

    @property
    def pixel_m(self) -> float:
        """Length of a pixel's longer side, in units of the CRS."""
        turned = self.transform
        return max(math.hypot(turned.a, turned.d), math.hypot(turned.b, turned.e))


class Block(NamedTuple):
    """Pixels of a raster, (rows, columns), from a row and a column on; `mask` is True where they are valid."""

    row: int
    column: int
    pixels: np.ndarray
    mask: np.ndarray | None = None


class Raster(Protocol):
    """One band of integers on a lattice. It is read in blocks."""

    @property
    def lattice(self) -> Lattice:
        """Where its pixels lie."""

    @property
    def nodata(self) -> float | None:
        """Nodata value of the file, if it has one."""

    def blocks(self, window: Window) -> Iterator[Block]:
        """Yield the pixels of a window, each once. Pixels that are not yielded are no data."""


def digital_numbers(block: Block, nodata: float | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Give digital numbers, float32, 0 where they are no data; and where they are valid, None if everywhere."""
    dn = block.pixels.astype("float32")
    if block.mask is None and nodata in (None, DN_NODATA):
        return dn, None if block.pixels.all() else block.pixels != DN_NODATA
    valid = _valid(block, nodata) & (block.pixels != DN_NODATA)
    return np.where(valid, dn, np.float32(0)), valid


def _valid(block: Block, nodata: float | None) -> np.ndarray:
    """Find the pixels that neither the nodata value of the file nor its mask excludes."""
    valid = np.ones(block.pixels.shape, bool) if nodata is None else block.pixels != nodata
    return valid if block.mask is None else valid & block.mask


def classes_of(block: Block, nodata: float | None, dtype: "np.dtype[Any]") -> np.ndarray:
    """Give classes in a dtype, 0 where they are no data."""
    pixels = block.pixels
    if pixels.dtype != dtype:
        # Classes fit into a byte. A larger value is no class, and must not be wrapped to one.
        pixels = np.clip(pixels, 0, np.iinfo(dtype).max).astype(dtype)
    if block.mask is None and nodata in (None, 0):
        return pixels
    return np.where(_valid(block, nodata), pixels, np.zeros((), dtype))
