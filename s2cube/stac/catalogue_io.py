"""Read the documents of a catalogue: with retries, and with limits of time, size and redirects."""

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
from requests.utils import get_netrc_auth

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
"""Limit for a complete answer, seconds; as `[read] timeout`."""
MOST_BYTES = 128 << 20
"""Limit for an answer, unpacked. A hundred items of Copernicus Data Space, the largest page seen, are 6.5 MB. In
memory, JSON takes five to twenty times its size."""
_MOST_REDIRECTS = 10
_SHOWN_CHARACTERS = 200
_WITH_BODY = ("POST", "PUT", "PATCH")
_OWN_HEADERS = {
    "accept-encoding", "connection", "content-length", "content-type", "expect", "host", "range", "te",
    "transfer-encoding", "upgrade",
}  # fmt: skip
"""Headers that say how a request is sent. A link to the next page may not set them."""


@dataclass(frozen=True)
class Request:
    """A request to a server.

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
    """Say whether a request to one address may go to another: the same host, scheme and port, or https for http."""
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
    """Change a target to https if its own server was reached by https: servers behind a proxy often write http."""
    if urlsplit(address).scheme == "https" and urlsplit(target).scheme == "http":
        upgraded = urlsplit(target)._replace(scheme="https").geturl()
        if is_same_server(address, upgraded):
            return upgraded
    return target


def _port(parts: Any) -> int | None:
    return parts.port or {"http": 80, "https": 443}.get(parts.scheme)


class CatalogueIO:
    """Reads the documents of a catalogue.

    After answers of busy servers and broken connections it tries again, with growing pauses and as `Retry-After`
    says. A permanent failure is a `SearchError` with the remedy.

    Parameters
    ----------
    timeout_s
        Limit for a complete answer with its redirects, seconds.
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
            If a server refuses, or gives no complete answer.
        SearchError
            If a file cannot be read, or an answer is not a JSON object.
        """
        if not is_on_web(request.address):
            return Document.parse(request.address, _read_file(request.address))
        try:
            return Document.parse(*retry.REQUESTS.retrying(RETRIES)(self._once, request, retries))
        except (TemporaryFailure, PermanentFailure) as error:
            raise no_answer(request.address, error) from None

    def _once(self, request: Request, retries: int) -> tuple[str, bytes]:
        """Send a request once, and follow redirects; all of it takes no longer than the timeout."""
        end_s = time.monotonic() + self.timeout_s
        try:
            with time_limit(self.timeout_s):
                return self._followed(request, retries)
        except TemporaryFailure as error:
            raise (slow(error) if time.monotonic() >= end_s else error) from None
        except ValueError:
            raise PermanentFailure("its address is not valid", "Check --stac") from None

    def _followed(self, request: Request, retries: int) -> tuple[str, bytes]:
        current = request
        for _ in range(_MOST_REDIRECTS + 1):
            log.debug("%s %s", current.method, current.address)
            answer = _sent(current, self.timeout_s)
            if answer.is_good and len(answer.body) > MOST_BYTES:
                raise AnswerError(
                    current.address, f"returns more than {MOST_BYTES >> 20} MB",
                    "Ask for less; or save the answer as a file, which may have any size, and give its path by --stac",
                )  # fmt: skip
            if answer.is_good:
                return current.address, answer.body
            target = answer.headers.get("Location")
            if answer.status not in REDIRECTS or not target:
                raise refusal(current.address, answer, retries)
            current = _redirected(current, answer, target)
        raise AnswerError(request.address, f"redirects more than {_MOST_REDIRECTS} times", "Check --stac")


def _sent(request: Request, timeout_s: float) -> Answer:
    """Send a request; user and password are those of the address, or of ~/.netrc."""
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
    """Give the request for the target of a redirect.

    A POST is sent again as a POST, where browsers send a GET. That is allowed to the same server only, because the text
    of a catalogue on the network must not reach other servers that trust this machine.
    """
    try:
        address = keep_https(request.address, urljoin(request.address, target))
    except ValueError:
        address = target
    where = address[:_SHOWN_CHARACTERS]
    if request.method in _WITH_BODY:
        if answer.status == 303 or not is_same_server(request.address, address):
            other = "a GET request" if answer.status == 303 else "another server"
            raise AnswerError(
                request.address, f"redirects a search to {other}, {where} ({answer.status})",
                "Check --stac: give the address that it redirects to", status=answer.status,
            )  # fmt: skip
        return replace(request, address=address)
    followed = redirected(request.address, replace(answer, headers={"Location": address}))
    if followed is None:
        raise AnswerError(
            request.address, f"redirects to {where}, which is not an http or https address, or is less secure",
            "Check --stac",
        )  # fmt: skip
    headers = request.headers if is_same_server(request.address, followed) else {}
    return Request(followed, request.method, headers=headers)


def check_file(address: str) -> Path:
    """Find a regular file on this machine; a device or a pipe may never end.

    Raises
    ------
    SearchError
        If it is not a regular file.
    """
    if not is_local(address):
        raise SearchError(
            address, "is neither a file nor an http or https address", "Check --stac: download it, and give its path"
        )
    path = local_path(address)
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError) as error:
        raise _unreadable(address, error) from None
    if not stat.S_ISREG(mode):
        file_type = "a folder" if stat.S_ISDIR(mode) else "a device or a pipe"
        raise SearchError(address, f"is {file_type}, not a file", "Give a file, such as catalog.json, by --stac")
    return Path(path)


def _read_file(address: str) -> bytes:
    path = check_file(address)
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(address, error) from None


def _unreadable(address: str, error: OSError | ValueError) -> SearchError:
    return SearchError(address, f"cannot be read ({getattr(error, 'strerror', None) or error})", "Check --stac")
