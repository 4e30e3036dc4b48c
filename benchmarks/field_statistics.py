"""Compare `s2cube stats` over very many fields with scripts that use odc-stac and exactextract.

    python benchmarks/field_statistics.py [--cases 1000x24 10000x24 100000x3] [--contenders NAME ...] [--rounds 1]
                                          [--latency-ms 10] [--folder FOLDER] [--rasteret PYTHON]

The archive is that of archive.py. Its blue is read as red, and its swir16 (20 m) as nir, because NDVI needs these
names. The fields are polygons of 5 to 12 corners, 300 to 900 m wide: up to 1,000 in a square of 30 km, more over the
whole granule. From some 14,000 on, they overlap. The largest case has few scenes, so that it takes minutes. In every
round, each contender computes each case in a new process: mean, standard deviation and median of red, nir and NDVI at
30 m, masked by the scene classification. Every second round has the reverse order.
The contenders are:

- s2cube: `s2cube stats`, with its default number of workers.
- again: the same command again, when all rows are there.
- fast: the same with `--quality fast`, which reads overviews, as the two scripts do.
- cube: the cube of the box around the fields, computed once with `open_cube`, a day at a time, without statistics.
- each: odc-stac and exactextract for each field, of 50 fields. Its times, requests and bytes are multiplied.
- once: odc-stac for all fields once, then exactextract on every day.
- rasteret: rasteret, of 10 fields. Its times, requests and bytes are multiplied. It needs Python 3.12, so it runs only
  if --rasteret names a Python that has it, see ``rasteret_statistics.py``.

The scripts with odc-stac read overviews, which have a quarter of the bytes or less.

The script prints one table, with medians. CPU is user and system time of all processes of a contender, imports and
start of workers included. Memory is the maximum of the sum of the proportional set sizes of its processes. The least is
what the catalogue, the header of each file and each native tile under a cell of a field have in bytes, each once. The
last column is the mean absolute difference of five statistics of "s2cube" and of "once", over all fields and days, in
reflectance. It is not 0, because a mean of overviews is not a mean of pixels.

The name of this file is not statistics.py, because it would hide the module of the standard library.
"""

import argparse
import os
import re
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from archive import EPSG, Served, serve, write_archive
from processes import PeakMemory, adopt_orphans, time_processes
from statistics_case import CELL_M, Case, least_bytes

HERE = Path(__file__).resolve().parent
CONTENDERS = ("s2cube", "again", "fast", "cube", "each", "once")
FEW = {"each": 50, "rasteret": 10}
"""Number of fields of contenders that would take hours for all."""

COLUMNS = ["red_mean", "nir_mean", "NDVI_mean", "red_median", "red_std"]


class Run(NamedTuple):
    wall_s: float
    cpu_s: float
    peak_mb: float
    requests: int
    bytes: int

    def scaled(self, factor: float) -> "Run":
        """Return the run for more fields. The memory is the same."""
        times = self.wall_s * factor, self.cpu_s * factor
        return Run(*times, self.peak_mb, round(self.requests * factor), round(self.bytes * factor))


def command_of(contender: str, url: str, fields: Path, out: Path, rasteret: str = "") -> list[str]:
    if contender in ("s2cube", "again", "fast"):
        flags = f"--quiet --bands red,nir --indices NDVI --mask scl --resolution {CELL_M} --crs EPSG:{EPSG}".split()
        places = ["--aoi", str(fields), "--aoi-id", "id", "--stac", url, "--out", str(out)]
        if contender == "fast":
            places = [*places[:-1], f"{out}-fast", "--quality", "fast"]
        return [sys.executable, "-m", "s2cube", "stats", *flags, *places]
    if contender == "rasteret":
        return [rasteret, str(HERE / "rasteret_statistics.py"), url, str(fields), f"{out}-rasteret.parquet"]
    script = str(HERE / "statistics_scripts.py")
    return [sys.executable, script, contender, url, str(fields), f"{out}-{contender}.parquet", str(EPSG)]


