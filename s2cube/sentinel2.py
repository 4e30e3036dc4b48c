"""Facts of Sentinel-2 L2A: bands, mask layers, scale, offset, scene classes; and the values of our QA images."""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from s2cube.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

BAND_ASSETS: dict[str, tuple[str, ...]] = {
    "coastal": ("coastal", "B01", "B01_60m"),
    "blue": ("blue", "B02", "B02_10m"),
    "green": ("green", "B03", "B03_10m"),
    "red": ("red", "B04", "B04_10m"),
    "rededge1": ("rededge1", "B05", "B05_20m"),
    "rededge2": ("rededge2", "B06", "B06_20m"),
    "rededge3": ("rededge3", "B07", "B07_20m"),
    "nir": ("nir", "B08", "B08_10m"),
    "nir08": ("nir08", "B8A", "B8A_20m"),
    "nir09": ("nir09", "B09", "B09_60m"),
    "swir16": ("swir16", "B11", "B11_20m"),
    "swir22": ("swir22", "B12", "B12_20m"),
}
"""Asset keys of each band: Earth Search and Digital Earth Africa, Planetary Computer, Copernicus Data Space.

The keys are those of real items. The Data Space offers some bands in several pixel sizes; the key here is that of the
native size. To support a catalogue with other keys, add its keys to each band. The first key that an item contains is
used, so a key must have the same meaning in every catalogue.
"""

COMMON_NAMES = {band: "rededge" if band.startswith("rededge") else band for band in BAND_ASSETS}
"""Common name of each band in the STAC eo extension 1: the three red edge bands share one name."""

EO2_NAMES = {"rededge1": "rededge071", "rededge2": "rededge075", "rededge3": "rededge078"}
"""Common names of the red edge bands in the STAC eo extension 2."""

LAYER_ASSETS: dict[str, tuple[str, ...]] = {
    "scl": ("scl", "SCL", "SCL_20m"),
    "cloud": ("cloud", "MSK_CLDPRB", "CLDPRB"),
    "snow": ("snow", "MSK_SNWPRB", "SNWPRB"),
    "qa60": ("qa60", "QA60"),
}
"""Asset keys of each mask layer: scene classification, probabilities in percent, cloud bits.

`cloud` and `snow` are the keys of Earth Search and Digital Earth Africa. MSK_… and QA60 are ESA's file names,
which mirrors also use. Planetary Computer and Copernicus Data Space offer only the scene classification.

To support a catalogue with other keys, add its keys here. To add a layer: add its name and keys here, its pixel size to
`NATIVE_M`, its name to `config.literals.MaskLayer`, its data type to `cube.reads`, and the rule that turns its values
into `QA` values to `cube.mask`.
"""

_MISSION = re.compile(r"S2([A-D])(?=[_.])")
"""Start of the id of a scene (Sentinel-2 Products Specification Document, naming convention); mirrors keep it."""
CLASS_BANDS: dict[str, tuple[str, ...]] = {"scl": LAYER_ASSETS["scl"], "qa": ("qa", "QA")}
"""Names of each band of classes: the scene classification, and our QA values, which have no asset."""

NATIVE_M = {
    "coastal": 60, "blue": 10, "green": 10, "red": 10, "rededge1": 20, "rededge2": 20, "rededge3": 20, "nir": 10,
    "nir08": 20, "nir09": 60, "swir16": 20, "swir22": 20, "scl": 20, "cloud": 20, "snow": 20, "qa60": 60,
}  # fmt: skip
"""Pixel size of each band and layer, metres (Sentinel-2 Products Specification Document)."""

SCALE = 0.0001
"""Reflectance per digital number: QUANTIFICATION_VALUE of L2A is 10000 (Products Specification Document)."""

BOA_ADD_OFFSET_DN = -1000
"""Offset of every L2A band since processing baseline 04.00 (Products Specification Document, BOA_ADD_OFFSET)."""


