"""Where things lie in an output folder, and how a file gets there whole or not at all."""

import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

from s2cube.errors import OutputError
from s2cube.model import SliceFailure

DATA = "data"
"""Key of the asset that is the COG."""

RECIPE = "s2cube:recipe"
"""Property of an Item: digest of what decided its pixels."""

_PART_SUFFIX = ".part"
_SCHEME = re.compile(r"[a-zA-Z][\w+.-]+:/")


@dataclass(frozen=True)
class Output:
    """An output folder.

    ::

        ROOT/catalog.json
        ROOT/<aoi>/collection.json
        ROOT/<aoi>/<slice>/<slice>.tif .png .json
        ROOT/failures.jsonl
    """

    root: Path

    @property
    def catalog(self) -> Path:
        """The catalogue over all AOIs."""
        return self.root / "catalog.json"

    @property
    def failures(self) -> Path:
        """The list of slices that failed."""
        return self.root / "failures.jsonl"

    def collection(self, aoi_id: str) -> Path:
        """Path of the collection of an AOI."""
        return self.root / aoi_id / "collection.json"

    def file(self, aoi_id: str, slice_id: str, suffix: str) -> Path:
        """Path of one of a slice's files: suffix ``.tif``, ``.png`` or ``.json``."""
        return self.root / aoi_id / slice_id / f"{slice_id}{suffix}"

    def slice_items(self) -> Iterator[Path]:
        """Yield the Item of every slice that is done, by AOI and slice."""
        for collection in sorted(self.root.iterdir()):
            for folder in sorted(collection.iterdir()) if collection.is_dir() else ():
                item = folder / f"{folder.name}.json"
                if item.exists():
                    yield item

    def is_made(self, aoi_id: str, slice_id: str, recipe: str, bands: tuple[str, ...]) -> bool:
        """Tell whether a slice is there, made by a recipe (see `TimeSlice`), with these bands in this order."""
        try:
            item = json.loads(self.file(aoi_id, slice_id, ".json").read_text(encoding="utf-8"))
            names = [band["name"] for band in item["assets"][DATA]["eo:bands"]]
            return bool(item["properties"].get(RECIPE) == recipe and names == list(bands))
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def clear(self, aoi_id: str, slice_id: str) -> None:
        """Make a slice undone, its Item first, and sweep what a broken run left half written.

        Raises
        ------
        OutputError
            If the folder cannot be written.
        """
        item = self.file(aoi_id, slice_id, ".json")
        try:
            item.unlink(missing_ok=True)
            for part in item.parent.glob(f".*{_PART_SUFFIX}"):
                part.unlink()
        except OSError as error:
            raise _unwritable(item.parent, error) from None

    def note_failure(self, failure: SliceFailure) -> None:
        """Add a line to the list of failures."""
        with self.failures.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(failure), ensure_ascii=False) + "\n")

    def forget_failures(self, slice_ids: set[str]) -> None:
        """Take slices that are done, or about to be tried again, off the list of failures."""
        if not self.failures.exists():
            return
        lines = self.failures.read_text(encoding="utf-8").splitlines()
        standing = [line for line in lines if _slice_of(line) not in slice_ids | {None}]
        if not standing:
            self.failures.unlink()
        elif len(standing) < len(lines):
            with replacing(self.failures) as part:
                part.write_text("\n".join(standing) + "\n", encoding="utf-8")

    def prepare(self) -> None:
        """Make the folder and try to write in it.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        if _SCHEME.match(str(self.root)):
            raise OutputError(str(self.root), "is no folder of this machine", "Give --out a local folder")
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root):
                pass
        except OSError as error:
            raise _unwritable(self.root, error) from None


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(str(path), f"cannot be written ({error.strerror or error})", "Choose another folder by --out")


def _slice_of(line: str) -> str | None:
    """Name the slice of a line of the list of failures; None where a crash cut the line off."""
    try:
        return str(json.loads(line)["slice"])
    except (ValueError, KeyError, TypeError):
        return None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to; rename it to `path` when that went well.

    The file is on disk before it has its name, so a crash leaves the old file, or none, but never half of one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid4().hex}{_PART_SUFFIX}")
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
