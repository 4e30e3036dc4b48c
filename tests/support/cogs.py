"""Cloud-optimised GeoTIFFs of noise, and the cells that s2cube must compute from them."""

from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.windows import Window
from stackstac.raster_spec import RasterSpec

from support.scenes import EPSG, LEFT_M, TOP_M, write_band

SIDE, TILE = 600, 128
SPEC = RasterSpec(EPSG, (LEFT_M, TOP_M - 6000, LEFT_M + 6000, TOP_M), (30, 30))
WHOLE = Window(0, 0, 200, 200)


def noise(seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 10_000, (SIDE, SIDE)).astype("uint16")


def write_cog(path: Path, pixels: np.ndarray) -> None:
    plain = path.with_suffix(".plain")
    write_band(plain, pixels, 10)
    options = {"compress": "deflate", "predictor": "standard", "blocksize": TILE, "overviews": "none"}
    with rasterio.open(plain) as file:
        rasterio.shutil.copy(file, path, driver="COG", **options)
    plain.unlink()


def means(pixels: np.ndarray) -> np.ndarray:
    return pixels.reshape(200, 3, 200, 3).mean(axis=(1, 3))
