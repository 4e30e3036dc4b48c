"""The page on `sync`: its lines for cron and systemd work with the real cron and systemd."""

import os
import pwd
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from s2cube.config.loading import load_config
from s2cube.demo.archive import Archive
from support.runs import CommandLine
from support.servers import require_server

PAGE = (Path(__file__).resolve().parents[2] / "docs/how-to/sync.md").read_text()


def block(language: str, number: int = 0) -> str:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)[number]


def test_the_settings_are_valid(tmp_path: Path) -> None:
    (tmp_path / "sync.toml").write_text(block("toml"))
    config = load_config({}, {}, tmp_path / "sync.toml")
    assert config.sync.products == ("images", "composites")
    assert config.sync.lookback.days == 45


@pytest.mark.slow
@pytest.mark.usefixtures("server_processes")
def test_cron_runs_the_line(tmp_path: Path) -> None:
    require_server(shutil.which("cron") is not None, "cron")
    if os.geteuid() != 0:
        pytest.skip("cron runs only as root")
    # The line as it is, but each minute, and in a folder with a program in the place of s2cube that notes its call.
    bin_folder = tmp_path / "home/me/.venv/bin"
    bin_folder.mkdir(parents=True)
    (tmp_path / "home/me/fields").mkdir()
    (bin_folder / "s2cube").write_text(f'#!/bin/sh\necho "$PWD $*" >> {tmp_path}/called\necho said >&2\n')
    (bin_folder / "s2cube").chmod(0o755)
    line = block("cron").replace("0 6 * * *", "* * * * *").replace("/home/", f"{tmp_path}/home/")
    table = Path("/etc/cron.d/s2cube-test")
    user = pwd.getpwuid(os.geteuid()).pw_name
    table.write_text(line.replace("* * * * * ", f"* * * * * {user} "))
    cron = subprocess.Popen([shutil.which("cron") or "", "-f"])
    try:
        deadline = time.monotonic() + 130
        while not (tmp_path / "called").exists():
            assert time.monotonic() < deadline
            assert cron.poll() is None, "cron has ended: perhaps another one runs"
            time.sleep(0.5)
        time.sleep(0.5)
    finally:
        table.unlink()
        cron.terminate()
        cron.wait(10)
    assert (tmp_path / "called").read_text().split("\n")[0] == (
        f"{tmp_path}/home/me/fields sync --config sync.toml --quiet"
    )
    assert (tmp_path / "home/me/fields/sync.log").read_text().startswith("said")


@pytest.mark.usefixtures("server_processes")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    require_server(shutil.which("systemd-analyze") is not None, "systemd")
    service, timer = tmp_path / "s2cube-sync.service", tmp_path / "s2cube-sync.timer"
    process = tmp_path / "s2cube-service.service"
    service.write_text(block("ini").replace("WorkingDirectory=/srv/fields", f"WorkingDirectory={tmp_path}"))
    timer.write_text(block("ini", 1))
    process.write_text(block("ini", 2).replace("WorkingDirectory=/srv/fields", f"WorkingDirectory={tmp_path}"))
    command = ["systemd-analyze", "verify", "--man=no", str(service), str(timer), str(process)]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=60)
    ours = [line for line in checked.stderr.splitlines() if "s2cube" in line]
    assert (checked.returncode, ours) == (0, [])
    # A mistake is found.
    timer.write_text(block("ini", 1).replace("*-*-* 06:00", "at six"))
    assert "at six" in subprocess.run(command, capture_output=True, text=True, timeout=60).stderr


def test_the_job_of_kubernetes(s2cube_command: CommandLine, archive: Archive) -> None:
    job = yaml.safe_load(block("yaml"))
    (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    program, *words = container["args"]
    assert program == "s2cube"
    # The flags are right: only the areas are missing.
    here = {"s3://fields/areas.parquet": "missing.gpkg", "s3://fields/out": "out"}
    refused = s2cube_command(*(here.get(word, word) for word in words), "--stac", archive.items)
    assert (refused.status, "missing.gpkg: " in refused.err) == (2, True), refused.err
    assert (job["kind"], job["spec"]["concurrencyPolicy"]) == ("CronJob", "Forbid")


@pytest.mark.parametrize("number", [0, 1])
def test_the_python_of_the_page_is_valid(number: int) -> None:
    compile(block("python", number), "page", "exec")
