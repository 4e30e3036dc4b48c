"""The script that a user writes with odc-stac: open the scenes over one field, mask, clip, write; then the next field.

    python benchmarks/fields_one_by_one.py CATALOGUE_URL FIELDS_FILE OUT EPSG

A peer in ``fields.py``. It uses the default settings of odc-stac and GDAL, and writes ``OUT/<field>_<day>.tif``.
"""

import sys
from pathlib import Path
from urllib.parse import urljoin

import geopandas
import numpy as np
import odc.stac
import pystac
import requests
import rioxarray  # noqa: F401

BANDS = ["blue", "swir16"]
INVALID_CLASSES = [0, 1, 3, 8, 9, 10]


def main(catalogue: str, fields_file: str, out: str, epsg: str) -> None:
    folder = Path(out)
    folder.mkdir()
    items = [pystac.Item.from_dict(feature) for feature in requests.get(catalogue, timeout=60).json()["features"]]
    for item in items:
        for asset in item.assets.values():
            asset.href = urljoin(catalogue, asset.href)
    fields = geopandas.read_file(fields_file)
    for position, name in enumerate(fields["id"]):
        outline = fields.iloc[position : position + 1]
        scenes = odc.stac.load(
            items,
            [*BANDS, "scl"],
            geopolygon=outline,
            crs=f"EPSG:{epsg}",
            resolution=30,
            groupby="solar_day",
            resampling={"*": "average", "scl": "mode"},
            dtype="uint16",
            nodata=0,
            pool=8,
        )
        valid = ~scenes["scl"].isin(INVALID_CLASSES)
        images = scenes[BANDS].where(valid, 0).astype("uint16").to_array("band").transpose("time", "band", "y", "x")
        images = images.rio.write_nodata(0).rio.clip(outline.geometry.values, outline.crs, drop=False)
        for image in images:
            day = np.datetime_as_string(image["time"].values, "D").replace("-", "")
            image.rio.to_raster(folder / f"{name}_{day}.tif", driver="COG", compress="deflate")


if __name__ == "__main__":
    main(*sys.argv[1:])
