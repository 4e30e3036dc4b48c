"""The lists of slices that were not written: ``failures.jsonl`` and ``rejected.jsonl``."""

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from s2cube.storage.destination import Destination
from s2cube.storage.json_text import as_utf8
from s2cube.storage.layout import FAILURES, REJECTED
from s2cube.storage.record import Fence

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SliceFailure:
    """The failure of a time slice: one line of ``failures.jsonl``.

    Parameters
    ----------
    asset
        Key of the asset that caused the failure; empty if no single asset caused it.
    time
        Time of the failure, RFC 3339, UTC.
    may_pass
        Whether a later attempt may succeed. It is not written to the file.
    absent
        Id of the scene whose file does not exist, or is empty. It is not written to the file.
    """

    slice: str
    scenes: tuple[str, ...]
    asset: str
    error: str
    time: str
    may_pass: bool = False
    absent: str = ""

    def line(self) -> dict[str, Any]:
        """Return the content of the line."""
        return {name: value for name, value in asdict(self).items() if name not in ("may_pass", "absent")}


@dataclass(frozen=True)
class Rejection:
    """A time slice that has too much cloud: one line of ``rejected.jsonl``.

    Parameters
    ----------
    cloud_percent
        Cloud in the area, percent of what is observed; None if nothing is observed.
    recipe
        See `TimeSlice`.
    """

    slice: str
    reason: str
    cloud_percent: float | None
    recipe: str


@dataclass(frozen=True)
class _SliceList:
    """A list of slices in an output, one JSON object a line."""

    destination: Destination
    fence: Fence
    name: str

    def _append(self, lines: Iterable[Mapping[str, Any]]) -> None:
        self.fence.check()
        if text := "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in lines):
            self.destination.append(self.name, as_utf8(text))

    def remove(self, slice_ids: set[str]) -> None:
        """Remove slices that are now written, or will be tried again. Lines that cannot be read are removed, too."""
        self.fence.check()
        lines = self._lines()
        slices = [_read_slice_id(line) for line in lines]
        if None in slices:
            path = f"{self.destination.address}/{self.name}"
            log.warning("%s: %d lines cannot be read, and are removed", path, slices.count(None))
        kept = [
            line + b"\n" for line, slice_id in zip(lines, slices, strict=True) if slice_id not in {*slice_ids, None}
        ]
        if lines and not kept:
            self.destination.remove(self.name)
        elif len(kept) < len(lines):
            self.destination.put(self.name, b"".join(kept))

    def _lines(self) -> list[bytes]:
        return [line for line in (self.destination.read(self.name) or b"").split(b"\n") if line.strip()]


class FailureList(_SliceList):
    """The list of failures of an output."""

    def __init__(self, destination: Destination, fence: Fence) -> None:
        super().__init__(destination, fence, FAILURES)

    def add(self, failures: Iterable[SliceFailure]) -> None:
        """Add failures at the end of the list."""
        self._append(each.line() for each in failures)


class RejectionList(_SliceList):
    """The list of rejected slices of an output. The masks of these slices are not read again."""

    def __init__(self, destination: Destination, fence: Fence) -> None:
        super().__init__(destination, fence, REJECTED)

    def add(self, rejections: Iterable[Rejection]) -> None:
        """Add slices at the end of the list."""
        self._append(asdict(each) for each in rejections)

    def read(self) -> dict[str, Rejection]:
        """Return the rejected slices by id. Lines that cannot be read are ignored: their masks are read again."""
        found = filter(None, map(_read_rejection, self._lines()))
        return {each.slice: each for each in found}


def _read_rejection(line: bytes) -> Rejection | None:
    try:
        content = json.loads(line)
        cloud = content["cloud_percent"]
        cloud_percent = None if cloud is None else float(cloud)
        texts = [content[name] for name in ("slice", "reason", "recipe")]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    slice_id, reason, recipe = texts
    return Rejection(slice_id, reason, cloud_percent, recipe) if all(isinstance(each, str) for each in texts) else None


def _read_slice_id(line: bytes) -> str | None:
    """Return the slice id of a line; None if the line is incomplete after a crash, or was edited."""
    try:
        slice_id = json.loads(line)["slice"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return slice_id if isinstance(slice_id, str) else None
