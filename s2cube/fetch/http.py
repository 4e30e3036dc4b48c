"""HTTP requests with limits of time and size. A secret is sent only to the host that it belongs to."""

import http.client
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urljoin, urlsplit, urlunsplit

import urllib3

from s2cube.fetch.connections import certificates, connections, proxy_for, time_limit, was_stale
from s2cube.fetch.retry import BUSY, PermanentFailure, TemporaryFailure, busy, diagnose
from s2cube.fetch.session import per_session

CONNECT_TIMEOUT_S = 10

_MOST_OF_REFUSAL_BYTES = 1 << 16
"""Maximum length to read of an error or a redirect. It is enough for the reason, and to keep the connection open."""

_PIECE_BYTES = 1 << 16

REDIRECTS = (301, 302, 303, 307, 308)


@dataclass(frozen=True)
class Answer:
    """The answer of a server. Its body is cut at the requested length."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def is_good(self) -> bool:
        """Whether the request succeeded."""
        return 200 <= self.status < 300

    @property
    def pause_s(self) -> float | None:
        """Pause that the server requests, seconds; None if it does not request one."""
        asked = self.headers.get("Retry-After")
        try:
            return urllib3.Retry().parse_retry_after(asked) if asked else None
        except urllib3.exceptions.InvalidHeader:
            return None


def http_get(url: str, headers: Mapping[str, str], timeout_s: float, most_bytes: int) -> Answer:
    """Send a GET request by `send_request`. Raise an error if the server is busy.

    Raises
    ------
    TemporaryFailure
        If there is no answer, or the server is busy.
    PermanentFailure, ConfigError
        See `send_request`.
    """
    answer = send_request(url, headers, timeout_s, most_bytes)
    if answer.status in BUSY:
        raise busy(answer.status, answer.pause_s)
    return answer


def send_request(
    url: str, headers: Mapping[str, str], timeout_s: float, most_bytes: int, body: bytes | None = None
) -> Answer:
    """Send a request and return the answer, also if it is an error. Redirects are not followed: see `redirected`.

    Parameters
    ----------
    url
        A user name and a password in the URL are sent to its host.
    headers
        If they contain Accept-Encoding, the body is decompressed.
    timeout_s
        Limit from the first byte sent to the last byte received. The limit for connecting is `CONNECT_TIMEOUT_S`.
    most_bytes
        Maximum length of the body of a successful answer, after decompression.
    body
        If it is given, the request is a POST with this body.

    Raises
    ------
    TemporaryFailure
        If there is no answer, but a retry may succeed.
    PermanentFailure
        If there is no answer, and a retry would fail, too.
    ConfigError
        If the environment names certificates or a proxy that cannot be used.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise PermanentFailure("its address is not valid", "Correct the address") from None
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""))
    all_headers = {"Accept-Encoding": "identity", **_own_credentials(parts), **headers}
    try:
        with time_limit(timeout_s) as left_s:
            try:
                return _send_once(bare, all_headers, left_s, most_bytes, body)
            except urllib3.exceptions.ProtocolError as error:
                if not was_stale(error):
                    raise
            # The server closed an idle connection just before this request. Send the request once more.
            return _send_once(bare, all_headers, left_s, most_bytes, body)
    except (urllib3.exceptions.HTTPError, OSError, ValueError, http.client.HTTPException) as error:
        raise _failure(error, bare, timeout_s) from None


def _send_once(url: str, headers: Mapping[str, str], left_s: float, most_bytes: int, body: bytes | None) -> Answer:
    if left_s <= 0:
        raise TimeoutError("timed out")
    proxy, authorities = proxy_for(url), certificates()
    needs_tls = url.startswith("https:") or (proxy or "").lower().startswith("https:")
    answer = connections(proxy, authorities if needs_tls else None).request(
        "GET" if body is None else "POST", url, body=body, headers=headers,
        preload_content=False, redirect=False, retries=False,
        timeout=urllib3.Timeout(connect=min(CONNECT_TIMEOUT_S, left_s), read=left_s),
    )  # fmt: skip
    try:
        return _read_answer(answer, url, most_bytes, headers)
    finally:
        # The connection stays open if the answer was read completely.
        answer.close()


