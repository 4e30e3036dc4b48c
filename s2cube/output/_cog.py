"""Write an image and its QA image as Cloud-Optimized GeoTIFFs: small ones in memory, others from a spool by GDAL."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import rasterio
from rasterio.enums import ColorInterp
from rasterio.env import GDALVersion

from s2cube.config.sections import OutputSection
from s2cube.kernels.packing import Packing
from s2cube.output._raster import TILE_CELLS, Layout, Spool
from s2cube.output._statistics import Tally
from s2cube.output._tiff import Encoding, Field, Tag, one_tile, shorts, text
from s2cube.sentinel2 import COMMON_NAMES, QA, QA_CLASSES, PixelClass, band_of, classes_in

_LEVEL = {"deflate": 4, "zstd": 3}
"""Deflate at level 4 takes half of the time of level 6, GDAL's default. Files are at most 4 % larger; files of a real
granule are not larger (``benchmarks/writing.py``). More threads per file help little at these levels."""

_PROFILE = {"blocksize": str(TILE_CELLS), "bigtiff": "if_safer"}

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

_COLOUR_TEXTS = {ColorInterp.nir: "NIR", ColorInterp.swir: "SWIR", ColorInterp.rededge: "RedEdge"}
"""GDAL's names of colour interpretations. Other names are those of rasterio, capitalised."""

_GRAY, _RGB, _PALETTE = 1, 2, 3
"""Photometric interpretations of TIFF."""

_DATE_TIME = "%Y:%m:%d %H:%M:%S"

_MOST_LAYOUTS = 16


