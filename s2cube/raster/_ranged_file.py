"""A file on the network for GDAL, read by `store.fetch`: with its keys, proxies, limits, retries and counts.

GDAL's own HTTP client would need a second configuration of all these, and reads an answer of any size.
"""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Self

from rasterio.io import FilePath

from s2cube.errors import AssetReadError
from s2cube.fetch.store import Access, Part, fetch, read_error

_PAGE_BYTES = 1 << 14
"""Smallest read; it is kept. GDAL reads headers in pieces of a few bytes. It reads the headers of JPEG 2000 tiles
again and again, from the first tile to the one that it needs."""

_KEPT_PAGES = 512
_LARGE_PAGES = 4
"""A larger read is a tile: GDAL reads it once, but its last page may hold the header of the next tile."""

_MOST_AHEAD_PAGES = 64


class RangedFile:
    """The bytes of a file on the network, and the error of reading them, if any.

    GDAL takes an error for the end of the file, and may then give wrong pixels. So the error is kept here, and `check`
    raises it.
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
        """Length of the whole file, bytes."""
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
        """Give bytes [start, stop), up to the end of the file; none if they cannot be read."""
        stop = min(stop, self.size)
        if start >= stop or self._error:
            return b""
        first, end = start // _PAGE_BYTES, -(-stop // _PAGE_BYTES)
        try:
            data = b"".join(self._runs(first, end))
        except AssetReadError as error:
            self._error = error
            return b""
        return data[start - first * _PAGE_BYTES : stop - first * _PAGE_BYTES]

    def _runs(self, first: int, end: int) -> Iterator[bytes | memoryview]:
        """Yield pages [first, end): kept ones, and the gaps between them in one request each."""
        page = first
        while page < end:
            if page in self._pages:
                self._pages.move_to_end(page)
                yield self._pages[page]
                page += 1
                continue
            stop = next((each for each in range(page, end) if each in self._pages), end)
            part = self._fetch(page, stop + self._ahead(page, stop))
            if part.version != self._first.version:
                raise read_error(self.path, "changed while it was read", may_pass=True)
            yield part.data[: (stop - page) * _PAGE_BYTES]
            page = stop

    def _ahead(self, first: int, end: int) -> int:
        """Give the number of pages to read ahead: twice as many as before if small pieces follow each other."""
        follows = first == self._next_page and end - first <= _LARGE_PAGES
        self._ahead_pages = min(2 * self._ahead_pages, _MOST_AHEAD_PAGES) if follows else 1
        return self._ahead_pages - 1

    def _fetch(self, first: int, end: int) -> Part:
        part = fetch(self.path, first * _PAGE_BYTES, end * _PAGE_BYTES, self._access)
        pages = -(-len(part.data) // _PAGE_BYTES)
        large = pages > max(_LARGE_PAGES, self._ahead_pages)
        for page in (0, pages - 1) if large else range(pages):
            self._pages[first + page] = bytes(part.data[page * _PAGE_BYTES : (page + 1) * _PAGE_BYTES])
        while len(self._pages) > _KEPT_PAGES:
            self._pages.popitem(last=False)
        self._next_page = end
        return part

    @property
    def fs(self) -> Self:
        """Path of this file: rasterio opens it there, once for each handle of GDAL."""
        return self

    def open(self, _path: str, _mode: str) -> "_Handle":
        """Give a handle."""
        return _Handle(self)

    def read(self, _size: int = -1) -> bytes:
        """Tell rasterio that this is a file: handles are read."""
        raise NotImplementedError


class _Handle:
    """A position in a file."""

    def __init__(self, file: RangedFile) -> None:
        self._file, self._at = file, 0

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = (0, self._at, self._file.size)[whence] + offset
        return self._at

    def read(self, size: int) -> bytes:
        data = self._file.get(self._at, self._at + size)
        self._at += len(data)
        return data


class GdalPath(FilePath):  # type: ignore[misc]
    """The name by which GDAL opens a Python file object.

    rasterio deprecates `FilePath` in favour of its openers. An opener installs a file system in GDAL for each open,
    without a lock, so openers are not safe with threads.
    """

    def __init__(self, file: RangedFile) -> None:
        # The constructor of FilePath warns.
        super(FilePath, self).__init__(file)
