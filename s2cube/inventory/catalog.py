"""Write the collections, the timelines and the catalogue of the Items in an output."""

import logging
from collections.abc import Collection, Container, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import groupby
from pathlib import PurePosixPath
from typing import Any, Literal

import pystac
import shapely
from pydantic import BaseModel, ConfigDict, ValidationError

from s2cube.area.antimeridian import bounds_lonlat
from s2cube.errors import OutputError, S2CubeError
from s2cube.fetch.session import SMALL_FILE_THREADS
from s2cube.inventory._items_table import ItemRows
from s2cube.output.item_form import extensions, item_assets, summaries
from s2cube.storage.image_item import ImageItem
from s2cube.storage.json_text import stac_json
from s2cube.storage.layout import CATALOG, collection_file, timeline_file
from s2cube.storage.output import Output

log = logging.getLogger(__name__)

_ID = "s2cube"


def write_catalog(output: Output, changed: Container[str] | None) -> None:
    """Write the collection and the timeline of every AOI in an output, the table of all Items, and the catalogue.

    Files with unchanged content are not written.

    Parameters
    ----------
    changed
        Ids of the AOIs that may have new images; None for all. The Items of another AOI are read only if the links of
        its collection, or the rows of the table, differ from its existing slices.

    Raises
    ------
    BusyError
        If another run writes there now.
    WriteError
        If a file cannot be written.
    """
    output.fence.check()
    aois, rows = [], ItemRows(output)
    with ThreadPoolExecutor(SMALL_FILE_THREADS) as threads:
        for aoi_id, found in groupby(output.items(), key=lambda each: each[0]):
            slice_ids = [slice_id for _, slice_id in found]
            old = _old(output, collection_file(aoi_id))
            is_current = _linked(output, aoi_id, old) == slice_ids and rows.has(aoi_id, slice_ids)
            if changed is None or aoi_id in changed or not is_current:
                images = _images(output, aoi_id, slice_ids)
                if not images:
                    continue
                _write_collection(output, aoi_id, images, old, threads)
                rows.replace(aoi_id, [each.document for each in images.values()])
            aois.append(aoi_id)
    rows.write(aois)
    old = _old(output, CATALOG)
    if aois or _is_own(old):
        _write(output, CATALOG, old, _catalog(aois))


@contextmanager
def catalog_at_end(output: Output, changed: Container[str] | None) -> Iterator[None]:
    """Write the catalogue after a block, see `write_catalog`. If the block fails, its error is the one that is raised.

    Images that are complete remain after an error, so the catalogue lists them.
    """
    try:
        yield
    except BaseException as error:
        try:
            write_catalog(output, changed)
        except S2CubeError as another:
            if str(another) != str(error):
                log.warning("%s", another)
        raise
    write_catalog(output, changed)


def _old(output: Output, name_: str) -> bytes | None:
    """Read a document that will be replaced; None if it does not exist or cannot be read."""
    try:
        return output.destination.read(name_)
    except OutputError as error:
        log.warning("%s: %s: s2cube writes a new one", error.subject, error.problem)
        return None


def _linked(output: Output, aoi_id: str, collection: bytes | None) -> list[str]:
    """Return the ids of the slices that a collection links to; an empty list if it cannot be read."""
    if collection is None:
        return []
    try:
        old = _OldCollection.model_validate_json(collection)
    except ValidationError:
        path = f"{output.destination.address}/{collection_file(aoi_id)}"
        log.warning("%s cannot be read as a collection: s2cube writes a new one", path)
        return []
    return [PurePosixPath(link.href).stem for link in old.links if link.rel == "item"] if old.id == aoi_id else []


def _is_own(catalog: bytes | None) -> bool:
    """Report whether s2cube wrote a catalogue. Only such a catalogue may become empty."""
    try:
        return _OldCatalog.model_validate_json(catalog or b"").id == _ID
    except ValidationError:
        return False


def _images(output: Output, aoi_id: str, slice_ids: list[str]) -> dict[str, ImageItem]:
    """Read the Items of slices; leave out Items that cannot be read."""
    items = output.read_items((aoi_id, slice_id) for slice_id in slice_ids)
    return {slice_id: item for slice_id, item in zip(slice_ids, items, strict=True) if item}


