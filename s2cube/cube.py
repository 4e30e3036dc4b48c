"""A plan becomes a lazy cube: the only file that knows stackstac."""

import json
import math
from dataclasses import asdict
from functools import partial
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import rioxarray  # noqa: F401  registers .rio
import stackstac
import xarray as xr
from odc.geo.xr import xr_coords
from rasterio.enums import Resampling

from s2cube.config import CubeSection
from s2cube.errors import SceneError
from s2cube.model import Dtype, Plan, Quality, TimeSlice
from s2cube.provider import SCALE, band_key, canonical_bands, crs_code, layer_key, offset_dn
from s2cube.reader import AssetReader
from s2cube.scene import address

if TYPE_CHECKING:
    import pystac
    from odc.geo.geobox import GeoBox

NODATA = -9999
"""Nodata of int16 reflectance, as in NASA's Harmonized Landsat Sentinel-2 (HLS User Guide)."""

_INT16_VALID = (NODATA + 1, 32767)

_CHUNK_PIXELS = 6144
"""Bound of a chunk's side on the finest grid that is read: 38 MB of scene classification; 2048 cells of 30 m."""

_LAYER_PIXEL_M = 20
_FINEST_STEP_M = 10
_LAYER_DTYPE = {"scl": "uint8", "cloud": "uint8", "snow": "uint8", "qa60": "uint16"}

_WHOLE = 0.999
"""Share of a cell from which on it counts as seen whole: what is less is the rounding of shares."""


_DECIMALS = 2
"""Of a mean: what single precision holds of digital numbers, for certain."""


def scenes_per_slice(plan: Plan) -> tuple[int, ...]:
    """Count the scenes of each time slice."""
    return tuple(len(time_slice.scenes) for time_slice in plan.slices)


