"""Scenes become images: harmonised, laid over each other, one a time slice."""

import json
from dataclasses import asdict
from typing import Any

import dask.array as da
import numpy as np
import rioxarray  # noqa: F401  registers .rio
import xarray as xr
from odc.geo.xr import xr_coords

from s2cube.config.literals import Dtype
from s2cube.config.sections import CubeSection
from s2cube.cube.packing import PACKINGS
from s2cube.raster.cells import WHOLE, unpack
from s2cube.scenes.provider import offset_dn
from s2cube.scenes.recipe import DATA_VERSION, settings_of
from s2cube.scenes.scene import item_href
from s2cube.scenes.time_slice import Plan, TimeSlice
from s2cube.sentinel2 import SCALE

SOURCE = "s2cube.open_cube"
"""Value of a cube's ``encoding["source"]`` while its values are those that it was opened with: xarray keeps the
encoding when pixels are selected, and drops or replaces it when values are computed or read from a file."""

_INT16_VALID = (PACKINGS["int16"].nodata + 1, 32767)

_ROOM = 2 - WHOLE
"""Of a cell, for parts that lie beside each other."""


_CELLS_AT_ONCE = 1 << 15

_DECIMALS = 2
"""Of a mean: what single precision holds of digital numbers, for certain."""


def offsets_dn(plan: Plan, config: CubeSection) -> np.ndarray:
    """Give what is to be added to the digital numbers of each scene; see `provider.offset_dn`.

    Raises
    ------
    HarmonisationError
        If the offset of a scene's pixels is unknown.
    """
    return np.array([offset_dn(scene, config.offset) for scene in plan.scenes], "int32")


def mosaic(plan: Plan, dn: xr.DataArray, screened: xr.Dataset, config: CubeSection) -> xr.DataArray:
    """Harmonise scenes and lay those of a time slice over each other, band by band.

    The first scene that sees a cell whole and clear gives its value. A cell that none sees whole, on a seam, is put
    together of what the scenes see of it: of all, where their parts have room beside each other, else of the largest.

    Parameters
    ----------
    dn
        From `read_bands`.
    screened
        From `mask.screen`.

    Returns
    -------
    xarray.DataArray
        Lazy, dims (time, band, y, x): int16 reflectance × 10000, nodata -9999, or float32 reflectance, nodata NaN.
        Nodata and `SOURCE` are in `encoding`.
        Along time stand the coordinates `slice` (its id), `scenes` (ids, a line each) and `provenance` (JSON).

    Raises
    ------
    HarmonisationError
        If the offset of a scene's pixels is unknown.
    """
    per_slice = plan.scenes_per_slice
    together = {0: per_slice}
    offsets = da.from_array(
        offsets_dn(plan, config)[:, np.newaxis, np.newaxis, np.newaxis], chunks=(per_slice, 1, 1, 1)
    )
    images = da.map_blocks(
        _lay, dn.data.rechunk(together), screened.seen.data[:, np.newaxis].rechunk(together),
        screened.covered.data[:, np.newaxis], offsets, dtype_=config.dtype,
        chunks=((1,) * len(per_slice), *dn.data.chunks[1:]), dtype=config.dtype,
    )  # fmt: skip
    return _as_cube(plan, list(dn.band.values), images, config)


