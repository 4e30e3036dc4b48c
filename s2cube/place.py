"""Where a run writes: a folder or a bucket. A file is there whole or not at all."""

import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol
from urllib.parse import urlsplit
from uuid import uuid4

from s2cube.errors import OutputError, WriteError
from s2cube.remote import heed, store_to_write

if TYPE_CHECKING:
    import obstore.store

_SCHEMES = ("s3", "gs", "az")
_SCHEME = re.compile(r"([a-zA-Z][\w+.-]*)://?")
OWN = ".s2cube"
"""Folder of what is nobody else's business."""

_PARTS = f"{OWN}/parts"
"""What is being written. It is on the same disk, so that a file can be moved from there in one step."""

_LOCK_WAIT_S = 10
"""What is done under a lock takes milliseconds: who holds it for longer sleeps, and would hold it for ever."""

_DEPTH = 3
"""Of a slice's files: aoi, slice, name."""


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

    def remove(self, name: str) -> None:
        """Take a file away, if it is there."""

    def names(self) -> Iterator[str]:
        """Yield the names of slices' files, sorted."""

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


@dataclass(frozen=True)
class Folder:
    """A folder of this machine, or one that it shares with others."""

    root: Path

    @property
    def address(self) -> str:  # noqa: D102
        return str(self.root)

    def prepare(self) -> None:  # noqa: D102
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self.probe()
        except (OSError, WriteError) as error:
            problem = error.problem if isinstance(error, WriteError) else _unwritable(error)
            raise OutputError(self.address, problem, "Choose another folder by --out") from None

    def sweep(self) -> None:  # noqa: D102
        shutil.rmtree(self.root / _PARTS, ignore_errors=True)

    def probe(self) -> None:  # noqa: D102
        with self._named(self.root), tempfile.TemporaryFile(dir=self.root):
            pass

    @contextmanager
    def staging(self) -> Iterator[Path]:  # noqa: D102
        folder = self.root / _PARTS / uuid4().hex
        with self._named(folder):
            folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def put(self, name: str, content: bytes | Path) -> None:  # noqa: D102
        if isinstance(content, bytes):
            with self.staging() as folder:
                staged = folder / "content"
                with self._named(self.root / name):
                    staged.write_bytes(content)
                self.put(name, staged)
            return
        with self._named(self.root / name):
            # On disk before it has its name: a crash leaves the old file, or none.
            with content.open("rb") as file:
                os.fsync(file.fileno())
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            content.replace(self.root / name)

    def read(self, name: str) -> bytes | None:  # noqa: D102
        try:
            return (self.root / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            problem = f"cannot be read ({error.strerror or error})"
            raise WriteError(str(self.root / name), problem, "See to the folder, then run again") from None

    def remove(self, name: str) -> None:  # noqa: D102
        with self._named(self.root / name):
            (self.root / name).unlink(missing_ok=True)

    def names(self) -> Iterator[str]:  # noqa: D102
        for path in sorted(self.root.glob("/".join(["[!.]*"] * _DEPTH))):
            yield path.relative_to(self.root).as_posix()

    def swap(self, name: str, old: bytes | None, new: bytes) -> bool:  # noqa: D102
        # Of two runs that find the same, one goes first.
        with self._locked():
            if self.read(name) != old:
                return False
            self.put(name, new)
            return True

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = self.root / OWN / "lock"
        with self._named(lock):
            lock.parent.mkdir(exist_ok=True)
            guard = lock.open("w")
        with guard:
            deadline = time.monotonic() + _LOCK_WAIT_S
            # Not every network file system has locks.
            with suppress(OSError):
                while not _lock(guard) and time.monotonic() < deadline:
                    time.sleep(0.02)
            yield

    @contextmanager
    def _named(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            remedy = "Make room, or choose another --out; then run again"
            raise WriteError(str(path), _unwritable(error), remedy) from None


def _lock(guard: IO[str]) -> bool:
    try:
        fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _unwritable(error: OSError) -> str:
    return f"cannot be written ({error.strerror or error})"


@dataclass(frozen=True)
class Bucket:
    """A folder of an object store, or the whole bucket."""

    address: str

    def prepare(self) -> None:  # noqa: D102
        try:
            # Some stores make a bucket that is written to.
            next(self.names(), None)
            self.probe()
        except WriteError as error:
            remedy = "Check --out, and that the keys in the environment may write there"
            raise OutputError(self.address, error.problem, remedy) from None

    def sweep(self) -> None:
        """Do nothing: what was not put whole is nowhere to be seen."""

    def probe(self) -> None:  # noqa: D102
        name = f".s2cube-{uuid4().hex}"
        self.put(name, b"")
        self.remove(name)

    @contextmanager
    def staging(self) -> Iterator[Path]:  # noqa: D102
        with tempfile.TemporaryDirectory(prefix="s2cube-") as folder:
            yield Path(folder)

    def put(self, name: str, content: bytes | Path) -> None:  # noqa: D102
        import obstore

        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        with self._named(name):
            heed(lambda: obstore.put(self._store, name, content))
            there = heed(lambda: obstore.head(self._store, name)["size"])
        if there != size:
            raise self._failed(name, f"{there} bytes are there of {size}")

    def read(self, name: str) -> bytes | None:  # noqa: D102
        found = self._find(name)
        return found[0] if found else None

    def remove(self, name: str) -> None:  # noqa: D102
        import obstore

        with self._named(name), suppress(FileNotFoundError):
            heed(lambda: obstore.delete(self._store, name))

    def names(self) -> Iterator[str]:  # noqa: D102
        import obstore

        with self._named(""):
            found = heed(lambda: [each["path"] for page in obstore.list(self._store) for each in page])
        own = (name for name in found if name.count("/") == _DEPTH - 1 and name[0] != ".")
        yield from sorted(own, key=lambda name: name.split("/"))

    def swap(self, name: str, old: bytes | None, new: bytes) -> bool:  # noqa: D102
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        found = self._find(name)
        if (found[0] if found else None) != old:
            return False
        try:
            with self._named(name):
                heed(lambda: obstore.put(self._store, name, new, mode={"e_tag": found[1]} if found else "create"))
        except WriteError as error:
            if isinstance(error.__context__, AlreadyExistsError | PreconditionError):
                return False
            raise
        return True

    def _find(self, name: str) -> tuple[bytes, str | None] | None:
        import obstore

        def get() -> tuple[bytes, str | None]:
            answer = obstore.get(self._store, name)
            return bytes(answer.bytes()), answer.meta["e_tag"]

        with self._named(name, "read"), suppress(FileNotFoundError):
            return heed(get)
        return None

    @property
    def _store(self) -> "obstore.store.ObjectStore":
        return store_to_write(self.address)

    @contextmanager
    def _named(self, name: str, verb: str = "written") -> Iterator[None]:
        from obstore.exceptions import BaseError

        try:
            yield
        except (BaseError, OSError, ValueError) as error:
            raise self._failed(name, _reason(error), verb) from None

    def _failed(self, name: str, reason: str, verb: str = "written") -> WriteError:
        remedy = "Check the bucket and the keys in the environment; then run again"
        return WriteError(f"{self.address}/{name}", f"cannot be {verb} ({reason})", remedy)


_CODE = re.compile(r"<Code>(\w+)</Code>")
_MESSAGE = re.compile(r"<Message>([^<]+)</Message>")


def _reason(error: Exception) -> str:
    text = str(error)
    told = [found[1] for pattern in (_CODE, _MESSAGE) if (found := pattern.search(text))]
    return ": ".join(told) if told else text.split("\n")[0][:300]
