"""Gather areas of interest that are near each other, so that a catalogue is searched once for all of them."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from s2cube.area.antimeridian import split
from s2cube.area.aoi import AOI
from s2cube.area.outline import enclosing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from odc.geo.geom import Geometry

_MOST_M = 150_000
"""Maximum side of the box of a gathering, metres. All areas in one granule (110 km) are one gathering."""

_SAME_PLACE_M = 1
"""Areas whose centres are nearer than this are not separated, metres: large areas over each other."""

_DEGREE_M = 111_700
"""Length of a degree of latitude at the poles, metres (WGS 84)."""

_DECIMALS = 6
"""Number of decimals of degrees in a search: 0.1 m. With more, addresses of searches would be too long."""

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
    groups = sorted(tuple(group.tolist()) for group in _groups(boxes))
    return [Gathering(group, _search_area([aois[each] for each in group], boxes[[*group]])) for group in groups]


def _groups(boxes: "NDArray[np.float64]") -> "Iterator[NDArray[np.intp]]":
    """Yield the positions of the boxes of each gathering."""
    import numpy as np

    remaining = [np.arange(len(boxes))] if len(boxes) else []
    while remaining:
        group = remaining.pop()
        of_group = boxes[group]
        degree_m = np.array([_degree_of_longitude_m(of_group), _DEGREE_M])
        sides_m = (of_group[:, 2:].max(axis=0) - of_group[:, :2].min(axis=0)) * degree_m
        centres = (of_group[:, :2] + of_group[:, 2:]) / 2
        spans_m = np.ptp(centres, axis=0) * degree_m
        if max(sides_m) <= _MOST_M or max(spans_m) <= _SAME_PLACE_M:
            yield group
            continue
        along = centres[:, np.argmax(spans_m)]
        is_low = along <= (along.min() + along.max()) / 2
        remaining += [group[~is_low], group[is_low]]


def _degree_of_longitude_m(boxes: "NDArray[np.float64]") -> float:
    """Return the length of a degree of longitude at the latitude of boxes that is nearest to the equator, metres."""
    south, north = boxes[:, 1].min(), boxes[:, 3].max()
    lat = max(south, -north, 0)
    return _DEGREE_M * math.cos(math.radians(min(lat, _LAST_LAT)))


def _search_area(aois: Sequence[AOI], boxes: "NDArray[np.float64]") -> "Geometry":
    import numpy as np
    import shapely
    from odc.geo.geom import Geometry

    if len(aois) == 1:
        return aois[0].search_area
    # The float that is nearest to a rounded decimal may be inside the box.
    low = np.minimum(boxes[:, :2], np.floor(boxes[:, :2] * 10**_DECIMALS) / 10**_DECIMALS)
    high = np.maximum(boxes[:, 2:], np.ceil(boxes[:, 2:] * 10**_DECIMALS) / 10**_DECIMALS)
    around = split(enclosing(shapely.union_all(shapely.box(*low.T, *high.T))))
    return Geometry(shapely.orient_polygons(around), "EPSG:4326")
