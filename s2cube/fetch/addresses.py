"""Kinds of addresses: files on this machine, by a path or a ``file:`` address, and files on the network."""

import os
import re
from urllib.parse import unquote, urlsplit

STORE_SCHEMES = ("s3", "gs", "az")
"""Schemes of object stores. s2cube reads and writes them."""

REMOTE_SCHEMES = ("http", "https", *STORE_SCHEMES)
"""Schemes of addresses that are read over the network. A catalogue on the network may link only to these."""

_FILE = re.compile(r"file:(?://(?P<host>[^/]*))?", re.IGNORECASE)


def is_remote(address: str) -> bool:
    """Return whether an address is a file on the network that s2cube can read."""
    return urlsplit(address).scheme.lower() in REMOTE_SCHEMES


def is_local(address: str) -> bool:
    """Return whether an address is a path, or a ``file:`` address of this machine."""
    found = _FILE.match(address)
    return (found["host"] or "").lower() in ("", "localhost") if found else "://" not in address


def local_path(address: str) -> str:
    """Return the path of a local file. In a ``file:`` address, # and ? are ordinary characters."""
    found = _FILE.match(address)
    return existing_path(address[found.end() :]) if found else address


def existing_path(path: str) -> str:
    """Return a path. Its %-escapes are decoded if the file exists only under the decoded name."""
    # The STAC specification requires a URI here, but most programs write a plain path.
    decoded = unquote(path)
    # `Path.exists` raises an error if a name is too long.
    exists = os.path.exists
    return decoded if decoded != path and not exists(path) and exists(decoded) else path