def _lay(dn: np.ndarray, seen: np.ndarray, covered: np.ndarray, offsets: np.ndarray, dtype_: Dtype) -> np.ndarray:
    """Lay the scenes of a slice over each other: (scene, band, y, x) to (1, band, y, x)."""
    bands, height, width = dn.shape[1:]
    out = np.empty((bands, height, width), dtype_)
    # A few rows at a time, so that what is computed on the way stays in the processor's cache.
    rows = max(1, _CELLS_AT_ONCE // width)
    for top in range(0, height, rows):
        part = np.s_[..., top : top + rows, :]
        out[part] = _lay_rows(dn[part], seen[part], covered[part], offsets.ravel().astype("float32"), dtype_)
    return out[np.newaxis]


def _lay_rows(dn: np.ndarray, seen: np.ndarray, covered: np.ndarray, offsets: np.ndarray, dtype_: Dtype) -> np.ndarray:
    mean = np.zeros(dn.shape[1:], "float32")
    hole = np.ones(dn.shape[1:], bool)
    for of_scene, share, offset in zip(dn, seen, offsets, strict=True):
        first = hole & (of_scene > 0) & (share >= WHOLE)
        np.copyto(mean, of_scene + offset if offset else of_scene, where=first)
        hole ^= first
    cut = hole & covered[0]
    if cut.any():
        shares = np.broadcast_to(seen, dn.shape)[:, cut]
        sums = _put_together(unpack(dn[:, cut]), shares, offsets)
        hole[cut] = sums.imag == 0
        mean[cut] = sums.real / np.where(sums.imag == 0, np.float32(1), sums.imag)
    if dtype_ == "float32":
        return np.where(hole, np.float32(np.nan), mean * np.float32(SCALE))
    # Rounded twice, so that a mean of a half goes the same way however its last decimals came about.
    rounded = np.rint(np.round(mean, _DECIMALS)).clip(*_INT16_VALID)
    return np.where(hole, np.float32(PACKINGS["int16"].nodata), rounded).astype(dtype_)


def _put_together(sums: np.ndarray, seen: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Sum what scenes see of cells that none sees whole: (scene, cell) to (cell)."""
    harmonised = sums + offsets[:, np.newaxis] * sums.imag
    together = np.where(seen > 0, harmonised, 0).sum(axis=0)
    # Where parts lie over each other: the largest first that has room, and of each no more than masks see of the cell,
    # though pixels may be there.
    allowed = np.divide(seen, sums.imag, out=np.zeros_like(sums.imag), where=sums.imag > 0)
    parts = harmonised * np.minimum(allowed, 1)
    chosen = np.zeros_like(together)
    for _ in parts:
        fits = np.where(chosen.imag + parts.imag < _ROOM, parts.imag, 0)
        largest = fits.argmax(axis=0)[np.newaxis]
        chosen += np.where(fits.max(axis=0) > 0, np.take_along_axis(parts, largest, axis=0)[0], 0)
        np.put_along_axis(parts, largest, 0, axis=0)
    return np.where(together.imag < _ROOM, together, chosen)


def _as_cube(plan: Plan, bands: list[str], values: da.Array, config: CubeSection) -> xr.DataArray:
    packing = PACKINGS[config.dtype]
    cube = xr.DataArray(
        values,
        dims=("time", "band", "y", "x"),
        coords={
            "time": np.array([np.datetime64(each.time.replace(tzinfo=None), "ns") for each in plan.slices]),
            "band": bands,
            **xr_coords(plan.geobox),
            "slice": ("time", [each.id for each in plan.slices]),
            "scenes": ("time", ["\n".join(scene.id for scene in each.scenes) for each in plan.slices]),
            "provenance": ("time", [json.dumps(_provenance(each, plan, config)) for each in plan.slices]),
        },
        name="reflectance",
        # xarray copies attributes to what is computed from the cube, so they must be true there, too: no scale, no
        # nodata (readers would apply them to a saved index), no units.
        attrs={
            "aoi": plan.aoi.id,
            "aoi_wkt_lonlat": plan.aoi.geometry_lonlat.wkt,
            "grid": "x".join(map(str, plan.geobox.shape)),
            "opened_as": f"{config.dtype}: {packing.description}",
        },
    )
    cube.encoding["source"] = SOURCE
    return cube.rio.write_nodata(packing.nodata, encoded=True)


def _provenance(time_slice: TimeSlice, plan: Plan, config: CubeSection) -> dict[str, Any]:
    """Say what a time slice is made of, and how."""
    return {
        "recipe": time_slice.recipe,
        "data_version": DATA_VERSION,
        "settings": settings_of(config),
        "search": dict(plan.search),
        "ground": plan.aoi.ground,
        "offset_dn": {scene.id: offset_dn(scene, config.offset) for scene in time_slice.scenes},
        "dropped": [asdict(each) for each in time_slice.dropped],
        "derived_from": [href for scene in time_slice.scenes if (href := item_href(scene))],
    }
