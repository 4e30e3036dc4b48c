"""Read the georeferencing of a GeoTIFF, its transform and its CRS, from its tags."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import pyproj
from affine import Affine
from rasterio.crs import CRS

_MODEL_TYPE, _RASTER_TYPE, _PROJECTED_CRS, _LINEAR_UNITS = 1024, 1025, 3072, 3076
_USUAL_KEYS = {_MODEL_TYPE, _RASTER_TYPE, 2054, _PROJECTED_CRS, _LINEAR_UNITS}
_CITATIONS, _TEXTS = {1026, 2049, 3073}, 34737
"""GeoKeys that GDAL usually writes (2054: the unit of angles), and the tag that contains their texts."""

_USER_DEFINED = 32767
_METRE = 9001
"""Codes of TIFF 6.0 and of GeoTIFF 1.1."""


class Unsupported(Exception):
    """A file that this package cannot read itself, but that a GDAL driver may read. The message describes it."""

    def __init__(self, description: str, driver: str = "GTiff") -> None:
        super().__init__(description)
        self.driver = driver


def georeferencing(page: dict[int, Any]) -> tuple[Affine, CRS] | None:
    """Read the transform from columns and rows to coordinates, and the CRS. Return None if the file has none.

    Parameters
    ----------
    page
        Tags of the full resolution, by code.

    Raises
    ------
    Unsupported
        If only GDAL can determine them.
    """
    keys, scale, tie = (page.get(tag, ()) for tag in (34735, 33550, 33922))
    if 34264 in page or len(tie) > 6:
        raise Unsupported("a TIFF that is not georeferenced by one corner")
    if not keys or len(scale) < 2 or len(tie) < 6:
        return None
    code = _epsg_code(keys)
    crs = epsg(code)
    if _is_deprecated(code):
        # GDAL replaces some deprecated codes, and PROJ others: the positions differ by up to hundreds of metres.
        raise Unsupported("a TIFF with a deprecated CRS")
    across, down = scale[:2]
    column, row, _, x, y = tie[:5]
    transform = Affine(across, 0, x - column * across, 0, -down, y + row * down)
    if not all(map(math.isfinite, transform)) or across <= 0 or down <= 0:
        return None
    return transform, crs


def _epsg_code(keys: Sequence[int]) -> int:
    """Return the EPSG code of a projected CRS in metres, if the GeoKeys define nothing more.

    Raises
    ------
    Unsupported
        If they define more. GDAL combines all of them into one CRS.
    """
    entries = [tuple(keys[at : at + 4]) for at in range(4, len(keys) // 4 * 4, 4)]
    values = {key: value for key, location, count, value in entries if (location, count) == (0, 1)}
    texts = {key for key, location, *_ in entries if location == _TEXTS}
    usual = keys[0] == 1 and len(keys) == 4 + 4 * keys[3] and len(entries) == len(values) + len(texts)
    usual = usual and values.keys() <= _USUAL_KEYS and texts <= _CITATIONS
    code = values.get(_PROJECTED_CRS, _USER_DEFINED)
    area, metres = values.get(_RASTER_TYPE, 1) == 1, values.get(_LINEAR_UNITS, _METRE) == _METRE
    if not usual or values.get(_MODEL_TYPE) != 1 or code == _USER_DEFINED or not area or not metres:
        raise Unsupported("a TIFF with an uncommon CRS")
    return code


@lru_cache(maxsize=256)
def epsg(code: int) -> CRS:
    """Return the CRS of an EPSG code."""
    return CRS.from_epsg(code)


@lru_cache(maxsize=256)
def _is_deprecated(code: int) -> bool:
    return bool(pyproj.CRS.from_epsg(code).is_deprecated)
