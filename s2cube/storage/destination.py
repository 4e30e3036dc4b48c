"""Where a run writes, a folder or a bucket: alike for who writes."""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from s2cube.errors import OutputError
from s2cube.storage._bucket import Bucket
from s2cube.storage.folder import Folder

_SCHEMES = ("s3", "gs", "az")
_SCHEME = re.compile(r"([a-zA-Z][\w+.-]*)://?")


class Place(Protocol):
    """Files by name: parts with slashes between them."""

    @property
    def address(self) -> str:
        """How people call it."""

    def prepare(self) -> None:
        """Make sure that it can be written."""

    def sweep(self) -> None:
        """Throw away what broken runs left half written."""

    def probe(self) -> None:
        """Write something, and take it away again."""

    def staging(self) -> AbstractContextManager[Path]:
        """Lend a folder of this machine for files that are to be put here."""

    def put(self, name: str, content: bytes | Path) -> None:
        """Write a file, whole or not at all; one that is staged is taken away."""

    def read(self, name: str) -> bytes | None:
        """Give what a file holds; None where there is none."""

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield the content of a file, a part at a time.

        FileNotFoundError if there is none, another OSError if the disk cannot read it.
        """

    def remove(self, name: str) -> None:
        """Take a file away, if it is there."""

    def sizes(self, under: str = "") -> dict[str, int]:
        """Give the sizes of slices' files, bytes, by name, sorted: of all, or of a folder; from one listing."""

    def swap(self, name: str, old: bytes | None, new: bytes) -> bool:
        """Write a file if it still holds what it held (None: if there is none), and tell whether it did."""


def place_at(out: str | Path) -> Place:
    """Give the folder or bucket at an address.

    Raises
    ------
    OutputError
        If nothing can be written at such an address.
    """
    text = str(out)
    match = _SCHEME.match(text)
    if match is None:
        return Folder(Path(text).expanduser().absolute())
    text = text.rstrip("/")
    parts = urlsplit(text)
    # Stores would go by another name than was given.
    crooked = {"", ".", ".."} & set(parts.path.split("/")[1:])
    if match[1].lower() not in _SCHEMES or not parts.netloc or "@" in parts.netloc or parts.query or crooked:
        known = ", ".join(f"{scheme}://bucket/folder" for scheme in _SCHEMES)
        raise OutputError(text, "is nowhere that s2cube writes to", f"Give --out a local folder or one of {known}")
    return Bucket(text)
