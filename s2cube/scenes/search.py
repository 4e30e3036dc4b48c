"""Search an open catalogue for the scenes of areas of interest."""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit

import pystac

from s2cube.area.aoi import AOI
from s2cube.area.gathering import gather
from s2cube.config.sections import SearchSection
from s2cube.config.times import TimeRange
from s2cube.errors import SearchError
from s2cube.scenes._granules import each_once, find_granules
from s2cube.scenes._join import Join, days_searched, is_clear
from s2cube.scenes._level import other_level
from s2cube.scenes.scene_facts import KnownScenes, SceneFacts
from s2cube.stac.api import Api
from s2cube.stac.api_search import search_api
from s2cube.stac.catalogue_io import TIMEOUT_S
from s2cube.stac.question import Question
from s2cube.stac.source import open_source

if TYPE_CHECKING:
    from odc.geo.geom import Geometry

log = logging.getLogger(__name__)

OneCatalogue: TypeAlias = Api | Sequence[pystac.Item]
"""An API that can be searched, or all items of any other source."""


@dataclass(eq=False)
class TwoCatalogues:
    """A catalogue, and a second one for the scenes that the first one lacks, or if the first one does not answer.

    A granule is taken from one of them: from the first one, if it has it. The second one withdraws nothing.

    Parameters
    ----------
    first, second
        None: it does not answer.
    also
        Address of the second one, and the name of its collection.
    kept
        Ids of scenes of the second one that images were made of. Their granules are not taken from the first one,
        unless it has a newer processing baseline.
    outage
        Why one of them does not answer; empty if both do.
    taken
        Ids of the scenes that searches have taken from the second one.
    """

    first: OneCatalogue | None
    second: OneCatalogue | None
    also: tuple[str, str]
    kept: frozenset[str] = frozenset()
    outage: str = ""
    taken: set[str] = field(default_factory=set)
    known: str = ""  # id of a scene that the first one has

    def go_on_without(self, errors: Sequence[SearchError]) -> None:
        """Note errors of one of the catalogues; if both have failed, raise the first error."""
        if errors and self.first is None and self.second is None:
            raise errors[0]
        for error in errors:
            self.outage = str(error)
            log.warning("%s; the other catalogue is searched", error)

    def second_search(self, config: SearchSection) -> SearchSection:
        """Return the settings of a search in the second catalogue."""
        return config.model_copy(update={"stac": self.also[0], "collection": self.also[1]})


Catalogue: TypeAlias = OneCatalogue | TwoCatalogues


def open_catalogue(config: SearchSection, timeout_s: float = TIMEOUT_S) -> OneCatalogue:
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
            return items
        collection = source.collection(config.collection)
        if collection is None:
            raise _no_collection(config, source.collection_names())
        if level := other_level(collection):
            problem = f"offers no Level-2A surface reflectance in collection '{config.collection}': it {level}"
            raise SearchError(config.stac, problem, "Choose another --collection")
        return source


def open_two_catalogues(
    config: SearchSection, also: tuple[str, str], kept: Iterable[str], timeout_s: float = TIMEOUT_S
) -> TwoCatalogues:
    """Open a catalogue and a second one. One of them may fail.

    Raises
    ------
    SearchError
        If both fail: the error of the first one.
    """
    found, errors = TwoCatalogues(None, None, also, frozenset(kept)), list[SearchError]()
    with _added_to(errors):
        found.first = open_catalogue(config, timeout_s)
    with _added_to(errors):
        found.second = open_catalogue(found.second_search(config), timeout_s)
    found.go_on_without(errors)
    return found


def find_scenes(
    aois: Sequence[AOI],
    config: SearchSection,
    catalogue: Catalogue,
    keep: Callable[[pystac.Item], pystac.Item] = lambda item: item,
) -> list[list[SceneFacts]]:
    """Find the scenes of areas of interest in an open catalogue, oldest first.

    An API is searched once for areas that are near each other (see `gather`), and each area gets the scenes that cover
    it: the same scenes as if it were searched alone. The search covers each solar day of `config.datetime` completely,
    so that every image has all its scenes. If an API returns the newest scenes first, the search stops when each area
    has `config.max_items` scenes and their earliest day is complete. So it may return more scenes.
    `config.max_cloud_percent` applies to the newest processing of each granule. The older processings are returned with
    the newest.

    Parameters
    ----------
    keep
        Function that converts each item before it is stored, for example to an item with fewer assets.

    Returns
    -------
    list of list of SceneFacts
        The scenes of each area. Areas share the values of scenes that cover several of them, also if the catalogue was
        asked for each of these areas.

    Raises
    ------
    SearchError
        If the search fails.
    """
    if isinstance(catalogue, TwoCatalogues):
        return _find_in_both(aois, config, catalogue, keep)
    found: list[list[SceneFacts]] = [[] for _ in aois]
    with _as_search_errors(config):
        if not isinstance(catalogue, Api):
            join = Join(aois, config, lambda item: SceneFacts(keep(item)))
            join.add_all(catalogue)
            found = join.scenes
        else:
            known = KnownScenes()
            for each in gather(aois):
                gathered = [aois[position] for position in each.positions]
                scenes = _ask(catalogue, gathered, each.search_area, config, lambda item: known.facts(keep(item)))
                for position, of_area in zip(each.positions, scenes, strict=True):
                    found[position] = of_area
    if config.max_cloud_percent < 100:
        found = [_clear(scenes, config) for scenes in found]
    return [sorted(scenes, key=lambda scene: scene.sort_key) for scenes in found]


