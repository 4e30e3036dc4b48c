"""Compare the files of an output with the sizes and checksums in their Items and collections."""

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from typing import Literal, Protocol

from s2cube.errors import OutputError
from s2cube.inventory._items_table import read_items_table
from s2cube.inventory._timeline import Listed, listed_timeline
from s2cube.inventory.catalog import write_catalog
from s2cube.storage.image_item import SHA2_256, ImageItem, checksum, read_item
from s2cube.storage.layout import ITEMS, SLICE_DEPTH, collection_file, slice_file, slice_folder, timeline_file
from s2cube.storage.lease import held, read_record
from s2cube.storage.output import Output

log = logging.getLogger(__name__)

_THREADS = 8
"""Number of slices that are read at a time. The files of a slice are read one after the other."""

_CHECKS = 3
"""Maximum number of checks of a slice. A check is repeated if a run replaces the slice meanwhile."""

Kind = Literal["missing", "broken", "unverified"]


@dataclass(frozen=True)
class Flaw:
    """A file that is missing or broken, or that cannot be verified.

    Parameters
    ----------
    name
        Relative to the output.
    why
        A description of the flaw that follows the name, such as "is missing".
    """

    kind: Kind
    name: str
    why: str


@dataclass(frozen=True)
class Findings:
    """The result of a verification.

    Parameters
    ----------
    checked
        Number of files that Items name, of timelines that collections name, and of Items that cannot be read.
    flaws
        Sorted by name.
    """

    checked: int
    flaws: tuple[Flaw, ...]

    def of(self, kind: Kind) -> list[str]:
        """Return the names of the files with a kind of flaw, relative to the output."""
        return [flaw.name for flaw in self.flaws if flaw.kind == kind]

    @property
    def is_whole(self) -> bool:
        """Whether no file is missing or broken."""
        return not self.of("missing") and not self.of("broken")


class Watch(Protocol):
    """Receives the progress of a verification."""

    def begin(self, size: int) -> None:
        """Receive the number of bytes that will be read."""

    def advance(self, size: int) -> None:
        """Receive the number of bytes that have just been read."""


def verify(output: Output, watch: Watch | None = None) -> Findings:
    """Read every file that an Item names, and every timeline; compare them with their recorded sizes and checksums.

    The table of all Items must have a row for each, unless a run is writing them now.

    Raises
    ------
    OutputError
        If there is no output of s2cube.
    WriteError
        If the output cannot be read.
    """
    sizes = output.sizes()
    items = list(output.items(sizes))
    if not items and read_record(output) is None:
        raise OutputError(output.destination.address, "contains no output of s2cube", "Correct --out")
    if watch:
        folders = {f"{aoi_id}/{slice_id}" for aoi_id, slice_id in items}
        watch.begin(sum(size for each, size in sizes.items() if each.rpartition("/")[0] in folders))
    checked, flaws = 0, list[Flaw]()
    # Threads of a ThreadPoolExecutor would keep the process alive while they wait for a disk.
    with ThreadPool(_THREADS) as threads:
        for count, found in threads.imap_unordered(lambda each: _check_slice(output, *each, sizes, watch), items):
            checked += count
            flaws += found
    for aoi_id in dict.fromkeys(aoi_id for aoi_id, _ in items):
        count, found = _check_timeline(output, aoi_id)
        checked += count
        flaws += found
    if table_flaw := _table_flaw(output, items):
        checked += 1
        flaws.append(table_flaw)
    return Findings(checked, tuple(sorted(flaws, key=lambda flaw: flaw.name)))


def repair(output: Output, watch: Watch | None = None) -> Findings:
    """Verify an output, and repair it.

    Items of missing or broken files are deleted, so that the next run recomputes their slices. Missing or broken
    timelines are drawn again.

    A table that is broken is written again.

    Raises
    ------
    BusyError
        If a run writes there.
    OutputError
        If there is no output of s2cube.
    WriteError
        If the output cannot be read or written.
    """
    if not output.sizes():
        return verify(output, watch)  # the output is empty, and `held` would create a file there
    with held(output, ends_as=None) as lease:
        findings = verify(lease.output, watch)
        flawed = findings.of("missing") + findings.of("broken")
        files = [name_.split("/") for name_ in flawed if name_ != ITEMS]
        for aoi_id, slice_id in sorted({(file[0], file[1]) for file in files if len(file) == SLICE_DEPTH}):
            lease.check()
            lease.output.destination.remove(slice_file(aoi_id, slice_id))
            log.warning("%s: its Item was deleted; the next run recomputes the slice", slice_id)
        for aoi_id in {file[0] for file in files if len(file) < SLICE_DEPTH}:
            lease.check()
            lease.output.destination.remove(timeline_file(aoi_id))
            log.warning("%s: its timeline is drawn again", aoi_id)
        if flawed:
            write_catalog(lease.output, None if ITEMS in flawed else {file[0] for file in files})
    return findings


