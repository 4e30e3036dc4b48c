"""Run s2cube in a test: the result of a command, the corner of the demo's farm, and files that a test edits."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s2cube.demo.archive import PASSES
from s2cube.jobs.job import Job as RunJob
from s2cube.storage.lease import Lease
from s2cube.workers.batches import batches
from s2cube.workers.results import SliceResult
from s2cube.workers.worker import compute_batch

KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ENDPOINT_URL", "AWS_ALLOW_HTTP")
FARM = (565000.0, 4549000.0, 566000.0, 4549900.0)
CORNER_DAYS = [f"corner_{each.time:%Y%m%d}" for each in PASSES]


@dataclass(frozen=True)
class Outcome:
    """The result of a command: exit status, stdout, stderr."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.out.splitlines()[-1])
        return answer


CommandLine = Callable[..., Outcome]
Job = Callable[..., list[object]]
Run = Callable[..., Outcome]
EditItems = Callable[[Callable[[list[dict[str, Any]]], Any]], Path]


def file(day: int, suffix: str = ".tif") -> str:
    """Return the path of a file of a slice of the corner, relative to the output."""
    return f"corner/{CORNER_DAYS[day]}/{CORNER_DAYS[day]}{suffix}"


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Edit a JSON file."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def of_day(items: list[dict[str, Any]], day: str) -> list[dict[str, Any]]:
    return [item for item in items if day in item["id"]]


def in_this_process(job: RunJob, lease: Lease) -> Iterator[SliceResult]:
    """Compute slices in this process instead of on a cluster, so that the patches of a test have an effect."""
    for batch in batches(job.todo, 1):
        yield from compute_batch(batch, job.config, lease.output)
