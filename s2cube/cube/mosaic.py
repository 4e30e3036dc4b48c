"""Harmonise scenes and combine those of each time slice to an image, which is not yet cut to an area."""

from typing import NamedTuple

import dask.array as da
import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox

from s2cube.config.literals import Dtype
from s2cube.cube.mask import explain
from s2cube.cube.packing import PACKINGS
from s2cube.raster.cells import WHOLE, unpack, whole_means
from s2cube.sentinel2 import SCALE

_INT16_VALID = (PACKINGS["int16"].nodata + 1, 32767)

_ROOM = 2 - WHOLE
"""Largest sum of the shares of parts that are side by side in a cell."""

_CELLS_AT_ONCE = 1 << 15

_DECIMALS = 2
"""Of a mean: single precision holds digital numbers to so many decimals."""


class Mosaic(NamedTuple):
    """Images of time slices on a grid.

    Parameters
    ----------
    values
        Lazy, dims (time, band, y, x): int16 reflectance × 10000, nodata -9999, or float32 reflectance, nodata NaN.
    reasons
        Lazy, dims (time, y, x): why cells are masked, as `mask.explain` gives it.
    bands
        Names.
    """

    values: da.Array
    reasons: da.Array
    bands: tuple[str, ...]
    geobox: GeoBox


def mosaic(
    dn: xr.DataArray, screened: xr.Dataset, offsets: np.ndarray, per_slice: tuple[int, ...], geobox: GeoBox,
    dtype: Dtype,
) -> Mosaic:  # fmt: skip
    """Harmonise scenes and lay those of a time slice over each other, band by band.

    The first scene that sees a cell whole and clear gives its value. A cell that none sees whole, on a seam, is put
    together from the parts that the scenes see: from all parts if they fit into the cell side by side, else from the
    largest.

    Parameters
    ----------
    dn
        From `read_bands`.
    screened
        From `mask.screen`.
    offsets
        What is added to the digital numbers of each scene.
    per_slice
        Number of scenes of each slice.
    geobox
        The grid of `dn`.
    """
    together = {0: per_slice}
    added = da.from_array(offsets[:, np.newaxis, np.newaxis, np.newaxis], chunks=(per_slice, 1, 1, 1))
    images = da.map_blocks(
        _lay, dn.data.rechunk(together), screened.seen.data[:, np.newaxis].rechunk(together),
        screened.covered.data[:, np.newaxis], added, dtype_=dtype,
        chunks=((1,) * len(per_slice), *dn.data.chunks[1:]), dtype=dtype,
    )  # fmt: skip
    return Mosaic(images, explain(screened, per_slice), tuple(map(str, dn.band.values)), geobox)


def _lay(dn: np.ndarray, seen: np.ndarray, covered: np.ndarray, offsets: np.ndarray, dtype_: Dtype) -> np.ndarray:
    """Lay the scenes of a slice over each other: (scene, band, y, x) to (1, band, y, x)."""
    bands, height, width = dn.shape[1:]
    out = np.empty((bands, height, width), dtype_)
    # A few rows at a time, so that intermediate arrays stay in the processor's cache.
    rows = max(1, _CELLS_AT_ONCE // width)
    for top in range(0, height, rows):
        part = np.s_[..., top : top + rows, :]
        out[part] = _lay_rows(dn[part], seen[part], covered[part], offsets.ravel().astype("float32"), dtype_)
    return out[np.newaxis]


def _lay_rows(dn: np.ndarray, seen: np.ndarray, covered: np.ndarray, offsets: np.ndarray, dtype_: Dtype) -> np.ndarray:
    mean = np.zeros(dn.shape[1:], "float32")
    hole = np.ones(dn.shape[1:], bool)
    for of_scene, share, offset in zip(dn, seen, offsets, strict=True):
        means, whole = whole_means(of_scene)
        first = hole & whole & (share >= WHOLE)
        np.copyto(mean, means + offset if offset else means, where=first)
        hole ^= first
    cut = hole & covered[0]
    if cut.any():
        shares = np.broadcast_to(seen, dn.shape)[:, cut]
        sums = _put_together(unpack(dn[:, cut]), shares, offsets)
        hole[cut] = sums.imag == 0
        mean[cut] = sums.real / np.where(sums.imag == 0, np.float32(1), sums.imag)
    if dtype_ == "float32":
        return np.where(hole, np.float32(np.nan), mean * np.float32(SCALE))
    # Rounded twice, so that rounding errors do not decide how a mean of a half is rounded.
    rounded = np.rint(np.round(mean, _DECIMALS)).clip(*_INT16_VALID)
    return np.where(hole, np.float32(PACKINGS["int16"].nodata), rounded).astype(dtype_)


def _put_together(sums: np.ndarray, seen: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Sum the parts that scenes see of cells that none sees whole: (scene, cell) to (cell)."""
    harmonised = sums + offsets[:, np.newaxis] * sums.imag
    together = np.where(seen > 0, harmonised, 0).sum(axis=0)
    # Parts that overlap: take the largest first, as long as there is room. A part is no larger than the share that
    # masks see of the cell, though there may be more pixels.
    allowed = np.divide(seen, sums.imag, out=np.zeros_like(sums.imag), where=sums.imag > 0)
    parts = harmonised * np.minimum(allowed, 1)
    chosen = np.zeros_like(together)
    for _ in parts:
        fits = np.where(chosen.imag + parts.imag < _ROOM, parts.imag, 0)
        largest = fits.argmax(axis=0)[np.newaxis]
        chosen += np.where(fits.max(axis=0) > 0, np.take_along_axis(parts, largest, axis=0)[0], 0)
        np.put_along_axis(parts, largest, 0, axis=0)
    return np.where(together.imag < _ROOM, together, chosen)
