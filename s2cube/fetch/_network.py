"""Network settings of the environment, and the meaning of a failed connection: the same for every client.

Search, reading, tokens and writing take certificates and proxies from here, so one set of variables serves all.
"""

import os
import re
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

import urllib3

from s2cube.errors import ConfigError

CERTIFICATE_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
"""The first variable that is set names the file (or, for requests, a folder); requests, curl and OpenSSL use them."""

_PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUEST_METHOD")
"""Variables that decide the proxy. Python ignores HTTP_PROXY in a CGI script, which sets REQUEST_METHOD."""

_OWN_AUTHORITY = (
    "If your network has a certificate authority of its own, name the file with its certificate in SSL_CERT_FILE "
    "(or REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE)"
)
_CHECK_ADDRESS = "Check the address and your network; behind a proxy, set HTTPS_PROXY and HTTP_PROXY"
_MOST_TEXT = 4000
"""Characters of an error's text that are read."""


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


@lru_cache(maxsize=8)
def trust(authorities: Path) -> ssl.SSLContext:
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


def pem(authorities: Path) -> bytes:
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
    # Ask without the host: what NO_PROXY says of it is among the exceptions.
    if not (proxy := select_proxy(url, proxies)):
        return None, ""
    exceptions = [proxies.get("no", "")] if proxy_for(url) else [proxies.get("no", ""), urlsplit(url).hostname or ""]
    return (proxy if "://" in proxy else f"http://{proxy}"), ",".join(filter(None, exceptions))


@dataclass(frozen=True)
class Trouble:
    """The meaning of a failed connection.

    Parameters
    ----------
    may_pass
        Whether the next try may succeed.
    is_first_contact
        Whether a server that never answered is more likely misspelt, or gone for good, than busy.
    """

    problem: str
    remedy: str = ""
    may_pass: bool = True
    is_first_contact: bool = False


def diagnose(error: BaseException, url: str, timeout_s: float | None = None) -> Trouble:
    """Explain an error of urllib3, requests or obstore; their own words are about sockets and libraries.

    Parameters
    ----------
    url
        Requested address.
    timeout_s
        Seconds waited, if known.
    """
    causes = list(chain(error))
    text = " ".join(str(each)[:_MOST_TEXT] for each in causes)
    by_proxy = any(isinstance(each, urllib3.exceptions.ProxyError) for each in causes)
    who = _called(proxy_for(url) or url) if by_proxy else _called(url)
    if by_proxy:
        who = f"the proxy {who}"
        if status := re.search(r"Tunnel connection failed: (\d{3})", text):
            return _refused_by_proxy(who, int(status[1]), _called(url))
    if any(isinstance(each, urllib3.exceptions.LocationValueError) for each in causes):
        return Trouble("its address is not valid", "Correct the address", may_pass=False)
    return (
        _tls_trouble(causes, text, who) or _reaching_trouble(causes, text, who) or _answer_trouble(text, who, timeout_s)
    )


def _refused_by_proxy(who: str, status: int, target: str) -> Trouble:
    if status == 407:
        remedy = "Give name and password in HTTPS_PROXY=http://NAME:PASSWORD@HOST:PORT"
        return Trouble(f"{who} needs a user name and a password", remedy, may_pass=False)
    passes = status in (408, 429, 500, 502, 503, 504)
    remedy = "Check the address; ask the operator of the proxy, or name the host in NO_PROXY"
    return Trouble(f"{who} does not connect to {target}: it answers {status}", remedy, passes, is_first_contact=passes)


def _tls_trouble(causes: list[BaseException], text: str, who: str) -> Trouble | None:
    unverified = next((each for each in causes if isinstance(each, ssl.SSLCertVerificationError)), None)
    rust = re.search(r"InvalidCertificate\(\s*(?:Other\(\s*OtherError\(\s*)?(\w+)", text)
    if unverified or rust:
        why = unverified.verify_message if unverified else rust[1] if rust else ""
        return Trouble(f"the certificate of {who} is not trusted: {why}", _OWN_AUTHORITY, may_pass=False)
    if re.search(r"WRONG_VERSION_NUMBER|record layer failure|UNEXPECTED_MESSAGE|InvalidContentType|HTTP_REQUEST", text):
        return Trouble(f"{who} does not speak https", "Try http:// in its address", may_pass=False)
    if re.search(r"BadStatusLine\(.{0,3}\\x15\\x03", text):
        return Trouble(f"{who} speaks https only", "Write https:// in its address", may_pass=False)
    return None


def _reaching_trouble(causes: list[BaseException], text: str, who: str) -> Trouble | None:
    lookup = next((each for each in causes if isinstance(each, socket.gaierror)), None)
    if lookup or "dns error" in text or "failed to lookup address" in text:
        later = (lookup is not None and lookup.errno == socket.EAI_AGAIN) or "Temporary failure in name" in text
        if later:
            return Trouble(f"the name of {who} cannot be resolved now", _CHECK_ADDRESS, is_first_contact=True)
        return Trouble(f"there is no host {who}", _CHECK_ADDRESS, may_pass=False)
    if "Connection refused" in text or "ConnectionRefused" in text:
        return Trouble(f"{who} refuses the connection", _CHECK_ADDRESS, is_first_contact=True)
    if re.search(r"unreachable|No route to host", text):
        return Trouble(f"there is no network route to {who}", _CHECK_ADDRESS, is_first_contact=True)
    if any(isinstance(each, urllib3.exceptions.ConnectTimeoutError) for each in causes):
        return Trouble(f"no connection to {who} in time", _CHECK_ADDRESS, is_first_contact=True)
    return None


def _answer_trouble(text: str, who: str, timeout_s: float | None) -> Trouble:
    # The words of Python's http.client: of a header that is too long, and of too many.
    if re.search(r"got more than \d+ (bytes when reading|headers)", text):
        return Trouble(f"{who} sends headers that are too long", may_pass=False)
    if re.search(r"timed out|TimedOut|Timeout", text):
        limit = f"{timeout_s:g} s" if timeout_s else "time"
        return Trouble(f"{who} takes longer than {limit}", "Try a longer --timeout ([read] timeout)")
    if re.search(r"IncompleteRead|Connection broken|end of file before message|UnexpectedEof|error decoding", text):
        return Trouble(f"{who} broke off its answer")
    if re.search(r"reset by peer|ConnectionReset|closed connection|IncompleteMessage|Connection aborted|EOF", text):
        return Trouble(f"{who} closed the connection without an answer")
    if "failed to decode" in text:
        return Trouble(f"{who} does not pack its answer as it says", may_pass=False)
    first = " ".join(text.split("\n")[0].split())
    return Trouble(first.rpartition(" - ")[2][:300])


def _called(url: str) -> str:
    """Name a server: host, and port if it is not the usual one."""
    parts = urlsplit(url)
    return parts.netloc.rpartition("@")[2]


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes, which libraries keep in different places."""
    left, seen = [error], set[int]()
    while left:
        each = left.pop(0)
        if id(each) not in seen:
            seen.add(id(each))
            yield each
            inner = [each.__cause__, each.__context__, getattr(each, "reason", None), *each.args]
            left += [other for other in inner if isinstance(other, BaseException)]


def speaks_tls(url: str, timeout_s: float) -> bool:
    """Say whether the server of an http address speaks TLS: such a server may close plain connections at once."""
    parts = urlsplit(url)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # only the TLS handshake is sent
    try:
        with (
            socket.create_connection((parts.hostname or "", parts.port or 80), timeout_s) as plain,
            context.wrap_socket(plain, server_hostname=parts.hostname),
        ):
            return True
    except (OSError, ValueError):
        return False
