"""Read the documents of a catalogue, with retries and with limits for time, size and redirects."""

import json
import logging
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

import urllib3

from s2cube.errors import SearchError
from s2cube.fetch import retry
from s2cube.fetch.addresses import is_local, local_path
from s2cube.fetch.connections import time_limit
from s2cube.fetch.http import REDIRECTS, Answer, redirected, send_request
from s2cube.fetch.retry import PermanentFailure, TemporaryFailure
from s2cube.stac._document import Document, is_on_web
from s2cube.stac._refusal import RETRIES, AnswerError, no_answer, refusal, slow

log = logging.getLogger(__name__)

TIMEOUT_S = 60
"""Time limit of a complete answer, seconds; the default of `[read] timeout`."""
MOST_BYTES = 128 << 20
"""Maximum size of an answer after decompression. The largest known page has 6.5 MB: 100 items of Copernicus Data Space.
In memory, JSON needs 5 to 20 times its size."""
_MOST_REDIRECTS = 10
_SHOWN_CHARACTERS = 200
_WITH_BODY = ("POST", "PUT", "PATCH")
_OWN_HEADERS = {
    "accept-encoding", "connection", "content-length", "content-type", "expect", "host", "range", "te",
    "transfer-encoding", "upgrade",
}  # fmt: skip
"""Headers that control how a request is sent. A link to the next page must not set them."""


@dataclass(frozen=True)
class Request:
    """A request to a server.

    Parameters
    ----------
    parameters
        The JSON body of a POST request, or the query of a GET request.
    """

    address: str
    method: str = "GET"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


def is_same_server(address: str, target: str) -> bool:
    """Check whether a target is on the same server: the same host, scheme and port, or https instead of http."""
    try:
        one, other = urlsplit(address), urlsplit(target)
        if one.hostname != other.hostname:
            return False
        return (one.scheme, _port(one)) == (other.scheme, _port(other)) or (one.scheme, other.scheme) == (
            "http", "https",
        )  # fmt: skip
    except ValueError:
        return False


def keep_https(address: str, target: str) -> str:
    """Change a target to https if the same server was reached by https. Servers behind a proxy often write http."""
    if urlsplit(address).scheme == "https" and urlsplit(target).scheme == "http":
        upgraded = urlsplit(target)._replace(scheme="https").geturl()
        if is_same_server(address, upgraded):
            return upgraded
    return target


def _port(parts: Any) -> int | None:
    return parts.port or {"http": 80, "https": 443}.get(parts.scheme)


class CatalogueIO:
    """Reads the documents of a catalogue.

    Requests are retried after answers of busy servers and after broken connections. The pauses become longer and follow
    `Retry-After`. A permanent failure is a `SearchError` with a remedy.

    Parameters
    ----------
    timeout_s
        Time limit of a complete answer with its redirects, seconds.
    """

    def __init__(self, timeout_s: float = TIMEOUT_S) -> None:
        self.timeout_s = timeout_s

    def read(self, request: Request, retries: int = RETRIES) -> Document:
        """Read a document from the network or this machine.

        Parameters
        ----------
        retries
            Number of retries after answers 500, 502 and 504.

        Raises
        ------
        AnswerError
            If a server refuses the request, or does not return a complete answer.
        SearchError
            If a file cannot be read, or the document is not a JSON object.
        """
        if not is_on_web(request.address):
            return Document.parse(request.address, _read_file(request.address))
        try:
            return Document.parse(*retry.REQUESTS.retrying(RETRIES)(self._read_once, request, retries))
        except (TemporaryFailure, PermanentFailure) as error:
            raise no_answer(request.address, error) from None

    def _read_once(self, request: Request, retries: int) -> tuple[str, bytes]:
        """Send a request once and follow redirects. The timeout applies to all of them together."""
        end_s = time.monotonic() + self.timeout_s
        try:
            with time_limit(self.timeout_s):
                return self._follow_redirects(request, retries)
        except TemporaryFailure as error:
            raise (slow(error) if time.monotonic() >= end_s else error) from None
        except ValueError:
            raise PermanentFailure("its address is not valid", "Check --stac") from None

    def _follow_redirects(self, request: Request, retries: int) -> tuple[str, bytes]:
        current = request
        for _ in range(_MOST_REDIRECTS + 1):
            log.debug("%s %s", current.method, current.address)
            answer = _send(current, self.timeout_s)
            if answer.is_good and len(answer.body) > MOST_BYTES:
                raise AnswerError(
                    current.address, f"returns more than {MOST_BYTES >> 20} MB",
                    "Request less; or save the answer as a file, which may have any size, and set its path by --stac",
                )  # fmt: skip
            if answer.is_good:
                return current.address, answer.body
            target = answer.headers.get("Location")
            if answer.status not in REDIRECTS or not target:
                raise refusal(current.address, answer, retries)
            current = _redirected(current, answer, target)
        raise AnswerError(request.address, f"redirects more than {_MOST_REDIRECTS} times", "Check --stac")


