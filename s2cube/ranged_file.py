"""A file on the network as GDAL reads it: by `store.fetch`, so with its keys, proxies, bounds, retries and counts.

GDAL's own HTTP client would need all of these a second time, and reads an answer of any size.
"""

from typing import Self

from rasterio.io import FilePath

from s2cube.errors import AssetReadError
from s2cube.store import Access, Part, failed, fetch

_LEAST_BYTES, _MOST_AHEAD_BYTES = 1 << 14, 1 << 20
"""Of a request: GDAL reads headers in pieces of a few bytes. Each that goes on without a gap takes twice as much."""


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
        self._head = self._last = _Piece(0, self._fetch(0, _LEAST_BYTES))
        self._ahead_bytes = _LEAST_BYTES

    @property
    def size(self) -> int:
        """Length of the whole file."""
        return self._head.part.whole_bytes

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
        for piece in (self._head, self._last):
            if piece.start <= start and stop <= piece.stop:
                return bytes(piece.part.data[start - piece.start : stop - piece.start])
        goes_on = self._last.start <= start <= self._last.stop
        known = bytes(self._last.part.data[start - self._last.start :]) if goes_on else b""
        self._ahead_bytes = min(2 * self._ahead_bytes, _MOST_AHEAD_BYTES) if goes_on else _LEAST_BYTES
        first = start + len(known)
        try:
            part = self._fetch(first, max(stop, first + self._ahead_bytes))
            if part.version != self._head.part.version:
                raise failed(self.path, "changed while it was read", may_pass=True)
        except AssetReadError as error:
            self._error = error
            return b""
        self._last = _Piece(first, part)
        return known + bytes(part.data[: stop - first])

    def _fetch(self, start: int, stop: int) -> Part:
        return fetch(self.path, start, stop, self._access)

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


class _Piece:
    def __init__(self, start: int, part: Part) -> None:
        self.start, self.part = start, part

    @property
    def stop(self) -> int:
        return self.start + len(self.part.data)


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
