"""Images become STAC Items, Items become collections and a catalogue."""

import json
import logging
from collections.abc import Container, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC
from itertools import groupby
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pystac
import rioxarray  # noqa: F401  registers .rio
import shapely
import xarray as xr
from pystac.extensions.eo import Band, EOExtension
from pystac.extensions.projection import ProjectionExtension
from pystac.extensions.raster import DataType, NoDataStrings, RasterBand, RasterExtension

from s2cube.antimeridian import bounds_lonlat
from s2cube.errors import OutputError
from s2cube.output import CATALOG, DATA, RECIPE, Output, name
from s2cube.provider import COMMON_NAMES, canonical_bands
from s2cube.qa import CLOUD_CLASSES, QA, QA_CLASSES, clear_percent, cloud_percent

log = logging.getLogger(__name__)

_READERS = 16
"""Threads that read Items: in a bucket each takes an answer's time."""

_PICTURE = "thumbnail"
_QA = "qa"
_CLASSIFICATION = "https://stac-extensions.github.io/classification/v2.0.0/schema.json"


def slice_item(image: xr.DataArray, qa: xr.DataArray, doubted: tuple[str, ...]) -> pystac.Item:
    """Describe an image.

    Parameters
    ----------
    image
        Computed, dims (band, y, x), as `image.open_cube` makes them.
    qa
        Of `mask.final_qa`.
    doubted
        Ids of scenes whose pixels disagree with what their items say of the offset.

    Returns
    -------
    pystac.Item
        Its assets `data` (the COG, with projection, raster and eo extensions), `qa` (with the classification extension)
        and `thumbnail` (the picture) and its links are relative. `s2cube:clear_percent` is the share of the AOI's
        pixels that are valid in all bands, `eo:cloud_cover` that of cloud in what was seen of the AOI. `s2cube:scenes`,
        `offset_dn`, `dropped`, `offset_doubts` and `settings` say what it was made of, and how; `derived_from` links to
        every source item that has an address.

    Raises
    ------
    OutputError
        If the image holds values outside its area of interest.
    """
    aoi_id, slice_id = image.attrs["aoi"], str(image["slice"].item())
    provenance = json.loads(str(image.provenance.item()))
    outline = shapely.from_wkt(image.attrs["aoi_wkt_lonlat"])
    item = pystac.Item(
        slice_id,
        shapely.geometry.mapping(outline),
        list(bounds_lonlat(outline)),
        image.time.values.astype("datetime64[us]").item().replace(tzinfo=UTC),
        {
            "constellation": "sentinel-2",
            "instruments": ["msi"],
            "s2cube:scenes": str(image.scenes.item()).splitlines(),
            "s2cube:offset_dn": provenance["offset_dn"],
            "s2cube:offset_doubts": list(doubted),
            "s2cube:dropped": provenance["dropped"],
            "s2cube:settings": provenance["settings"],
            RECIPE: provenance["recipe"],
            "s2cube:clear_percent": clear_percent(qa.values),
        },
        collection=aoi_id,
    )
    _check_outside(image, qa)
    item.stac_extensions.append(_CLASSIFICATION)
    EOExtension.ext(item, add_if_missing=True).cloud_cover = (
        cloud_percent(qa.values) if _looked_for_cloud(provenance["settings"]) else None
    )
    item.add_asset(
        DATA, pystac.Asset(f"./{slice_id}.tif", "Reflectance", None, pystac.MediaType.COG, ["data", "reflectance"])
    )
    item.add_asset(_QA, _qa_asset(f"./{slice_id}_qa.tif"))
    item.add_asset(_PICTURE, pystac.Asset(f"./{slice_id}.png", "Picture", None, pystac.MediaType.PNG, ["thumbnail"]))
    _describe(item, image)
    item.add_link(pystac.Link("root", "../../catalog.json", pystac.MediaType.JSON))
    item.add_link(pystac.Link("parent", "../collection.json", pystac.MediaType.JSON))
    item.add_link(pystac.Link("collection", "../collection.json", pystac.MediaType.JSON))
    for href in provenance["derived_from"]:
        item.add_link(pystac.Link(pystac.RelType.DERIVED_FROM, href, pystac.MediaType.GEOJSON))
    return item


def item_json(item: pystac.Item) -> bytes:
    """Write an Item down."""
    return _json(item.to_dict(include_self_link=False, transform_hrefs=False))


def write_catalog(output: Output, changed: Container[str] | None) -> None:
    """Write the collection of every AOI in an output and the catalogue over them, where they are not yet so.

    Parameters
    ----------
    changed
        AOIs that slices may have been made of since their collection was written, None for all; of others only the
        names of slices are looked at.

    Raises
    ------
    BusyError
        If another run writes there now.
    WriteError
        If they cannot be written.
    """
    output.check_run()
    aois = []
    for aoi_id, found in groupby(output.items(), key=lambda each: each[0]):
        slice_ids = [slice_id for _, slice_id in found]
        collection = f"{aoi_id}/collection.json"
        old = output.place.read(collection)
        if changed is None or aoi_id in changed or _linked(old) != slice_ids:
            items = _own_items(output, aoi_id, slice_ids)
            if not items:
                continue
            _write(output, collection, old, _collection(aoi_id, items, _extent(items)))
        aois.append(aoi_id)
    if aois:
        _write(output, CATALOG, output.place.read(CATALOG), _catalog(aois))


