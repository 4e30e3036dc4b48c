"""Search an open catalogue for the scenes of an area of interest."""

import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from urllib.parse import urlsplit

import pystac

from s2cube.area.aoi import AOI
from s2cube.config.sections import SearchSection
from s2cube.config.times import TimeRange, day_begin
from s2cube.errors import SearchError, SliceError
from s2cube.scenes._granules import find_granules
from s2cube.scenes._item_list import ItemList
from s2cube.scenes._level import other_level
from s2cube.scenes.scene import acquired, cloud_cover, footprint
from s2cube.stac.api import Api
from s2cube.stac.api_search import search_api
from s2cube.stac.catalogue_io import TIMEOUT_S
from s2cube.stac.question import Question
from s2cube.stac.source import open_source

log = logging.getLogger(__name__)

Catalogue = Api | ItemList
"""An API that can be searched, or all items of any other source."""

_UNKNOWN = datetime.max.replace(tzinfo=UTC)
"""Time of a scene whose time is unknown. It is the latest, so that a limit to the newest scenes does not remove it."""
_SAME_PASS = timedelta(minutes=1)
"""Maximum time difference between two processings of one granule. Known differences are milliseconds."""


def open_catalogue(config: SearchSection, timeout_s: float = TIMEOUT_S) -> Catalogue:
    """Open the catalogue once, for searches by many areas of interest.

    Parameters
    ----------
    timeout_s
        Time limit of a complete answer of a server, seconds.

    Raises
    ------
    SearchError
        If the catalogue cannot be read or has no such collection.
    """
    log.info("searching %s", urlsplit(config.stac).hostname or config.stac)
    with _as_search_errors(config):
        source = open_source(config.stac, timeout_s)
        if isinstance(source, Iterator):
            items = list(source)
            _check_collection(items, config)
            return ItemList(items)
        collection = source.collection(config.collection)
        if collection is None:
            raise _no_collection(config, source.collection_names())
        if level := other_level(collection):
            problem = f"offers no Level-2A surface reflectance in collection '{config.collection}': it {level}"
            raise SearchError(config.stac, problem, "Choose another --collection")
        return source


def find_scenes(
    aoi: AOI,
    config: SearchSection,
    catalogue: Catalogue,
    keep: Callable[[pystac.Item], pystac.Item] = lambda item: item,
) -> list[pystac.Item]:
    """Find the scenes of an area of interest in an open catalogue, oldest first.

    The search covers each solar day of `config.datetime` completely, so that every image has all its scenes. If an API
    returns the newest scenes first, the search stops when there are `config.max_items` scenes and their earliest day
    is complete. So it may return more scenes. `config.max_cloud_percent` applies to the newest processing of each
    granule. The older processings are returned with the newest.

    Parameters
    ----------
    keep
        Function that converts each item before it is stored, for example to an item with fewer assets.

    Raises
    ------
    SearchError
        If the search fails.
    """
    days = config.datetime and config.datetime.whole_days_at(aoi.lon)
    matches = partial(_matches, aoi=aoi, config=config, days=days)
    with _as_search_errors(config):
        matching: Iterator[pystac.Item]
        if isinstance(catalogue, ItemList):
            matching = filter(matches, catalogue.near(aoi.geometry_lonlat.geom))
        else:
            question = Question(config.stac, config.collection, aoi.search_area, str(days) if days else None)
            found = search_api(catalogue, question)
            may_stop = catalogue.is_sorted and config.max_items is not None
            matching = _newest_matching(found, matches, aoi, config) if may_stop else filter(matches, found)
        scenes = [keep(item) for item in matching]
    if config.max_cloud_percent < 100:
        clear = (each for each in find_granules(scenes) if _is_clear(each.scene, config))
        scenes = [item for each in clear for item in (each.scene, *each.older)]
    return sorted(scenes, key=sort_key)


def drop_unrequested(found: list[pystac.Item], aoi: AOI, config: SearchSection) -> list[pystac.Item]:
    """Remove the scenes that `find_scenes` returns only to complete days."""
    exact = config.datetime and config.datetime.at(aoi.lon)
    within = [item for item in found if not exact or _is_within(item, exact)]
    if config.max_items is None:
        return within
    return sorted((each.scene for each in find_granules(within)), key=sort_key)[-config.max_items :]


