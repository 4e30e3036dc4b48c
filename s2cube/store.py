"""Hrefs become bytes: parts of files, asked for patiently, and counted."""

import os
import random
import re
import threading
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

import tenacity
import urllib3

from s2cube.errors import AssetReadError
from s2cube.outcome import Traffic

if TYPE_CHECKING:
    import obstore
    import obstore.store

REMOTE_SCHEMES = ("http", "https", "s3", "gs", "az")
"""Where a catalogue on the network may say that its assets lie."""

_BUSY = (408, 429, 500, 502, 503, 504)
"""Answers after which asking again may help (RFC 9110, RFC 6585)."""

_STATUS = re.compile(r"status(?: code)?: (\d{3})")
_FINAL = (
    "InvalidPathError", "NotFoundError", "PermissionDeniedError", "UnauthenticatedError", "UnknownConfigurationKeyError"
)  # fmt: skip
"""Of obstore's exceptions."""

_CONNECT_TIMEOUT_S = 10
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30
_LONGEST_ASKED_S = 120
"""So long a server may ask us to stay away; who wants longer is asked again in the next run."""


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
    ledger
        Where it is counted.
    """

    timeout_s: float = 60
    retries: int = 5
    ledger: Ledger = field(default_factory=Ledger, compare=False)

    def __dask_tokenize__(self) -> object:
        return id(self.ledger), self.timeout_s, self.retries


@dataclass(frozen=True)
class Part:
    """A part of a file, the size of the whole file, and a mark that changes when the file does."""

    data: memoryview
    whole_bytes: int
    version: str


class _Passing(Exception):
    """What may pass: asked again, it may be well."""

    def __init__(self, problem: str, pause_s: float | None = None) -> None:
        super().__init__(problem)
        self.pause_s = pause_s


def is_remote(href: str) -> bool:
    """Tell whether an href lies on the network, where a catalogue on the network may point to."""
    return urlsplit(href).scheme.lower() in REMOTE_SCHEMES


def fetch(href: str, start: int, stop: int, access: Access) -> Part:
    """Fetch bytes [start, stop) of a file, or up to its end if that comes before.

    Raises
    ------
    AssetReadError
        If they cannot be had, after as many retries as may be.
    """
    patience = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(access.retries + 1),
        retry=tenacity.retry_if_exception(_is_worth_waiting_for),
        wait=_pause,
        reraise=True,
    )
    try:
        part: Part = patience(_source(href), href, start, stop, access)
    except _Passing as error:
        again = f" after {access.retries} retries" if access.retries else ""
        raise failed(href, f"cannot be read ({error}){again}") from None
    return part


def failed(href: str, problem: str) -> AssetReadError:
    """Say that a file cannot be read."""
    return AssetReadError(href, problem, "Run again; look at the file if it persists")


def _is_worth_waiting_for(error: BaseException) -> bool:
    return isinstance(error, _Passing) and (error.pause_s or 0) <= _LONGEST_ASKED_S


def _pause(state: tenacity.RetryCallState) -> float:
    # Not all at the same moment again.
    grown = min(_FIRST_PAUSE_S * 2 ** (state.attempt_number - 1), _LONGEST_PAUSE_S) * random.uniform(1, 1.5)
    error = state.outcome.exception() if state.outcome else None
    asked_s = error.pause_s if isinstance(error, _Passing) else None
    return float(max(grown, asked_s or 0))


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

    place = urlsplit(href)
    access.ledger.add(1, 0)
    try:
        store = _store(place.scheme.lower(), place.netloc, place.query, access.timeout_s)
        # It writes a path anew as an address.
        answer = obstore.get(store, unquote(place.path).lstrip("/"), options={"range": (start, stop)})
        data, whole, version = memoryview(answer.bytes()), answer.meta["size"], _version(answer.meta)
    except NotSupportedError:
        raise failed(href, "cannot be read in parts: its server ignores HTTP ranges") from None
    except (BaseError, OSError, ValueError) as error:
        raise _judged(href, error, access) from None
    access.ledger.add(0, len(data))
    if len(data) != min(stop, whole) - start:
        raise _Passing(f"{len(data)} bytes came of {min(stop, whole) - start}")
    return Part(data, whole, version)


def _version(facts: "obstore.ObjectMeta") -> str:
    return f"{facts['e_tag'] or facts['last_modified']}-{facts['size']}"


def _judged(href: str, error: Exception, access: Access) -> Exception:
    """Tell what may pass from what will not."""
    text = str(error).split("\n")[0]
    status = int(found[1]) if (found := _STATUS.search(text)) else None
    if status in _BUSY:
        pause_s = _asked_pause_s(href, access)
        told = f", and asks to wait {pause_s:.0f} s" if pause_s else ""
        return _Passing(f"answers {status}{told}", pause_s)
    if status == 416:
        return failed(href, "is shorter than its header says")
    if status:
        return failed(href, f"answers {status}")
    if isinstance(error, ValueError | PermissionError | FileNotFoundError) or type(error).__name__ in _FINAL:
        return failed(href, f"cannot be read ({text[:300]})")
    return _Passing(text.rpartition(" - ")[2][:300])


def _asked_pause_s(href: str, access: Access) -> float | None:
    """Ask a busy web server how long it wants to be left alone: obstore hides that part of its answer."""
    if urlsplit(href).scheme.lower() not in ("http", "https"):
        return None
    access.ledger.add(1, 0)
    try:
        answer = urllib3.request("HEAD", href, timeout=_CONNECT_TIMEOUT_S, retries=False)
        return urllib3.Retry().get_retry_after(answer)
    except urllib3.exceptions.HTTPError:
        return None


@lru_cache(maxsize=64)
def _store(scheme: str, place: str, query: str, timeout_s: float) -> "obstore.store.ObjectStore":
    """Give what keeps the connections to a server; a query, as a signature, is sent with every request."""
    from obstore.store import HTTPStore, from_url

    options: dict[str, Any] = {
        "client_options": {
            "timeout": timedelta(seconds=timeout_s),
            "connect_timeout": timedelta(seconds=min(_CONNECT_TIMEOUT_S, timeout_s)),
            "allow_http": True,
        },
        # Asked again, and counted, by `fetch`.
        "retry_config": {"max_retries": 0},
    }
    if scheme in ("http", "https"):
        return HTTPStore.from_url(f"{scheme}://{place}/" + (f"?{query}" if query else ""), **options)
    if scheme == "s3":
        options |= s3_settings(os.environ)
    return from_url(f"{scheme}://{place}", **options)


def s3_settings(environ: Any) -> dict[str, Any]:
    """Take from the environment what GDAL calls otherwise than obstore, which reads all others (AWS_…) itself."""
    settings: dict[str, Any] = {}
    if endpoint := environ.get("AWS_S3_ENDPOINT"):
        safe = environ.get("AWS_HTTPS", "YES").upper() not in ("NO", "FALSE", "OFF", "0")
        settings["endpoint"] = endpoint if "://" in endpoint else f"{'https' if safe else 'http'}://{endpoint}"
    if environ.get("AWS_NO_SIGN_REQUEST", "").upper() in ("YES", "TRUE", "ON", "1"):
        settings["skip_signature"] = True
    if environ.get("AWS_REQUEST_PAYER", "") == "requester":
        settings["request_payer"] = True
    if not environ.get("AWS_REGION") and (region := environ.get("AWS_DEFAULT_REGION")):
        settings["region"] = region
    return settings
