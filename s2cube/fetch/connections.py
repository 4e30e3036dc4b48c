"""Connections to servers: certificates, proxies, a time limit per request, and the reuse of connections.

Search, reading, tokens and writing get certificates and proxies from this file. So all clients use the same variables.
"""

import http.client
import io
import math
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import getproxies

import urllib3
import urllib3.connection

from s2cube.errors import ConfigError
from s2cube.fetch.session import per_session

CERTIFICATE_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
"""Variables of requests, curl and OpenSSL. The first one that is set contains the path of a file or folder."""

_PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUEST_METHOD")
"""Variables that select the proxy. If REQUEST_METHOD is set, as in a CGI script, Python ignores HTTP_PROXY."""

_SERVERS, _CONNECTIONS = 16, 64
"""Maximum number of servers with open connections, and of connections per server (more than the threads of `cache`)."""


def certificates() -> Path:
    """Return the file or folder with the certificates of the trusted authorities.

    Raises
    ------
    ConfigError
        If a variable contains a path that does not exist.
    """
    for name in CERTIFICATE_VARIABLES:
        if value := os.environ.get(name):
            if not Path(value).exists():
                raise ConfigError(name, f"names '{value}', which does not exist", "Correct the variable or unset it")
            return Path(value)
    for folder in os.environ.get("SSL_CERT_DIR", "").split(os.pathsep):
        if folder and Path(folder).is_dir():
            return Path(folder)
    from requests.utils import DEFAULT_CA_BUNDLE_PATH

    return Path(DEFAULT_CA_BUNDLE_PATH)


def tls_settings(authorities: Path) -> ssl.SSLContext:
    """Return TLS settings that trust only these authorities.

    Raises
    ------
    ConfigError
        If the file contains no certificate.
    """
    context = urllib3.util.create_urllib3_context()
    try:
        is_folder = authorities.is_dir()
        context.load_verify_locations(None if is_folder else authorities, authorities if is_folder else None)
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(
            " or ".join(CERTIFICATE_VARIABLES), f"'{authorities}' contains no certificates ({error})",
            "Name a file of certificates in PEM format",
        ) from None  # fmt: skip
    return context


def pem_text(authorities: Path) -> bytes:
    """Return the certificates of the authorities as one text, for clients that do not accept a file name."""
    files = sorted(authorities.iterdir()) if authorities.is_dir() else [authorities]
    texts = (each.read_bytes() for each in files if each.is_file())
    return b"\n".join(dict.fromkeys(text for text in texts if b"-----BEGIN CERTIFICATE" in text))


def proxy_for(url: str) -> str | None:
    """Return the address of the proxy for a URL, with its user name and password; None if there is none.

    The variables are the same as in requests: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, in upper or lower case.

    Raises
    ------
    ConfigError
        If the proxy is not an HTTP proxy.
    """
    parts = urlsplit(url)
    names = (*_PROXY_VARIABLES, *map(str.lower, _PROXY_VARIABLES))
    return _proxy_for(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}", tuple(map(os.environ.get, names)))


@lru_cache(maxsize=256)
def _proxy_for(origin: str, _environment: tuple[str | None, ...]) -> str | None:
    from requests.utils import get_environ_proxies, select_proxy

    proxy = select_proxy(origin, get_environ_proxies(origin))
    if not proxy:
        return None
    address = proxy if "://" in proxy else f"http://{proxy}"
    if urlsplit(address).scheme not in ("http", "https"):
        raise ConfigError(
            "HTTPS_PROXY, HTTP_PROXY or ALL_PROXY", f"'{address}' is not an HTTP proxy",
            "Give one that begins with http:// or https://",
        ) from None  # fmt: skip
    return address


def proxy_and_exceptions(url: str) -> tuple[str | None, str]:
    """Return the proxy for the scheme of a URL, and the hosts to reach without a proxy, in the format of NO_PROXY.

    This is for clients that also send requests to other hosts than the host of the URL.
    """
    from requests.utils import select_proxy

    proxies = getproxies()
    # Select the proxy without NO_PROXY: the exceptions are returned separately.
    if not (proxy := select_proxy(url, proxies)):
        return None, ""
    exceptions = [proxies.get("no", "")] if proxy_for(url) else [proxies.get("no", ""), urlsplit(url).hostname or ""]
    return (proxy if "://" in proxy else f"http://{proxy}"), ",".join(filter(None, exceptions))


