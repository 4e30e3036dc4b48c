"""What a file holds becomes cells of a grid: the `Reader` that stackstac calls.

A cell's value is the area-weighted mean of the valid native pixels under it: in closed form where the file has the
grid's CRS, else by GDAL's warp. Classes are never interpolated.
"""

import threading
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import rasterio
import rasterio.warp
from rasterio.enums import Resampling
from rasterio.windows import Window

from s2cube.errors import AssetReadError, SceneError
from s2cube.model import Quality
from s2cube.resample import Lattice, choose_overview, stripes, sum_areas, take_classes

_GDAL = {
    # GDAL retries inside an open, and must not remember one that failed: else the next run in this process, or on
    # a standing cluster, would fail without asking.
    "CPL_VSIL_CURL_NON_CACHED": "/vsicurl/",
    "GDAL_HTTP_MAX_RETRY": 5,
    "GDAL_HTTP_RETRY_DELAY": 0.5,
    "GDAL_HTTP_CONNECTTIMEOUT": 10,
    "GDAL_HTTP_LOW_SPEED_TIME": 60,
    "GDAL_HTTP_LOW_SPEED_LIMIT": 1,
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_PAM_ENABLED": "NO",
}


class AssetReader:
    """Read a file of one band on a grid; what fails is an error that names the file.

    Parameters
    ----------
    url, spec, resampling, dtype
        As stackstac gives them; `spec` is the grid. With ``Resampling.average`` cells are sums (see `read`; `dtype`
        is complex64), else classes by nearest neighbour. What else stackstac gives has no use here.
    quality
        ``exact`` reads native pixels; ``fast`` reads the coarsest overview that is no coarser than the grid.
    declared
        CRS of files by URL, as their items say.
    """

    def __init__(
        self,
        *,
        url: str,
        spec: Any,
        resampling: Resampling,
        dtype: "np.dtype[Any]",
        quality: Quality = "exact",
        declared: Mapping[str, str] = MappingProxyType({}),
        **_: Any,
    ) -> None:
        self.url, self.spec, self.dtype = url, spec, dtype
        self.quality, self.declared_crs = quality, declared.get(url)
        self._averages = resampling == Resampling.average
        self._file: rasterio.DatasetReader | None = None
        self._lock = threading.Lock()

    def read(self, window: Window) -> np.ndarray:
        """Read a part of the grid.

        Returns
        -------
        numpy.ndarray
            With ``Resampling.average`` complex64: the imaginary part is the share of the cell's area that valid pixels
            cover, 0 to 1, the real part the sum of their digital numbers by these shares; their quotient is the mean,
            and sums of disjoint parts of a cell add up. Else classes, 0 where there is none.

        Raises
        ------
        AssetReadError
            If the file cannot be read, or holds something else than one band of integers on a known grid.
        SceneError
            If the file lies in another CRS than its item says.
        """
        crs = rasterio.crs.CRS.from_epsg(self.spec.epsg)
        grid = Lattice(crs, self.spec.transform, *self.spec.shape).part(window)
        with self._lock, rasterio.Env(**_GDAL):
            try:
                file = self._file = self._file or self._open(grid)
                fill = sum_areas if self._averages else take_classes
                cells = np.zeros((grid.height, grid.width), self.dtype)
                for rows, stripe in stripes(file, grid):
                    fill(file, stripe, cells[rows])
                return cells
            except (AssetReadError, SceneError):
                raise
            except Exception as error:  # noqa: BLE001  whatever GDAL, rasterio or numpy trip over, it is this file
                raise self._failed(f"cannot be read ({_cause(error)})") from None

    def _open(self, grid: Lattice) -> rasterio.DatasetReader:
        file = rasterio.open(self.url, sharing=False)
        if file.count != 1:
            raise self._failed(f"has {file.count} bands, not one")
        if file.crs is None or file.transform.is_identity:
            raise self._failed("does not say where it lies")
        if np.dtype(file.dtypes[0]).kind not in "iu":
            raise self._failed(f"holds {file.dtypes[0]}, not digital numbers or classes")
        if self.declared_crs and file.crs != rasterio.crs.CRS.from_user_input(self.declared_crs):
            raise SceneError(
                self.url, f"lies in {file.crs}, but its item says {self.declared_crs}", "Correct the item or the file"
            )
        if self.quality == "fast" and self._averages:
            level = choose_overview(file, grid)
            if level is not None:
                file.close()
                file = rasterio.open(self.url, sharing=False, overview_level=level)
        return file

    def _failed(self, problem: str) -> AssetReadError:
        return AssetReadError(self.url, problem, "Run again; look at the file if it persists")

    def close(self) -> None:
        """Close the file; another read opens it again."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_file", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._file, self._lock = None, threading.Lock()


def _cause(error: BaseException) -> BaseException:
    while error.__cause__:
        error = error.__cause__
    return error
