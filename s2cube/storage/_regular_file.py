"""Open regular files and folders, but no links, pipes or devices."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

_SAFE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""A link is not followed, and a pipe without a writer does not block."""

_MODE = 0o666
_KINDS = {
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
        What it is.
    name
        Path of the part that is not a folder, relative to the root; empty for the file itself.
    """

    def __init__(self, problem: str, name: str = "") -> None:
        super().__init__(problem)
        self.problem, self.name = problem, name


@contextmanager
def inside(root: Path, folder: str, create: bool = False) -> Iterator[int]:
    """Open a folder below a root, part by part, so that no link below the root is followed; give its descriptor.

    Parameters
    ----------
    root
        It may be a link itself.
    folder
        Relative to the root, with slashes.
    create
        Create missing folders, but never the root: a user may have deleted it during the run on purpose.

    Raises
    ------
    NotRegularFileError
        If a part is not a folder.
    OSError
        If it cannot be opened.
    """
    at = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    parts = PurePosixPath(folder).parts
    try:
        for depth, part in enumerate(parts, 1):
            if create:
                with suppress(FileExistsError):
                    os.mkdir(part, dir_fd=at)
            try:
                below = _open(part, os.O_RDONLY, at, stat.S_IFDIR)
            except NotRegularFileError as error:
                raise NotRegularFileError(error.problem, "/".join(parts[:depth])) from None
            os.close(at)
            at = below
        yield at
    finally:
        os.close(at)


def open_file(name: str, flags: int, folder: int | None = None) -> int:
    """Open a regular file in an open folder, or in the current folder; give its descriptor.

    Raises
    ------
    NotRegularFileError
        If it is not a regular file.
    OSError
        If it cannot be opened.
    """
    return _open(name, flags, folder, stat.S_IFREG)


def check_no_folder(name: str, folder: int) -> None:
    """Check that no folder of an open folder has this name, so that a file can take it.

    Raises
    ------
    NotRegularFileError
        If a folder has it.
    """
    with suppress(FileNotFoundError):
        if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            raise NotRegularFileError("is a folder, not a file")


def _open(name: str, flags: int, folder: int | None, kind: int) -> int:
    try:
        opened = os.open(name, flags | _SAFE, _MODE, dir_fd=folder)
    except OSError:
        with suppress(FileNotFoundError):
            _check(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode, kind)
        raise
    try:
        _check(os.fstat(opened).st_mode, kind)
    except NotRegularFileError:
        os.close(opened)
        raise
    return opened


def _check(mode: int, kind: int) -> None:
    found = stat.S_IFMT(mode)
    if found == stat.S_IFLNK:
        raise NotRegularFileError("is a link, and links inside an output are not followed")
    if found != kind:
        raise NotRegularFileError(f"is {_KINDS.get(found, 'something else')}, not {_KINDS[kind]}")
