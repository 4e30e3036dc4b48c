"""Commands and their exit status."""

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

import s2cube
from s2cube.cli._console import (
    Bar,
    add_row,
    complain,
    megabytes,
    nothing_found,
    paper,
    people,
    say,
    say_what_has_changed,
    say_what_is_unusable,
    tell,
    tell_cost,
    tell_if_nothing_found,
)
from s2cube.cli._flags import File, Flags, Voice, VoiceFlags, load, speak, words
from s2cube.cli._inspection import status, verify
from s2cube.config.sections import JobConfig, JobSection, SearchSection
from s2cube.errors import S2CubeError, SliceError, UsageError

_FAILED_STATUS = S2CubeError.exit_status
_USAGE_STATUS = UsageError.exit_status
_SOME_FAILED_STATUS = SliceError.exit_status
_SIGNALLED = 128
"""And the number of the signal, as shells have it."""


app = App(
    name="s2cube",
    help="Turn a polygon into analysis-ready Sentinel-2: one harmonised, cloud-masked 30 m COG a day.",
    version=s2cube.__version__,
    result_action="return_value",
    suppress_keyboard_interrupt=False,
    default_parameter=Parameter(show_default=False),
)


_Headers = Annotated[bool, Parameter(negative="", help="Read the headers of all files, so that the plan is exact.")]
_Flags = Annotated[Flags | None, Parameter(name="*")]


@app.command
def run(
    *,
    flags: _Flags = None,
    config: File = None,
    voice: VoiceFlags = None,
    dry_run: Annotated[bool, Parameter(negative="", help="Decide, but read no pixel and write nothing.")] = False,
    headers: _Headers = False,
) -> int:
    """Search, cube, mask, clip, and write one COG a time slice; go on where an earlier run stopped."""
    if dry_run:
        return plan(flags=flags, config=config, voice=voice, headers=headers)
    voice = speak(voice)
    return _run(load(flags, config), voice)


@app.command
def plan(*, flags: _Flags = None, config: File = None, voice: VoiceFlags = None, headers: _Headers = False) -> int:
    """Show what run would do: the slices, their scenes, which of them are done, and what the others take."""
    voice = speak(voice)
    from s2cube.fetch.traffic import Traffic
    from s2cube.jobs.job import forecast, plan_job
    from s2cube.storage.output import Output

    asked = load(flags, config)
    job = plan_job(asked, Output.at(asked.job.out))
    tell_if_nothing_found(job)
    forecasts = forecast(job, headers)
    job, costs = job.without(forecasts.unusable), forecasts.costs
    say_what_is_unusable(job)
    say_what_has_changed(job)
    table = Table("slice", "time (UTC)", "state", "requests", "MB", "scenes", box=None, pad_edge=False)
    for each in job.plans:
        for time_slice in each.slices:
            cost = costs.get(time_slice.id)
            taken = (str(cost.traffic.requests), megabytes(cost.traffic.bytes)) if cost else ("", "")
            state = "done" if time_slice.id in job.skipped else "to do"
            scenes = " ".join(scene.id for scene in time_slice.scenes)
            add_row(table, time_slice.id, f"{time_slice.time:%Y-%m-%d %H:%M}", state, *taken, scenes)
    for unusable in job.unusable:
        when = f"{unusable.time:%Y-%m-%d %H:%M}" if unusable.time else ""
        add_row(table, unusable.id, when, "cannot be made", "", "", " ".join(unusable.scenes))
    if not voice.json:
        paper().print(table)
    fail = f", {len(job.unusable)} that cannot be made" if job.unusable else ""
    say(f"{len(job.todo)} slices to do, {len(job.skipped)} done{fail}.")
    traffic = sum((cost.traffic for cost in costs.values()), Traffic())
    total = {
        **asdict(traffic),
        "exact": headers,
        "peak_bytes": max((cost.peak_bytes for cost in costs.values()), default=0),
        "output_bytes": sum(cost.output_bytes for cost in costs.values()),
        "by_gdal": sum(cost.by_gdal for cost in costs.values()),
    }
    tell_cost(total)
    voice.print_json(
        {"todo": [each.slices[0].id for each in job.todo], "skipped": list(job.skipped)}
        | {"failed": [{"slice": each.id, "error": str(each.error)} for each in job.unusable]}
        | {"scenes": {each.id: [scene.id for scene in each.scenes] for plan in job.plans for each in plan.slices}}
        | total
    )
    return 0


