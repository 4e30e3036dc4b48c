"""Commands that do a job: run, demo, and submit, which runs a command in the background."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from s2cube.cli import _plan
from s2cube.cli._console import print_notice
from s2cube.cli._flags import (
    CompositeFlags,
    ConfigFile,
    Console,
    ConsoleFlags,
    RunFlags,
    StatisticsFlags,
    SyncFlags,
    command_line,
    load_settings,
    set_up_console,
)
from s2cube.cli._reports import report_summary, shown
from s2cube.cluster.own_process import importing
from s2cube.config.sections import JobConfig, JobSection, SearchSection
from s2cube.errors import SliceError

if TYPE_CHECKING:
    from s2cube.storage.output import Output


def run(
    *,
    flags: RunFlags = None,
    config: ConfigFile = None,
    console: ConsoleFlags = None,
    dry_run: Annotated[bool, Parameter(negative="", help="Plan only: read no pixel and write nothing.")] = False,
    headers: _plan.HeadersFlag = False,
) -> int:
    """Search scenes, mask and clip them, and write one COG per time slice; continue an interrupted run."""
    if dry_run:
        return _plan.plan(flags=flags, config=config, console=console, headers=headers)
    console = set_up_console(console)
    return _run(load_settings(flags, config), console)


def submit(*, flags: RunFlags = None, config: ConfigFile = None, console: ConsoleFlags = None) -> int:
    """Run the job in the background, on a Dask cluster or in a process; s2cube status reports its progress."""
    console = set_up_console(console)
    settings = load_settings(flags, config)
    from s2cube.runs.detached import run_detached
    from s2cube.runs.submit import submit_job

    if settings.cluster.scheduler:
        message = submit_job(settings)
    else:
        message = run_detached(settings, ["run", *command_line(flags, config)])
    return _report_submitted(message, settings, console)


def submit_stats(*, flags: StatisticsFlags = None, config: ConfigFile = None, console: ConsoleFlags = None) -> int:
    """Run s2cube stats in the background."""
    console = set_up_console(console)
    settings = load_settings(flags, config)
    from s2cube.zonal.tabulate import check_job, tabulate

    check_job(settings)
    return _submit(settings, ["stats", *command_line(flags, config)], tabulate, console)


def submit_composite(*, flags: CompositeFlags = None, config: ConfigFile = None, console: ConsoleFlags = None) -> int:
    """Run s2cube composite in the background."""
    console = set_up_console(console)
    settings = load_settings(flags, config)
    from s2cube.composites.compute_composites import check_composites, compute_composites

    check_composites(settings)
    return _submit(settings, ["composite", *command_line(flags, config)], compute_composites, console)


def submit_sync(*, flags: SyncFlags = None, config: ConfigFile = None, console: ConsoleFlags = None) -> int:
    """Run s2cube sync in the background, once or on a schedule."""
    console = set_up_console(console)
    settings = load_settings(flags, config)
    from s2cube.runs.detached import run_has_begun
    from s2cube.updates.schedule import Schedule
    from s2cube.updates.sync import check_sync, service_has_begun, sync_on_worker

    check_sync(settings)
    has_begun = service_has_begun if Schedule.of(settings.sync) else run_has_begun
    return _submit(settings, ["sync", *command_line(flags, config)], sync_on_worker, console, has_begun)


def _submit(
    settings: JobConfig, command: list[str], call: Callable[[JobConfig], object], console: Console,
    has_begun: "Callable[[Output, int], bool] | None" = None,
) -> int:  # fmt: skip
    """Run a command elsewhere: a worker calls a function, or a process of this machine gets the command line."""
    from s2cube.runs.detached import run_detached, run_has_begun
    from s2cube.runs.submit import submit_command

    if settings.cluster.scheduler:
        message = submit_command(settings, command[0], call)
    else:
        message = run_detached(settings, command, has_begun or run_has_begun)
    return _report_submitted(message, settings, console)


def _report_submitted(message: str, settings: JobConfig, console: Console) -> int:
    print_notice(f"{message}. s2cube status --out {settings.job.out} reports its progress.")
    console.print_json({"out": str(settings.job.out)})
    return 0


def demo(
    *,
    out: Annotated[Path, Parameter(metavar="DIR", help="DIR for the archive and the images.")] = Path("s2cube-demo"),
    console: ConsoleFlags = None,
) -> int:
    """Write a small simulated Sentinel-2 archive and run a job on it, offline."""
    console = set_up_console(console)
    from s2cube.demo.archive import write_archive
    from s2cube.storage.destination import destination_at

    destination_at(out).prepare()
    archive = write_archive(out / "archive")
    job = JobSection(aoi=archive.aoi, out=out / "images", overwrite=True)
    status = _run(JobConfig(job=job, search=SearchSection(stac=str(archive.items))), console)
    print_notice(f"The archive: {archive.items.parent}")
    print_notice(f"COGs and pictures: {job.out}/<aoi>/<slice>/")
    return status


def _run(config: JobConfig, console: Console) -> int:
    with importing():
        from s2cube.runs.run import run as run_job

    with shown(console, config) as bar:
        summary = run_job(config, bar)
    report_summary(summary, config)
    content = asdict(summary)
    if summary.rows is None:
        del content["rows"]
    console.print_json(content)
    return SliceError.exit_status if summary.failed else 0
