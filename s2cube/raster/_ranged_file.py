"""Let GDAL read a remote file by `store.fetch`, with the keys, proxies, limits, retries and counters of `fetch`.

GDAL's own HTTP client would need a second configuration for all of these, and it does not limit the response size.
"""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Self

from rasterio.io import FilePath

from s2cube.errors import AssetReadError
from s2cube.fetch.store import Access, Part, fetch, read_error

_PAGE_BYTES = 1 << 14
"""Size of the smallest request. Pages are cached, because GDAL reads headers in pieces of a few bytes. It reads the
headers of JPEG 2000 tiles repeatedly, from the first tile to the one that it needs."""

_CACHED_PAGES = 512
_LARGE_PAGES = 4
"""A larger read is a tile. GDAL reads it once, but its last page may contain the header of the next tile."""

_MAX_AHEAD_PAGES = 64


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