def _extent(images: Collection[ImageItem]) -> pystac.Extent:
    # If a box crosses the antimeridian, the extent that pystac computes spans the globe.
    outlines = shapely.get_parts([shapely.geometry.shape(dict(each.geometry)) for each in images])
    bounds = bounds_lonlat(shapely.MultiPolygon(list(outlines)))
    times = [time for each in images for time in each.interval]
    return pystac.Extent(pystac.SpatialExtent([list(bounds)]), pystac.TemporalExtent([[min(times), max(times)]]))


def _write_collection(
    output: Output, aoi_id: str, images: Mapping[str, ImageItem], old: bytes | None, threads: Executor
) -> None:
    """Write the collection of an AOI and its timeline."""
    from s2cube.inventory._timeline import add_timeline, draw_timeline, listed_timeline

    name, timeline = collection_file(aoi_id), timeline_file(aoi_id)
    old_sheet = _old(output, timeline)
    # A timeline has the days. The picture of a composite is of a period.
    slices = {slice_id: image for slice_id, image in images.items() if not image.period}
    sheet = draw_timeline(output, aoi_id, slices, old_sheet, threads)
    collection = _collection(aoi_id, images)
    if sheet != old_sheet:
        if listed_timeline(old):
            # A stopped run must not leave a collection that names the size and checksum of another timeline.
            old = _write(output, name, old, _as_json(collection))
        if sheet:
            output.destination.put(timeline, sheet)
        else:
            output.destination.remove(timeline)
    if sheet:
        add_timeline(collection, sheet)
    _write(output, name, old, _as_json(collection))


def _collection(aoi_id: str, images: Mapping[str, ImageItem]) -> pystac.Collection:
    items = [each.document for each in images.values()]
    summary, assets = summaries(items), item_assets(items)
    collection = pystac.Collection(
        aoi_id,
        f"Sentinel-2 surface reflectance over {aoi_id}, {_kinds(images.values())}, made by s2cube.",
        _extent(images.values()),
        license="other",
        keywords=["Sentinel-2", "surface reflectance"],
        providers=[pystac.Provider("ESA", roles=[pystac.ProviderRole.PRODUCER], url="https://sentinels.copernicus.eu")],
        extra_fields={"item_assets": assets},
        stac_extensions=extensions(summary, assets.values()),
        summaries=pystac.Summaries(summary),
    )
    collection.add_link(pystac.Link("root", "../catalog.json", pystac.MediaType.JSON))
    collection.add_link(pystac.Link("parent", "../catalog.json", pystac.MediaType.JSON))
    for slice_id in images:
        collection.add_link(pystac.Link("item", f"./{slice_id}/{slice_id}.json", pystac.MediaType.GEOJSON))
    return collection


def _kinds(images: Collection[ImageItem]) -> str:
    kinds = {"one composite a period" if each.period else "one image a time slice" for each in images}
    return " and ".join(sorted(kinds, reverse=True))


def _catalog(aoi_ids: list[str]) -> dict[str, Any]:
    catalog = pystac.Catalog(_ID, "Sentinel-2 images made by s2cube, one collection for each area of interest.")
    for aoi_id in aoi_ids:
        catalog.add_link(pystac.Link("child", f"./{aoi_id}/collection.json", pystac.MediaType.JSON))
    return _as_json(catalog)


def _as_json(catalog: pystac.Catalog) -> dict[str, Any]:
    return catalog.to_dict(include_self_link=False, transform_hrefs=False)


def _write(output: Output, name_: str, old: bytes | None, content: Mapping[str, Any]) -> bytes:
    new = stac_json(content)
    if new != old:
        output.destination.put(name_, new)
    return new


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)


class _Link(_Part):
    rel: str
    href: str


class _Extents(_Part):
    spatial: dict[str, list[list[float]]]
    temporal: dict[str, list[list[str | None]]]


class _OldCatalog(_Part):
    id: str


class _OldCollection(_OldCatalog):
    type: Literal["Collection"]
    stac_version: str
    description: str
    license: str
    extent: _Extents
    links: list[_Link]
