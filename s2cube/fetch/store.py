"""Fetch parts of files, with retries, and count the requests and bytes."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from s2cube.config.stores import Stores
from s2cube.errors import AssetReadError, redact
from s2cube.fetch import _s3 as s3
from s2cube.fetch import retry
from s2cube.fetch._archives import NoKeys, locate
from s2cube.fetch.addresses import REMOTE_SCHEMES, STORE_SCHEMES, is_remote, local_path
from s2cube.fetch.http import Answer, http_get, redirected
from s2cube.fetch.object_store import SERVERS, store_to_read
from s2cube.fetch.retry import BUSY, PermanentFailure, TemporaryFailure, busy, diagnose
from s2cube.fetch.tokens import Rules, sign
from s2cube.fetch.traffic import Usage

if TYPE_CHECKING:
    import obstore
    import obstore.store

_STATUS = re.compile(r"status(?: code)?: (\d{3})")
"""Finds the HTTP status in the text of an error of obstore, which has no attribute for it."""

_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})")
_MOST_REDIRECTIONS = 5


@dataclass(frozen=True)
class Access:
    """Settings for reading files.

    Parameters
    ----------
    timeout_s
        Limit for a complete request.
    retries
        Number of retries after temporary failures.
    tokens
        Servers that issue tokens for files, in addition to those in `tokens`.
    stores
        Settings of stores at s3:// addresses, in addition to `_archives.ARCHIVES`.
    usage
        Counts requests and bytes.
    """

    timeout_s: float = 60
    retries: int = 5
    tokens: Rules = ()
    stores: Stores = ()
    usage: Usage = field(default_factory=Usage, compare=False)

    def __dask_tokenize__(self) -> object:
        return id(self.usage), self.timeout_s, self.retries, self.tokens, self.stores


@dataclass(frozen=True)
class Part:
    """A part of a file, the size of the complete file, and a version that changes when the file changes."""

    data: memoryview
    whole_bytes: int
    version: str


def fetch(href: str, start: int, stop: int, access: Access) -> Part:
    """Fetch bytes [start, stop) of a file; fewer if the file ends before.

    Raises
    ------
    AssetReadError
        If the bytes cannot be read.
    """
    retrying = retry.REQUESTS.retrying(access.retries)
    try:
        part: Part = retrying(_source(href), href, start, stop, access)
    except TemporaryFailure as error:
        retries = retrying.statistics["attempt_number"] - 1
        after = f" after {retries} {'retry' if retries == 1 else 'retries'}" if retries else ""
        raise read_error(href, f"cannot be read ({error}){after}", not error.is_unknown_server, error.remedy) from None
    except (PermanentFailure, NoKeys) as error:
        raise read_error(href, f"cannot be read ({error})", remedy=error.remedy) from None
    if not part.whole_bytes:
        raise read_error(href, "is empty", is_absent=True)
    if (times := retrying.statistics["attempt_number"]) > 1:
        access.usage.note(href, f"was requested {times} times")
    return part


def read_error(
    href: str, problem: str, may_pass: bool = False, remedy: str = "", is_absent: bool = False
) -> AssetReadError:
    """Return the error for a file that cannot be read."""
    remedy = remedy or "Run again; check the file if the error persists"
    return AssetReadError(href, problem, remedy, may_pass=may_pass, is_absent=is_absent)


def _source(href: str) -> Callable[[str, int, int, Access], Part]:
    """Choose the function that reads an address."""
    scheme = urlsplit(href).scheme.lower()
    if scheme == "s3":
        return _from_s3
    if scheme in STORE_SCHEMES:
        return _from_store
    if scheme in REMOTE_SCHEMES:
        return _from_http
    if scheme == "file" or "://" not in href:
        return _from_disk
    raise read_error(href, f"cannot be read: s2cube reads only {', '.join(REMOTE_SCHEMES)} addresses and local files")


def _from_disk(href: str, start: int, stop: int, access: Access) -> Part:
    try:
        with open(local_path(href), "rb") as file:  # noqa: PTH123  a path, or a text from a catalogue
            facts = os.fstat(file.fileno())
            data = os.pread(file.fileno(), max(0, stop - start), start)
    except (OSError, ValueError, OverflowError) as error:
        is_absent = isinstance(error, FileNotFoundError)
        problem = f"cannot be read ({getattr(error, 'strerror', None) or error})"
        raise read_error(href, problem, is_absent=is_absent) from None
    access.usage.add(1, len(data))
    return Part(memoryview(data), facts.st_size, _disk_version(facts))


def _disk_version(facts: os.stat_result) -> str:
    return f"{facts.st_mtime_ns}-{facts.st_size}"


def is_current(href: str, version: str) -> bool:
    """Return whether a file still has this version. Files on the network are not checked and count as current."""
    if is_remote(href):
        return True
    try:
        return _disk_version(os.stat(local_path(href))) == version  # noqa: PTH116  as it is opened
    except OSError:
        return False


def _from_http(href: str, start: int, stop: int, access: Access) -> Part:
    """Read from an HTTP server. A token is sent only to the host that it belongs to."""
    url = _signed(href, access)
    if url == href:
        answer = _send_and_follow(url, (start, stop), access)
    else:
        answer = _send(url, {}, (start, stop), access)
        if answer.status in (401, 403) and (renewed_url := _signed(href, access, refused=url)) != url:
            answer = _send(renewed_url, {}, (start, stop), access)
    if answer.status == 200 and answer.headers.get("content-length") == "0":
        raise read_error(href, "is empty", is_absent=True)
    if answer.status == 200:
        raise read_error(href, "cannot be read in parts: its server ignores HTTP ranges")
    if answer.status != 206:
        raise _refused(href, answer.status)
    return _part_of(answer, (start, stop), access)


def _signed(href: str, access: Access, refused: str = "") -> str:
    return sign(href, access.tokens, access.timeout_s, access.retries, refused)


def _send(url: str, headers: dict[str, str], requested: tuple[int, int], access: Access) -> Answer:
    access.usage.add(1, 0)
    start, stop = requested
    return http_get(url, headers | {"Range": f"bytes={start}-{stop - 1}"}, access.timeout_s, stop - start)


def _send_and_follow(url: str, requested: tuple[int, int], access: Access) -> Answer:
    answer = _send(url, {}, requested, access)
    for _ in range(_MOST_REDIRECTIONS):
        target = redirected(url, answer)
        if target is None:
            break
        url = target
        answer = _send(url, {}, requested, access)
    return answer


def _part_of(answer: Answer, requested: tuple[int, int], access: Access) -> Part:
    """Return the requested bytes of an answer. It may contain more bytes, or fewer at the end of the file."""
    if (packed := answer.headers.get("Content-Encoding", "identity")) != "identity":
        raise PermanentFailure(f"its server compresses it with {packed[:20]}, which was not requested")
    sent = answer.headers.get("Content-Range")
    if sent is None:
        raise TemporaryFailure("the answer has no Content-Range header")
    bounds = _RANGE.fullmatch(sent)
    if bounds is None or int(bounds[1]) != requested[0]:
        raise TemporaryFailure("the server sent other bytes than requested")
    length, file_bytes = answer.headers.get("Content-Length"), int(bounds[3])
    if length is not None and length != str(int(bounds[2]) - int(bounds[1]) + 1):
        raise TemporaryFailure("the answer has another length than its header says")
    tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
    return _checked_part(memoryview(answer.body), file_bytes, f"{tag}-{file_bytes}", requested, access)


def _from_s3(href: str, start: int, stop: int, access: Access) -> Part:
    """Read from an s3:// bucket, with the keys of its store."""
    location = locate(href, access.stores)
    if location.by_role:
        return _from_store(href, start, stop, access)
    try:
        url = s3.object_url(location, urlsplit(href).path)
    except ValueError as error:
        raise read_error(href, f"cannot be read ({error})") from None
    headers = s3.headers_for(location, url, {"Range": f"bytes={start}-{stop - 1}"})
    answer = _send(url, headers, (start, stop), access)
    if answer.status != 206:
        problem, remedy = s3.refusal(answer, location)
        if answer.status in (404, 416):
            raise _refused(href, answer.status, problem)
        raise read_error(href, problem, remedy=remedy)
    return _part_of(answer, (start, stop), access)