def find_withdrawn(scenes: Collection[str], known: str, config: SearchSection, catalogue: Catalogue) -> frozenset[str]:
    """Find the scenes that a catalogue no longer has: search for their ids.

    Parameters
    ----------
    scenes
        Ids of scenes that the catalogue had before.
    known
        Id of a scene that the catalogue has now. If the answer does not contain it, the answer is not used.

    Returns
    -------
    frozenset of str
        Ids of `scenes` that the catalogue does not have; empty if the catalogue does not answer.
    """
    requested = {*scenes, known}
    try:
        with _as_search_errors(config):
            if isinstance(catalogue, ItemList):
                found = iter(catalogue)
            else:
                question = Question(config.stac, config.collection, None, ids=tuple(sorted(requested)))
                found = search_api(catalogue, question)
            present = {item.id for item in found}
    except SearchError as error:
        log.warning("%s", error)
        return frozenset()
    return frozenset(requested - present) if known in present else frozenset()


@contextmanager
def _as_search_errors(config: SearchSection) -> Iterator[None]:
    """Convert exceptions of libraries, which invalid answers cause, into an error that names the catalogue."""
    try:
        yield
    except (pystac.STACError, pystac.STACTypeError, ValueError, KeyError) as error:
        problem = f"failed during the search ({error})"
        raise SearchError(config.stac, problem, "Report it to the operator of the catalogue") from error


def sort_key(item: pystac.Item) -> tuple[datetime, str]:
    """Return time and id, the sort key of scenes; see `_UNKNOWN`."""
    try:
        return acquired(item), item.id
    except SliceError:
        return _UNKNOWN, item.id


def _is_within(item: pystac.Item, times: TimeRange) -> bool:
    try:
        return acquired(item) in times
    except SliceError:
        return True


def _is_clear(item: pystac.Item, config: SearchSection) -> bool:
    if config.max_cloud_percent == 100:
        return True
    cloud_percent = cloud_cover(item)
    return cloud_percent is not None and cloud_percent <= config.max_cloud_percent


def _matches(item: pystac.Item, aoi: AOI, config: SearchSection, days: TimeRange | None) -> bool:
    if item.collection_id not in (None, config.collection) or (days and not _is_within(item, days)):
        return False
    try:
        outline = footprint(item)
    except SliceError as error:
        # The scene may intersect the area. Include it, so that only its slice fails, and the search continues.
        log.warning("%s. s2cube assumes that it covers %s", error, aoi.id)
        return True
    area = aoi.geometry_lonlat.geom
    return bool(outline.intersects(area) and not outline.touches(area))


def _newest_matching(
    found: Iterator[pystac.Item], matches: Callable[[pystac.Item], bool], aoi: AOI, config: SearchSection
) -> Iterator[pystac.Item]:
    """Yield the items that match. If the items arrive newest first, stop when there are enough complete days."""
    matching: list[pystac.Item] = []
    earliest = complete_from = _UNKNOWN
    in_order = True
    for item in found:
        time, _ = sort_key(item)
        in_order &= time <= earliest
        if in_order and time < complete_from and _are_enough(matching, aoi, config):
            return
        if matches(item):
            matching.append(item)
            yield item
        if time < _UNKNOWN:
            earliest, complete_from = time, day_begin(time, aoi.lon) - _SAME_PASS


def _are_enough(items: list[pystac.Item], aoi: AOI, config: SearchSection) -> bool:
    """Check whether there are `max_items` granules. Do not count a day that is only partly in `config.datetime`."""
    enough = config.max_items or 0
    if len(items) < enough:
        return False
    exact = config.datetime and config.datetime.at(aoi.lon)
    counted = 0
    for each in find_granules(items):
        time, _ = sort_key(each.scene)
        full = not exact or time == _UNKNOWN or day_begin(time, aoi.lon) + timedelta(days=1) <= (exact.end or _UNKNOWN)
        counted += full and _is_clear(each.scene, config)
    return counted >= enough


def _check_collection(items: list[pystac.Item], config: SearchSection) -> None:
    names = {item.collection_id or config.collection for item in items}
    if names and config.collection not in names:
        raise _no_collection(config, sorted(names))


def _no_collection(config: SearchSection, known: list[str]) -> SearchError:
    return SearchError(
        config.stac, f"has no collection '{config.collection}'", f"Its collections: {', '.join(known) or 'none'}"
    )
