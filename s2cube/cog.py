"""An image becomes a Cloud-Optimized GeoTIFF, and so does its QA."""

from pathlib import Path
from typing import Any

import rasterio
import rasterio.shutil
import rioxarray  # noqa: F401  registers .rio
import xarray as xr
from rasterio.io import MemoryFile

from s2cube.config import OutputSection
from s2cube.qa import QA_CLASSES

_LEVEL = {"deflate": 4, "zstd": 3}
"""Deflate of level 4 takes half of the time of level 6, GDAL's own default, for files as small (within 4 %, and on a
real granule no larger): ``benchmarks/writing.py``. More threads a file help little at these levels."""

_PROFILE = {"blocksize": 512, "bigtiff": "if_safer"}


def write_cog(image: xr.DataArray, path: Path, way: OutputSection = OutputSection()) -> None:  # noqa: B008  frozen
    """Write an image as a COG.

    Parameters
    ----------
    image
        Computed, dims (band, y, x), int16 or float32, with CRS, nodata and the coordinates `band` and `time`; the
        attribute `scale_factor` becomes the scale of every band.
    path
        Overwritten.
    way
        Compression.

    Raises
    ------
    OSError
        If it cannot be written whole.
    """
    bands = image.sizes["band"]
    floating = image.dtype.kind == "f"
    with MemoryFile() as memory:
        with memory.open(count=bands, **_layout(image)) as source:
            source.write(image.values)
            source.descriptions = tuple(str(name) for name in image.band.values)
            source.scales = (image.attrs.get("scale_factor", 1.0),) * bands
            source.units = (image.attrs.get("units", ""),) * bands
            source.update_tags(TIFFTAG_DATETIME=image.time.dt.strftime("%Y:%m:%d %H:%M:%S").item())
        # Differences of neighbouring pixels are small numbers.
        predictor = "floating_point" if floating else "standard"
        options = _compression(way) | ({"predictor": predictor} if way.compress != "none" else {})
        _copy(memory, path, **options, overview_resampling="average")
    _look(image.shape, path)


def write_qa(qa: xr.DataArray, path: Path, way: OutputSection = OutputSection()) -> None:  # noqa: B008  frozen
    """Write a QA image as a COG with a colour table and the meaning of its values as tags.

    Parameters
    ----------
    qa
        Computed, dims (y, x), uint8 values of `QA`, with CRS and nodata.
    path
        Overwritten.

    Raises
    ------
    OSError
        If it cannot be written whole.
    """
    with MemoryFile() as memory:
        with memory.open(count=1, **_layout(qa)) as source:
            source.write(qa.values, 1)
            source.write_colormap(1, {int(value): (*each.colour, 255) for value, each in QA_CLASSES.items()})
            source.set_band_description(1, "qa")
            source.update_tags(1, **{f"CLASS_{value:d}": each.name for value, each in QA_CLASSES.items()})
        # No overview may hold a class that is nowhere below it.
        _copy(memory, path, **_compression(way), overview_resampling="mode")
    _look((1, *qa.shape), path)


def _compression(way: OutputSection) -> dict[str, str]:
    level = way.compress_level or _LEVEL.get(way.compress)
    return {"compress": way.compress, "overview_compress": way.compress} | ({"level": str(level)} if level else {})


def _layout(raster: xr.DataArray) -> dict[str, Any]:
    height, width = raster.shape[-2:]
    place = {"crs": raster.rio.crs, "transform": raster.rio.transform(), "nodata": raster.rio.nodata}
    return {"driver": "GTiff", "dtype": raster.dtype.name, "height": height, "width": width, **place}


def _copy(memory: MemoryFile, path: Path, **options: str) -> None:
    # GDAL's COG driver only copies: it takes a whole image and makes the overviews itself.
    with memory.open() as source:
        try:
            rasterio.shutil.copy(source, path, driver="COG", **options, **_PROFILE)
        except Exception as error:  # rasterio keeps what GDAL raises here to itself
            raise OSError(f"{path} cannot be written ({error})") from error


def _look(shape: tuple[int, ...], path: Path) -> None:
    """Make sure that the file is there and whole: some of GDAL's writers raise nothing."""
    with rasterio.open(path) as written:
        if (written.count, written.height, written.width) != shape:
            raise OSError(f"{path} was not written whole")
