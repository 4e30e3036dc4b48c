"""Where things lie in an output folder, and when a slice is done."""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from s2cube.errors import BusyError, OutputError, WriteError
from s2cube.storage.destination import Place, place_at
from s2cube.storage.failure import SliceFailure
from s2cube.storage.folder import OWN
from s2cube.storage.image_item import Made, read_item

log = logging.getLogger(__name__)

CATALOG = "catalog.json"
FAILURES = "failures.jsonl"
RUN = f"{OWN}/run"
"""Who writes there, and how it goes."""

State = Literal["made", "other", "none"]
"""Of a slice: as it is asked for, otherwise, not there."""


@dataclass(frozen=True)
class Output:
    """An output folder, or a bucket.

    ::

        catalog.json
        <aoi>/collection.json
        <aoi>/<slice>/<slice>.tif _qa.tif .png .json
        failures.jsonl
        .s2cube/run

    Parameters
    ----------
    run
        Id of the run that writes there; empty where nobody asks.
    """

    place: Place
    run: str = ""

    @classmethod
    def at(cls, out: str | Path) -> "Output":
        """Give the output at an address.

        Raises
        ------
        OutputError
            If nothing can be written at such an address.
        """
        return cls(place_at(out))

    def of(self, run: str) -> "Output":
        """Give the same output, for what a run writes."""
        return replace(self, run=run)

    def path(self, aoi_id: str, slice_id: str, suffix: str = ".tif") -> str:
        """Give the path or address of one of a slice's files."""
        return f"{self.place.address}/{name(aoi_id, slice_id, suffix)}"

    def sizes(self) -> dict[str, int]:
        """Give the sizes of the files of all slices, bytes, by name relative to the output; from one listing.

        Raises
        ------
        WriteError
            If the output cannot be listed.
        """
        return self.place.sizes()

    def items(self, sizes: Mapping[str, int] | None = None) -> Iterator[tuple[str, str]]:
        """Yield AOI and slice of every Item in the output, in order; from a listing, if one is given."""
        for each in self.sizes() if sizes is None else sizes:
            aoi_id, slice_id, file = each.split("/")
            if file == f"{slice_id}.json" and slice_id.startswith(f"{aoi_id}_"):
                yield aoi_id, slice_id

    def made(self, aoi_id: str, slice_id: str) -> Made | None:
        """Read the Item of a slice; None if there is none, or if it cannot be read, with a warning.

        Raises
        ------
        OutputError
            If the folder of the slice is a link, or something else that cannot be written to.
        """
        try:
            return self._made(aoi_id, slice_id)
        except ValueError as error:
            item = self.path(aoi_id, slice_id, ".json")
            log.warning("%s cannot be read as an Item of s2cube (%s): the slice counts as not made", item, error)
            return None

    def state(self, aoi_id: str, slice_id: str, recipe: str, bands: tuple[str, ...]) -> State:
        """Say whether a slice is there, made by a recipe (see `TimeSlice`), with these bands in this order.

        It counts as there only with its Item, and with its files as the Item describes them.
        """
        try:
            made = self._made(aoi_id, slice_id)
        except ValueError:
            return "none"
        if made and (made.recipe, made.bands) != (recipe, bands):
            return "other"
        return "made" if made and not made.flaw(self.place.sizes(f"{aoi_id}/{slice_id}")) else "none"

    def _made(self, aoi_id: str, slice_id: str) -> Made | None:
        item = name(aoi_id, slice_id)
        try:
            content = self.place.read(item)
        except OutputError as error:
            if error.subject != self.path(aoi_id, slice_id, ".json"):
                raise
            raise ValueError(error.problem) from None
        return None if content is None else read_item(content, aoi_id, slice_id)

    def publish(self, aoi_id: str, slice_id: str, folder: Path) -> str:
        """Put the files of a slice where they belong, from a folder of this machine; give the path of the COG.

        The Item is put last. Before anything else is changed, an Item of other files is deleted: whenever this
        ends, an Item stands beside its own files.

        Raises
        ------
        BusyError
            If another run writes there now.
        OutputError
            If something that is not a plain file or folder is in the way.
        WriteError
            If it cannot be written.
        """
        self.check_run()
        item = folder / f"{slice_id}.json"
        if not self._has_files_of(aoi_id, slice_id, item.read_bytes()):
            self.place.remove(name(aoi_id, slice_id))
        for path in sorted(folder.iterdir(), key=lambda path: path.suffix == ".json"):
            self.place.put(f"{aoi_id}/{slice_id}/{path.name}", path)
        return self.path(aoi_id, slice_id)

    def _has_files_of(self, aoi_id: str, slice_id: str, item: bytes) -> bool:
        """Say whether the existing Item, if any, describes the same files as another one."""
        try:
            there, other = self._made(aoi_id, slice_id), read_item(item, aoi_id, slice_id)
        except ValueError:
            return False
        if there is None:
            return True
        facts = [(each.recipe, each.bands, each.files, each.checksums) for each in (there, other)]
        return facts[0] == facts[1] and there.checksums.keys() == there.files.keys()

    def check_run(self) -> None:
        """Make sure that the run still is the one that writes there.

        Raises
        ------
        BusyError
            If it is not.
        WriteError
            If the output was deleted, or the record of the run.
        """
        if not self.run:
            return
        record = self.place.read(RUN)
        if record is None:
            self.place.probe()  # its error says so if the whole folder is gone
            problem = "was deleted or emptied during the run: the record of the run is gone"
            raise WriteError(self.place.address, problem, "Check what happened to it, then run again")
        if _run_of(record) != self.run:
            raise BusyError(self.place.address, "is written by another run now", "Wait for it, then run again")

    def is_reached(self) -> bool:
        """Tell whether this is, seen from this machine, the output that the run writes to."""
        return _run_of(self.place.read(RUN) or b"") == self.run

    def note_failures(self, failures: Iterable[SliceFailure]) -> None:
        """Add lines to the list of failures."""
        self.check_run()
        lines = "".join(json.dumps(each.line(), ensure_ascii=False) + "\n" for each in failures)
        if not lines:
            return
        before = self.place.read(FAILURES) or b""
        if before and not before.endswith(b"\n"):
            before += b"\n"
        self.place.put(FAILURES, before + encoded(lines))

    def forget_failures(self, slice_ids: set[str]) -> None:
        """Take slices that are done, or about to be tried again, off the list of failures."""
        self.check_run()
        lines = [line for line in (self.place.read(FAILURES) or b"").split(b"\n") if line.strip()]
        slices = [_slice_of(line) for line in lines]
        if None in slices:
            path = f"{self.place.address}/{FAILURES}"
            log.warning("%s: %d lines cannot be read, and are left out", path, slices.count(None))
        kept = [
            line + b"\n" for line, slice_id in zip(lines, slices, strict=True) if slice_id not in {*slice_ids, None}
        ]
        if lines and not kept:
            self.place.remove(FAILURES)
        elif len(kept) < len(lines):
            self.place.put(FAILURES, b"".join(kept))


