"""Documents of a catalogue are read: patiently, and within bounds of time, size and redirects."""

import logging
import random
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit

import requests
import tenacity
import urllib3

from s2cube.document import Document, is_on_web, local_path
from s2cube.errors import SearchError
from s2cube.refusal import RETRIES, AnswerError, Passing, no_answer, refusal, too_slow
from s2cube.web import CONNECT_TIMEOUT_S

log = logging.getLogger(__name__)

_Value = TypeVar("_Value")

TIMEOUT_S = 60
"""The whole of an answer may take so long; as `[read] timeout`."""
MOST_BYTES = 128 << 20
"""Of an answer, unpacked. A hundred items of Copernicus Data Space are 6.5 MB, the largest page seen; JSON takes five
to twenty times its size in memory."""
_MOST_BYTES_OF_REASON = 4096
_PIECE_BYTES = 1 << 16
_MOST_REDIRECTS = 10
_BACKOFF_S = 0.5
_LONGEST_BACKOFF_S = 60
_WITH_BODY = ("POST", "PUT", "PATCH")


@dataclass(frozen=True)
class Request:
    """What is asked of a server.

    Parameters
    ----------
    parameters
        The JSON body of a POST, or the query of a GET.
    """

    address: str
    method: str = "GET"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


def is_same_server(address: str, target: str) -> bool:
    """Tell whether what may be asked at one address may be asked at another: same host, and no less safe."""
    try:
        one, other = urlsplit(address), urlsplit(target)
        if one.hostname != other.hostname:
            return False
        return (one.scheme, _port(one)) == (other.scheme, _port(other)) or (one.scheme, other.scheme) == (
            "http", "https",
        )  # fmt: skip
    except ValueError:
        return False


def as_safe(address: str, target: str) -> str:
    """Give a target by https, where its own server is asked by https: servers behind a proxy often write http."""
    if urlsplit(address).scheme == "https" and urlsplit(target).scheme == "http":
        upgraded = urlsplit(target)._replace(scheme="https").geturl()
        if is_same_server(address, upgraded):
            return upgraded
    return target


def _port(parts: Any) -> int | None:
    return parts.port or {"http": 80, "https": 443}.get(parts.scheme)


class _Session(requests.Session):
    """A session that leaves redirects to us: requests reads the whole body of each, even when told not to follow."""

    def resolve_redirects(self, *_: Any, **__: Any) -> Iterator[Any]:
        return iter(())


class CatalogueIO:
    """Reads what a catalogue holds.

    Answers of busy servers and connections that break are asked for again, with growing pauses and as `Retry-After`
    says. What fails for good is a `SearchError` that says what to do.

    Parameters
    ----------
    timeout_s
        For a whole answer with its redirects, seconds.
    """

    def __init__(self, timeout_s: float = TIMEOUT_S) -> None:
        self.timeout_s = timeout_s
        self.session = _Session()

    def read(self, request: Request, retries: int = RETRIES) -> Document:
        """Read a document from the network or this machine.

        Parameters
        ----------
        retries
            After answers 500, 502 and 504.

        Raises
        ------
        AnswerError
            If a server refuses, or gives no whole answer.
        SearchError
            If a file cannot be read, or what comes is no JSON object.
        """
        if not is_on_web(request.address):
            return Document.parse(request.address, _read_file(request.address))
        return Document.parse(*self._patiently(request, retries))

    def _patiently(self, request: Request, retries: int) -> tuple[str, bytes]:
        asking = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Passing), stop=_is_often_enough, wait=_pause, reraise=True
        )
        try:
            return asking(self._once, request, retries)
        except Passing as passing:
            raise passing.error from None

    def _once(self, request: Request, retries: int) -> tuple[str, bytes]:
        end_s = time.monotonic() + self.timeout_s
        try:
            answer = _within(self.timeout_s, lambda: self._fetch(request, end_s))
        except (TimeoutError, requests.exceptions.ReadTimeout, urllib3.exceptions.ReadTimeoutError):
            raise too_slow(request.address, self.timeout_s) from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise no_answer(request.address, error) from None
        address, response, body = answer
        if _is_good(response):
            return address, body
        raise refusal(address, response, body, retries)

    def _fetch(self, request: Request, end_s: float) -> tuple[str, requests.Response, bytes]:
        for _ in range(_MOST_REDIRECTS + 1):
            log.debug("%s %s", request.method, request.address)
            with self._send(request) as response:
                target = self.session.get_redirect_target(response)
                if target is None:
                    most = MOST_BYTES if _is_good(response) else _MOST_BYTES_OF_REASON
                    return response.url, response, _body(response, most, end_s)
                request = _redirected(request, response, target)
        raise AnswerError(request.address, f"redirects more than {_MOST_REDIRECTS} times", "Check --stac")

    def _send(self, request: Request) -> requests.Response:
        kind = "json" if request.method in _WITH_BODY else "params"
        content: dict[str, Any] = {kind: dict(request.parameters)} if request.parameters else {}
        return self.session.request(
            request.method, request.address, headers=dict(request.headers), stream=True, allow_redirects=False,
            timeout=(min(CONNECT_TIMEOUT_S, self.timeout_s), self.timeout_s), **content,
        )  # fmt: skip


