"""Habits of the project: quick tests start no server, hooks run what `make check` runs, and tests/README.md counts."""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from distributed import LocalCluster

from support import clusters, servers

ROOT = Path(__file__).resolve().parents[1]
CHECKS = ("ruff format", "ruff check", "mypy")


def start_nginx(folder: Path) -> None:
    with servers.nginx(folder, folder / "nginx"):
        pass


def start_process(folder: Path) -> None:
    with servers.process([sys.executable, "-m", "http.server"], "http://127.0.0.1:1", folder / "log"):
        pass


def start_dask(folder: Path) -> None:
    with clusters.dask_cluster(folder, workers=1):
        pass


def start_workers(_: Path) -> None:
    LocalCluster(n_workers=1)


def start_run(_: Path) -> None:
    subprocess.run([sys.executable, "-m", "s2cube", "run", "--help"], check=True)


@pytest.mark.parametrize("start", [start_nginx, start_process, start_dask, start_workers, start_run])
def test_a_quick_test_starts_no_server(start: Callable[[Path], None], tmp_path: Path) -> None:
    with pytest.raises(pytest.fail.Exception, match="is a server: use the fixture server_processes"):
        start(tmp_path)


def test_hooks_run_what_check_runs() -> None:
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert local["repo"] == "local"
    assert all(hook["language"] == "system" for hook in local["hooks"])
    makefile = (ROOT / "Makefile").read_text()
    recipe = makefile[makefile.index("\ncheck:") : makefile.index("\ntest-quick:")]
    for hook, command in zip(local["hooks"], CHECKS, strict=True):
        assert f"python -m {command}" in hook["entry"]
        assert f"python -m {command}" in recipe


@pytest.mark.slow
def test_the_readme_counts_the_tests_that_need_data_from_outside() -> None:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "outside_data", "tests"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = Counter(re.findall(r"^tests/(\S+\.py)::", done.stdout, re.M))
    rows = re.findall(r"^\| `(\S+\.py)` \| (\d+) \|", (ROOT / "tests" / "README.md").read_text(), re.M)
    assert {name: int(number) for name, number in rows} == found
