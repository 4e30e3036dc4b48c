"""Passes whose slices a Dask cluster computes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.runs import CommandLine, Job

WORDS = ("--bands", "blue", "--full", "--datetime", "2022", "--products", "images,statistics,composites")


def test_it_makes_the_same_as_this_machine(
    s2cube_command: CommandLine, job: Job, digests: Callable[[Path], dict[str, Any]]
) -> None:
    on_cluster = s2cube_command(*job(*WORDS, command="sync"))
    assert on_cluster.status == 0, on_cluster.err
    here = s2cube_command(*job(*WORDS, "--scheduler", "", "--out", "here", command="sync"))
    assert here.status == 0, here.err
    assert on_cluster.json["written"] == here.json["written"]
    made = digests(Path("out"))
    assert {Path(name).parts[0] for name in made} >= {"corner", "statistics", "areas.parquet"}
    assert any(name.endswith("_count.tif") for name in made)
    assert made == digests(Path("here"))
    again = s2cube_command(*job(*WORDS, command="sync"))
    assert (again.status, again.json["written"], again.json["requests"]) == (0, [], 0)


def test_one_that_cannot_be_reached_is_a_pass_that_failed(s2cube_command: CommandLine, job: Job) -> None:
    failed = s2cube_command(*job(*WORDS, "--scheduler", "tcp://127.0.0.1:9", command="sync"))
    assert failed.status == 1
    assert "no Dask scheduler answers" in failed.err
    (line,) = map(json.loads, Path("out/sync.jsonl").read_text().splitlines())
    assert "no Dask scheduler answers" in line["error"]
    assert s2cube_command("status", "out").status == 1
    # The next pass makes what this one did not.
    healed = s2cube_command(*job(*WORDS, command="sync"))
    assert healed.status == 0, healed.err
    assert healed.json["written"]
