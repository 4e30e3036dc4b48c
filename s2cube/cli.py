"""Arguments, progress, exit status."""

import json as json_format
import logging
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

from cyclopts import App, CycloptsError, Group, Parameter
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

import s2cube
from s2cube.config import JobConfig, JobSection, SearchSection
from s2cube.errors import S2CubeError, redact
from s2cube.settings import load_config, settings
from s2cube.voice import (
    LEVELS,
    TRACEBACK_LEVEL,
    Bar,
    People,
    log,
    megabytes,
    nothing_found,
    paper,
    people,
    tell,
    tell_cost,
    tell_if_nothing_found,
)

_FAILED_STATUS = 1
_USAGE_STATUS = 2
_SOME_FAILED_STATUS = 3
_INTERRUPTED_STATUS = 130


app = App(
    name="s2cube",
    help="Turn a polygon into analysis-ready Sentinel-2: one harmonised, cloud-masked 30 m COG a day.",
    version=s2cube.__version__,
    result_action="return_value",
    suppress_keyboard_interrupt=False,
    default_parameter=Parameter(show_default=False),
)


def _flag_fields() -> Iterator[tuple[str, Any, Any]]:
    groups = {
        section: Group.create_ordered(section, help=getattr(holder.annotation, "__doc__", ""))
        for section, holder in JobConfig.model_fields.items()
    }
    for section, key, setting in settings():
        kind = bool if setting.annotation is bool else str
        text = setting.description or ""
        if setting.default not in (None, False, ()):
            default = ",".join(map(str, setting.default)) if isinstance(setting.default, tuple) else setting.default
            text = f"{text} Default: {default}."
        if choices := [value for value in get_args(setting.annotation) if isinstance(value, str)]:
            text = f"{text} Choices: {', '.join(choices)}."
        yield key, Annotated[kind | None, Parameter(help=text, group=groups[section])], field(default=None)


if TYPE_CHECKING:
    Flags = Any
else:
    # The flags are the settings of config.py, read off its models: a new setting is one line there.
    Flags = make_dataclass("Flags", list(_flag_fields()), frozen=True)
    Flags.__module__ = __name__


@dataclass(frozen=True)
class Voice:
    """How a command speaks."""

    json: Annotated[bool, Parameter(negative="", help="Print one JSON object as the last line of stdout.")] = False
    verbose: Annotated[int, Parameter(("--verbose", "-v"), count=True, help="-v, -vv: tell more")] = 0
    quiet: Annotated[bool, Parameter(("--quiet", "-q"), negative="", help="Tell of errors only.")] = False

    def set_up_logging(self) -> None:
        """Send log lines to people, as many as they asked for."""
        handler = People()
        handler.setFormatter(logging.Formatter("%(message)s"))
        # distributed raises the level of its loggers when it is imported, so the handler has to be deaf to them.
        loudest = logging.WARNING if self.verbose else logging.ERROR
        handler.addFilter(lambda record: record.name.startswith("s2cube") or record.levelno >= loudest)
        logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
        log.setLevel(logging.ERROR if self.quiet else LEVELS[min(self.verbose, len(LEVELS) - 1)])
        people.quiet = self.quiet

    def print_json(self, content: object) -> None:
        """Print one line for programs, if asked to."""
        if self.json:
            print(json_format.dumps(content), flush=True)


_Headers = Annotated[bool, Parameter(negative="", help="Read the headers of all files, so that the plan is exact.")]
_Flags = Annotated[Flags | None, Parameter(name="*")]
_File = Annotated[Path | None, Parameter(help="TOML FILE with settings. Default: ./s2cube.toml, if there.")]
_Voice = Annotated[Voice | None, Parameter(name="*")]


def _load(flags: Flags | None, file: Path | None) -> JobConfig:
    given = {key: value for key, value in asdict(flags).items() if value is not None} if flags else {}
    return load_config(given, os.environ, file)


def _speak(voice: Voice | None) -> Voice:
    voice = voice or Voice()
    voice.set_up_logging()
    return voice


@app.command
def run(
    *,
    flags: _Flags = None,
    config: _File = None,
    voice: _Voice = None,
    dry_run: Annotated[bool, Parameter(negative="", help="Decide, but read no pixel and write nothing.")] = False,
    headers: _Headers = False,
) -> int:
    """Search, cube, mask, clip, and write one COG a time slice; go on where an earlier run stopped."""
    if dry_run:
        return plan(flags=flags, config=config, voice=voice, headers=headers)
    voice = _speak(voice)
    return _run(_load(flags, config), voice)


