"""Tell QGIS how to draw an image and its QA image.

QGIS applies a ``.qml`` file by itself, if it is beside a raster and has its name.
"""

from xml.etree import ElementTree

from s2cube.kernels.packing import Packing
from s2cube.output._picture import BRIGHTEST_REFLECTANCE, TRUE_COLOUR
from s2cube.sentinel2 import QA, QA_CLASSES, band_of

_DOCTYPE = b"<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"


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
    if not set(TRUE_COLOUR) <= set(names) or (packing and not packing.unit):
        return None
    numbers = {f"{name}Band": str(names.index(name) + 1) for name in TRUE_COLOUR}
    root, renderer = _style("multibandcolor", numbers)
    # The limits come from this file, not from the values of the image.
    _add(_add(renderer, "minMaxOrigin"), "limits", "None")
    for name in TRUE_COLOUR:
        stretch = _add(renderer, f"{name}ContrastEnhancement")
        _add(stretch, "minValue", "0")
        _add(stretch, "maxValue", f"{BRIGHTEST_REFLECTANCE[name]:g}")
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
        entry.set("alpha", "0" if value == QA.OUTSIDE else "255")
    return _content(root)


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
