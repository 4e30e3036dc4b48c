"""Show an image to people: a PNG that they can look at, and styles that tell QGIS how to draw it.

QGIS applies a ``.qml`` file by itself, if it is beside a raster and has its name.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import rasterio
from rasterio.io import DatasetReader

from s2cube.kernels.packing import PACKINGS, Packing
from s2cube.output import png
from s2cube.output._raster import Spool, open_spool
from s2cube.sentinel2 import QA, QA_CLASSES, PixelClass, band_of, classes_in

_TRUE_COLOUR = ("red", "green", "blue")

_BRIGHTEST_REFLECTANCE = {
    "coastal": 0.3, "blue": 0.3, "green": 0.3, "red": 0.3, "rededge1": 0.4, "rededge2": 0.6, "rededge3": 0.6,
    "nir": 0.6, "nir08": 0.6, "nir09": 0.6, "swir16": 0.5, "swir22": 0.4,
}  # fmt: skip
"""Reflectance that is shown white. Land rarely reflects more in the band. The values are the same for all dates, so
that pictures are comparable."""

_NORMALISED_DIFFERENCES = frozenset({"NDVI", "GNDVI", "NDWI", "MNDWI", "NDMI", "NDREI", "NBR", "NBR2", "NDSI", "NDBI"})
"""Indices of the form (a - b) / (a + b). They are shown from -1, black, to 1, white."""

_STRETCH_PERCENT = (2, 98)
"""Percentiles of the values that are shown black and white, if the range of a band is unknown."""

_SIDE_PIXELS = 256
_MAX_SIDE_PIXELS = 1024
"""A small picture is enlarged until its shorter side has at least `_SIDE_PIXELS`, unless the longer side would have
more than `_MAX_SIDE_PIXELS`."""

_ZLEVEL = "2"
"""Deflate level of the PNG. At the default level, 6, writing a picture takes much longer, and the picture is little
smaller."""

_LEVEL = 2
"""Deflate level of the PNG of a small image (libdeflate)."""

_PIXELS_FOR_RANGE = 1 << 22
"""Number of pixels that is enough to estimate percentiles of an image."""

_DOCTYPE = b"<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"


def write_picture(bands: tuple[str, ...], pixels: Spool, path: Path, packing: Packing | None = None) -> None:
    """Write a PNG: true colour if the image has red, green and blue, else the first band that is no class, in gray.

    If all bands are classes, the first one is shown in the colours of its classes. Nodata is transparent. Black and
    white are fixed values for every band of Sentinel-2 and for normalised differences such as NDVI. For any other band
    they are percentiles of its values, so that they differ between images. Each pixel of a small image becomes a square
    of several pixels.

    Parameters
    ----------
    bands
        Names of the bands. Bands of Sentinel-2 may be in the spelling of any catalogue.
    pixels
        The pixels of these bands.
    path
        The PNG; an existing file is replaced.
    packing
        Packing of the pixels. None for reflectance. If its unit is unknown, black and white are percentiles for bands
        of Sentinel-2, too.
    """
    _, height, width = pixels.shape
    factor = _enlargement(height, width)
    grid = {"height": height * factor, "width": width * factor, "transform": pixels.profile["transform"]}
    # The raster has a transform, because rasterio warns if it has none. PAM is off, so that GDAL does not write this
    # transform to a file beside the PNG.
    with (
        rasterio.Env(GDAL_PAM_ENABLED="NO"),
        open_spool(path.parent, count=4, dtype="uint8", **grid) as colours,
        pixels.open() as source,
    ):
        shown = _shown(bands)
        drawing = _drawing(bands, packing or PACKINGS[source.dtypes[0]], partial(_sample, source))
        with colours.filling():
            for _, window in source.block_windows(1):
                part = drawing.colours(source.read([each + 1 for each in shown], window=window))
                enlarged = part.repeat(factor, axis=1).repeat(factor, axis=2)
                colours.put(enlarged, 0, window.row_off * factor, window.col_off * factor)
        colours.copy(path, "PNG", zlevel=_ZLEVEL)


def small_picture(bands: tuple[str, ...], values: np.ndarray, packing: Packing) -> bytes:
    """Return the content of the PNG of a small image, dims (band, y, x). It shows what `write_picture` shows."""
    shown, factor = _shown(bands), _enlargement(*values.shape[1:])
    drawing = _drawing(bands, packing, lambda number: values[number])
    return _png(np.moveaxis(drawing.colours(values[shown]), 0, -1), factor)


def image_style(bands: tuple[str, ...], packing: Packing | None = None) -> bytes | None:
    """Return a style with the colours of the picture; None if it does not have reflectance of red, green and blue.

    Without it, QGIS stretches each band between the smallest and the largest value of the image, so that the colours of
    different dates cannot be compared. The limits are reflectance: QGIS applies the scale of the file.

    Parameters
    ----------
    bands
        Names of the bands, in the order of the image. They may be in the spelling of any catalogue.
    packing
        Packing of the image. None for reflectance.
    """
    names = [band_of(name) for name in bands]
    if not set(_TRUE_COLOUR) <= set(names) or (packing and not packing.unit):
        return None
    numbers = {f"{name}Band": str(names.index(name) + 1) for name in _TRUE_COLOUR}
    root, renderer = _style("multibandcolor", numbers)
    # The limits come from this file, not from the values of the image.
    _add(_add(renderer, "minMaxOrigin"), "limits", "None")
    for name in _TRUE_COLOUR:
        stretch = _add(renderer, f"{name}ContrastEnhancement")
        _add(stretch, "minValue", "0")
        _add(stretch, "maxValue", f"{_BRIGHTEST_REFLECTANCE[name]:g}")
        _add(stretch, "algorithm", "StretchToMinimumMaximum")
    return _content(root)


def qa_style() -> bytes:
    """Return a style with the names of the QA values. It is the same for every QA image.

    Without it, the legend has 256 numbers, because the colour table of a GeoTIFF has no names.
    """
    root, renderer = _style("paletted", {"band": "1"})
    palette = _add(renderer, "colorPalette")
    for value, each in QA_CLASSES.items():
        entry = _add(palette, "paletteEntry")
        entry.set("value", f"{value:d}")
        entry.set("label", each.name)
        entry.set("color", "#{:02x}{:02x}{:02x}".format(*each.colour))
        entry.set("alpha", "0" if value == QA.OUTSIDE.value else "255")
    return _content(root)


@dataclass(frozen=True)
class _Drawing:
    """How pixels become colours.

    Parameters
    ----------
    classes
        Meaning of the values of the band that is shown; empty if it is no band of classes.
    limits
        Values that are shown black and white, for each colour.
    """

    packing: Packing
    classes: Mapping[int, PixelClass]
    limits: np.ndarray

    def colours(self, raw: np.ndarray) -> np.ndarray:
        """Return red, green, blue and opacity, each from 0 to 255, from the pixels of the bands that are shown."""
        if self.classes:
            return _class_colours(raw[0], self.classes, self.packing)
        low, high = self.limits.T[..., np.newaxis, np.newaxis]
        reflectance, is_nodata = _reflectance(raw, self.packing)
        layers = np.where(is_nodata, 0, np.clip((reflectance - low) / (high - low), 0, 1))
        return np.concatenate([np.round(layers * 255), ~is_nodata.any(axis=0, keepdims=True) * 255]).astype("uint8")


def _shown(bands: tuple[str, ...]) -> list[int]:
    """Return the positions of the bands that are shown red, green and blue."""
    names = [band_of(name) or name for name in bands]
    grays = [name for name in names if not classes_in(name)][:1] or names[:1]
    return [names.index(name) for name in (_TRUE_COLOUR if set(_TRUE_COLOUR) <= set(names) else grays * 3)]


def _drawing(bands: tuple[str, ...], packing: Packing, sample: Callable[[int], np.ndarray]) -> _Drawing:
    """Choose how the bands are drawn.

    Parameters
    ----------
    sample
        Returns enough pixels of a band to estimate percentiles, from its position.
    """
    names, shown = [band_of(name) or name for name in bands], _shown(bands)
    classes = classes_in(names[shown[0]])
    ranges = {
        each: (0.0, 1.0) if classes else _fixed_range(names[each], packing) or _percentile_range(sample(each), packing)
        for each in {*shown}
    }
    return _Drawing(packing, classes, np.array([ranges[each] for each in shown], "float32"))


def _png(colours: np.ndarray, factor: int) -> bytes:
    """Return the content of a PNG whose pixels are squares of one colour.

    Parameters
    ----------
    colours
        Dims (y, x, 4), uint8.
    factor
        Side of the squares, pixels.
    """
    height, width, depth = colours.shape
    differences = colours.copy()
    differences[:, 1:] -= colours[:, :-1]
    # The first line of a square has its differences from the square on the left. The others repeat the line above.
    lines = np.zeros((height, factor, 1 + width * factor * depth), "uint8")
    lines[:, 0, 0], lines[:, 1:, 0] = png.FROM_LEFT, png.FROM_ABOVE
    lines[:, 0, 1:].reshape(height, width, factor, depth)[:, :, 0] = differences
    return png.encode_png(lines.reshape(height * factor, -1), depth, _LEVEL)


def _enlargement(height: int, width: int) -> int:
    """Return the whole number by which the sides of a picture are multiplied."""
    return max(1, min(math.ceil(_SIDE_PIXELS / min(height, width)), _MAX_SIDE_PIXELS // max(height, width)))


def _class_colours(raw: np.ndarray, classes: Mapping[int, PixelClass], packing: Packing) -> np.ndarray:
    """Return red, green, blue and opacity of a band of classes, each from 0 to 255. Nodata is no class."""
    table = np.zeros((256, 4), "uint8")
    for value, each in classes.items():
        table[value] = (*each.colour, 255)
    values = np.where(packing.holes(raw), 255, raw).astype("uint8")
    return np.moveaxis(table[values], -1, 0)


def _reflectance(raw: np.ndarray, packing: Packing) -> tuple[np.ndarray, np.ndarray]:
    """Return reflectance, with 0 in place of nodata, and a mask that is True at nodata."""
    is_nodata = packing.holes(raw)
    return np.where(is_nodata, 0, raw * np.float32(packing.scale)), is_nodata


def _fixed_range(name: str, packing: Packing) -> tuple[float, float] | None:
    """Return the values of a band that are shown black and white; None if its range is unknown."""
    if name.upper() in _NORMALISED_DIFFERENCES:
        return -1.0, 1.0
    return (0.0, _BRIGHTEST_REFLECTANCE[name]) if packing.unit and name in _BRIGHTEST_REFLECTANCE else None


def _percentile_range(raw: np.ndarray, packing: Packing) -> tuple[float, float]:
    """Return two percentiles of the values of a band."""
    values, is_nodata = _reflectance(raw, packing)
    known = values[~is_nodata & np.isfinite(values)]
    low, high = np.percentile(known, _STRETCH_PERCENT) if known.size else (0, 1)
    return float(low), float(high) if high > low else float(low) + 1


def _sample(source: DatasetReader, position: int) -> np.ndarray:
    """Read enough pixels of a band to estimate percentiles."""
    step = math.ceil(math.sqrt(source.height * source.width / _PIXELS_FOR_RANGE))
    shape = (-(-source.height // step), -(-source.width // step))
    sample: np.ndarray = source.read(position + 1, out_shape=shape)
    return sample


def _style(kind: str, attributes: dict[str, str]) -> tuple[ElementTree.Element, ElementTree.Element]:
    root = ElementTree.Element("qgis", version="3.22.0", styleCategories="Symbology")
    renderer = _add(_add(root, "pipe"), "rasterrenderer")
    renderer.attrib.update(type=kind, opacity="1", alphaBand="-1", **attributes)
    return root, renderer


def _add(parent: ElementTree.Element, tag: str, text: str | None = None) -> ElementTree.Element:
    element = ElementTree.SubElement(parent, tag)
    element.text = text
    return element


def _content(root: ElementTree.Element) -> bytes:
    ElementTree.indent(root)
    return _DOCTYPE + ElementTree.tostring(root) + b"\n"
