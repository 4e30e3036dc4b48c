"""Commands that inspect an output: how its run goes, and whether its files are as they were written."""

import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from s2cube.cli._console import ReadingBar, complain, people, tell_findings, tell_record
from s2cube.cli._flags import File, VoiceFlags, speak
from s2cube.config.loading import load_config
from s2cube.config.sections import JobConfig
from s2cube.errors import S2CubeError, SliceError

_WATCH_S = 2

_Out = Annotated[
    str | None, Parameter("--out", help="Output DIR, or s3://, gs:// or az://BUCKET/FOLDER. Default: out.")
]


def status(
    out: _Out = None,
    *,
    config: File = None,
    voice: VoiceFlags = None,
    watch: Annotated[bool, Parameter(negative="", help="Repeat the report until the run has ended.")] = False,
) -> int:
    """Report how the run of an output goes, or how the last one ended."""
    voice = speak(voice)
    from s2cube.storage.lease import read_record
    from s2cube.storage.output import Output

    asked = _load(out, config)
    output = Output.at(asked.job.out)
    told = None
    while (record := read_record(output)) and watch and record.is_alive:
        if told != record.progress:
            tell_record(record)
        told = record.progress
        time.sleep(_WATCH_S)
    if record is None:
        complain(f"{asked.job.out}: no run has written there")
        return S2CubeError.exit_status
    tell_record(record)
    left_s = None if record.left_s is None else round(record.left_s, 1)
    alive = {"alive": record.is_alive, "slices_per_s": round(record.pace, 3), "left_s": left_s}
    voice.print_json(asdict(record) | alive)
    if record.state == "done":
        return SliceError.exit_status if record.progress.failed else 0
    return 0 if record.is_alive else S2CubeError.exit_status


def verify(
    out: _Out = None,
    *,
    config: File = None,
    voice: VoiceFlags = None,
    repair: Annotated[
        bool, Parameter(negative="", help="Delete the Items of missing or broken files: the next run makes them.")
    ] = False,
) -> int:
    """Read every file of an output, and compare it with the size and checksum in its Item."""
    voice = speak(voice)
    from s2cube.output import verification
    from s2cube.storage.output import Output

    output = Output.at(_load(out, config).job.out)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=people, disable=not voice.has_bar(people), transient=True) as progress:
        findings = (verification.repair if repair else verification.verify)(output, ReadingBar(progress))
    tell_findings(findings, repair)
    kinds: tuple[verification.Kind, ...] = ("missing", "broken", "unverified")
    voice.print_json({"checked": findings.checked} | {kind: findings.of(kind) for kind in kinds})
    return 0 if findings.is_whole else SliceError.exit_status


def _load(out: str | None, config: Path | None) -> JobConfig:
    return load_config({} if out is None else {"out": out}, os.environ, config)
