"""Write the page that describes an output: one HTML file, which needs nothing else."""

import base64
import hashlib
import html
import json
import logging
import re
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from s2cube.config.sections import JobConfig
from s2cube.storage.layout import REPORT
from s2cube.storage.output import Output

log = logging.getLogger(__name__)

_SCRIPTS = ("facts.js", "charts.js", "page.js")
"""Parts of the script of the page, in their order. It draws the charts as SVG: a library that draws one of the three
kinds is larger than the whole script."""


@dataclass(frozen=True)
class Report:
    """What was written.

    Parameters
    ----------
    path
        Path or address of the page.
    areas, days
        Numbers.
    problems
        Texts about files of the output that cannot be read.
    size
        Bytes.
    """

    path: str
    areas: int
    days: int
    problems: list[str]
    size: int


def write_report(output: Output) -> Report:
    """Write the page of an output, completely or not at all. It is ``report.html`` there.

    What cannot be read is named on the page.

    Raises
    ------
    WriteError
        If the output cannot be listed, or the page cannot be written.

    Examples
    --------
    The files are those of the command ``s2cube demo``.

    >>> from s2cube.report.page import write_report
    >>> from s2cube.storage.output import Output
    >>> report = write_report(Output.at("s2cube-demo/images"))
    >>> report.areas, report.days, report.problems
    (1, 6, [])
    """
    # These modules load libraries that most commands do not need.
    from s2cube.report._data import page_data
    from s2cube.report._gathering import add_areas_without_days, gather
    from s2cube.report._statistics import add_statistics

    facts = gather(output)
    add_statistics(facts)
    add_areas_without_days(facts)
    data = page_data(facts)
    content = page_of(data).encode(errors="replace")
    output.destination.put(REPORT, content)
    days = sum(len(area["days"]["day"]) for area in data["areas"])
    return Report(f"{output.destination.address}/{REPORT}", data["all_areas"], days, facts.problems, len(content))


def write_report_if_wanted(config: JobConfig, output: Output) -> None:
    """Write the page if the settings of a job that has ended name it. Raises as `write_report` does."""
    if config.job.report:
        report = write_report(output)
        log.info("%s describes the output", report.path)


def page_of(data: dict[str, Any]) -> str:
    """Return the page of its data.

    The policy of the page permits its own script and style by their digests, and nothing else. The data are no script.
    """
    script, style = "".join(map(_part, _SCRIPTS)), _part("page.css")
    # A browser ends the element at `</script`, and reads `<!--` in its own way.
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    policy = (
        f"default-src 'none'; script-src {_digest(script)}; style-src {_digest(style)}; "
        "img-src 'self' file: data:; base-uri 'none'; form-action 'none'"
    )
    filled = {
        "POLICY": html.escape(policy), "TITLE": html.escape(data["output"]), "STYLE": style, "DATA": text,
        "SCRIPT": script,
    }  # fmt: skip
    # In one step, because the data may contain such names, too.
    return re.sub(r"\{\{(\w+)\}\}", lambda name: filled[name[1]], _part("page.html"))


def _part(name: str) -> str:
    return files("s2cube.report").joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
