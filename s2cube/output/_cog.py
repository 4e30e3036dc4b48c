"""An image becomes a Cloud-Optimized GeoTIFF, and so does its QA."""

from pathlib import Path

import rasterio
import xarray as xr

from s2cube.config.sections import OutputSection
from s2cube.cube.packing import PACKINGS, UNIT
from s2cube.output._spool import Draft
from s2cube.sentinel2 import QA_CLASSES

_LEVEL = {"deflate": 4, "zstd": 3}
"""Deflate of level 4 takes half of the time of level 6, GDAL's own default, for files as small (within 4 %, and on a
real granule no larger): ``benchmarks/writing.py``. More threads a file help little at these levels."""

_PROFILE = {"blocksize": "512", "bigtiff": "if_safer"}

_OVERVIEW_CELLS = 1 << 22
"""Of each band GDAL may hold while it makes overviews: it wants half of that to make each of the one before, and with
less makes it of the whole image; with more it only takes more."""


def write_cog(image: xr.DataArray, pixels: Draft, path: Path, way: OutputSection) -> None:
    """Write an image as a COG.

    Parameters
    ----------
    image
        Dims (band, y, x), int16 or float32, packed as `PACKINGS` says, with the coordinates `band` and `time`. Its
        values are not read.
    pixels
        The pixels to write.
    path
        Overwritten.
    way
        Compression.

    Raises
    ------
    OSError
        If it cannot be written whole.
    """
    bands, *_ = pixels.shape
    with pixels.open("r+") as source:
        source.descriptions = tuple(str(name) for name in image.band.values)
        source.scales = (PACKINGS[image.dtype.name].scale,) * bands
        source.units = (UNIT,) * bands
        source.update_tags(TIFFTAG_DATETIME=image.time.dt.strftime("%Y:%m:%d %H:%M:%S").item())
    # Differences of neighbouring pixels are small numbers.
    predictor = "floating_point" if image.dtype.kind == "f" else "standard"
    options = _compression(way) | ({"predictor": predictor} if way.compress != "none" else {})
    _copy(pixels, path, **options, overview_resampling="average")


def write_qa(reasons: Draft, path: Path, way: OutputSection) -> None:
    """Write a QA image as a COG with a colour table and the meaning of its values as tags.

    Parameters
    ----------
    reasons
        Filled with values of `QA`, uint8.
    path
        Overwritten.

    Raises
    ------
    OSError
        If it cannot be written whole.
    """
    with reasons.open("r+") as source:
        source.write_colormap(1, {int(value): (*each.colour, 255) for value, each in QA_CLASSES.items()})
        source.set_band_description(1, "qa")
        source.update_tags(1, **{f"CLASS_{value:d}": each.name for value, each in QA_CLASSES.items()})
    # No overview may hold a class that is nowhere below it.
    _copy(reasons, path, **_compression(way), overview_resampling="mode")


def _compression(way: OutputSection) -> dict[str, str]:
    level = way.compress_level or _LEVEL.get(way.compress)
    return {"compress": way.compress, "overview_compress": way.compress} | ({"level": str(level)} if level else {})


def _copy(draft: Draft, path: Path, **options: str) -> None:
    with rasterio.Env(GDAL_OVR_CHUNK_MAX_SIZE=_OVERVIEW_CELLS * draft.cell_bytes):
        draft.copy(path, "COG", **options, **_PROFILE)
    # Some of GDAL's writers raise nothing.
    with rasterio.open(path) as written:
        if (written.count, written.height, written.width) != draft.shape:
            raise OSError(f"{path} was not written whole")
