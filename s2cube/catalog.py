"""Images become STAC Items, Items become collections and a catalogue."""

import json
import logging
from collections.abc import Mapping
from datetime import UTC
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import rioxarray  # noqa: F401  registers .rio
import shapely
import xarray as xr
from pystac.extensions.eo import Band, EOExtension
from pystac.extensions.projection import ProjectionExtension
from pystac.extensions.raster import DataType, NoDataStrings, RasterBand, RasterExtension

from s2cube.errors import OutputError
from s2cube.output import DATA, RECIPE, Output, replacing
from s2cube.provider import COMMON_NAMES, canonical_bands

log = logging.getLogger(__name__)

_PICTURE = "thumbnail"


def slice_item(image: xr.DataArray, slice_id: str) -> pystac.Item:
    """Describe an image.

    Parameters
    ----------
    image
        Computed, dims (band, y, x), as `pipeline.open_cube` makes them.

    Returns
    -------
    pystac.Item
        Its assets `data` (the COG, with projection, raster and eo extensions) and `thumbnail` (the picture) and its
        links are relative; `s2cube:clear_percent` is the share of the AOI's pixels that are valid in all bands;
        `derived_from` links to every source item that has an address.
    """
    aoi_id = image.attrs["aoi"]
    outline = shapely.from_wkt(image.attrs["aoi_wkt_lonlat"])
    item = pystac.Item(
        slice_id,
        shapely.geometry.mapping(outline),
        list(outline.bounds),
        image.time.values.astype("datetime64[us]").item().replace(tzinfo=UTC),
        {
            "constellation": "sentinel-2",
            "instruments": ["msi"],
            "s2cube:scenes": str(image.scenes.item()).splitlines(),
            RECIPE: str(image.recipe.item()),
            "s2cube:clear_percent": _clear_percent(image),
        },
        collection=aoi_id,
    )
    item.add_asset(
        DATA, pystac.Asset(f"./{slice_id}.tif", "Reflectance", None, pystac.MediaType.COG, ["data", "reflectance"])
    )
    item.add_asset(_PICTURE, pystac.Asset(f"./{slice_id}.png", "Picture", None, pystac.MediaType.PNG, ["thumbnail"]))
    _describe(item, image)
    item.add_link(pystac.Link("root", "../../catalog.json", pystac.MediaType.JSON))
    item.add_link(pystac.Link("parent", "../collection.json", pystac.MediaType.JSON))
    item.add_link(pystac.Link("collection", "../collection.json", pystac.MediaType.JSON))
    for href in str(image.derived_from.item()).splitlines():
        item.add_link(pystac.Link(pystac.RelType.DERIVED_FROM, href, pystac.MediaType.GEOJSON))
    return item


def write_item(item: pystac.Item, path: Path) -> None:
    """Write an Item, whole or not at all."""
    _write_json(item.to_dict(include_self_link=False, transform_hrefs=False), path)


def write_catalog(output: Output) -> None:
    """Write the collection of every AOI in an output folder and the catalogue over them, where they are not yet so."""
    aois: dict[str, pystac.Extent] = {}
    for collection, paths in groupby(output.slice_items(), key=lambda path: path.parent.parent):
        items = [item for path in paths if (item := _own_item(path, collection.name))]
        if not items:
            continue
        aois[collection.name] = pystac.Extent.from_items(items)
        _write_json(_collection(collection.name, items, aois[collection.name]), output.collection(collection.name))
    if aois:
        _write_json(_catalog(list(aois)), output.catalog)


def _own_item(path: Path, aoi_id: str) -> pystac.Item | None:
    """Read an Item that s2cube wrote; None for what else lies about in the folder."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        own = content["collection"] == aoi_id and RECIPE in content["properties"]
        return pystac.Item.from_dict(content) if own else None
    except (ValueError, KeyError, TypeError):
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


def _clear_percent(image: xr.DataArray) -> float:
    values = image.values
    hole = np.isnan(values) if values.dtype.kind == "f" else values == image.rio.nodata
    valid, inside = int((~hole.any(axis=0)).sum()), int(image.attrs["aoi_pixels"])
    if valid > inside:
        raise OutputError(
            f"the cube of {image.attrs['aoi']}",
            "holds values outside its area of interest, so it is not what open_cube made",
            "Write a cube of open_cube, or use its .rio.to_raster",
        )
    return round(100 * valid / inside, 2)


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


def _write_json(content: Mapping[str, Any], path: Path) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")
