"""Compare runs of s2cube over many fields with scripts that use odc-stac.

    python benchmarks/fields.py [--fields 1 100 1000] [--scenes 6 24] [--contenders NAME ...] [--rounds 1]
                                [--corner-m 24000] [--latency-ms 50] [--folder FOLDER]

The script writes an archive of noise as large as real granules (260 MB; kept in FOLDER, if set) and serves it on
loopback with a delay before every answer. The catalogue is an ItemCollection. Fields are polygons of 5 to 12 corners,
300 to 900 m wide, in a square of 30 km, whose upper left corner is --corner-m from that of the granule. They do not
overlap, and are the same in each run. In every round, each contender computes each case in a new process: blue and
swir16 at 30 m, masked by the scene classification, cut to the field, one COG a field and day. Every second round has
the reverse order. All cases together take hours; 100 fields and 6 scenes take minutes. The contenders are:

- s2cube: `s2cube run` with its default number of workers. It also writes QA images, pictures and Items.
- 1 worker: the same with `--workers 1`.
- fast: the same as s2cube with `--quality fast`. It reads overviews, as the scripts do.
- one by one: fields_one_by_one.py, the script that a user writes.
- at once: fields_at_once.py, the best script that we could write.

The script prints one table, with medians. Ratios in brackets are to "one by one", or to the first contender if that one
does not run. CPU is user and system time of all processes of a contender. The least is what the catalogue, the header
of each file and each tile under a cell of a field have in bytes, each once. The tiles are those of the overviews, if
the contender reads overviews. "CPU ms a slice" is the CPU time of the run without the CPU time of decoding these tiles
once. The last two columns compare up to 20 images with those of the contender with the ratio 1: the share of the
valid cells that are valid in both, and the mean absolute difference of their values.
"""

import argparse
import itertools
import os
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio
from archive import EPSG, LEFT_M, TOP_M, Served, serve, write_archive
from fields_case import CELL_M, Case, least
from processes import adopt_orphans, time_processes

HERE = Path(__file__).resolve().parent
S2CUBE = {"s2cube": (), "1 worker": ("--workers", "1"), "fast": ("--quality", "fast")}
SCRIPTS = {"one by one": "fields_one_by_one.py", "at once": "fields_at_once.py"}
READ_OVERVIEWS = ("fast", *SCRIPTS)
BASE = "one by one"
SAMPLE = 20

Cells = tuple[np.ndarray, np.ndarray]
"""Numbers of the valid cells of an image, and their values with axes band and cell."""


class Run(NamedTuple):
    wall_s: float
    cpu_s: float
    requests: int
    bytes: int
    files: int
    sample: dict[str, Cells]


def command_of(contender: str, url: str, fields: Path, out: Path) -> list[str]:
    if contender in SCRIPTS:
        return [sys.executable, str(HERE / SCRIPTS[contender]), url, str(fields), str(out), str(EPSG)]
    flags = f"--quiet --bands blue,swir16 --dtype int16 --mask scl --resolution {CELL_M} --crs EPSG:{EPSG}".split()
    places = ["--aoi", str(fields), "--stac", url, "--out", str(out)]
    return [sys.executable, "-m", "s2cube", "run", *flags, *places, *S2CUBE[contender]]


