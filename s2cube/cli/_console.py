"""What commands print: for people on stderr, and for programs on stdout.

Ids, addresses and answers of servers come from outside. All that is shown goes through one of the handlers, `add_row`
or `json_line`: these remove control characters, markup and secrets.
"""

import json
import logging
import re
import sys
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from s2cube.config.sections import JobConfig
from s2cube.config.times import timestamp
from s2cube.errors import printable, redact, safe_text

if TYPE_CHECKING:
    from s2cube.jobs.job import Job
    from s2cube.jobs.results import SliceResult, Summary
    from s2cube.jobs.verification import Findings
    from s2cube.scenes.time_slice import UnusableSlice
    from s2cube.storage.record import Record

TRACEBACK_LEVEL = logging.DEBUG // 2
LEVELS = (logging.INFO, logging.DEBUG, TRACEBACK_LEVEL)
_WIDTH_OF_A_TABLE = 200
_LONGEST_LINE = 16_000
"""Characters of a line of the log, and of a traceback: an error of three long facts is shown completely."""

_SURROGATES = re.compile("[\ud800-\udfff]")

SAY = (logging.INFO + logging.WARNING) // 2
"""Level of what a command has to say: not a warning, but more than how it goes."""

FACTS = ("run", "slice", "scenes", "asset")
"""What a line of the log is about, where it is about one."""

log = logging.getLogger("s2cube")
people = Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)


class People(logging.Handler):
    """Log lines for people, above the progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a line, and a traceback if there is one."""
        kind = {SAY: "", logging.CRITICAL: "s2cube: "}.get(record.levelno, f"{record.levelname.lower()}: ")
        people.print(f"{kind}{_line(record)}")
        for line in _traceback(record):
            people.print(line)


class JsonLines(logging.Handler):
    """Log lines for programs: one JSON object each, on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a line."""
        level = "info" if record.levelno == SAY else record.levelname.lower()
        facts = {"time": timestamp(datetime.fromtimestamp(record.created, UTC)), "level": level, "event": _line(record)}
        facts |= {key: _shown(value) for key in FACTS if (value := getattr(record, key, None))}
        if lines := list(_traceback(record)):
            facts["traceback"] = "\n".join(lines)
        print(json_line(facts, sys.stderr.encoding or "ascii"), file=sys.stderr, flush=True)


def _line(record: logging.LogRecord) -> str:
    return safe_text(record.getMessage(), _LONGEST_LINE)


def _traceback(record: logging.LogRecord) -> Iterator[str]:
    if record.exc_info and record.exc_info[0]:
        text = "".join(traceback.format_exception(*record.exc_info))
        yield from map(printable, redact(text, _LONGEST_LINE).splitlines())


def _shown(fact: Any) -> Any:
    return [safe_text(str(each)) for each in fact] if isinstance(fact, list | tuple) else safe_text(str(fact))


def json_line(content: object, encoding: str = "ascii") -> str:
    """Make one line of JSON for a stream with an encoding.

    A lone surrogate becomes U+FFFD: strict readers refuse JSON that holds one.
    """
    line = _SURROGATES.sub("\ufffd", json.dumps(content, ensure_ascii=False))
    try:
        line.encode(encoding)
    except UnicodeEncodeError:
        return json.dumps(json.loads(line))
    return line


def say(text: str) -> None:
    """Say what a command has to say."""
    log.log(SAY, "%s", text)


def complain(line: str) -> None:
    """Say why a command ends."""
    deep = log.getEffectiveLevel() <= TRACEBACK_LEVEL and sys.exc_info()[0] is not None
    log.critical("%s", line, exc_info=deep)


class Bar:
    """Show how a run goes; where stderr is no terminal, nothing."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.written = self.failed = self.total = 0

    def begin(self, job: "Job") -> None:
        """Take the number of slices for the whole."""
        tell_if_nothing_found(job)
        say_what_is_unusable(job)
        say_what_has_changed(job)
        self.total = job.total
        self._slices = self._progress.add_task("slices", total=self.total)

    def advance(self, result: "SliceResult") -> None:
        """Move on by a slice."""
        self.written += bool(result.path)
        self.failed += bool(result.failure)
        description = f"slices, {self.failed} FAILED" if self.failed else "slices"
        self._progress.update(self._slices, advance=1, description=description)

    @property
    def told(self) -> str:
        """Progress of the run, in words."""
        failed = f", {self.failed} FAILED" if self.failed else ""
        return f"{self.written} of {self.total} slices are done{failed}"


class ReadingBar:
    """Show the progress of reading files, if stderr is a terminal. Any thread may call it."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("reading", total=None)

    def begin(self, size: int) -> None:
        """Set the total number of bytes."""
        self._progress.update(self._task, total=size)

    def advance(self, size: int) -> None:
        """Advance by some bytes."""
        self._progress.advance(self._task, size)