def _read_answer(answer: urllib3.BaseHTTPResponse, url: str, most_bytes: int, headers: Mapping[str, str]) -> Answer:
    known_servers().add(urlsplit(url).netloc)
    is_good = 200 <= answer.status < 300
    # A server that ignores ranges sends the complete file.
    is_whole_file = is_good and "Range" in headers and answer.status != 206
    most = 0 if is_whole_file else most_bytes if is_good else _MOST_OF_REFUSAL_BYTES
    try:
        body = _read_body(answer, most, decompress=headers["Accept-Encoding"] != "identity")
    except (urllib3.exceptions.HTTPError, OSError):
        if is_good:
            raise
        body = b""
    return Answer(answer.status, answer.headers, body)


def _read_body(answer: urllib3.BaseHTTPResponse, most_bytes: int, decompress: bool) -> bytes:
    if not decompress:
        return answer.read(most_bytes, decode_content=False) if most_bytes else b""
    # Read in pieces: a few compressed bytes may expand to gigabytes.
    body = bytearray()
    while len(body) < most_bytes and (piece := answer.read(min(_PIECE_BYTES, most_bytes), decode_content=True)):
        body += piece
    return bytes(body[:most_bytes])


@per_session()
def known_servers() -> set[str]:
    """Return the servers that have answered this process."""
    return set()


def _failure(error: Exception, url: str, timeout_s: float) -> TemporaryFailure | PermanentFailure:
    if isinstance(error, ValueError) and not isinstance(error, urllib3.exceptions.HTTPError):
        # Do not show the text of this error: it may contain a header with a key.
        return PermanentFailure(
            "its address or one of its headers contains characters that HTTP does not allow",
            "Correct the address, or the key in the environment",
        )
    found = diagnose(error, url, timeout_s)
    parts = urlsplit(url)
    is_unknown, is_plain = parts.netloc not in known_servers(), parts.scheme == "http" and not proxy_for(url)
    if is_unknown and is_plain and found.was_closed and _speaks_tls(parts.netloc, timeout_s):
        return PermanentFailure(f"{parts.netloc} speaks https only", "Write https:// in its address")
    if not found.may_pass:
        return PermanentFailure(found.problem, found.remedy)
    return TemporaryFailure(found.problem, remedy=found.remedy, is_unknown_server=is_unknown and found.is_first_contact)


@per_session(maxsize=64)
def _speaks_tls(server: str, timeout_s: float) -> bool:
    return speaks_tls(f"http://{server}", min(CONNECT_TIMEOUT_S, timeout_s))


def speaks_tls(url: str, timeout_s: float) -> bool:
    """Return whether the server of an http address supports TLS. It may then close plain connections at once."""
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


def _own_credentials(parts: SplitResult) -> dict[str, str]:
    if parts.username is None:
        return {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return urllib3.make_headers(basic_auth=pair)


def redirected(url: str, answer: Answer) -> str | None:
    """Return the target of a redirect, if it may be followed.

    Secrets of the previous address are not sent to another host. These are its user name and password, the parameters
    of its query, and the Referer header. A redirect from https to http is not followed.
    """
    location = answer.headers.get("Location")
    if answer.status not in REDIRECTS or not location:
        return None
    try:
        old, new = urlsplit(url), urlsplit(urljoin(url, location))
        is_same_server = (old.hostname, old.port or old.scheme) == (new.hostname, new.port or new.scheme)
        is_same_server = is_same_server or (
            old.hostname == new.hostname and (old.scheme, new.scheme) == ("http", "https")
        )
    except ValueError:
        return None
    if new.scheme not in ("http", "https") or not new.hostname or (old.scheme, new.scheme) == ("https", "http"):
        return None
    own = new.netloc.rpartition("@")[2]
    if is_same_server:
        user = old.netloc.rpartition("@")
        return urlunsplit(new._replace(netloc="".join((*user[:2], own))))
    secrets = set(old.query.split("&"))
    query = "&".join(word for word in new.query.split("&") if word not in secrets)
    return urlunsplit(new._replace(netloc=own, query=query))