def measure(contender: str, case: Case, served: Served, archive: Path) -> Run:
    catalogue = case.write_catalogue(archive)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fields, out = folder / "fields.geojson", folder / "out"
        case.write_fields(fields)
        served.take_traffic()
        times = time_processes(command_of(contender, f"{served.url}/{catalogue.name}", fields, out), folder)
        traffic = served.take_traffic()
        files = [path for path in out.rglob("*") if path.is_file()]
        images = {path.stem: path for path in files if path.suffix == ".tif" and not path.stem.endswith("_qa")}
        if len(images) != case.slices:
            raise RuntimeError(f"{contender} wrote {len(images)} images instead of {case.slices}")
        step = -(-len(images) // SAMPLE)
        sample = {name: valid_cells(images[name]) for name in sorted(images)[::step]}
        return Run(*times, traffic["requests"], traffic["bytes"], len(files), sample)


def valid_cells(path: Path) -> Cells:
    with rasterio.open(path) as file:
        pixels = file.read(masked=True)
        top, left = round((TOP_M - file.transform.f) / CELL_M), round((file.transform.c - LEFT_M) / CELL_M)
    valid = ~np.ma.getmaskarray(pixels).any(axis=0)
    rows, columns = np.nonzero(valid)
    return (rows + top) * 10_000 + columns + left, pixels.data[:, valid].astype(float)


def compare(sample: dict[str, Cells], others: dict[str, Cells]) -> tuple[float, float]:
    """Return the share of the valid cells that are valid in both samples, and their mean absolute difference."""
    either, differences = 0, []
    for name, (cells, values) in sample.items():
        other_cells, other_values = others[name]
        both, here, there = np.intersect1d(cells, other_cells, assume_unique=True, return_indices=True)
        either += cells.size + other_cells.size - both.size
        differences.append(abs(values[:, here] - other_values[:, there]))
    all_differences = np.concatenate(differences, axis=1)
    return all_differences.shape[1] / either, float(all_differences.mean())


def table(runs: dict[Case, dict[str, list[Run]]], archive: Path) -> Iterator[str]:
    columns = [
        "fields × scenes",
        "contender",
        "wall s",
        "CPU s",
        "CPU ms a slice",
        "requests",
        "MB",
        "÷ least",
        "files",
    ]
    columns += ["both", "difference"]
    yield f"| {' | '.join(columns)} |"
    yield "| --- " * len(columns) + "|"
    for case, of_case in runs.items():
        needed = {overviews: least(archive, case, overviews) for overviews in (False, True)}
        base = BASE if BASE in of_case else next(iter(of_case))
        base_wall_s, base_cpu_s = medians(of_case[base])[:2]
        for contender, its_runs in of_case.items():
            wall_s, cpu_s, requests, size, files = medians(its_runs)
            minimum = needed[contender in READ_OVERVIEWS]
            both, difference = compare(its_runs[0].sample, of_case[base][0].sample)
            yield (
                f"| {case} | {contender} | {wall_s:.1f} ({wall_s / base_wall_s:.2f}) "
                f"| {cpu_s:.1f} ({cpu_s / base_cpu_s:.2f}) "
                f"| {(cpu_s - minimum.decoding_s) / case.slices * 1000:.1f} | {requests:.0f} | {size / 1e6:.1f} "
                f"| {size / minimum.bytes:.3f} | {files:.0f} | {both:.3f} | {difference:.1f} |"
            )


def medians(runs: list[Run]) -> list[float]:
    return [statistics.median(values) for values in list(zip(*runs, strict=True))[:5]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    contenders = [*S2CUBE, *SCRIPTS]
    parser.add_argument("--fields", type=int, nargs="+", default=[1, 100, 1000])
    parser.add_argument("--scenes", type=int, nargs="+", default=[6, 24])
    parser.add_argument("--contenders", nargs="+", choices=contenders, default=contenders, metavar="NAME")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--corner-m", type=int, default=24_000)
    parser.add_argument("--latency-ms", type=float, default=50)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    adopt_orphans()
    cases = [Case(*numbers, arguments.corner_m) for numbers in itertools.product(arguments.fields, arguments.scenes)]
    runs: dict[Case, dict[str, list[Run]]] = {case: defaultdict(list) for case in cases}
    with tempfile.TemporaryDirectory() as scratch:
        archive = (arguments.folder or Path(scratch)).resolve()
        write_archive(archive, max(arguments.scenes))
        with serve(archive, arguments.latency_ms) as served:
            for number in range(arguments.rounds):
                for case, contender in itertools.product(cases, arguments.contenders[:: -1 if number % 2 else 1]):
                    run = measure(contender, case, served, archive)
                    runs[case][contender].append(run)
                    print(f"{case}, {contender}: {run._replace(sample={})}", file=sys.stderr)
        print(f"{os.cpu_count()} cores, {arguments.latency_ms:g} ms before every answer, {arguments.rounds} rounds\n")
        for line in table(runs, archive):
            print(line)


if __name__ == "__main__":
    main()
