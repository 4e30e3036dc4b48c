"""Read files as cells of a grid: the `Reader` that stackstac calls.

The value of a cell is the area-weighted mean of the valid native pixels under it: in closed form if the file has the
grid's CRS, else by GDAL's warp. Classes are never interpolated.
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
from s2cube.raster import _gdal_file as gdal_file
from s2cube.raster._geotiff import Unsupported, epsg
from s2cube.raster._resample import choose_level, sum_areas, take_classes, window_under
from s2cube.raster._tiles import Changed, TiledRaster, forget, header
from s2cube.raster.cells import CELLS, pack
from s2cube.raster.lattice import Lattice
from s2cube.raster.placement import Placement

_Raster = TiledRaster | gdal_file.GdalRaster

_WITHOUT_OVERVIEWS = (
    "read at native resolution: its overviews may average DN 0, which is no data (nodata is not 0, or there is a mask)"
)


class AssetReader:
    """Read a file of one band on a grid. Errors name the file, its scene and its asset.

    Parameters
    ----------
    url, spec, dtype
        As stackstac gives them; `spec` is the grid. `CELLS`: means of digital numbers; else classes, by nearest
        neighbour. The other arguments of stackstac are not used.
    quality
        ``exact`` reads native pixels; ``fast`` reads the coarsest overview that is no coarser than the grid, if the
        file's overviews leave DN 0 out (`TiledRaster.skips_zeros`).
    declared
        What items say of files, by URL: which scene and asset they belong to, and where they lie. Several items may
        name one file.
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
            (rows, columns). `CELLS`: the mean of the valid pixels under each cell, weighted by areas, and their share
            if they cover only a part of it. Else classes, 0 where there is none.

        Raises
        ------
        AssetReadError
            If the file cannot be read, or holds something else than one band of integers on a known grid.
        SceneError
            If the file lies elsewhere than its item says.
        """
        with self._naming():
            return self._read(window)

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Make every error one that names the file, its scene and its asset."""
        try:
            yield
        except (AssetReadError, SceneError) as error:
            raise self._named(error) from None
        except Changed:
            raise self._named(read_error(self.url, "changed while it was read", may_pass=True)) from None
        except Exception as error:  # noqa: BLE001  whatever GDAL, rasterio or numpy raise, the reason is this file
            raise self._named(read_error(self.url, f"cannot be read ({gdal_file.cause(error)})")) from None

    def _named(self, error: SliceError) -> SliceError:
        if self.declared:
            error.scene = error.scene or self.declared[0].scene
            error.asset = error.asset or self.declared[0].asset
        return error

    def _read(self, window: Window) -> np.ndarray:
        grid = self._grid(window)
        raster = self._raster(grid)
        try:
            cells = self._filled(raster, grid)
        except Changed:
            # The header was that of an older file. Read the new one from its beginning, once.
            forget(self.url)
            self.close()
            raster = self._raster(grid)
            cells = self._filled(raster, grid)
        with self._lock:
            # No image is made of parts of two files, whichever of two threads comes first.
            self._version = self._version or raster.version
            if raster.version != self._version:
                raise Changed(self.url)
        return cells

    def _filled(self, raster: _Raster, grid: Lattice) -> np.ndarray:
        if self._averages:
            with temporary_array((grid.height, grid.width), np.dtype("complex64")) as sums:
                sum_areas(raster, grid, sums)
                return pack(sums)
        classes = np.zeros((grid.height, grid.width), self.dtype)
        take_classes(raster, grid, classes)
        return classes

    def runs(self, window: Window) -> list[list[Span]] | None:
        """Say which bytes `read` needs, in runs that are fetched together; None if GDAL reads the file.

        Raises
        ------
        AssetReadError, SceneError
            As `read`, as far as the header shows it.
        """
        grid = self._grid(window)
        raster = self._raster(grid)
        if not isinstance(raster, TiledRaster):
            return None
        under = window_under(raster.lattice, grid)
        return raster.runs(under) if under else []

    def assume(self, levels: Sequence[TiledRaster]) -> None:
        """Take these levels for those of the file, full resolution first, instead of what its header says."""
        self._rasters = levels

    def _grid(self, window: Window) -> Lattice:
        return Lattice(epsg(self.spec.epsg), self.spec.transform, *self.spec.shape).part(window)

    def _raster(self, grid: Lattice) -> _Raster:
        """Choose what is read: the pixels of the file, or an overview."""
        with self._lock:
            self._rasters = self._rasters or self._open()
            rasters = self._rasters
        if self.quality == "exact" or not self._averages:
            return rasters[0]
        level = choose_level(rasters, grid)
        if level is rasters[0] or level.skips_zeros:
            return level
        self.access.usage.note(self.url, _WITHOUT_OVERVIEWS)
        return rasters[0]

    def _open(self) -> Sequence[_Raster]:
        try:
            tiff = header(self.url, self.access)
            rasters: Sequence[_Raster] = [TiledRaster(tiff, level, self.access) for level in tiff.levels]
        except Unsupported as kind:
            self.access.usage.note(self.url, f"read by GDAL, for it is {kind}")
            rasters = gdal_file.rasters(self.url, self.access, kind.driver)
        for each in self.declared:
            each.check(self.url, rasters[0].lattice)
        return rasters

    def close(self) -> None:
        """Forget the header; the next read reads it again."""
        with self._lock:
            self._rasters = ()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_rasters", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._rasters, self._lock = (), threading.Lock()
