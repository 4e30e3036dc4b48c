"""HTTP, patiently; and with secrets to the host that they are for, and to no other."""

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import tenacity
import urllib3

if TYPE_CHECKING:
    import requests

BUSY = (408, 429, 500, 502, 503, 504)
"""Answers after which asking again may help (RFC 9110, RFC 6585)."""

CONNECT_TIMEOUT_S = 10
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30
_LONGEST_ASKED_S = 120
"""So long a server may ask us to stay away; who wants longer is asked again in the next run."""

_PIECE_BYTES = 1 << 18
_HOSTS, _CONNECTIONS = 16, 64
"""Kept open: more than `shelf` has fetchers."""


class Passing(Exception):
    """What may pass: asked again, it may be well."""

    def __init__(self, problem: str, pause_s: float | None = None) -> None:
        super().__init__(problem)
        self.pause_s = pause_s


def patience(retries: int) -> tenacity.Retrying:
    """Call a function until it raises no `Passing`, with growing pauses; the last one is raised."""
    return tenacity.Retrying(
        stop=tenacity.stop_after_attempt(retries + 1),
        retry=tenacity.retry_if_exception(_is_worth_waiting_for),
        wait=_pause,
        reraise=True,
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
    """What a server answers, and of the body no more than was asked for; it is not busy."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def ask(url: str, headers: Mapping[str, str], timeout_s: float, most_bytes: int) -> Answer:
    """Get an answer. A redirection is one, and is not followed.

    Where obstore follows one it tells the next host, as Referer, the address it came from, with the token in it.

    Raises
    ------
    Passing
        If there is none, or the server is busy.
    """
    import requests

    end_s = time.monotonic() + timeout_s
    body = bytearray()
    try:
        with _session().get(
            url,
            headers={"Accept-Encoding": "identity", **headers},
            timeout=(min(CONNECT_TIMEOUT_S, timeout_s), timeout_s),
            allow_redirects=False,
            stream=True,
        ) as answer:
            if answer.status_code in BUSY:
                asked = answer.headers.get("Retry-After")
                raise busy(answer.status_code, urllib3.Retry().parse_retry_after(asked) if asked else None)
            while len(body) < most_bytes and (piece := answer.raw.read(min(_PIECE_BYTES, most_bytes - len(body)))):
                body += piece
                if time.monotonic() > end_s:
                    raise Passing(f"takes longer than {timeout_s:g} s")
            return Answer(answer.status_code, answer.headers, bytes(body))
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        # Its text holds the address.
        raise Passing(f"no answer: {type(error).__name__}") from None


@lru_cache(maxsize=1)
def _session() -> "requests.Session":
    import requests
    from requests.adapters import HTTPAdapter

    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(_HOSTS, _CONNECTIONS))
    # Else it looks for a password in ~/.netrc.
    session.auth = lambda request: request
    return session
