"""All items of a catalogue that is not an API, with an index by footprint: many areas of interest search them."""

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING

import pystac

from s2cube.errors import SliceError
from s2cube.scenes.scene import footprint

if TYPE_CHECKING:
    import shapely
    from shapely.geometry.base import BaseGeometry


class ItemList:
    """Items in the order of their catalogue."""

    def __init__(self, items: Iterable[pystac.Item]) -> None:
        self._items = list(items)

    def __iter__(self) -> Iterator[pystac.Item]:
        return iter(self._items)

    def near(self, area: "BaseGeometry") -> Iterator[pystac.Item]:
        """Yield the items that may meet an area, in their order.

        They are the items whose footprint's bounding box meets that of the area, and those of unknown footprint.

        Parameters
        ----------
        area
            Degrees, longitude first, cut at the antimeridian.
        """
        tree, unknown = self._index
        for position in sorted({*tree.query(area).tolist(), *unknown}):
            yield self._items[position]

    @cached_property
    def _index(self) -> "tuple[shapely.STRtree, list[int]]":
        """Index the footprints by position; give the positions of items whose footprint is unknown separately."""
        import shapely

        footprints: list[BaseGeometry] = []
        unknown = []
        for position, item in enumerate(self._items):
            try:
                footprints.append(footprint(item))
            except SliceError:
                # Keeps the positions of the others. A query never finds an empty geometry.
                footprints.append(shapely.Point())
                unknown.append(position)
        return shapely.STRtree(footprints), unknown
