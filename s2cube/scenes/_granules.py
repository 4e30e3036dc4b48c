"""Group the items of a search by granule: the newest processing of each, and the ones that it replaces."""

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass

import pystac

from s2cube.errors import SliceError
from s2cube.scenes.scene import acquired, granule, processed
from s2cube.scenes.time_slice import Dropped

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Granule:
    """One granule.

    Parameters
    ----------
    scene
        The newest processing.
    older
        The other processings, newest first; also repeated entries.
    """

    scene: pystac.Item
    older: tuple[pystac.Item, ...]

    @property
    def dropped(self) -> tuple[Dropped, ...]:
        """Say why the other scenes are not used, ordered by id."""
        found = [
            Dropped(other.id, self.scene.id, "listed twice")
            if _order(other) == _order(self.scene)
            else Dropped(other.id, self.scene.id, "older processing of the same granule")
            for other in self.older
        ]
        return tuple(sorted(found, key=lambda each: each.scene))


def find_granules(items: Iterable[pystac.Item]) -> list[Granule]:
    """Group items by granule, whatever their order.

    Items that do not name their granule are the same only if they have the same id, time and footprint: two different
    scenes may share an id.
    """
    of_granule: dict[object, list[pystac.Item]] = {}
    for item in items:
        of_granule.setdefault(_identity(item), []).append(item)
    found = []
    for rivals in of_granule.values():
        # If items are equal in all that decides, their text decides.
        newest, *older = sorted(rivals, key=lambda item: (_order(item), item.id, _text(item)), reverse=True)
        found.append(Granule(newest, tuple(older)))
    return found


def log_dropped(granules: Iterable[Granule]) -> None:
    """Log the scenes that are not used."""
    for each in sorted((each for one in granules for each in one.dropped), key=lambda each: (each.kept, each.scene)):
        log.info("%s: left out for %s (%s)", each.scene, each.kept, each.reason)


def _identity(item: pystac.Item) -> object:
    try:
        return granule(item) or (item.id, acquired(item), json.dumps(item.geometry, sort_keys=True, default=repr))
    except SliceError:
        # Its slice fails, unless the same scene is listed once more and is valid.
        return item.id, _text(item)


def _order(item: pystac.Item) -> tuple[tuple[int, int], str]:
    try:
        return processed(item)
    except SliceError:
        return (0, 0), ""


def _text(item: pystac.Item) -> str:
    return json.dumps(item.to_dict(include_self_link=False, transform_hrefs=False), sort_keys=True, default=str)
