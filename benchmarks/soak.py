"""Compute many slices on three workers, from an archive whose requests sometimes fail. Workers are killed regularly.

    python benchmarks/soak.py [--slices 2000] [--kill-every-s 20] [--failing 0.02] [--plot docs/images/soak.png]

The script starts a scheduler and three workers in separate processes and runs the job. At regular intervals it kills
a worker and its nanny (SIGKILL) and starts a new worker. It samples the memory of all processes and the number of tasks
that the scheduler knows. At the end it compares the pixels of every slice with the correct values.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import many
import numpy as np
import psutil
import rasterio
from distributed import Client

WORKERS = 3
ENVIRONMENT = os.environ | {"DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False", "OMP_NUM_THREADS": "1"}


def dask(role: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a process of Dask in a new process group."""
    command = [sys.executable, "-m", f"distributed.cli.dask_{role}", *arguments, "--no-dashboard"]
    return subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and its children."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def megabytes(pid: int) -> float:
    """Return the memory (MB) of a process and its children."""
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        return sum(each.memory_info().rss for each in (process, *process.children(recursive=True))) / 1e6
    return 0


@dataclass
class Samples:
    """Samples of memory (MB), tasks and written slices, about one per second."""

    at_s: list[float] = field(default_factory=list)
    done: list[int] = field(default_factory=list)
    tasks: list[int] = field(default_factory=list)
    client: list[float] = field(default_factory=list)
    scheduler: list[float] = field(default_factory=list)
    workers: list[list[float]] = field(default_factory=list)
    killed_at_s: list[float] = field(default_factory=list)


def soak(folder: Path, kill_every_s: float, failing: float) -> tuple[Samples, dict[str, object], int]:
    """Run the job; return the samples, its summary with its exit status, and the number of failed requests."""
    scheduler = dask("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(folder / "at.json"))
    while not (folder / "at.json").exists():
        time.sleep(0.1)
    address = json.loads((folder / "at.json").read_text())["address"]
    workers = [dask("worker", address, "--nthreads", "1") for _ in range(WORKERS)]
    samples, out = Samples(), folder / "out"
    try:
        with many.served(folder, latency_s=0.005, failing=failing) as archive, Client(address) as client:
            client.wait_for_workers(WORKERS)
            url = f"http://127.0.0.1:{archive.server_port}/items.json"
            flags = ["--aoi", folder / "aoi.geojson", "--stac", url, "--bands", "blue,swir16", "--out", out]
            flags += ["--scheduler", address, "--json", "--log-json", "-v"]
            with (folder / "log").open("wb") as log, (folder / "stdout").open("wb") as stdout:
                command = [sys.executable, "-m", "s2cube", "run", *map(str, flags)]
                run = subprocess.Popen(command, stdout=stdout, stderr=log)
            began_s = killed_s = time.monotonic()
            while run.poll() is None:
                time.sleep(1)
                now_s = time.monotonic()
                _sample(samples, now_s - began_s, client, (run, scheduler, workers), out)
                if now_s - killed_s > kill_every_s:
                    killed_s = now_s
                    victim = random.randrange(WORKERS)
                    kill(workers[victim])
                    workers[victim] = dask("worker", address, "--nthreads", "1")
                    samples.killed_at_s.append(now_s - began_s)
            failed = archive.failed
        return samples, json.loads((folder / "stdout").read_text()) | {"status": run.returncode}, failed
    finally:
        for process in (*workers, scheduler):
            kill(process)


def _sample(samples: Samples, at_s: float, client: Client, processes: tuple[object, ...], out: Path) -> None:
    run, scheduler, workers = processes
    samples.at_s.append(at_s)
    samples.tasks.append(client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)))
    with suppress(OSError, ValueError, KeyError):
        samples.done.append(json.loads((out / ".s2cube" / "run").read_text())["progress"]["written"])
    samples.done += [samples.done[-1] if samples.done else 0] * (len(samples.at_s) - len(samples.done))
    samples.client.append(megabytes(run.pid))
    samples.scheduler.append(megabytes(scheduler.pid))
    samples.workers.append([megabytes(worker.pid) for worker in workers])


