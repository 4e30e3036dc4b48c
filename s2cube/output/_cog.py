"""Write an image and its QA image as Cloud-Optimized GeoTIFFs."""

from collections.abc import Mapping
from pathlib import Path

import rasterio
import xarray as xr
from rasterio.enums import ColorInterp
from rasterio.env import GDALVersion

from s2cube.config.sections import OutputSection
from s2cube.kernels.packing import packing_of
from s2cube.output._spool import Spool
from s2cube.output._statistics import Tally
from s2cube.sentinel2 import COMMON_NAMES, QA_CLASSES, PixelClass, band_of, classes_in

_LEVEL = {"deflate": 4, "zstd": 3}
"""Deflate at level 4 takes half of the time of level 6, GDAL's default. Files are at most 4 % larger; files of a real
granule are not larger (``benchmarks/writing.py``). More threads per file help little at these levels."""

_PROFILE = {"blocksize": "512", "bigtiff": "if_safer"}

_OVERVIEW_CELLS = 1 << 22
"""Number of cells per band that GDAL may keep in memory while it computes overviews. Half of this number is enough to
compute each overview from the previous one. With less, GDAL computes each overview from the full image. A larger number
only uses more memory."""

_VISIBLE = {"red": ColorInterp.red, "green": ColorInterp.green, "blue": ColorInterp.blue}
_INFRARED = {"nir": ColorInterp.nir, "nir08": ColorInterp.nir, "nir09": ColorInterp.nir}
_COLOURS = {
    **_VISIBLE, **_INFRARED, "coastal": ColorInterp.coastal, "rededge": ColorInterp.rededge,
    "swir16": ColorInterp.swir, "swir22": ColorInterp.swir,
}  # fmt: skip
"""Colour interpretation of a band, by its common name."""
_ALL_COLOURS_SINCE = "3.10"
"""Version of GDAL that introduced the colour interpretations of invisible bands."""


def write_cog(image: xr.DataArray, pixels: Spool, tally: Tally, path: Path, settings: OutputSection) -> None:
    """Write an image as a COG, with names, colours and statistics of its bands.

    Parameters
    ----------
    image
        Dims (band, y, x), packed as `packing_of` says, with the coordinates `band` and, if it is of one time, `time`.
        Its values are not read.
    pixels
        The pixels to write.
    tally
        The sums of the pixels.
    path
        The COG; an existing file is replaced.
    settings
        Compression.

    Raises
    ------
    OSError
        If the COG cannot be written completely.
    """
    _, height, width = pixels.shape
    names = tuple(str(name) for name in image.band.values)
    classes = tuple(map(classes_in, names))
    with pixels.open("r+") as source:
        source.descriptions = names
        source.colorinterp = tuple(map(_colour, names))
        for number, tags in enumerate(tally.gdal_tags(height * width), 1):
            source.update_tags(number, **tags, **_class_tags(classes[number - 1]))
        packing = packing_of(image)
        source.scales = tuple(1.0 if each else packing.scale for each in classes)
        if packing.unit:
            source.units = tuple("" if each else packing.unit for each in classes)
        if "time" in image.coords:
            source.update_tags(TIFFTAG_DATETIME=image.time.dt.strftime("%Y:%m:%d %H:%M:%S").item())
    # A predictor stores the differences between neighbouring pixels. They are small, so they compress better.
    predictor = "floating_point" if image.dtype.kind == "f" else "standard"
    options = _compression(settings) | ({"predictor": predictor} if settings.compress != "none" else {})
    # A file has one method for the overviews of all its bands. A mean of classes could be another class. Computed
    # values of 8 bits are usually classes, too.
    resampling = "nearest" if any(classes) or image.dtype.itemsize == 1 else "average"
    _copy(pixels, path, **options, overview_resampling="mode" if all(classes) else resampling)


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
        source.update_tags(1, **_class_tags({int(value): each for value, each in QA_CLASSES.items()}))
    # Resample by the mode, because a mean of class values could be the value of another class.
    _copy(reasons, path, **_compression(settings), overview_resampling="mode")


def _class_tags(classes: Mapping[int, PixelClass]) -> dict[str, str]:
    return {f"CLASS_{value:d}": each.name for value, each in classes.items()}


def _colour(name: str) -> ColorInterp:
    """Return GDAL's colour interpretation of a band."""
    known = _COLOURS if GDALVersion.runtime().at_least(_ALL_COLOURS_SINCE) else _VISIBLE
    return known.get(COMMON_NAMES.get(band_of(name) or "", ""), ColorInterp.undefined)


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
