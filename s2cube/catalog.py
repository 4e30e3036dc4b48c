"""Items become collections and a catalogue."""

import json
import logging
from collections.abc import Container, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import PurePosixPath
from typing import Any

import pystac
import shapely

from s2cube.antimeridian import bounds_lonlat
from s2cube.output import CATALOG, RECIPE, Output, as_json, name

log = logging.getLogger(__name__)

_READERS = 16
"""Threads that read Items: in a bucket each takes an answer's time."""


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
    new = as_json(content)
    if new != old:
        output.place.put(name_, new)
