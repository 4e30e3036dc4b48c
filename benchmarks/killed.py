"""Check that a run that is killed at a random time and then repeated writes the same bytes as an undisturbed run.

python benchmarks/killed.py [--times 50] [--slices 12] [--workers 2]

With --workers 0, the job is computed in threads of the process that is killed.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import many


def command(folder: Path, url: str, out: Path, slices: int, workers: int) -> list[str]:
    flags = ["--aoi", folder / "aoi.geojson", "--stac", url, "--bands", "blue,swir16", "--out", out, "-q"]
    flags += ["--workers", workers] if workers else []
    return [sys.executable, "-m", "s2cube", "run", *map(str, flags), "--max-items", str(slices)]


def files(out: Path) -> dict[str, bytes]:
    """Read all files of an output, except the record of the run."""
    found = {path.relative_to(out): path for path in out.rglob("*") if path.is_file()}
    return {str(name): path.read_bytes() for name, path in found.items() if name.parts[0] != ".s2cube"}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--times", type=int, default=50)
    options.add_argument("--slices", type=int, default=12)
    options.add_argument("--workers", type=int, default=2)
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        many.write_archive(folder, arguments.slices)
        with many.served(folder, latency_s=0.01) as archive:
            url = f"http://127.0.0.1:{archive.server_port}/items.json"
            began_s = time.perf_counter()
            subprocess.run(command(folder, url, folder / "whole", arguments.slices, arguments.workers), check=True)
            undisturbed_s, expected = time.perf_counter() - began_s, files(folder / "whole")
            assert len(expected) == 4 * arguments.slices + 2
            different, done = 0, []
            for number in range(arguments.times):
                out = folder / f"out{number}"
                run = subprocess.Popen(
                    command(folder, url, out, arguments.slices, arguments.workers), start_new_session=True
                )
                time.sleep(random.uniform(0, undisturbed_s))
                os.killpg(run.pid, signal.SIGKILL)
                run.wait()
                done.append(len(list(out.glob("field/*/*.json"))))
                subprocess.run(command(folder, url, out, arguments.slices, arguments.workers), check=True)
                different += files(out) != expected
    print(f"killed {arguments.times} times within {undisturbed_s:.1f} s")
    print(f"at most {max(done)} of {arguments.slices} slices were written before")
    print(f"{different} of {arguments.times} differ from the undisturbed run")
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
