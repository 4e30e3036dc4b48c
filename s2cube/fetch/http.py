"""HTTP with retries and limits. A secret goes only to the host that it belongs to."""

import http.client
import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import SplitResult, unquote, urljoin, urlsplit, urlunsplit

import tenacity
import urllib3

from s2cube.fetch._network import certificates, diagnose, proxy_for, speaks_tls
from s2cube.fetch.connections import connections, limited, was_stale

BUSY = (408, 429, 500, 502, 503, 504)
"""Answers after which asking again may help (RFC 9110, RFC 6585)."""

CONNECT_TIMEOUT_S = 10
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30
_LONGEST_ASKED_S = 120
"""So long a server may ask us to stay away; who wants longer is asked again in the next run."""

_RETRIES_OF_STRANGERS = 1
"""Retries of a server that cannot be reached and has never answered this process."""

_MOST_OF_REFUSAL_BYTES = 1 << 16
"""Bytes to read of an answer that is an error or a redirect: enough for its reason, and to keep the connection."""

_PIECE_BYTES = 1 << 16

REDIRECTS = (301, 302, 303, 307, 308)


class Passing(Exception):
    """A failure that another try may not have.

    Parameters
    ----------
    pause_s
        Pause that the server asks for, seconds.
    is_stranger
        The server cannot be reached, and has never answered this process.
    most_retries
        Maximum number of retries; None for the usual number.
    """

    def __init__(
        self,
        problem: str,
        pause_s: float | None = None,
        remedy: str = "",
        is_stranger: bool = False,
        most_retries: int | None = None,
    ) -> None:
        super().__init__(problem)
        self.pause_s = pause_s
        self.remedy = remedy
        self.is_stranger = is_stranger
        self.most_retries = _RETRIES_OF_STRANGERS if is_stranger else most_retries


class Lasting(Exception):
    """A failure that another try would have, too."""

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem)
        self.remedy = remedy


def patience(retries: int) -> tenacity.Retrying:
    """Call a function until it raises no `Passing`, with growing pauses; the last one is raised."""

    def is_over(state: tenacity.RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        most = error.most_retries if isinstance(error, Passing) else None
        return state.attempt_number > (retries if most is None else min(retries, most))

    return tenacity.Retrying(
        stop=is_over, retry=tenacity.retry_if_exception(_is_worth_waiting_for), wait=_pause, reraise=True
    )


def _is_worth_waiting_for(error: BaseException) -> bool:
    return isinstance(error, Passing) and (error.pause_s or 0) <= _LONGEST_ASKED_S


def _pause(state: tenacity.RetryCallState) -> float:
    # Not all at the same moment again.
    grown = min(_FIRST_PAUSE_S * 2 ** (state.attempt_number - 1), _LONGEST_PAUSE_S) * random.uniform(1, 1.5)
    error = state.outcome.exception() if state.outcome else None
    asked_s = error.pause_s if isinstance(error, Passing) else None
    return float(max(grown, asked_s or 0))


def busy(status: int, pause_s: float | None) -> Passing:
    """Say that a server is busy, and how long it wants to be left alone."""
    told = f", and asks to wait {pause_s:.0f} s" if pause_s else ""
    return Passing(f"answers {status}{told}", pause_s)


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


def ask(url: str, headers: Mapping[str, str], timeout_s: float, most_bytes: int) -> Answer:
    """Do as `exchange`, without a body; a busy server is an error.

    Raises
    ------
    Passing
        If there is no answer, or the server is busy.
    Lasting, ConfigError
        As `exchange`.
    """
    answer = exchange(url, headers, timeout_s, most_bytes)
    if answer.status in BUSY:
        raise busy(answer.status, answer.pause_s)
    return answer


def exchange(
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
    Passing
        If there is no answer, but another try may get one.
    Lasting
        If there is no answer, and another try would not get one.
    ConfigError
        If the environment names certificates or a proxy that cannot be used.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise Lasting("its address cannot be read", "Correct the address") from None
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""))
    whole = {"Accept-Encoding": "identity", **_own_credentials(parts), **headers}
    try:
        with limited(timeout_s) as left_s:
            try:
                return _exchanged(bare, whole, left_s, most_bytes, body)
            except urllib3.exceptions.ProtocolError as error:
                if not was_stale(error):
                    raise
            # The server closed a kept connection just when it was used again: that is no failure.
            return _exchanged(bare, whole, left_s, most_bytes, body)
    except (urllib3.exceptions.HTTPError, OSError, ValueError, http.client.HTTPException) as error:
        raise _judged(error, bare, timeout_s) from None


def _exchanged(url: str, headers: Mapping[str, str], left_s: float, most_bytes: int, body: bytes | None) -> Answer:
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
    _KNOWN.add(urlsplit(url).netloc)
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


_KNOWN: set[str] = set()
"""Hosts that have answered this process."""


def _judged(error: Exception, url: str, timeout_s: float) -> Passing | Lasting:
    if isinstance(error, ValueError) and not isinstance(error, urllib3.exceptions.HTTPError):
        # Its text may hold a header, and so a key.
        return Lasting(
            "its address, or a header that goes with it, has characters that HTTP does not allow",
            "Correct the address, or the key in the environment",
        )
    trouble = diagnose(error, url, timeout_s)
    parts = urlsplit(url)
    stranger = parts.netloc not in _KNOWN
    closed = trouble.problem.endswith("without an answer")
    if stranger and closed and parts.scheme == "http" and not proxy_for(url) and _speaks_tls(parts.netloc, timeout_s):
        return Lasting(f"{parts.netloc} speaks https only", "Write https:// in its address")
    if not trouble.may_pass:
        return Lasting(trouble.problem, trouble.remedy)
    return Passing(trouble.problem, remedy=trouble.remedy, is_stranger=stranger and trouble.is_first_contact)


@lru_cache(maxsize=64)
def _speaks_tls(server: str, timeout_s: float) -> bool:
    return speaks_tls(f"http://{server}", min(CONNECT_TIMEOUT_S, timeout_s))


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
