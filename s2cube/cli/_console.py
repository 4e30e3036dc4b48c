"""Print for people on stderr, and for programs on stdout.

Ids, addresses and answers of servers are not trusted. All output goes through one of the handlers, `add_row` or
`json_line`. These remove control characters, markup and secrets.
"""

import json
import logging
import re
import sys
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from s2cube.config.times import timestamp
from s2cube.errors import printable, redact, safe_text

TRACEBACK_LEVEL = logging.DEBUG // 2
LEVELS = (logging.INFO, logging.DEBUG, TRACEBACK_LEVEL)
"""Level of the log without -v, with -v and with -vv."""

_TABLE_WIDTH = 200
_LONGEST_LINE = 16_000
"""Maximum number of characters of a log line, and of a traceback. An error with three long facts is not cut."""

_SURROGATES = re.compile("[\ud800-\udfff]")

NOTICE_LEVEL = (logging.INFO + logging.WARNING) // 2
"""Level of the messages of a command: below a warning, above the log of its progress."""

FACTS = ("run", "slice", "scenes", "asset")
"""Extra facts of a log line that `JsonLogHandler` prints."""

log = logging.getLogger("s2cube")
stderr_console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)


class TextLogHandler(logging.Handler):
    """Print log lines for people on stderr, above the progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a line, and a traceback if there is one."""
        level = {NOTICE_LEVEL: "", logging.CRITICAL: "s2cube: "}.get(record.levelno, f"{record.levelname.lower()}: ")
        stderr_console.print(f"{level}{_message(record)}")
        for line in _traceback_lines(record):
            stderr_console.print(line)


class JsonLogHandler(logging.Handler):
    """Print log lines for programs on stderr: one JSON object per line."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a line."""
        level = "info" if record.levelno == NOTICE_LEVEL else record.levelname.lower()
        facts = {
            "time": timestamp(datetime.fromtimestamp(record.created, UTC)),
            "level": level,
            "event": _message(record),
        }
        facts |= {key: _safe_fact(value) for key in FACTS if (value := getattr(record, key, None))}
        if lines := list(_traceback_lines(record)):
            facts["traceback"] = "\n".join(lines)
        print(json_line(facts, sys.stderr.encoding or "ascii"), file=sys.stderr, flush=True)


def _message(record: logging.LogRecord) -> str:
    return safe_text(record.getMessage(), _LONGEST_LINE)


def _traceback_lines(record: logging.LogRecord) -> Iterator[str]:
    if record.exc_info and record.exc_info[0]:
        text = "".join(traceback.format_exception(*record.exc_info))
        yield from map(printable, redact(text, _LONGEST_LINE).splitlines())


def _safe_fact(fact: Any) -> Any:
    return [safe_text(str(each)) for each in fact] if isinstance(fact, list | tuple) else safe_text(str(fact))


def json_line(content: object, encoding: str = "ascii") -> str:
    """Write one line of JSON for a stream with an encoding.

    A lone surrogate becomes U+FFFD, because strict readers refuse JSON that contains one.
    """
    line = _SURROGATES.sub("\ufffd", json.dumps(content, ensure_ascii=False))
    try:
        line.encode(encoding)
    except UnicodeEncodeError:
        return json.dumps(json.loads(line))
    return line


def print_notice(text: str) -> None:
    """Print a message of a command, unless -q is set."""
    log.log(NOTICE_LEVEL, "%s", text)


def print_failure(line: str) -> None:
    """Print why a command fails; with -vv also the traceback."""
    has_traceback = log.getEffectiveLevel() <= TRACEBACK_LEVEL and sys.exc_info()[0] is not None
    log.critical("%s", line, exc_info=has_traceback)


def table_console() -> Console:
    """Return the console for tables, on stdout."""
    # The console is wider than most windows. A terminal may wrap long ids, but they are never cut.
    return Console(highlight=False, width=_TABLE_WIDTH, markup=False, emoji=False)


def add_row(table: Table, *facts: object) -> None:
    """Add a row to a table for `table_console`."""
    table.add_row(*(Text(safe_text(str(fact))) for fact in facts))


def megabytes(size: int) -> str:
    """Write a number of bytes as megabytes (10⁶ bytes), with one decimal."""
    return f"{size / 1e6:.1f}"


def local_time(instant: str) -> str:
    """Write an instant (RFC 3339) as the time of this machine, to the second, with its offset from UTC."""
    return datetime.fromisoformat(instant).astimezone().isoformat(" ", "seconds")
