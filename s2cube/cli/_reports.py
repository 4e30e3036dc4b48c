"""Report jobs, runs and outputs to people: progress bars and messages on stderr."""

import logging
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from rich.progress import Progress

from s2cube import progress_bar
from s2cube.cli._console import local_time, log, megabytes, print_notice
from s2cube.cli._flags import Console
from s2cube.config.sections import JobConfig
from s2cube.errors import redact

if TYPE_CHECKING:
    from s2cube.composites.compute_composites import CompositeSummary
    from s2cube.inventory.verification import Findings
    from s2cube.jobs.job import Job
    from s2cube.jobs.results import Summary, TableSummary
    from s2cube.scenes.time_slice import UnusableSlice
    from s2cube.storage.record import Record, Unit
    from s2cube.zonal.forecast_rows import RowForecast


class SliceBar(progress_bar.SliceBar):
    """Show the progress of a run, if stderr is a terminal."""

    def begin(self, job: "Job") -> None:  # type: ignore[override]  # the plan is reported, too
        """Report what is known before slices are computed, and set the total number of slices."""
        report_plan(job)
        super().begin(job)

    @property
    def summary(self) -> str:
        """Progress of the run as text."""
        failed = f", {self.failed} FAILED" if self.failed else ""
        return f"{self.written} of {self.total} {self.unit} written{failed}"


@contextmanager
def shown(console: Console, config: JobConfig, unit: "Unit" = "slices") -> Iterator[SliceBar]:
    """Show the progress of a run during a block. If the run is stopped, report what it has written.

    Parameters
    ----------
    unit
        What the run computes.
    """
    with console.progress(*progress_bar.columns()) as progress:
        bar = SliceBar(progress)
        try:
            yield bar
        except KeyboardInterrupt as interrupted:
            if bar.total:
                print_notice(bar.summary)
            # The command line prints the arguments after the number of the signal.
            advice = how_to_continue(config, unit)
            raise KeyboardInterrupt(*(interrupted.args or (signal.SIGINT,)), advice) from None


class ByteBar:
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


def report_plan(job: "Job") -> None:
    """Report areas without scenes, slices that cannot be computed, and slices that are recomputed."""
    report_areas_without_scenes(job)
    report_unusable(job)
    report_changes(job)
    report_older_items(job)


def report_areas_without_scenes(job: "Job") -> None:
    """Report the areas for which the search found no scene."""
    for each in job.plans:
        if not each.slices and not each.unusable:
            print_notice(f"{each.aoi.id}: {no_scene_message(job.config)}")


def report_unusable(job: "Job") -> None:
    """Report slices that cannot be computed, in one line for each reason."""
    by_reason: dict[tuple[str, str], list[UnusableSlice]] = {}
    for each in job.unusable:
        by_reason.setdefault((each.error.problem, each.error.remedy), []).append(each)
    for (problem, remedy), alike in by_reason.items():
        first, *others = alike
        if not others:
            log.error("%s cannot be computed: %s", first.id, first.error, extra={"slice": first.id})
            continue
        log.error(
            "%d slices cannot be computed, %s to %s: %s %s (the others for the same reason). %s",
            len(alike), first.id, others[-1].id, first.error.subject, problem, remedy,
        )  # fmt: skip


def report_changes(job: "Job") -> None:
    """Report why slices are recomputed, in one line for all slices with the same reason."""
    by_reason: dict[tuple[str, ...], list[str]] = {}
    for slice_id, changes in job.changes.items():
        by_reason.setdefault(changes, []).append(slice_id)
    for changes, (first, *others) in by_reason.items():
        reason = "; ".join(changes)
        if others:
            print_notice(f"{len(others) + 1} slices, {first} to {others[-1]}, will be recomputed: {reason}.")
        else:
            print_notice(f"{first} will be recomputed: {reason}.")


