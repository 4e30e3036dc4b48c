"""Open regular files and folders only, never links, pipes or devices."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

_SAFE_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""With these flags, a link is not followed, and a pipe without a writer does not block."""

_MODE = 0o666
_KIND_NAMES = {
    stat.S_IFDIR: "a folder",
    stat.S_IFREG: "a file",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class NotRegularFileError(OSError):
    """A path is not a regular file, or a part of it is not a folder.

    Parameters
    ----------
    problem
        What the path is instead.
    name
        Path of the part that is not a folder, relative to the root; empty for the file itself.
    """

    def __init__(self, problem: str, name: str = "") -> None:
        super().__init__(problem)
        self.problem, self.name = problem, name


@contextmanager
def inside(root: Path, folder: str, create: bool = False) -> Iterator[int]:
    """Open a folder below a root, part by part, so that links below the root are not followed; yield its descriptor.

    Parameters
    ----------
    root
        The root itself may be a link.
    folder
        Path relative to the root, with slashes.
    create
        Create missing folders, except the root: the user may have deleted the root on purpose during the run.

    Raises
    ------
    NotRegularFileError
        If a part is not a folder.
    OSError
        If the folder cannot be opened.
    """
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    parts = PurePosixPath(folder).parts
    try:
        for depth, part in enumerate(parts, 1):
            try:
                child = _child(part, descriptor, create)
            except NotRegularFileError as error:
                raise NotRegularFileError(error.problem, "/".join(parts[:depth])) from None
            os.close(descriptor)
            descriptor = child
        yield descriptor
    finally:
        os.close(descriptor)


def _child(name: str, folder: int, create: bool) -> int:
    """Open a folder in an open folder. Most folders exist, so this is tried first."""
    try:
        return _open(name, os.O_RDONLY, folder, stat.S_IFDIR)
    except FileNotFoundError:
        if not create:
            raise
    with suppress(FileExistsError):
        os.mkdir(name, dir_fd=folder)
    return _open(name, os.O_RDONLY, folder, stat.S_IFDIR)


def open_file(name: str, flags: int, folder: int | None = None) -> int:
    """Open a regular file in an open folder, or in the current folder; return its descriptor.

    Raises
    ------
    NotRegularFileError
        If the name is not that of a regular file.
    OSError
        If the file cannot be opened.
    """
    return _open(name, flags, folder, stat.S_IFREG)


def check_no_folder(name: str, folder: int) -> None:
    """Check that an open folder contains no folder with this name, so that a file can have it.

    Raises
    ------
    NotRegularFileError
        If a folder has this name.
    """
    with suppress(FileNotFoundError):
        if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            raise NotRegularFileError("is a folder, not a file")


def _open(name: str, flags: int, folder: int | None, kind: int) -> int:
    try:
        opened = os.open(name, flags | _SAFE_FLAGS, _MODE, dir_fd=folder)
    except OSError:
        with suppress(FileNotFoundError):
            _check_kind(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode, kind)
        raise
    try:
        _check_kind(os.fstat(opened).st_mode, kind)
    except NotRegularFileError:
        os.close(opened)
        raise
    return opened


def _check_kind(mode: int, kind: int) -> None:
    found = stat.S_IFMT(mode)
    if found == stat.S_IFLNK:
        raise NotRegularFileError("is a link, and links inside an output are not followed")
    if found != kind:
        raise NotRegularFileError(f"is {_KIND_NAMES.get(found, 'something else')}, not {_KIND_NAMES[kind]}")
