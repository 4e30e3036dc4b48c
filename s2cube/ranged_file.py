"""A file on the network as GDAL reads it: by `store.fetch`, so with its keys, proxies, bounds, retries and counts.

GDAL's own HTTP client would need all of these a second time, and reads an answer of any size.
"""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Self

from rasterio.io import FilePath

from s2cube.errors import AssetReadError
from s2cube.store import Access, Part, failed, fetch

_PAGE_BYTES = 1 << 14
"""Read at least, and kept: GDAL reads headers in pieces of a few bytes, and those of a JPEG 2000's tiles again and
again, from the first to the one that it wants."""

_KEPT_PAGES = 512
_LARGE_PAGES = 4
"""What is larger is a tile: it is read once, but the header of the next may lie in its last page."""

_MOST_AHEAD_PAGES = 64


class RangedFile:
    """The bytes of a file on the network, and what failed when they were read.

    GDAL takes an error for the end of the file, and makes what it likes of it, pixels too. So an error is kept here,
    and `check` raises it.
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
        """Length of the whole file."""
        return self._first.whole_bytes

    def check(self) -> None:
        """Raise what went wrong so far.

        Raises
        ------
        AssetReadError
            If a part could not be read.
        """
        if self._error:
            raise self._error

    def get(self, start: int, stop: int) -> bytes:
        """Give bytes [start, stop), up to the end of the file; none where they cannot be read."""
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
        """Yield pages [first, end): those that are kept, and what lies between them in one request each."""
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
                raise failed(self.path, "changed while it was read", may_pass=True)
            yield part.data[: (stop - page) * _PAGE_BYTES]
            page = stop

    def _ahead(self, first: int, end: int) -> int:
        """Say how many pages to read beyond: twice as many as before where small pieces follow each other."""
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
        """Where this file lies: rasterio opens it there, once for every handle that GDAL takes."""
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
    """The name by which GDAL opens a file of Python's.

    rasterio deprecates `FilePath` in favour of its openers. These install a file system of their own in GDAL for every
    open, without a lock, so they are not for threads.
    """

    def __init__(self, file: RangedFile) -> None:
        # That of FilePath warns.
        super(FilePath, self).__init__(file)
