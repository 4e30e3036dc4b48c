"""Harmonise scenes, and combine the scenes of a time slice to an image: pure functions of arrays."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from s2cube.config.literals import Dtype
from s2cube.kernels._classes import in_dtype
from s2cube.kernels.mask import Screened, explain
from s2cube.kernels.packing import PACKINGS
from s2cube.raster.cells import WHOLE, unpack, whole_means
from s2cube.sentinel2 import NO_DATA_CLASS, SCALE, class_band_of

_INT16_VALID = (PACKINGS["int16"].nodata + 1, 32767)

_OVERLAP_SHARE = 2 - WHOLE
"""Parts of a cell whose shares sum to at least this value overlap."""

_CELLS_AT_ONCE = 1 << 15

_DECIMALS = 2
"""Means are rounded to this: it is the precision of digital numbers in float32."""


def mosaic(
    dn: np.ndarray | None, screened: Screened, offsets: np.ndarray, bands: Sequence[str], dtype: Dtype
) -> np.ndarray:
    """Harmonise the scenes of a time slice, and combine them band by band. The image is not clipped yet.

    The value of a cell is that of the first scene that covers the whole cell with clear data. If no scene
    covers the whole cell, as on a seam, the value is the mean of the parts that scenes cover. If parts overlap, only
    the largest parts are used, as many as fit into the cell.

    Masks do not remove a class from a band of classes. The QA values are those of the coordinate `qa` of a cube.

    Parameters
    ----------
    dn
        Dims (scene, band, y, x): packed cells of the bands of reflectance, see `raster.cells`. None if there are only
        bands of classes.
    screened
        From `mask.screen`. It has `classes` if `scl` is a band.
    offsets
        Offset that is added to the digital numbers of each scene.
    bands
        Bands of reflectance in the order of `dn`, and bands of classes, in the order of the image.

    Returns
    -------
    numpy.ndarray
        Dims (band, y, x): int16 reflectance × 10000, nodata -9999, or float32 reflectance, nodata NaN. Bands of classes
        have the number of the class.
    """
    packed = None if dn is None else _combine(dn, screened, offsets, dtype, partial(pack, dtype=dtype))
    return with_classes(packed, screened, bands, dtype)


def means(dn: np.ndarray, screened: Screened, offsets: np.ndarray) -> np.ndarray:
    """Harmonise the scenes of a time slice, and combine them band by band, as `mosaic` does.

    Returns
    -------
    numpy.ndarray
        Dims (band, y, x), float32: reflectance × 10000, not rounded, NaN where there is no value. `pack` and
        `reflectance` take it.
    """
    return _combine(dn, screened, offsets, "float32", lambda found: found)


def pack(means: np.ndarray, dtype: Dtype) -> np.ndarray:
    """Pack the result of `means` as pixels of an image of this dtype, see `PACKINGS`."""
    if dtype == "float32":
        return reflectance(means)
    # Round twice, so that rounding errors do not affect how a mean of n + 0.5 is rounded.
    rounded = np.rint(np.round(means, _DECIMALS)).clip(*_INT16_VALID)
    return np.where(np.isnan(means), np.float32(PACKINGS["int16"].nodata), rounded).astype(dtype)


def reflectance(means: np.ndarray) -> np.ndarray:
    """Convert the result of `means` to reflectance, float32."""
    return means * np.float32(SCALE)


def with_classes(packed: np.ndarray | None, screened: Screened, bands: Sequence[str], dtype: Dtype) -> np.ndarray:
    """Add the bands of classes to the bands of reflectance, see `mosaic`.

    Parameters
    ----------
    packed
        Bands of reflectance, dims (band, y, x); None if there are none.
    """
    of_reflectance = [class_band_of(name) is None for name in bands]
    if packed is not None and all(of_reflectance):
        return packed
    values = np.empty((len(bands), *screened.covered.shape), dtype)
    if packed is not None:
        values[of_reflectance] = packed
    for at, name in enumerate(bands):
        if (band := class_band_of(name)) == "qa":
            values[at] = in_dtype(explain(screened), dtype)
        elif band == "scl":
            assert screened.classes is not None
            values[at] = in_dtype(screened.classes, dtype, NO_DATA_CLASS)
    return values


def _combine(
    dn: np.ndarray, screened: Screened, offsets: np.ndarray, dtype: Dtype, finish: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Combine the scenes of a slice, from (scene, band, y, x) to (band, y, x), and finish some rows at a time."""
    bands, height, width = dn.shape[1:]
    out = np.empty((bands, height, width), dtype)
    seen, covered, added = screened.seen[:, np.newaxis], screened.covered, offsets.astype("float32")
    # Process a few rows at a time, so that intermediate arrays stay in the processor's cache.
    rows = max(1, _CELLS_AT_ONCE // width)
    for top in range(0, height, rows):
        part = np.s_[..., top : top + rows, :]
        out[part] = finish(_combine_rows(dn[part], seen[part], covered[part], added))
    return out


def _combine_rows(dn: np.ndarray, seen: np.ndarray, covered: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    mean = np.full(dn.shape[1:], np.nan, "float32")
    missing = np.ones(dn.shape[1:], bool)
    for of_scene, share, offset in zip(dn, seen, offsets, strict=True):
        means, whole = whole_means(of_scene)
        first = missing & whole & (share >= WHOLE)
        np.copyto(mean, means + offset if offset else means, where=first)
        missing ^= first
    on_seam = missing & covered
    if on_seam.any():
        shares = np.broadcast_to(seen, dn.shape)[:, on_seam]
        sums = _sum_parts(unpack(dn[:, on_seam]), shares, offsets)
        mean[on_seam] = np.divide(sums.real, sums.imag, out=np.full_like(sums.real, np.nan), where=sums.imag != 0)
    return mean


def _sum_parts(sums: np.ndarray, seen: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Sum the parts of cells that no scene covers completely, from (scene, cell) to (cell)."""
    harmonised = sums + offsets[:, np.newaxis] * sums.imag
    all_parts = np.where(seen > 0, harmonised, 0).sum(axis=0)
    # If parts overlap, add the largest parts first, while they fit into the cell. Limit a part to the share of the cell
    # that is clear by the masks, because the band may have more valid pixels.
    allowed = np.divide(seen, sums.imag, out=np.zeros_like(sums.imag), where=sums.imag > 0)
    parts = harmonised * np.minimum(allowed, 1)
    chosen = np.zeros_like(all_parts)
    for _ in parts:
        fits = np.where(chosen.imag + parts.imag < _OVERLAP_SHARE, parts.imag, 0)
        largest = fits.argmax(axis=0)[np.newaxis]
        chosen += np.where(fits.max(axis=0) > 0, np.take_along_axis(parts, largest, axis=0)[0], 0)
        np.put_along_axis(parts, largest, 0, axis=0)
    return np.asarray(np.where(all_parts.imag < _OVERLAP_SHARE, all_parts, chosen))
