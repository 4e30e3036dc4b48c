"""Connections to servers: certificates, proxies, a time limit for each whole request, and connections that stay open.

Search, reading, tokens and writing take certificates and proxies from here, so one set of variables serves all clients.
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
"""The first variable that is set names the file (or, for requests, a folder); requests, curl and OpenSSL use them."""

_PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUEST_METHOD")
"""Variables that decide the proxy. Python ignores HTTP_PROXY in a CGI script, which sets REQUEST_METHOD."""

_SERVERS, _CONNECTIONS = 16, 64
"""Number of servers whose connections stay open, and of connections to each: more than `cache` has threads."""


def certificates() -> Path:
    """Give the file or folder with the certificates of the trusted authorities.

    Raises
    ------
    ConfigError
        If a variable names one that does not exist.
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
    """Make TLS settings that trust these authorities and no others.

    Raises
    ------
    ConfigError
        If the file holds no certificate.
    """
    context = urllib3.util.create_urllib3_context()
    try:
        folder = authorities.is_dir()
        context.load_verify_locations(None if folder else authorities, authorities if folder else None)
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(
            " or ".join(CERTIFICATE_VARIABLES), f"'{authorities}' holds no certificates ({error})",
            "Name a file of certificates in PEM format",
        ) from None  # fmt: skip
    return context


def pem_text(authorities: Path) -> bytes:
    """Give the certificates of the authorities as one text, for clients that take no file name."""
    files = sorted(authorities.iterdir()) if authorities.is_dir() else [authorities]
    texts = (each.read_bytes() for each in files if each.is_file())
    return b"\n".join(dict.fromkeys(text for text in texts if b"-----BEGIN CERTIFICATE" in text))


def proxy_for(url: str) -> str | None:
    """Give the address of the proxy for a URL, with its user name and password; None if there is none.

    As in requests: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, in upper or lower case.

    Raises
    ------
    ConfigError
        If it is not an HTTP proxy.
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
    """Give the proxy for a kind of address, and the hosts that need no proxy, as NO_PROXY lists them.

    For clients that talk to other hosts than that of the URL, too.
    """
    from requests.utils import select_proxy

    proxies = getproxies()
    # Ask without the host, because the exceptions include it.
    if not (proxy := select_proxy(url, proxies)):
        return None, ""
    exceptions = [proxies.get("no", "")] if proxy_for(url) else [proxies.get("no", ""), urlsplit(url).hostname or ""]
    return (proxy if "://" in proxy else f"http://{proxy}"), ",".join(filter(None, exceptions))


class _Clock(threading.local):
    """When the request of this thread must end, by `time.monotonic`."""

    end_s = math.inf


_CLOCK = _Clock()


@contextmanager
def time_limit(timeout_s: float) -> Iterator[float]:
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
    """A connection that knows whether it has received an answer before."""

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
    return any(isinstance(each, _Stale) for each in causes_of(error))


@per_session(maxsize=8)
def connections(proxy: str | None, authorities: Path) -> urllib3.PoolManager:
    """Give a pool of connections to servers, through a proxy if there is one.

    Parameters
    ----------
    proxy
        Address, with user name and password.
    authorities
        Certificate authorities to trust; see `certificates`.
    """
    options: dict[str, Any] = {"num_pools": _SERVERS, "maxsize": _CONNECTIONS, "ssl_context": tls_settings(authorities)}
    manager = urllib3.PoolManager(**options)
    if proxy:
        parts = urlsplit(proxy)
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else None
        bare = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], "", "", ""))
        headers = urllib3.make_headers(proxy_basic_auth=user)
        manager = urllib3.ProxyManager(
            bare, proxy_headers=headers, proxy_ssl_context=tls_settings(authorities), **options
        )
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
    return manager


def server_name(url: str) -> str:
    """Name a server: host, and port if it is not the usual one."""
    parts = urlsplit(url)
    return parts.netloc.rpartition("@")[2]


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes, which libraries keep in different places."""
    left, seen = [error], set[int]()
    while left:
        each = left.pop(0)
        if id(each) not in seen:
            seen.add(id(each))
            yield each
            inner = [each.__cause__, each.__context__, getattr(each, "reason", None), *each.args]
            left += [other for other in inner if isinstance(other, BaseException)]
