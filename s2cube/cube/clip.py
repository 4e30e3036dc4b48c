"""Clip arrays on a grid to a polygon."""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import rasterio.features
from affine import Affine
from odc.geo.geobox import GeoBox
from shapely.geometry.base import BaseGeometry

from s2cube.area.outline import in_crs

if TYPE_CHECKING:
    from odc.geo.geom import Geometry


def clip(geobox: GeoBox, geometry: "Geometry", *rasters: tuple[da.Array, float]) -> list[da.Array]:
    """Set cells outside a polygon, or in its holes, to nodata.

    A cell is inside if its centre is inside. A polygon that is smaller or narrower than a cell may contain no cell
    centre. Then all cells that it touches are inside.

    Parameters
    ----------
    geobox
        Grid of the rasters.
    geometry
        Polygon or MultiPolygon in any CRS.
    rasters
        Pairs of an array, last dims (y, x), and its nodata value.

    Returns
    -------
    list of dask.array.Array
        Lazy.
    """
    assert geobox.crs is not None
    outline, masks = in_crs(geometry, geobox.crs).geom, {}
    for values, _ in rasters:
        if values.chunks[-2:] not in masks:
            masks[values.chunks[-2:]] = _inside_chunks(values.chunks[-2:], outline, geobox.affine)
    return [da.where(masks[values.chunks[-2:]], values, values.dtype.type(nodata)) for values, nodata in rasters]


def _inside_chunks(chunks: tuple[tuple[int, ...], ...], outline: BaseGeometry, transform: Affine) -> da.Array:
    rows, columns = (list(pairwise(accumulate(lengths, initial=0))) for lengths in chunks)
    parts = ((down, across) for down in rows for across in columns)
    all_touched = not any(_inside(part, outline, transform, all_touched=False).any() for part in parts)
    return da.map_blocks(
        _inside_block, outline=outline, transform=transform, all_touched=all_touched,
        chunks=chunks, dtype=bool, meta=np.empty((0, 0), bool),
    )  # fmt: skip


def _inside_block(block_info: Any, outline: BaseGeometry, transform: Affine, all_touched: bool) -> np.ndarray:
    return _inside(block_info[None]["array-location"], outline, transform, all_touched)


def _inside(part: Sequence[tuple[int, int]], outline: BaseGeometry, transform: Affine, all_touched: bool) -> np.ndarray:
    (top, bottom), (left, right) = part
    inside: np.ndarray = rasterio.features.geometry_mask(
        [outline], (bottom - top, right - left), transform @ Affine.translation(left, top), all_touched, invert=True
    )
    return inside
