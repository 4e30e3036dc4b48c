"""The list of slices that could not be written: ``failures.jsonl``."""

import json
import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from s2cube.storage.destination import Destination
from s2cube.storage.json_text import as_utf8
from s2cube.storage.layout import FAILURES
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
    """

    slice: str
    scenes: tuple[str, ...]
    asset: str
    error: str
    time: str
    may_pass: bool = False

    def line(self) -> dict[str, Any]:
        """Return the content of the line."""
        return {name: value for name, value in asdict(self).items() if name != "may_pass"}


@dataclass(frozen=True)
class FailureList:
    """The list of failures of an output."""

    destination: Destination
    fence: Fence

    def add(self, failures: Iterable[SliceFailure]) -> None:
        """Add failures at the end of the list."""
        self.fence.check()
        if lines := "".join(json.dumps(each.line(), ensure_ascii=False) + "\n" for each in failures):
            self.destination.append(FAILURES, as_utf8(lines))

    def remove(self, slice_ids: set[str]) -> None:
        """Remove slices that are now written, or will be tried again. Lines that cannot be read are removed, too."""
        self.fence.check()
        lines = [line for line in (self.destination.read(FAILURES) or b"").split(b"\n") if line.strip()]
        slices = [_read_slice_id(line) for line in lines]
        if None in slices:
            path = f"{self.destination.address}/{FAILURES}"
            log.warning("%s: %d lines cannot be read, and are removed", path, slices.count(None))
        kept = [
            line + b"\n" for line, slice_id in zip(lines, slices, strict=True) if slice_id not in {*slice_ids, None}
        ]
        if lines and not kept:
            self.destination.remove(FAILURES)
        elif len(kept) < len(lines):
            self.destination.put(FAILURES, b"".join(kept))


def _read_slice_id(line: bytes) -> str | None:
    """Return the slice id of a line; None if the line is incomplete after a crash, or was edited."""
    try:
        slice_id = json.loads(line)["slice"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return slice_id if isinstance(slice_id, str) else None
