"""Flags become settings; how a command speaks."""

import logging
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

from cyclopts import Group, Parameter
from rich.console import Console

from s2cube.cli._console import LEVELS, JsonLines, People, json_line, log
from s2cube.config.loading import load_config, settings
from s2cube.config.sections import JobConfig


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
        # A key may be a word of Python, a field may not.
        name = f"--{key.replace('_', '-')}"
        yield f"{key}_", Annotated[kind | None, Parameter(name, help=text, group=groups[section])], field(default=None)


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
    log_json: Annotated[bool, Parameter(negative="", help="Log one JSON object a line.")] = False
    verbose: Annotated[int, Parameter(("--verbose", "-v"), count=True, help="-v, -vv: tell more")] = 0
    quiet: Annotated[bool, Parameter(("--quiet", "-q"), negative="", help="Tell of errors only.")] = False

    def set_up_logging(self) -> None:
        """Send log lines to people, as many as they asked for."""
        handler = JsonLines() if self.log_json else People()
        # distributed raises the level of its loggers when it is imported, so the handler has to be deaf to them.
        loudest = logging.WARNING if self.verbose else logging.ERROR
        handler.addFilter(lambda record: record.name.startswith("s2cube") or record.levelno >= loudest)
        logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
        log.setLevel(logging.ERROR if self.quiet else LEVELS[min(self.verbose, len(LEVELS) - 1)])

    def has_bar(self, console: Console) -> bool:
        """Say whether a console shows a progress bar."""
        return console.is_terminal and not self.quiet and not self.log_json

    def print_json(self, content: object) -> None:
        """Print one line for programs, if asked to."""
        if self.json:
            print(json_line(content), flush=True)


File = Annotated[Path | None, Parameter(help="TOML FILE with settings. Default: ./s2cube.toml, if it exists.")]
VoiceFlags = Annotated[Voice | None, Parameter(name="*")]


def speak(voice: Voice | None) -> Voice:
    """Send log lines to people, at the level that they ask for."""
    voice = voice or Voice()
    voice.set_up_logging()
    return voice


def load(flags: Flags | None, file: Path | None) -> JobConfig:
    """Make settings of flags, the environment and a file.

    Raises
    ------
    ConfigError
        If they cannot be.
    """
    return load_config(_given(flags), os.environ, file)


def _given(flags: Flags | None) -> dict[str, Any]:
    return {key[:-1]: value for key, value in asdict(flags).items() if value is not None} if flags else {}


def words(flags: Flags | None, file: Path | None) -> list[str]:
    """Write flags down as they are given on a command line."""
    out = ["--config", str(file)] if file else []
    for key, value in _given(flags).items():
        name = key.replace("_", "-")
        out += [f"--{name}={value}"] if isinstance(value, str) else [f"--{name}" if value else f"--no-{name}"]
    return out
