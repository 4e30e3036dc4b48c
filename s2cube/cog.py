"""An image becomes a Cloud-Optimized GeoTIFF."""

from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil
import xarray as xr
from rasterio.io import MemoryFile

_PROFILE = {
    # Deflate is what every GIS opens; predictor 2 (3 for floats) makes neighbouring pixels small numbers.
    "compress": "deflate",
    "level": 6,
    "blocksize": 512,
    "overview_resampling": "average",
    "overview_compress": "deflate",
    "bigtiff": "if_safer",
}


def write_cog(image: xr.DataArray, path: Path) -> None:
    """Write an image as a COG.

    Parameters
    ----------
    image
        Computed, dims (band, y, x), int16 or float32, with CRS, nodata and the coordinates `band` and `time`; the
        attribute `scale_factor` becomes the scale of every band.
    path
        Overwritten.

    Raises
    ------
    OSError
        If it cannot be written whole.
    """
    bands, height, width = image.shape
    floating = image.dtype.kind == "f"
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff",
            count=bands,
            height=height,
            width=width,
            dtype=image.dtype.name,
            crs=image.rio.crs,
            transform=image.rio.transform(),
            nodata=image.rio.nodata,
        ) as source:
            source.write(image.values)
            source.descriptions = tuple(str(name) for name in image.band.values)
            source.scales = (image.attrs.get("scale_factor", 1.0),) * bands
            source.units = (image.attrs.get("units", ""),) * bands
            source.update_tags(TIFFTAG_DATETIME=np.datetime_as_string(image.time.values, unit="s"))
        with memory.open() as source:
            rasterio.shutil.copy(
                source, path, driver="COG", predictor="floating_point" if floating else "standard", **_PROFILE
            )
    _look(image, path)


def _look(image: xr.DataArray, path: Path) -> None:
    """Make sure that the file is there and whole: some of GDAL's writers raise nothing."""
    with rasterio.open(path) as written:
        if (written.count, written.height, written.width) != image.shape:
            raise OSError(f"{path} was not written whole")