@app.command
def plan(*, flags: _Flags = None, config: _File = None, voice: _Voice = None, headers: _Headers = False) -> int:
    """Show what run would do: the slices, their scenes, which of them are done, and what the others take."""
    voice = _speak(voice)
    from s2cube.model import Traffic
    from s2cube.pipeline import forecast, plan_job

    job = plan_job(_load(flags, config))
    tell_if_nothing_found(job)
    costs = forecast(job, headers)
    table = Table("slice", "time (UTC)", "state", "requests", "MB", "scenes", box=None, pad_edge=False)
    for each in job.plans:
        for time_slice in each.slices:
            cost = costs.get(time_slice.id)
            taken = (str(cost.traffic.requests), megabytes(cost.traffic.bytes)) if cost else ("", "")
            state = "done" if time_slice.id in job.skipped else "to do"
            scenes = " ".join(scene.id for scene in time_slice.scenes)
            table.add_row(time_slice.id, f"{time_slice.time:%Y-%m-%d %H:%M}", state, *taken, scenes)
    if not voice.json:
        paper().print(table)
    people.print(f"{len(job.todo)} slices to do, {len(job.skipped)} done.")
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
        | {"scenes": {each.id: [scene.id for scene in each.scenes] for plan in job.plans for each in plan.slices}}
        | total
    )
    return 0


@app.command
def search(
    *,
    flags: _Flags = None,
    config: _File = None,
    voice: _Voice = None,
    save: Annotated[Path | None, Parameter(help="Write the scenes to a FILE.geojson or FILE.parquet.")] = None,
) -> int:
    """List the scenes found; --save keeps them for --stac."""
    voice = _speak(voice)
    asked = _load(flags, config)
    from s2cube.aoi import read_aois
    from s2cube.search import find_scenes, open_catalogue
    from s2cube.source import save_items

    aois = read_aois(asked.job.aoi, asked.job.aoi_id)
    catalogue = open_catalogue(asked.search)
    scenes = {item.id: item for aoi in aois for item in find_scenes(aoi, asked.search, catalogue)}
    if save:
        save_items(scenes.values(), save)
        people.print(f"{len(scenes)} scenes written to {save}", markup=False)
    elif not voice.json:
        table = Table("scene", "time (UTC)", "cloud %", "tile", "baseline", box=None, pad_edge=False)
        for item in scenes.values():
            facts = item.properties
            table.add_row(
                item.id,
                str(facts.get("datetime"))[:16].replace("T", " "),
                str(facts.get("eo:cloud_cover", "")),
                str(facts.get("grid:code", "")),
                str(facts.get("s2:processing_baseline", "")),
            )
        paper().print(table)
    if not scenes:
        people.print(nothing_found(asked), markup=False)
    voice.print_json({"scenes": list(scenes)})
    return 0


@app.command
def demo(
    *,
    out: Annotated[Path, Parameter(help="Folder for the archive and the images.")] = Path("s2cube-demo"),
    voice: _Voice = None,
) -> int:
    """Write a small simulated Sentinel-2 archive and run the job on it, offline."""
    voice = _speak(voice)
    from s2cube.demo import write_archive
    from s2cube.output import Output

    Output(out).prepare()
    archive = write_archive(out / "archive")
    job = JobSection(aoi=archive.aoi, out=out / "images", overwrite=True)
    status = _run(JobConfig(job=job, search=SearchSection(stac=str(archive.items))), voice)
    people.print(f"The archive: {archive.items.parent}", markup=False)
    people.print(f"COGs and pictures: {job.out}/<aoi>/<slice>/", markup=False)
    return status


def _run(config: JobConfig, voice: Voice) -> int:
    from s2cube.pipeline import run as run_job

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=people, disable=not people.is_terminal, transient=True) as progress:
        summary = run_job(config, Bar(progress))
    tell(summary, config)
    voice.print_json(asdict(summary))
    return _SOME_FAILED_STATUS if summary.failed else 0


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with its status: 0 done, 1 not, 2 wrong usage, 3 some slices failed."""
    sys.exit(_status(sys.argv[1:] if arguments is None else arguments))


def _status(arguments: Sequence[str]) -> int:
    try:
        return app(arguments, exit_on_error=False, print_error=False) or 0
    except CycloptsError as error:
        _complain(f"{error} Try s2cube --help.")
        return _USAGE_STATUS
    except S2CubeError as error:
        _complain(str(error))
        return _FAILED_STATUS if error.exit_status == _SOME_FAILED_STATUS else error.exit_status
    except KeyboardInterrupt:
        _complain("stopped; what is written stays, and the next run goes on from there")
        return _INTERRUPTED_STATUS
    except Exception as error:  # noqa: BLE001  people get a line, not a traceback
        _complain(f"unexpected {type(error).__name__}: {redact(str(error))} (-vv shows where)")
        return _FAILED_STATUS


def _complain(line: str) -> None:
    people.quiet = False
    people.print(f"s2cube: {' '.join(line.split())}", markup=False)
    if log.getEffectiveLevel() <= TRACEBACK_LEVEL and sys.exc_info()[0]:
        people.print(redact(traceback.format_exc()), markup=False)
