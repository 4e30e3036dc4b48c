"""Measure which number of worker processes, and of threads in each, is fastest on this machine.

    python benchmarks/workers.py [--slices 12] [--latency-ms 50] [--rounds 3]

The script writes scenes of noise (3600 x 3600 pixels at 10 m, a 20 m band, a scene classification) to a temporary
folder and serves them on loopback with a delay before every answer. In every round it runs the job with each
combination of processes and threads. It prints the median wall and CPU time of each combination, and the ratio to the
first one.
"""

import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil
import rasterio.warp
from rasterio.io import MemoryFile
from rasterio.transform import from_origin

COMBINATIONS = [(2, 1), (1, 1), (1, 2), (1, 4), (2, 2), (4, 1)]
PIXELS = 3600
LEFT_M, TOP_M, EPSG = 600000, 4500000, 32614


class Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    latency_s = 0.0

    def do_GET(self) -> None:
        time.sleep(self.latency_s)
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            return self.send_error(404)
        size = path.stat().st_size
        first, last = 0, size - 1
        if byte_range := self.headers.get("Range"):
            first, last = (int(side) for side in byte_range.removeprefix("bytes=").split("-"))
            last = min(last, size - 1)
        self.send_response(206 if byte_range else 200)
        self.send_header("Content-Length", str(last - first + 1))
        self.send_header("Accept-Ranges", "bytes")
        if byte_range:
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.end_headers()
        with path.open("rb") as file, contextlib.suppress(ConnectionError):
            file.seek(first)
            self.wfile.write(file.read(last - first + 1))
        return None

    def do_HEAD(self) -> None:
        time.sleep(self.latency_s)
        self.send_response(200)
        self.send_header("Content-Length", str(Path(self.translate_path(self.path)).stat().st_size))
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def write_cog(path: Path, pixels: np.ndarray, resolution_m: int) -> None:
    side = pixels.shape[0]
    transform = from_origin(LEFT_M, TOP_M, resolution_m, resolution_m)
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff",
            count=1,
            width=side,
            height=side,
            dtype=pixels.dtype,
            nodata=0,
            crs=EPSG,
            transform=transform,
        ) as plain:
            plain.write(pixels, 1)
        with memory.open() as plain:
            rasterio.shutil.copy(plain, path, driver="COG", compress="deflate", predictor="standard", blocksize=1024)


def write_archive(folder: Path, slices: int) -> None:
    noise = np.random.default_rng(4)
    layers = {
        "blue": (10, noise.integers(800, 1800, (PIXELS, PIXELS)).astype("uint16")),
        "swir16": (20, noise.integers(1200, 2600, (PIXELS // 2, PIXELS // 2)).astype("uint16")),
        "scl": (20, np.full((PIXELS // 2, PIXELS // 2), 4, "uint8")),
    }
    for key, (resolution_m, pixels) in layers.items():
        write_cog(folder / f"{key}.tif", pixels, resolution_m)
    corners = rasterio.warp.transform_bounds(EPSG, 4326, LEFT_M, TOP_M - 10 * PIXELS, LEFT_M + 10 * PIXELS, TOP_M)
    west, south, east, north = corners
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    outline = {"type": "Polygon", "coordinates": [ring]}
    items = []
    for day in range(1, slices + 1):
        for key in layers:
            (folder / f"{day}_{key}.tif").hardlink_to(folder / f"{key}.tif")
        items.append(
            {
                "type": "Feature",
                "stac_version": "1.0.0",
                "id": f"scene{day}",
                "collection": "sentinel-2-l2a",
                "bbox": list(corners),
                "geometry": outline,
                "links": [],
                "properties": {
                    "datetime": f"2020-05-{day:02}T17:00:00Z",
                    "s2:processing_baseline": "02.14",
                    "proj:epsg": EPSG,
                },
                "assets": {key: {"href": f"./{day}_{key}.tif"} for key in layers},
            }
        )
    (folder / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    (folder / "aoi.geojson").write_text(json.dumps({"type": "Feature", "properties": {}, "geometry": outline}))


def run_once(folder: Path, stac: str, workers: int, threads: int) -> tuple[float, float]:
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "s2cube", "run", "--quiet", "--aoi", folder / "aoi.geojson", "--stac", stac]
        command += ["--bands", "blue,swir16", "--out", out, "--workers", str(workers), "--threads", str(threads)]
        subprocess.run(command, check=True)
    wall_s = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--slices", type=int, default=12)
    options.add_argument("--latency-ms", type=float, default=50)
    options.add_argument("--rounds", type=int, default=3)
    arguments = options.parse_args()
    times: dict[tuple[int, int], list[tuple[float, float]]] = {combination: [] for combination in COMBINATIONS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_archive(folder, arguments.slices)
        Handler.latency_s = arguments.latency_ms / 1000
        os.chdir(folder)
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for _ in range(arguments.rounds):
            for combination in COMBINATIONS:
                times[combination].append(
                    run_once(folder, f"http://127.0.0.1:{server.server_port}/items.json", *combination)
                )
        server.shutdown()
    base_wall_s, base_cpu_s = (statistics.median(column) for column in zip(*times[COMBINATIONS[0]], strict=True))
    print(
        f"{arguments.slices} slices, {arguments.latency_ms:g} ms before every answer, "
        f"{os.cpu_count()} cores, {arguments.rounds} rounds"
    )
    print("workers x threads   wall s   ratio    cpu s   ratio")
    for (workers, threads), taken in times.items():
        wall_s, cpu_s = (statistics.median(column) for column in zip(*taken, strict=True))
        ratios = f"{wall_s / base_wall_s:5.2f}  {cpu_s:7.1f}   {cpu_s / base_cpu_s:5.2f}"
        print(f"{workers:7} x {threads:<7}  {wall_s:7.1f}   {ratios}")


if __name__ == "__main__":
    main()
