"""Kinds of addresses: files on this machine, by a path or a ``file:`` address, and files on the network."""

import os
import re
from urllib.parse import unquote, urlsplit

STORE_SCHEMES = ("s3", "gs", "az")
"""Object stores, which can be read and written."""

REMOTE_SCHEMES = ("http", "https", *STORE_SCHEMES)
"""Addresses that can be read over the network. A catalogue on the network may link to no other ones."""

_FILE = re.compile(r"file:(?://(?P<host>[^/]*))?", re.IGNORECASE)


def is_remote(address: str) -> bool:
    """Say whether an address is one of a file on the network that can be read."""
    return urlsplit(address).scheme.lower() in REMOTE_SCHEMES


def is_local(address: str) -> bool:
    """Say whether an address is a path, or a ``file:`` address without another host."""
    found = _FILE.match(address)
    return (found["host"] or "").lower() in ("", "localhost") if found else "://" not in address


def local_path(address: str) -> str:
    """Give the path of a file. In a ``file:`` address, # and ? are ordinary characters."""
    found = _FILE.match(address)
    return existing_path(address[found.end() :]) if found else address


def existing_path(path: str) -> str:
    """Give a path as it is written, or with its %-escapes decoded if the file exists only under that name."""
    # The STAC specification requires addresses, but most writers put a plain path there.
    decoded = unquote(path)
    # Not `Path.exists`, which raises an error for a name that is too long.
    there = os.path.exists
    return decoded if decoded != path and not there(path) and there(decoded) else path
