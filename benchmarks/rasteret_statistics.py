"""Statistics of fields with rasteret, for comparison with ``field_statistics.py``: rasteret needs Python 3.12.

    PYTHON_312 benchmarks/rasteret_statistics.py CATALOGUE_URL FIELDS_FILE OUT_FILE

Install it into an environment of its own: ``pip install rasteret pystac geopandas``. ``archive.py`` serves the files.
The script reads the pixels of each field on each day at native resolution, masks them by the scene classification, and
computes mean, standard deviation and median of red, nir and NDVI. A pixel is in a field or not: rasteret has no shares
of pixels. It prints wall and CPU seconds, and before them those of the index, for which it reads the headers of files.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pystac
import rasteret
from obstore.store import HTTPStore
from rasteret.cloud import ObstoreBackend
from served_items import INVALID_CLASSES, read_items

BANDS = ["red", "nir", "scl"]


def write_static_catalogue(url: str, folder: Path) -> Path:
    """Write the items as a static catalogue, because rasteret reads no ItemCollection."""
    catalogue = pystac.Catalog("benchmark", "items")
    catalogue.add_items(read_items(url))
    catalogue.normalize_and_save(str(folder), pystac.CatalogType.SELF_CONTAINED)
    return folder / "catalog.json"


def on_pixels_of(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Repeat the pixels of a coarser band, so that they have the shape of a finer one."""
    rows, columns = (np.minimum(np.arange(n) * m // n, m - 1) for n, m in zip(shape, values.shape, strict=True))
    return values[np.ix_(rows, columns)]


def statistics_of(of_day: dict[str, np.ndarray]) -> dict[str, float]:
    shape = of_day["red"].shape
    red, nir, scl = (on_pixels_of(np.ma.filled(of_day[name], 0), shape) for name in BANDS)
    is_valid = (red > 0) & (nir > 0) & ~np.isin(scl, INVALID_CLASSES)
    red, nir = red[is_valid] * 1e-4, nir[is_valid] * 1e-4
    found = {"red": red, "nir": nir, "NDVI": (nir - red) / (nir + red)}
    functions = {"mean": np.mean, "std": np.std, "median": np.median}
    return {
        f"{name}_{each}": float(function(values)) if values.size else np.nan
        for name, values in found.items()
        for each, function in functions.items()
    }


def rows_of(collection: Any, fields: Any, backend: ObstoreBackend) -> list[dict[str, Any]]:
    rows = []
    for name, shape in zip(fields["id"], fields.geometry, strict=True):
        pixels = collection.get_gdf([shape], BANDS, geometry_crs=4326, backend=backend)
        for (day, _), of_day in pixels.groupby([pixels["datetime"].dt.date, "record_id"]):
            arrays = dict(zip(of_day["band"], of_day["data"], strict=True))
            rows.append({"id": name, "date": day} | statistics_of(arrays))
    return rows


def main(catalogue: str, fields_file: str, out: str) -> None:
    fields = geopandas.read_file(fields_file)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # rasteret's own client refuses plain HTTP.
        origin = catalogue.rpartition("/")[0] + "/"
        store = HTTPStore.from_url(origin, client_options={"allow_http": True})
        backend = ObstoreBackend(store, url_prefix=origin)
        began, cpu_s = time.perf_counter(), time.process_time()
        collection = rasteret.build_from_stac(
            name="benchmark", stac_api=str(write_static_catalogue(catalogue, folder / "stac")),
            collection="sentinel-2-l2a", static_catalog=True, band_map={band: band for band in BANDS},
            workspace_dir=folder, force=True, backend=backend,
        )  # fmt: skip
        print(f"index: {time.perf_counter() - began:.1f} s, CPU {time.process_time() - cpu_s:.1f} s", file=sys.stderr)
        pd.DataFrame(rows_of(collection, fields, backend)).to_parquet(out)
    print(f"{time.perf_counter() - began:.1f} s, CPU {time.process_time() - cpu_s:.1f} s")


if __name__ == "__main__":
    main(*sys.argv[1:])