@app.command
def search(
    *,
    flags: _Flags = None,
    config: File = None,
    voice: VoiceFlags = None,
    save: Annotated[Path | None, Parameter(help="Write the scenes to a FILE.geojson or FILE.parquet.")] = None,
) -> int:
    """List the scenes found; --save keeps them for --stac."""
    voice = speak(voice)
    asked = load(flags, config)
    from s2cube.area.vector_file import read_aois
    from s2cube.cli._table import table_of_scenes
    from s2cube.scenes.search import drop_unrequested, find_scenes, open_catalogue
    from s2cube.stac.source import save_items

    aois = read_aois(asked.job.aoi, asked.job.aoi_id)
    catalogue = open_catalogue(asked.search, asked.read.timeout_s)
    found = [
        item for aoi in aois for item in drop_unrequested(find_scenes(aoi, asked.search, catalogue), aoi, asked.search)
    ]
    # Areas may share scenes; two scenes may share an id.
    scenes = list({repr((item.id, item.properties.get("datetime"), item.bbox)): item for item in found}.values())
    if save:
        save_items(scenes, save)
        say(f"{len(scenes)} scenes written to {save}")
    elif not voice.json:
        paper().print(table_of_scenes(scenes))
    if not scenes:
        say(nothing_found(asked))
    voice.print_json({"scenes": [item.id for item in scenes]})
    return 0


@app.command
def demo(
    *,
    out: Annotated[Path, Parameter(help="Folder for the archive and the images.")] = Path("s2cube-demo"),
    voice: VoiceFlags = None,
) -> int:
    """Write a small simulated Sentinel-2 archive and run the job on it, offline."""
    voice = speak(voice)
    from s2cube.demo.archive import write_archive
    from s2cube.storage.destination import destination_at

    destination_at(out).prepare()
    archive = write_archive(out / "archive")
    job = JobSection(aoi=archive.aoi, out=out / "images", overwrite=True)
    status = _run(JobConfig(job=job, search=SearchSection(stac=str(archive.items))), voice)
    say(f"The archive: {archive.items.parent}")
    say(f"COGs and pictures: {job.out}/<aoi>/<slice>/")
    return status


@app.command
def submit(*, flags: _Flags = None, config: File = None, voice: VoiceFlags = None) -> int:
    """Hand the job of run to a cluster and leave; s2cube status tells how it goes."""
    voice = speak(voice)
    asked = load(flags, config)
    from s2cube.jobs.submit import detach, hand_over

    told = hand_over(asked) if asked.cluster.scheduler else detach(asked, words(flags, config))
    say(f"{told}. s2cube status --out {asked.job.out} tells how it goes.")
    voice.print_json({"out": str(asked.job.out)})
    return 0


for _command in (status, verify):
    app.command(_command)


def _run(config: JobConfig, voice: Voice) -> int:
    from s2cube.jobs.pipeline import run as run_job

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=people, disable=not voice.has_bar(people), transient=True) as progress:
        bar = Bar(progress)
        try:
            summary = run_job(config, bar)
        except KeyboardInterrupt:
            if bar.total:
                say(bar.told)
            raise
    tell(summary, config)
    voice.print_json(asdict(summary))
    return _SOME_FAILED_STATUS if summary.failed else 0


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with its status: 0 done, 1 not, 2 wrong usage, 3 some slices failed."""
    given = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        # An id may hold letters that the terminal's encoding lacks. That must not end a command.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # For what is wrong with the flags, before they tell how to speak.
    Voice(log_json="--log-json" in given).set_up_logging()
    with _stopped_by_signals():
        status = _status(given)
    sys.exit(status)


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Stop in order when asked to, and at once when asked again."""

    def at_once(signum: int, _: object) -> None:
        os._exit(_SIGNALLED + signum)

    def in_order(signum: int, _: object) -> None:
        for each in before:
            signal.signal(each, at_once)
        before.clear()
        say("stopping; again to stop at once")
        raise KeyboardInterrupt(signum)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {each: signal.signal(each, in_order) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _status(arguments: Sequence[str]) -> int:
    try:
        return app(arguments, exit_on_error=False, print_error=False) or 0
    except CycloptsError as error:
        complain(f"{error} Try s2cube --help.")
        return _USAGE_STATUS
    except S2CubeError as error:
        complain(str(error))
        return _FAILED_STATUS if error.exit_status == _SOME_FAILED_STATUS else error.exit_status
    except KeyboardInterrupt as signal_:
        complain("stopped; what is written stays, and the next run goes on from there")
        return _SIGNALLED + (signal_.args[0] if signal_.args else signal.SIGINT)
    except Exception as error:  # noqa: BLE001  people get a line, not a traceback
        complain(f"unexpected {type(error).__name__}: {error} (-vv shows where)")
        return _FAILED_STATUS
