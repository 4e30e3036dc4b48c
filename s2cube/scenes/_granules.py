"""Group the items of a search by granule, and choose the newest processing of each granule."""

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
    """All items of one granule.

    Parameters
    ----------
    scene
        Item of the newest processing.
    older
        Items of the other processings, newest first; and other items of the newest processing.
    """

    scene: pystac.Item
    older: tuple[pystac.Item, ...]

    @property
    def dropped(self) -> tuple[Dropped, ...]:
        """The scenes that are not used, with the reason, ordered by id."""
        found = [
            Dropped(other.id, self.scene.id, "listed twice")
            if _sort_key(other) == _sort_key(self.scene)
            else Dropped(other.id, self.scene.id, "older processing of the same granule")
            for other in self.older
        ]
        return tuple(sorted(found, key=lambda each: each.scene))


def find_granules(items: Iterable[pystac.Item]) -> list[Granule]:
    """Group items by granule. The choice of the newest processing does not depend on the order of the items.

    Items without the properties of a granule belong to one granule only if they have the same id, time and footprint,
    because two different scenes may have the same id.
    """
    of_granule: dict[object, list[pystac.Item]] = {}
    for item in items:
        of_granule.setdefault(_identity(item), []).append(item)
    found = []
    for processings in of_granule.values():
        # The text is the last sort key, so that the choice is always the same.
        newest, *older = sorted(processings, key=lambda item: (_sort_key(item), item.id, _as_json(item)), reverse=True)
        found.append(Granule(newest, tuple(older)))
    return found


def log_dropped(granules: Iterable[Granule]) -> None:
    """Log the scenes that are not used."""
    for each in sorted((each for one in granules for each in one.dropped), key=lambda each: (each.kept, each.scene)):
        log.info("%s: not used; %s is used instead (%s)", each.scene, each.kept, each.reason)


def _identity(item: pystac.Item) -> object:
    try:
        return granule(item) or (item.id, acquired(item), json.dumps(item.geometry, sort_keys=True, default=repr))
    except SliceError:
        # The scene cannot be used. Its slice fails if the catalogue has no valid item of the same scene.
        return item.id, _as_json(item)


def _sort_key(item: pystac.Item) -> tuple[tuple[int, int], str]:
    try:
        return processed(item)
    except SliceError:
        return (0, 0), ""


def _as_json(item: pystac.Item) -> str:
    return json.dumps(item.to_dict(include_self_link=False, transform_hrefs=False), sort_keys=True, default=str)
