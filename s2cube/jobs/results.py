"""What a job costs, and its results: frozen values."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from s2cube.fetch.traffic import Traffic
from s2cube.storage.failures import SliceFailure


@dataclass(frozen=True)
class Cost:
    """What a slice is expected to take.

    Parameters
    ----------
    peak_bytes
        Memory of a worker process that makes as many slices like this one at a time as it is to; an estimate. One that
        has less makes fewer at a time.
    output_bytes
        Of its files, at most: as if nothing in them could be compressed.
    by_gdal
        Files that GDAL will read: what that takes is not foreseen, nor counted.
    """

    traffic: Traffic
    peak_bytes: int
    output_bytes: int
    by_gdal: int


@dataclass(frozen=True)
class SliceResult:
    """What became of a time slice.

    Parameters
    ----------
    path
        Of its COG, where it was written.
    failure
        Where it failed.
    rejected
        Why it was not to be written.
    doubtful
        Scenes whose pixels disagree with what their items say of the offset.
    traffic
        What it took; without files that GDAL read, which `notes` name.
    notes
        What is to be told of files, a line each.
    files
        By name, where the worker does not see the folder that they belong in.
    may_pass
        Whether it may be well if it is tried again, where it failed.
    """

    slice: str
    path: str | None = None
    failure: SliceFailure | None = None
    rejected: str | None = None
    doubtful: tuple[str, ...] = ()
    traffic: Traffic = field(default_factory=Traffic)
    notes: tuple[str, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    may_pass: bool = False


@dataclass(frozen=True)
class Summary:
    """What a run did: paths of COGs, ids of slices.

    Parameters
    ----------
    rejected, failed
        With the reason; for failed slices, whether another try may succeed.
    requests, bytes
        What reading took, without files that GDAL read.
    expected
        What it was expected to take by the items: requests and bytes.
    """

    written: list[str]
    skipped: list[str]
    rejected: list[dict[str, str]]
    failed: list[dict[str, str | bool]]
    requests: int
    bytes: int
    expected: dict[str, int]
