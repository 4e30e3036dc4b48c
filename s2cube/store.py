"""Hrefs become bytes: parts of files, asked for patiently, and counted."""

import os
import re
import threading
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

import urllib3

from s2cube.errors import AssetReadError, redact
from s2cube.outcome import Traffic
from s2cube.remote import REMOTE_SCHEMES, is_remote, s3_settings, store_to_read
from s2cube.sign import Rules, sign
from s2cube.web import BUSY, CONNECT_TIMEOUT_S, Passing, ask, busy, patience

if TYPE_CHECKING:
    import obstore
    import obstore.store

_STATUS = re.compile(r"status(?: code)?: (\d{3})")
_FINAL = (
    "InvalidPathError", "NotFoundError", "PermissionDeniedError", "UnauthenticatedError", "UnknownConfigurationKeyError"
)  # fmt: skip
"""Of obstore's exceptions."""

_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")
_PRESIGNED_S = 3600
"""For GDAL, which gets an address once a window."""


class Ledger:
    """What reading took: requests, bytes, and the files that another reader than ours had to read, with the reason."""

    def __init__(self) -> None:
        self._traffic = Traffic()
        self.notes: dict[str, str] = {}
        self._lock = threading.Lock()

    def add(self, requests: int, size: int) -> None:
        """Count what was asked for, and what came."""
        with self._lock:
            self._traffic += Traffic(requests, size)

    @property
    def traffic(self) -> Traffic:
        """Requests and bytes so far."""
        with self._lock:
            return self._traffic

    def note(self, href: str, text: str) -> None:
        """Keep what is to be told of a file."""
        with self._lock:
            self.notes[href] = text

    def __reduce__(self) -> tuple[Any, ...]:
        return Ledger, ()  # what is counted elsewhere is not brought home


@dataclass(frozen=True)
class Access:
    """How files are asked for.

    Parameters
    ----------
    timeout_s
        So long a request may take, whole.
    retries
        So often it is made again when it fails in a way that may pass.
    tokens
        Who gives tokens for which files, besides what `sign` knows.
    ledger
        Where it is counted.
    """

    timeout_s: float = 60
    retries: int = 5
    tokens: Rules = ()
    ledger: Ledger = field(default_factory=Ledger, compare=False)

    def __dask_tokenize__(self) -> object:
        return id(self.ledger), self.timeout_s, self.retries, self.tokens


@dataclass(frozen=True)
class Part:
    """A part of a file, the size of the whole file, and a mark that changes when the file does."""

    data: memoryview
    whole_bytes: int
    version: str


def fetch(href: str, start: int, stop: int, access: Access) -> Part:
    """Fetch bytes [start, stop) of a file, or up to its end if that comes before.

    Raises
    ------
    AssetReadError
        If they cannot be had, after as many retries as may be.
    """
    asking = patience(access.retries)
    try:
        part: Part = asking(_source(href), href, start, stop, access)
    except Passing as error:
        again = f" after {access.retries} retries" if access.retries else ""
        raise failed(href, f"cannot be read ({error}){again}", may_pass=True) from None
    if (times := asking.statistics["attempt_number"]) > 1:
        access.ledger.note(href, f"was asked for {times} times")
    return part


def failed(href: str, problem: str, may_pass: bool = False) -> AssetReadError:
    """Say that a file cannot be read."""
    return AssetReadError(href, problem, "Run again; look at the file if it persists", may_pass=may_pass)


def _source(href: str) -> Any:
    scheme = urlsplit(href).scheme.lower()
    if scheme in REMOTE_SCHEMES:
        return _from_network
    if scheme == "file" or "://" not in href:
        return _from_disk
    raise failed(href, f"lies where nothing is read from: only {', '.join(REMOTE_SCHEMES)} and files are")


def local_path(href: str) -> str:
    """Give the path of a file on this machine."""
    return url2pathname(urlsplit(href).path) if href.lower().startswith("file:") else href


def _from_disk(href: str, start: int, stop: int, access: Access) -> Part:
    try:
        with open(local_path(href), "rb") as file:  # noqa: PTH123  a path, or what a catalogue says is one
            facts = os.fstat(file.fileno())
            data = os.pread(file.fileno(), max(0, stop - start), start)
    except (OSError, ValueError, OverflowError) as error:
        raise failed(href, f"cannot be read ({getattr(error, 'strerror', None) or error})") from None
    access.ledger.add(1, len(data))
    return Part(memoryview(data), facts.st_size, _disk_version(facts))


def _disk_version(facts: os.stat_result) -> str:
    return f"{facts.st_mtime_ns}-{facts.st_size}"


