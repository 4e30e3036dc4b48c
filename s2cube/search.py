"""An area of interest and a question become STAC items."""

import heapq
import json
import logging
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import pystac
from pystac.utils import is_absolute_href, make_absolute_href

from s2cube.config import SearchSection, SearchSettings
from s2cube.errors import OutputError, SearchError
from s2cube.model import AOI
from s2cube.provider import acquired
from s2cube.stac_io import patient_io

if TYPE_CHECKING:
    from pystac_client import Client
    from pystac_client.stac_api_io import StacApiIO

log = logging.getLogger(__name__)

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
    collection, datetime, max_cloud, max_items
        See `SearchSection`. A scene that does not say its cloud cover is left out when `max_cloud` is below 100.

    Returns
    -------
    list of pystac.Item
        Oldest first, then by id, with absolute asset hrefs; `max_items` keeps the newest.

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


def save_items(items: Iterable[pystac.Item], path: Path) -> None:
    """Write scenes as an ItemCollection (``.json``, ``.geojson``) or as stac-geoparquet (``.parquet``).

    Raises
    ------
    OutputError
        If the name ends otherwise or the file cannot be written.
    SearchError
        If the package that writes stac-geoparquet is not installed.
    """
    if not _is_parquet(path.name) and path.suffix not in (".json", ".geojson"):
        raise OutputError(str(path), "is no format for scenes", "End the name in .geojson or .parquet")
    collection = pystac.ItemCollection(items)
    arrow = _geoparquet(str(path)) if _is_parquet(path.name) else None
    try:
        if arrow:
            arrow.to_parquet(arrow.parse_stac_items_to_arrow([item.to_dict() for item in collection]), path)
        else:
            path.write_text(json.dumps(collection.to_dict(), ensure_ascii=False), encoding="utf-8")
    except OSError as error:
        raise OutputError(
            str(path), f"cannot be written ({error.strerror or error})", "Choose another --save"
        ) from None


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
        if cloud_percent is None or cloud_percent > config.max_cloud_percent:
            return False
    footprint = shapely.make_valid(shapely.geometry.shape(item.geometry))
    area = aoi.geometry_lonlat.geom
    return bool(footprint.intersects(area) and not footprint.touches(area))


def _candidates(aoi: AOI, config: SearchSection) -> Iterator[pystac.Item]:
    if _is_parquet(config.stac):
        return _from_geoparquet(config.stac)
    io = patient_io()
    root = _read_root(io, config.stac)
    match root.get("type"):
        case "FeatureCollection":
            return _in_collection(_from_features(root["features"], config.stac), config)
        case "Feature":
            return _in_collection(_from_features([root], config.stac), config)
        case "Catalog" if "conformsTo" in root or any(link.get("rel") == "search" for link in root["links"]):
            return _from_api(io, aoi, config)
        case "Catalog" | "Collection":
            return _in_collection(_from_static(root, io, config.stac), config)
    raise SearchError(config.stac, "is no STAC catalogue, API or ItemCollection", "Check --stac")


def _read_root(io: "StacApiIO", stac: str) -> dict[str, Any]:
    from pystac_client.exceptions import APIError

    try:
        root = io.read_json(stac)
    except APIError as error:
        # pystac-client sets a status only where there was an answer.
        status = getattr(error, "status_code", None)
        cause = getattr(error.__context__, "args", ()) or (error,)
        problem = f"answers {status}" if status else f"does not answer ({getattr(cause[0], 'reason', cause[0])})"
        raise SearchError(stac, problem, "Check --stac and the network") from None
    except OSError as error:
        raise SearchError(stac, f"cannot be read ({error.strerror})", "Check --stac") from None
    except ValueError:
        raise SearchError(stac, "answers something that is not JSON", "Check --stac: it must be a STAC") from None
    if not isinstance(root, dict):
        raise SearchError(stac, "is JSON but no STAC", "Check --stac")
    return root


