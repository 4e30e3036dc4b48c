"""An area of interest and a question become STAC items."""

import heapq
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Unpack

import pystac

from s2cube.antimeridian import split, unwrap
from s2cube.api import Api, Question, ask, sorts
from s2cube.config import SearchSection, SearchSettings
from s2cube.errors import SearchError
from s2cube.model import AOI
from s2cube.scene import acquired
from s2cube.source import open_source
from s2cube.stac_io import TIMEOUT_S

log = logging.getLogger(__name__)

Catalogue = Api | list[pystac.Item]
"""An API that can be asked, or all items of anything else."""


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
    return find_scenes(aoi, config, open_catalogue(config))


def open_catalogue(config: SearchSection, timeout_s: float = TIMEOUT_S) -> Catalogue:
    """Open the catalogue once, to find the scenes of many areas of interest in it.

    Parameters
    ----------
    timeout_s
        For a whole answer of a server, seconds.

    Raises
    ------
    SearchError
        If it cannot be read or has no such collection.
    """
    with _named(config):
        source = open_source(config.stac, timeout_s)
        if isinstance(source, Iterator):
            return _of_collection(list(source), config)
        if not source.has_collection(config.collection):
            raise _no_collection(config, source.collection_names())
        return source


def find_scenes(
    aoi: AOI,
    config: SearchSection,
    catalogue: Catalogue,
    keep: Callable[[pystac.Item], pystac.Item] = lambda item: item,
) -> list[pystac.Item]:
    """Do what `search_items` does, in a catalogue that is open; of each scene keep what `keep` makes of it."""
    with _named(config):
        candidates = iter(catalogue) if isinstance(catalogue, list) else _asked(catalogue, aoi, config)
        matching = (keep(item) for item in candidates if _matches(item, aoi, config))
        kept = matching if config.max_items is None else heapq.nlargest(config.max_items, matching, key=_age)
        return sorted(kept, key=_age)


@contextmanager
def _named(config: SearchSection) -> Iterator[None]:
    """Turn what libraries raise when a catalogue misbehaves into an error that names the catalogue."""
    try:
        yield
    except (pystac.STACError, pystac.STACTypeError, ValueError, KeyError) as error:
        raise SearchError(config.stac, f"failed in mid-search ({error})", "Tell whoever runs the catalogue") from error


def _age(item: pystac.Item) -> tuple[datetime, str]:
    return acquired(item), item.id


def _matches(item: pystac.Item, aoi: AOI, config: SearchSection) -> bool:
    import shapely

    if item.collection_id not in (None, config.collection):
        return False
    if config.datetime is not None and acquired(item) not in config.datetime:
        return False
    if config.max_cloud_percent < 100:
        cloud_percent = item.properties.get("eo:cloud_cover")
        if not isinstance(cloud_percent, int | float) or cloud_percent > config.max_cloud_percent:
            return False
    if item.geometry is None:
        # Nobody knows where it lies, so its slice is to fail by name: not the search, and not in silence.
        log.warning("%s has no geometry: it is taken to meet %s", item.id, aoi.id)
        return True
    footprint = split(shapely.make_valid(unwrap(shapely.geometry.shape(item.geometry))))
    area = aoi.geometry_lonlat.geom
    return bool(footprint.intersects(area) and not footprint.touches(area))


def _asked(client: Api, aoi: AOI, config: SearchSection) -> Iterator[pystac.Item]:
    when = None if config.datetime is None else str(config.datetime)
    found = ask(client, Question(config.stac, config.collection, aoi.geometry_lonlat, when))
    return _newest(found, aoi, config) if sorts(client) and config.max_items else found


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


def _of_collection(items: list[pystac.Item], config: SearchSection) -> list[pystac.Item]:
    there = {item.collection_id or config.collection for item in items}
    if there and config.collection not in there:
        raise _no_collection(config, sorted(there))
    return items


def _no_collection(config: SearchSection, known: list[str]) -> SearchError:
    return SearchError(
        config.stac, f"has no collection '{config.collection}'", f"Its collections: {', '.join(known) or 'none'}"
    )