def measure(contender: str, case: Case, served: Served, archive: Path, out: Path, rasteret: str) -> Run:
    catalogue = case.write_catalogue(archive)
    few = min(FEW.get(contender, case.fields), case.fields)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fields = folder / "fields.geojson"
        case.write_fields(fields, few)
        served.take_traffic()
        memory = PeakMemory()
        command = command_of(contender, f"{served.url}/{catalogue.name}", fields, out, rasteret)
        times = time_processes(command, folder, memory.watch)
        memory.ended.set()
        traffic = served.take_traffic()
        return Run(*times, memory.peak_mb, traffic["requests"], traffic["bytes"]).scaled(case.fields / few)


def difference(out: Path, case: Case) -> float:
    """Return the mean absolute difference of the statistics of s2cube and of the script "once"."""
    ours = pd.read_parquet(out / "statistics").rename(columns={"aoi": "id"})
    if len(ours) != case.rows:
        raise RuntimeError(f"s2cube wrote {len(ours)} rows instead of {case.rows}")
    if not Path(f"{out}-once.parquet").exists():
        return float("nan")
    both = ours.merge(pd.read_parquet(f"{out}-once.parquet"), on=["id", "date"], suffixes=("", "_once"))
    if len(both) != case.rows:
        raise RuntimeError(f"{len(both)} rows of {case.rows} are in both tables")
    return float(np.nanmean([abs(both[name] - both[f"{name}_once"]) for name in COLUMNS]))


def table(runs: dict[Case, dict[str, list[Run]]], differences: dict[Case, float], archive: Path) -> Iterator[str]:
    columns = ["fields × scenes", "contender", "wall s", "÷ s2cube", "CPU s", "÷ cube", "peak MB", "requests", "MB"]
    columns += ["÷ least", "difference"]
    yield f"| {' | '.join(columns)} |"
    yield "| --- " * len(columns) + "|"
    for case, of_case in runs.items():
        least = least_bytes(archive, case)
        base_s = medians(of_case["s2cube"])[0] if "s2cube" in of_case else float("nan")
        cube_s = medians(of_case["cube"])[1] if "cube" in of_case else float("nan")
        for contender, its_runs in of_case.items():
            wall_s, cpu_s, peak_mb, requests, size = medians(its_runs)
            differs = f"{differences[case]:.2g}" if contender == "s2cube" else ""
            yield (
                f"| {case} | {contender} | {wall_s:.1f} | {wall_s / base_s:.2f} | {cpu_s:.1f} | {cpu_s / cube_s:.2f} "
                f"| {peak_mb:.0f} | {requests:.0f} | {size / 1e6:.1f} | {size / least:.3f} | {differs} |"
            )


def medians(runs: list[Run]) -> list[float]:
    return [statistics.median(values) for values in zip(*runs, strict=True)]


def case_of(text: str) -> Case:
    return Case(*map(int, re.split("[x×]", text)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--cases", type=case_of, nargs="+", default=[Case(1000, 24), Case(10_000, 24), Case(100_000, 3)]
    )
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=CONTENDERS, metavar="NAME")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--latency-ms", type=float, default=10)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--rasteret", metavar="PYTHON", default="")
    arguments = parser.parse_args()
    adopt_orphans()
    runs: dict[Case, dict[str, list[Run]]] = {case: defaultdict(list) for case in arguments.cases}
    differences: dict[Case, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        archive = (arguments.folder or Path(scratch)).resolve()
        write_archive(archive, max(case.scenes for case in arguments.cases))
        with serve(archive, arguments.latency_ms) as served:
            for number in range(arguments.rounds):
                for case in arguments.cases:
                    out = Path(scratch) / f"out-{case.fields}-{case.scenes}-{number}"
                    chosen = [*arguments.contenders, *(["rasteret"] if arguments.rasteret else [])]
                    others = [each for each in chosen if each not in ("s2cube", "again")]
                    ours = [each for each in ("s2cube", "again") if each in arguments.contenders]
                    for contender in [*ours, *others] if number % 2 == 0 else [*others[::-1], *ours]:
                        run = measure(contender, case, served, archive, out, arguments.rasteret)
                        runs[case][contender].append(run)
                        print(f"{case}, {contender}: {run}", file=sys.stderr, flush=True)
                    differences[case] = difference(out, case) if ours else float("nan")
        print(f"{os.cpu_count()} cores, {arguments.latency_ms:g} ms before every answer, {arguments.rounds} rounds\n")
        for line in table(runs, differences, archive):
            print(line)


if __name__ == "__main__":
    main()
