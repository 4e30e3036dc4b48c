"""Read files on a grid: stackstac calls this `Reader`.

The value of a cell is the area-weighted mean of the valid native pixels in it. If the file has the grid's CRS, the
mean is computed in closed form. Otherwise GDAL's warp computes it. Classes are never interpolated.
"""

import threading
from collections.abc import Mapping, Sequence
from copy import copy
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
from s2cube.raster._resample import choose_level, pixels_under, sample_classes, sum_areas
from s2cube.raster._tiles import Changed, TiledRaster, forget, header
from s2cube.raster.cells import CELLS, pack
from s2cube.raster.lattice import Lattice, Report, around, clipped, rectangles, slices
from s2cube.raster.placement import Placement

_Raster = TiledRaster | gdal_file.GdalRaster

_Fault = tuple[np.ndarray, Exception]
"""A rectangle of cells, (4,), and why it cannot be read."""

_OVERVIEWS_NOT_USED = (
    "read at native resolution: its overviews may average DN 0, which is no data (nodata is not 0, or it has a mask)"
)


def _origin(window: Window) -> np.ndarray:
    """Return what is added to a rectangle of a window's cells, to get the one of the grid's cells."""
    return np.repeat([window.row_off, window.col_off], 2)


class Faults:
    """Tiles and files on one grid that cannot be read. Threads of a process share it."""

    def __init__(self) -> None:
        self._of_files: dict[str, list[tuple[Window | None, SliceError]]] = {}
        self._lock = threading.Lock()

    def add(self, url: str, window: Window | None, error: SliceError) -> None:
        """Add an error of a file. It concerns the cells of a window of the grid, or all cells if `window` is None."""
        with self._lock:
            self._of_files.setdefault(url, []).append((window, error))

    def find(self, url: str, window: Window) -> SliceError | None:
        """Return a copy of the first error of a file that concerns a cell of a window; None if there is none."""
        with self._lock:
            known = tuple(self._of_files.get(url, ()))
        return next((copy(error) for cells, error in known if cells is None or _overlap(cells, window)), None)


