"""An area of interest and a question become STAC items."""

import heapq
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, Unpack

import pystac

from s2cube.config import SearchSection, SearchSettings
from s2cube.errors import SearchError
from s2cube.model import AOI
from s2cube.provider import acquired
from s2cube.source import open_source, pages

if TYPE_CHECKING:
    from pystac_client import Client

_PAGE_SIZE = 100


def search_items(aoi: AOI, **settings: Unpack[SearchSettings]) -> list[pystac.Item]:
    """Find the scenes that meet an area of interest.

    What a server ignores of the question is filtered again here. Page and connection failures are retried with
    backoff; what still fails is an error, never a shorter list.

    Parameters
    ----------
    aoi
        Its geometry is searched, not its bounding box.
    stac
        URL of a STAC API; or URL or path of an ItemCollection, an Item or a static catalogue; or path of a
        stac-geoparquet file.
    collection
        Id of the collection.
    datetime
        ``A/B``, each a year, month, day or second in UTC, or ``..``; None for all.
    max_cloud
        Highest cloud cover of a scene, percent. Below 100, a scene that does not say its cloud cover is left out.
    max_items
        How many scenes to keep, the newest.

    Returns
    -------
    list of pystac.Item
        Oldest first, then by id, with absolute asset hrefs.

    Raises
    ------
    ConfigError
        If a setting cannot be.
    SearchError
        If the catalogue cannot be read or has no such collection.
    """
    config = SearchSection.of(settings)
    matching = (item for item in _candidates(aoi, config) if _matches(item, aoi, config))
    kept = matching if config.max_items is None else heapq.nlargest(config.max_items, matching, key=_age)
    return sorted(kept, key=_age)


def _age(item: pystac.Item) -> tuple[datetime, str]:
    return acquired(item), item.id


def _matches(item: pystac.Item, aoi: AOI, config: SearchSection) -> bool:
    import shapely

    if item.geometry is None:
        raise SearchError(item.id, "has no geometry", "Tell whoever runs the catalogue")
    if item.collection_id not in (None, config.collection):
        return False
    if config.datetime is not None and acquired(item) not in config.datetime:
        return False
    if config.max_cloud_percent < 100:
        cloud_percent = item.properties.get("eo:cloud_cover")
        if not isinstance(cloud_percent, int | float) or cloud_percent > config.max_cloud_percent:
            return False
    footprint = shapely.make_valid(shapely.geometry.shape(item.geometry))
    area = aoi.geometry_lonlat.geom
    return bool(footprint.intersects(area) and not footprint.touches(area))


def _candidates(aoi: AOI, config: SearchSection) -> Iterator[pystac.Item]:
    from pystac_client.exceptions import APIError, ParametersError
    from pystac_client.warnings import PystacClientWarning

    try:
        source = open_source(config.stac)
        yield from _in_collection(source, config) if isinstance(source, Iterator) else _ask(source, aoi, config)
    except (
        APIError,
        ParametersError,
        PystacClientWarning,
        pystac.STACError,
        pystac.STACTypeError,
        ValueError,
        KeyError,
    ) as error:
        raise SearchError(config.stac, f"failed in mid-search ({error})", "Try again later") from error


def _ask(client: "Client", aoi: AOI, config: SearchSection) -> Iterator[pystac.Item]:
    from pystac_client import ConformanceClasses

    for part in (ConformanceClasses.SORT, ConformanceClasses.QUERY):
        # pystac-client knows these only as of version 1.0; servers announce 1.1.
        if any(uri.endswith(part.value) for uri in client.get_conforms_to()):
            client.add_conforms_to(part.name)
    _check_collection(client, config)
    sorts = client.conforms_to(ConformanceClasses.SORT)
    question: dict[str, Any] = {"sortby": "-properties.datetime"} if sorts else {}
    if config.max_cloud_percent < 100 and client.conforms_to(ConformanceClasses.QUERY):
        question["query"] = {"eo:cloud_cover": {"lte": config.max_cloud_percent}}
    methods = {link.extra_fields.get("method", "GET") for link in client.get_links("search")}
    found = pages(
        client.search(
            method="POST" if "POST" in methods or not methods else "GET",
            collections=[config.collection],
            intersects=aoi.geometry_lonlat.json,
            datetime=None if config.datetime is None else str(config.datetime),
            limit=_PAGE_SIZE,
            **question,
        ),
        config.stac,
    )
    yield from _newest(found, aoi, config) if sorts and config.max_items else found


def _newest(found: Iterator[pystac.Item], aoi: AOI, config: SearchSection) -> Iterator[pystac.Item]:
    """Stop paging once enough matching scenes are there, as long as the server keeps its word on the order."""
    enough = config.max_items or 0
    matching = 0
    earliest: datetime | None = None
    in_order = True
    for item in found:
        now = acquired(item)
        if earliest is not None and now > earliest:
            in_order = False
        if in_order and matching >= enough and earliest is not None and now < earliest:
            return
        earliest = now if earliest is None else min(earliest, now)
        matching += _matches(item, aoi, config)
        yield item


def _check_collection(client: "Client", config: SearchSection) -> None:
    from pystac_client import ConformanceClasses

    if not any(client.conforms_to(part) for part in (ConformanceClasses.COLLECTIONS, ConformanceClasses.FEATURES)):
        return
    if client.get_collection(config.collection) is None:
        raise _no_collection(config, sorted(collection.id for collection in client.get_collections()))


def _in_collection(items: Iterator[pystac.Item], config: SearchSection) -> Iterator[pystac.Item]:
    there: set[str] = set()
    for item in items:
        there.add(item.collection_id or config.collection)
        yield item
    if there and config.collection not in there:
        raise _no_collection(config, sorted(there))


def _no_collection(config: SearchSection, known: list[str]) -> SearchError:
    return SearchError(
        config.stac, f"has no collection '{config.collection}'", f"Its collections: {', '.join(known) or 'none'}"
    )
