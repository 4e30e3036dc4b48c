"""Read a remote file as Python reads a local one, so that pyarrow fetches only the parts that it needs."""

import io
from typing import TYPE_CHECKING

from s2cube.fetch.store import Access, fetch, read_error

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_FIRST_BYTES = 1 << 16
"""Size of the first request, which finds out the size of the file."""


class RemoteFile(io.RawIOBase):
    """A file at an address.

    Parameters
    ----------
    href
        Address: ``https://``, ``s3://``, ``gs://`` or ``az://``.

    Raises
    ------
    AssetReadError
        If a part cannot be read, or if the file changes.
    """

    def __init__(self, href: str, access: Access) -> None:
        super().__init__()
        self._href, self._access, self._position = href, access, 0
        first = fetch(href, 0, _FIRST_BYTES, access)
        self._size, self._version = first.whole_bytes, first.version

    def readable(self) -> bool:
        """Return that the file can be read."""
        return True

    def seekable(self) -> bool:
        """Return that any part of the file can be read."""
        return True

    def tell(self) -> int:
        """Return the position of the next byte."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = start + offset
        return self._position

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """Fetch the next bytes into a buffer. Return their number."""
        view = memoryview(buffer).cast("B")
        stop = min(self._position + len(view), self._size)
        if stop <= self._position:
            return 0
        part = fetch(self._href, self._position, stop, self._access)
        if part.version != self._version:
            raise read_error(self._href, "changed while it was read", may_pass=True)
        view[: len(part.data)] = part.data
        self._position += len(part.data)
        return len(part.data)