def chunk_cells(plan: Plan) -> int:
    """Choose the side of a chunk, cells."""
    return max(1, _CHUNK_PIXELS // steps_per_cell(plan))


def read_bands(plan: Plan, bands: tuple[str, ...], quality: Quality) -> xr.DataArray:
    """Stack the bands of every scene on the plan's grid.

    Returns
    -------
    xarray.DataArray
        Lazy, dims (scene, band, y, x), complex64 as `AssetReader.read` gives them: digital numbers summed by the
        shares of the cell's area, and the sum of these shares. Scenes stand in the plan's order.

    Raises
    ------
    ConfigError
        If a band is unknown.
    AssetMissingError
        If a scene lacks a band. (What cannot be read raises AssetReadError when it is computed.)
    SceneError
        If a scene has no geometry or two projections.
    """
    names = canonical_bands(bands)
    keys = [[band_key(scene, name) for name in names] for scene in _scenes(plan)]
    reader = partial(AssetReader, quality=quality)
    stack = _stack(plan, keys, plan.geobox, chunk_cells(plan), (np.dtype("complex64"), reader))
    return stack.assign_coords(band=list(bands))


def read_layers(plan: Plan, layers: tuple[str, ...], halo_cells: int) -> xr.Dataset:
    """Stack what masks are made of, finer than the plan's grid so that no source pixel is missed.

    A cell of the grid is cut into n × n steps, read by nearest neighbour. In the scenes' own CRS the step divides the
    20 m of the classification where it can (30 m cells: 3 × 3 steps of 10 m): every source pixel that overlaps a cell
    then falls on one of its steps, and they nest, for granules begin at multiples of 60 m. Elsewhere a step is 10 m or
    less.

    Parameters
    ----------
    layers
        Keys of `LAYER_ASSETS`.
    halo_cells
        How many cells more than the grid to read on every side.

    Returns
    -------
    xarray.Dataset
        Lazy, a variable a layer, dims (scene, y, x), 0 where there is no pixel; the attributes `steps`, n, and
        `step_m`; the coordinate `nests` along scene, whether steps lie within source pixels, whole.

    Raises
    ------
    AssetMissingError
        If a scene has no such layer.
    SceneError
        If a scene has no geometry or two projections.
    """
    steps = steps_per_cell(plan)
    rows, columns = (length + 2 * halo_cells for length in plan.geobox.shape)
    fine = plan.geobox.pad(halo_cells).zoom_to((rows * steps, columns * steps))
    stacks = {}
    for layer in layers:
        keys = [[layer_key(scene, layer)] for scene in _scenes(plan)]
        kind = (np.dtype(_LAYER_DTYPE[layer]), AssetReader)
        stacks[layer] = _stack(plan, keys, fine, steps * chunk_cells(plan), kind).isel(band=0, drop=True)
    attrs = {"steps": steps, "step_m": plan.geobox.resolution.x / steps}
    return xr.Dataset(stacks, {"nests": ("scene", nests(plan))}, attrs)


def nests(plan: Plan) -> list[bool]:
    """Tell of each scene whether its 20 m pixels are made of whole steps of the grid, as `read_layers` cuts it."""
    divides = (_LAYER_PIXEL_M * steps_per_cell(plan) / plan.geobox.resolution.x).is_integer()
    return [divides and crs_code(scene) == str(plan.geobox.crs) for scene in _scenes(plan)]


def steps_per_cell(plan: Plan) -> int:
    """Choose into how many steps a cell's side is cut to read layers: see `read_layers`."""
    resolution_m = plan.geobox.resolution.x
    fewest, most = (max(1, math.ceil(resolution_m / step_m)) for step_m in (_LAYER_PIXEL_M, _FINEST_STEP_M))
    # A step as wide as a pixel meets every pixel only where both run along.
    if any(crs_code(scene) != str(plan.geobox.crs) for scene in _scenes(plan)):
        return most
    for steps in range(fewest, most):
        if (_LAYER_PIXEL_M * steps / resolution_m).is_integer():
            return steps
    return most


def offsets_dn(plan: Plan, config: CubeSection) -> np.ndarray:
    """Give what is to be added to the digital numbers of each scene; see `provider.offset_dn`.

    Raises
    ------
    HarmonisationError
        If the offset of a scene's pixels is unknown.
    """
    return np.array([offset_dn(scene, config.offset) for scene in _scenes(plan)], "int32")


def mosaic(plan: Plan, dn: xr.DataArray, screened: xr.Dataset, config: CubeSection) -> xr.DataArray:
    """Harmonise scenes and lay those of a time slice over each other, band by band.

    The first scene that sees a cell whole and clear gives its value. A cell that none sees whole, on a seam, is put
    together of what the scenes see of it: of all, where their parts have room beside each other, else in their order.

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
        Along time stand the coordinates `slice` (its id), `scenes` (ids, a line each) and `provenance` (JSON).

    Raises
    ------
    HarmonisationError
        If the offset of a scene's pixels is unknown.
    """
    offsets = offsets_dn(plan, config)
    seen = screened.seen.data[:, np.newaxis]
    images, ends = [], list(accumulate(scenes_per_slice(plan), initial=0))
    for position, (first, last) in enumerate(pairwise(ends)):
        together = {0: last - first}
        images.append(
            da.map_blocks(
                _lay, dn.data[first:last].rechunk(together), seen[first:last].rechunk(together),
                screened.covered.data[position][np.newaxis, np.newaxis],
                offsets=offsets[first:last], dtype_=config.dtype, drop_axis=0, dtype=config.dtype,
            )
        )  # fmt: skip
    return _as_cube(plan, list(dn.band.values), da.stack(images), config)


def _lay(dn: np.ndarray, seen: np.ndarray, covered: np.ndarray, offsets: np.ndarray, dtype_: Dtype) -> np.ndarray:
    """Lay the scenes of a slice over each other: (scene, band, y, x) to (band, y, x)."""
    offsets = offsets.astype("float32")
    sums = np.zeros(dn.shape[1:], "complex64")
    for of_scene, share, offset in zip(dn, seen, offsets, strict=True):
        first = (sums.imag == 0) & (share >= _WHOLE) & (of_scene.imag >= _WHOLE)
        np.copyto(sums, of_scene + offset * of_scene.imag, where=first)
    cut = (sums.imag == 0) & covered[0]
    if cut.any():
        shares = np.broadcast_to(seen, dn.shape)[:, cut]
        sums[cut] = _put_together(dn[:, cut], shares, offsets)
    hole = (sums.imag == 0) | ~covered[0]
    mean = sums.real / np.where(hole, np.float32(1), sums.imag)
    if dtype_ == "float32":
        return np.where(hole, np.float32(np.nan), mean * np.float32(SCALE))
    # Rounded twice, so that a mean of a half goes the same way however its last decimals came about.
    rounded = np.rint(np.round(mean, _DECIMALS)).clip(*_INT16_VALID)
    return np.where(hole, np.float32(NODATA), rounded).astype(dtype_)


def _put_together(dn: np.ndarray, seen: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Sum what scenes see of cells that none sees whole: (scene, cell) to (cell)."""
    harmonised = dn + offsets[:, np.newaxis] * dn.imag
    together = np.where(seen > 0, harmonised, 0).sum(axis=0)
    # Where parts lie over each other: in turn, and no more of a cell than masks see of it, though pixels may be there.
    allowed = np.divide(seen, dn.imag, out=np.zeros_like(dn.imag), where=dn.imag > 0)
    in_turn = np.zeros_like(together)
    for part in harmonised * np.minimum(allowed, 1):
        fits = in_turn.imag + part.imag < 2 - _WHOLE
        in_turn[fits] += part[fits]
    return np.where(together.imag < 2 - _WHOLE, together, in_turn)


def _as_cube(plan: Plan, bands: list[str], values: da.Array, config: CubeSection) -> xr.DataArray:
    integer = values.dtype.kind == "i"
    cube = xr.DataArray(
        values,
        dims=("time", "band", "y", "x"),
        coords={
            "time": np.array([np.datetime64(each.time.replace(tzinfo=None), "ns") for each in plan.slices]),
            "band": bands,
            **xr_coords(plan.geobox),
            "slice": ("time", [each.id for each in plan.slices]),
            "scenes": ("time", ["\n".join(scene.id for scene in each.scenes) for each in plan.slices]),
            "provenance": ("time", [json.dumps(_provenance(each, config)) for each in plan.slices]),
        },
        name="reflectance",
        attrs={"units": "1", "aoi": plan.aoi.id, "aoi_wkt_lonlat": plan.aoi.geometry_lonlat.wkt}
        | {"grid": "x".join(map(str, plan.geobox.shape))}
        | ({"scale_factor": SCALE} if integer else {}),
    )
    return cube.rio.write_nodata(NODATA if integer else np.nan)


def _provenance(time_slice: TimeSlice, config: CubeSection) -> dict[str, Any]:
    """Say what a time slice is made of, and how."""
    return {
        "recipe": time_slice.recipe,
        "settings": config.model_dump(mode="json", by_alias=True, exclude={"bands"}),
        "offset_dn": {scene.id: offset_dn(scene, config.offset) for scene in time_slice.scenes},
        "dropped": [asdict(each) for each in time_slice.dropped],
        "derived_from": [href for scene in time_slice.scenes if (href := address(scene))],
    }


def _scenes(plan: Plan) -> "list[pystac.Item]":
    return [scene for time_slice in plan.slices for scene in time_slice.scenes]


def _stack(
    plan: Plan, keys: list[list[str]], geobox: "GeoBox", chunk: int, kind: tuple["np.dtype[Any]", Any]
) -> xr.DataArray:
    """Stack files: of classes by nearest neighbour, of digital numbers (complex) by the area-weighted mean."""
    dtype, reader = kind
    scenes = _scenes(plan)
    # Each file itself says where its pixels lie. What items say of it is often another grid (proj:shape of the
    # undecimated file) or another spelling (proj:code), so stackstac is told no more than that all may meet the grid.
    bounds = tuple(geobox.boundingbox)
    epsg = geobox.crs.epsg if geobox.crs else None
    facts = {"datetime": None, "proj:epsg": epsg, "proj:bbox": bounds}
    positions = [str(position) for position in range(len(keys[0]))]
    items: list[dict[str, Any]] = []
    declared: dict[str, str] = {}
    for scene, of_scene in zip(scenes, keys, strict=True):
        if scene.geometry is None:
            raise SceneError(scene.id, "has no geometry", "Leave it out, or tell whoever runs the catalogue")
        hrefs = [scene.assets[key].href for key in of_scene]
        if code := crs_code(scene):
            declared |= dict.fromkeys(hrefs, code)
        assets = {position: {"href": href} for position, href in zip(positions, hrefs, strict=True)}
        items.append({"id": scene.id, "properties": facts, "assets": assets})
    stack = stackstac.stack(
        items,
        assets=positions,
        epsg=epsg,
        resolution=geobox.resolution.x,
        bounds=bounds,
        snap_bounds=False,
        resampling=Resampling.average if dtype.kind == "c" else Resampling.nearest,
        chunksize=(1, 1, chunk, chunk),
        dtype=dtype,
        fill_value=dtype.type(0),
        rescale=False,
        sortby_date=False,
        xy_coords=False,
        properties=False,
        band_coords=False,
        errors_as_nodata=(),
        reader=partial(reader, declared=declared),
    )
    assert stack.shape == (len(scenes), len(positions), *geobox.shape), (stack.shape, geobox)
    return stack.rename(time="scene").drop_vars("scene")