def _check_slice(
    output: Output, aoi_id: str, slice_id: str, sizes: Mapping[str, int], watch: Watch | None
) -> tuple[int, list[Flaw]]:
    """Count the files of a slice, and describe their flaws."""
    count, flaws = 0, list[Flaw]()
    for _ in range(_CHECKS):
        content = output.destination.read(slice_file(aoi_id, slice_id))
        if content is None:
            return 0, []  # a run is replacing it
        try:
            item = read_item(content, aoi_id, slice_id)
        except ValueError as error:
            count, flaws = 1, [Flaw("broken", slice_file(aoi_id, slice_id), f"cannot be read as an Item ({error})")]
        else:
            found = [_find_flaw(output, each, item, sizes, watch) for each in item.files]
            count, flaws = len(found), [flaw for flaw in found if flaw]
        if (
            all(flaw.kind == "unverified" for flaw in flaws)
            or output.destination.read(slice_file(aoi_id, slice_id)) == content
        ):
            break
        sizes = output.sizes(slice_folder(aoi_id, slice_id))
    return count, flaws


def _table_flaw(output: Output, items: Sequence[tuple[str, str]]) -> Flaw | None:
    """Compare the slices of the table of all Items with the existing ones; None if they are the same, or no table."""
    record = read_record(output)
    if output.destination.read(ITEMS) is None or (record and record.is_alive and record.run != output.run):
        return None
    table = read_items_table(output)
    if table is None:
        return Flaw("broken", ITEMS, "cannot be read as a table of Items")
    if missing := {*items} - {(each["collection"], each["id"]) for each in table}:
        return Flaw("broken", ITEMS, f"has no row for {len(missing)} Items, such as {min(missing)[1]}")
    return None


def _check_timeline(output: Output, aoi_id: str) -> tuple[int, list[Flaw]]:
    """Count the timeline of an AOI, if its collection names one, and describe its flaws."""
    flaws = list[Flaw]()
    for _ in range(_CHECKS):
        collection = output.destination.read(collection_file(aoi_id))
        listed = listed_timeline(collection)
        if listed is None:
            return 0, []
        flaws = list(_timeline_flaws(output, timeline_file(aoi_id), listed))
        if not flaws or output.destination.read(collection_file(aoi_id)) == collection:
            break
    return 1, flaws


def _timeline_flaws(output: Output, name: str, listed: Listed) -> Iterator[Flaw]:
    try:
        content = b"".join(output.destination.chunks(name))
    except FileNotFoundError:
        yield Flaw("missing", name, "is missing")
        return
    except OutputError as error:
        yield Flaw("broken", name, error.problem)
        return
    except OSError as error:
        yield Flaw("broken", name, f"cannot be read ({error.strerror or error})")
        return
    if len(content) != listed.size:
        yield Flaw("broken", name, f"has {len(content)} bytes, not {listed.size}")
    elif checksum(content) != listed.checksum:
        yield Flaw("broken", name, "differs from its checksum")


def _find_flaw(
    output: Output, file: str, item: ImageItem, sizes: Mapping[str, int], watch: Watch | None
) -> Flaw | None:
    size, recorded = item.files[file], item.checksums.get(file)
    if file not in sizes:
        return Flaw("missing", file, "is missing")
    if size not in (None, sizes[file]):
        return Flaw("broken", file, f"has {sizes[file]} bytes, not {size}")
    if recorded is None or not recorded.startswith(SHA2_256):
        return Flaw("unverified", file, "has no SHA2-256 in its Item")
    digest = hashlib.sha256()
    try:
        for chunk in output.destination.chunks(file):
            digest.update(chunk)
            if watch:
                watch.advance(len(chunk))
    except FileNotFoundError:
        return Flaw("missing", file, "is missing")
    except OSError as error:
        return Flaw("broken", file, f"cannot be read ({error.strerror or error})")
    return None if recorded == SHA2_256 + digest.hexdigest() else Flaw("broken", file, "differs from its checksum")
