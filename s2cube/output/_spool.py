"""Write a temporary raster in parts, then copy it, because GDAL's COG and PNG drivers can only copy a raster."""

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.io import DatasetWriter, MemoryFile
from rasterio.windows import Window

_IN_MEMORY_BYTES = 64 << 20
"""A larger raster is a file on disk. Five bands of 50 x 50 km at 30 m are in memory. A file is a little slower than
memory, but much slower for many small rasters or on a network disk."""

_PLAIN = {"driver": "GTiff", "tiled": True, "blockxsize": 512, "blockysize": 512, "interleave": "band"}
"""A format whose parts can be written in any order."""


class Spool:
    """A temporary uncompressed GeoTIFF, in memory or on disk.

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
