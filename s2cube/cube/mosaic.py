"""Harmonise scenes, and combine the scenes of each time slice to an image. The image is not clipped yet."""

from typing import NamedTuple

import dask.array as da
import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox

from s2cube.config.literals import Dtype
from s2cube.config.sections import CubeSection
from s2cube.cube._classes import as_band
from s2cube.cube.mask import explain
from s2cube.cube.packing import PACKINGS
from s2cube.raster.cells import WHOLE, unpack, whole_means
from s2cube.sentinel2 import NO_DATA_CLASS, SCALE, class_band_of

_INT16_VALID = (PACKINGS["int16"].nodata + 1, 32767)

_OVERLAP_SHARE = 2 - WHOLE
"""Parts of a cell whose shares sum to at least this value overlap."""

_CELLS_AT_ONCE = 1 << 15

_DECIMALS = 2
"""Means are rounded to this: it is the precision of digital numbers in float32."""


class Mosaic(NamedTuple):
    """Images of time slices on a grid.

    Parameters
    ----------
    values
        Lazy, dims (time, band, y, x): int16 reflectance × 10000, nodata -9999, or float32 reflectance, nodata NaN.
        Bands of classes have the number of the class.
    reasons
        Lazy, dims (time, y, x): why cells are masked, from `mask.explain`.
    bands
        Names of the bands.
    """

    values: da.Array
    reasons: da.Array
    bands: tuple[str, ...]
    geobox: GeoBox


def mosaic(
    dn: xr.DataArray | None, screened: xr.Dataset, offsets: np.ndarray, per_slice: tuple[int, ...], geobox: GeoBox,
    config: CubeSection,
) -> Mosaic:  # fmt: skip
    """Harmonise scenes, and combine the scenes of each time slice, band by band.

    The value of a cell is that of the first scene that covers the whole cell with clear data. If no scene
    covers the whole cell, as on a seam, the value is the mean of the parts that scenes cover. If parts overlap, only
    the largest parts are used, as many as fit into the cell.

    Bands of classes are added. Masks do not remove a class. The QA values are those of the coordinate `qa` of a cube.

    Parameters
    ----------
    dn
        From `read_bands`; None if there are only bands of classes.
    screened
        From `open_cube.screen`. If `scl` is a band, it has `scl`.
    offsets
        Offset that is added to the digital numbers of each scene.
    per_slice
        Number of scenes of each slice.
    geobox
        Grid of `dn`.
    config
        Bands in the order of the image, and dtype.
    """
    reasons = explain(screened, per_slice)
    of_classes = {"qa": lambda: as_band(reasons, config.dtype)}
    of_classes["scl"] = lambda: as_band(screened.scl.data, config.dtype, NO_DATA_CLASS)
    classes = {name: of_classes[band]() for name in config.bands if (band := class_band_of(name))}
    if dn is None:
        return Mosaic(da.concatenate(list(classes.values()), axis=1), reasons, config.bands, geobox)
    values = _reflectance(dn, screened, offsets, per_slice, config.dtype)
    if classes:
        position = {str(name): at for at, name in enumerate(dn.band.values)}
        of_bands = [classes[name] if name in classes else values[:, [position[name]]] for name in config.bands]
        values = da.concatenate(of_bands, axis=1)
    return Mosaic(values, reasons, config.bands, geobox)


def _reflectance(
    dn: xr.DataArray, screened: xr.Dataset, offsets: np.ndarray, per_slice: tuple[int, ...], dtype: Dtype
) -> da.Array:
    slice_chunks = {0: per_slice}
    added = da.from_array(offsets[:, np.newaxis, np.newaxis, np.newaxis], chunks=(per_slice, 1, 1, 1))
    images: da.Array = da.map_blocks(
        _combine, dn.data.rechunk(slice_chunks), screened.seen.data[:, np.newaxis].rechunk(slice_chunks),
        screened.covered.data[:, np.newaxis], added, dtype_=dtype,
        chunks=((1,) * len(per_slice), *dn.data.chunks[1:]), dtype=dtype,
    )  # fmt: skip
    return images


def _combine(dn: np.ndarray, seen: np.ndarray, covered: np.ndarray, offsets: np.ndarray, dtype_: Dtype) -> np.ndarray:
    """Combine the scenes of a slice, from (scene, band, y, x) to (1, band, y, x)."""
    bands, height, width = dn.shape[1:]
    out = np.empty((bands, height, width), dtype_)
    # Process a few rows at a time, so that intermediate arrays stay in the processor's cache.
    rows = max(1, _CELLS_AT_ONCE // width)
    for top in range(0, height, rows):
        part = np.s_[..., top : top + rows, :]
        out[part] = _combine_rows(dn[part], seen[part], covered[part], offsets.ravel().astype("float32"), dtype_)
    return out[np.newaxis]


def _combine_rows(
    dn: np.ndarray, seen: np.ndarray, covered: np.ndarray, offsets: np.ndarray, dtype_: Dtype
) -> np.ndarray:
    mean = np.zeros(dn.shape[1:], "float32")
    missing = np.ones(dn.shape[1:], bool)
    for of_scene, share, offset in zip(dn, seen, offsets, strict=True):
        means, whole = whole_means(of_scene)
        first = missing & whole & (share >= WHOLE)
        np.copyto(mean, means + offset if offset else means, where=first)
        missing ^= first
    on_seam = missing & covered[0]
    if on_seam.any():
        shares = np.broadcast_to(seen, dn.shape)[:, on_seam]
        sums = _sum_parts(unpack(dn[:, on_seam]), shares, offsets)
        missing[on_seam] = sums.imag == 0
        mean[on_seam] = sums.real / np.where(sums.imag == 0, np.float32(1), sums.imag)
    if dtype_ == "float32":
        return np.where(missing, np.float32(np.nan), mean * np.float32(SCALE))
    # Round twice, so that rounding errors do not affect how a mean of n + 0.5 is rounded.
    rounded = np.rint(np.round(mean, _DECIMALS)).clip(*_INT16_VALID)
    return np.where(missing, np.float32(PACKINGS["int16"].nodata), rounded).astype(dtype_)


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
    return np.where(all_parts.imag < _OVERLAP_SHARE, all_parts, chosen)
