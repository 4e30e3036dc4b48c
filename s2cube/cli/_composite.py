"""The command composite: one image of all images of a period."""

from dataclasses import asdict

from s2cube.cli._flags import CompositeFlags, ConfigFile, ConsoleFlags, load_settings, set_up_console
from s2cube.cli._reports import SliceBar, report_composites
from s2cube.errors import SliceError
from s2cube.progress_bar import columns


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
