"""An image becomes a picture for people."""

from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil
import rioxarray  # noqa: F401  registers .rio
import xarray as xr
from rasterio.io import MemoryFile

from s2cube.provider import SCALE, canonical_bands

_TRUE_COLOUR = ("red", "green", "blue")
_BRIGHTEST_REFLECTANCE = 0.3
"""Land seldom reflects more in visible light; the same on every date, so that pictures compare."""
_STRETCH_PERCENT = (2, 98)
_EFFORT = 2
"""Of PNG's deflate: at its usual 6 a picture takes longer than its COG, for a file a sixth smaller."""


def write_picture(image: xr.DataArray, path: Path) -> None:
    """Write a PNG: true colour where the bands are there, else the first band, stretched; transparent where nodata.

    Parameters
    ----------
    image
        Computed, dims (band, y, x), int16 or float32, with nodata.
    path
        Overwritten.
    """
    layers, valid = _layers(image)
    rgba = np.stack([*(np.round(layer * 255).astype("uint8") for layer in layers), valid.astype("uint8") * 255])
    _, height, width = rgba.shape
    # A transform, for without one rasterio warns; without PAM it is written nowhere.
    with MemoryFile() as memory, rasterio.Env(GDAL_PAM_ENABLED="NO"):
        with memory.open(
            driver="GTiff", count=4, height=height, width=width, dtype="uint8", transform=image.rio.transform()
        ) as source:
            source.write(rgba)
        with memory.open() as source:
            rasterio.shutil.copy(source, path, driver="PNG", zlevel=_EFFORT)


def _layers(image: xr.DataArray) -> tuple[list[np.ndarray], np.ndarray]:
    """Choose what is shown as red, green and blue, from 0 to 1, and tell where it is valid."""
    names = canonical_bands(tuple(str(name) for name in image.band.values))
    is_true_colour = set(_TRUE_COLOUR) <= set(names)
    raw = image.values[[names.index(name) for name in _TRUE_COLOUR] if is_true_colour else [0, 0, 0]]
    floating = raw.dtype.kind == "f"
    hole = np.isnan(raw) if floating else raw == image.rio.nodata
    reflectance = np.where(hole, 0, raw * np.float32(1 if floating else SCALE))
    low, high = (0.0, _BRIGHTEST_REFLECTANCE) if is_true_colour else _usual_range(reflectance[~hole])
    return list(np.where(hole, 0, np.clip((reflectance - low) / (high - low), 0, 1))), ~hole.any(axis=0)


def _usual_range(values: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(values, _STRETCH_PERCENT) if values.size else (0, 1)
    return float(low), float(high) if high > low else float(low) + 1
