"""Where things lie in an output folder, and when a slice is done."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from s2cube.errors import BusyError
from s2cube.folder import OWN
from s2cube.outcome import SliceFailure
from s2cube.place import Place, place_at

DATA = "data"
"""Key of the asset that is the COG."""

RECIPE = "s2cube:recipe"
"""Property of an Item: digest of what decided its pixels."""

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

    def items(self) -> Iterator[tuple[str, str]]:
        """Yield AOI and slice of every Item that is there, in their order."""
        for each in self.place.names():
            aoi_id, slice_id, file = each.split("/")
            if file == f"{slice_id}.json":
                yield aoi_id, slice_id

    def state(self, aoi_id: str, slice_id: str, recipe: str, bands: tuple[str, ...]) -> State:
        """Tell whether a slice is there, made by a recipe (see `TimeSlice`), with these bands in this order."""
        item = self.place.read(name(aoi_id, slice_id))
        if item is None:
            return "none"
        return "made" if _made_by(item) == (recipe, bands) else "other"

    def publish(self, aoi_id: str, slice_id: str, folder: Path) -> str:
        """Put the files of a slice where they belong, from a folder of this machine; give the path of the COG.

        The Item is put last, and before anything else is changed an Item of other pixels is taken away: whenever this
        ends, an Item stands beside its own files.

        Raises
        ------
        BusyError
            If another run writes there now.
        WriteError
            If it cannot be written.
        """
        self.check_run()
        item = name(aoi_id, slice_id)
        own = (folder / f"{slice_id}.json").read_bytes()
        if _made_by(self.place.read(item)) != _made_by(own):
            self.place.remove(item)
        for path in sorted(folder.iterdir(), key=lambda path: path.suffix == ".json"):
            self.place.put(f"{aoi_id}/{slice_id}/{path.name}", path)
        return self.path(aoi_id, slice_id)

    def check_run(self) -> None:
        """Make sure that the run still is the one that writes there.

        Raises
        ------
        BusyError
            If it is not.
        """
        if self.run and not self.is_reached():
            raise BusyError(self.place.address, "is written by another run now", "Wait for it, then run again")

    def is_reached(self) -> bool:
        """Tell whether this is, seen from this machine, the output that the run writes to."""
        try:
            return bool(json.loads(self.place.read(RUN) or b"{}").get("run") == self.run)
        except ValueError:
            return False

    def note_failure(self, failure: SliceFailure) -> None:
        """Add a line to the list of failures."""
        self.check_run()
        line = json.dumps(asdict(failure), ensure_ascii=False) + "\n"
        self.place.put(FAILURES, (self.place.read(FAILURES) or b"") + line.encode())

    def forget_failures(self, slice_ids: set[str]) -> None:
        """Take slices that are done, or about to be tried again, off the list of failures."""
        self.check_run()
        lines = (self.place.read(FAILURES) or b"").decode(errors="replace").splitlines()
        standing = [line for line in lines if _slice_of(line) not in slice_ids | {None}]
        if lines and not standing:
            self.place.remove(FAILURES)
        elif len(standing) < len(lines):
            self.place.put(FAILURES, ("\n".join(standing) + "\n").encode())


def name(aoi_id: str, slice_id: str, suffix: str = ".json") -> str:
    """Name one of a slice's files: suffix ``.tif``, ``_qa.tif``, ``.png`` or ``.json``."""
    return f"{aoi_id}/{slice_id}/{slice_id}{suffix}"


def as_json(content: Mapping[str, Any]) -> bytes:
    """Write down an Item, a collection or a catalogue.

    The geometry is one line: with a line for each number it is three times as long.
    """
    geometry = json.dumps(content.get("geometry"), separators=(",", ":"), allow_nan=False)
    marker = "\x00geometry"
    marked = {key: marker if key == "geometry" else value for key, value in content.items()}
    text = json.dumps(marked, indent=2, ensure_ascii=False, allow_nan=False)
    return text.replace(json.dumps(marker), geometry, 1).encode()


def _made_by(item: bytes | None) -> tuple[str, tuple[str, ...]] | None:
    """Read off an Item by which recipe and with which bands it was made; None if it is none of s2cube's."""
    try:
        content = json.loads(item or b"")
        return content["properties"][RECIPE], tuple(band["name"] for band in content["assets"][DATA]["eo:bands"])
    except (ValueError, KeyError, TypeError):
        return None


def _slice_of(line: str) -> str | None:
    """Name the slice of a line of the list of failures; None where a crash cut the line off."""
    try:
        return str(json.loads(line)["slice"])
    except (ValueError, KeyError, TypeError):
        return None
