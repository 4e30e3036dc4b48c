"""Read files on a grid: stackstac calls this `Reader`.

The value of a cell is the area-weighted mean of the valid native pixels in it. If the file has the grid's CRS, the
mean is computed in closed form. Otherwise GDAL's warp computes it. Classes are never interpolated.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import numpy as np
from rasterio.windows import Window

from s2cube.config.literals import Quality
from s2cube.errors import AssetReadError, SceneError, SliceError
from s2cube.fetch.cache import Span
from s2cube.fetch.session import temporary_array
from s2cube.fetch.store import Access, read_error
from s2cube.raster import gdal_file
from s2cube.raster._geotiff import Unsupported, epsg
from s2cube.raster._resample import choose_level, sample_classes, sum_areas, window_under
from s2cube.raster._tiles import Changed, TiledRaster, forget, header
from s2cube.raster.cells import CELLS, pack
from s2cube.raster.lattice import Lattice
from s2cube.raster.placement import Placement

_Raster = TiledRaster | gdal_file.GdalRaster

_OVERVIEWS_NOT_USED = (
    "read at native resolution: its overviews may average DN 0, which is no data (nodata is not 0, or it has a mask)"
)


class AssetReader:
    """Read a file of one band on a grid. Errors contain the file, its scene and its asset.

    Parameters
    ----------
    url, spec, dtype
        As stackstac passes them. `spec` is the grid. With dtype `CELLS`, the reader averages digital numbers; with any
        other it reads classes by nearest neighbour. Other arguments of stackstac are ignored.
    quality
        ``exact`` reads native pixels. ``fast`` reads the coarsest overview that is not coarser than the grid, if
        overviews are averages without DN 0 (`TiledRaster.skips_zeros`).
    declared
        Scene, asset and location of each file, by URL, as the items declare them. Several items may refer to one file.
    access
        How files are requested.
    """

    def __init__(
        self,
        *,
        url: str,
        spec: Any,
        dtype: "np.dtype[Any]",
        quality: Quality = "exact",
        declared: Mapping[str, tuple[Placement, ...]] = MappingProxyType({}),
        access: Access | None = None,
        **_: Any,
    ) -> None:
        self.url, self.spec, self.dtype = url, spec, dtype
        self.quality, self.declared = quality, declared.get(url, ())
        self.access = access or Access()
        self._averages = dtype == CELLS
        self._rasters: Sequence[_Raster] = ()
        self._version: str | None = None
        self._lock = threading.Lock()

    def read(self, window: Window) -> np.ndarray:
        """Read a part of the grid.

        Returns
        -------
        numpy.ndarray
            (rows, columns). `CELLS`: the area-weighted mean of the valid pixels in each cell, and the share that they
            cover if it is less than the whole cell. Other dtypes: classes, 0 where there is no pixel.

        Raises
        ------
        AssetReadError
            If the file cannot be read, or is not one band of integers on a known grid.
        SceneError
            If the location of the file is not the one that its item declares.
        """
        with self._converted_errors():
            return self._read(window)

    @contextmanager
    def _converted_errors(self) -> Iterator[None]:
        """Convert every error to one that contains the file, its scene and its asset."""
        try:
            yield
        except (AssetReadError, SceneError) as error:
            raise self._with_scene(error) from None
        except Changed:
            raise self._with_scene(read_error(self.url, "changed while it was read", may_pass=True)) from None
        except Exception as error:  # noqa: BLE001  this file is the reason for any error of GDAL, rasterio or numpy
            raise self._with_scene(read_error(self.url, f"cannot be read ({gdal_file.cause(error)})")) from None

    def _with_scene(self, error: SliceError) -> SliceError:
        if self.declared:
            error.scene = error.scene or self.declared[0].scene
            error.asset = error.asset or self.declared[0].asset
        return error

    def _read(self, window: Window) -> np.ndarray:
        grid = self._grid(window)
        raster = self._raster(grid)
        try:
            cells = self._resampled(raster, grid)
        except Changed:
            # The cached header belongs to an older version of the file. Read the new version once, with its header.
            forget(self.url)
            self.close()
            raster = self._raster(grid)
            cells = self._resampled(raster, grid)
        with self._lock:
            # All threads must read the same version, so that an image does not mix two versions of a file.
            self._version = self._version or raster.version
            if raster.version != self._version:
                raise Changed(self.url)
        return cells

    def _resampled(self, raster: _Raster, grid: Lattice) -> np.ndarray:
        if self._averages:
            with temporary_array((grid.height, grid.width), np.dtype("complex64")) as sums:
                sum_areas(raster, grid, sums)
                return pack(sums)
        classes = np.zeros((grid.height, grid.width), self.dtype)
        sample_classes(raster, grid, classes)
        return classes

    def runs(self, window: Window) -> list[list[Span]] | None:
        """Return the bytes that `read` needs. A run is fetched by one request. Return None if GDAL reads the file.

        Raises
        ------
        AssetReadError, SceneError
            As `read`, if the header shows the error.
        """
        grid = self._grid(window)
        raster = self._raster(grid)
        if not isinstance(raster, TiledRaster):
            return None
        needed = window_under(raster.lattice, grid)
        return raster.runs(needed) if needed else []

    def assume(self, levels: Sequence[TiledRaster]) -> None:
        """Use these levels, full resolution first, instead of the levels in the file's header."""
        self._rasters = levels

    def _grid(self, window: Window) -> Lattice:
        return Lattice(epsg(self.spec.epsg), self.spec.transform, *self.spec.shape).part(window)

    def _raster(self, grid: Lattice) -> _Raster:
        """Choose the level to read: full resolution or an overview."""
        with self._lock:
            self._rasters = self._rasters or self._open()
            rasters = self._rasters
        if self.quality == "exact" or not self._averages:
            return rasters[0]
        level = choose_level(rasters, grid)
        if level is rasters[0] or level.skips_zeros:
            return level
        self.access.usage.note(self.url, _OVERVIEWS_NOT_USED)
        return rasters[0]

    def _open(self) -> Sequence[_Raster]:
        try:
            tiff = header(self.url, self.access)
            rasters: Sequence[_Raster] = [TiledRaster(tiff, level, self.access) for level in tiff.levels]
        except Unsupported as reason:
            self.access.usage.note(self.url, f"read by GDAL, because it is {reason}")
            rasters = gdal_file.rasters(self.url, self.access, reason.driver)
        for each in self.declared:
            each.check(self.url, rasters[0].lattice)
        return rasters

    def close(self) -> None:
        """Discard the header. The next `read` reads it again."""
        with self._lock:
            self._rasters = ()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_rasters", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._rasters, self._lock = (), threading.Lock()