class _Deadline(threading.local):
    """Time at which the current request of each thread must end, by `time.monotonic`."""

    end_s = math.inf


_DEADLINE = _Deadline()


@contextmanager
def time_limit(timeout_s: float) -> Iterator[float]:
    """Limit the total time of all reads in this thread. After that time, a read raises TimeoutError.

    An inner limit cannot end after an outer limit. Yields the remaining seconds.
    """
    outer_s, now_s = _DEADLINE.end_s, time.monotonic()
    _DEADLINE.end_s = min(outer_s, now_s + timeout_s)
    try:
        yield max(_DEADLINE.end_s - now_s, 0)
    finally:
        _DEADLINE.end_s = outer_s


class _Reader(io.RawIOBase):
    """Read from a socket until the deadline of the request. The timeout of the socket restarts with every byte."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left_s = _DEADLINE.end_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("timed out")
        if left_s < math.inf:
            self._sock.settimeout(left_s)
        count: int | None = self._raw.readinto(buffer)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _SocketWithDeadline:
    """A socket for an HTTP response, which is read with the deadline of the request."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._sock))


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(_SocketWithDeadline(sock), *args, **options)  # type: ignore[arg-type]


class _StaleConnection(ConnectionError):
    """The server closed an idle connection."""


if TYPE_CHECKING:
    _Base = urllib3.connection.HTTPConnection
else:
    _Base = object


class _TrackedConnection(_Base):
    """A connection that records whether it has received an answer."""

    response_class = _Response
    _answered = False

    def connect(self) -> None:
        self._answered = False
        super().connect()

    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]
        try:
            answer = super().getresponse()
        except ConnectionError as error:
            raise (_StaleConnection(str(error)) if self._answered else error) from None
        self._answered = True
        return answer


class _Connection(_TrackedConnection, urllib3.connection.HTTPConnection):
    pass


class _SecureConnection(_TrackedConnection, urllib3.connection.HTTPSConnection):
    pass


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


def was_stale(error: Exception) -> bool:
    """Return whether a request failed because the server closed an idle connection. A new connection may succeed."""
    return any(isinstance(each, _StaleConnection) for each in causes_of(error))


@per_session(maxsize=8)
def connections(proxy: str | None, authorities: Path | None) -> urllib3.PoolManager:
    """Return a pool of connections to servers, through a proxy if there is one.

    Parameters
    ----------
    proxy
        Address, with user name and password.
    authorities
        Certificate authorities to trust; see `certificates`. None if neither the server nor the proxy speaks TLS: to
        load them takes as long as several requests.
    """
    options: dict[str, Any] = {"num_pools": _SERVERS, "maxsize": _CONNECTIONS}
    if authorities:
        options["ssl_context"] = tls_settings(authorities)
    manager = urllib3.PoolManager(**options)
    if proxy:
        parts = urlsplit(proxy)
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else None
        bare = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], "", "", ""))
        headers = urllib3.make_headers(proxy_basic_auth=user)
        to_proxy = tls_settings(authorities) if authorities else None
        manager = urllib3.ProxyManager(bare, proxy_headers=headers, proxy_ssl_context=to_proxy, **options)
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
    return manager


def server_name(url: str) -> str:
    """Return the name of a server: its host, and its port if the URL contains one."""
    parts = urlsplit(url)
    return parts.netloc.rpartition("@")[2]


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes. Libraries store the causes in different attributes."""
    pending, seen = [error], set[int]()
    while pending:
        each = pending.pop(0)
        if id(each) not in seen:
            seen.add(id(each))
            yield each
            inner = [each.__cause__, each.__context__, getattr(each, "reason", None), *each.args]
            pending += [other for other in inner if isinstance(other, BaseException)]
