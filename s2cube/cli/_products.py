"""Commands that compute products of daily images: stats, a table of fields and days; composite, images of periods."""

from dataclasses import asdict

from s2cube.cli._flags import (
    CompositeFlags,
    ConfigFile,
    ConsoleFlags,
    StatisticsFlags,
    load_settings,
    set_up_console,
)
from s2cube.cli._reports import report_composites, report_table, shown
from s2cube.errors import SliceError


def stats(*, flags: StatisticsFlags = None, config: ConfigFile = None, console: ConsoleFlags = None) -> int:
    """Compute statistics of every area and day, and write them as one table; continue an interrupted run."""
    console = set_up_console(console)
    settings = load_settings(flags, config)
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
    from s2cube.composites.compute_composites import compute_composites

    with shown(console, settings) as bar:
        summary = compute_composites(settings, bar)
    report_composites(summary, settings)
    console.print_json(asdict(summary))
    return SliceError.exit_status if summary.failed else 0
