"""Compare s2cube's reader with other readers on the same scenes, in one run.

    python benchmarks/readers.py [--rounds 3] [--latency-ms 50] [--folder FOLDER] [--growth]

The script writes an archive of noise as large as real granules (400 MB; kept in FOLDER, if set) and serves it on
loopback with a delay before every answer. In every round, each contender reads each case in a separate process, with
few threads and with many. The script prints the medians and their ratios as Markdown tables, and writes
``docs/images/readers.png``. With ``--growth`` it measures 10, 100 and 1,000 slices of a small area, and chunks of 1, 4
and 16 MB, instead.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from archive import EPSG, LEFT_M, TOP_M, Served, serve, write_archive
from contenders import BANDS, CASES, CONTENDERS

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "readers.png"
THREADS = (4, 16)
"""Numbers of threads. Each contender runs with both; the table shows the faster one of each case."""

FACTS = ("wall_s", "cpu_s", "peak_mb", "requests", "bytes")


def measure(contender: str, case: str, served: Served, *more: str) -> dict[str, float]:
    served.take_traffic()
    command = [sys.executable, str(Path(__file__).with_name("contenders.py")), contender, case, served.url, *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{contender} failed on {case}:\n{done.stderr[-3000:]}")
    traffic = served.take_traffic()
    # One request was for the list of scenes.
    return json.loads(done.stdout) | {"requests": traffic["requests"] - 1, "bytes": traffic["bytes"]}


def minimum(folder: Path, case: str, quality: str) -> tuple[int, int]:
    """Count with rasterio the tiles that a case needs at minimum, and their bytes, without headers."""
    import rasterio

    (left, top, right, bottom), scenes = CASES[case]
    tiles = size = 0
    for band in BANDS:
        with rasterio.open(folder / f"{band}.tif") as full:
            fits = [level for level, factor in enumerate(full.overviews(1)) if factor * full.res[0] <= 30]
        level = {"overview_level": max(fits)} if quality == "fast" and fits else {}
        with rasterio.open(folder / f"{band}.tif", **level) as file:
            pixel_m, (high, wide) = file.res[0], file.block_shapes[0]
            for row in range(int(top / pixel_m) // high, -(-bottom // int(pixel_m * high))):
                for column in range(int(left / pixel_m) // wide, -(-right // int(pixel_m * wide))):
                    tile_bytes = file.get_tag_item(f"BLOCK_SIZE_{column}_{row}", "TIFF", bidx=1)
                    tiles, size = tiles + 1, size + int(tile_bytes)
    return tiles * scenes, size * scenes


Results = dict[str, dict[str, dict[str, float]]]


def compare(folder: Path, rounds: int, latency_ms: float) -> Results:
    measured: dict[tuple[str, str, int], list[dict[str, float]]] = {
        key: [] for key in itertools.product(CASES, CONTENDERS, THREADS)
    }
    with serve(folder, latency_ms) as served:
        for _ in range(rounds):
            for case, name, threads in measured:
                measured[case, name, threads].append(measure(name, case, served, "--threads", str(threads)))
                print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    medians = {
        key: {fact: statistics.median(each[fact] for each in runs) for fact in (*FACTS, "mean")} | {"threads": key[2]}
        for key, runs in measured.items()
    }
    return {
        case: {
            name: min((medians[case, name, threads] for threads in THREADS), key=lambda it: it["wall_s"])
            for name in CONTENDERS
        }
        for case in CASES
    }


def tables(results: Results, folder: Path) -> Iterator[str]:
    for case, of_case in results.items():
        scenes = CASES[case][1]
        base = of_case["stackstac"]
        yield f"\n**{case}**, {scenes} scenes; ratios to stackstac in brackets\n"
        yield "| reader | threads | wall s | CPU s | memory MB | requests | MB | bytes / minimum | mean DN |"
        yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
        for name, it in of_case.items():
            _, min_bytes = minimum(folder, case, "exact" if name in ("s2cube exact", "stackstac") else "fast")
            yield (
                f"| {name} | {it['threads']} | {it['wall_s']:.2f} ({it['wall_s'] / base['wall_s']:.2f}) "
                f"| {it['cpu_s']:.2f} ({it['cpu_s'] / base['cpu_s']:.2f}) "
                f"| {it['peak_mb']:.0f} ({it['peak_mb'] / base['peak_mb']:.2f}) "
                f"| {it['requests']:.0f} | {it['bytes'] / 1e6:.1f} | {it['bytes'] / min_bytes:.3f} | {it['mean']:.2f} |"
            )


def draw(results: Results) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    units = {"wall_s": "wall time, s", "cpu_s": "CPU time, s", "peak_mb": "memory, MB", "bytes": "read, MB"}
    figure, axes = pyplot.subplots(len(results), len(units), figsize=(12, 6.5), constrained_layout=True)
    for row, (case, of_case) in zip(axes, results.items(), strict=True):
        for axis, (fact, unit) in zip(row, units.items(), strict=True):
            values = [each[fact] / (1e6 if fact == "bytes" else 1) for each in of_case.values()]
            colours = ["#1b7f5c" if name.startswith("s2cube") else "#9aa5ad" for name in of_case]
            bars = axis.barh(list(of_case), values, color=colours)
            axis.bar_label(
                bars, [f"{value:.0f}" if value >= 100 else f"{value:.3g}" for value in values], fontsize=7, padding=2
            )
            axis.invert_yaxis()
            axis.margins(x=0.2)
            axis.tick_params(labelsize=7, labelleft=fact == "wall_s")
            axis.spines[["top", "right"]].set_visible(False)
            if case == next(iter(results)):
                axis.set_title(unit, fontsize=9)
        row[0].set_ylabel(f"{case}, {CASES[case][1]} scenes", fontsize=9)
    figure.savefig(PICTURE, dpi=110)


def grow(folder: Path, latency_ms: float) -> Iterator[str]:
    """Measure complete runs with more and more slices of a small area."""
    left, top, right, bottom = (LEFT_M + 40000, TOP_M - 42000, LEFT_M + 41500, TOP_M - 43500)
    ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
    crs = {"type": "name", "properties": {"name": f"urn:ogc:def:crs:EPSG::{EPSG}"}}
    field = {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring]}}
    yield "\n| slices | wall s per slice | CPU s per slice | peak memory MB, all processes |\n| --- | --- | --- | --- |"
    for slices in (10, 100, 1000):
        write_archive(folder, slices)
        with tempfile.TemporaryDirectory() as scratch, serve(folder, latency_ms) as served:
            aoi = Path(scratch) / "aoi.geojson"
            aoi.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": [field]}))
            code = (
                "import resource, sys, time, psutil, threading\n"
                "from s2cube.cli.commands import main\n"
                "most, me = [0], psutil.Process()\n"
                "def look():\n"
                "    while True:\n"
                "        try:\n"
                "            all_of_us = [me, *me.children(recursive=True)]\n"
                "            most[0] = max(most[0], sum(each.memory_info().rss for each in all_of_us))\n"
                "        except psutil.Error: pass\n"
                "        time.sleep(0.1)\n"
                "if __name__ == '__main__':\n"
                "    threading.Thread(target=look, daemon=True).start()\n"
                "    began = time.perf_counter()\n"
                "    try: main(sys.argv[1:])\n"
                "    finally:\n"
                "        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]\n"
                "        cpu = sum(each.ru_utime + each.ru_stime for each in used)\n"
                "        print(time.perf_counter() - began, cpu, most[0] / 2**20)\n"
            )
            script = Path(scratch) / "job.py"
            script.write_text(code)
            flags = ["run", "--aoi", str(aoi), "--stac", f"{served.url}/items.json", "--bands", ",".join(BANDS), "-q"]
            command = [sys.executable, str(script), *flags, "--crs", f"EPSG:{EPSG}", "--out", f"{scratch}/out"]
            done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=scratch)
            if done.returncode:
                raise RuntimeError(done.stderr[-3000:])
            wall_s, cpu_s, peak_mb = map(float, done.stdout.split()[-3:])
            yield f"| {slices} | {wall_s / slices:.3f} | {cpu_s / slices:.3f} | {peak_mb:.0f} |"


def chunk_sizes(folder: Path, latency_ms: float) -> Iterator[str]:
    """Measure the case "county" in exact quality with chunks of different size (MB of sums)."""
    yield "\n| chunks, MB | wall s | CPU s | memory MB | requests | MB read |\n| --- | --- | --- | --- | --- | --- |"
    with serve(folder, latency_ms) as served:
        for size_mb in (1, 4, 16, None):
            more = ("--chunk-mb", str(size_mb)) if size_mb else ()
            it = measure("s2cube exact", "county", served, *more)
            facts = f"{it['wall_s']:.2f} | {it['cpu_s']:.2f} | {it['peak_mb']:.0f} | {it['requests']:.0f}"
            yield f"| {size_mb or 'default'} | {facts} | {it['bytes'] / 1e6:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--latency-ms", type=float, default=50)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--growth", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or Path(scratch)
        write_archive(folder, max(scenes for _, scenes in CASES.values()))
        print(f"{os.cpu_count()} cores, {arguments.latency_ms:g} ms before every answer")
        if arguments.growth:
            for line in itertools.chain(chunk_sizes(folder, arguments.latency_ms), grow(folder, arguments.latency_ms)):
                print(line, flush=True)
            return
        results = compare(folder, arguments.rounds, arguments.latency_ms)
        print(f"{arguments.rounds} rounds, medians")
        for line in tables(results, folder):
            print(line)
        draw(results)


if __name__ == "__main__":
    main()
