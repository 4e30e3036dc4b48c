"""The page of an output in a bucket, and at the end of a run on a cluster."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from obstore.store import S3Store

from support.runs import CommandLine, Job

OF_THE_RUN = {"output", "written", "record", "passes"}


def data_of(page: str) -> dict[str, Any]:
    """Return the data of a page, without what differs between two runs."""
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return {name: value for name, value in json.loads(text).items() if name not in OF_THE_RUN}


@pytest.mark.usefixtures("keys")
def test_it_has_the_same_content_as_that_of_a_folder(
    s2cube_command: CommandLine, job: Job, s3: S3Store, tmp_path: Path
) -> None:
    out = f"s3://results/{tmp_path.name}"
    for place in (out, "out"):
        made = s2cube_command(*job("--bands", "blue", "--max-items", "4", "--scheduler", "", "--out", place))
        assert made.status == 0, made.err
        assert s2cube_command("report", place).status == 0
    in_bucket = bytes(s3.get(f"{tmp_path.name}/report.html").bytes()).decode()
    in_folder = Path("out/report.html").read_text()
    assert data_of(in_bucket) == data_of(in_folder)


def test_a_run_on_a_cluster_writes_it_at_the_end(s2cube_command: CommandLine, job: Job) -> None:
    made = s2cube_command(*job("--bands", "blue", "--max-items", "4", "--report"))
    assert made.status == 0, made.err
    data = data_of(Path("out/report.html").read_text())
    assert [len(area["days"]["state"]) for area in data["areas"]] == [len(made.json["written"])]
