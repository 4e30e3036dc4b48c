"""The record of passes in an output: ``sync.jsonl``."""

import json
import logging
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any

from s2cube.storage.destination import Destination
from s2cube.storage.json_text import as_utf8
from s2cube.storage.layout import SYNC

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pass:
    """One pass of `s2cube sync`: one line of ``sync.jsonl``.

    Parameters
    ----------
    started, ended
        RFC 3339, UTC.
    found
        Number of scenes that the catalogue has in the time that the pass searched.
    new, late, reprocessed, withdrawn
        Ids of scenes; no scene is in two of them. A late scene was acquired before the last pass, but is seen only now.
    pending
        Ids of scenes that the catalogue lists, but whose files cannot be read yet.
    written, failed, removed
        Ids of slices and composites. Those that were removed had only scenes that are withdrawn.
    also
        Ids of scenes that only the second catalogue has.
    error
        Why the pass could not be made; empty if it was made. It contains no credential.
    outage
        Why one of two catalogues did not answer; empty if both did.
    hook
        Exit status of the command of ``--on-change``; None if it did not run. Only then the line does not have it.
    files
        Paths or addresses of the files that were written. The line does not have them.
    """

    started: str
    ended: str
    found: int = 0
    new: tuple[str, ...] = ()
    late: tuple[str, ...] = ()
    reprocessed: tuple[str, ...] = ()
    withdrawn: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    written: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    requests: int = 0
    bytes: int = 0
    error: str = ""
    outage: str = ""
    hook: int | None = None
    files: tuple[str, ...] = ()

    @property
    def has_changes(self) -> bool:
        """Whether the pass changed files."""
        return bool(self.written or self.removed)

    def line(self) -> dict[str, Any]:
        """Return the content of the line."""
        absent = {"files"} if self.hook is not None else {"files", "hook"}
        return {name: value for name, value in asdict(self).items() if name not in absent}


def append_pass(destination: Destination, made: Pass) -> None:
    """Add a pass at the end of the record.

    Raises
    ------
    WriteError
        If the record cannot be written.
    """
    destination.append(SYNC, _to_bytes(made))


def replace_last_pass(destination: Destination, made: Pass) -> None:
    """Write the last line of the record anew, if it is about the same pass. Hold the lease of the output meanwhile.

    Raises
    ------
    WriteError
        If the record cannot be read or written.
    """
    before, _, last = (destination.read(SYNC) or b"").rstrip(b"\n").rpartition(b"\n")
    found = _parse(last)
    if found and found.started == made.started:
        destination.put(SYNC, (before + b"\n" if before else b"") + _to_bytes(made))


def read_passes(destination: Destination) -> list[Pass]:
    """Read the passes of an output, oldest first. Lines that cannot be read are left out, with a warning.

    Raises
    ------
    WriteError
        If the record cannot be read.
    """
    lines = [line for line in (destination.read(SYNC) or b"").split(b"\n") if line.strip()]
    passes = [_parse(line) for line in lines]
    if unreadable := passes.count(None):
        log.warning("%s/%s: %d lines cannot be read, and are ignored", destination.address, SYNC, unreadable)
    return [each for each in passes if each]


def _to_bytes(made: Pass) -> bytes:
    return as_utf8(json.dumps(made.line(), ensure_ascii=False) + "\n")


def _parse(line: bytes) -> Pass | None:
    """Return the pass of a line; None if the line is incomplete after a crash, or was edited."""
    try:
        content = json.loads(line)
        made = Pass(
            **{each.name: _value(content[each.name], each.type) for each in fields(Pass) if each.name in content}
        )
        has_zones = all(datetime.fromisoformat(each).tzinfo for each in (made.started, made.ended))
        return made if has_zones else None
    except (ValueError, TypeError, RecursionError):
        return None


def _value(value: Any, kind: Any) -> Any:
    """Check the type of a member of a line."""
    if kind is int and isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if kind == int | None and isinstance(value, int):
        return value
    if kind is str and isinstance(value, str):
        return value
    if kind == tuple[str, ...] and isinstance(value, list) and all(isinstance(each, str) for each in value):
        return tuple(value)
    raise ValueError("another type")
