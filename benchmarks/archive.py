"""Write an archive of noise with the entropy of real bands, serve it on loopback with a delay, and count the requests.

Files have the layout of Earth Search: complete granules, DEFLATE with predictor 2, tiles of 1024 pixels, and averaged
overviews with tiles of 512 pixels. All scenes have the same pixels, but each scene has its own files and URLs.
"""

import argparse
import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
import rasterio.warp
from rasterio.enums import Resampling
from rasterio.transform import from_origin

LEFT_M, TOP_M, EPSG = 600000, 4500000, 32614
GRANULE_M = 109800
BAND_M = {"blue": 10, "swir16": 20, "scl": 20}
NOISE_DN = 65
"""Standard deviation of the noise. A tile of 1024 x 1024 pixels then has about 1.4 MB, as in real 10 m bands."""


def write_band(path: Path, band: str) -> None:
    side = GRANULE_M // BAND_M[band]
    profile = {
        "driver": "GTiff", "count": 1, "height": side, "width": side, "nodata": 0, "crs": EPSG, "tiled": True,
        "transform": from_origin(LEFT_M, TOP_M, BAND_M[band], BAND_M[band]),
        "blockxsize": 1024, "blockysize": 1024, "compress": "deflate", "predictor": 2, "zlevel": 6,
        "dtype": "uint8" if band == "scl" else "uint16", "copy_src_overviews": True,
    }  # fmt: skip
    noise = np.random.default_rng(len(band))
    plain = path.with_suffix(".plain.tif")
    with rasterio.open(plain, "w", **profile | {"compress": None, "predictor": 1}) as file:
        for _, window in file.block_windows(1):
            shape = (window.height, window.width)
            if band == "scl":
                # Patches of cloud (9) on vegetation (4).
                pixels = np.where(noise.random((shape[0] // 64 + 1, shape[1] // 64 + 1)) < 0.1, 9, 4)
                pixels = np.kron(pixels, np.ones((64, 64)))[: shape[0], : shape[1]]
            else:
                pixels = (1500 + noise.normal(0, NOISE_DN, shape)).clip(1, 9999)
            file.write(pixels.astype(profile["dtype"]), 1, window=window)
    with rasterio.Env(GDAL_TIFF_OVR_BLOCKSIZE=512), rasterio.open(plain, "r+") as file:
        file.build_overviews([2, 4, 8, 16], Resampling.mode if band == "scl" else Resampling.average)
    options = {"compress": "deflate", "predictor": "2", "tiled": "yes", "copy_src_overviews": "yes"}
    with rasterio.Env(GDAL_TIFF_OVR_BLOCKSIZE=512, GDAL_NUM_THREADS="ALL_CPUS"):
        rasterio.shutil.copy(plain, path, driver="GTiff", blockxsize=1024, blockysize=1024, **options)
    plain.unlink()


def write_archive(folder: Path, scenes: int) -> None:
    """Write each band once, and link its file to all scenes; ``items.json`` describes the scenes."""
    folder.mkdir(parents=True, exist_ok=True)
    for band in BAND_M:
        if not (folder / f"{band}.tif").exists():
            write_band(folder / f"{band}.tif", band)
    corners = (LEFT_M, TOP_M - GRANULE_M, LEFT_M + GRANULE_M, TOP_M)
    west, south, east, north = rasterio.warp.transform_bounds(EPSG, 4326, *corners)
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    items = []
    for number in range(scenes):
        assets: dict[str, Any] = {}
        for band, pixel_m in BAND_M.items():
            link = folder / f"{number}_{band}.tif"
            link.unlink(missing_ok=True)
            link.hardlink_to(folder / f"{band}.tif")
            assets[band] = {
                "href": f"./{link.name}",
                "proj:shape": [GRANULE_M // pixel_m] * 2,
                "proj:transform": [pixel_m, 0, LEFT_M, 0, -pixel_m, TOP_M],
            }
        items.append(
            {
                "type": "Feature", "stac_version": "1.0.0", "id": f"scene{number}", "collection": "sentinel-2-l2a",
                "bbox": [west, south, east, north], "geometry": {"type": "Polygon", "coordinates": [ring]}, "links": [],
                "properties": {
                    "datetime": f"{2017 + number // 300}-{1 + number % 300 // 25:02}-{1 + number % 25:02}T17:00:00Z",
                    "proj:epsg": EPSG, "s2:processing_baseline": "02.14",
                },
                "assets": assets,
            }
        )  # fmt: skip
    (folder / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))


@dataclass(frozen=True)
class Served:
    """A server of the archive."""

    url: str

    def take_traffic(self) -> dict[str, int]:
        """Return the requests and bytes since the last call."""
        with urllib.request.urlopen(f"{self.url}/traffic") as answer:
            traffic: dict[str, int] = json.load(answer)
        return traffic


@contextlib.contextmanager
def serve(folder: Path, latency_ms: float) -> Iterator[Served]:
    """Serve a folder in a separate process."""
    command = [sys.executable, __file__, str(folder), str(latency_ms)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield Served(f"http://127.0.0.1:{int(server.stdout.readline())}")
        finally:
            server.terminate()


class Server:
    """HTTP/1.1 with ranges and keep-alive, a delay before every answer, and a count of requests and bytes."""

    def __init__(self, root: Path, latency_ms: float) -> None:
        self.root, self.latency_s = root, latency_ms / 1000
        self.traffic = {"requests": 0, "bytes": 0}

    async def run(self) -> None:
        server = await asyncio.start_server(self.handle, "127.0.0.1", 0, backlog=256)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
                method, path, _ = head[0].split(" ")
                ranges = [line.partition("bytes=")[2] for line in head if line.startswith("range:")]
                await self.answer(writer, method, path, ranges[0] if ranges else None)
        writer.close()

    async def answer(self, writer: asyncio.StreamWriter, method: str, path: str, byte_range: str | None) -> None:
        if path == "/traffic":
            text = json.dumps(self.traffic).encode()
            self.traffic = {"requests": 0, "bytes": 0}
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text))
            return
        await asyncio.sleep(self.latency_s)
        self.traffic["requests"] += 1
        file = self.root / path.partition("?")[0].strip("/")
        if not file.is_file():
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            return
        size = file.stat().st_size
        first, last = (int(side) if side else None for side in byte_range.split("-")) if byte_range else (0, None)
        last = min(size - 1, last if last is not None else size - 1)
        length = last - first + 1
        lines = [f"HTTP/1.1 {206 if byte_range else 200} OK", f"Content-Length: {length}", "Accept-Ranges: bytes"]
        lines += [f"Content-Range: bytes {first}-{last}/{size}"] if byte_range else []
        lines += ['ETag: "1"', "Content-Type: image/tiff", "", ""]
        writer.write("\r\n".join(lines).encode())
        await writer.drain()
        if method == "get":
            self.traffic["bytes"] += length
            with file.open("rb") as body:
                await asyncio.get_running_loop().sendfile(writer.transport, body, first, length)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("latency_ms", type=float)
    arguments = parser.parse_args()
    asyncio.run(Server(arguments.folder, arguments.latency_ms).run())
