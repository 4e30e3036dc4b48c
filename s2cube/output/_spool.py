"""A raster that is filled part by part, for files to be copied from: GDAL's COG and PNG drivers only copy."""

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
import rioxarray  # noqa: F401  registers .rio
import xarray as xr
from rasterio.io import DatasetWriter, MemoryFile
from rasterio.windows import Window

from s2cube.cube.packing import PACKINGS

_IN_MEMORY_BYTES = 64 << 20
"""What is larger lies on disk: five bands of 50 x 50 km at 30 m fit. A file costs little more time than memory, but
more where many small ones are made, or the disk is another machine's."""

_PLAIN = {"driver": "GTiff", "tiled": True, "blockxsize": 512, "blockysize": 512, "interleave": "band"}
"""Of GDAL's kinds of file, one whose parts can be written in any order."""


class Draft:
    """A plain GeoTIFF, in memory or on disk.

    Parameters
    ----------
    layout
        As rasterio wants it: `count`, `height`, `width`, `dtype`, `transform`, and what else is known.
    """

    def __init__(self, path: str, layout: dict[str, Any]) -> None:
        self.path, self.layout = path, layout
        self._file: DatasetWriter | None = None
        self._lock = threading.Lock()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Bands, rows, columns."""
        return self.layout["count"], self.layout["height"], self.layout["width"]

    @property
    def cell_bytes(self) -> int:
        """What a cell takes, in all bands."""
        return self.shape[0] * int(np.dtype(self.layout["dtype"]).itemsize)

    @contextmanager
    def filling(self) -> Iterator[None]:
        """Open it to `put` parts; it is whole when this ends."""
        with rasterio.open(self.path, "w", **_PLAIN, **self.layout, bigtiff="if_safer") as file:
            self._file = file
            yield

    def put(self, values: np.ndarray, band: int, row: int, column: int) -> None:
        """Write a part, (band, y, x), that begins at a band, row and column; any thread may."""
        bands, height, width = values.shape
        assert self._file, "not being filled"
        with self._lock:
            self._file.write(values, range(band + 1, band + bands + 1), window=Window(column, row, width, height))

    def open(self, mode: str = "r") -> Any:
        """Open it once it is filled."""
        return rasterio.open(self.path, mode)

    def copy(self, path: Path, driver: str, **options: str) -> None:
        """Copy it to a file of another kind.

        Raises
        ------
        OSError
            If that cannot be written.
        """
        with self.open() as source:
            try:
                rasterio.shutil.copy(source, path, driver=driver, **options)
            except Exception as error:  # rasterio keeps what GDAL raises here to itself
                raise OSError(f"{path} cannot be written ({error})") from error

    def __dask_tokenize__(self) -> str:
        return self.path


@contextmanager
def draft(folder: Path, **layout: Any) -> Iterator[Draft]:
    """Lend a raster to be filled: in memory where it is small, else on disk, in a folder."""
    size = math.prod(layout[side] for side in ("count", "height", "width")) * np.dtype(layout["dtype"]).itemsize
    with (
        MemoryFile(ext=".tif")
        if size <= _IN_MEMORY_BYTES
        else NamedTemporaryFile(dir=folder, suffix=".tif") as place
    ):  # fmt: skip
        yield Draft(place.name, layout)


def layout(image: xr.DataArray) -> dict[str, Any]:
    """Describe a draft of an image, (band, y, x), int16 or float32."""
    count, height, width = image.shape
    dtype = image.dtype.name
    place = {"crs": image.rio.crs, "transform": image.rio.transform(), "nodata": PACKINGS[dtype].nodata}
    return {"count": count, "height": height, "width": width, "dtype": dtype, **place}