def canonical_bands(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the name of each band in `BAND_ASSETS` or `CLASS_BANDS`. Given names may be asset keys of any catalogue.

    Raises
    ------
    ConfigError
        If a band is unknown. The message lists the known bands.
    """
    return tuple(_canonical_band(name) for name in names)


def common_name(name: str) -> str | None:
    """Return the common name of a band in the STAC eo extension 2; None if the name is not that of a band."""
    band = band_of(name)
    return EO2_NAMES.get(band, COMMON_NAMES[band]) if band else None


def platforms(scene_ids: Iterable[str]) -> list[str]:
    """Return the satellites that the ids of scenes name, such as ``sentinel-2a``; an empty list if an id names none."""
    found = {match and f"sentinel-2{match[1].lower()}" for match in map(_MISSION.match, scene_ids)}
    return [] if None in found else sorted(each for each in found if each)


def reflectance_bands(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names that are not those of a band of classes, unchanged."""
    return tuple(name for name in names if class_band_of(name) is None)


def class_band_of(name: str) -> str | None:
    """Return the name of a band in `CLASS_BANDS`; None if it is not a band of classes."""
    return next((band for band, keys in CLASS_BANDS.items() if name in keys), None)


def band_of(name: str) -> str | None:
    """Return the name of a band in `BAND_ASSETS`, as `canonical_bands` does; None if it has no such band."""
    return next((band for band, keys in BAND_ASSETS.items() if name in keys), None)


def _canonical_band(name: str) -> str:
    if band := band_of(name) or class_band_of(name):
        return band
    known = ", ".join((*BAND_ASSETS, *CLASS_BANDS))
    raise ConfigError(f"band '{name}'", "no such band", f"Known: {known} (or B02, B02_10m, …)")


NO_DATA_CLASS = 0
CLOUD_CLASSES = (8, 9, 10)
"""Classes of the scene classification (Sentinel-2 Products Specification Document): cloud of medium and of high
probability, thin cirrus."""


class QA(IntEnum):
    """Values of the QA image, uint8.

    If several values apply to a pixel, the lowest value is used: a cloudy pixel is not tested for shadow.

    Compare arrays with ``QA.CLOUD.value``: numpy takes 12 times as long to compare them with ``QA.CLOUD``.
    """

    CLEAR = 0
    CLOUD = 1
    SHADOW = 2
    OTHER = 3
    NO_DATA = 4
    OUTSIDE = 255


@dataclass(frozen=True)
class PixelClass:
    """The name, description and colour (red, green, blue) of a value."""

    name: str
    description: str
    colour: tuple[int, int, int]


QA_CLASSES = {
    QA.CLEAR: PixelClass("clear", "Valid in every band", (120, 200, 120)),
    QA.CLOUD: PixelClass("cloud", "Cloud or cirrus, or within the dilation of one", (235, 235, 235)),
    QA.SHADOW: PixelClass("shadow", "Cloud shadow, or within the dilation of one", (70, 70, 110)),
    QA.OTHER: PixelClass(
        "other_mask", "Masked for another reason: defective, snow, another class chosen", (230, 150, 60)
    ),
    QA.NO_DATA: PixelClass("no_data", "No source data: not seen whole, or no value in some band", (30, 30, 30)),
    QA.OUTSIDE: PixelClass("outside", "Outside the area of interest", (0, 0, 0)),
}

SCENE_CLASSES = {
    1: PixelClass("saturated_or_defective", "Saturated or defective pixel", (255, 0, 0)),
    2: PixelClass("dark_area", "Dark area, or shadow cast by the terrain", (47, 47, 47)),
    3: PixelClass("cloud_shadow", "Cloud shadow", (100, 50, 0)),
    4: PixelClass("vegetation", "Vegetation", (0, 160, 0)),
    5: PixelClass("not_vegetated", "Ground without vegetation", (255, 230, 90)),
    6: PixelClass("water", "Water", (0, 0, 255)),
    7: PixelClass("unclassified", "Unclassified; cloud of low probability", (128, 128, 128)),
    8: PixelClass("cloud_medium_probability", "Cloud of medium probability", (192, 192, 192)),
    9: PixelClass("cloud_high_probability", "Cloud of high probability", (255, 255, 255)),
    10: PixelClass("thin_cirrus", "Thin cirrus", (100, 200, 255)),
    11: PixelClass("snow_or_ice", "Snow or ice", (255, 150, 255)),
}
"""Values of the scene classification (Sentinel-2 Products Specification Document), without 0, which is no data."""


def classes_in(band: str) -> dict[int, PixelClass]:
    """Return the values of a band of classes, by any name of the band; an empty dict for any other band."""
    of_qa = {int(value): each for value, each in QA_CLASSES.items() if value != QA.OUTSIDE.value}
    return {"scl": SCENE_CLASSES, "qa": of_qa}.get(class_band_of(band) or "", {})


def count_classes(qa: "np.ndarray") -> "np.ndarray":
    """Count the pixels of each class, in the order of `QA`."""
    import numpy as np

    return np.array([np.count_nonzero(qa == each.value) for each in QA])


def aoi_cells(counts: "np.ndarray") -> int:
    """Return the number of pixels in the area of interest, from the result of `count_classes`."""
    count_of = _by_class(counts)
    return sum(count_of.values()) - count_of[QA.OUTSIDE]


def clear_percent(counts: "np.ndarray") -> float:
    """Return the clear share of the area of interest, percent, from the result of `count_classes`."""
    return round(100 * _by_class(counts)[QA.CLEAR] / max(1, aoi_cells(counts)), 2)


def cloud_percent(counts: "np.ndarray") -> float | None:
    """Return the cloud share (without shadow) of the observed area, percent; None if nothing was observed."""
    count_of = _by_class(counts)
    observed = aoi_cells(counts) - count_of[QA.NO_DATA]
    return round(100 * count_of[QA.CLOUD] / observed, 2) if observed else None


def masks_cloud(layers: Collection[str], classes: Collection[int]) -> bool:
    """Return whether masks look for cloud.

    Parameters
    ----------
    layers
        Mask layers that are used: keys of `LAYER_ASSETS`.
    classes
        Scene classes that the layer ``scl`` masks.
    """
    by_class = "scl" in layers and set(CLOUD_CLASSES) <= set(classes)
    return by_class or bool({"cloud", "qa60"} & set(layers))


def _by_class(counts: "np.ndarray") -> dict[QA, int]:
    return dict(zip(QA, counts.tolist(), strict=True))
