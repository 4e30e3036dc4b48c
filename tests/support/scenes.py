"""Simulated scenes for a test: their files, their item, and an AOI inside them."""

from pathlib import Path
from typing import Any

import numpy as np
import pystac
import rasterio
import rasterio.warp
import xarray as xr
from odc.geo.geom import box
from rasterio.transform import from_origin

import s2cube
from s2cube.area.aoi import AOI

LEFT_M, TOP_M, EPSG = 600000, 4500000, 32614
NATIVE_M = {"blue": 10, "green": 10, "red": 10, "nir": 10, "swir16": 20, "coastal": 60}
NATIVE_M |= {"scl": 20, "cloud": 20, "snow": 20, "qa60": 60}


def write_band(path: Path, pixels: np.ndarray, resolution_m: float, **profile: Any) -> None:
    transform = from_origin(LEFT_M, TOP_M, resolution_m, resolution_m)
    options = {"nodata": 0, "crs": EPSG, "transform": transform} | profile
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=pixels.shape[0], width=pixels.shape[1], dtype=pixels.dtype, **options
    ) as file:
        file.write(pixels, 1)


def scene(folder: Path, name: str = "scene", second: int = 0, **layers: np.ndarray) -> pystac.Item:
    """Write the files of a scene and describe it."""
    assets = {}
    for key, pixels in layers.items():
        path = folder / f"{name}_{key}.tif"
        write_band(path, pixels, NATIVE_M[key])
        assets[key] = {"href": str(path)}
    west, south, east, north = rasterio.warp.transform_bounds(EPSG, 4326, LEFT_M, TOP_M - 6000, LEFT_M + 6000, TOP_M)
    return pystac.Item.from_dict(
        {
            "type": "Feature", "stac_version": "1.0.0", "id": name, "links": [], "bbox": [west, south, east, north],
            "geometry": box(west, south, east, north, "EPSG:4326").json, "assets": assets,
            "properties": {
                "proj:epsg": EPSG, "datetime": f"2020-07-01T17:00:{second:02}Z", "s2:processing_baseline": "02.14",
            },
        }
    )  # fmt: skip


def rectangle(left: float, bottom: float, right: float, top: float) -> AOI:
    """Make an AOI from its bounds in metres from the upper left corner of the scene; y points up, so it is negative."""
    return AOI("aoi", box(LEFT_M + left, TOP_M + bottom, LEFT_M + right, TOP_M + top, f"EPSG:{EPSG}"))


def open_int16(items: list[pystac.Item], aoi: AOI, **settings: Any) -> xr.DataArray:
    """Open a cube of reflectance × 10000, so that a test can compare whole numbers."""
    return s2cube.open_cube(items, aoi, dtype="int16", **settings)


def ramp(side: int, resolution_m: float, east: float = 0.5, south: float = 0.25) -> np.ndarray:
    """Make digital numbers that increase linearly, in DN per metre: the mean of a rectangle is its central value."""
    centres = (np.arange(side) + 0.5) * resolution_m
    return np.round(1000 + east * centres[np.newaxis, :] + south * centres[:, np.newaxis]).astype("uint16")


CLEAR = np.full((300, 300), 4, "uint8")
