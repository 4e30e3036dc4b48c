"""The form of Items and collections: the members of STAC 1.1 and its extensions that describe rasters."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from s2cube.output._statistics import BandStatistics
from s2cube.sentinel2 import QA, QA_CLASSES, PixelClass, band_of, class_band_of, classes_in, common_name, platforms
from s2cube.spectral_indices import index_of
from s2cube.storage.image_item import ITEM_VERSION

VERSION = 2
"""Version of the form, in the property `ITEM_VERSION`. Items without it have version 1: STAC 1.0's bands."""

_ADDRESS = "https://stac-extensions.github.io/{}/schema.json"
_EXTENSIONS = {
    "classification:": "classification/v2.0.0",
    "eo:": "eo/v2.0.0",
    "file:": "file/v2.1.0",
    "processing:": "processing/v1.2.0",
    "proj:": "projection/v2.0.0",
    "raster:": "raster/v2.0.0",
    "renders": "render/v2.0.0",
}
"""Extension of STAC by the start of the names of its members."""

_NATURAL = ("red", "green", "blue")
_WHITE = 0.3
"""Reflectance that natural colours show as white."""

_LISTED = ("platform", "constellation", "instruments", "gsd", "proj:code", "processing:software")
"""Properties whose different values a collection lists."""

_RANGES = ("eo:cloud_cover", "s2cube:clear_percent")
"""Properties whose range a collection gives."""

_OF_ONE_IMAGE = ("href", "file:size", "file:checksum", "eo:bands", "raster:bands", "statistics")
_OF_ONE_BAND = ("statistics",)
_OF_ONE_CLASS = ("count",)
"""Members that differ from image to image."""

_CLASSES = "classification:classes"


@dataclass(frozen=True)
class Raster:
    """Facts of the raster of an image.

    Parameters
    ----------
    bands
        Names, in the order of the file. The name of an index is as good as that of a band.
    dtype
        Name of the data type.
    scale
        Factor of the values.
    nodata
        None if every pixel has a value.
    unit
        UDUNITS symbol of the unit; None if it is unknown.
    crs
        Code, such as ``EPSG:32614``.
    shape
        Rows, columns.
    transform
        Six numbers, in the order of `affine.Affine`.
    cell_m
        Size of a cell, metres; None if the grid is in degrees.
    statistics
        One per band, or none.
    """

    bands: Sequence[str]
    dtype: str
    scale: float
    nodata: float | None
    unit: str | None
    crs: str
    shape: tuple[int, int]
    transform: Sequence[float]
    cell_m: float | None
    statistics: Sequence[BandStatistics] = ()


def raster_properties(raster: Raster, scenes: Iterable[str]) -> dict[str, Any]:
    """Return the properties of an Item that follow from its raster, and the platform if all scenes have the same."""
    rows, columns = raster.shape
    width, _, west, _, height, north = raster.transform
    found = platforms(scenes)
    return {
        **({"platform": found[0]} if len(found) == 1 else {}),
        **({"gsd": raster.cell_m} if raster.cell_m else {}),
        "proj:code": raster.crs,
        "proj:shape": [rows, columns],
        "proj:transform": list(raster.transform),
        "proj:bbox": [west, north + rows * height, west + columns * width, north],
        **_renders(raster),
        ITEM_VERSION: VERSION,
    }


def data_bands(raster: Raster) -> list[dict[str, Any]]:
    """Return the member `bands` of the asset of the COG."""
    statistics = dict(zip(raster.bands, raster.statistics, strict=True)) if raster.statistics else {}
    return [_band(name, raster, statistics.get(name)) for name in raster.bands]


def qa_members(counts: Sequence[int] = ()) -> dict[str, Any]:
    """Return the members of the asset of the QA image that describe its values.

    Parameters
    ----------
    counts
        Number of pixels of each class, in the order of `QA`; empty if they are not known.
    """
    count_of = dict(zip(QA, counts, strict=True)) if len(counts) else {}
    classes = [
        _class(value, each)
        | {"nodata": value == QA.OUTSIDE.value}
        | ({"count": count_of[value]} if value in count_of else {})
        for value, each in QA_CLASSES.items()
    ]
    # The only band of an asset has no own list of bands.
    return {"data_type": "uint8", "nodata": int(QA.OUTSIDE), _CLASSES: classes}


