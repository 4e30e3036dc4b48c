"""Hrefs become bytes: parts of files, asked for patiently, and counted."""

import os
import re
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from s2cube.config.stores import Stores
from s2cube.errors import AssetReadError, redact
from s2cube.fetch import _s3 as s3
from s2cube.fetch._archives import NoKeys, locate
from s2cube.fetch._network import diagnose
from s2cube.fetch.http import BUSY, Answer, Lasting, Passing, ask, busy, patience, redirected
from s2cube.fetch.object_store import REMOTE_SCHEMES, SERVERS, is_remote, store_to_read
from s2cube.fetch.paths import local_path
from s2cube.fetch.tokens import Rules, sign
from s2cube.fetch.traffic import Traffic

if TYPE_CHECKING:
    import obstore
    import obstore.store

_STATUS = re.compile(r"status(?: code)?: (\d{3})")
_FINAL = (
    "InvalidPathError", "NotFoundError", "PermissionDeniedError", "UnauthenticatedError", "UnknownConfigurationKeyError"
)  # fmt: skip
"""Of obstore's exceptions."""

_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})")
_MOST_REDIRECTIONS = 5


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
        """Keep a note on a file, beside earlier notes on it."""
        with self._lock:
            before = self.notes.get(href, "")
            if text not in before:
                self.notes[href] = f"{before}; {text}" if before else text

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
    stores
        Settings of stores at s3:// addresses, in addition to `archives.ARCHIVES`.
    ledger
        Where it is counted.
    """

    timeout_s: float = 60
    retries: int = 5
    tokens: Rules = ()
    stores: Stores = ()
    ledger: Ledger = field(default_factory=Ledger, compare=False)

    def __dask_tokenize__(self) -> object:
        return id(self.ledger), self.timeout_s, self.retries, self.tokens, self.stores


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
        retries = asking.statistics["attempt_number"] - 1
        again = f" after {retries} {'retry' if retries == 1 else 'retries'}" if retries else ""
        raise failed(href, f"cannot be read ({error}){again}", not error.is_stranger, error.remedy) from None
    except (Lasting, NoKeys) as error:
        raise failed(href, f"cannot be read ({error})", remedy=error.remedy) from None
    if (times := asking.statistics["attempt_number"]) > 1:
        access.ledger.note(href, f"was asked for {times} times")
    return part


def failed(href: str, problem: str, may_pass: bool = False, remedy: str = "") -> AssetReadError:
    """Say that a file cannot be read."""
    return AssetReadError(href, problem, remedy or "Run again; look at the file if it persists", may_pass=may_pass)


def _source(href: str) -> Any:
    scheme = urlsplit(href).scheme.lower()
    if scheme in ("http", "https"):
        return _from_web
    if scheme == "s3":
        return _from_s3
    if scheme in REMOTE_SCHEMES:
        return _from_store
    if scheme == "file" or "://" not in href:
        return _from_disk
    raise failed(href, f"lies where nothing is read from: only {', '.join(REMOTE_SCHEMES)} and files are")


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


def _from_web(href: str, start: int, stop: int, access: Access) -> Part:
    """Read from a web server; a token is sent only to its own host."""
    url = _signed(href, access)
    if url == href:
        answer = _followed(url, (start, stop), access)
    else:
        answer = _asked(url, {}, (start, stop), access)
        if answer.status in (401, 403) and (again := _signed(href, access, refused=url)) != url:
            answer = _asked(again, {}, (start, stop), access)
    if answer.status == 200:
        raise failed(href, "cannot be read in parts: its server ignores HTTP ranges")
    if answer.status != 206:
        raise _refused(href, answer.status)
    return _part_of(answer, (start, stop), access)


def _signed(href: str, access: Access, refused: str = "") -> str:
    return sign(href, access.tokens, access.timeout_s, access.retries, refused)


def _asked(url: str, headers: dict[str, str], asked: tuple[int, int], access: Access) -> Answer:
    access.ledger.add(1, 0)
    start, stop = asked
    return ask(url, headers | {"Range": f"bytes={start}-{stop - 1}"}, access.timeout_s, stop - start)


def _followed(url: str, asked: tuple[int, int], access: Access) -> Answer:
    answer = _asked(url, {}, asked, access)
    for _ in range(_MOST_REDIRECTIONS):
        following = redirected(url, answer)
        if following is None:
            break
        url = following
        answer = _asked(url, {}, asked, access)
    return answer


def _part_of(answer: Answer, asked: tuple[int, int], access: Access) -> Part:
    """Take the requested bytes from an answer, which may hold more, or fewer at the end of the file."""
    if (packed := answer.headers.get("Content-Encoding", "identity")) != "identity":
        raise Lasting(f"its server compresses it with {packed[:20]}, which was not requested")
    told = answer.headers.get("Content-Range")
    if told is None:
        raise Passing("the answer has no Content-Range header")
    place = _RANGE.fullmatch(told)
    if place is None or int(place[1]) != asked[0]:
        raise Passing("the server sent other bytes than requested")
    length, whole = answer.headers.get("Content-Length"), int(place[3])
    if length is not None and length != str(int(place[2]) - int(place[1]) + 1):
        raise Passing("the answer has another length than its header says")
    mark = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
    return _part(memoryview(answer.body), whole, f"{mark}-{whole}", asked, access)


def _from_s3(href: str, start: int, stop: int, access: Access) -> Part:
    """Read from a bucket at s3://, with the keys of that store."""
    place = locate(href, access.stores)
    if place.by_role:
        return _from_store(href, start, stop, access)
    try:
        url = s3.object_url(place, urlsplit(href).path)
    except ValueError as error:
        raise failed(href, f"cannot be read ({error})") from None
    headers = s3.headers_for(place, url, {"Range": f"bytes={start}-{stop - 1}"})
    answer = _asked(url, headers, (start, stop), access)
    if answer.status != 206:
        problem, remedy = s3.refusal(answer, place)
        raise failed(href, problem, remedy=remedy) if answer.status != 416 else _refused(href, 416)
    return _part_of(answer, (start, stop), access)