def write_cog(
    layout: Layout, time: datetime | None, pixels: Spool, tally: Tally, path: Path, settings: OutputSection
) -> None:
    """Write an image as a COG, with names, colours and statistics of its bands.

    Parameters
    ----------
    time
        Time of the image, UTC, if it has one.
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
    classes = tuple(map(classes_in, layout.bands))
    with pixels.open("r+") as source:
        source.descriptions = layout.bands
        source.colorinterp = tuple(map(_colour, layout.bands))
        for number, tags in enumerate(_tags(layout, tally), 1):
            source.update_tags(number, **tags)
        source.scales = tuple(_scale(layout.packing, name) for name in layout.bands)
        if layout.packing.unit:
            source.units = tuple(_unit(layout.packing, name) for name in layout.bands)
        if time:
            source.update_tags(TIFFTAG_DATETIME=time.strftime(_DATE_TIME))
    # A predictor stores the differences between neighbouring pixels. They are small, so they compress better.
    predictor = "floating_point" if np.dtype(layout.dtype).kind == "f" else "standard"
    options = _options(settings) | ({"predictor": predictor} if settings.compress != "none" else {})
    # A file has one method for the overviews of all its bands. A mean of classes could be another class. Computed
    # values of 8 bits are usually classes, too.
    has_means = layout.has_means and not any(classes) and np.dtype(layout.dtype).itemsize > 1
    _copy(
        pixels, path, **options, overview_resampling="mode" if all(classes) else "average" if has_means else "nearest"
    )


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
        source.update_tags(1, **_qa_tags())
    # Resample by the mode, because a mean of class values could be the value of another class.
    _copy(reasons, path, **_options(settings), overview_resampling="mode")


def small_cog(
    values: np.ndarray, layout: Layout, time: datetime | None, tally: Tally, settings: OutputSection
) -> bytes:
    """Return the content of the COG of a small image, see `Layout.is_small`. GDAL reads the same as from `write_cog`.

    Parameters
    ----------
    values
        Dims (band, y, x).
    """
    described = {
        **_colour_fields(layout.bands),
        Tag.GDAL_METADATA: _metadata(layout, _tags(layout, tally)),
        **({} if layout.nodata is None else {Tag.GDAL_NODATA: text(str(layout.nodata))}),
        **({Tag.DATE_TIME: text(time.strftime(_DATE_TIME))} if time else {}),
    }
    return one_tile(values, layout.geobox, described, _encoding(settings, has_predictor=True))


def small_qa(reasons: np.ndarray, layout: Layout, settings: OutputSection) -> bytes:
    """Return the content of the COG of a small QA image, dims (y, x). GDAL reads the same as from `write_qa`."""
    return one_tile(reasons[np.newaxis], layout.geobox, _qa_fields(), _encoding(settings, has_predictor=False))


@lru_cache(_MOST_LAYOUTS)
def _colour_fields(bands: tuple[str, ...]) -> dict[Tag, Field]:
    is_rgb = _is_rgb(bands)
    extra = len(bands) - (3 if is_rgb else 1)
    return {
        Tag.PHOTOMETRIC: shorts(_RGB if is_rgb else _GRAY),
        **({Tag.EXTRA_SAMPLES: shorts(*[0] * extra)} if extra else {}),
    }


def _is_rgb(bands: tuple[str, ...]) -> bool:
    """Return whether the file is one of natural colours, as GDAL decides."""
    return tuple(map(_colour, bands[:3])) == tuple(_VISIBLE.values())


@lru_cache(1)
def _qa_fields() -> dict[Tag, Field]:
    palette = np.zeros((3, 256), int)
    for value, each in QA_CLASSES.items():
        palette[:, value] = each.colour
    tags = _qa_tags()
    items = [*map(_item, *zip(*sorted(tags.items()), strict=True)), _item("DESCRIPTION", "qa", role="description")]
    return {
        Tag.PHOTOMETRIC: shorts(_PALETTE),
        # A colour has 16 bits: as GDAL does, repeat its 8 bits.
        Tag.COLOUR_MAP: shorts(*(palette << 8 | palette).ravel().tolist()),
        Tag.GDAL_METADATA: _xml(items),
        Tag.GDAL_NODATA: text(str(int(QA.OUTSIDE))),
    }


def _metadata(layout: Layout, tags: Sequence[Mapping[str, str]]) -> Field:
    """Return what is written about each band: its tags, then what follows from its name."""
    items = []
    for number, (of_band, fixed) in enumerate(zip(tags, _fixed_items(layout.bands, layout.packing), strict=True)):
        items += [_item(name, value, number) for name, value in sorted(of_band.items())]
        items += fixed
    return _xml(items)


@lru_cache(_MOST_LAYOUTS)
def _fixed_items(bands: tuple[str, ...], packing: Packing) -> list[list[str]]:
    """Return scale, unit, name and colour of each band."""
    colours = tuple(map(_colour, bands))
    implied = (*_VISIBLE.values(),) if _is_rgb(bands) else (ColorInterp.undefined,)
    implied += (ColorInterp.undefined,) * (len(colours) - len(implied))
    found = []
    for number, (name, colour) in enumerate(zip(bands, colours, strict=True)):
        scale, unit = _scale(packing, name), _unit(packing, name)
        members = [("OFFSET", "0"), ("SCALE", f"{scale:.17g}")] if scale != 1 else []
        members += [("UNITTYPE", unit)] if unit else []
        members += [("DESCRIPTION", name)]
        members += [("COLORINTERP", _COLOUR_TEXTS.get(colour, colour.name.title()))] if colours != implied else []
        found.append([_item(key, value, number, role=key.lower()) for key, value in members])
    return found


def _item(name: str, value: str, number: int = 0, role: str = "") -> str:
    # GDAL escapes a value twice, and reads it so.
    content = escape(escape(value, {'"': "&quot;"}))
    attributes = f'name="{name}" sample="{number}"' + (f' role="{role}"' if role else "")
    return f"  <Item {attributes}>{content}</Item>\n"


def _xml(items: Sequence[str]) -> Field:
    return text("<GDALMetadata>\n" + "".join(items) + "</GDALMetadata>\n")


def _tags(layout: Layout, tally: Tally) -> list[dict[str, str]]:
    """Return the tags of each band: its statistics, and the names of its classes."""
    _, height, width = layout.shape
    found = tally.gdal_tags(height * width)
    return [tags | _class_tags(classes_in(name)) for name, tags in zip(layout.bands, found, strict=True)]


def _scale(packing: Packing, name: str) -> float:
    return 1.0 if classes_in(name) else packing.scale


def _unit(packing: Packing, name: str) -> str:
    return "" if classes_in(name) else packing.unit or ""


def _qa_tags() -> dict[str, str]:
    return _class_tags({int(value): each for value, each in QA_CLASSES.items()})


def _class_tags(classes: Mapping[int, PixelClass]) -> dict[str, str]:
    return {f"CLASS_{value:d}": each.name for value, each in classes.items()}


def _colour(name: str) -> ColorInterp:
    """Return GDAL's colour interpretation of a band."""
    known = _COLOURS if GDALVersion.runtime().at_least(_ALL_COLOURS_SINCE) else _VISIBLE
    return known.get(COMMON_NAMES.get(band_of(name) or "", ""), ColorInterp.undefined)


def _encoding(settings: OutputSection, has_predictor: bool) -> Encoding:
    return Encoding(settings.compress, _level(settings), has_predictor and settings.compress != "none")


def _level(settings: OutputSection) -> int | None:
    return settings.compress_level or _LEVEL.get(settings.compress)


def _options(settings: OutputSection) -> dict[str, str]:
    method, level = settings.compress, _level(settings)
    return {"compress": method, "overview_compress": method} | ({"level": str(level)} if level else {})


def _copy(spool: Spool, path: Path, **options: str) -> None:
    with rasterio.Env(GDAL_OVR_CHUNK_MAX_SIZE=_OVERVIEW_CELLS * spool.cell_bytes):
        spool.copy(path, "COG", **options, **_PROFILE)
    # Some drivers of GDAL write an incomplete file and report no error.
    with rasterio.open(path) as written:
        if (written.count, written.height, written.width) != spool.shape:
            raise OSError(f"{path} was not written completely")
