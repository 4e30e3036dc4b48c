"""A plan becomes a lazy cube: the only file that knows stackstac."""

import functools
from typing import TYPE_CHECKING, Any, Literal

import dask.array as da
import numpy as np
import rioxarray  # noqa: F401  registers .rio
import stackstac
import xarray as xr
from odc.geo.xr import xr_coords
from rasterio.enums import Resampling
from stackstac.rio_reader import AutoParallelRioReader, LayeredEnv, ThreadLocalRioDataset

from s2cube.config import Dtype
from s2cube.errors import AssetReadError
from s2cube.model import Plan, TimeSlice
from s2cube.provider import BAND_ASSETS, SCALE, SCL_ASSETS, address, asset_key, canonical_bands, crs_code, offset_dn

if TYPE_CHECKING:
    import pystac
    from odc.geo.geobox import GeoBox
    from rasterio.windows import Window

NODATA = -9999
"""Nodata of int16 reflectance, as in NASA's Harmonized Landsat Sentinel-2 (HLS User Guide)."""

_DN_NODATA = 0
"""Digital number 0 is no data in every Sentinel-2 L2A band (Products Specification Document)."""

_INT16_VALID = (NODATA + 1, 32767)

_CHUNK_PIXELS = 6144
"""Bound of a chunk's side on the finest grid that is read: 38 MB of scene classification; 2048 cells of 30 m."""

_SCL_PIXEL_M = 20
_FINEST_SCL_STEP_M = 10

_GDAL = LayeredEnv(
    always={
        # GDAL retries inside an open, and must not remember one that failed: else the next run in this process, or on
        # a standing cluster, would fail without asking.
        "CPL_VSIL_CURL_NON_CACHED": "/vsicurl/",
        "GDAL_HTTP_MAX_RETRY": 5,
        "GDAL_HTTP_RETRY_DELAY": 0.5,
        "GDAL_HTTP_CONNECTTIMEOUT": 10,
        "GDAL_HTTP_LOW_SPEED_TIME": 60,
        "GDAL_HTTP_LOW_SPEED_LIMIT": 1,
        "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
        "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
        "GDAL_PAM_ENABLED": "NO",
    },
    open={"VSI_CACHE": True},
    read={"VSI_CACHE": False},
)


class _BlamingReader(AutoParallelRioReader):  # type: ignore[misc]
    """stackstac's reader, but what fails is an error that names the file."""

    def _open(self) -> Any:
        opened = super()._open()
        in_threads = isinstance(opened, ThreadLocalRioDataset)
        nodata = (opened._threadlocal.ds if in_threads else opened.ds).nodata
        if in_threads and nodata is None:
            # The file does not say that 0 is no data, but it is: it must not enter a mean. A file that lies on the
            # grid as it is has no warp, and no mean either.
            if opened._vrt_params:
                opened._vrt_params |= {"src_nodata": _DN_NODATA, "nodata": _DN_NODATA, "add_alpha": False}
            opened.close()
        elif nodata != _DN_NODATA:
            raise AssetReadError(self.url, f"says that nodata is {nodata}, not 0", "Use a catalogue with other files")
        return opened

    def read(self, window: "Window", **kwargs: Any) -> np.ndarray:
        try:
            return np.asarray(super().read(window, **kwargs))
        except AssetReadError:
            raise
        except Exception as error:  # noqa: BLE001  whatever GDAL, rasterio or stackstac trip over, it is this file
            cause: BaseException = error
            while cause.__cause__:
                cause = cause.__cause__
            raise AssetReadError(
                self.url, f"cannot be read ({cause})", "Run again; look at the file if it persists"
            ) from None


