"""One interface for the folders and buckets that s2cube writes to."""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from s2cube.config.stores import Stores
from s2cube.errors import OutputError
from s2cube.fetch.addresses import STORE_SCHEMES
from s2cube.storage._bucket import Bucket
from s2cube.storage.folder import Folder

_SCHEME = re.compile(r"([a-zA-Z][\w+.-]*)://?")


class Destination(Protocol):
    """Files by name. Names are relative to the destination, with slashes."""

    @property
    def address(self) -> str:
        """The path or address, as the user wrote it."""

    @property
    def is_shared(self) -> bool:
        """Whether all machines can write to it by the same address. False for a folder, because it is not known."""

    def local(self, name: str) -> Path | None:
        """Return the path of a file or folder on this machine; None for a bucket."""

    def prepare(self) -> None:
        """Check that files can be written; create the destination if it does not exist.

        Raises
        ------
        OutputError
            If files cannot be written.
        """

    def check_writable(self) -> None:
        """Write a test file, and remove it.

        Raises
        ------
        WriteError
            If the file cannot be written.
        """

    def clean_up(self) -> None:
        """Remove the incomplete files of interrupted runs."""

    def staging(self) -> AbstractContextManager[Path]:
        """Yield a temporary folder on this machine for files that will be put into the destination."""

    def put(self, name: str, content: bytes | Path) -> None:
        """Write a file, completely or not at all. A file from the staging folder is moved."""

    def put_folder(self, name: str, folder: Path) -> bool:
        """Move a folder out of the staging folder, in one step; return whether it was moved.

        It is not moved if there are files under its name, or if the destination cannot do this.
        """

    def append(self, name: str, lines: bytes) -> None:
        """Add complete lines at the end of a file; create it if it does not exist."""

    def compare_and_swap(self, name: str, old: bytes | None, new: bytes) -> bool:
        """Write a file if its content is `old` (None: if it does not exist); return whether it was written."""

    def read(self, name: str) -> bytes | None:
        """Return the content of a file; None if it does not exist."""

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield the content of a file in parts.

        Raises
        ------
        FileNotFoundError
            If the file does not exist.
        OSError
            If the disk cannot read the file.
        """

    def remove(self, name: str) -> None:
        """Remove a file, if it exists."""

    def sizes(self, depth: int, under: str = "", least: int | None = None) -> dict[str, int]:
        """Return the sizes of files, bytes, by name, sorted; from one listing.

        Folders at the top whose name begins with a dot are left out.

        Parameters
        ----------
        depth
            Number of names in the path of a file. Other files are left out.
        under
            Folder to list; the complete destination by default.
        least
            Least number of names; `depth` by default.
        """


def destination_at(out: str | Path, stores: Stores = ()) -> Destination:
    """Return the folder or bucket at a path or address.

    Parameters
    ----------
    stores
        Settings of stores at s3:// addresses, for an output that is only read. A run writes with the AWS variables.

    Raises
    ------
    OutputError
        If s2cube does not write to such an address.
    """
    text = str(out)
    match = _SCHEME.match(text)
    if match is None:
        return Folder(Path(text).expanduser().absolute())
    text = text.rstrip("/")
    parts = urlsplit(text)
    # An object store would change such names.
    unsafe = {"", ".", ".."} & set(parts.path.split("/")[1:])
    if match[1].lower() not in STORE_SCHEMES or not parts.netloc or "@" in parts.netloc or parts.query or unsafe:
        known = ", ".join(f"{scheme}://bucket/folder" for scheme in STORE_SCHEMES)
        raise OutputError(text, "s2cube cannot write there", f"Set --out to a local folder or one of {known}")
    return Bucket(text, stores)
