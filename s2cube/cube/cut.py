"""Cut images to an area of interest: clip them to its outline, add coordinates."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate, pairwise
from typing import Any

import dask.array as da
import numpy as np
import rasterio.features
import shapely
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry
from odc.geo.xr import xr_coords
from shapely.geometry.base import BaseGeometry

from s2cube.area.outline import in_crs
from s2cube.fetch.session import kept_within
from s2cube.kernels.packing import Packing

_KEPT_BYTES = 64 << 20
"""Maximum size of the cells of areas that a process keeps, because they are the same for all days. A field has 1 KB."""


@dataclass(frozen=True, eq=False)
class ComputedImage:
    """The image of one time slice over one area of interest, in memory.

    Parameters
    ----------
    values
        Dims (band, y, x), packed as `packing` says.
    reasons
        Dims (y, x), uint8: why cells are masked, from `mask.explain`; `QA.OUTSIDE` outside the area.
    bands
        Names of the bands.
    geobox
        Grid of the image.
    time
        Acquisition time of the earliest scene, UTC; None if the image is of an interval.
    """

    values: np.ndarray
    reasons: np.ndarray
    bands: tuple[str, ...]
    geobox: GeoBox
    time: datetime | None
    packing: Packing


def inside(geobox: GeoBox, geometry: Geometry) -> np.ndarray:
    """Find the cells of an area of interest, see `clip`.

    Returns
    -------
    numpy.ndarray
        Dims (y, x), bool: True inside the area.
    """
    return _cells(geobox, geometry.geom.wkb, str(geometry.crs))


@kept_within(lambda: _KEPT_BYTES, lambda cells: cells.nbytes)
def _cells(geobox: GeoBox, outline_wkb: bytes, crs: str) -> np.ndarray:
    assert geobox.crs is not None
    outline, (height, width) = in_crs(Geometry(shapely.from_wkb(outline_wkb), crs), geobox.crs).geom, geobox.shape
    whole = ((0, height), (0, width))
    found = _inside(whole, outline, geobox.affine, all_touched=False)
    return found if found.any() else _inside(whole, outline, geobox.affine, all_touched=True)


def inside_chunks(geobox: GeoBox, geometry: Geometry, chunks: tuple[tuple[int, ...], ...]) -> da.Array:
    """Find the cells of an area of interest, see `inside`, chunk by chunk."""
    assert geobox.crs is not None
    outline, transform = in_crs(geometry, geobox.crs).geom, geobox.affine
    rows, columns = (list(pairwise(accumulate(lengths, initial=0))) for lengths in chunks)
    parts = ((down, across) for down in rows for across in columns)
    all_touched = not any(_inside(part, outline, transform, all_touched=False).any() for part in parts)
    return da.map_blocks(
        _inside_block, outline=outline, transform=transform, all_touched=all_touched,
        chunks=chunks, dtype=bool, meta=np.empty((0, 0), bool),
    )  # fmt: skip


def clip(geobox: GeoBox, geometry: Geometry, *rasters: tuple[da.Array, float]) -> list[da.Array]:
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
    masks = {chunks: inside_chunks(geobox, geometry, chunks) for chunks in {each.chunks[-2:] for each, _ in rasters}}
    return [da.where(masks[values.chunks[-2:]], values, values.dtype.type(nodata)) for values, nodata in rasters]


def _inside_block(block_info: Any, outline: BaseGeometry, transform: Affine, all_touched: bool) -> np.ndarray:
    return _inside(block_info[None]["array-location"], outline, transform, all_touched)


def _inside(part: Sequence[tuple[int, int]], outline: BaseGeometry, transform: Affine, all_touched: bool) -> np.ndarray:
    (top, bottom), (left, right) = part
    inside: np.ndarray = rasterio.features.geometry_mask(
        [outline], (bottom - top, right - left), transform @ Affine.translation(left, top), all_touched, invert=True
    )
    return inside


def labelled(
    values: da.Array, reasons: da.Array, bands: Sequence[str], geobox: GeoBox, times: Sequence[datetime]
) -> xr.DataArray:
    """Add coordinates to images of one area of interest.

    Parameters
    ----------
    values
        Dims (time, band, y, x).
    reasons
        QA values, dims (time, y, x).
    times
        Times of the slices, UTC.

    Returns
    -------
    xarray.DataArray
        Lazy, dims (time, band, y, x), with the coordinate `qa` (time, y, x).
    """
    qa = xr.Variable(("time", "y", "x"), reasons)
    # Zarr 3 has no standard for texts of a fixed length, so the names are objects.
    naive = [np.datetime64(each.replace(tzinfo=None), "ns") for each in times]
    coords = {"time": np.array(naive), "band": np.array(bands, object), **xr_coords(geobox), "qa": qa}
    return xr.DataArray(values, dims=("time", "band", "y", "x"), coords=coords)
