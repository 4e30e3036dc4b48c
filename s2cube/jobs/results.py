"""The cost of a slice, and the summary of a run: frozen values."""

from dataclasses import dataclass

from s2cube.fetch.traffic import Traffic


@dataclass(frozen=True)
class Cost:
    """The expected cost of a slice.

    Parameters
    ----------
    peak_bytes
        Estimated memory of a worker process in which every thread computes a slice like this one. A process with less
        memory computes fewer slices at a time.
    output_bytes
        Maximum size of the files of the slice: their size without compression.
    by_gdal
        Number of files that GDAL will read. Their requests and bytes are not predicted.
    shared_with
        Ids of earlier slices that fetch parts of files that this slice needs, too. `traffic` does not include them.
    """

    traffic: Traffic
    peak_bytes: int
    output_bytes: int
    by_gdal: int
    shared_with: tuple[str, ...] = ()


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
        Slices with the reason. For failed slices also whether another attempt may succeed.
    requests, bytes
        Requests and bytes of reading; see `SliceResult.traffic`.
    expected
        Requests and bytes that were predicted from the items, for one worker process. `requests_at_most` and
        `bytes_at_most` are the maxima for the workers of the run: each process fetches shared parts of files itself.
    rows
        Number of rows of statistics that were written; None if the job has no statistics.
    """

    written: list[str]
    skipped: list[str]
    rejected: list[dict[str, str]]
    failed: list[dict[str, str | bool]]
    requests: int
    bytes: int
    expected: dict[str, int]
    rows: int | None = None


@dataclass(frozen=True)
class TableSummary:
    """The summary of a run that computes statistics.

    Parameters
    ----------
    rows
        Number of rows that were written.
    written
        Paths of the files of the table that were written.
    skipped
        Ids of slices whose rows were up to date.
    failed
        Ids of slices that have no new row, with the reason, and whether another attempt may succeed.
    requests, bytes
        Requests and bytes of reading; see `SliceResult.traffic`.
    """

    rows: int
    written: list[str]
    skipped: list[str]
    failed: list[dict[str, str | bool]]
    requests: int
    bytes: int
