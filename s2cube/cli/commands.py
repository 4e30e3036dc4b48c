"""The command line: commands, signals and exit status. To add a command, write its function and add its name here."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper

from cyclopts import App, CycloptsError, Parameter

import s2cube
from s2cube.cli._console import print_failure, print_notice
from s2cube.cli._flags import Console
from s2cube.cli._indices import indices
from s2cube.cli._inspection import report, status, verify
from s2cube.cli._job import demo, run, submit, submit_composite, submit_stats, submit_sync
from s2cube.cli._mistakes import explain_mistake, join_negative_values
from s2cube.cli._plan import plan
from s2cube.cli._products import composite, stats, sync
from s2cube.cli._search import search
from s2cube.cluster import own_process
from s2cube.errors import S2CubeError, SliceError, UsageError

_SIGNALLED = 128
"""A process that a signal ends exits with this number plus the number of the signal, as in shells."""

app = App(
    name="s2cube",
    help="Turn polygons into analysis-ready Sentinel-2: one harmonised, cloud-masked 30 m COG per day.",
    version=f"s2cube {s2cube.__version__} (distribution {s2cube.DISTRIBUTION})",
    result_action="return_value",
    suppress_keyboard_interrupt=False,
    help_format="plaintext",
    default_parameter=Parameter(show_default=False),
)
EXAMPLES: dict[Callable[..., int], tuple[str, ...]] = {
    run: (
        "s2cube run --aoi fields.gpkg --datetime 2024-05/2024-09 --max-cloud 60 --out out",
        "s2cube run --aoi fields.gpkg --datetime 2024 --bands red,nir --resolution 20",
        "s2cube run --aoi fields.gpkg --datetime 2024 --bands none --indices NDVI,EVI",
    ),
    plan: ("s2cube plan --aoi fields.gpkg --datetime 2024-05/2024-09 --headers",),
    stats: (
        "s2cube stats --aoi fields.parquet --datetime 2024 --bands red,nir --out out",
        "s2cube stats --aoi a.gpkg --bands red --statistics mean,p90 --format csv",
    ),
    composite: (
        "s2cube composite --aoi fields.gpkg --datetime 2024 --method geomedian",
        "s2cube composite --aoi a.gpkg --datetime 2024 --period P10D --method best",
    ),
    sync: (
        "s2cube sync --aoi fields.gpkg --datetime 2024-01-01/.. --lookback 45d --out out",
        "s2cube sync --aoi fields.gpkg --at 06:00 --products images,composites --out out",
    ),
    search: (
        "s2cube search --aoi fields.gpkg --datetime 2024-05/2024-09 --max-cloud 60",
        "s2cube search --aoi fields.gpkg --datetime 2024 --save scenes.geojson",
    ),
    submit: ("s2cube submit --aoi fields.gpkg --scheduler tcp://host:8786 --out s3://bucket/a",),
    status: ("s2cube status out --watch",),
    verify: ("s2cube verify out", "s2cube verify s3://bucket/a --repair"),
    report: ("s2cube report out",),
    indices: ("s2cube indices --search vegetation",),
    demo: ("s2cube demo --out s2cube-demo",),
}
"""The commands, each with examples for its help."""


SUBMITTED = {
    submit_stats: ("s2cube submit stats --aoi a.parquet --scheduler tcp://host:8786",),
    submit_composite: ("s2cube submit composite --aoi fields.gpkg --datetime 2024",),
    submit_sync: (
        "s2cube submit sync --aoi a.gpkg --every 1d --scheduler tcp://host:8786",
        "s2cube submit sync --aoi fields.gpkg --at 06:00 --out out",
    ),
}
"""The commands that submit runs in the background, each with examples for its help. Without one of them it runs run."""


def _add(commands: App, command: Callable[..., int], examples: Sequence[str]) -> None:
    epilogue = "\n".join(("Examples:" if examples[1:] else "Example:", *examples))
    commands.command(command, name=command.__name__.removeprefix("submit_"), help_epilogue=epilogue)


for _command, _lines in EXAMPLES.items():
    _add(app, _command, _lines)
for _command, _lines in SUBMITTED.items():
    _add(app["submit"], _command, _lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with its status: 0 done, 1 not done, 2 wrong usage, 3 some slices failed.

    Parameters
    ----------
    arguments
        None: those of this process, which ends with the command.
    """
    given = sys.argv[1:] if arguments is None else arguments
    if arguments is None:
        own_process.set_up()
    for stream in (sys.stdout, sys.stderr):
        # An id may contain characters that the terminal's encoding lacks. Printing them must not raise an error.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # Set up logging before the flags are parsed, because errors in them are logged.
    Console(log_json="--log-json" in given).set_up_logging()
    with _stopped_by_signals():
        exit_status = _run_command(given)
    if arguments is None and exit_status > _SIGNALLED:
        # Threads may still compute slices and wait for a server. An exit of Python would wait for them.
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(exit_status)
    sys.exit(exit_status)


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into a KeyboardInterrupt; end the process at the second."""

    def end_at_once(signum: int, _: object) -> None:
        os._exit(_SIGNALLED + signum)

    def interrupt(signum: int, _: object) -> None:
        for each in before:
            signal.signal(each, end_at_once)
        before.clear()
        print_notice("stopping; a second signal (Ctrl-C) stops at once")
        raise KeyboardInterrupt(signum)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {each: signal.signal(each, interrupt) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _run_command(arguments: Sequence[str]) -> int:
    try:
        words = join_negative_values(arguments)
        return app(words, exit_on_error=False, print_error=False) or 0
    except CycloptsError as error:
        print_failure(str(explain_mistake(error, app, words)))
        return UsageError.exit_status
    except S2CubeError as error:
        print_failure(str(error))
        # Exit status 3 would mean that the other slices are written. Here the command has failed.
        return S2CubeError.exit_status if isinstance(error, SliceError) else error.exit_status
    except KeyboardInterrupt as interrupted:
        signum, *advice = interrupted.args or (signal.SIGINT,)
        print_failure("; ".join(("stopped", *advice)))
        return _SIGNALLED + int(signum)
    except Exception as error:  # noqa: BLE001  users get one line instead of a traceback
        print_failure(f"unexpected {type(error).__name__}: {error} (-vv shows where)")
        return S2CubeError.exit_status