def read_bands(plan: Plan, bands: tuple[str, ...]) -> xr.DataArray:
    """Stack the bands of every scene on the plan's grid.

    Returns
    -------
    xarray.DataArray
        Lazy, dims (scene, band, y, x), uint16 digital numbers, nodata 0: the area-weighted mean of the valid native
        pixels. Scenes stand in the plan's order.

    Raises
    ------
    ConfigError
        If a band is unknown.
    AssetMissingError
        If a scene lacks a band. (What cannot be read raises AssetReadError when it is computed.)
    """
    names = canonical_bands(bands)
    scenes = _scenes(plan)
    hrefs = [[scene.assets[asset_key(scene, BAND_ASSETS[name])].href for name in names] for scene in scenes]
    chunk = _chunk_cells(scl_steps(plan.geobox))
    dn = _stack(scenes, hrefs, plan.geobox, chunk, "uint16")
    return dn.assign_coords(band=list(bands))


def read_scl(plan: Plan) -> xr.DataArray:
    """Stack the scene classification of every scene, finer than the plan's grid so that no source pixel is missed.

    A cell of the grid is cut into n × n steps, read by nearest neighbour. The step divides the 20 m of the
    classification where it can (30 m cells: 3 × 3 steps of 10 m): in the scene's own CRS every source pixel that
    overlaps a cell then falls on one of its steps, and they nest. Elsewhere a step is 10 m or less.

    Returns
    -------
    xarray.DataArray
        Lazy, dims (scene, y, x), uint8 classes, 0 where there is none; n times as many rows and columns as the grid.
        The coordinate `nests` along scene tells whether steps lie within source pixels, whole.

    Raises
    ------
    AssetMissingError
        If a scene has no scene classification.
    """
    scenes = _scenes(plan)
    keys = [asset_key(scene, SCL_ASSETS) for scene in scenes]
    hrefs = [[scene.assets[key].href] for scene, key in zip(scenes, keys, strict=True)]
    steps = scl_steps(plan.geobox)
    rows, columns = plan.geobox.shape
    fine = plan.geobox.zoom_to((rows * steps, columns * steps))
    divides = (_SCL_PIXEL_M * steps / plan.geobox.resolution.x).is_integer()
    grid_crs = str(plan.geobox.crs)
    nests = [divides and crs_code(scene, key) == grid_crs for scene, key in zip(scenes, keys, strict=True)]
    classes = _stack(scenes, hrefs, fine, steps * _chunk_cells(steps), "uint8").isel(band=0)
    return classes.assign_coords(nests=("scene", nests))


def scl_steps(geobox: "GeoBox") -> int:
    """Choose into how many steps a cell's side is cut to read the scene classification: see `read_scl`."""
    resolution_m = geobox.resolution.x
    fewest, most = (max(1, int(np.ceil(resolution_m / step_m))) for step_m in (_SCL_PIXEL_M, _FINEST_SCL_STEP_M))
    for steps in range(fewest, most):
        if (_SCL_PIXEL_M * steps / resolution_m).is_integer():
            return steps
    return most


def mosaic(plan: Plan, dn: xr.DataArray, valid: xr.DataArray | None, dtype: Dtype) -> xr.DataArray:
    """Harmonise scenes and lay those of a time slice over each other: band by band, the first valid pixel wins.

    Parameters
    ----------
    dn
        From `read_bands`.
    valid
        Dims (scene, y, x), True where the scene's pixel may be used; None where all may.
    dtype
        int16: reflectance × 10000, nodata -9999; float32: reflectance, nodata NaN.

    Returns
    -------
    xarray.DataArray
        Lazy, dims (time, band, y, x). Along time stand the coordinates `slice` (its id), `scenes` and `derived_from`
        (ids and addresses of its scenes, a line each) and `recipe` (see `TimeSlice`).

    Raises
    ------
    HarmonisationError
        If the offset of a scene's pixels is unknown.
    """
    offsets = np.array([offset_dn(scene) for scene in _scenes(plan)], dtype="int32")
    usable = dn.data != _DN_NODATA
    if valid is not None:
        usable &= valid.data[:, np.newaxis]
    values = da.where(usable, dn.data.astype("int32") + offsets[:, np.newaxis, np.newaxis, np.newaxis], NODATA)
    images, first = [], 0
    for time_slice in plan.slices:
        last = first + len(time_slice.scenes)
        images.append(functools.reduce(_fill_holes, values[first:last]))
        first = last
    return _as_cube(plan, list(dn.band.values), _convert(da.stack(images), dtype))


