"""Computed images, and their files."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from s2cube.config.sections import OutputSection
from s2cube.kernels.packing import packing_of
from s2cube.output._cog import small_cog, write_cog
from s2cube.output._raster import Spool, layout_of, open_spool
from s2cube.output._statistics import Tally

BANDS = ("blue", "green", "red")


def image(side: int, dtype: str = "int16", bands: tuple[str, ...] = BANDS) -> xr.DataArray:
    """A smooth picture with a hole, as `open_cube` gives it once computed."""
    ramp = np.linspace(0, 3000, side)
    values = np.stack([ramp[:, np.newaxis] + ramp[np.newaxis, :] / 2 + 100 * number for number in range(len(bands))])
    values[:, : side // 4, : side // 4] = -9999
    if dtype == "float32":
        values = np.where(values == -9999, np.nan, values / 1e4)
    geobox = GeoBox.from_bbox((600000, 4500000 - 30 * side, 600000 + 30 * side, 4500000), "EPSG:32614", resolution=30)
    return xr.DataArray(
        values.astype(dtype),
        dims=("band", "y", "x"),
        coords={"band": list(bands), "time": np.datetime64("2022-07-09T17:19:31", "ns"), **xr_coords(geobox)},
    )


def time_of(source: xr.DataArray) -> datetime | None:
    return source.time.values.astype("datetime64[us]").item() if "time" in source.coords else None


@contextmanager
def spooled(source: xr.DataArray, folder: Path) -> Iterator[Spool]:
    """The pixels of a computed image, where writers of large images want them."""
    with open_spool(folder, **layout_of(source).profile) as pixels:
        with pixels.filling():
            pixels.put(source.values, 0, 0, 0)
        yield pixels


def tally_of(source: xr.DataArray) -> Tally:
    tally = Tally(source.sizes["band"])
    tally.add(source.values, ~packing_of(source).holes(source.values), 0, 0, 0)
    return tally


def image_to_cog(source: xr.DataArray, path: Path, way: OutputSection = OutputSection()) -> None:  # noqa: B008
    """Write the COG of an image as s2cube does."""
    layout = layout_of(source)
    if layout.is_small:
        path.write_bytes(small_cog(source.values, layout, time_of(source), tally_of(source), way))
    else:
        image_by_gdal(source, path, way)


def image_by_gdal(source: xr.DataArray, path: Path, way: OutputSection = OutputSection()) -> None:  # noqa: B008
    """Write the COG of an image of any size as s2cube writes large ones."""
    with spooled(source, path.parent) as pixels:
        write_cog(layout_of(source), time_of(source), pixels, tally_of(source), path, way)