def _overlap(one: Window, other: Window) -> bool:
    return all(
        max(starts) < min(stops)
        for starts, stops in (zip(*axes, strict=True) for axes in zip(one.toranges(), other.toranges(), strict=True))
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
    parts
        Windows of the grid that are needed; empty: the complete grid. Tiles under no part are not read. A cell of a
        part has the value that it has without `parts`. Values of other cells are not specified.
    faults
        If given, errors are added to it instead of raised. A tile that cannot be read concerns the cells that touch
        it, every other error concerns the complete grid. Values of these cells are not specified. A reader with
        `faults` cannot be pickled.
    """

    def __init__(  # noqa: PLR0913  stackstac passes each of its arguments by name
        self,
        *,
        url: str,
        spec: Any,
        dtype: "np.dtype[Any]",
        quality: Quality = "exact",
        declared: Mapping[str, tuple[Placement, ...]] = MappingProxyType({}),
        access: Access | None = None,
        parts: tuple[Window, ...] = (),
        faults: Faults | None = None,
        **_: Any,
    ) -> None:
        self.url, self.spec, self.dtype = url, spec, dtype
        self.quality, self.declared = quality, declared.get(url, ())
        self.access = access or Access()
        self.parts, self.faults = parts, faults
        self._averages = dtype == CELLS
        self._rasters: Sequence[_Raster] = ()
        self._version: str | None = None
        self._lock = threading.Lock()

    def read(self, window: Window) -> np.ndarray:
        """Read a window of the grid.

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
        try:
            return self._read(window)
        except Exception as error:  # noqa: BLE001  this file is the reason for any error of GDAL, rasterio or numpy
            named = self._named(error)
            if self.faults is None:
                raise named from None
            self.faults.add(self.url, None, named)
            return np.zeros((window.height, window.width), self.dtype)

    def _named(self, error: Exception) -> SliceError:
        """Convert an error to one that contains the file, its scene and its asset."""
        if isinstance(error, Changed):
            named: SliceError = read_error(self.url, "changed while it was read", may_pass=True)
        elif isinstance(error, AssetReadError | SceneError):
            named = error
        else:
            named = read_error(self.url, f"cannot be read ({gdal_file.cause(error)})")
        if self.declared:
            named.scene = named.scene or self.declared[0].scene
            named.asset = named.asset or self.declared[0].asset
        return named

    def _read(self, window: Window) -> np.ndarray:
        whole = np.array([0, window.height, 0, window.width])
        parts = self._parts_in(window)
        needed = around(parts) if len(parts) else np.zeros(4, int)
        if (needed == whole).all():
            return self._read_parts(window, parts)
        cells = np.zeros((window.height, window.width), self.dtype)
        if len(parts):
            inner = Window.from_slices(*slices(needed + _origin(window)))
            cells[slices(needed)] = self._read_parts(inner, parts - np.repeat(needed[::2], 2))
        return cells

    def _parts_in(self, window: Window) -> np.ndarray:
        """Return the parts in a window as rectangles of its cells, (parts, 4)."""
        parts = rectangles(self.parts or [window]) - _origin(window)
        return clipped(parts, (window.height, window.width))

    def _read_parts(self, window: Window, parts: np.ndarray) -> np.ndarray:
        grid = self._grid(window)
        raster = self._raster(grid)
        try:
            cells, faults = self._resampled(raster, grid, parts)
        except Changed:
            # The cached header belongs to an older version of the file. Read the new version once, with its header.
            forget(self.url)
            self.close()
            raster = self._raster(grid)
            cells, faults = self._resampled(raster, grid, parts)
        with self._lock:
            # All threads must read the same version, so that an image does not mix two versions of a file.
            self._version = self._version or raster.version
            if raster.version != self._version:
                raise Changed(self.url)
        if self.faults is not None:
            for rect, error in faults:
                self.faults.add(self.url, Window.from_slices(*slices(rect + _origin(window))), self._named(error))
        return cells

    def _resampled(self, raster: _Raster, grid: Lattice, parts: np.ndarray) -> tuple[np.ndarray, list[_Fault]]:
        """Return cells, and the errors of tiles if they are collected."""
        try:
            return self._attempt(raster, grid, parts, None)
        except AssetReadError:
            if self.faults is None or not isinstance(raster, TiledRaster):
                raise
        # A request fetches several tiles. Now each tile is requested alone, so that only damaged tiles are left out.
        faults: list[_Fault] = []
        cells, more = self._attempt(raster, grid, parts, lambda rect, error: faults.append((rect, error)))
        return cells, faults + more

    def _attempt(
        self, raster: _Raster, grid: Lattice, parts: np.ndarray, report: Report | None
    ) -> tuple[np.ndarray, list[_Fault]]:
        if self._averages:
            with temporary_array((grid.height, grid.width), np.dtype("complex64")) as sums:
                sum_areas(raster, grid, parts, sums, report)
                return self._packed(sums, parts)
        classes = np.zeros((grid.height, grid.width), self.dtype)
        sample_classes(raster, grid, parts, classes, report)
        return classes, []

    def _packed(self, sums: np.ndarray, parts: np.ndarray) -> tuple[np.ndarray, list[_Fault]]:
        """Pack the cells of each part. A value that is no digital number concerns only the parts that contain it."""
        if not self.parts:
            return pack(sums), []
        cells, faults = np.zeros(sums.shape, CELLS), list[_Fault]()
        for part in parts:
            try:
                cells[slices(part)] = pack(sums[slices(part)])
            except ValueError as error:
                if self.faults is None:
                    raise
                faults.append((part, error))
        return cells, faults

    def runs(self, window: Window) -> list[list[Span]] | None:
        """Return the bytes that `read` needs. A run is fetched by one request. Return None if GDAL reads the file.

        Raises
        ------
        AssetReadError, SceneError
            As `read`, if the header shows the error.
        """
        parts = self._parts_in(window)
        if not len(parts):
            return []
        grid = self._grid(window)
        raster = self._raster(grid)
        return raster.runs(pixels_under(raster.lattice, grid, parts)) if isinstance(raster, TiledRaster) else None

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
