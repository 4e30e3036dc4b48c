"""The command line: its commands, signals and exit status. A new command is a function in its file and a name here."""

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper

from cyclopts import App, CycloptsError, Parameter

import s2cube
from s2cube.cli._console import print_failure, print_notice
from s2cube.cli._flags import Console
from s2cube.cli._inspection import status, verify
from s2cube.cli._job import demo, run, submit
from s2cube.cli._plan import plan
from s2cube.cli._search import search
from s2cube.errors import S2CubeError, SliceError, UsageError

_SIGNALLED = 128
"""Exit status of a process that a signal ends, as shells report it: this and the number of the signal."""

app = App(
    name="s2cube",
    help="Turn polygons into analysis-ready Sentinel-2: one harmonised, cloud-masked 30 m COG per day.",
    version=f"s2cube {s2cube.__version__} (distribution {s2cube.DISTRIBUTION})",
    result_action="return_value",
    suppress_keyboard_interrupt=False,
    default_parameter=Parameter(show_default=False),
)
for _command in (run, plan, search, submit, status, verify, demo):
    app.command(_command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with its status: 0 done, 1 not done, 2 wrong usage, 3 some slices failed."""
    given = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        # An id may have letters that the terminal's encoding lacks. They must not end a command.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # Errors in the flags are reported before the flags are parsed.
    Console(log_json="--log-json" in given).set_up_logging()
    with _stopped_by_signals():
        exit_status = _run_command(given)
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
        print_notice("stopping; again to stop at once")
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
        return app(arguments, exit_on_error=False, print_error=False) or 0
    except CycloptsError as error:
        print_failure(f"{error} Try s2cube --help.")
        return UsageError.exit_status
    except S2CubeError as error:
        print_failure(str(error))
        # 3 means that the other slices are written. Here the command has failed.
        return S2CubeError.exit_status if isinstance(error, SliceError) else error.exit_status
    except KeyboardInterrupt as interrupted:
        print_failure("stopped; what is written stays, and the next run continues from there")
        return _SIGNALLED + (interrupted.args[0] if interrupted.args else signal.SIGINT)
    except Exception as error:  # noqa: BLE001  users get one line instead of a traceback
        print_failure(f"unexpected {type(error).__name__}: {error} (-vv shows where)")
        return S2CubeError.exit_status
