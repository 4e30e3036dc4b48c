"""Commands that compute products: stats, a table; composite, images of periods; sync, whatever is not up to date."""

import sys
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

from s2cube.cli._console import print_notice
from s2cube.cli._flags import (
    CompositeFlags,
    ConfigFile,
    ConsoleFlags,
    StatisticsFlags,
    SyncFlags,
    command_line,
    load_settings,
    set_up_console,
)
from s2cube.cli._reports import report_composites, report_table, shown
from s2cube.cluster.own_process import importing
from s2cube.errors import SliceError

if TYPE_CHECKING:
    from s2cube.updates.pass_record import Pass


def stats(*, flags: StatisticsFlags = None, config: ConfigFile = None, console: ConsoleFlags = None) -> int:
    """Compute statistics of every area and day, and write them as one table; continue an interrupted run."""
    console = set_up_console(console)
    settings = load_settings(flags, config)
    with importing():
        from s2cube.zonal.tabulate import tabulate

    with shown(console, settings, "rows") as bar:
        summary = tabulate(settings, bar)
    report_table(summary, settings)
    console.print_json(asdict(summary))
    return SliceError.exit_status if summary.failed else 0


def composite(*, flags: CompositeFlags = None, config: ConfigFile = None, console: ConsoleFlags = None) -> int:
    """Compute one image of all images of each period, such as a month; continue an interrupted run."""
    console = set_up_console(console)
    settings = load_settings(flags, config)
    with importing():
        from s2cube.composites.compute_composites import compute_composites

    with shown(console, settings) as bar:
        summary = compute_composites(settings, bar)
    report_composites(summary, settings)
    console.print_json(asdict(summary))
    return SliceError.exit_status if summary.failed else 0


def sync(*, flags: SyncFlags = None, config: ConfigFile = None, console: ConsoleFlags = None) -> int:
    """Compute what is new, late, reprocessed or withdrawn since the last pass; once, or on a schedule."""
    console = set_up_console(console)
    settings = load_settings(flags, config)
    with importing():
        from s2cube.storage.output import Output
        from s2cube.updates.schedule import Schedule
        from s2cube.updates.service import in_own_process, process_host, serve

    if schedule := Schedule.of(settings.sync):
        words = ["sync", *command_line(flags, config), *console.words, "--once"]
        make_pass = partial(in_own_process, [sys.executable, "-m", "s2cube", *words])
        return serve(make_pass, schedule, Output.at(settings.job.out), process_host())
    with importing():
        from s2cube.updates.sync import sync_once

    with shown(console, settings) as bar:
        made = sync_once(settings, bar)
    print_notice(pass_as_text(made))
    console.print_json(made.line())
    return SliceError.exit_status if made.failed or made.hook else 0


def pass_as_text(made: "Pass") -> str:
    """Describe a pass of `sync` in one line."""
    if made.error:
        return f"it could not be made: {made.error}"
    kinds = ("new", "late", "reprocessed", "withdrawn", "pending")
    scenes = ", ".join(f"{len(getattr(made, kind))} {kind}" for kind in kinds if getattr(made, kind)) or "nothing new"
    counts = {"written": made.written, "removed": made.removed, "FAILED": made.failed}
    results = ", ".join(f"{len(ids)} {verb}" for verb, ids in counts.items() if ids) or "nothing written"
    outage = f"; a catalogue did not answer: {made.outage}" if made.outage else ""
    hook = f"; the command of --on-change ended with status {made.hook}" if made.hook else ""
    return f"{made.found} scenes, of these {scenes}: {results}{outage}{hook}"
