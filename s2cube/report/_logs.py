"""Read the lines of failures, rejections and passes of an output. Lines that cannot be understood are counted."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from s2cube.errors import OutputError, safe_text
from s2cube.report._areas import number
from s2cube.storage.layout import FAILURES, REJECTED, SYNC
from s2cube.storage.output import Output

_LONGEST_TEXT = 1000
_LARGEST_FILE_BYTES = 50_000_000
_MOST_PASSES = 400
_MOST_IDS = 200
"""Number of ids that are kept of a list of a pass."""


@dataclass(frozen=True)
class Failure:
    """A line of ``failures.jsonl``."""

    slice: str
    scenes: tuple[str, ...]
    asset: str
    error: str
    time: str


@dataclass(frozen=True)
class Rejection:
    """A line of ``rejected.jsonl``."""

    slice: str
    reason: str
    cloud_percent: float | None


@dataclass(frozen=True)
class Pass:
    """A line of ``sync.jsonl``.

    Parameters
    ----------
    ids
        Ids by the name of the list: the first ones. Also their number.
    """

    started: str
    ended: str
    found: int | None
    ids: Mapping[str, tuple[int, tuple[str, ...]]]
    requests: int | None
    bytes: int | None


LISTS = ("new", "late", "reprocessed", "withdrawn", "pending", "written", "failed")
"""Lists of ids in a line of ``sync.jsonl``."""

Note = Callable[[str], None]
"""Receives a problem of the output, to be shown."""


def read_failures(output: Output, note: Note) -> list[Failure]:
    """Read the slices that failed."""
    return [
        Failure(text(row["slice"]), texts(row.get("scenes")), *map(text, map(row.get, ("asset", "error", "time"))))
        for row in _rows(output, FAILURES, note)
    ]


def read_rejections(output: Output, note: Note) -> dict[str, Rejection]:
    """Read the slices that were rejected, by their ids. The last line of a slice counts."""
    return {
        text(row["slice"]): Rejection(text(row["slice"]), text(row.get("reason")), number(row.get("cloud_percent")))
        for row in _rows(output, REJECTED, note)
    }


def read_passes(output: Output, note: Note) -> list[Pass]:
    """Read the last passes."""
    return [
        Pass(
            text(row["started"]), text(row.get("ended")), _count(row.get("found")),
            {name: _ids(row.get(name)) for name in LISTS}, _count(row.get("requests")), _count(row.get("bytes")),
        )
        for row in list(_rows(output, SYNC, note, "started"))[-_MOST_PASSES:]
    ]  # fmt: skip


def text(value: object, longest: int = _LONGEST_TEXT) -> str:
    """Return a text without secrets and control characters; an empty text if it is something else."""
    return _safe(value, longest) if isinstance(value, str) else ""


@lru_cache(50_000)
def _safe(value: str, longest: int) -> str:
    """Return a safe text. Many lines have the same ids and reasons."""
    return safe_text(value, longest)


def texts(value: object) -> tuple[str, ...]:
    """Return the texts in a list; an empty tuple if it is something else."""
    return tuple(text(each, 200) for each in value if isinstance(each, str)) if isinstance(value, list) else ()


def _ids(value: object) -> tuple[int, tuple[str, ...]]:
    found = value if isinstance(value, list) else []
    return len(found), texts(found[:_MOST_IDS])


def _count(value: object) -> int | None:
    found = number(value, 1e15)
    return None if found is None else int(found)


def _rows(output: Output, name: str, note: Note, key: str = "slice") -> Iterator[Mapping[str, Any]]:
    """Yield the objects in the lines of a file that have a text as their key."""
    lines, flawed = _lines(output, name, note), 0
    for line in lines:
        try:
            row = json.loads(line)
            if not isinstance(row[key], str):
                raise TypeError(key)
        except (ValueError, TypeError, KeyError, RecursionError):
            flawed += 1
        else:
            yield row
    if flawed:
        note(f"{name}: {flawed} of {len(lines)} lines cannot be read, and are not shown.")


def _lines(output: Output, name: str, note: Note) -> Sequence[bytes]:
    try:
        content = output.destination.read(name) or b""
    except OutputError as error:
        note(f"{name} cannot be read: {text(error.problem)}.")
        return ()
    if len(content) > _LARGEST_FILE_BYTES:
        note(f"{name} has {len(content)} bytes. Its last {_LARGEST_FILE_BYTES} bytes are shown.")
        content = content[-_LARGEST_FILE_BYTES:].partition(b"\n")[2]
    return [line for line in content.split(b"\n") if line.strip()]
