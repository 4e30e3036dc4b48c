"""Describe an image as a STAC Item."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import shapely
from pystac import MediaType
from shapely.geometry.base import BaseGeometry

from s2cube import __version__
from s2cube.area.antimeridian import bounds_lonlat, split, unwrap
from s2cube.area.outline import compact
from s2cube.config.times import timestamp
from s2cube.cube.facts import Provenance, SliceFacts
from s2cube.fetch.session import kept_within
from s2cube.output._raster import Layout
from s2cube.output._statistics import BandStatistics
from s2cube.output.item_form import Raster, data_bands, extensions, qa_members, raster_properties
from s2cube.sentinel2 import clear_percent, cloud_percent, masks_cloud
from s2cube.storage.image_item import (
    DATA,
    DATA_VERSION,
    DROPPED,
    GROUND,
    NAME,
    OFFSETS,
    PICTURE,
    QA_IMAGE,
    QA_STYLE,
    RECIPE,
    SCENES,
    SEARCH,
    SETTINGS,
    STYLE,
    SUFFIXES,
)
from s2cube.storage.json_text import geometry_json, stac_json

_QA_TITLE = "Why each pixel is, or is not, there"

_STAC_VERSION = "1.1.0"

AssetForm: TypeAlias = tuple[str, str, dict[str, Any], list[str]]
"""Media type, title, members and roles of an asset."""

QGIS = "text/xml"
"""Media type of a style."""

_KEPT_BYTES, _BYTES_PER_CHARACTER = 16 << 20, 6
"""Maximum size of the outlines that a process keeps, because the images of an area have the same. Size of an outline,
divided by that of its text."""

_DEGREE_M = 111_000
"""Length of a degree of latitude, metres."""


class FileFacts(NamedTuple):
    """The size of a file, bytes, and its checksum, from `image_item.checksum`."""

    size: int
    checksum: str


@dataclass(frozen=True)
class Found:
    """Facts about an image that are known only when its pixels are.

    Parameters
    ----------
    counts
        Number of pixels of each QA class, from `count_classes`.
    doubted
        Ids of scenes whose pixels contradict the offset in their items.
    statistics
        Statistics of each band, in the order of the bands. If there are none, the Item has no statistics.
    """

    counts: np.ndarray
    doubted: tuple[str, ...]
    statistics: Sequence[BandStatistics] = ()


def item_text(layout: Layout, facts: SliceFacts, found: Found, files: Mapping[str, FileFacts]) -> bytes:
    """Return the content of the Item's file; for the parameters see `slice_item`."""
    return stac_json(slice_item(layout, facts, found, files), outline_of(facts.outline_lonlat, layout).text)


def slice_item(layout: Layout, facts: SliceFacts, found: Found, files: Mapping[str, FileFacts]) -> dict[str, Any]:
    """Describe an image as an Item, in JSON. pystac would take milliseconds to make it.

    Parameters
    ----------
    layout
        Form of the image.
    facts
        Facts about the slice of the image.
    files
        Facts about each of its files, by the keys of `SUFFIXES`.

    Returns
    -------
    dict
        Its assets are `data` (the COG, with the bands of STAC 1.1), `qa` (with the classification extension) and
        `thumbnail` (the picture), and the styles for QGIS, all with the file extension. `renders` describes natural
        colours. The addresses of assets and links are relative. Parts of it may be in other Items, too: do not change
        them.
        `s2cube:clear_percent` is the share of the AOI's pixels that are valid in all bands. `eo:cloud_cover` is the
        share of cloud in the AOI's pixels that have source data. `s2cube:geometry_tolerance_m` is the tolerance (m)
        that simplified the outline, at most a tenth of a cell. `s2cube:scenes`, `offset_dn`, `dropped`,
        `offset_doubts`, `settings`, `search`, `ground` and `data_version` describe the input and how it was processed.
        A `derived_from` link points to every source item that has an address.
    """
    outline = outline_of(facts.outline_lonlat, layout)
    raster = raster_of(layout, found.statistics)
    properties = (_derived_properties if facts.name else _properties)(facts, found, outline.tolerance_m)
    for end, time in zip(("start", "end"), facts.interval or (), strict=False):
        properties[f"{end}_datetime"] = instant(time)
    properties |= raster_properties(raster, facts.scenes)
    settings = facts.provenance.settings
    is_masked = facts.is_explained and masks_cloud(settings.get("mask", ()), settings.get("mask_classes", ()))
    cloud = cloud_percent(found.counts) if is_masked else None
    if cloud is not None:
        properties["eo:cloud_cover"] = cloud
    properties["datetime"] = facts.time and instant(facts.time)
    assets = _assets(raster, facts, found.counts, files)
    ids = facts.aoi, facts.slice
    return whole_item(ids, outline, properties, assets, facts.provenance.derived_from)


def whole_item(
    ids: tuple[str, str], outline: "Outline", properties: dict[str, Any], assets: dict[str, dict[str, Any]],
    derived_from: Sequence[str],
) -> dict[str, Any]:  # fmt: skip
    """Return an Item, from the ids of its AOI and of itself, its parts, and the addresses of its source items."""
    aoi_id, item_id = ids
    up = {"root": "../../catalog.json", "parent": "../collection.json", "collection": "../collection.json"}
    links = [{"rel": rel, "href": href, "type": str(MediaType.JSON)} for rel, href in up.items()]
    links += [{"rel": "derived_from", "href": href, "type": str(MediaType.GEOJSON)} for href in derived_from]
    return {
        "type": "Feature",
        "stac_version": _STAC_VERSION,
        "stac_extensions": sorted(extensions(properties, assets.values())),
        "id": item_id,
        "geometry": outline.geometry,
        "bbox": outline.bbox,
        "properties": properties,
        "links": links,
        "assets": assets,
        "collection": aoi_id,
    }


