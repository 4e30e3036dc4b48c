"""Connections to web servers: they are kept for the next request, and a time limit covers each whole request."""

import http.client
import io
import math
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit, urlunsplit

import urllib3
import urllib3.connection

from s2cube.fetch._network import chain, trust

_HOSTS, _CONNECTIONS = 16, 64
"""Kept open: more than `shelf` has fetchers."""


class _Clock(threading.local):
    """When the request of this thread must end, by `time.monotonic`."""

    end_s = math.inf


_CLOCK = _Clock()


@contextmanager
def limited(timeout_s: float) -> Iterator[float]:
    """Limit the time of all reads together in this thread; after that time, reading raises TimeoutError.

    A limit inside another one ends no later than the outer one. Yields the seconds that are left.
    """
    outer_s, now_s = _CLOCK.end_s, time.monotonic()
    _CLOCK.end_s = min(outer_s, now_s + timeout_s)
    try:
        yield max(_CLOCK.end_s - now_s, 0)
    finally:
        _CLOCK.end_s = outer_s


class _Reader(io.RawIOBase):
    """Read from a socket until the request's time is over. A socket's own timeout restarts with every byte."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left_s = _CLOCK.end_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("timed out")
        if left_s < math.inf:
            self._sock.settimeout(left_s)
        taken: int | None = self._raw.readinto(buffer)
        return taken

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Timed:
    """A socket as an HTTP response uses it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._sock))


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(_Timed(sock), *args, **options)  # type: ignore[arg-type]


class _Stale(ConnectionError):
    """A server closed a connection that was kept."""


if TYPE_CHECKING:
    _Base = urllib3.connection.HTTPConnection
else:
    _Base = object


class _Kept(_Base):
    """What a connection remembers: whether it has given an answer before."""

    response_class = _Response
    _answered = False

    def connect(self) -> None:
        self._answered = False
        super().connect()

    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]
        try:
            answer = super().getresponse()
        except ConnectionError as error:
            raise (_Stale(str(error)) if self._answered else error) from None
        self._answered = True
        return answer


class _Connection(_Kept, urllib3.connection.HTTPConnection):
    pass


class _SecureConnection(_Kept, urllib3.connection.HTTPSConnection):
    pass


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


def was_stale(error: Exception) -> bool:
    """Say whether a request failed because a server closed a connection that was kept. A new connection may succeed."""
    return any(isinstance(each, _Stale) for each in chain(error))


@lru_cache(maxsize=8)
def connections(proxy: str | None, authorities: Path) -> urllib3.PoolManager:
    """Give a pool of connections to servers, through a proxy if there is one.

    Parameters
    ----------
    proxy
        Address, with user name and password.
    authorities
        Certificate authorities to trust; see `network.certificates`.
    """
    options: dict[str, Any] = {"num_pools": _HOSTS, "maxsize": _CONNECTIONS, "ssl_context": trust(authorities)}
    manager = urllib3.PoolManager(**options)
    if proxy:
        parts = urlsplit(proxy)
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else None
        bare = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], "", "", ""))
        headers = urllib3.make_headers(proxy_basic_auth=user)
        manager = urllib3.ProxyManager(bare, proxy_headers=headers, proxy_ssl_context=trust(authorities), **options)
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
    return manager
