"""Write an image as a PNG that people can look at."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.io import DatasetReader
from rasterio.windows import Window

from s2cube.kernels.packing import PACKINGS, Packing
from s2cube.output._spool import Spool, open_spool
from s2cube.sentinel2 import PixelClass, band_of, classes_in

TRUE_COLOUR = ("red", "green", "blue")

BRIGHTEST_REFLECTANCE = {
    "coastal": 0.3, "blue": 0.3, "green": 0.3, "red": 0.3, "rededge1": 0.4, "rededge2": 0.6, "rededge3": 0.6,
    "nir": 0.6, "nir08": 0.6, "nir09": 0.6, "swir16": 0.5, "swir22": 0.4,
}  # fmt: skip
"""Reflectance that is shown white. Land rarely reflects more in the band. The values are the same for all dates, so
that pictures are comparable."""

_NORMALISED_DIFFERENCES = frozenset({"NDVI", "GNDVI", "NDWI", "MNDWI", "NDMI", "NDREI", "NBR", "NBR2", "NDSI", "NDBI"})
"""Indices of the form (a - b) / (a + b). They are shown from -1, black, to 1, white."""

_STRETCH_PERCENT = (2, 98)
"""Percentiles of the values that are shown black and white, if the range of a band is unknown."""

_SIDE_PIXELS = 256
_MAX_SIDE_PIXELS = 1024
"""A small picture is enlarged until its shorter side has at least `_SIDE_PIXELS`, unless the longer side would have
more than `_MAX_SIDE_PIXELS`."""

_ZLEVEL = "2"
"""Deflate level of the PNG. At the default level, 6, writing a picture takes longer than writing its COG, and the
picture is only a sixth smaller."""

_PIXELS_FOR_RANGE = 1 << 22
"""Number of pixels that is enough to estimate percentiles of an image."""


def write_picture(bands: tuple[str, ...], pixels: Spool, path: Path, packing: Packing | None = None) -> None:
    """Write a PNG: true colour if the image has red, green and blue, else the first band that is no class, in gray.

    If all bands are classes, the first one is shown in the colours of its classes. Nodata is transparent. Black and
    white are fixed values for every band of Sentinel-2 and for normalised differences such as NDVI. For any other band
    they are percentiles of its values, so that they differ between images. Each pixel of a small image becomes a square
    of several pixels.

    Parameters
    ----------
    bands
        Names of the bands. Bands of Sentinel-2 may be in the spelling of any catalogue.
    pixels
        The pixels of these bands.
    path
        The PNG; an existing file is replaced.
    packing
        Packing of the pixels. None for reflectance. If its unit is unknown, black and white are percentiles for bands
        of Sentinel-2, too.
    """
    names = [band_of(name) or name for name in bands]
    _, height, width = pixels.shape
    factor = _enlargement(height, width)
    grid = {"height": height * factor, "width": width * factor, "transform": pixels.layout["transform"]}
    # The raster has a transform, because rasterio warns if it has none. PAM is off, so that GDAL does not write this
    # transform to a file beside the PNG.
    with (
        rasterio.Env(GDAL_PAM_ENABLED="NO"),
        open_spool(path.parent, count=4, dtype="uint8", **grid) as colours,
        pixels.open() as source,
    ):
        is_true_colour = set(TRUE_COLOUR) <= set(names)
        packing = packing or PACKINGS[source.dtypes[0]]
        grays = [name for name in names if not classes_in(name)][:1] or names[:1]
        shown = [names.index(name) + 1 for name in (TRUE_COLOUR if is_true_colour else grays * 3)]
        classes = classes_in(names[shown[0] - 1])
        ranges = {
            each: _fixed_range(names[each - 1], packing) or _percentile_range(source, each, packing)
            for each in {*shown}
        }
        limits = np.array([ranges[each] for each in shown], "float32")
        with colours.filling():
            for _, window in source.block_windows(1):
                part = (
                    _class_colours(source.read(shown[0], window=window), classes, packing)
                    if classes
                    else _colours(source, shown, limits, packing, window=window)
                )
                enlarged = part.repeat(factor, axis=1).repeat(factor, axis=2)
                colours.put(enlarged, 0, window.row_off * factor, window.col_off * factor)
        colours.copy(path, "PNG", zlevel=_ZLEVEL)


def _enlargement(height: int, width: int) -> int:
    """Return the whole number by which the sides of a picture are multiplied."""
    return max(1, min(math.ceil(_SIDE_PIXELS / min(height, width)), _MAX_SIDE_PIXELS // max(height, width)))


def _colours(
    source: DatasetReader, shown: list[int], limits: np.ndarray, packing: Packing, window: Window
) -> np.ndarray:
    """Return red, green, blue and opacity, each from 0 to 255."""
    low, high = limits.T[..., np.newaxis, np.newaxis]
    reflectance, is_nodata = _reflectance(source, shown, packing, window=window)
    layers = np.where(is_nodata, 0, np.clip((reflectance - low) / (high - low), 0, 1))
    return np.concatenate([np.round(layers * 255), ~is_nodata.any(axis=0, keepdims=True) * 255]).astype("uint8")


def _class_colours(raw: np.ndarray, classes: Mapping[int, PixelClass], packing: Packing) -> np.ndarray:
    """Return red, green, blue and opacity of a band of classes, each from 0 to 255. Nodata is no class."""
    table = np.zeros((256, 4), "uint8")
    for value, each in classes.items():
        table[value] = (*each.colour, 255)
    values = np.where(packing.holes(raw), 255, raw).astype("uint8")
    return np.moveaxis(table[values], -1, 0)


def _reflectance(
    source: DatasetReader, shown: list[int], packing: Packing, **part: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Read reflectance, with 0 in place of nodata, and a mask that is True at nodata."""
    raw = source.read(shown, **part)
    is_nodata = packing.holes(raw)
    return np.where(is_nodata, 0, raw * np.float32(packing.scale)), is_nodata


def _fixed_range(name: str, packing: Packing) -> tuple[float, float] | None:
    """Return the values of a band that are shown black and white; None if its range is unknown."""
    if name.upper() in _NORMALISED_DIFFERENCES:
        return -1.0, 1.0
    return (0.0, BRIGHTEST_REFLECTANCE[name]) if packing.unit and name in BRIGHTEST_REFLECTANCE else None


def _percentile_range(source: DatasetReader, number: int, packing: Packing) -> tuple[float, float]:
    """Return two percentiles of the values of a band."""
    step = math.ceil(math.sqrt(source.height * source.width / _PIXELS_FOR_RANGE))
    shape = (1, -(-source.height // step), -(-source.width // step))
    values, is_nodata = _reflectance(source, [number], packing, out_shape=shape)
    known = values[~is_nodata & np.isfinite(values)]
    low, high = np.percentile(known, _STRETCH_PERCENT) if known.size else (0, 1)
    return float(low), float(high) if high > low else float(low) + 1
