"""Write an image as a PNG for people."""

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
"""Land seldom reflects more in visible light. It is the same for every date, so that pictures can be compared."""
_STRETCH_PERCENT = (2, 98)
_ZLEVEL = "2"
"""Level of PNG's deflate. At the default, 6, a picture takes longer than its COG, and is only a sixth smaller."""

_PIXELS_FOR_RANGE = 1 << 22
"""Number of pixels that estimate percentiles of an image well enough."""


def write_picture(bands: tuple[str, ...], pixels: Spool, path: Path) -> None:
    """Write a PNG: true colour if the image has these bands, else the first band, stretched; nodata is transparent.

    Parameters
    ----------
    bands
        Names of the bands, as any catalogue spells them.
    pixels
        The pixels of these bands, int16 or float32.
    path
        The PNG; an existing file is replaced.
    """
    names = canonical_bands(bands)
    _, height, width = pixels.shape
    grid = {"height": height, "width": width, "transform": pixels.layout["transform"]}
    # rasterio warns about a raster without a transform. Without PAM, GDAL does not write it to a file beside the PNG.
    with (
        rasterio.Env(GDAL_PAM_ENABLED="NO"),
        open_spool(path.parent, count=4, dtype="uint8", **grid) as colours,
        pixels.open() as source,
    ):
        is_true_colour = set(_TRUE_COLOUR) <= set(names)
        shown = [names.index(name) + 1 for name in _TRUE_COLOUR] if is_true_colour else [1, 1, 1]
        range_ = (0.0, _BRIGHTEST_REFLECTANCE) if is_true_colour else _usual_range(source, shown)
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
    """Read reflectance, 0 where it is nodata, and where it is nodata."""
    raw = source.read(shown, **part)
    packing = PACKINGS[raw.dtype.name]
    is_nodata = packing.holes(raw)
    return np.where(is_nodata, 0, raw * np.float32(packing.scale)), is_nodata


def _usual_range(source: DatasetReader, shown: list[int]) -> tuple[float, float]:
    """Return the range of reflectance that the stretch shows from dark to bright."""
    step = math.ceil(math.sqrt(source.height * source.width / _PIXELS_FOR_RANGE))
    shape = (len(shown), -(-source.height // step), -(-source.width // step))
    values, is_nodata = _reflectance(source, shown, out_shape=shape)
    low, high = np.percentile(values[~is_nodata], _STRETCH_PERCENT) if not is_nodata.all() else (0, 1)
    return float(low), float(high) if high > low else float(low) + 1
