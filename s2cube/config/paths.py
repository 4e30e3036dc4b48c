"""Paths in settings."""

from pathlib import Path


def expand_user(value: Path) -> Path:
    """Replace ``~`` at the beginning of a path. A user that does not exist leaves it unchanged."""
    try:
        return value.expanduser()
    except RuntimeError:
        return value
