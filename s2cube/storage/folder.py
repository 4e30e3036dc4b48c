"""A folder to write to. Each file is written completely or not at all. Links inside it are not followed."""

import fcntl
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from uuid import uuid4

from s2cube.errors import OutputError, WriteError
from s2cube.fetch.session import per_session
from s2cube.storage._regular_file import NotRegularFileError, check_no_folder, inside, open_file
from s2cube.storage.layout import LOCK, PARTS

log = logging.getLogger(__name__)

_LOCK_WAIT_S = 10
"""Maximum wait for the lock. A process needs it for milliseconds; one that holds it longer is probably suspended."""

_CHUNK_BYTES = 1 << 20

_CAN_BEGIN = hasattr(os, "posix_fadvise")
"""Whether the system can begin to write several files at once. Waiting for them together takes less time."""


@dataclass(frozen=True)
class Folder:
    """A folder on this machine or on a shared file system. The folder itself may be a link."""

    root: Path

    @property
    def address(self) -> str:  # noqa: D102
        return str(self.root)

    @property
    def is_shared(self) -> bool:  # noqa: D102
        return False

    def local(self, name: str) -> Path | None:  # noqa: D102
        return self.root / name

    def prepare(self) -> None:  # noqa: D102
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self.check_writable()
        except (OSError, WriteError) as error:
            problem = error.problem if isinstance(error, WriteError) else _problem(error, "written")
            raise OutputError(self.address, problem, "Choose another folder by --out") from None
        with self._named_errors(PARTS), suppress(FileNotFoundError), inside(self.root, PARTS):
            pass

    def clean_up(self) -> None:  # noqa: D102
        # If the folder is a link, `inside` raises an error, and nothing is removed.
        with suppress(OSError), inside(self.root, PARTS):
            shutil.rmtree(self.root / PARTS, ignore_errors=True)

    def check_writable(self) -> None:  # noqa: D102
        with self._named_errors(""), tempfile.TemporaryFile(dir=self.root):
            pass

    @contextmanager
    def staging(self) -> Iterator[Path]:  # noqa: D102
        name = f"{PARTS}/{uuid4().hex}"
        with self._named_errors(name), inside(self.root, name, create=True):
            pass
        try:
            yield self.root / name
        finally:
            with suppress(OSError), inside(self.root, name):
                shutil.rmtree(self.root / name, ignore_errors=True)

    def put(self, name: str, content: bytes | Path) -> None:  # noqa: D102
        if isinstance(content, bytes):
            with self.staging() as folder:
                staged = folder / "content"
                with self._named_errors(name):
                    staged.write_bytes(content)
                self.put(name, staged)
            return
        with self._named_errors(name):
            _write_to_disk(str(content))
            with self._parent(name, create=True) as (folder_, leaf):
                check_no_folder(leaf, folder_)
                os.replace(content, leaf, dst_dir_fd=folder_)

    def put_folder(self, name: str, folder: Path) -> bool:  # noqa: D102
        with self._named_errors(name):
            _write_to_disk(*(entry.path for entry in os.scandir(folder)))
            with self._parent(name, create=True) as (parent, leaf):
                try:
                    # It succeeds if there is nothing of this name, or an empty folder.
                    os.rename(folder, leaf, dst_dir_fd=parent)
                except OSError:
                    return False
        return True

    def read(self, name: str) -> bytes | None:  # noqa: D102
        try:
            with self._named_errors(name, "read"), self._opened(name) as file:
                return file.read()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def chunks(self, name: str) -> Iterator[bytes]:  # noqa: D102
        with ExitStack() as opened:
            with self._named_errors(name, "read"):
                file = opened.enter_context(self._opened(name))
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk

    def remove(self, name: str) -> None:  # noqa: D102
        with self._named_errors(name), suppress(FileNotFoundError), self._parent(name) as (folder, leaf):
            check_no_folder(leaf, folder)
            os.unlink(leaf, dir_fd=folder)

    def sizes(self, depth: int, under: str = "", least: int | None = None) -> dict[str, int]:  # noqa: D102
        found: dict[str, int] = {}
        missing = FileNotFoundError, NotADirectoryError
        with self._named_errors(under, "read"), suppress(*missing), inside(self.root, under):
            above = len(Path(under).parts)
            levels = range((depth if least is None else least) - above, depth + 1 - above)
            _add_sizes(found, str(self.root), under, levels)
        return found

    def append(self, name: str, lines: bytes) -> None:  # noqa: D102
        remaining = memoryview(lines if self._ends_line(name) else b"\n" + lines)
        with self.open_to_append(name) as file, self._named_errors(name):
            file_status = os.fstat(file.fileno())
            if file_status.st_nlink > 1:
                # Another hard link to the file may be outside of the output, and must not change: write a new file.
                self.put(name, (self.read(name) or b"") + remaining)
                return
            try:
                while remaining:
                    remaining = remaining[os.write(file.fileno(), remaining) :]
                os.fsync(file.fileno())
            except OSError:
                with suppress(OSError):
                    os.ftruncate(file.fileno(), file_status.st_size)
                raise

    def _ends_line(self, name: str) -> bool:
        """Return whether a file ends with a complete line, or is empty or missing."""
        try:
            with self._named_errors(name, "read"), self._opened(name) as file:
                return not file.seek(0, os.SEEK_END) or os.pread(file.fileno(), 1, file.tell() - 1) == b"\n"
        except (FileNotFoundError, NotADirectoryError):
            return True

    def compare_and_swap(self, name: str, old: bytes | None, new: bytes) -> bool:  # noqa: D102
        # The lock is needed, because two runs may read the same content, and only one of them may replace it.
        with self._locked():
            if self.read(name) != old:
                return False
            self.put(name, new)
            return True

    @contextmanager
    def open_to_append(self, name: str) -> Iterator[IO[bytes]]:
        """Open a file to append to; create it if it does not exist.

        Raises
        ------
        OutputError
            If the name belongs to something that is not a file.
        WriteError
            If the file cannot be written.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        with self._named_errors(name), self._parent(name, create=True) as (folder, leaf):
            opened = open_file(leaf, flags, folder)
        with os.fdopen(opened, "ab") as file:
            yield file

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._named_errors(LOCK), self._parent(LOCK, create=True) as (folder, leaf):
            lock_file = open_file(leaf, os.O_RDWR | os.O_CREAT, folder)
        try:
            deadline = time.monotonic() + _LOCK_WAIT_S
            # Some network file systems do not support locks.
            with suppress(OSError):
                while not _lock(lock_file) and time.monotonic() < deadline:
                    time.sleep(0.02)
            yield
        finally:
            os.close(lock_file)

    @contextmanager
    def _parent(self, name: str, create: bool = False) -> Iterator[tuple[int, str]]:
        folder, _, leaf = name.rpartition("/")
        with inside(self.root, folder, create) as opened:
            yield opened, leaf

    @contextmanager
    def _opened(self, name: str) -> Iterator[IO[bytes]]:
        with self._parent(name) as (folder, leaf):
            opened = open_file(leaf, os.O_RDONLY, folder)
        with os.fdopen(opened, "rb") as file:
            yield file

    @contextmanager
    def _named_errors(self, name: str, verb: str = "written") -> Iterator[None]:
        """Convert system errors to errors of s2cube. FileNotFoundError of a file to read is not converted."""
        try:
            yield
        except NotRegularFileError as error:
            remedy = "Move it away, or choose another --out"
            raise OutputError(str(self.root / (error.name or name)), error.problem, remedy) from None
        except OSError as error:
            if verb == "read" and isinstance(error, FileNotFoundError | NotADirectoryError):
                raise
            if not _exists(self.root):
                raise WriteError(self.address, "does not exist any more", "Check the folder, then run again") from None
            remedy = {"read": "Check the folder", "written": "Free some disk space, or choose another --out"}[verb]
            raise WriteError(str(self.root / name), _problem(error, verb), f"{remedy}; then run again") from None


def _write_to_disk(*paths: str) -> None:
    """Write the content of files to disk before they get their names: after a crash, the old file or none exists."""
    files: list[int] = []
    try:
        files.extend(os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in paths)
        if _CAN_BEGIN:
            for file in files:
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        for file in files:
            os.fsync(file)
    finally:
        for file in files:
            os.close(file)


def _add_sizes(found: dict[str, int], root: str, folder: str, levels: range) -> None:
    """Add the sizes of the files that are so many levels below a folder, in the order of the parts of their names."""
    try:
        with os.scandir(f"{root}/{folder}") as opened:
            entries = sorted(opened, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    start, below = f"{folder}/" if folder else "", range(levels.start - 1, levels.stop - 1)
    for entry in entries:
        if 1 in levels and entry.is_file(follow_symlinks=False):
            with suppress(FileNotFoundError):  # another process may just have removed it
                found[start + entry.name] = entry.stat(follow_symlinks=False).st_size
        elif below.stop <= 1 or (not folder and entry.name.startswith(".")):
            continue
        elif entry.is_dir(follow_symlinks=False):
            _add_sizes(found, root, start + entry.name, below)
        elif entry.is_symlink() and entry.is_dir():
            _warn_of_link(entry.path)


@per_session(maxsize=1024)
def _warn_of_link(path: str) -> None:
    """Log this warning once per path."""
    log.warning("%s is a link. Links inside an output are not followed, so its content is left out", path)


def _exists(root: Path) -> bool:
    try:
        root.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _lock(lock_file: int) -> bool:
    try:
        fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _problem(error: OSError, verb: str) -> str:
    return f"cannot be {verb} ({error.strerror or error})"
