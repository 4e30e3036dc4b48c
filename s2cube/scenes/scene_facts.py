"""Read the facts of a scene from its item at most once, however many areas of interest the scene covers."""

import json
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

import pystac

from s2cube.errors import SliceError
from s2cube.scenes.scene import acquired, cloud_cover, footprint, granule, item_href, processed, sort_key, tile

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry


@dataclass(frozen=True, eq=False)
class SceneFacts:
    """An item with the facts that do not depend on an area or a setting. They are read when they are first needed.

    Two values are equal only if they are the same object. The item must not be changed.
    """

    item: pystac.Item

    @cached_property
    def sort_key(self) -> tuple[datetime, str]:
        """See `scene.sort_key`."""
        return sort_key(self.item)

    @cached_property
    def granule_key(self) -> object:
        """Key that is equal for all processings of a granule.

        Items without the properties of a granule have the same key only if they have the same id, time and footprint,
        because two different scenes may have the same id.
        """
        item = self.item
        try:
            return granule(item) or (item.id, acquired(item), json.dumps(item.geometry, sort_keys=True, default=repr))
        except SliceError:
            # The scene cannot be used. Its slice fails if the catalogue has no valid item of the same scene.
            return item.id, self.json

    @cached_property
    def processed(self) -> tuple[tuple[int, int], str]:
        """See `scene.processed`; the earliest if it is unknown."""
        try:
            return processed(self.item)
        except SliceError:
            return (0, 0), ""

    @cached_property
    def tile(self) -> str:
        """See `scene.tile`; also empty if it cannot be read."""
        try:
            return tile(self.item)
        except SliceError:
            return ""

    @cached_property
    def footprint(self) -> "BaseGeometry":
        """See `scene.footprint`; empty if it is unknown."""
        import shapely

        try:
            return footprint(self.item)
        except SliceError:
            return shapely.Polygon()

    @cached_property
    def cloud_percent(self) -> float | None:
        """See `scene.cloud_cover`."""
        return cloud_cover(self.item)

    @cached_property
    def json(self) -> str:
        """The item as JSON."""
        content = self.item.to_dict(include_self_link=False, transform_hrefs=False)
        return json.dumps(content, sort_keys=True, default=str)


class KnownScenes:
    """The scenes that the answers of a catalogue contained, so that areas of several searches share their values."""

    def __init__(self) -> None:
        self._of_ids: dict[str, list[SceneFacts]] = {}

    def facts(self, item: pystac.Item) -> SceneFacts:
        """Return the value of an equal item that is known, or else a new one. Two different scenes may share an id."""
        new, of_id = SceneFacts(item), self._of_ids.setdefault(item.id, [])
        known = next((each for each in of_id if _is_same(each, new)), None)
        if known is None:
            of_id.append(new)
        return known or new


def _is_same(one: SceneFacts, other: SceneFacts) -> bool:
    """Return whether two items are equal. The query of their address may contain a signature, so it is not compared."""
    return one.json == other.json and item_href(one.item) == item_href(other.item)
