"""HTTP with retries and limits. A secret goes only to the host that it belongs to."""

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
"""Bytes to read of an answer that is an error or a redirect: enough for its reason, and to keep the connection."""

_PIECE_BYTES = 1 << 16

REDIRECTS = (301, 302, 303, 307, 308)


@dataclass(frozen=True)
class Answer:
    """The answer of a server, with no more of the body than requested."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def is_good(self) -> bool:
        """Whether the request succeeded."""
        return 200 <= self.status < 300

    @property
    def pause_s(self) -> float | None:
        """Pause that the server asks for, seconds; None if it asks for none."""
        asked = self.headers.get("Retry-After")
        try:
            return urllib3.Retry().parse_retry_after(asked) if asked else None
        except urllib3.exceptions.InvalidHeader:
            return None


def http_get(url: str, headers: Mapping[str, str], timeout_s: float, most_bytes: int) -> Answer:
    """Get an answer as `send_request` does, without a body; a busy server is an error.

    Raises
    ------
    TemporaryFailure
        If there is no answer, or the server is busy.
    PermanentFailure, ConfigError
        As `send_request`.
    """
    answer = send_request(url, headers, timeout_s, most_bytes)
    if answer.status in BUSY:
        raise busy(answer.status, answer.pause_s)
    return answer


def send_request(
    url: str, headers: Mapping[str, str], timeout_s: float, most_bytes: int, body: bytes | None = None
) -> Answer:
    """Get an answer of any status, within a total time. A redirect is an answer, and is not followed: see `redirected`.

    Parameters
    ----------
    url
        A user name and a password in it are sent to its host.
    headers
        With Accept-Encoding, the body is unpacked.
    timeout_s
        From the first byte sent to the last byte received; connecting takes at most `CONNECT_TIMEOUT_S`.
    most_bytes
        How many bytes to read of the body of a good answer, unpacked.
    body
        Sent by POST.

    Raises
    ------
    TemporaryFailure
        If there is no answer, but another try may get one.
    PermanentFailure
        If there is no answer, and another try would not get one.
    ConfigError
        If the environment names certificates or a proxy that cannot be used.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise PermanentFailure("its address cannot be read", "Correct the address") from None
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""))
    whole = {"Accept-Encoding": "identity", **_own_credentials(parts), **headers}
    try:
        with time_limit(timeout_s) as left_s:
            try:
                return _sent(bare, whole, left_s, most_bytes, body)
            except urllib3.exceptions.ProtocolError as error:
                if not was_stale(error):
                    raise
            # The server closed a kept connection just when it was used again: that is no failure.
            return _sent(bare, whole, left_s, most_bytes, body)
    except (urllib3.exceptions.HTTPError, OSError, ValueError, http.client.HTTPException) as error:
        raise _failure(error, bare, timeout_s) from None


def _sent(url: str, headers: Mapping[str, str], left_s: float, most_bytes: int, body: bytes | None) -> Answer:
    if left_s <= 0:
        raise TimeoutError("timed out")
    answer = connections(proxy_for(url), certificates()).request(
        "GET" if body is None else "POST", url, body=body, headers=headers,
        preload_content=False, redirect=False, retries=False,
        timeout=urllib3.Timeout(connect=min(CONNECT_TIMEOUT_S, left_s), read=left_s),
    )  # fmt: skip
    try:
        return _read(answer, url, most_bytes, headers)
    finally:
        # The connection is kept if the answer was read completely.
        answer.close()


def _read(answer: urllib3.BaseHTTPResponse, url: str, most_bytes: int, headers: Mapping[str, str]) -> Answer:
    known_servers().add(urlsplit(url).netloc)
    is_good = 200 <= answer.status < 300
    # A server that ignores ranges sends the whole file.
    is_whole_file = is_good and "Range" in headers and answer.status != 206
    most = 0 if is_whole_file else most_bytes if is_good else _MOST_OF_REFUSAL_BYTES
    try:
        body = _body(answer, most, unpack=headers["Accept-Encoding"] != "identity")
    except (urllib3.exceptions.HTTPError, OSError):
        if is_good:
            raise
        body = b""
    return Answer(answer.status, answer.headers, body)


def _body(answer: urllib3.BaseHTTPResponse, most_bytes: int, unpack: bool) -> bytes:
    if not unpack:
        return answer.read(most_bytes, decode_content=False) if most_bytes else b""
    # In pieces: a few bytes may unpack to gigabytes.
    body = bytearray()
    while len(body) < most_bytes and (piece := answer.read(min(_PIECE_BYTES, most_bytes), decode_content=True)):
        body += piece
    return bytes(body[:most_bytes])


@per_session()
def known_servers() -> set[str]:
    """Give the servers that have answered this process."""
    return set()


def _failure(error: Exception, url: str, timeout_s: float) -> TemporaryFailure | PermanentFailure:
    if isinstance(error, ValueError) and not isinstance(error, urllib3.exceptions.HTTPError):
        # Its text may hold a header, and so a key.
        return PermanentFailure(
            "its address, or a header that goes with it, has characters that HTTP does not allow",
            "Correct the address, or the key in the environment",
        )
    found = diagnose(error, url, timeout_s)
    parts = urlsplit(url)
    unknown, plain = parts.netloc not in known_servers(), parts.scheme == "http" and not proxy_for(url)
    if unknown and plain and found.was_closed and _speaks_tls(parts.netloc, timeout_s):
        return PermanentFailure(f"{parts.netloc} speaks https only", "Write https:// in its address")
    if not found.may_pass:
        return PermanentFailure(found.problem, found.remedy)
    return TemporaryFailure(found.problem, remedy=found.remedy, is_unknown_server=unknown and found.is_first_contact)


@per_session(maxsize=64)
def _speaks_tls(server: str, timeout_s: float) -> bool:
    return speaks_tls(f"http://{server}", min(CONNECT_TIMEOUT_S, timeout_s))


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


def _own_credentials(parts: SplitResult) -> dict[str, str]:
    if parts.username is None:
        return {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return urllib3.make_headers(basic_auth=pair)


def redirected(url: str, answer: Answer) -> str | None:
    """Give the target of a redirect, if it may be followed.

    Another host receives none of the secrets of the previous address: no Referer, user name or password, and no
    parameter of its query. A redirect from https to http is not followed.
    """
    location = answer.headers.get("Location")
    if answer.status not in REDIRECTS or not location:
        return None
    try:
        old, new = urlsplit(url), urlsplit(urljoin(url, location))
        same = (old.hostname, old.port or old.scheme) == (new.hostname, new.port or new.scheme)
        same = same or (old.hostname == new.hostname and (old.scheme, new.scheme) == ("http", "https"))
    except ValueError:
        return None
    if new.scheme not in ("http", "https") or not new.hostname or (old.scheme, new.scheme) == ("https", "http"):
        return None
    own = new.netloc.rpartition("@")[2]
    if same:
        user = old.netloc.rpartition("@")
        return urlunsplit(new._replace(netloc="".join((*user[:2], own))))
    secrets = set(old.query.split("&"))
    query = "&".join(word for word in new.query.split("&") if word not in secrets)
    return urlunsplit(new._replace(netloc=own, query=query))
