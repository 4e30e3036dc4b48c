"""A run that is killed at a random moment and begun again leaves the same bytes as one that was left alone.

python benchmarks/killed.py [--times 50] [--slices 12]
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


def command(folder: Path, url: str, out: Path, slices: int) -> list[str]:
    usual = ["--aoi", folder / "aoi.geojson", "--stac", url, "--bands", "blue,swir16", "--out", out, "-q"]
    return [sys.executable, "-m", "s2cube", "run", *map(str, usual), "--max-items", str(slices)]


def files(out: Path) -> dict[str, bytes]:
    """Read all that a run leaves, but for its record of itself."""
    found = {path.relative_to(out): path for path in out.rglob("*") if path.is_file()}
    return {str(name): path.read_bytes() for name, path in found.items() if name.parts[0] != ".s2cube"}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--times", type=int, default=50)
    options.add_argument("--slices", type=int, default=12)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        many.write_archive(folder, chosen.slices)
        with many.served(folder, latency_s=0.01) as archive:
            url = f"http://127.0.0.1:{archive.server_port}/items.json"
            began_s = time.perf_counter()
            subprocess.run(command(folder, url, folder / "whole", chosen.slices), check=True)
            whole_s, right = time.perf_counter() - began_s, files(folder / "whole")
            assert len(right) == 4 * chosen.slices + 2
            different, done = 0, []
            for number in range(chosen.times):
                out = folder / f"out{number}"
                run = subprocess.Popen(command(folder, url, out, chosen.slices), start_new_session=True)
                time.sleep(random.uniform(0, whole_s))
                os.killpg(run.pid, signal.SIGKILL)
                run.wait()
                done.append(len(list(out.glob("field/*/*.json"))))
                subprocess.run(command(folder, url, out, chosen.slices), check=True)
                different += files(out) != right
    print(f"killed {chosen.times} times within {whole_s:.1f} s, with 0 to {max(done)} of {chosen.slices} slices done")
    print(f"{different} of {chosen.times} differ from the run that was left alone")
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
