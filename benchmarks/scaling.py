"""Measure the effect of more slices, of more workers, of a cluster, and of a second run.

    python benchmarks/scaling.py [--rounds 3]

The script prints the median over all rounds of these ratios:

- a second run with nothing new / the first run: time (200 slices);
- 1,000 slices / 100 slices: time per slice, peak memory of the client and of the scheduler;
- one worker with one thread / two such workers: time, if the processor is the bottleneck (100 slices);
- s2cube's own cluster / threads in one process: time (200 slices).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import many
import psutil
from soak import dask, kill, megabytes

from s2cube import load_config
from s2cube.jobs.job import plan_job
from s2cube.storage.lease import held
from s2cube.storage.output import Output
from s2cube.workers.batches import batches
from s2cube.workers.worker import compute_batch


def run_command(folder: Path, stac: str, out: Path, *more: object) -> list[str]:
    flags = ["--aoi", folder / "aoi.geojson", "--stac", stac, "--bands", "blue,swir16", "--out", out, "-q", *more]
    return [sys.executable, "-m", "s2cube", "run", "--json", *map(str, flags)]


def run(command: list[str], *watched: int) -> tuple[float, list[float], dict[str, object]]:
    """Run a command; return its wall time, the peak memory of it and of each watched process, and its JSON output."""
    peaks = [0.0] * (1 + len(watched))
    with tempfile.TemporaryFile("w+") as stdout:
        began_s = time.perf_counter()
        process = subprocess.Popen(command, stdout=stdout)
        while process.poll() is None:
            alone = psutil.Process(process.pid).memory_info().rss / 1e6
            for number, size in enumerate((alone, *map(megabytes, watched))):
                peaks[number] = max(peaks[number], size)
            time.sleep(0.05)
        wall_s = time.perf_counter() - began_s
        stdout.seek(0)
        output = stdout.read()
    assert process.returncode == 0, output
    return wall_s, peaks, json.loads(output.splitlines()[-1])


class Cluster:
    """A scheduler and workers in separate processes."""

    def __init__(self, folder: Path, workers: int, threads: int) -> None:
        scheduler_file = folder / f"at{time.monotonic_ns()}.json"
        self.scheduler = dask(
            "scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(scheduler_file)
        )
        while not scheduler_file.exists():
            time.sleep(0.1)
        self.address = json.loads(scheduler_file.read_text())["address"]
        self.workers = [dask("worker", self.address, "--nthreads", str(threads)) for _ in range(workers)]
        # Wait until the workers have started. Their start is not measured.
        time.sleep(6)

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *_: object) -> None:
        for process in (*self.workers, self.scheduler):
            kill(process)


def second_to_first(folder: Path, url: str) -> float:
    out = folder / f"again{time.monotonic_ns()}"
    first_s, _, summary = run(run_command(folder, url, out, "--max-items", 200))
    assert len(summary["written"]) == 200
    second_s, _, summary = run(run_command(folder, url, out, "--max-items", 200))
    assert (len(summary["skipped"]), summary["requests"]) == (200, 0)
    print(f"  200 slices: {first_s:.1f} s, again {second_s:.1f} s")
    return second_s / first_s


def growth(folder: Path, url: str) -> tuple[float, float, float]:
    found = {}
    for slices in (100, 1000):
        with Cluster(folder, 2, 1) as cluster:
            out = folder / f"growth{time.monotonic_ns()}"
            run(
                run_command(
                    folder, url, folder / f"warm{time.monotonic_ns()}", "--max-items", 4, "--scheduler", cluster.address
                )
            )
            wall_s, (client, scheduler), _ = run(
                run_command(folder, url, out, "--max-items", slices, "--scheduler", cluster.address),
                cluster.scheduler.pid,
            )
        found[slices] = wall_s / slices, client, scheduler
        each_ms = 1000 * wall_s / slices
        print(f"  {slices} slices: {each_ms:.0f} ms each, client {client:.0f} MB, scheduler {scheduler:.0f} MB")
    return tuple(more / less for more, less in zip(found[1000], found[100], strict=True))  # type: ignore[return-value]


def two_to_one(folder: Path, url: str) -> float:
    """Compare wall times of slices whose bottleneck is the processor: 2 m cells of a small area."""
    taken = []
    for workers in (1, 2):
        with Cluster(folder, workers, 1) as cluster:
            more = ("--scheduler", cluster.address, "--resolution", 2, "--compress-level", 9)
            run(run_command(folder, url, folder / f"warm{time.monotonic_ns()}", "--max-items", 4, *more))
            wall_s, _, _ = run(run_command(folder, url, folder / f"two{time.monotonic_ns()}", *more))
        taken.append(wall_s)
    print(f"  100 slices: one worker {taken[0]:.1f} s, two {taken[1]:.1f} s")
    return taken[0] / taken[1]


def cluster_to_threads(folder: Path, url: str) -> float:
    own_s, _, _ = run(run_command(folder, url, folder / f"own{time.monotonic_ns()}", "--max-items", 200))
    began_s = time.perf_counter()
    subprocess.run([sys.executable, __file__, "--plain", folder, url], check=True)
    plain_s = time.perf_counter() - began_s
    print(f"  200 slices: own cluster {own_s:.1f} s, plain threads {plain_s:.1f} s")
    return own_s / plain_s


def plain(folder: Path, url: str) -> None:
    """Compute 200 slices in this process, with as many threads as s2cube's own cluster has."""
    out = folder / f"plain{time.monotonic_ns()}"
    flags = {
        "aoi": str(folder / "aoi.geojson"),
        "stac": url,
        "bands": "blue,swir16",
        "out": str(out),
        "max_items": "200",
    }
    config = load_config(flags, {})
    with held(Output.at(out)) as lease:
        job = plan_job(config, lease.output)
        threads = config.cluster.workers_on(os.cpu_count() or 1) * config.cluster.threads_on(os.cpu_count() or 1)
        with ThreadPoolExecutor(threads) as pool:
            results = list(pool.map(lambda each: compute_batch(each, config, lease.output), batches(job.todo, 1)))
    assert sum(bool(each.path) for each in results) == 200


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--plain", nargs=2, help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.plain:
        plain(Path(arguments.plain[0]), arguments.plain[1])
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for title, measure, days in (
            ("nothing new / first run, wall", second_to_first, 200),
            ("own cluster / plain threads, wall", cluster_to_threads, 200),
            ("one worker / two, wall", two_to_one, 100),
            ("1,000 / 100 slices: time per slice, memory of the client, memory of the scheduler", growth, 1000),
        ):
            archive = folder / str(days)
            archive.mkdir(exist_ok=True)
            many.write_archive(archive, days)
            with many.served(archive, latency_s=0.01) as server:
                url = f"http://127.0.0.1:{server.server_port}/items.json"
                print(f"{title}, {arguments.rounds} rounds", flush=True)
                ratios = [measure(archive, url) for _ in range(arguments.rounds)]
            columns = zip(*(each if isinstance(each, tuple) else (each,) for each in ratios), strict=True)
            print("  median ratio", *(f"{statistics.median(column):.3f}" for column in columns), flush=True)


if __name__ == "__main__":
    main()