def report_older_items(job: "Job") -> None:
    """Report that Items are rewritten because s2cube writes another form of Items now."""
    if job.older:
        items = "1 Item is" if len(job.older) == 1 else f"{len(job.older)} Items are"
        print_notice(f"{items} rewritten in the new form; the images stay as they are.")


def no_scene_message(config: JobConfig) -> str:
    """Describe the search that found no scene."""
    search = config.search
    when = f" in {search.datetime}" if search.datetime else ""
    return redact(
        f"No scene matched: collection {search.collection} of {search.stac}{when}, "
        f"cloud cover up to {search.max_cloud_percent:g} %. Try more dates, a higher --max-cloud or another --aoi."
    )


def how_to_continue(config: JobConfig, unit: "Unit" = "slices") -> str:
    """Describe what the next run does after this one was stopped.

    Parameters
    ----------
    unit
        What the run computes.
    """
    if config.job.overwrite:
        old = "old images of the others" if unit == "slices" else "other old rows"
        return (
            f"written {unit} remain, and the same command recomputes the others; "
            f"a run without --overwrite leaves the {old} as they are"
        )
    return f"written {unit} remain, and the same command continues from there"


def report_summary(summary: "Summary", config: JobConfig) -> None:
    """Report the results of a run."""
    parts = [f"{len(summary.written)} slices written to {config.job.out}"]
    if summary.rows:
        parts.append(f"{_rows(summary.rows)} of statistics written")
    if summary.skipped:
        why = (
            "were written before the run stopped"
            if config.job.overwrite
            else "exist already (--overwrite replaces them)"
        )
        parts.append(f"{len(summary.skipped)} {why}")
    if summary.rejected:
        parts.append(f"{len(summary.rejected)} rejected by --max-aoi-cloud")
    parts += _failed_part(summary.failed, config)
    if not (summary.written or summary.failed or summary.rejected or summary.rows):
        parts[0] = "Nothing new to do"
    print_notice("; ".join(parts) + ".")
    if summary.requests:
        needed, expected = summary.expected, []
        for key, write in (("requests", str), ("bytes", megabytes)):
            least, most = write(needed[key]), write(needed[f"{key}_at_most"])
            expected.append(least if least == most else f"{least} to {most}")
        print_notice(
            f"The run needed {summary.requests} requests and {megabytes(summary.bytes)} MB. Forecast from the items: "
            f"{expected[0]} requests and {expected[1]} MB."
        )


def _failed_part(failed: Sequence[Mapping[str, str | bool]], config: JobConfig) -> list[str]:
    """Return the part of a message that says what failed; an empty list if nothing did."""
    retry = "; run again to retry" if any(each["may_pass"] for each in failed) else ""
    return [f"{len(failed)} FAILED: see {config.job.out}/failures.jsonl{retry}"] if failed else []


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"


def report_table(summary: "TableSummary", config: JobConfig) -> None:
    """Report the results of a run that computes statistics."""
    files = "1 file" if len(summary.written) == 1 else f"{len(summary.written)} files"
    parts = [f"{_rows(summary.rows)} written to {files} in {config.job.out}" if summary.rows else "No new row"]
    parts += [f"{len(summary.skipped)} exist already"] if summary.skipped else []
    parts += _failed_part(summary.failed, config)
    if not (summary.rows or summary.skipped or summary.failed):
        print_notice(no_scene_message(config))
    print_notice("; ".join(parts) + ".")
    if summary.requests:
        print_notice(f"The run needed {summary.requests} requests and {megabytes(summary.bytes)} MB.")


def report_composites(summary: "CompositeSummary", config: JobConfig) -> None:
    """Report the results of a run that computes composites."""
    written = len(summary.written)
    composites = "1 composite" if written == 1 else f"{written} composites"
    parts = [f"{composites} written to {config.job.out}" if written else "No new composite"]
    parts += [f"{len(summary.skipped)} exist already"] if summary.skipped else []
    parts += _failed_part(summary.failed, config)
    print_notice("; ".join(parts) + ".")
    if summary.requests:
        saved = (
            f", and saved about {megabytes(summary.estimated_bytes_saved)} MB" if summary.estimated_bytes_saved else ""
        )
        print_notice(f"The run needed {summary.requests} requests and {megabytes(summary.bytes)} MB{saved}.")


