"""Write an image as a PNG that people can look at."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.io import DatasetReader
from rasterio.windows import Window

from s2cube.cube.packing import PACKINGS
from s2cube.output._spool import Spool, open_spool
from s2cube.sentinel2 import canonical_bands

_TRUE_COLOUR = ("red", "green", "blue")
_BRIGHTEST_REFLECTANCE = 0.3
"""Land rarely reflects more in visible light. The value is the same for all dates, so that pictures are comparable."""
_STRETCH_PERCENT = (2, 98)
_ZLEVEL = "2"
"""Deflate level of the PNG. At the default level, 6, writing a picture takes longer than writing its COG, and the
picture is only a sixth smaller."""

_PIXELS_FOR_RANGE = 1 << 22
"""Number of pixels that is enough to estimate percentiles of an image."""


def write_picture(bands: tuple[str, ...], pixels: Spool, path: Path) -> None:
    """Write a PNG: true colour if the image has red, green and blue, else the first band. Nodata is transparent.

    The first band is stretched between two percentiles of its values.

    Parameters
    ----------
    bands
        Names of the bands, in the spelling of any catalogue.
    pixels
        The pixels of these bands, int16 or float32.
    path
        The PNG; an existing file is replaced.
    """
    names = canonical_bands(bands)
    _, height, width = pixels.shape
    grid = {"height": height, "width": width, "transform": pixels.layout["transform"]}
    # The raster has a transform, because rasterio warns if it has none. PAM is off, so that GDAL does not write this
    # transform to a file beside the PNG.
    with (
        rasterio.Env(GDAL_PAM_ENABLED="NO"),
        open_spool(path.parent, count=4, dtype="uint8", **grid) as colours,
        pixels.open() as source,
    ):
        is_true_colour = set(_TRUE_COLOUR) <= set(names)
        shown = [names.index(name) + 1 for name in _TRUE_COLOUR] if is_true_colour else [1, 1, 1]
        range_ = (0.0, _BRIGHTEST_REFLECTANCE) if is_true_colour else _percentile_range(source, shown)
        with colours.filling():
            for _, window in source.block_windows(1):
                colours.put(_colours(source, shown, range_, window), 0, window.row_off, window.col_off)
        colours.copy(path, "PNG", zlevel=_ZLEVEL)


def _colours(source: DatasetReader, shown: list[int], range_: tuple[float, float], window: Window) -> np.ndarray:
    """Return red, green, blue and opacity, each from 0 to 255."""
    low, high = range_
    reflectance, is_nodata = _reflectance(source, shown, window=window)
    layers = np.where(is_nodata, 0, np.clip((reflectance - low) / (high - low), 0, 1))
    return np.concatenate([np.round(layers * 255), ~is_nodata.any(axis=0, keepdims=True) * 255]).astype("uint8")


def _reflectance(source: DatasetReader, shown: list[int], **part: Any) -> tuple[np.ndarray, np.ndarray]:
    """Read reflectance, with 0 in place of nodata, and a mask that is True at nodata."""
    raw = source.read(shown, **part)
    packing = PACKINGS[raw.dtype.name]
    is_nodata = packing.holes(raw)
    return np.where(is_nodata, 0, raw * np.float32(packing.scale)), is_nodata


def _percentile_range(source: DatasetReader, shown: list[int]) -> tuple[float, float]:
    """Return the reflectance that is shown black and the reflectance that is shown white."""
    step = math.ceil(math.sqrt(source.height * source.width / _PIXELS_FOR_RANGE))
    shape = (len(shown), -(-source.height // step), -(-source.width // step))
    values, is_nodata = _reflectance(source, shown, out_shape=shape)
    low, high = np.percentile(values[~is_nodata], _STRETCH_PERCENT) if not is_nodata.all() else (0, 1)
    return float(low), float(high) if high > low else float(low) + 1
