"""Why a catalogue gives no good answer: the cause, the remedy, and how often to ask again."""

import json
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass

import requests
import urllib3

from s2cube.errors import SearchError
from s2cube.web import BUSY

RETRIES = 5
"""After answers of a busy server, and connections that break."""
_RETRIES_UNREACHED = 2
"""After connections that cannot be made: whoever is away for longer is not back within a minute."""
_RETRIES_SLOW = 1
"""After an answer that takes longer than the timeout: that is long enough already."""

_NO_SUCH_HOST = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}
_LATER = "Try again later"
_SHOWN_CHARACTERS = 200
"""So much of what a server says of an error is shown."""


@dataclass(eq=False)
class AnswerError(SearchError):
    """A catalogue on the network refuses, or does not answer.

    Parameters
    ----------
    status
        HTTP status; 0 where there is no whole answer.
    """

    status: int = 0


class Passing(Exception):
    """An error that may be gone when the same is asked again.

    Parameters
    ----------
    retries
        So often at most.
    pause_s
        So long the server wants to be left alone, seconds.
    """

    def __init__(self, error: AnswerError, retries: int, pause_s: float = 0) -> None:
        super().__init__(error.problem)
        self.error, self.retries, self.pause_s = error, retries, pause_s


def refusal(address: str, answer: requests.Response, text: bytes, retries: int = RETRIES) -> AnswerError | Passing:
    """Make an error of an answer that is not 2xx.

    Parameters
    ----------
    text
        The beginning of its body.
    retries
        After 500, 502 and 504, which may be due to what was asked for.
    """
    status = answer.status_code
    reason = _reason(text)
    error = AnswerError(
        address, f"answers {status}" + (f" ({reason})" if reason else ""), _remedy(status), status=status
    )
    if status not in BUSY:
        return error
    return Passing(error, retries if status in (500, 502, 504) else RETRIES, _asked_pause_s(answer))


def too_slow(address: str, timeout_s: float) -> Passing:
    """Make an error of an answer that takes longer than the timeout."""
    problem = f"does not answer wholly within {timeout_s:g} s"
    return Passing(AnswerError(address, problem, f"{_LATER}, or raise --timeout"), _RETRIES_SLOW)


def no_answer(address: str, error: Exception) -> AnswerError | Passing:
    """Make an error of what is raised where there is no whole answer; its text may hold the address, with secrets."""
    for cause in _chain(error):
        match cause:
            case ssl.SSLCertVerificationError():
                reason = f"its certificate is not trusted: {cause.verify_message}"
                remedy = "Check --stac, and REQUESTS_CA_BUNDLE where your network has certificates of its own"
                return _silent(address, reason, remedy)
            case ssl.SSLEOFError():
                return Passing(_silent(address, "the connection breaks off", _LATER), RETRIES)
            case ssl.SSLError():
                return _silent(address, f"no secure connection: {cause.reason or 'unknown'}", "Check --stac: https?")
            case socket.gaierror() if cause.errno in _NO_SUCH_HOST:
                return _silent(address, "there is no such host", "Check --stac and the network")
            case ConnectionRefusedError():
                error_ = _silent(address, "it refuses the connection", "Check --stac and the network")
                return Passing(error_, _RETRIES_UNREACHED)
            case requests.exceptions.ProxyError():
                error_ = _silent(address, "the proxy does not connect", "Check HTTP_PROXY, HTTPS_PROXY and NO_PROXY")
                return Passing(error_, _RETRIES_UNREACHED)
    match error:
        case requests.exceptions.ChunkedEncodingError() | urllib3.exceptions.HTTPError():
            return Passing(AnswerError(address, "breaks off its answer", _LATER), RETRIES)
        case requests.exceptions.ConnectTimeout() | socket.gaierror():
            return Passing(_silent(address, "it cannot be reached", "Check --stac and the network"), _RETRIES_UNREACHED)
        case requests.exceptions.ConnectionError() | OSError() if not isinstance(error, ValueError):
            return Passing(_silent(address, "the connection breaks off", _LATER), RETRIES)
    return AnswerError(address, "is no address that can be read by http or https", "Check --stac")


def _silent(address: str, reason: str, remedy: str) -> AnswerError:
    return AnswerError(address, f"does not answer ({reason})", remedy)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Give an error and what it was made of, as requests and urllib3 wrap one in another."""
    pending: list[object] = [error]
    seen: list[object] = []
    while pending:
        each = pending.pop(0)
        if isinstance(each, BaseException) and each not in seen:
            seen.append(each)
            yield each
            pending += [getattr(each, "reason", None), each.__cause__, each.__context__, *each.args]


def _remedy(status: int) -> str:
    match status:
        case 401 | 403 | 407:
            return "Ask whoever runs the catalogue for access; a user and password are taken from ~/.netrc"
        case 404 | 405 | 410 | 501:
            return "Check --stac"
        case 413 | 414 | 431:
            return "Give a simpler --aoi"
        case _ if status in BUSY or status >= 500:
            return _LATER
        case _ if status >= 400:
            return "Check --stac, --collection, --datetime and --aoi"
    return "Check --stac"


def _reason(text: bytes) -> str:
    """Give what a server says of an error, in a line; nothing of a page for browsers."""
    said: object = text.decode("utf-8", "replace")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if isinstance(content, dict):
        words = (content.get(key) for key in ("description", "detail", "message", "title"))
        said = next((each for each in words if each), said)
    line = " ".join((said if isinstance(said, str) else json.dumps(said)).split())
    if line.startswith("<"):
        return ""
    line = "".join(each if each.isprintable() else "�" for each in line)
    return line if len(line) <= _SHOWN_CHARACTERS else f"{line[:_SHOWN_CHARACTERS]}…"


def _asked_pause_s(answer: requests.Response) -> float:
    asked = answer.headers.get("Retry-After")
    try:
        return max(0.0, urllib3.Retry().parse_retry_after(asked)) if asked else 0
    except urllib3.exceptions.InvalidHeader:
        return 0
