"""The cost of a slice, the result of a slice, and the summary of a run: frozen values."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from s2cube.fetch.traffic import Traffic
from s2cube.storage.failures import SliceFailure


@dataclass(frozen=True)
class Cost:
    """The expected cost of a slice.

    Parameters
    ----------
    peak_bytes
        Estimate of the memory of a worker process that computes as many slices like this one at a time as it has
        threads. A process with less memory computes fewer at a time.
    output_bytes
        Greatest size of its files: their size without compression.
    by_gdal
        Number of files that GDAL will read. Their requests and bytes are neither predicted nor counted.
    """

    traffic: Traffic
    peak_bytes: int
    output_bytes: int
    by_gdal: int


@dataclass(frozen=True)
class SliceResult:
    """The result of a time slice: written, failed or rejected.

    Parameters
    ----------
    path
        Path or address of its COG, if it was written.
    failure
        Why it failed, if it did.
    rejected
        Why it is not written, if it was rejected.
    doubtful
        Ids of scenes whose pixels contradict the offset that is added to them.
    traffic
        Requests and bytes; without those of files that GDAL read, which `notes` name.
    notes
        Lines for the log about files.
    files
        Content of its files by name, if the worker cannot reach the output.
    """

    slice: str
    path: str | None = None
    failure: SliceFailure | None = None
    rejected: str | None = None
    doubtful: tuple[str, ...] = ()
    traffic: Traffic = field(default_factory=Traffic)
    notes: tuple[str, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def may_pass(self) -> bool:
        """Whether it has failed and another try may succeed."""
        return self.failure is not None and self.failure.may_pass


@dataclass(frozen=True)
class Summary:
    """The summary of a run.

    Parameters
    ----------
    written
        Paths of COGs.
    skipped
        Ids of slices whose images were up to date.
    rejected, failed
        Slices with the reason; for failed slices, whether another attempt may succeed.
    requests, bytes
        Cost of reading, without files that GDAL read.
    expected
        Requests and bytes that were predicted from the items.
    """

    written: list[str]
    skipped: list[str]
    rejected: list[dict[str, str]]
    failed: list[dict[str, str | bool]]
    requests: int
    bytes: int
    expected: dict[str, int]