def _assets(
    raster: Raster, facts: SliceFacts, counts: np.ndarray, files: Mapping[str, FileFacts]
) -> dict[str, dict[str, Any]]:
    """Describe the files that there are, in the order of `SUFFIXES`."""
    title, roles = ("Computed values", ["data"]) if facts.name else ("Reflectance", ["data", "reflectance"])
    forms: dict[str, AssetForm] = {
        DATA: (MediaType.COG, title, {"bands": data_bands(raster)}, roles),
        QA_IMAGE: (MediaType.COG, _QA_TITLE, qa_members(counts.tolist()), ["data-mask"]),
        PICTURE: (MediaType.PNG, "Picture", {}, ["thumbnail"]),
        STYLE: (QGIS, "Style for QGIS", {}, ["style"]),
        QA_STYLE: (QGIS, "Style of the QA image for QGIS", {}, ["style"]),
    }
    return assets_of(facts.slice, forms, files)


def assets_of(name: str, forms: Mapping[str, AssetForm], files: Mapping[str, FileFacts]) -> dict[str, dict[str, Any]]:
    """Return the assets of files.

    Parameters
    ----------
    name
        Start of the names of the files.
    forms
        Forms of assets, by the keys of `SUFFIXES`. Assets without a file are left out.
    """
    return {
        key: {
            "href": f"./{name}{SUFFIXES[key]}",
            "type": str(media_type),
            "title": title,
            **members,
            "file:checksum": files[key].checksum,
            "file:size": files[key].size,
            "roles": roles,
        }
        for key, (media_type, title, members, roles) in forms.items()
        if key in files
    }


def instant(time: datetime) -> str:
    """Format a time as RFC 3339. A time without a zone is UTC."""
    return timestamp(time if time.tzinfo else time.replace(tzinfo=UTC), "auto")


def _properties(facts: SliceFacts, found: Found, tolerance_m: float) -> dict[str, Any]:
    return source_properties(facts.scenes, facts.provenance) | {
        "s2cube:offset_doubts": list(found.doubted),
        "s2cube:clear_percent": clear_percent(found.counts),
        "s2cube:geometry_tolerance_m": tolerance_m,
    }


def source_properties(scenes: Sequence[str], provenance: Provenance) -> dict[str, Any]:
    """Return the properties that describe the input of an image and how it was processed."""
    return {
        "constellation": "sentinel-2",
        "instruments": ["msi"],
        "processing:software": {"s2cube": __version__},
        SCENES: list(scenes),
        OFFSETS: dict(provenance.offset_dn),
        DROPPED: [asdict(each) for each in provenance.dropped],
        SETTINGS: dict(provenance.settings),
        RECIPE: provenance.recipe,
        DATA_VERSION: provenance.data_version,
        GROUND: provenance.ground,
        **({SEARCH: dict(provenance.search)} if provenance.search else {}),
    }


def _derived_properties(facts: SliceFacts, found: Found, tolerance_m: float) -> dict[str, Any]:
    """Return the properties of an image that was computed from a cube. Properties that are not known are left out."""
    properties, own = _properties(facts, found, tolerance_m), {RECIPE, "s2cube:offset_doubts"}
    unknown = set() if facts.provenance.settings else {SETTINGS, DATA_VERSION, GROUND}
    return {key: value for key, value in properties.items() if key not in own | unknown} | {NAME: facts.name}


class Outline(NamedTuple):
    """An outline as GeoJSON and as text, its bounds, and the tolerance (m) that simplified it."""

    geometry: dict[str, Any]
    text: str
    bbox: list[float]
    tolerance_m: float


def outline_of(area: BaseGeometry, layout: Layout) -> Outline:
    """Return the outline of an area of interest, simplified for the grid of an image."""
    return _outline(area, layout.cell_m or _DEGREE_M * layout.geobox.affine.a)


@kept_within(lambda: _KEPT_BYTES, lambda outline: _BYTES_PER_CHARACTER * len(outline.text))
def _outline(area: BaseGeometry, cell_m: float) -> Outline:
    """Simplify an outline by at most a tenth of a cell, for RFC 7946."""
    compacted, tolerance_m = compact(unwrap(area), cell_m / 10)
    outline = shapely.orient_polygons(split(compacted))
    geometry = shapely.geometry.mapping(outline)
    return Outline(geometry, geometry_json(geometry), list(bounds_lonlat(outline)), tolerance_m)


def raster_of(layout: Layout, statistics: Sequence[BandStatistics]) -> Raster:
    """Return the facts of a raster from its layout and the statistics of its bands."""
    packing = layout.packing
    return Raster(
        layout.bands, layout.dtype, packing.scale, layout.nodata, packing.unit, f"EPSG:{layout.crs.epsg}",
        layout.shape[1:], list(layout.geobox.affine)[:6], layout.cell_m, statistics,
    )  # fmt: skip
