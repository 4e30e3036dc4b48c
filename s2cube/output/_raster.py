"""The raster of an image: its form, and a temporary file that is written in parts."""

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
import odc.geo.xr  # noqa: F401  registers .odc
import rasterio
import rasterio.shutil
import xarray as xr
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from rasterio.io import DatasetWriter, MemoryFile
from rasterio.windows import Window

from s2cube.kernels.packing import Packing, packing_of

TILE_CELLS = 512
"""Side of the tiles of a large COG. An image whose sides are not longer has one tile."""

_SMALL_BYTES = 64 << 20
"""A larger image is not written from memory. It is one of many bands, if its sides are not longer than a tile."""

_IN_MEMORY_BYTES = 64 << 20
"""A larger raster is a file on disk. Five bands of 50 x 50 km at 30 m are in memory. A file is a little slower than
memory, but much slower for many small rasters or on a network disk."""

_PLAIN = {"driver": "GTiff", "tiled": True, "blockxsize": 512, "blockysize": 512, "interleave": "band"}
"""A format whose parts can be written in any order."""


@dataclass(frozen=True)
class Layout:
    """The form of the raster of an image. Images of one area have the same.

    Parameters
    ----------
    bands
        Names, in the order of the file.
    dtype
        Name of the data type.
    has_means
        Whether the mean of neighbouring cells is a value, too. Otherwise the overviews have the nearest value.
    """

    bands: tuple[str, ...]
    dtype: str
    geobox: GeoBox
    packing: Packing
    has_means: bool = True

    @property
    def shape(self) -> tuple[int, int, int]:
        """Bands, rows, columns."""
        height, width = self.geobox.shape
        return len(self.bands), height, width

    @property
    def crs(self) -> CRS:
        """CRS of the grid."""
        assert self.geobox.crs, "the grid of an image has a CRS"
        return self.geobox.crs

    @property
    def nodata(self) -> float | None:
        """The nodata value; None if every pixel has a value."""
        nodata = self.packing.nodata
        return None if np.dtype(self.dtype).kind != "f" and math.isnan(nodata) else nodata

    @property
    def is_small(self) -> bool:
        """Whether the image is one tile, so that it is written from memory."""
        size = math.prod(self.shape) * np.dtype(self.dtype).itemsize
        return max(self.shape[1:]) <= TILE_CELLS and size <= _SMALL_BYTES

    @property
    def cell_m(self) -> float | None:
        """Size of a cell, metres. None if the grid is in degrees, because it then depends on the place."""
        return None if self.crs.geographic else self.geobox.affine.a

    @property
    def profile(self) -> dict[str, Any]:
        """Keywords of `rasterio.open`."""
        count, height, width = self.shape
        return {
            "count": count, "height": height, "width": width, "dtype": self.dtype,
            "crs": self.crs.to_wkt(), "transform": self.geobox.affine, "nodata": self.nodata,
        }  # fmt: skip


def layout_of(image: xr.DataArray) -> Layout:
    """Return the layout of an image, dims (band, y, x). Its values are not computed."""
    return Layout(tuple(map(str, image.band.values)), image.dtype.name, image.odc.geobox, packing_of(image))


class Spool:
    """A temporary uncompressed GeoTIFF, in memory or on disk: the COG and PNG drivers of GDAL can only copy a raster.

    Parameters
    ----------
    profile
        Keywords of `rasterio.open`: `count`, `height`, `width`, `dtype`, `transform`, optionally others.
    """

    def __init__(self, path: str, profile: dict[str, Any]) -> None:
        self.path, self.profile = path, profile
        self._file: DatasetWriter | None = None
        self._lock = threading.Lock()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Bands, rows, columns."""
        return self.profile["count"], self.profile["height"], self.profile["width"]

    @property
    def cell_bytes(self) -> int:
        """Number of bytes of one cell in all bands."""
        return self.shape[0] * int(np.dtype(self.profile["dtype"]).itemsize)

    @contextmanager
    def filling(self) -> Iterator[None]:
        """Open the raster for `put`. It is complete when the context ends."""
        with rasterio.open(self.path, "w", **_PLAIN, **self.profile, bigtiff="if_safer") as file:
            self._file = file
            yield

    def put(self, values: np.ndarray, band: int, row: int, column: int) -> None:
        """Write values (band, y, x), beginning at a band, row and column. Any thread may call this."""
        bands, height, width = values.shape
        assert self._file, "put is called outside of filling"
        with self._lock:
            self._file.write(values, range(band + 1, band + bands + 1), window=Window(column, row, width, height))

    def open(self, mode: str = "r") -> Any:
        """Open the filled raster with rasterio."""
        return rasterio.open(self.path, mode)

    def copy(self, path: Path, driver: str, **options: str) -> None:
        """Copy the raster to a file of another format.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        with self.open() as source:
            try:
                rasterio.shutil.copy(source, path, driver=driver, **options)
            except Exception as error:  # rasterio has no public class for the errors of GDAL
                raise OSError(f"{path} cannot be written ({error})") from error

    def __dask_tokenize__(self) -> str:
        return self.path


@contextmanager
def open_spool(folder: Path, **profile: Any) -> Iterator[Spool]:
    """Create a spool, in memory if it is small, else in a folder; delete it at the end. For the profile see `Spool`."""
    size = math.prod(profile[side] for side in ("count", "height", "width")) * np.dtype(profile["dtype"]).itemsize
    with (
        MemoryFile(ext=".tif")
        if size <= _IN_MEMORY_BYTES
        else NamedTemporaryFile(dir=folder, suffix=".tif") as file
    ):  # fmt: skip
        yield Spool(file.name, profile)
