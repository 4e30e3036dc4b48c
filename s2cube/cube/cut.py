"""Cut a mosaic to one area of interest: crop to its grid, clip to its outline, add coordinates."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import dask.array as da
import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from s2cube.cube.clip import clip
from s2cube.cube.mosaic import Mosaic
from s2cube.cube.packing import PACKINGS, Packing
from s2cube.sentinel2 import QA

if TYPE_CHECKING:
    from odc.geo.geom import Geometry


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


def cut(mosaic: Mosaic, geobox: GeoBox, outline: "Geometry", times: Sequence[datetime]) -> xr.DataArray:
    """Cut a mosaic to one area of interest.

    Parameters
    ----------
    geobox
        Grid of the area, a part of the mosaic's grid.
    outline
        Polygon of the area, in any CRS. Cells outside it, or in its holes, become nodata.
    times
        Times of the slices, UTC.

    Returns
    -------
    xarray.DataArray
        Lazy, dims (time, band, y, x), with the coordinate `qa` (time, y, x).
    """
    packing = PACKINGS[mosaic.values.dtype.name]
    values, reasons = (_crop(each, mosaic.geobox, geobox) for each in (mosaic.values, mosaic.reasons))
    values, reasons = clip(geobox, outline, (values, packing.nodata), (reasons, QA.OUTSIDE))
    return labelled(values, reasons, mosaic.bands, geobox, times)


def labelled(
    values: da.Array, reasons: da.Array, bands: Sequence[str], geobox: GeoBox, times: Sequence[datetime]
) -> xr.DataArray:
    """Add coordinates to the values and QA values of images, see `cut`."""
    qa = xr.Variable(("time", "y", "x"), reasons)
    # Zarr 3 has no standard for texts of a fixed length, so the names are objects.
    naive = [np.datetime64(each.replace(tzinfo=None), "ns") for each in times]
    coords = {"time": np.array(naive), "band": np.array(bands, object), **xr_coords(geobox), "qa": qa}
    return xr.DataArray(values, dims=("time", "band", "y", "x"), coords=coords)


def cut_reasons(reasons: da.Array, grid: GeoBox, geobox: GeoBox, outline: "Geometry") -> da.Array:
    """Cut the result of `mask.explain` from `grid` to an area of interest, as `cut` does."""
    (inside,) = clip(geobox, outline, (_crop(reasons, grid, geobox), QA.OUTSIDE))
    return inside


def _crop(data: da.Array, grid: GeoBox, geobox: GeoBox) -> da.Array:
    return data if geobox == grid else data[(..., *grid.overlap_roi(geobox))]