def _send(request: Request, timeout_s: float) -> Answer:
    """Send a request. User and password come from the address, or from ~/.netrc."""
    from requests.utils import get_netrc_auth

    linked = {name: value for name, value in request.headers.items() if name.lower() not in _OWN_HEADERS}
    headers = {"Accept": "*/*", "Accept-Encoding": "gzip, deflate", **linked}
    if "@" not in urlsplit(request.address).netloc and (login := get_netrc_auth(request.address)):
        headers = {**urllib3.make_headers(basic_auth=":".join(login)), **headers}
    if request.method in _WITH_BODY:
        headers["Content-Type"] = "application/json"
        body = json.dumps(dict(request.parameters)).encode()
        return send_request(request.address, headers, timeout_s, MOST_BYTES + 1, body)
    address = request.address
    if request.parameters:
        address += ("&" if urlsplit(address).query else "?") + urlencode(request.parameters)
    return send_request(address, headers, timeout_s, MOST_BYTES + 1)


def _redirected(request: Request, answer: Answer, target: str) -> Request:
    """Return the request for the target of a redirect.

    A POST request is sent again as a POST request (browsers send GET instead). It is only sent to the same server: a
    catalogue on the network must not send its text to other servers that trust this machine.
    """
    try:
        address = keep_https(request.address, urljoin(request.address, target))
    except ValueError:
        address = target
    shown = address[:_SHOWN_CHARACTERS]
    if request.method in _WITH_BODY:
        if answer.status == 303 or not is_same_server(request.address, address):
            other = "a GET request" if answer.status == 303 else "another server"
            raise AnswerError(
                request.address, f"redirects a search to {other}, {shown} ({answer.status})",
                "Check --stac: set the address that it redirects to", status=answer.status,
            )  # fmt: skip
        return replace(request, address=address)
    followed = redirected(request.address, replace(answer, headers={"Location": address}))
    if followed is None:
        raise AnswerError(
            request.address, f"redirects to {shown}, which is not an http or https address, or is less secure",
            "Check --stac",
        )  # fmt: skip
    headers = request.headers if is_same_server(request.address, followed) else {}
    return Request(followed, request.method, headers=headers)


def check_file(address: str) -> Path:
    """Check that an address is a regular file on this machine, and return its path. A device or a pipe may never end.

    Raises
    ------
    SearchError
        If the address is not a regular file.
    """
    if not is_local(address):
        raise SearchError(
            address, "is neither a file nor an http or https address", "Check --stac: download it, and set its path"
        )
    path = local_path(address)
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError) as error:
        raise _unreadable(address, error) from None
    if not stat.S_ISREG(mode):
        file_type = "a folder" if stat.S_ISDIR(mode) else "a device or a pipe"
        raise SearchError(address, f"is {file_type}, not a file", "Set a file, such as catalog.json, by --stac")
    return Path(path)


def _read_file(address: str) -> bytes:
    path = check_file(address)
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(address, error) from None


def _unreadable(address: str, error: OSError | ValueError) -> SearchError:
    return SearchError(address, f"cannot be read ({getattr(error, 'strerror', None) or error})", "Check --stac")