def wrong_slices(out: Path, slices: int) -> list[str]:
    """Return descriptions of the slices that are missing or have wrong pixels."""
    wrong = []
    for day in range(slices):
        name = many.slice_name(day)
        path = out / "field" / name / f"{name}.tif"
        try:
            json.loads(path.with_suffix(".json").read_text())
            with rasterio.open(path) as cog:
                values = cog.read()
        except (OSError, ValueError) as error:
            wrong.append(f"{name}: {error}")
            continue
        for band, key in zip(values, ("blue", "swir16"), strict=True):
            if set(np.unique(band[band != -9999])) != {many.right_value(day, key)} or (band != -9999).mean() < 0.9:
                wrong.append(f"{name}: {key}")
    return wrong


def plot(samples: Samples, slices: int, path: Path) -> None:
    """Draw memory, tasks and slices over time."""
    import matplotlib.pyplot as plt

    figure, (memory, tasks) = plt.subplots(2, 1, figsize=(9, 6), sharex=True, layout="constrained")
    memory.plot(samples.at_s, samples.client, label="client")
    memory.plot(samples.at_s, samples.scheduler, label="scheduler")
    for number, each in enumerate(zip(*samples.workers, strict=True)):
        memory.plot(samples.at_s, each, label=f"worker {number + 1}", alpha=0.6, linewidth=1)
    memory.set(ylabel="memory, MB", ylim=0)
    memory.legend(ncols=5, fontsize="small", loc="upper right")
    tasks.plot(samples.at_s, samples.tasks, label="tasks that the scheduler knows")
    tasks.set(ylabel="tasks", xlabel="s", ylim=(0, max(samples.tasks) * 1.5))
    done = tasks.twinx()
    done.plot(samples.at_s, samples.done, color="black", label="slices done")
    done.set(ylabel="slices done", ylim=(0, slices * 1.05))
    for axes in (memory, tasks):
        for at_s in samples.killed_at_s:
            axes.axvline(at_s, color="red", alpha=0.3, linewidth=0.8)
    memory.set_title(f"{slices} slices; a worker is killed at each red line", fontsize="medium")
    tasks.legend(loc="upper left", fontsize="small")
    done.legend(loc="lower right", fontsize="small")
    figure.savefig(path, dpi=110)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--slices", type=int, default=2000)
    options.add_argument("--kill-every-s", type=float, default=20)
    options.add_argument("--failing", type=float, default=0.02)
    options.add_argument("--plot", type=Path)
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        many.write_archive(folder, arguments.slices)
        samples, summary, failed = soak(folder, arguments.kill_every_s, arguments.failing)
        written = [str(each) for each in summary["written"]]
        wrong = wrong_slices(folder / "out", arguments.slices)
        log = [json.loads(line) for line in (folder / "log").read_text().splitlines() if line.startswith("{")]
    retries = sum("will be retried" in line["event"] for line in log)
    print(f"exit status {summary['status']}; {len(written)} results, of {len(set(written))} slices; {len(wrong)} wrong")
    print(f"{len(samples.killed_at_s)} workers killed, {failed} requests failed, {retries} retries of slices")
    print(f"{summary['requests']} requests in {samples.at_s[-1]:.0f} s; at most {max(samples.tasks)} tasks known")
    quarter = len(samples.at_s) // 4
    for process in ("client", "scheduler"):
        memory_mb = getattr(samples, process)
        first, last = max(memory_mb[:quarter]), max(memory_mb[-quarter:])
        print(f"{process}: at most {first:.0f} MB in the first quarter, {last:.0f} MB in the last")
    for line in wrong[:10]:
        print(line)
    if arguments.plot:
        plot(samples, arguments.slices, arguments.plot)


if __name__ == "__main__":
    main()
