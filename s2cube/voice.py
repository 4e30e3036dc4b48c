"""What commands say to people, on stderr."""

import logging
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import Progress

from s2cube.config import JobConfig
from s2cube.errors import redact

if TYPE_CHECKING:
    from s2cube.job import Job
    from s2cube.outcome import SliceResult, Summary

TRACEBACK_LEVEL = logging.DEBUG // 2
LEVELS = (logging.INFO, logging.DEBUG, TRACEBACK_LEVEL)
_WIDTH_OF_A_TABLE = 200

log = logging.getLogger("s2cube")
people = Console(stderr=True, highlight=False, soft_wrap=True)


class People(logging.Handler):
    """Log lines for people, above the progress bar; other libraries log addresses with all that stands in them."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a line."""
        people.print(redact(f"{record.levelname.lower()}: {self.format(record)}"), markup=False)


class Bar:
    """Show how a run goes; where stderr is no terminal, only what failed."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def begin(self, job: "Job") -> None:
        """Take the number of slices for the whole."""
        tell_if_nothing_found(job)
        self._slices = self._progress.add_task("slices", total=len(job.todo))

    def advance(self, result: "SliceResult") -> None:
        """Move on by a slice, and say what became of it."""
        self._progress.advance(self._slices)
        if result.failure:
            log.error("%s failed: %s", result.slice, result.failure.error)
        elif result.rejected:
            log.info("%s rejected: %s", result.slice, result.rejected)
        else:
            log.debug("%s written", result.slice)


def tell_if_nothing_found(job: "Job") -> None:
    """Say for which areas there is no scene."""
    for each in job.plans:
        if not each.slices:
            people.print(f"{each.aoi.id}: {nothing_found(job.config)}", markup=False)


def nothing_found(config: JobConfig) -> str:
    """Say what was asked for in vain."""
    asked = config.search
    when = f" in {asked.datetime}" if asked.datetime else ""
    return redact(
        f"No scene matched: collection {asked.collection} of {asked.stac}{when}, "
        f"cloud cover up to {asked.max_cloud_percent:g} %. More dates, a greater --max-cloud or another --aoi may."
    )


def tell(summary: "Summary", config: JobConfig) -> None:
    """Close a run."""
    parts = [f"{len(summary.written)} slices written to {config.job.out}"]
    if summary.skipped:
        parts.append(f"{len(summary.skipped)} were there already (--overwrite makes them again)")
    if summary.rejected:
        parts.append(f"{len(summary.rejected)} rejected by --max-aoi-cloud")
    if summary.failed:
        parts.append(f"{len(summary.failed)} FAILED: see {config.job.out}/failures.jsonl; run again to retry")
    if not (summary.written or summary.failed or summary.rejected):
        parts[0] = "Nothing new to do"
    people.print("; ".join(parts) + ".", markup=False)
    if summary.requests:
        people.print(
            f"That took {summary.requests} requests and {megabytes(summary.bytes)} MB; by the items, "
            f"{summary.expected['requests']} and {megabytes(summary.expected['bytes'])} MB were expected."
        )


def paper() -> Console:
    """Give what tables are printed on."""
    # Names are worth more than a narrow window: the terminal may wrap them, but nothing cuts them.
    return Console(highlight=False, width=_WIDTH_OF_A_TABLE)


def tell_cost(total: dict[str, Any]) -> None:
    """Say what slices take."""
    if total["requests"]:
        about = "" if total["exact"] else "about "
        beside = f", and what GDAL reads of {total['by_gdal']} files" if total["by_gdal"] else ""
        read, peak, written = (megabytes(total[key]) for key in ("bytes", "peak_bytes", "output_bytes"))
        people.print(
            f"They take {about}{total['requests']} requests and {about}{read} MB{beside}; "
            f"about {peak} MB of memory a worker process; and become {written} MB at most."
        )


def megabytes(size: int) -> str:
    """Write a number of bytes."""
    return f"{size / 1e6:.1f}"
