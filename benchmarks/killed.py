"""Check that a run that is killed at a random time and then repeated writes the same bytes as an undisturbed run.

python benchmarks/killed.py [--times 50] [--areas 1] [--days 12] [--workers 2]

With several areas, workers read them together and compute batches of their slices. With --workers 0, the job is
computed in threads of the process that is killed. Every second run is killed after its first slice is written, because
reading takes longer than writing.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import many

FILES_A_SLICE, FILES_AN_AREA, FILES = 5, 2, 2
"""Numbers of files: image, QA image, its style, picture and Item; collection and timeline; catalogue and table."""


def command(folder: Path, url: str, out: Path, days: int, workers: int) -> list[str]:
    flags = ["--aoi", folder / "aoi.geojson", "--stac", url, "--bands", "blue,swir16", "--out", out, "-q"]
    flags += ["--workers", workers] if workers else []
    return [sys.executable, "-m", "s2cube", "run", *map(str, flags), "--max-items", str(days)]


def files(out: Path) -> dict[str, bytes]:
    """Read all files of an output, except the record of the run."""
    found = {path.relative_to(out): path for path in out.rglob("*") if path.is_file()}
    return {str(name): path.read_bytes() for name, path in found.items() if name.parts[0] != ".s2cube"}


def items(out: Path) -> list[Path]:
    return list(out.glob("*/*/*.json"))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--times", type=int, default=50)
    options.add_argument("--areas", type=int, default=1)
    options.add_argument("--days", type=int, default=12)
    options.add_argument("--workers", type=int, default=2)
    arguments = options.parse_args()
    days, areas, workers = arguments.days, arguments.areas, arguments.workers
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        many.write_archive(folder, days, areas)
        with many.served(folder, latency_s=0.01) as archive:
            url = f"http://127.0.0.1:{archive.server_port}/items.json"
            began_s, whole = time.time(), folder / "whole"
            subprocess.run(command(folder, url, whole, days, workers), check=True)
            took_s, expected = time.time() - began_s, files(whole)
            assert len(expected) == (FILES_A_SLICE * days + FILES_AN_AREA) * areas + FILES
            first_s = min(path.stat().st_mtime for path in items(whole)) - began_s
            different, done = 0, []
            for number in range(arguments.times):
                out = folder / f"out{number}"
                run = subprocess.Popen(command(folder, url, out, days, workers), start_new_session=True)
                if number % 2:
                    while not items(out) and run.poll() is None:
                        time.sleep(0.005)
                    time.sleep(random.uniform(0, took_s - first_s))
                else:
                    time.sleep(random.uniform(0, took_s))
                with suppress(ProcessLookupError):
                    os.killpg(run.pid, signal.SIGKILL)
                run.wait()
                done.append(len(items(out)))
                subprocess.run(command(folder, url, out, days, workers), check=True)
                different += files(out) != expected
                print(f"{number + 1}: {done[-1]} slices written before, {different} outputs differ", file=sys.stderr)
    print(f"killed {arguments.times} times within {took_s:.1f} s")
    print(f"{sum(0 < each < days * areas for each in done)} times some slices were written before, and not all")
    print(f"{different} of {arguments.times} differ from the undisturbed run")
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