def _from_api(io: "StacApiIO", aoi: AOI, config: SearchSection) -> Iterator[pystac.Item]:
    from pystac_client import Client, ConformanceClasses
    from pystac_client.exceptions import APIError

    try:
        client = Client.open(config.stac, stac_io=io)
        _check_collection(client, config)
        for wanted in (ConformanceClasses.SORT, ConformanceClasses.QUERY):
            # pystac-client knows these only as of version 1.0; servers announce 1.1.
            if any(uri.endswith(wanted.value) for uri in client.get_conforms_to()):
                client.add_conforms_to(wanted.name)
        sorts = client.conforms_to(ConformanceClasses.SORT)
        question: dict[str, Any] = {"sortby": "-properties.datetime"} if sorts else {}
        if config.max_cloud_percent < 100 and client.conforms_to(ConformanceClasses.QUERY):
            question["query"] = {"eo:cloud_cover": {"lte": config.max_cloud_percent}}
        pages = client.search(
            collections=[config.collection],
            intersects=aoi.geometry_lonlat.json,
            datetime=None if config.datetime is None else str(config.datetime),
            limit=_PAGE_SIZE,
            **question,
        ).pages_as_dicts()
        found = (item for page in pages for item in _from_features(page["features"], config.stac))
        yield from _newest(found, aoi, config) if sorts and config.max_items else found
    except APIError as error:
        raise SearchError(config.stac, f"failed in mid-search ({error})", "Try again later") from error


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


def _from_features(features: list[dict[str, Any]], base: str) -> Iterator[pystac.Item]:
    for feature in features:
        try:
            item = pystac.Item.from_dict(feature, migrate=False)
        except (KeyError, ValueError, TypeError, pystac.STACTypeError) as error:
            raise SearchError(base, f"holds a feature that is no STAC Item ({error})", "Check --stac") from None
        yield _detached(item, base)


def _from_static(root: dict[str, Any], io: "StacApiIO", base: str) -> Iterator[pystac.Item]:
    from pystac.stac_io import DefaultStacIO
    from pystac_client.exceptions import APIError

    class StaticIO(DefaultStacIO):
        """Read as patiently as an API, but make plain pystac of it."""

        def read_text(self, source: Any, *_: Any, **__: Any) -> str:
            return io.read_text(source)

    kind = pystac.Collection if root["type"] == "Collection" else pystac.Catalog
    catalog = kind.from_dict(root, href=make_absolute_href(base))
    catalog._stac_io = StaticIO()
    try:
        for item in catalog.get_items(recursive=True):
            yield _detached(item, base)
    except (APIError, OSError, pystac.STACError) as error:
        raise SearchError(base, f"has a broken link ({error})", "Check the catalogue") from error


def _from_geoparquet(path: str) -> Iterator[pystac.Item]:
    arrow = _geoparquet(path)
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
        yield from _from_features(list(arrow.stac_table_to_items(table)), path)
    except (OSError, pyarrow.ArrowException) as error:
        raise SearchError(path, f"cannot be read as stac-geoparquet ({error})", "Check --stac") from None


def _detached(item: pystac.Item, base: str) -> pystac.Item:
    """Give an item that stands for itself: absolute hrefs, and no link but its own to the catalogue it came from."""
    own = item.get_self_href()
    start = own if own and is_absolute_href(own) else make_absolute_href(base)
    for asset in item.assets.values():
        # A path from the root is this machine's where the catalogue is, wherever the item says that it lived.
        if not (Path(asset.href).is_absolute() and "://" not in base):
            asset.href = make_absolute_href(asset.href, start)
    alone = pystac.Item.from_dict(item.to_dict(include_self_link=False, transform_hrefs=False), migrate=False)
    alone.clear_links()
    if own:
        alone.add_link(pystac.Link(pystac.RelType.SELF, own, pystac.MediaType.GEOJSON))
    return alone


def _is_parquet(name: str) -> bool:
    return name.endswith((".parquet", ".geoparquet"))


def _geoparquet(path: str) -> Any:
    try:
        import stac_geoparquet.arrow
    except ImportError:
        raise SearchError(
            path, "wants the package stac-geoparquet", "Install it: pip install 's2cube[geoparquet]'"
        ) from None
    return stac_geoparquet.arrow
