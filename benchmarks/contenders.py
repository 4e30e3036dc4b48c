"""Run one reader on one case in a separate process, and print its time and memory as JSON. Called by ``readers.py``.

Every contender computes the same result in memory: area means of two bands of every scene on a grid of 30 m. It uses
its default settings, except where these give a wrong result. The number of threads is set, because all contenders
wait for the network.
"""

import argparse
import importlib
import json
import resource
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pystac
from archive import EPSG, GRANULE_M, LEFT_M, TOP_M

threads = 16
BANDS = ["blue", "swir16"]
RESOLUTION_M = 30
CASES = {
    # Left, top, right and bottom in metres from the granule's corner, and the number of scenes.
    "field": ((30000, 24000, 35010, 30690), 24),
    "county": ((24000, 18000, 84000, 78000), 4),
    "tile": ((0, 0, GRANULE_M, GRANULE_M), 2),
}


class Case:
    """The scenes and the grid of a case."""

    def __init__(self, name: str, url: str) -> None:
        (left, top, right, bottom), scenes = CASES[name]
        self.bounds = (LEFT_M + left, TOP_M - bottom, LEFT_M + right, TOP_M - top)
        self.shape = ((bottom - top) // RESOLUTION_M, (right - left) // RESOLUTION_M)
        import requests

        features = requests.get(f"{url}/items.json", timeout=60).json()["features"][:scenes]
        for feature in features:
            for asset in feature["assets"].values():
                asset["href"] = url + "/" + Path(asset["href"]).name
        self.items = [pystac.Item.from_dict(feature) for feature in features]


def s2cube(quality: str) -> Callable[[Case], np.ndarray]:
    def read(case: Case) -> np.ndarray:
        from odc.geo.geom import box

        from s2cube import open_cube
        from s2cube.area.aoi import AOI

        aoi = AOI("aoi", box(*case.bounds, f"EPSG:{EPSG}"))
        cube = open_cube(
            case.items, aoi, bands=BANDS, crs=EPSG, quality=quality, mask="none", offset="none", group_by="scene",
            dtype="int16",
        )  # fmt: skip
        cube = cube.drop_vars("qa")
        return np.asarray(cube.compute(scheduler="threads", num_workers=threads))

    return read


def with_stackstac(case: Case) -> np.ndarray:
    import stackstac
    from rasterio.enums import Resampling

    # stackstac reads proj:epsg, but pystac has replaced it by proj:code.
    items = [item.to_dict() for item in case.items]
    for item in items:
        item["properties"]["proj:epsg"] = EPSG
    cube = stackstac.stack(
        items, assets=BANDS, epsg=EPSG, resolution=RESOLUTION_M, bounds=case.bounds, snap_bounds=False,
        resampling=Resampling.average, rescale=False,
    )  # fmt: skip
    return np.asarray(cube.compute(scheduler="threads", num_workers=threads))


def with_odc_stac(case: Case) -> np.ndarray:
    import odc.stac
    from odc.geo.geobox import GeoBox

    grid = GeoBox.from_bbox(case.bounds, f"EPSG:{EPSG}", resolution=RESOLUTION_M)
    loaded = odc.stac.load(
        case.items, BANDS, geobox=grid, resampling="average", groupby="id", dtype="uint16", nodata=0, pool=threads
    )
    return np.stack([loaded[band].values for band in BANDS], axis=1)


def with_rasterio(case: Case) -> np.ndarray:
    import rasterio
    from rasterio.enums import Resampling
    from rasterio.windows import from_bounds

    out = np.zeros((len(case.items), len(BANDS), *case.shape), "uint16")

    def read_file(position: tuple[int, int]) -> None:
        scene, band = position
        with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
            href = case.items[scene].assets[BANDS[band]].href
            with rasterio.open(href) as file:
                window = from_bounds(*case.bounds, file.transform)
                file.read(1, window=window, out=out[scene, band], resampling=Resampling.average)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(read_file, np.ndindex(out.shape[:2])))
    return out


CONTENDERS: dict[str, tuple[Callable[[Case], np.ndarray], tuple[str, ...]]] = {
    "s2cube exact": (
        s2cube("exact"),
        ("s2cube.cube.stack", "s2cube.kernels.mask", "s2cube.kernels.mosaic", "s2cube.cube.open_cube"),
    ),
    "s2cube fast": (
        s2cube("fast"),
        ("s2cube.cube.stack", "s2cube.kernels.mask", "s2cube.kernels.mosaic", "s2cube.cube.open_cube"),
    ),
    "stackstac": (with_stackstac, ("stackstac", "dask.array")),
    "odc-stac": (with_odc_stac, ("odc.stac", "xarray")),
    "rasterio": (with_rasterio, ("rasterio",)),
}


def resident_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise OSError


class Peak:
    """The peak memory of this process, minus its memory at the start. It is sampled every 5 ms."""

    def __enter__(self) -> "Peak":
        self.before_mb = self.most_mb = resident_mb()
        self._ended = threading.Event()
        self._sampler = threading.Thread(target=self._sample)
        self._sampler.start()
        return self

    def _sample(self) -> None:
        while not self._ended.wait(0.005):
            self.most_mb = max(self.most_mb, resident_mb())

    def __exit__(self, *_: Any) -> None:
        self._ended.set()
        self._sampler.join()

    @property
    def mb(self) -> float:
        return self.most_mb - self.before_mb


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("contender", choices=CONTENDERS)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("url")
    parser.add_argument("--threads", type=int, default=threads)
    parser.add_argument("--chunk-mb", type=float)
    arguments = parser.parse_args()
    globals()["threads"] = arguments.threads
    read, modules = CONTENDERS[arguments.contender]
    for module in modules:
        importlib.import_module(module)
    if arguments.chunk_mb:
        import s2cube.cube.chunks

        s2cube.cube.chunks._CHUNK_CELLS = int((arguments.chunk_mb * 2**20 / 8) ** 0.5)
    case = Case(arguments.case, arguments.url)
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    with Peak() as peak:
        values = read(case)
    wall_s = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert values.shape == (len(case.items), len(BANDS), *case.shape), values.shape
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    json.dump({"wall_s": wall_s, "cpu_s": cpu_s, "peak_mb": peak.mb, "mean": float(values.mean())}, sys.stdout)


if __name__ == "__main__":
    main()