def _fill_holes(above: da.Array, below: da.Array) -> da.Array:
    return da.where(above != NODATA, above, below)


def _convert(values: da.Array, dtype: Dtype) -> da.Array:
    hole = values == NODATA
    if dtype == "int16":
        return da.where(hole, NODATA, values.clip(*_INT16_VALID)).astype(dtype)
    return da.where(hole, np.float32(np.nan), values.astype(dtype) * np.float32(SCALE))


def _as_cube(plan: Plan, bands: list[str], values: da.Array) -> xr.DataArray:
    times = np.array([np.datetime64(each.time.replace(tzinfo=None), "ns") for each in plan.slices])
    integer = values.dtype.kind == "i"
    cube = xr.DataArray(
        values,
        dims=("time", "band", "y", "x"),
        coords={
            "time": times,
            "band": bands,
            **xr_coords(plan.geobox),
            "slice": ("time", [each.id for each in plan.slices]),
            "scenes": ("time", ["\n".join(scene.id for scene in each.scenes) for each in plan.slices]),
            "derived_from": ("time", [_addresses(each) for each in plan.slices]),
            "recipe": ("time", [each.recipe for each in plan.slices]),
        },
        name="reflectance",
        attrs={"units": "1", "aoi": plan.aoi.id, "aoi_wkt_lonlat": plan.aoi.geometry_lonlat.wkt}
        | ({"scale_factor": SCALE} if integer else {}),
    )
    return cube.rio.write_nodata(NODATA if integer else np.nan)


def _addresses(time_slice: TimeSlice) -> str:
    return "\n".join(href for scene in time_slice.scenes if (href := address(scene)))


def _scenes(plan: Plan) -> "list[pystac.Item]":
    return [scene for time_slice in plan.slices for scene in time_slice.scenes]


def _chunk_cells(steps: int) -> int:
    return max(1, _CHUNK_PIXELS // steps)


def _stack(
    scenes: "list[pystac.Item]", hrefs: list[list[str]], geobox: "GeoBox", chunk: int, dtype: Literal["uint8", "uint16"]
) -> xr.DataArray:
    """Stack files, of classes (uint8) by nearest neighbour, of digital numbers (uint16) by the area-weighted mean."""
    # Each file itself says where its pixels lie. What items say of it is often another grid (proj:shape of the
    # undecimated file) or another spelling (proj:code), so stackstac is told no more than that all may meet the grid.
    bounds = tuple(geobox.boundingbox)
    epsg = geobox.crs.epsg if geobox.crs else None
    facts = {"datetime": None, "proj:epsg": epsg, "proj:bbox": bounds}
    keys = [str(position) for position in range(len(hrefs[0]))]
    stack = stackstac.stack(
        [
            {
                "id": scene.id,
                "properties": facts,
                "assets": {key: {"href": href} for key, href in zip(keys, each, strict=True)},
            }
            for scene, each in zip(scenes, hrefs, strict=True)
        ],
        assets=keys,
        epsg=epsg,
        resolution=geobox.resolution.x,
        bounds=bounds,
        snap_bounds=False,
        resampling=Resampling.nearest if dtype == "uint8" else Resampling.average,
        chunksize=(1, 1, chunk, chunk),
        dtype=np.dtype(dtype),
        fill_value=np.dtype(dtype).type(_DN_NODATA),
        rescale=False,
        sortby_date=False,
        xy_coords=False,
        properties=False,
        band_coords=False,
        gdal_env=_GDAL,
        errors_as_nodata=(),
        reader=_BlamingReader,
    )
    assert stack.shape == (len(scenes), len(keys), *geobox.shape), (stack.shape, geobox)
    return stack.rename(time="scene").drop_vars("scene")
