"""Write and serve a simulated archive of many days over a small area. The server can be slow and can fail.

Only the files of ten days are written. Day n has the files of day n % 10, so the correct pixels of a slice are known.
"""

import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil
import rasterio.warp
from rasterio.io import MemoryFile
from rasterio.transform import from_origin

SIDE_M, LEFT_M, TOP_M, EPSG = 6000, 600000, 4500000, 32614
KINDS = 10
FIRST_DAY = datetime(2017, 4, 1, 17, tzinfo=UTC)
KEYS = {"blue": 10, "swir16": 20, "scl": 20}


def right_value(day: int, key: str) -> int:
    """Return the value of every pixel of a day's band: reflectance x 10000."""
    return 500 + 100 * (day % KINDS) + (7 if key == "swir16" else 0)


def write_archive(folder: Path, days: int, areas: int = 1) -> None:
    """Write `items.json`, `aoi.geojson` and the files of ten days.

    Parameters
    ----------
    areas
        Number of areas of interest, side by side. All are in one block.
    """
    for kind in range(KINDS):
        for key, pixel_m in KEYS.items():
            side = SIDE_M // pixel_m
            value = 4 if key == "scl" else right_value(kind, key)
            pixels = np.full((side, side), value, "uint8" if key == "scl" else "uint16")
            _write_cog(folder / f"{kind}_{key}.tif", pixels, pixel_m)
    west, south, east, north = rasterio.warp.transform_bounds(
        EPSG, 4326, LEFT_M, TOP_M - SIDE_M, LEFT_M + SIDE_M, TOP_M
    )
    outline = _rectangle(west, south, east, north)
    items = [_item(day, outline, [west, south, east, north]) for day in range(days)]
    (folder / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    x, y = (west + east) / 2, (south + north) / 2
    edges = np.linspace(x - 0.01, x + 0.01, areas + 1).tolist()
    names = ["field", *(f"field{number}" for number in range(1, areas))]
    fields = [
        {"type": "Feature", "properties": {"id": name}, "geometry": _rectangle(left, y - 0.01, right, y + 0.01)}
        for name, (left, right) in zip(names, pairwise(edges), strict=True)
    ]
    (folder / "aoi.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": fields}))


def _rectangle(west: float, south: float, east: float, north: float) -> dict[str, object]:
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {"type": "Polygon", "coordinates": [ring]}


def slice_name(day: int) -> str:
    """Return the id of the slice of a day."""
    return f"field_{FIRST_DAY + timedelta(days=day):%Y%m%d}"


def _item(day: int, outline: dict[str, object], bbox: list[float]) -> dict[str, object]:
    when = FIRST_DAY + timedelta(days=day)
    facts = {"datetime": f"{when:%Y-%m-%dT%H:%M:%SZ}", "s2:processing_baseline": "02.14", "proj:epsg": EPSG}
    # As many properties and assets as a real item, so that its size is realistic.
    facts |= {f"s2:property_{number}": number / 7 for number in range(30)}
    more = {
        f"extra{number}": {"href": f"./{day}/{number}.jp2", "eo:bands": [{"name": f"x{number}"}]}
        for number in range(20)
    }
    assets = {key: {"href": f"./{day}/{key}.tif"} for key in KEYS}
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": f"S2A_{day:05}", "collection": "sentinel-2-l2a",
        "bbox": bbox, "geometry": outline, "links": [], "properties": facts, "assets": assets | more,
    }  # fmt: skip


def _write_cog(path: Path, pixels: np.ndarray, pixel_m: int) -> None:
    height, width = pixels.shape
    georeference = {"crs": EPSG, "transform": from_origin(LEFT_M, TOP_M, pixel_m, pixel_m), "nodata": 0}
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff", count=1, height=height, width=width, dtype=pixels.dtype, **georeference
        ) as plain:
            plain.write(pixels, 1)
        with memory.open() as plain:
            rasterio.shutil.copy(plain, path, driver="COG", compress="deflate", blocksize=256)


class Archive(ThreadingHTTPServer):
    """Serves an archive after a delay. A share of the requests fails."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, folder: Path, latency_s: float, failing: float) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        self.latency_s, self.failing = latency_s, failing
        self.requests = self.failed = 0

    def handle_error(self, *_: object) -> None:
        """Ignore connections that are closed because a worker was killed."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Archive

    def do_GET(self) -> None:
        time.sleep(self.server.latency_s)
        day, _, name = self.path.strip("/").rpartition("/")
        content = self.server.files[f"{int(day) % KINDS}_{name}" if day else name]
        self.server.requests += 1
        if day and random.random() < self.server.failing:
            self.server.failed += 1
            self._answer(503, b"", "")
        elif byte_range := self.headers.get("Range"):
            first, last = (int(side) for side in byte_range.removeprefix("bytes=").split("-"))
            body = content[first : last + 1]
            content_range = f"Content-Range: bytes {first}-{first + len(body) - 1}/{len(content)}\r\n"
            self._answer(206, body, f'{content_range}ETag: "{day}"\r\n')
        else:
            self._answer(200, content, "")

    do_HEAD = do_GET

    def _answer(self, status: int, body: bytes, headers: str) -> None:
        sent = b"" if self.command == "HEAD" else body
        self.wfile.write(f"HTTP/1.1 {status} x\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + sent)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(folder: Path, latency_s: float = 0, failing: float = 0) -> Iterator[Archive]:
    """Serve an archive on loopback."""
    server = Archive(folder, latency_s, failing)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