def _find_in_both(
    aois: Sequence[AOI],
    config: SearchSection,
    catalogues: TwoCatalogues,
    keep: Callable[[pystac.Item], pystac.Item],
) -> list[list[SceneFacts]]:
    """Find the scenes of two catalogues: each granule once."""
    here: list[list[SceneFacts]] = [[] for _ in aois]
    first, second, there, errors = catalogues.first, catalogues.second, here, list[SearchError]()
    catalogues.first = catalogues.second = None
    with _added_to(errors):
        if first is not None:
            here = find_scenes(aois, config, first, keep)
            catalogues.known = next((scene.item.id for of_area in here for scene in of_area), catalogues.known)
            catalogues.first = first
    with _added_to(errors):
        if second is not None:
            there = find_scenes(aois, catalogues.second_search(config), second, keep)
            catalogues.second = second
    catalogues.go_on_without(errors)
    chosen = [each_once(*of_area, catalogues.kept) for of_area in zip(here, there, strict=True)]
    catalogues.taken.update(*(taken for _, taken in chosen))
    return [scenes for scenes, _ in chosen]


def _ask(
    api: Api,
    aois: Sequence[AOI],
    search_area: "Geometry",
    config: SearchSection,
    facts_of: Callable[[pystac.Item], SceneFacts],
) -> list[list[SceneFacts]]:
    """Search an API once for several areas; return the scenes of each."""
    times = TimeRange.around([days for aoi in aois if (days := days_searched(aoi, config))])
    question = Question(config.stac, config.collection, search_area, str(times) if times else None)
    items, join = search_api(api, question), Join(aois, config, facts_of)
    # The first request may tell that the API does not sort, so the property is read after it.
    if api.is_sorted and config.max_items is not None:
        join.add_newest(items)
    else:
        join.add_all(items)
    return join.scenes


def _clear(scenes: list[SceneFacts], config: SearchSection) -> list[SceneFacts]:
    """Remove the granules that have too many clouds."""
    clear = (each for each in find_granules(scenes) if is_clear(each.scene, config))
    return [scene for each in clear for scene in (each.scene, *each.older)]


def newest(scenes: Iterable[SceneFacts]) -> list[SceneFacts]:
    """Return the newest processing of each granule."""
    return [each.scene for each in find_granules(scenes)]


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
    if isinstance(catalogue, TwoCatalogues):
        if catalogue.first is None or not catalogue.known:
            return frozenset()
        of_first = {*scenes} - catalogue.kept - catalogue.taken
        return find_withdrawn(of_first, catalogue.known, config, catalogue.first)
    requested = {*scenes, known}
    try:
        with _as_search_errors(config):
            found: Iterable[pystac.Item] = (
                catalogue
                if not isinstance(catalogue, Api)
                else search_api(catalogue, Question(config.stac, config.collection, None, ids=tuple(sorted(requested))))
            )
            present = {item.id for item in found}
    except SearchError as error:
        log.warning("%s", error)
        return frozenset()
    return frozenset(requested - present) if known in present else frozenset()


@contextmanager
def _added_to(errors: list[SearchError]) -> Iterator[None]:
    """Add an error of a catalogue to a list."""
    try:
        yield
    except SearchError as error:
        errors.append(error)


@contextmanager
def _as_search_errors(config: SearchSection) -> Iterator[None]:
    """Convert exceptions of libraries, which invalid answers cause, into an error that names the catalogue."""
    try:
        yield
    except (pystac.STACError, pystac.STACTypeError, ValueError, KeyError) as error:
        problem = f"failed during the search ({error})"
        raise SearchError(config.stac, problem, "Report it to the operator of the catalogue") from error


def _check_collection(items: list[pystac.Item], config: SearchSection) -> None:
    names = {item.collection_id or config.collection for item in items}
    if names and config.collection not in names:
        raise _no_collection(config, sorted(names))


def _no_collection(config: SearchSection, known: list[str]) -> SearchError:
    return SearchError(
        config.stac, f"has no collection '{config.collection}'", f"Its collections: {', '.join(known) or 'none'}"
    )
