"""Hold all items of a catalogue that is not an API, with a spatial index for searches by many areas of interest."""

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
    """All items, in the order of the catalogue."""

    def __init__(self, items: Iterable[pystac.Item]) -> None:
        self._items = list(items)

    def __iter__(self) -> Iterator[pystac.Item]:
        return iter(self._items)

    def near(self, area: "BaseGeometry") -> Iterator[pystac.Item]:
        """Yield the items that may intersect an area, in the order of the catalogue.

        These are the items whose bounding box intersects that of the area, and items whose footprint is unknown.

        Parameters
        ----------
        area
            Area in degrees, longitude first, cut at the antimeridian.
        """
        tree, unknown = self._index
        for position in sorted({*tree.query(area).tolist(), *unknown}):
            yield self._items[position]

    @cached_property
    def _index(self) -> "tuple[shapely.STRtree, list[int]]":
        """Spatial index of the footprints by position in the list, and the positions of items of unknown footprint."""
        import shapely

        footprints: list[BaseGeometry] = []
        unknown = []
        for position, item in enumerate(self._items):
            try:
                footprints.append(footprint(item))
            except SliceError:
                # An empty point keeps the positions of the other items. A query never returns it.
                footprints.append(shapely.Point())
                unknown.append(position)
        return shapely.STRtree(footprints), unknown
