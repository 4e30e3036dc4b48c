"""A folder to write to: a file is there whole or not at all."""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from uuid import uuid4

from s2cube.errors import OutputError, WriteError

OWN = ".s2cube"
"""Folder of what is nobody else's business."""

_PARTS = f"{OWN}/parts"
"""What is being written. It is on the same disk, so that a file can be moved from there in one step."""

_LOCK_WAIT_S = 10
"""What is done under a lock takes milliseconds: who holds it for longer sleeps, and would hold it for ever."""

_OF_SLICES = "[!.]*/*/*"
"""Files of slices: aoi, slice, name."""


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
        for path in sorted(self.root.glob(_OF_SLICES)):
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