def is_current(href: str, version: str) -> bool:
    """Tell whether a file still is what it was, as far as that is known without asking over the network."""
    if is_remote(href):
        return True
    try:
        return _disk_version(os.stat(local_path(href))) == version  # noqa: PTH116  as it is opened
    except OSError:
        return False


def _from_network(href: str, start: int, stop: int, access: Access) -> Part:
    import obstore
    from obstore.exceptions import BaseError, NotSupportedError

    if (url := _signed(href, access)) != href:
        return _by_token(href, url, start, stop, access)
    place = urlsplit(href)
    access.ledger.add(1, 0)
    try:
        store = store_to_read(place.scheme.lower(), place.netloc, place.query, access.timeout_s)
        # It writes a path anew as an address.
        answer = obstore.get(store, unquote(place.path).lstrip("/"), options={"range": (start, stop)})
        data, whole, version = memoryview(answer.bytes()), answer.meta["size"], _version(answer.meta)
    except NotSupportedError:
        raise _ignores_ranges(href) from None
    except (BaseError, OSError, ValueError) as error:
        raise _judged(href, error, access) from None
    return _part(data, whole, version, (start, stop), access)


def _part(data: memoryview, whole: int, version: str, asked: tuple[int, int], access: Access) -> Part:
    access.ledger.add(0, len(data))
    start, stop = asked
    if len(data) != min(stop, whole) - start:
        raise Passing(f"{len(data)} bytes came of {min(stop, whole) - start}")
    return Part(data, whole, version)


def _signed(href: str, access: Access, refused: str = "") -> str:
    return sign(href, access.tokens, access.timeout_s, access.retries, refused)


def address(href: str, access: Access, refused: str = "") -> str:
    """Give the address of a file for another reader than ours: with a token or a signature, if it wants one.

    Keys, endpoint and who pays are those of the environment, as `fetch` takes them.

    Parameters
    ----------
    refused
        An address that this gave before, and that was not taken.
    """
    place = urlsplit(href)
    if place.scheme.lower() != "s3":
        return _signed(href, access, refused)
    import obstore
    from obstore.exceptions import BaseError

    try:
        store: Any = store_to_read("s3", place.netloc, "", access.timeout_s)
        url = obstore.sign(store, "GET", unquote(place.path).lstrip("/"), timedelta(seconds=_PRESIGNED_S))
    except (BaseError, OSError, ValueError) as error:
        raise failed(href, f"cannot be signed ({redact(str(error).split(chr(10))[0], 300)})") from None
    return url.partition("?")[0] if "skip_signature" in s3_settings(os.environ) else url


def _by_token(href: str, url: str, start: int, stop: int, access: Access) -> Part:
    """Do what `_from_network` does where a token is sent."""
    access.ledger.add(1, 0)
    answer = ask(url, {"Range": f"bytes={start}-{stop - 1}"}, access.timeout_s, stop - start)
    if answer.status in (401, 403) and (again := _signed(href, access, refused=url)) != url:
        return _by_token(href, again, start, stop, access)
    if answer.status != 206:
        raise _ignores_ranges(href) if answer.status == 200 else _refused(href, answer.status)
    place = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    if place is None or int(place[1]) != start:
        raise Passing("other bytes came than were asked for")
    mark = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
    whole = int(place[2])
    return _part(memoryview(answer.body), whole, f"{mark}-{whole}", (start, stop), access)


def _version(facts: "obstore.ObjectMeta") -> str:
    return f"{facts['e_tag'] or facts['last_modified']}-{facts['size']}"


def _judged(href: str, error: Exception, access: Access) -> Exception:
    """Tell what may pass from what will not."""
    text = str(error).split("\n")[0]
    status = int(found[1]) if (found := _STATUS.search(text)) else None
    if status in BUSY:
        return busy(status, _asked_pause_s(href, access))
    if status:
        return _refused(href, status)
    if isinstance(error, ValueError | PermissionError | FileNotFoundError) or type(error).__name__ in _FINAL:
        return failed(href, f"cannot be read ({redact(text, 300)})")
    return Passing(redact(text.rpartition(" - ")[2], 300))


def _refused(href: str, status: int) -> AssetReadError:
    return failed(href, "is shorter than its header says" if status == 416 else f"answers {status}")


def _ignores_ranges(href: str) -> AssetReadError:
    return failed(href, "cannot be read in parts: its server ignores HTTP ranges")


def _asked_pause_s(href: str, access: Access) -> float | None:
    """Ask a busy web server how long it wants to be left alone: obstore hides that part of its answer."""
    if urlsplit(href).scheme.lower() not in ("http", "https"):
        return None
    access.ledger.add(1, 0)
    try:
        answer = urllib3.request("HEAD", href, timeout=CONNECT_TIMEOUT_S, retries=False)
        return urllib3.Retry().get_retry_after(answer)
    except urllib3.exceptions.HTTPError:
        return None