def extensions(properties: Mapping[str, Any], assets: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the extensions whose members an Item or a collection contains.

    Parameters
    ----------
    properties
        The properties of an Item, or the summaries of a collection.
    assets
        The assets of an Item, or the `item_assets` of a collection.
    """
    parts = [properties, *(part for asset in assets for part in (asset, *asset.get("bands", ())))]
    members = {name for part in parts for name in part}
    return [
        _ADDRESS.format(extension)
        for prefix, extension in _EXTENSIONS.items()
        if any(name.startswith(prefix) for name in members)
    ]


def summaries(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Summarise the properties and bands of Items, given as JSON.

    Returns
    -------
    dict
        Lists of different values, in the order in which they are found; minimum and maximum of shares; all bands.
    """
    found: dict[str, Any] = {}
    for name in _LISTED:
        values = [each["properties"][name] for each in items if name in each["properties"]]
        if values:
            found[name] = _different(each for value in values for each in _as_list(value))
    for name in _RANGES:
        values = [each["properties"].get(name) for each in items]
        numbers = [each for each in values if isinstance(each, int | float)]
        if numbers:
            found[name] = {"minimum": min(numbers), "maximum": max(numbers)}
    bands = _different(band for asset in item_assets(items).values() for band in asset.get("bands", ()))
    return found | ({"bands": bands} if bands else {})


def item_assets(items: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the assets of Items, given as JSON, have in common: their members, and the bands of any of them."""
    found: dict[str, dict[str, Any]] = {}
    for item in items:
        for name, asset in item["assets"].items():
            shared = {key: value for key, value in asset.items() if key not in _OF_ONE_IMAGE}
            # The classes of an Item are not checked when it is read.
            if isinstance(classes := shared.get(_CLASSES), list):
                of_all = (_without(each, _OF_ONE_CLASS) if isinstance(each, Mapping) else each for each in classes)
                shared[_CLASSES] = list(of_all)
            bands = [_without(band, _OF_ONE_BAND) for band in asset.get("bands", ())]
            before = found.setdefault(name, shared)
            if bands:
                before["bands"] = _different([*(before.get("bands", ()) if before is not shared else ()), *bands])
    return found


def _without(members: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in members.items() if key not in names}


def _band(name: str, raster: Raster, statistics: BandStatistics | None) -> dict[str, Any]:
    nodata = raster.nodata
    common = common_name(name)
    found = {key: value for key, value in vars(statistics).items() if value is not None} if statistics else {}
    classes = [_class(*each) for each in classes_in(name).items()]
    scale = {"raster:scale": raster.scale, "raster:offset": 0}
    return {
        "name": name,
        **_description(name, raster),
        **({"eo:common_name": common} if common else {}),
        "data_type": raster.dtype,
        **({} if nodata is None else {"nodata": "nan" if math.isnan(nodata) else nodata}),
        **({"unit": raster.unit} if raster.unit and not classes else {}),
        **({"statistics": found} if found else {}),
        **({_CLASSES: classes} if classes else scale),
        **({"raster:spatial_resolution": raster.cell_m} if raster.cell_m else {}),
    }


def _description(name: str, raster: Raster) -> dict[str, str]:
    """Describe a band that is an index. Values that a user has computed have no unit, and may be anything."""
    if not raster.unit or band_of(name) or class_band_of(name):
        return {}
    index = index_of(name)
    return {"description": index.description} if index else {}


def _class(value: int, described: PixelClass) -> dict[str, Any]:
    """Describe a class as the classification extension does."""
    return {
        "value": int(value),
        "name": described.name,
        "description": described.description,
        "color_hint": "{:02X}{:02X}{:02X}".format(*described.colour),
    }


def _renders(raster: Raster) -> dict[str, Any]:
    """Return how natural colours are shown; empty if a colour is missing.

    titiler takes the members as its parameters; its numbers of bands (``bidx``) begin with 1.
    """
    numbers = {common_name(name): number for number, name in enumerate(raster.bands, start=1)}
    if not numbers.keys() >= {*_NATURAL}:
        return {}
    bands = [numbers[each] for each in _NATURAL]
    limit = [0, round(_WHITE / raster.scale, 6)]
    natural = {
        "title": "Natural colours",
        "assets": ["data"],
        "bands": [[raster.bands[number - 1] for number in bands]],
        "bidx": bands,
        "rescale": [limit] * len(bands),
        "resampling": "nearest",
    }
    return {"renders": {"natural": natural}}


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _different(values: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for each in values:
        if each not in found:
            found.append(each)
    return found
