"""Write an image and its QA image as Cloud-Optimized GeoTIFFs."""

from pathlib import Path

import rasterio
import xarray as xr

from s2cube.config.sections import OutputSection
from s2cube.cube.packing import PACKINGS, UNIT
from s2cube.output._spool import Spool
from s2cube.sentinel2 import QA_CLASSES

_LEVEL = {"deflate": 4, "zstd": 3}
"""Deflate at level 4 takes half of the time of level 6, GDAL's default. Files are at most 4 % larger; files of a real
granule are not larger (``benchmarks/writing.py``). More threads per file help little at these levels."""

_PROFILE = {"blocksize": "512", "bigtiff": "if_safer"}

_OVERVIEW_CELLS = 1 << 22
"""Number of cells per band that GDAL may keep in memory while it computes overviews. Half of this number is enough to
compute each overview from the previous one. With less, GDAL computes each overview from the full image. A larger number
only uses more memory."""


def write_cog(image: xr.DataArray, pixels: Spool, path: Path, settings: OutputSection) -> None:
    """Write an image as a COG.

    Parameters
    ----------
    image
        Dims (band, y, x), int16 or float32, packed as in `PACKINGS`, with the coordinates `band` and `time`. Its values
        are not read.
    pixels
        The pixels to write.
    path
        The COG; an existing file is replaced.
    settings
        Compression.

    Raises
    ------
    OSError
        If the COG cannot be written completely.
    """
    bands, *_ = pixels.shape
    with pixels.open("r+") as source:
        source.descriptions = tuple(str(name) for name in image.band.values)
        source.scales = (PACKINGS[image.dtype.name].scale,) * bands
        source.units = (UNIT,) * bands
        source.update_tags(TIFFTAG_DATETIME=image.time.dt.strftime("%Y:%m:%d %H:%M:%S").item())
    # A predictor stores the differences between neighbouring pixels. They are small, so they compress better.
    predictor = "floating_point" if image.dtype.kind == "f" else "standard"
    options = _compression(settings) | ({"predictor": predictor} if settings.compress != "none" else {})
    _copy(pixels, path, **options, overview_resampling="average")


def write_qa(reasons: Spool, path: Path, settings: OutputSection) -> None:
    """Write a QA image as a COG with a colour table and the meaning of its values as tags.

    Parameters
    ----------
    reasons
        Values of `QA`, uint8.
    path
        The COG; an existing file is replaced.
    settings
        Compression.

    Raises
    ------
    OSError
        If the COG cannot be written completely.
    """
    with reasons.open("r+") as source:
        source.write_colormap(1, {int(value): (*each.colour, 255) for value, each in QA_CLASSES.items()})
        source.set_band_description(1, "qa")
        source.update_tags(1, **{f"CLASS_{value:d}": each.name for value, each in QA_CLASSES.items()})
    # Resample by the mode, because a mean of class values could be the value of another class.
    _copy(reasons, path, **_compression(settings), overview_resampling="mode")


def _compression(settings: OutputSection) -> dict[str, str]:
    method, level = settings.compress, settings.compress_level or _LEVEL.get(settings.compress)
    return {"compress": method, "overview_compress": method} | ({"level": str(level)} if level else {})


def _copy(spool: Spool, path: Path, **options: str) -> None:
    with rasterio.Env(GDAL_OVR_CHUNK_MAX_SIZE=_OVERVIEW_CELLS * spool.cell_bytes):
        spool.copy(path, "COG", **options, **_PROFILE)
    # Some drivers of GDAL write an incomplete file and report no error.
    with rasterio.open(path) as written:
        if (written.count, written.height, written.width) != spool.shape:
            raise OSError(f"{path} was not written completely")
