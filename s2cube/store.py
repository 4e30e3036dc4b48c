"""Hrefs become bytes: parts of files, asked for patiently and counted.

HTTP is spoken by urllib3, which sends a URL as it stands, signature and all, and shows what a busy server asks for;
object stores by obstore.
"""

import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import tenacity
import urllib3

from s2cube.errors import AssetReadError

if TYPE_CHECKING:
    import obstore.store

REMOTE_SCHEMES = ("http", "https", "s3", "gs", "az")
"""Where a catalogue on the network may say that its assets lie."""

_BUSY = (408, 429, 500, 502, 503, 504)
"""Answers after which asking again may help (RFC 9110, RFC 6585)."""

_CONNECTIONS = 32
_CONNECT_TIMEOUT_S = 10
_PIECE_BYTES = 1 << 18
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30
_LONGEST_ASKED_S = 120
"""So long a server may ask us to stay away; who wants longer is asked again in the next run."""

_REDIRECTS = urllib3.Retry(connect=0, read=0, status=0, other=0, redirect=5, respect_retry_after_header=False)


class Ledger:
    """What reading took: requests, bytes, and the files that another reader than ours had to read, with the reason."""

    def __init__(self) -> None:
        self.requests, self.bytes = 0, 0
        self.notes: dict[str, str] = {}
        self._lock = threading.Lock()

    def add(self, requests: int, size: int) -> None:
        """Count what was asked for, and what came."""
        with self._lock:
            self.requests += requests
            self.bytes += size

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

    data: bytes | bytearray
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
    if scheme in ("http", "https"):
        return _from_http
    if scheme in REMOTE_SCHEMES:
        return _from_object_store
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
    return Part(data, facts.st_size, _disk_version(facts))


def _disk_version(facts: os.stat_result) -> str:
    return f"{facts.st_mtime_ns}-{facts.st_ino}-{facts.st_size}"


def is_current(href: str, version: str) -> bool:
    """Tell whether a file still is what it was, as far as that is known without asking over the network."""
    if is_remote(href):
        return True
    try:
        return _disk_version(os.stat(local_path(href))) == version  # noqa: PTH116  as it is opened
    except OSError:
        return False


@cache
def _pool() -> urllib3.PoolManager:
    return urllib3.PoolManager(maxsize=_CONNECTIONS)


def _from_http(href: str, start: int, stop: int, access: Access) -> Part:
    deadline_s = time.monotonic() + access.timeout_s
    headers = {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
    timeout = urllib3.Timeout(connect=min(_CONNECT_TIMEOUT_S, access.timeout_s), read=access.timeout_s)
    data = bytearray()
    access.ledger.add(1, 0)
    with _passing_http_errors():
        answer = _pool().request(
            "GET", href, headers=headers, timeout=timeout, retries=_REDIRECTS, preload_content=False
        )
        try:
            whole = _check(href, answer, start, stop)
            due = min(stop, whole) - start
            while len(data) < due and (piece := answer.read1(_PIECE_BYTES, decode_content=False)):
                data += piece
                if time.monotonic() > deadline_s:
                    raise _Passing(f"took longer than {access.timeout_s:g} s: see --timeout")
            # Read to its end, a connection serves the next request.
            answer.drain_conn() if len(data) == due else answer.close()
        except BaseException:
            answer.close()
            raise
        finally:
            answer.release_conn()
            access.ledger.add(0, len(data))
    if len(data) != due:
        raise _Passing(f"{len(data)} of {due} bytes came")
    version = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
    return Part(data, whole, f"{version}-{whole}")


@contextmanager
def _passing_http_errors() -> Iterator[None]:
    try:
        yield
    except urllib3.exceptions.LocationValueError as error:
        raise _Passing(f"is no address ({error})", float("inf")) from None
    except urllib3.exceptions.HTTPError as error:
        cause = getattr(error, "reason", None) or error
        raise _Passing(str(cause).split("object at 0x")[0] or type(error).__name__) from None


def _check(href: str, answer: urllib3.BaseHTTPResponse, start: int, stop: int) -> int:
    """Give the size of the whole file, if the answer is the part that was asked for."""
    if answer.status in _BUSY:
        asked = urllib3.Retry().get_retry_after(answer)
        told = f", and asks to wait {asked:.0f} s" if asked else ""
        raise _Passing(f"answers {answer.status}{told}", asked)
    if answer.status == 416:
        raise failed(href, f"has no byte {start}: it is shorter than its header says")
    if answer.status == 200:
        # The whole file, where a part was asked for: taken only if that is what was meant.
        whole = int(answer.headers.get("Content-Length", -1))
        if start == 0 and 0 <= whole <= stop:
            return whole
        raise failed(href, "cannot be read in parts: its server ignores HTTP ranges")
    if answer.status != 206:
        raise failed(href, f"answers {answer.status}")
    if answer.headers.get("Content-Encoding", "identity") != "identity":
        raise failed(href, f"comes encoded ({answer.headers['Content-Encoding']}), though that was not asked for")
    unit, _, rest = answer.headers.get("Content-Range", "").partition(" ")
    span, _, whole_text = rest.partition("/")
    if unit != "bytes" or not span.startswith(f"{start}-") or not whole_text.isdigit():
        raise failed(href, f"answers with other bytes than were asked for ({unit} {rest})")
    return int(whole_text)


def _from_object_store(href: str, start: int, stop: int, access: Access) -> Part:
    import obstore
    from obstore.exceptions import (
        BaseError,
        InvalidPathError,
        NotFoundError,
        NotSupportedError,
        PermissionDeniedError,
        UnauthenticatedError,
        UnknownConfigurationKeyError,
    )

    final = (
        FileNotFoundError, InvalidPathError, NotFoundError, NotSupportedError, PermissionDeniedError, PermissionError,
        UnauthenticatedError, UnknownConfigurationKeyError, ValueError,
    )  # fmt: skip
    place = urlsplit(href)
    access.ledger.add(1, 0)
    try:
        store = _object_store(place.scheme.lower(), place.netloc, access.timeout_s)
        answer = obstore.get(store, place.path.lstrip("/"), options={"range": (start, stop)})
        data = answer.bytes()
    except final as error:
        raise failed(href, f"cannot be read ({_first_line(error)})") from None
    except (BaseError, OSError) as error:
        raise _Passing(_first_line(error)) from None
    access.ledger.add(0, len(data))
    whole = answer.meta["size"]
    return Part(data.to_bytes(), whole, f"{answer.meta['e_tag'] or answer.meta['last_modified']}-{whole}")


def _first_line(error: BaseException) -> str:
    return str(error).split("\n")[0][:300] or type(error).__name__


@lru_cache(maxsize=64)
def _object_store(scheme: str, bucket: str, timeout_s: float) -> "obstore.store.ObjectStore":
    from obstore.store import from_url

    options: dict[str, Any] = {
        "client_options": {
            "timeout": timedelta(seconds=timeout_s),
            "connect_timeout": timedelta(seconds=min(_CONNECT_TIMEOUT_S, timeout_s)),
            "allow_http": True,
        },
        # Asked again, and counted, by `fetch`.
        "retry_config": {"max_retries": 0},
    }
    if scheme == "s3":
        options |= _s3_settings(os.environ)
    return from_url(f"{scheme}://{bucket}", **options)


def _s3_settings(environ: Any) -> dict[str, Any]:
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