def name(aoi_id: str, slice_id: str, suffix: str = ".json") -> str:
    """Name one of a slice's files: suffix ``.tif``, ``_qa.tif``, ``.png`` or ``.json``."""
    return f"{aoi_id}/{slice_id}/{slice_id}{suffix}"


def as_json(content: Mapping[str, Any]) -> bytes:
    """Write an Item, a collection or a catalogue.

    The geometry is on one line: with a line for each number the file is three times as long.
    """
    geometry = json.dumps(content.get("geometry"), separators=(",", ":"), allow_nan=False)
    marker = "\x00geometry"
    marked = {key: marker if key == "geometry" else value for key, value in content.items()}
    text = json.dumps(marked, indent=2, ensure_ascii=False, allow_nan=False)
    return encoded(text.replace(json.dumps(marker), geometry, 1))


def encoded(json_text: str) -> bytes:
    """Encode JSON as UTF-8; a lone surrogate, which UTF-8 cannot hold, becomes its escape."""
    return json_text.encode(errors="backslashreplace")


def _run_of(record: bytes) -> str | None:
    """Give the id of the run of a record; None if it cannot be read."""
    try:
        return str(json.loads(record)["run"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _slice_of(line: bytes) -> str | None:
    """Give the slice id of a line of the list of failures; None if the line was cut off by a crash, or was edited."""
    try:
        slice_id = json.loads(line)["slice"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return slice_id if isinstance(slice_id, str) else None