def report_rows(found: "RowForecast") -> None:
    """Report how many rows of statistics a run would compute, and why others cannot be computed."""
    for error, (count, first) in found.failures.items():
        rows = first if count == 1 else f"{first} and {count - 1} more"
        log.error("%s cannot be computed: %s", rows, error, extra={"slice": first})
    failed = sum(count for count, _ in found.failures.values())
    unusable = f", {failed} that cannot be computed" if failed else ""
    areas = "1 area" if found.areas == 1 else f"{found.areas} areas"
    print_notice(f"{_rows(found.rows)} of {areas} to do, {found.skipped} done{unusable}.")


def report_cost(total: dict[str, Any], subject: str = "slices") -> None:
    """Report the requests, bytes and memory that slices or rows need."""
    if total["requests"]:
        about = "" if total["exact"] else "about "
        files = "1 file" if total["by_gdal"] == 1 else f"{total['by_gdal']} files"
        by_gdal = f", without what GDAL will read from {files}" if total["by_gdal"] else ""
        read, peak, written = (megabytes(total[key]) for key in ("bytes", "peak_bytes", "output_bytes"))
        print_notice(
            f"The {subject} need {about}{total['requests']} requests and {about}{read} MB{by_gdal}{_if_shared(total)}; "
            f"about {peak} MB of memory per worker process; and at most {written} MB of output."
        )


def _if_shared(total: dict[str, Any]) -> str:
    """Describe how much more is read if several processes read the same files."""
    if (total["requests_at_most"], total["bytes_at_most"]) == (total["requests"], total["bytes"]):
        return ""
    processes = f"{total['processes']} processes" if total["processes"] else "many processes"
    return (
        f" in one worker process, and at most {total['requests_at_most']} requests and "
        f"{megabytes(total['bytes_at_most'])} MB in {processes}, because each reads the files that slices share"
    )


def report_record(record: "Record") -> None:
    """Report the progress or the end of a run, and a later run that ended before it wrote anything."""
    progress, is_running = record.progress, record.state == "running"
    parts = [f"{progress.written} of {progress.total} {progress.unit} written"]
    parts += [f"{progress.failed} FAILED"] if progress.failed else []
    parts += [f"{progress.rejected} rejected"] if progress.rejected else []
    parts += [f"{progress.skipped} existed already"] if progress.skipped else []
    parts += [f"{progress.running} running"] if is_running else []
    if is_running and record.left_s is not None:
        left = timedelta(seconds=round(record.left_s))
        parts.append(f"{60 * record.pace:.1f} {progress.unit} per minute, {left} left")
    print_notice(f"{record.description}: {', '.join(parts)} ({record.where}, began {local_time(record.started)})")
    if later := record.attempt:
        print_notice(f"A later run wrote nothing: {later.ended} ({later.where}, began {local_time(later.started)})")


def report_findings(findings: "Findings", repaired: bool) -> None:
    """Report the result of a verification."""
    for flaw in findings.flaws:
        log.log(logging.INFO if flaw.kind == "unverified" else logging.ERROR, "%s %s", flaw.name, flaw.why)
    missing, broken, unverified = (len(findings.of(kind)) for kind in ("missing", "broken", "unverified"))
    parts = [f"{findings.checked - missing - broken - unverified} of {findings.checked} files are unchanged"]
    parts += [f"{missing} MISSING"] if missing else []
    parts += [f"{broken} BROKEN"] if broken else []
    parts += [f"{unverified} present, but without a checksum to compare (-v names them)"] if unverified else []
    remedy = "The next run recomputes them" if repaired else "Use --repair, then the next run recomputes them"
    print_notice(f"{', '.join(parts)}." + (f" {remedy}." if missing or broken else ""))
