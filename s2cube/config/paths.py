"""Paths in settings."""

from pathlib import Path


def expand_user(value: Path) -> Path:
    """Replace ``~`` at the beginning of a path. A user that does not exist leaves it unchanged."""
    try:
        return value.expanduser()
    except RuntimeError:
        return value


def absolute(path_or_address: str) -> str:
    """Return the absolute path of a file. Return an address, such as ``https://host/a``, unchanged."""
    return path_or_address if "://" in path_or_address else str(Path(path_or_address).absolute())
