"""An image becomes a picture for people."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.io import DatasetReader
from rasterio.windows import Window

from s2cube.cube.packing import PACKINGS
from s2cube.output._spool import Draft, draft
from s2cube.sentinel2 import canonical_bands

_TRUE_COLOUR = ("red", "green", "blue")
_BRIGHTEST_REFLECTANCE = 0.3
"""Land seldom reflects more in visible light; the same on every date, so that pictures compare."""
_STRETCH_PERCENT = (2, 98)
_EFFORT = "2"
"""Of PNG's deflate: at its usual 6 a picture takes longer than its COG, for a file a sixth smaller."""

_PIXELS_FOR_RANGE = 1 << 22
"""So many tell well enough where a few percent of an image lie."""


def write_picture(bands: tuple[str, ...], pixels: Draft, path: Path) -> None:
    """Write a PNG: true colour where the bands are there, else the first band, stretched; transparent where nodata.

    Parameters
    ----------
    bands
        Names, in any catalogue.
    pixels
        Filled with them, int16 or float32.
    path
        Overwritten.
    """
    names = canonical_bands(bands)
    _, height, width = pixels.shape
    place = {"height": height, "width": width, "transform": pixels.layout["transform"]}
    # A transform, for without one rasterio warns; without PAM it is written nowhere.
    with (
        rasterio.Env(GDAL_PAM_ENABLED="NO"),
        draft(path.parent, count=4, dtype="uint8", **place) as colours,
        pixels.open() as source,
    ):
        is_true_colour = set(_TRUE_COLOUR) <= set(names)
        shown = [names.index(name) + 1 for name in _TRUE_COLOUR] if is_true_colour else [1, 1, 1]
        range_ = (0.0, _BRIGHTEST_REFLECTANCE) if is_true_colour else _usual_range(source, shown)
        with colours.filling():
            for _, window in source.block_windows(1):
                colours.put(_colours(source, shown, range_, window), 0, window.row_off, window.col_off)
        colours.copy(path, "PNG", zlevel=_EFFORT)


def _colours(source: DatasetReader, shown: list[int], range_: tuple[float, float], window: Window) -> np.ndarray:
    """Give red, green, blue and whether all are valid, from 0 to 255."""
    low, high = range_
    reflectance, hole = _reflectance(source, shown, window=window)
    layers = np.where(hole, 0, np.clip((reflectance - low) / (high - low), 0, 1))
    return np.concatenate([np.round(layers * 255), ~hole.any(axis=0, keepdims=True) * 255]).astype("uint8")


def _reflectance(source: DatasetReader, shown: list[int], **part: Any) -> tuple[np.ndarray, np.ndarray]:
    raw = source.read(shown, **part)
    packing = PACKINGS[raw.dtype.name]
    hole = packing.holes(raw)
    return np.where(hole, 0, raw * np.float32(packing.scale)), hole


def _usual_range(source: DatasetReader, shown: list[int]) -> tuple[float, float]:
    step = math.ceil(math.sqrt(source.height * source.width / _PIXELS_FOR_RANGE))
    shape = (len(shown), -(-source.height // step), -(-source.width // step))
    values, hole = _reflectance(source, shown, out_shape=shape)
    low, high = np.percentile(values[~hole], _STRETCH_PERCENT) if not hole.all() else (0, 1)
    return float(low), float(high) if high > low else float(low) + 1
