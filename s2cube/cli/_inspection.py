"""Commands that inspect an output: `status` reports its run, `verify` checks its files, `report` writes a page."""

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn

from s2cube.cli._console import local_time, megabytes, print_failure, print_notice
from s2cube.cli._flags import ConfigFile, ConsoleFlags, OutputAddress, load_settings_of_output, set_up_console
from s2cube.cli._products import pass_as_text
from s2cube.cli._reports import ByteBar, report_findings, report_record
from s2cube.errors import S2CubeError, SliceError

if TYPE_CHECKING:
    from s2cube.storage.output import Output
    from s2cube.storage.record import Record

_WATCH_INTERVAL_S = 2
_MOST_IDS = 10
"""Maximum number of ids of scenes in a line of `status`. The JSON has all."""


def status(
    out: OutputAddress = None,
    *,
    config: ConfigFile = None,
    console: ConsoleFlags = None,
    watch: Annotated[bool, Parameter(negative="", help="Repeat the report until the run has ended.")] = False,
) -> int:
    """Report the progress of the run that writes to an output, or how the last run ended; and the passes of sync."""
    console = set_up_console(console)
    from s2cube.storage.lease import read_record
    from s2cube.storage.output import Output

    settings = load_settings_of_output(out, config)
    output = Output.at(settings.job.out)
    reported = None
    while (record := read_record(output)) and watch and record.is_alive:
        if reported != record.progress:
            report_record(record)
        reported = record.progress
        time.sleep(_WATCH_INTERVAL_S)
    if record:
        report_record(record)
    sync, status_of_sync = _report_sync(output, record)
    if record is None and not sync:
        print_failure(f"{settings.job.out}: no run has written there")
        return S2CubeError.exit_status
    console.print_json((_facts(record) if record else {}) | ({"sync": sync} if sync else {}))
    statuses = {status_of_sync, _status_of(record) if record else 0}
    return S2CubeError.exit_status if S2CubeError.exit_status in statuses else max(statuses)


def _status_of(record: "Record") -> int:
    """Return the exit status for a run."""
    if record.state == "done":
        return SliceError.exit_status if record.progress.failed else 0
    return 0 if record.is_alive else S2CubeError.exit_status


def _facts(record: "Record") -> dict[str, Any]:
    left_s = None if record.left_s is None else round(record.left_s, 1)
    return asdict(record) | {"alive": record.is_alive, "slices_per_s": round(record.pace, 3), "left_s": left_s}


def _report_sync(output: "Output", record: "Record | None") -> tuple[dict[str, Any], int]:
    """Report the last pass of `sync` and the next one; return the facts, empty if there is none, and exit status."""
    from s2cube.updates.pass_record import read_passes
    from s2cube.updates.service import read_service

    facts: dict[str, Any] = {}
    status = 0
    if passes := read_passes(output.destination):
        last = passes[-1]
        facts["last"] = last.line()
        # A run that began later has made what this pass could not.
        is_made = not last.error or (record is not None and record.started > last.started)
        status = (SliceError.exit_status if last.hook else 0) if is_made else S2CubeError.exit_status
        print_notice(f"last pass of sync: {local_time(last.started)}; {pass_as_text(last)}")
        for kind in ("late", "pending"):
            if ids := getattr(last, kind):
                others = f" and {len(ids) - _MOST_IDS} more" if len(ids) > _MOST_IDS else ""
                print_notice(f"{kind}: {', '.join(ids[:_MOST_IDS])}{others}")
    if service := read_service(output):
        facts["next"] = service.next
        is_overdue = service.is_late and not (record and record.is_alive)
        status = S2CubeError.exit_status if is_overdue else status
        overdue = "; it is overdue, so this process may have ended" if is_overdue else ""
        print_notice(f"next pass of sync: {local_time(service.next)}, by {service.where}{overdue}")
    return facts, status


def verify(
    out: OutputAddress = None,
    *,
    config: ConfigFile = None,
    console: ConsoleFlags = None,
    repair: Annotated[
        bool,
        Parameter(
            negative="",
            help="Delete broken files, and the Items of missing ones: the next run recomputes them.",
        ),
    ] = False,
) -> int:
    """Read every file of an output and compare it with its checksum."""
    console = set_up_console(console)
    from s2cube.inventory.verification import Kind
    from s2cube.storage.output import Output
    from s2cube.tables import verification

    output = Output.at(load_settings_of_output(out, config).job.out)
    check = verification.repair if repair else verification.verify
    with console.progress(
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    ) as bar:
        findings = check(output, ByteBar(bar))
    report_findings(findings, repair)
    kinds: tuple[Kind, ...] = ("missing", "broken", "unverified")
    console.print_json({"checked": findings.checked} | {kind: findings.of(kind) for kind in kinds})
    return 0 if findings.is_whole else SliceError.exit_status


def report(out: OutputAddress = None, *, config: ConfigFile = None, console: ConsoleFlags = None) -> int:
    """Write OUT/report.html: one page that shows what an output has, day by day, and why it has not more."""
    console = set_up_console(console)
    from s2cube.report.page import write_report
    from s2cube.storage.output import Output

    written = write_report(Output.at(load_settings_of_output(out, config).job.out))
    days, areas = (
        ("1 day" if written.days == 1 else f"{written.days} days"),
        ("1 area" if written.areas == 1 else f"{written.areas} areas"),
    )
    problems = f"; {len(written.problems)} problems are named there" if written.problems else ""
    print_notice(f"{written.path}: {areas}, {days}, {megabytes(written.size)} MB{problems}.")
    console.print_json(asdict(written))
    return 0
