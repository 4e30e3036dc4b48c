"""Convert flags to settings, and set up the output of a command."""

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, make_dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter
from rich.progress import Progress, ProgressColumn

from s2cube.cli._console import LEVELS, JsonLogHandler, TextLogHandler, json_line, log, stderr_console
from s2cube.config.loading import load_config, settings
from s2cube.config.sections import JobConfig
from s2cube.config.wording import placeholder

_SEARCH = ("job.aoi*", "search.*", "read.timeout")
"""Settings that a search uses: patterns of SECTION.KEY."""

_STATISTICS = ("job.[!m]*", "search.*", "cube.*", "read.*", "table.*", "cluster.*")
"""Settings that a table of statistics uses: not --max-aoi-cloud, because the table has a row for every slice."""

_COMPOSITES = ("job.[!m]*", "search.*", "cube.[!g]*", "read.*", "output.*", "composite.*", "cluster.*")
"""Settings that composites use: not --max-aoi-cloud, and not --group-by, because a day counts once."""

_SYNC = ("job.*", "search.*", "cube.*", "read.*", "output.*", "table.*", "composite.*", "cluster.*", "sync.*")

_RUN = ("job.*", "search.*", "cube.*", "read.*", "output.*", "table.*", "cluster.*")


def _flag_fields(patterns: Sequence[str]) -> Iterator[tuple[str, Any, Any]]:
    groups = {
        section: Group.create_ordered(section, help=getattr(holder.annotation, "__doc__", ""))
        for section, holder in JobConfig.model_fields.items()
    }
    for section, key, setting in settings():
        if not any(fnmatchcase(f"{section}.{key}", pattern) for pattern in patterns):
            continue
        flag_type: Any = bool if setting.annotation is bool else str
        text = setting.description or ""
        # Not by equality alone: 0 equals False.
        if setting.default not in (None, ()) and setting.default is not False:
            default = ",".join(map(str, setting.default)) if isinstance(setting.default, tuple) else setting.default
            text = f"{text} Default: {default}."
        # A key may be a keyword of Python, such as `class`. The name of a field may not, so it ends with `_`.
        name, metavar = f"--{key.replace('_', '-')}", None if flag_type is bool else placeholder(setting)
        parameter = Parameter(name, help=text, group=groups[section], metavar=metavar)
        yield f"{key}_", Annotated[flag_type | None, parameter], field(default=None)


def _flags(*patterns: str) -> Any:
    """Make a dataclass with a flag for each setting that a command takes."""
    made = make_dataclass("Flags", list(_flag_fields(patterns)), frozen=True)
    made.__module__ = __name__
    return Annotated[made | None, Parameter(name="*")]


Flags = Any

if TYPE_CHECKING:
    CompositeFlags = Any
    PlanFlags = Any
    RunFlags = Any
    SearchFlags = Any
    StatisticsFlags = Any
    SyncFlags = Any
else:
    # The fields are generated from the models of the settings. A new setting is added only there.
    RunFlags, SearchFlags, StatisticsFlags = _flags(*_RUN), _flags(*_SEARCH), _flags(*_STATISTICS)
    CompositeFlags, SyncFlags, PlanFlags = _flags(*_COMPOSITES), _flags(*_SYNC), _flags(*_RUN, "composite.*")


@dataclass(frozen=True)
class Console:
    """The form and the amount of a command's output."""

    json: Annotated[bool, Parameter(negative="", help="Print one JSON object as the last line of stdout.")] = False
    log_json: Annotated[bool, Parameter(negative="", help="Log one JSON object per line.")] = False
    verbose: Annotated[int, Parameter(("--verbose", "-v"), count=True, help="Log more (-v), or much more (-vv).")] = 0
    quiet: Annotated[bool, Parameter(("--quiet", "-q"), negative="", help="Report errors only.")] = False

    def set_up_logging(self) -> None:
        """Print log lines on stderr, from the level that the flags select."""
        handler = JsonLogHandler() if self.log_json else TextLogHandler()
        # distributed sets the levels of its own loggers when it is imported, so the handler filters their lines.
        lowest_of_others = logging.WARNING if self.verbose else logging.ERROR
        handler.addFilter(lambda record: record.name.startswith("s2cube") or record.levelno >= lowest_of_others)
        logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
        log.setLevel(logging.ERROR if self.quiet else LEVELS[min(self.verbose, len(LEVELS) - 1)])

    @property
    def words(self) -> list[str]:
        """The flags, as arguments of a command line."""
        json = ["--json"] * self.json + ["--log-json"] * self.log_json
        return [*json, *["-q"] * self.quiet, *["-v"] * self.verbose]

    def progress(self, *columns: ProgressColumn) -> Progress:
        """Create a progress bar on stderr. It is disabled if stderr is not a terminal."""
        is_shown = stderr_console.is_terminal and not self.quiet and not self.log_json
        return Progress(*columns, console=stderr_console, disable=not is_shown, transient=True)

    def print_json(self, content: object) -> None:
        """Print one line of JSON on stdout, if --json is set."""
        if self.json:
            print(json_line(content), flush=True)


ConfigFile = Annotated[
    Path | None, Parameter(metavar="FILE", help="TOML FILE with settings. Default: ./s2cube.toml, if it exists.")
]
OutputAddress = Annotated[
    str | None,
    Parameter("--out", help="Output DIR, or s3://, gs:// or az://BUCKET/FOLDER. Default: out."),
]
ConsoleFlags = Annotated[Console | None, Parameter(name="*")]


def set_up_console(console: Console | None) -> Console:
    """Return the console of a command, and set up logging."""
    console = console or Console()
    console.set_up_logging()
    return console


def load_settings(flags: Flags | None, file: Path | None) -> JobConfig:
    """Read the settings from flags, the environment and a file.

    Raises
    ------
    ConfigError
        If a setting is unknown or not valid, or if the file cannot be read.
    """
    return load_config(_given_flags(flags), os.environ, file)


def load_settings_of_output(out: str | None, file: Path | None) -> JobConfig:
    """Read the settings for a command whose only setting is the output. Raises as `load_settings` does."""
    return load_config({} if out is None else {"out": out}, os.environ, file)


def _given_flags(flags: Flags | None) -> dict[str, Any]:
    return {key[:-1]: value for key, value in asdict(flags).items() if value is not None} if flags else {}


def command_line(flags: Flags | None, file: Path | None) -> list[str]:
    """Write flags as arguments of a command line."""
    arguments = ["--config", str(file)] if file else []
    for key, value in _given_flags(flags).items():
        name = key.replace("_", "-")
        arguments += [f"--{name}={value}"] if isinstance(value, str) else [f"--{name}" if value else f"--no-{name}"]
    return arguments
