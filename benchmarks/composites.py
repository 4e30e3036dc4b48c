"""Compare composites of s2cube with scripts that use odc-stac, xarray and geomad.

    python benchmarks/composites.py [--days 24] [--side-m 60000] [--contenders NAME ...] [--rounds 1]
                                    [--latency-ms 10] [--eps 1e-7] [--folder FOLDER] [--kernels] [--granule [--days 70]]

The archive is that of archive.py, with files of each day whose pixels differ (12 GB for 24 days; kept in FOLDER, if
set). The area is a square in one granule. Each contender computes one composite of all days in a new process: red, nir
and swir16 (10, 10 and 20 m) at 30 m, masked by the scene classification, as one COG. Every second round has the reverse
order. The contenders are:

- median, geomedian: `s2cube composite`, with its default number of workers.
- fast median, fast geomedian: the same with `--quality fast`. They read overviews, as the scripts do.
- lazy, loaded: odc-stac, then xarray's `DataArray.median`: in blocks with Dask, and of a loaded array.
- geomad: odc-stac, then geomad with --eps.
- first: `s2cube composite --method first`. No pixel is cloud on the second day, so two days fill all pixels.
- two days: the same, with a catalogue of these two days.

geomad is not installed with s2cube: `pip install geomad`.

Ratios are to "lazy" for the median, to "geomad" for the geometric median, and to "two days" for first. CPU is user and
system time of all processes of a contender, imports and start of workers included. Memory is the maximum of the sum of
the proportional set sizes of its processes. The least is what the catalogue, the header of each file and each native
tile under the area have in bytes, each once. The last column is the mean absolute difference from the contender that
the ratios are to, in 0.0001 reflectance. It is not 0 if one of both reads overviews.

With ``--kernels``, the script only compares the geometric medians of s2cube and geomad on the same spectra: CPU time
and error. With ``--granule``, it computes the median of a whole granule (swir16) with one worker whose limit is
2 GB, and prints the peak memory of the largest process.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import composites_kernels
import numpy as np
import rasterio
from archive import EPSG, LEFT_M, TOP_M, Served, serve
from composites_case import CELL_M, Case, write_days
from processes import PeakMemory, adopt_orphans, time_processes
from rasterio.windows import from_bounds

HERE = Path(__file__).resolve().parent
CONTENDERS = (
    *("median", "fast median", "lazy", "loaded"),
    *("geomedian", "fast geomedian", "geomad"),
    *("first", "two days"),
)
BASES = {"median": "lazy", "fast median": "lazy", "loaded": "lazy"}
BASES |= {"geomedian": "geomad", "fast geomedian": "geomad", "first": "two days"}
"""The contender that the ratios of another one are to."""

SCRIPTS = ("lazy", "loaded", "geomad")
CLEAR_DAY = 1
KERNEL_CELLS = 1_000_000
GRANULE_BANDS = ("swir16",)
WORKER = {"n_workers": 1, "threads_per_worker": 2, "memory_limit": "2GB"}


class Run(NamedTuple):
    wall_s: float
    cpu_s: float
    peak_mb: float
    process_mb: float
    requests: int
    bytes: int
    image: np.ndarray


def command_of(contender: str, case: Case, eps: float) -> list[str]:
    """Return the command, without the places that it reads and writes."""
    if contender in SCRIPTS:
        script = str(HERE / "composites_scripts.py")
        return [sys.executable, script, contender, str(EPSG), ",".join(case.bands), str(eps)]
    method = "first" if contender == "two days" else contender.removeprefix("fast ")
    flags = f"--quiet --bands {','.join(case.bands)} --mask scl --resolution {CELL_M} --crs EPSG:{EPSG}"
    period = f"--datetime 2017 --period year --method {method}"
    command = [sys.executable, "-m", "s2cube", "composite", *flags.split(), *period.split()]
    return [*command, "--quality", "fast"] if contender.startswith("fast") else command


def measure(command: list[str], case: Case, served: Served, catalogue: Path) -> Run:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        area, out = folder / "area.geojson", folder / "out"
        case.write_area(area)
        places = [f"{served.url}/{catalogue.name}", str(area), str(out)]
        if "s2cube" in command:
            places = [word for pair in zip(("--stac", "--aoi", "--out"), places, strict=True) for word in pair]
        served.take_traffic()
        memory = PeakMemory()
        times = time_processes([*command, *places], folder, memory.watch)
        memory.ended.set()
        traffic = served.take_traffic()
        images = [each for each in out.glob("*/*/*.tif") if not each.stem.endswith("_count")] or [out]
        (image,) = (each for each in images if not each.stem.endswith("_date"))
        pixels = read_square(image, case)
    return Run(*times, memory.peak_mb, memory.process_mb, traffic["requests"], traffic["bytes"], pixels)


def read_square(path: Path, case: Case) -> np.ndarray:
    left, top, right, bottom = case.square_m
    with rasterio.open(path) as file:
        window = from_bounds(LEFT_M + left, TOP_M - bottom, LEFT_M + right, TOP_M - top, file.transform)
        pixels: np.ndarray = file.read(window=window.round_offsets().round_lengths(), masked=True).astype("float64")
    return pixels


def table(runs: dict[str, list[Run]], least: int) -> Iterator[str]:
    yield "| contender | wall s | CPU s | peak MB | requests | MB | ÷ least | difference |"
    yield "| --- " * 8 + "|"
    for contender, its_runs in runs.items():
        own, base = medians(its_runs), medians(runs.get(BASES.get(contender, contender), its_runs))
        wall_s, cpu_s, peak_mb, size = (
            f"{own[at] / scale:.{digits}f} ({own[at] / base[at]:.2f})"
            for at, scale, digits in ((0, 1, 1), (1, 1, 1), (2, 1, 0), (5, 1e6, 1))
        )
        differs = ""
        if BASES.get(contender) in runs:
            differs = f"{np.abs(its_runs[0].image - runs[BASES[contender]][0].image).mean():.2f}"
        of_least = "" if contender in ("first", "two days") else f"{own[5] / least:.3f}"
        yield f"| {contender} | {wall_s} | {cpu_s} | {peak_mb} | {own[4]:.0f} | {size} | {of_least} | {differs} |"


def medians(runs: list[Run]) -> list[float]:
    return [statistics.median(values) for values in list(zip(*runs, strict=True))[:6]]


def compare(arguments: argparse.Namespace, archive: Path, served: Served) -> None:
    case = Case(arguments.days, arguments.side_m)
    runs: dict[str, list[Run]] = defaultdict(list)
    for number in range(arguments.rounds):
        for contender in arguments.contenders[:: -1 if number % 2 else 1]:
            days = CLEAR_DAY + 1 if contender == "two days" else case.days
            clear_day = CLEAR_DAY if contender in ("first", "two days") else None
            catalogue = case._replace(days=days).write_catalogue(archive, clear_day)
            run = measure(command_of(contender, case, arguments.eps), case, served, catalogue)
            runs[contender].append(run)
            print(f"{contender}: {run[:-1]}", file=sys.stderr, flush=True)
    print(f"{case.side_m / 1000:g} km, {case.days} days, {os.cpu_count()} cores, ", end="")
    print(f"{arguments.latency_ms:g} ms before every answer, {arguments.rounds} rounds\n")
    for line in table({name: runs[name] for name in arguments.contenders}, case.least_bytes(archive)):
        print(line)


def limit_memory(arguments: argparse.Namespace, archive: Path, served: Served) -> None:
    """Compute the median of a whole granule with a worker of 2 GB."""
    # Python before 3.11.9 may lock up under the profiler of a worker.
    os.environ["DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED"] = "False"
    case = Case(arguments.days, 0, GRANULE_BANDS)
    cluster = ["--workers", "1", "--class", "distributed.LocalCluster", "--options", json.dumps(WORKER)]
    command = [*command_of("median", case, arguments.eps), *cluster]
    run = measure(command, case, served, case.write_catalogue(archive))
    print(f"a granule, {case.days} days, {len(case.bands)} bands, a worker of {WORKER['memory_limit']}: ", end="")
    print(f"{run.wall_s:.0f} s, {run.cpu_s:.0f} s of CPU, largest process {run.process_mb:.0f} MB, ", end="")
    print(f"all processes {run.peak_mb:.0f} MB, bytes ÷ least {run.bytes / case.least_bytes(archive):.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int)
    parser.add_argument("--side-m", type=int, default=60_000)
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=CONTENDERS, metavar="NAME")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--latency-ms", type=float, default=10)
    parser.add_argument("--eps", type=float, default=1e-7)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--kernels", action="store_true")
    parser.add_argument("--granule", action="store_true")
    arguments = parser.parse_args()
    arguments.days = arguments.days or (70 if arguments.granule else 24)
    if arguments.kernels:
        for line in composites_kernels.table(arguments.days, KERNEL_CELLS):
            print(line)
        return
    adopt_orphans()
    with tempfile.TemporaryDirectory() as scratch:
        archive = (arguments.folder or Path(scratch)).resolve()
        write_days(archive, arguments.days)
        with serve(archive, arguments.latency_ms) as served:
            (limit_memory if arguments.granule else compare)(arguments, archive, served)


if __name__ == "__main__":
    main()