def _from_store(href: str, start: int, stop: int, access: Access) -> Part:
    """Read from a bucket by obstore: of Google, of Azure, or with the role of this machine."""
    import obstore
    from obstore.exceptions import BaseError, NotSupportedError

    place = urlsplit(href)
    scheme = place.scheme.lower()
    by_role = locate(href, access.stores) if scheme == "s3" else None
    access.ledger.add(1, 0)
    try:
        store = store_to_read(scheme, place.netloc, access.timeout_s, by_role)
        # It writes a path anew as an address.
        answer = obstore.get(store, unquote(place.path).lstrip("/"), options={"range": (start, stop)})
        most = answer.range[1] - answer.range[0]
        # The first piece is as long as the range says, even if more follows.
        data = memoryview(next(iter(answer.stream(min_chunk_size=most)), b""))[:most]
        whole, version = answer.meta["size"], _version(answer.meta)
    except NotSupportedError:
        raise failed(href, "cannot be read in parts: its server ignores HTTP ranges") from None
    except (BaseError, OSError, ValueError) as error:
        raise _judged(href, error, by_role.url if by_role else SERVERS[scheme], access) from None
    return _part(data, whole, version, (start, stop), access)


def _part(data: memoryview, whole: int, version: str, asked: tuple[int, int], access: Access) -> Part:
    access.ledger.add(0, len(data))
    start, stop = asked
    if len(data) != min(stop, whole) - start:
        raise Passing(f"{len(data)} bytes came of {min(stop, whole) - start}")
    return Part(data, whole, version)


def _version(facts: "obstore.ObjectMeta") -> str:
    return f"{facts['e_tag'] or facts['last_modified']}-{facts['size']}"


def _judged(href: str, error: Exception, server: str, access: Access) -> Exception:
    """Separate temporary failures from permanent ones, by the text of obstore's error."""
    text = str(error).split("\n")[0]
    if status := (int(found[1]) if (found := _STATUS.search(text)) else None):
        return busy(status, None) if status in BUSY else _refused(href, status)
    if isinstance(error, ValueError | PermissionError | FileNotFoundError) or type(error).__name__ in _FINAL:
        return failed(href, f"cannot be read ({redact(text, 300)})")
    trouble = diagnose(error, server, access.timeout_s)
    if trouble.may_pass:
        return Passing(trouble.problem, remedy=trouble.remedy)
    return Lasting(trouble.problem, trouble.remedy)


def _refused(href: str, status: int) -> AssetReadError:
    return failed(href, "is shorter than its header says" if status == 416 else f"answers {status}")