def say_what_is_unusable(job: "Job") -> None:
    """Say why slices cannot be made, in one line for each reason."""
    kinds: dict[tuple[str, str], list[UnusableSlice]] = {}
    for each in job.unusable:
        kinds.setdefault((each.error.problem, each.error.remedy), []).append(each)
    for (problem, remedy), alike in kinds.items():
        first, *others = alike
        if not others:
            log.error("%s cannot be made: %s", first.id, first.error, extra={"slice": first.id})
            continue
        log.error(
            "%d slices cannot be made, %s to %s: %s %s (the others likewise). %s",
            len(alike), first.id, others[-1].id, first.error.subject, problem, remedy,
        )  # fmt: skip


def say_what_has_changed(job: "Job") -> None:
    """Say why images are made again, in one line for all with the same reason."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for slice_id, changes in job.changes.items():
        alike.setdefault(changes, []).append(slice_id)
    for changes, (first, *others) in alike.items():
        why = "; ".join(changes)
        if others:
            say(f"{len(others) + 1} slices, {first} to {others[-1]}, will be made again: {why}.")
        else:
            say(f"{first} will be made again: {why}.")


def tell_if_nothing_found(job: "Job") -> None:
    """Say for which areas there is no scene."""
    for each in job.plans:
        if not each.slices and not each.unusable:
            say(f"{each.aoi.id}: {nothing_found(job.config)}")


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
        why = "made before it was stopped" if config.job.overwrite else "there already (--overwrite makes them again)"
        parts.append(f"{len(summary.skipped)} were {why}")
    if summary.rejected:
        parts.append(f"{len(summary.rejected)} rejected by --max-aoi-cloud")
    if summary.failed:
        retry = "; run again to retry" if any(each["may_pass"] for each in summary.failed) else ""
        parts.append(f"{len(summary.failed)} FAILED: see {config.job.out}/failures.jsonl{retry}")
    if not (summary.written or summary.failed or summary.rejected):
        parts[0] = "Nothing new to do"
    say("; ".join(parts) + ".")
    if summary.requests:
        say(
            f"That took {summary.requests} requests and {megabytes(summary.bytes)} MB; by the items, "
            f"{summary.expected['requests']} and {megabytes(summary.expected['bytes'])} MB were expected."
        )


def paper() -> Console:
    """Give what tables are printed on."""
    # Names are worth more than a narrow window: the terminal may wrap them, but nothing cuts them.
    return Console(highlight=False, width=_WIDTH_OF_A_TABLE, markup=False, emoji=False)


def add_row(table: Table, *facts: object) -> None:
    """Add a row to a table that is printed on `paper`."""
    table.add_row(*(Text(safe_text(str(fact))) for fact in facts))


def tell_cost(total: dict[str, Any]) -> None:
    """Say what slices take."""
    if total["requests"]:
        about = "" if total["exact"] else "about "
        beside = f", and what GDAL reads of {total['by_gdal']} files" if total["by_gdal"] else ""
        read, peak, written = (megabytes(total[key]) for key in ("bytes", "peak_bytes", "output_bytes"))
        say(
            f"They take {about}{total['requests']} requests and {about}{read} MB{beside}; "
            f"about {peak} MB of memory a worker process; and become {written} MB at most."
        )


def megabytes(size: int) -> str:
    """Write a number of bytes."""
    return f"{size / 1e6:.1f}"


def tell_record(record: "Record") -> None:
    """Report how a run goes or ended, and a later run that ended before it made anything."""
    progress, going = record.progress, record.state == "running"
    parts = [f"{progress.written} of {progress.total} slices done"]
    parts += [f"{progress.failed} FAILED"] if progress.failed else []
    parts += [f"{progress.rejected} rejected"] if progress.rejected else []
    parts += [f"{progress.skipped} were there already"] if progress.skipped else []
    parts += [f"{progress.running} running"] if going else []
    if going and record.left_s is not None:
        parts.append(f"{60 * record.pace:.1f} slices a minute, {timedelta(seconds=round(record.left_s))} left")
    say(f"{record.description}: {', '.join(parts)} ({record.where}, began {record.started})")
    if later := record.attempt:
        say(f"A later run made nothing: {later.ended} ({later.where}, began {later.started})")


def tell_findings(findings: "Findings", repaired: bool) -> None:
    """Report the result of a verification."""
    for flaw in findings.flaws:
        log.log(logging.INFO if flaw.kind == "unverified" else logging.ERROR, "%s %s", flaw.name, flaw.why)
    missing, broken, unverified = (len(findings.of(kind)) for kind in ("missing", "broken", "unverified"))
    parts = [f"{findings.checked - missing - broken - unverified} of {findings.checked} files are as they were written"]
    parts += [f"{missing} MISSING"] if missing else []
    parts += [f"{broken} BROKEN"] if broken else []
    parts += [f"{unverified} present, but without a checksum to compare (-v names them)"] if unverified else []
    remedy = "The next run makes them again" if repaired else "Use --repair, then the next run makes them again"
    say(f"{', '.join(parts)}." + (f" {remedy}." if missing or broken else ""))
