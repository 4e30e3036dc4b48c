"""Read files that only GDAL supports: JPEG 2000, internal masks, uncommon compressions, CRS without a code.

GDAL reads a remote file by `store.fetch`, with the keys, proxies, limits, retries and counters of `fetch`. Its own HTTP
client would need a second configuration for all of these, and it does not limit the response size.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Self

import numpy as np
import rasterio
from rasterio.enums import MaskFlags
from rasterio.io import FilePath
from rasterio.windows import Window

from s2cube.errors import AssetReadError, S2CubeError
from s2cube.fetch.addresses import is_remote, local_path
from s2cube.fetch.store import Access, Part, fetch, read_error
from s2cube.raster.lattice import Block, Lattice, Report, slices, tiles_under

_SQUARE_PIXELS = 1024
"""Side of a square that is read at once."""

_OPTIONS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_PAM_ENABLED": "NO",
    # With several threads, GDAL's JPEG 2000 driver loses errors and returns empty pixels.
    "GDAL_NUM_THREADS": 1,
}

_PAGE_BYTES = 1 << 14
"""Size of the smallest request. Pages are cached, because GDAL reads headers in pieces of a few bytes. It reads the
headers of JPEG 2000 tiles repeatedly, from the first tile to the one that it needs."""

_CACHED_PAGES = 512
_LARGE_PAGES = 4
"""A larger read is a tile. GDAL reads it once, but its last page may contain the header of the next tile."""

_MAX_AHEAD_PAGES = 64


@dataclass(frozen=True, eq=False)
class GdalRaster:
    """A `Raster`: one level of a file, which is full resolution (`overview` is None) or an overview.

    Parameters
    ----------
    nodata
        Always None, because the mask of each block already excludes nodata.
    skips_zeros
        Whether overviews are averages without DN 0. If a file has a mask, GDAL excludes masked pixels from the
        averages, but not nodata.
    version
        Constant, because GDAL does not report whether a file has changed.
    """

    href: str
    access: Access
    lattice: Lattice
    driver: str
    overview: int | None
    skips_zeros: bool
    nodata: float | None = None
    version: str = "unknown"

    def extents(self, rects: np.ndarray) -> np.ndarray:
        """Return the rectangles of the blocks that `blocks` yields, in the same order, (blocks, 4)."""
        squares = math.ceil(self.lattice.width / _SQUARE_PIXELS)
        return tiles_under(rects, (_SQUARE_PIXELS, _SQUARE_PIXELS), squares)[1]

    def blocks(self, rects: np.ndarray, report: Report | None = None) -> Iterator[Block]:
        """Yield the pixels of rectangles, square by square: of each, the rectangle around all rectangles in it.

        Errors are raised, because GDAL does not tell which tile is damaged.
        """
        del report
        with opened(self.href, self.access, self.driver, self.overview) as (file, check):
            masked = MaskFlags.per_dataset in file.mask_flag_enums[0]
            for each in self.extents(rects):
                window = Window.from_slices(*slices(each))
                pixels = file.read(1, window=window)
                mask = np.ones(pixels.shape, bool) if file.nodata is None else pixels != file.nodata
                if masked:
                    mask &= file.read_masks(1, window=window) != 0
                check()
                yield Block(window.row_off, window.col_off, pixels, mask)


def rasters(href: str, access: Access, driver: str) -> list[GdalRaster]:
    """List the levels of a file: full resolution, then overviews.

    The resolution levels of JPEG 2000 are not used as overviews: its wavelets mix nodata into neighbouring pixels.

    Parameters
    ----------
    driver
        GDAL's driver for this file type. Other drivers are not allowed, because a VRT can refer to any file.

    Raises
    ------
    AssetReadError
        If the file cannot be read, or is not one band of integers on a known grid.
    """
    try:
        with opened(href, access, driver, None) as (file, _):
            if file.count != 1:
                raise read_error(href, f"has {file.count} bands, not one")
            if file.crs is None or file.transform.is_identity:
                raise read_error(href, "has no georeferencing")
            if np.dtype(file.dtypes[0]).kind not in "iu":
                raise read_error(href, f"has {file.dtypes[0]} pixels, not digital numbers or classes")
            factors = file.overviews(1) if driver == "GTiff" else []
            skips_zeros = file.nodata == 0 and MaskFlags.per_dataset not in file.mask_flag_enums[0]
            lattices = [Lattice(file.crs, file.transform, *file.shape)]
        for position in range(len(factors)):
            with opened(href, access, driver, position) as (file, _):
                lattices.append(Lattice(file.crs, file.transform, *file.shape))
    except S2CubeError:
        raise
    except Exception as error:  # noqa: BLE001  this file is the reason for any error of GDAL or rasterio
        raise read_error(href, f"cannot be read ({cause(error)})") from None
    return [
        GdalRaster(href, access, lattice, driver, position - 1 if position else None, skips_zeros)
        for position, lattice in enumerate(lattices)
    ]


def cause(error: BaseException) -> BaseException:
    """Return the first cause of an error: errors of GDAL are more specific than those of rasterio."""
    while error.__cause__:
        error = error.__cause__
    return error


@contextmanager
def opened(
    href: str, access: Access, driver: str, overview: int | None
) -> Iterator[tuple[rasterio.DatasetReader, Callable[[], None]]]:
    """Open a level of a file. Yield it and a function that raises the original read error: GDAL replaces it by its own.

    Parameters
    ----------
    driver
        See `rasters`.
    overview
        Number of the overview; None for full resolution.
    """
    options = {"driver": driver, "sharing": False} | ({} if overview is None else {"overview_level": overview})
    with rasterio.Env(**_OPTIONS):
        if not is_remote(href):
            with rasterio.open(local_path(href), **options) as file:
                yield file, lambda: None
            return
        content = RangedFile(href, access)
        try:
            with GdalPath(content) as path, path.open(**options) as file:
                content.check()
                yield file, content.check
        finally:
            content.check()


class RangedFile:
    """The bytes of a remote file, and the error that occurred while reading them, if any.

    GDAL treats an error as the end of the file, and may then return wrong pixels. So this class stores the error, and
    `check` raises it.
    """

    mode = "rb"

    def __init__(self, href: str, access: Access) -> None:
        self.path = href
        self._access = access
        self._error: AssetReadError | None = None
        self._pages: OrderedDict[int, bytes] = OrderedDict()
        self._ahead_pages, self._next_page = 1, 0
        self._first = self._fetch(0, 1)

    @property
    def size(self) -> int:
        """Size of the file, bytes."""
        return self._first.whole_bytes

    def check(self) -> None:
        """Raise the error that occurred while reading, if any.

        Raises
        ------
        AssetReadError
            If a part could not be read.
        """
        if self._error:
            raise self._error

    def get(self, start: int, stop: int) -> bytes:
        """Return bytes [start, stop), up to the end of the file. Return no bytes if they cannot be read."""
        stop = min(stop, self.size)
        if start >= stop or self._error:
            return b""
        first, end = start // _PAGE_BYTES, -(-stop // _PAGE_BYTES)
        try:
            data = b"".join(self._read_pages(first, end))
        except AssetReadError as error:
            self._error = error
            return b""
        return data[start - first * _PAGE_BYTES : stop - first * _PAGE_BYTES]

    def _read_pages(self, first: int, end: int) -> Iterator[bytes | memoryview]:
        """Yield pages [first, end) from the cache. Fetch each gap between cached pages in one request."""
        page = first
        while page < end:
            if page in self._pages:
                self._pages.move_to_end(page)
                yield self._pages[page]
                page += 1
                continue
            stop = next((each for each in range(page, end) if each in self._pages), end)
            part = self._fetch(page, stop + self._pages_ahead(page, stop))
            if part.version != self._first.version:
                raise read_error(self.path, "changed while it was read", may_pass=True)
            yield part.data[: (stop - page) * _PAGE_BYTES]
            page = stop

    def _pages_ahead(self, first: int, end: int) -> int:
        """Return the number of pages to read ahead. It doubles while small reads follow each other."""
        follows = first == self._next_page and end - first <= _LARGE_PAGES
        self._ahead_pages = min(2 * self._ahead_pages, _MAX_AHEAD_PAGES) if follows else 1
        return self._ahead_pages - 1

    def _fetch(self, first: int, end: int) -> Part:
        part = fetch(self.path, first * _PAGE_BYTES, end * _PAGE_BYTES, self._access)
        pages = -(-len(part.data) // _PAGE_BYTES)
        large = pages > max(_LARGE_PAGES, self._ahead_pages)
        for page in (0, pages - 1) if large else range(pages):
            self._pages[first + page] = bytes(part.data[page * _PAGE_BYTES : (page + 1) * _PAGE_BYTES])
        while len(self._pages) > _CACHED_PAGES:
            self._pages.popitem(last=False)
        self._next_page = end
        return part

    @property
    def fs(self) -> Self:
        """File system of this file: rasterio calls its `open` once for each GDAL handle."""
        return self

    def open(self, _path: str, _mode: str) -> "_Handle":
        """Return a handle."""
        return _Handle(self)

    def read(self, _size: int = -1) -> bytes:
        """Exist, so that rasterio accepts this object as a file. GDAL reads from handles instead."""
        raise NotImplementedError


class _Handle:
    """A position in a file."""

    def __init__(self, file: RangedFile) -> None:
        self._file, self._position = file, 0

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = (0, self._position, self._file.size)[whence] + offset
        return self._position

    def read(self, size: int) -> bytes:
        data = self._file.get(self._position, self._position + size)
        self._position += len(data)
        return data

    def close(self) -> None:
        """Do nothing: nothing is open. rasterio calls this since version 1.5."""


class GdalPath(FilePath):  # type: ignore[misc]
    """The path by which GDAL opens a Python file object.

    rasterio deprecates `FilePath` and recommends openers. But openers are not safe with threads: each open installs
    a file system in GDAL without a lock.
    """

    def __init__(self, file: RangedFile) -> None:
        # The constructor of FilePath would warn about the deprecation.
        super(FilePath, self).__init__(file)
        # It also creates this, since rasterio 1.5: `open` adds each dataset to it.
        self._env = ExitStack()