def _is_good(response: requests.Response) -> bool:
    return 200 <= response.status_code < 300


def _redirected(request: Request, response: requests.Response, target: str) -> Request:
    """Give what is asked for where a redirect leads to.

    A POST goes on with its question: requests would send a GET without one, as browsers do. That may be to the same
    server only, for what a catalogue on the network says must not reach others that trust this machine.
    """
    address = urljoin(response.url, target)
    if request.method in _WITH_BODY:
        if response.status_code == 303 or not is_same_server(response.url, address):
            where = "an answer to another question" if response.status_code == 303 else "another server"
            raise AnswerError(
                request.address, f"redirects a search to {where}, {address[:200]} ({response.status_code})",
                "Check --stac: give the address that it redirects to", status=response.status_code,
            )  # fmt: skip
        return replace(request, address=address)
    if not is_on_web(address):
        raise AnswerError(request.address, f"redirects to {address[:200]}, which is not http", "Check --stac")
    headers = request.headers if is_same_server(response.url, address) else {}
    return Request(address, request.method, headers=headers)


def _body(response: requests.Response, most_bytes: int, end_s: float) -> bytes:
    """Read a body as it comes, unpacked; of an error no more than its beginning."""
    body = bytearray()
    # Not `read`: it waits until it has as many bytes as it is asked for.
    while piece := response.raw.read1(_PIECE_BYTES, decode_content=True):
        body += piece
        if time.monotonic() > end_s:
            raise TimeoutError
        if len(body) > most_bytes:
            if not _is_good(response):
                break
            raise AnswerError(
                response.url, f"answers more than {most_bytes >> 20} MB",
                "Ask for less; or save it as a file, which may be of any size, and give its path by --stac",
            )  # fmt: skip
    return bytes(body)


def _within(seconds: float, call: Callable[[], _Value]) -> _Value:
    """Call a function in a thread, and wait no longer than that: a server may send its headers byte by byte."""
    outcome: Future[_Value] = Future()

    def run() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:  # noqa: BLE001  it belongs to who waits
            outcome.set_exception(error)

    threading.Thread(target=run, name="s2cube-catalogue", daemon=True).start()
    return outcome.result(seconds)


def _is_often_enough(state: tenacity.RetryCallState) -> bool:
    error = state.outcome.exception() if state.outcome else None
    return isinstance(error, Passing) and state.attempt_number > error.retries


def _pause(state: tenacity.RetryCallState) -> float:
    # Not all at the same moment again.
    grown = _BACKOFF_S * 2 ** (state.attempt_number - 1) * random.uniform(1, 1.5)
    error = state.outcome.exception() if state.outcome else None
    asked_s = error.pause_s if isinstance(error, Passing) else 0
    return float(min(max(grown, asked_s), _LONGEST_BACKOFF_S))


def check_file(address: str) -> Path:
    """Find a regular file of this machine; a device or a pipe may never end.

    Raises
    ------
    SearchError
        If it is none.
    """
    path = local_path(address)
    if path is None:
        raise SearchError(
            address, "is neither a file nor http or https", "Check --stac: download it, and give its path"
        )
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError) as error:
        raise _unreadable(address, error) from None
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a device or a pipe"
        raise SearchError(address, f"is {kind}, not a file", "Give a file, as catalog.json, by --stac")
    return Path(path)


def _read_file(address: str) -> bytes:
    path = check_file(address)
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(address, error) from None


def _unreadable(address: str, error: OSError | ValueError) -> SearchError:
    return SearchError(address, f"cannot be read ({getattr(error, 'strerror', None) or error})", "Check --stac")
