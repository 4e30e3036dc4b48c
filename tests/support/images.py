"""Computed images, and their files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from s2cube.config.sections import OutputSection
from s2cube.kernels.packing import PACKINGS
from s2cube.output._cog import write_cog
from s2cube.output._spool import Spool, layout_of, open_spool
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


@contextmanager
def spooled(source: xr.DataArray, folder: Path) -> Iterator[Spool]:
    """The pixels of a computed image, where writers want them."""
    with open_spool(folder, **layout_of(source)) as pixels:
        with pixels.filling():
            pixels.put(source.values, 0, 0, 0)
        yield pixels


def tally_of(source: xr.DataArray) -> Tally:
    tally = Tally(source.sizes["band"])
    tally.add(source.values, ~PACKINGS[source.dtype.name].holes(source.values), 0, 0, 0)
    return tally


def image_to_cog(source: xr.DataArray, path: Path, way: OutputSection = OutputSection()) -> None:  # noqa: B008
    with spooled(source, path.parent) as pixels:
        write_cog(source, pixels, tally_of(source), path, way)