def _from_store(href: str, start: int, stop: int, access: Access) -> Part:
    """Read from a bucket by obstore: a bucket of Google or Azure, or an s3:// bucket with the role of this machine."""
    import obstore
    from obstore.exceptions import BaseError, NotSupportedError

    parts = urlsplit(href)
    scheme = parts.scheme.lower()
    by_role = locate(href, access.stores) if scheme == "s3" else None
    access.usage.add(1, 0)
    try:
        store = store_to_read(scheme, parts.netloc, access.timeout_s, by_role)
        # obstore escapes the path itself, so it is decoded here.
        answer = obstore.get(store, unquote(parts.path).lstrip("/"), options={"range": (start, stop)})
        most = answer.range[1] - answer.range[0]
        # The first piece contains the complete range. It is cut, because the server may send more.
        data = memoryview(next(iter(answer.stream(min_chunk_size=most)), b""))[:most]
        file_bytes, version = answer.meta["size"], _version(answer.meta)
    except NotSupportedError:
        raise read_error(href, "cannot be read in parts: its server ignores HTTP ranges") from None
    except (BaseError, OSError, ValueError) as error:
        raise _failure(href, error, by_role.url if by_role else SERVERS[scheme], access) from None
    return _checked_part(data, file_bytes, version, (start, stop), access)


def _checked_part(data: memoryview, file_bytes: int, version: str, requested: tuple[int, int], access: Access) -> Part:
    access.usage.add(0, len(data))
    start, stop = requested
    if len(data) != min(stop, file_bytes) - start:
        raise TemporaryFailure(f"{len(data)} of {min(stop, file_bytes) - start} bytes were received")
    return Part(data, file_bytes, version)


def _version(facts: "obstore.ObjectMeta") -> str:
    return f"{facts['e_tag'] or facts['last_modified']}-{facts['size']}"


def _failure(href: str, error: Exception, server: str, access: Access) -> Exception:
    """Convert an error of obstore to a temporary or permanent failure."""
    from obstore import exceptions

    permanent_errors = (
        exceptions.InvalidPathError, exceptions.NotFoundError, exceptions.PermissionDeniedError,
        exceptions.UnauthenticatedError, exceptions.UnknownConfigurationKeyError, ValueError, PermissionError,
        FileNotFoundError,
    )  # fmt: skip
    text = str(error).split("\n")[0]
    if status := (int(found[1]) if (found := _STATUS.search(text)) else None):
        return busy(status, None) if status in BUSY else _refused(href, status)
    if isinstance(error, permanent_errors):
        is_absent = isinstance(error, exceptions.NotFoundError | FileNotFoundError)
        return read_error(href, f"cannot be read ({redact(text, 300)})", is_absent=is_absent)
    diagnosis = diagnose(error, server, access.timeout_s)
    if diagnosis.may_pass:
        return TemporaryFailure(diagnosis.problem, remedy=diagnosis.remedy)
    return PermanentFailure(diagnosis.problem, diagnosis.remedy)


def _refused(href: str, status: int, problem: str = "") -> AssetReadError:
    if status == 416:
        return read_error(href, "is shorter than its header says")
    return read_error(href, problem or f"answers {status}", is_absent=status in (404, 410))
