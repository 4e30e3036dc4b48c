"""Measure the difference between `--quality fast` and `exact` on real granules.

    python benchmarks/quality.py FOLDER

FOLDER contains GeoTIFFs of Sentinel-2 bands, also in subfolders. Each band is written in the layout of Earth Search,
with averaged overviews. It is read in both qualities on a grid of 30 m, which is 3 pixels of a 10 m band and 1.5 pixels
of a 20 m band. The script prints a Markdown table of the difference fast - exact in digital numbers, and of the spread
of the values. It does not measure time.
"""

import argparse
import re
import tempfile
from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil
from odc.geo.geobox import GeoBox
from rasterio.windows import Window
from stackstac.raster_spec import RasterSpec

from s2cube.raster.cells import CELLS, whole_means
from s2cube.raster.reader import AssetReader

CELL_PER_PIXEL = {10: 3, 20: 1.5}
BAND = re.compile(r"B(0[1-9]|1[12]|8A)")
NATIVE_M = {"B02": 10, "B03": 10, "B04": 10, "B08": 10}


def as_served(path: Path, folder: Path) -> Path:
    """Write a band in the layout of Earth Search: deflate, predictor 2, nodata 0, averaged overviews."""
    copy = folder / "band.tif"
    with rasterio.open(path) as source:
        profile = {key: source.profile[key] for key in ("crs", "transform", "height", "width", "dtype")}
        dn = source.read(1)
        dn[source.read_masks(1) == 0] = 0
    plain = folder / "plain.tif"
    with rasterio.open(plain, "w", driver="GTiff", count=1, nodata=0, **profile) as target:
        target.write(dn, 1)
    options = {"compress": "deflate", "predictor": "standard", "blocksize": 512, "overview_resampling": "average"}
    rasterio.shutil.copy(plain, copy, driver="COG", overview_count=4, **options)
    return copy


def means(path: Path, spec: RasterSpec, quality: str) -> np.ndarray:
    reader = AssetReader(url=str(path), spec=spec, dtype=CELLS, quality=quality)
    found, whole = whole_means(reader.read(Window(0, 0, spec.shape[1], spec.shape[0])))
    return np.where(whole, found, np.nan)


def compare(path: Path, band: str, folder: Path) -> str:
    served = as_served(path, folder)
    with rasterio.open(served) as source:
        cells = source.res[0] * CELL_PER_PIXEL[NATIVE_M.get(band, 20)]
        box = GeoBox.from_bbox(source.bounds, source.crs, resolution=cells, anchor="edge")
    spec = RasterSpec(box.crs.epsg, tuple(box.boundingbox), (cells, cells))
    exact, fast = (means(served, spec, quality) for quality in ("exact", "fast"))
    is_valid = ~np.isnan(exact) & ~np.isnan(fast)
    differences = (fast - exact)[is_valid]
    spread = np.std(exact[is_valid])
    numbers = (
        differences.mean(),
        np.sqrt((differences**2).mean()),
        np.percentile(np.abs(differences), 99),
        np.abs(differences).max(),
        spread,
    )
    return f"| {path.parent.name} | {band} | " + " | ".join(f"{number:.1f}" for number in numbers) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    print("| granule | band | mean | RMS | 99 % below | largest | spread of the values |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for path in sorted(folder.rglob("*.tif")):
        band = BAND.search(path.stem)
        # Bands of 60 m are never averaged.
        if band and band[0] not in ("B01", "B09"):
            with tempfile.TemporaryDirectory() as scratch:
                print(compare(path, band[0], Path(scratch)), flush=True)


if __name__ == "__main__":
    main()