def _linked(collection: bytes | None) -> list[str]:
    """Name the slices that a collection holds."""
    try:
        links = json.loads(collection or b"")["links"]
        return [PurePosixPath(link["href"]).stem for link in links if link["rel"] == "item"]
    except (ValueError, KeyError, TypeError):
        return []


def _own_items(output: Output, aoi_id: str, slice_ids: list[str]) -> list[pystac.Item]:
    with ThreadPoolExecutor(_READERS) as threads:
        read = threads.map(lambda slice_id: _own_item(output, aoi_id, slice_id), slice_ids)
        return [item for item in read if item]


def _extent(items: list[pystac.Item]) -> pystac.Extent:
    # pystac's own would span the globe where a box crosses the antimeridian.
    outlines = shapely.get_parts([shapely.geometry.shape(item.geometry) for item in items if item.geometry])
    bounds = bounds_lonlat(shapely.MultiPolygon(list(outlines)))
    return pystac.Extent(pystac.SpatialExtent([list(bounds)]), pystac.Extent.from_items(items).temporal)


def _own_item(output: Output, aoi_id: str, slice_id: str) -> pystac.Item | None:
    """Read an Item that s2cube wrote; None for what else lies about in the folder."""
    try:
        content = json.loads(output.place.read(name(aoi_id, slice_id)) or b"")
        own = content["collection"] == aoi_id and RECIPE in content["properties"]
        return pystac.Item.from_dict(content) if own else None
    except (ValueError, KeyError, TypeError):
        path = output.path(aoi_id, slice_id, ".json")
        log.warning("%s is no Item of s2cube's: it is left out of the catalogue", path)
        return None


def _describe(item: pystac.Item, image: xr.DataArray) -> None:
    names = [str(name) for name in image.band.values]
    floating = image.dtype.kind == "f"
    projection = ProjectionExtension.ext(item, add_if_missing=True)
    geobox = image.odc.geobox
    projection.apply(code=f"EPSG:{geobox.crs.epsg}", shape=list(geobox.shape), transform=list(geobox.affine)[:6])
    data = item.assets[DATA]
    band = RasterBand.create(
        nodata=NoDataStrings.NAN if floating else int(image.rio.nodata),
        data_type=DataType(image.dtype.name),
        spatial_resolution=geobox.resolution.x,
        scale=float(image.attrs.get("scale_factor", 1)),
        offset=0,
        unit="1",
    )
    RasterExtension.ext(data, add_if_missing=True).apply([band] * len(names))
    EOExtension.ext(data, add_if_missing=True).apply(
        [
            Band.create(name, common_name=COMMON_NAMES[band])
            for name, band in zip(names, canonical_bands(tuple(names)), strict=True)
        ]
    )


def _looked_for_cloud(settings: Mapping[str, Any]) -> bool:
    by_class = "scl" in settings["mask"] and set(CLOUD_CLASSES) <= set(settings["mask_classes"])
    return by_class or bool({"cloud", "qa60"} & set(settings["mask"]))


def _qa_asset(href: str) -> pystac.Asset:
    asset = pystac.Asset(href, "Why each pixel is, or is not, there", None, pystac.MediaType.COG, ["data-mask"])
    asset.extra_fields["classification:classes"] = [
        {
            "value": int(value),
            "name": each.name,
            "description": each.description,
            "color_hint": "{:02X}{:02X}{:02X}".format(*each.colour),
            "nodata": value == QA.OUTSIDE,
        }
        for value, each in QA_CLASSES.items()
    ]
    asset.extra_fields["raster:bands"] = [{"data_type": "uint8", "nodata": int(QA.OUTSIDE)}]
    return asset


def _check_outside(image: xr.DataArray, qa: xr.DataArray) -> None:
    values = image.values
    hole = np.isnan(values) if values.dtype.kind == "f" else values == image.rio.nodata
    if (~hole & (qa.values == QA.OUTSIDE)).any():
        raise OutputError(
            f"the cube of {image.attrs['aoi']}",
            "holds values outside its area of interest, so it is not what open_cube made",
            "Write a cube of open_cube, or use its .rio.to_raster",
        )


def _collection(aoi_id: str, items: list[pystac.Item], extent: pystac.Extent) -> dict[str, Any]:
    collection = pystac.Collection(
        aoi_id,
        f"Sentinel-2 surface reflectance over {aoi_id}, one image a time slice, made by s2cube.",
        extent,
        license="other",
        keywords=["Sentinel-2", "surface reflectance"],
        providers=[pystac.Provider("ESA", roles=[pystac.ProviderRole.PRODUCER], url="https://sentinels.copernicus.eu")],
    )
    collection.add_link(pystac.Link("root", "../catalog.json", pystac.MediaType.JSON))
    collection.add_link(pystac.Link("parent", "../catalog.json", pystac.MediaType.JSON))
    for item in items:
        collection.add_link(pystac.Link("item", f"./{item.id}/{item.id}.json", pystac.MediaType.GEOJSON))
    return collection.to_dict(include_self_link=False, transform_hrefs=False)


def _catalog(aoi_ids: list[str]) -> dict[str, Any]:
    catalog = pystac.Catalog("s2cube", "Sentinel-2 images made by s2cube, one collection an area of interest.")
    for aoi_id in aoi_ids:
        catalog.add_link(pystac.Link("child", f"./{aoi_id}/collection.json", pystac.MediaType.JSON))
    return catalog.to_dict(include_self_link=False, transform_hrefs=False)


def _write(output: Output, name_: str, old: bytes | None, content: Mapping[str, Any]) -> None:
    new = _json(content)
    if new != old:
        output.place.put(name_, new)


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False).encode()
