"""Describe an image as a STAC Item."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import odc.geo.xr  # noqa: F401  registers .odc
import pystac
import rioxarray  # noqa: F401  registers .rio
import shapely
import xarray as xr
from pystac.extensions.file import FileExtension
from shapely.geometry.base import BaseGeometry

from s2cube import __version__
from s2cube.area.antimeridian import bounds_lonlat, split, unwrap
from s2cube.area.outline import compact
from s2cube.cube.facts import SliceFacts
from s2cube.kernels.packing import nodata_of, packing_of
from s2cube.output._qgis_style import image_style
from s2cube.output._statistics import BandStatistics
from s2cube.output.item_form import Raster, data_bands, extensions, qa_members, raster_properties
from s2cube.sentinel2 import CLOUD_CLASSES, clear_percent, cloud_percent
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
    SHA2_256,
    STYLE,
    SUFFIXES,
)

_QA_TITLE = "Why each pixel is, or is not, there"

_DEGREE_M = 111_000
"""Length of a degree of latitude, metres."""


def slice_item(
    image: xr.DataArray, facts: SliceFacts, counts: np.ndarray, doubted: tuple[str, ...],
    statistics: Sequence[BandStatistics] = (),
) -> pystac.Item:  # fmt: skip
    """Describe an image as an Item.

    Parameters
    ----------
    image
        From `cut`, dims (band, y, x). Its values are not computed.
    facts
        Facts about the slice of the image.
    counts
        Number of pixels of each QA class, from `count_classes`.
    doubted
        Ids of scenes whose pixels contradict the offset in their items.
    statistics
        Statistics of each band, in the order of the bands. If there are none, the Item has no statistics.

    Returns
    -------
    pystac.Item
        Its assets are `data` (the COG, with the bands of STAC 1.1), `qa` (with the classification extension) and
        `thumbnail` (the picture). `renders` describes natural colours. The addresses of assets and links are relative.
        `s2cube:clear_percent` is the share of the AOI's pixels that are valid in all bands. `eo:cloud_cover` is the
        share of cloud in the AOI's pixels that have source data. `s2cube:geometry_tolerance_m` is the tolerance (m)
        that simplified the outline, at most a tenth of a cell. `s2cube:scenes`, `offset_dn`, `dropped`,
        `offset_doubts`, `settings`, `search`, `ground` and `data_version` describe the input and how it was processed.
        A `derived_from` link points to every source item that has an address.
    """
    outline, tolerance_m = _outline(facts.outline_lonlat, _cell_m(image) or _DEGREE_M * image.odc.geobox.resolution.x)
    found = _Found(doubted, clear_percent(counts), tolerance_m)
    item = pystac.Item(
        facts.slice,
        shapely.geometry.mapping(outline),
        list(bounds_lonlat(outline)),
        facts.time,
        _derived_properties(facts, found) if facts.name else _properties(facts, found),
        start_datetime=facts.interval and facts.interval[0],
        end_datetime=facts.interval and facts.interval[1],
        collection=facts.aoi,
    )
    raster = _raster(image, statistics)
    item.properties |= raster_properties(raster, facts.scenes)
    cloud = cloud_percent(counts) if facts.is_explained and _masks_cloud(facts.provenance.settings) else None
    if cloud is not None:
        item.properties["eo:cloud_cover"] = cloud
    hrefs = {key: f"./{facts.slice}{suffix}" for key, suffix in SUFFIXES.items()}
    title, roles = ("Computed values", ["data"]) if facts.name else ("Reflectance", ["data", "reflectance"])
    item.add_asset(DATA, pystac.Asset(hrefs[DATA], title, None, pystac.MediaType.COG, roles))
    item.add_asset(QA_IMAGE, pystac.Asset(hrefs[QA_IMAGE], _QA_TITLE, None, pystac.MediaType.COG, ["data-mask"]))
    item.add_asset(PICTURE, pystac.Asset(hrefs[PICTURE], "Picture", None, pystac.MediaType.PNG, ["thumbnail"]))
    if image_style(tuple(map(str, image.band.values)), packing_of(image)):
        item.add_asset(STYLE, pystac.Asset(hrefs[STYLE], "Style for QGIS", None, "text/xml", ["style"]))
    item.add_asset(
        QA_STYLE, pystac.Asset(hrefs[QA_STYLE], "Style of the QA image for QGIS", None, "text/xml", ["style"])
    )
    item.assets[DATA].extra_fields["bands"] = data_bands(raster)
    item.assets[QA_IMAGE].extra_fields |= qa_members()
    item.stac_extensions = extensions(item.properties, [each.extra_fields for each in item.assets.values()])
    item.add_link(pystac.Link("root", "../../catalog.json", pystac.MediaType.JSON))
    item.add_link(pystac.Link("parent", "../collection.json", pystac.MediaType.JSON))
    item.add_link(pystac.Link("collection", "../collection.json", pystac.MediaType.JSON))
    for href in facts.provenance.derived_from:
        item.add_link(pystac.Link(pystac.RelType.DERIVED_FROM, href, pystac.MediaType.GEOJSON))
    return item


def add_checksums(item: pystac.Item, folder: Path) -> None:
    """Add the size and the SHA2-256 checksum of its file to every asset, with the file extension of STAC.

    Parameters
    ----------
    folder
        Folder that contains the files, under their final names.

    Raises
    ------
    OSError
        If a file cannot be read.
    """
    for key, asset in item.assets.items():
        path = folder / f"{item.id}{SUFFIXES[key]}"
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        facts = FileExtension.ext(asset, add_if_missing=True)
        facts.apply(size=path.stat().st_size, checksum=f"{SHA2_256}{digest}")
    item.stac_extensions.sort()


class _Found(NamedTuple):
    """Facts about an image that are known only when its files are written."""

    doubted: tuple[str, ...]
    clear_percent: float
    tolerance_m: float


def _properties(facts: SliceFacts, found: _Found) -> dict[str, Any]:
    provenance = facts.provenance
    properties = {
        "constellation": "sentinel-2",
        "instruments": ["msi"],
        "processing:software": {"s2cube": __version__},
        SCENES: list(facts.scenes),
        OFFSETS: dict(provenance.offset_dn),
        "s2cube:offset_doubts": list(found.doubted),
        DROPPED: [asdict(each) for each in provenance.dropped],
        SETTINGS: dict(provenance.settings),
        RECIPE: provenance.recipe,
        DATA_VERSION: provenance.data_version,
        GROUND: provenance.ground,
        "s2cube:clear_percent": found.clear_percent,
        "s2cube:geometry_tolerance_m": found.tolerance_m,
    }
    return properties | ({SEARCH: dict(provenance.search)} if provenance.search else {})


def _derived_properties(facts: SliceFacts, found: _Found) -> dict[str, Any]:
    """Return the properties of an image that was computed from a cube. Properties that are not known are left out."""
    properties, own = _properties(facts, found), {RECIPE, "s2cube:offset_doubts"}
    unknown = set() if facts.provenance.settings else {SETTINGS, DATA_VERSION, GROUND}
    return {key: value for key, value in properties.items() if key not in own | unknown} | {NAME: facts.name}


def _outline(area: BaseGeometry, cell_m: float) -> tuple[BaseGeometry, float]:
    """Simplify an outline by at most a tenth of a cell, for RFC 7946; return it and the tolerance (m)."""
    outline, tolerance_m = compact(unwrap(area), cell_m / 10)
    return shapely.orient_polygons(split(outline)), tolerance_m


def _cell_m(image: xr.DataArray) -> float | None:
    """Return the size of a cell, metres. None if the grid is in degrees, because it then depends on the place."""
    geobox = image.odc.geobox
    return None if geobox.crs.geographic else geobox.resolution.x


def _raster(image: xr.DataArray, statistics: Sequence[BandStatistics]) -> Raster:
    geobox, packing = image.odc.geobox, packing_of(image)
    names = [str(name) for name in image.band.values]
    return Raster(
        names, image.dtype.name, packing.scale, nodata_of(image), packing.unit, f"EPSG:{geobox.crs.epsg}",
        tuple(geobox.shape), list(geobox.affine)[:6], _cell_m(image), statistics,
    )  # fmt: skip


def _masks_cloud(settings: Mapping[str, Any]) -> bool:
    layers = settings.get("mask", ())
    by_class = "scl" in layers and set(CLOUD_CLASSES) <= set(settings["mask_classes"])
    return by_class or bool({"cloud", "qa60"} & set(layers))
