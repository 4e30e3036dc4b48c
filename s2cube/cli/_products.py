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
from s2cube.cli._reports import SliceBar, report_composites, report_table
from s2cube.errors import SliceError
from s2cube.progress_bar import columns


def stats(*, flags: StatisticsFlags = None, config: ConfigFile = None, console: ConsoleFlags = None) -> int:
    """Compute statistics of every area and day, and write them as one table; continue an interrupted run."""
    console = set_up_console(console)
    settings = load_settings(flags, config)
    from s2cube.zonal.tabulate import tabulate

    with console.progress(*columns()) as progress:
        summary = tabulate(settings, SliceBar(progress))
    report_table(summary, settings)
    console.print_json(asdict(summary))
    return SliceError.exit_status if summary.failed else 0


def composite(*, flags: CompositeFlags = None, config: ConfigFile = None, console: ConsoleFlags = None) -> int:
    """Compute one image of all images of each period, such as a month; continue an interrupted run."""
    console = set_up_console(console)
    settings = load_settings(flags, config)
    from s2cube.composites.compute_composites import compute_composites

    with console.progress(*columns()) as progress:
        summary = compute_composites(settings, SliceBar(progress))
    report_composites(summary, settings)
    console.print_json(asdict(summary))
    return SliceError.exit_status if summary.failed else 0
