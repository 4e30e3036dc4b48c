"""Gather areas of interest that are near each other, so that a catalogue is searched once for all of them."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from s2cube.area.antimeridian import split
from s2cube.area.aoi import AOI
from s2cube.area.outline import enclosing, enclosing_cells

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from odc.geo.geom import Geometry
    from shapely.geometry.base import BaseGeometry

    from s2cube.area.outline import Edges

_MOST_M = 150_000
"""Maximum side of the box of a gathering, metres. All areas in one granule (110 km) are one gathering."""

_SAME_PLACE_M = 1
"""Areas whose centres are nearer than this are not separated, metres: large areas over each other."""

_DEGREE_M = 111_700
"""Length of a degree of latitude at the poles, metres (WGS 84)."""

_DECIMALS = 6
"""Number of decimals of degrees in a search: 0.1 m. With more, addresses of searches would be too long."""

_MOST_UNITED = 1000
"""Maximum number of boxes that are united: it takes less than 0.1 s."""

_LAST_LAT = 84
"""Latitude up to which Sentinel-2 sees, degrees. Beyond it, a degree of longitude counts as there, so that no box goes
around the pole."""


@dataclass(frozen=True)
class Gathering:
    """Areas of interest that are near each other.

    Parameters
    ----------
    positions
        Positions of the areas in the list of all areas, ascending.
    search_area
        Area of at most about 100 vertices that contains them, EPSG:4326, as RFC 7946 requires.
    """

    positions: tuple[int, ...]
    search_area: "Geometry"


def gather(aois: Sequence[AOI]) -> list[Gathering]:
    """Gather areas whose common box has sides of at most 150 km. A larger area is a gathering of its own.

    The box of all areas is halved at its longer side until the parts are small enough. Each area belongs to the half
    with its centre. Areas on the two sides of the antimeridian are never gathered.

    Returns
    -------
    list of Gathering
        Each area is in one of them. They are in the order of their first areas.

    Examples
    --------
    >>> import shapely
    >>> from s2cube.area.aoi import AOI
    >>> from s2cube.area.gathering import gather
    >>> west_of = {"a": 10.0, "far": 20.0, "b": 10.5}
    >>> aois = [AOI(name, shapely.box(west, 50, west + 0.1, 50.1)) for name, west in west_of.items()]
    >>> [each.positions for each in gather(aois)]
    [(0, 2), (1,)]
    """
    import numpy as np

    boxes = np.array([aoi.whole_lonlat.geom.bounds for aoi in aois]).reshape(-1, 4)
    return [
        Gathering(tuple(group.tolist()), aois[group[0]].search_area if len(group) == 1 else area)
        for group, area in gather_boxes(boxes)
    ]


def gather_boxes(bounds_lonlat: "NDArray[np.float64]") -> "list[tuple[NDArray[np.intp], Geometry]]":
    """Gather the boxes of areas as `gather` gathers areas. Millions of boxes take seconds.

    Parameters
    ----------
    bounds_lonlat
        Dims (box, 4): west, south, east, north, degrees. Each box is in one piece: east may exceed 180.

    Returns
    -------
    list of tuple
        Positions of the boxes of each gathering, ascending, and the area that contains them: at most about 100
        vertices, EPSG:4326, as RFC 7946 requires. The gatherings are in the order of their first boxes.

    Examples
    --------
    >>> import numpy as np
    >>> from s2cube.area.gathering import gather_boxes
    >>> west = np.array([10.0, 20.0, 10.5])
    >>> boxes = np.column_stack([west, np.full(3, 50), west + 0.1, np.full(3, 50.1)])
    >>> [positions.tolist() for positions, _ in gather_boxes(boxes)]
    [[0, 2], [1]]
    """
    groups = sorted(_groups(bounds_lonlat), key=lambda group: int(group[0]))
    return [(group, _search_area(bounds_lonlat[group])) for group in groups]


def _groups(boxes: "NDArray[np.float64]") -> "Iterator[NDArray[np.intp]]":
    """Yield the positions of the boxes of each gathering."""
    import numpy as np

    # Rows of a contiguous array: numpy reduces them many times faster than columns.
    remaining = [(np.arange(len(boxes)), np.ascontiguousarray(boxes.T))] if len(boxes) else []
    while remaining:
        group, of_group = remaining.pop()
        low, high = of_group[:2].min(axis=1), of_group[2:].max(axis=1)
        degree_m = np.array([_degree_of_longitude_m(low[1], high[1]), _DEGREE_M])
        centres = (of_group[:2] + of_group[2:]) / 2
        spans_m = np.ptp(centres, axis=1) * degree_m
        if max((high - low) * degree_m) <= _MOST_M or max(spans_m) <= _SAME_PLACE_M:
            yield group
            continue
        along = centres[np.argmax(spans_m)]
        is_low = along <= (along.min() + along.max()) / 2
        remaining += [(group[half], of_group[:, half]) for half in (~is_low, is_low)]


def _degree_of_longitude_m(south: float, north: float) -> float:
    """Return the length of a degree of longitude at the latitude of boxes that is nearest to the equator, metres."""
    lat = max(south, -north, 0)
    return _DEGREE_M * math.cos(math.radians(min(lat, _LAST_LAT)))


def _search_area(boxes: "NDArray[np.float64]") -> "Geometry":
    import numpy as np
    import shapely
    from odc.geo.geom import Geometry

    # The float that is nearest to a rounded decimal may be inside the box.
    low = np.minimum(boxes[:, :2], np.floor(boxes[:, :2] * 10**_DECIMALS) / 10**_DECIMALS)
    high = np.maximum(boxes[:, 2:], np.ceil(boxes[:, 2:] * 10**_DECIMALS) / 10**_DECIMALS)
    around = split(_enclosing_boxes(np.column_stack([low, high])))
    return Geometry(shapely.orient_polygons(around), "EPSG:4326")


def _enclosing_boxes(boxes: "NDArray[np.float64]") -> "BaseGeometry":
    """Return an outline of at most 100 vertices that contains boxes.

    The outline of many boxes is the lattice of `enclosing`. Their union would take seconds.
    """
    import numpy as np
    import shapely

    if len(boxes) <= _MOST_UNITED:
        return enclosing(shapely.union_all(shapely.box(*boxes.T)))

    def meets(left: "Edges", bottom: "Edges", right: "Edges", top: "Edges") -> "NDArray[np.bool_]":
        # Count each box at the first cells that it meets, and subtract it after the last. The sums are over the cells.
        west, south, east, north = boxes.T
        columns = np.searchsorted(right, west), np.searchsorted(left, east, "right")
        rows = np.searchsorted(top, south), np.searchsorted(bottom, north, "right")
        counts = np.zeros((len(bottom) + 1, len(left) + 1), np.int64)
        for row, row_sign in zip(rows, (1, -1), strict=True):
            for column, sign in zip(columns, (1, -1), strict=True):
                counts += np.bincount(row * counts.shape[1] + column, minlength=counts.size).reshape(counts.shape) * (
                    row_sign * sign
                )
        met: NDArray[np.bool_] = counts.cumsum(axis=0).cumsum(axis=1)[:-1, :-1] > 0
        return met

    return enclosing_cells((*boxes[:, :2].min(axis=0), *boxes[:, 2:].max(axis=0)), meets)
