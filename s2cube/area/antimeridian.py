"""Join and cut shapes that cross the antimeridian, in every notation that people and catalogues use."""

import math
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

_Shape = TypeVar("_Shape", bound="BaseGeometry")

# The tests compare with the library `antimeridian`. It cannot replace this module. It only cuts, but a grid needs one
# piece. Its version 0.4.9 fails on many holes, takes a shape with a corner at 180 for the rest of the globe, and gives
# three parts a box that lacks one of them.


def unwrap(geometry: "BaseGeometry") -> "BaseGeometry":
    """Continue longitudes beyond 180 degrees, so that a shape that crosses the antimeridian is one piece.

    An edge takes the shorter way: an edge of more than 180 degrees crosses the antimeridian. All parts get longitudes
    of the same turn round the globe. A ring round a pole is closed over the pole.

    Parameters
    ----------
    geometry
        Longitude first, degrees; split at 180, jumping from 179 to -179, or with longitudes beyond 180.

    Returns
    -------
    shapely.geometry.base.BaseGeometry
        Its west edge is in [-180, 180). A shape that does not cross the antimeridian is returned unchanged.
    """
    import shapely

    west, _, east, _ = geometry.bounds
    if geometry.is_empty or (west >= -180 and east <= 180 and east - west <= 180):
        return geometry
    parts = [_unwrapped(part) for part in shapely.get_parts(geometry)]
    parts = [_shifted(part, _turns_between(part, parts[0])) for part in parts]
    kind: Any = type(geometry)
    whole = kind(parts) if len(parts) > 1 else parts[0]
    if shapely.is_valid(parts).all():
        joined = shapely.union_all(parts)
        # Parts that meet at the antimeridian become one. Parts that overlap stay, so that a later check finds them.
        whole = joined if math.isclose(joined.area, whole.area) else whole
    return _shifted(whole, -math.floor((whole.bounds[0] + 180) / 360))


def split(geometry: "BaseGeometry") -> "BaseGeometry":
    """Cut at the antimeridian, as RFC 7946 requires: longitudes in [-180, 180].

    Parameters
    ----------
    geometry
        From `unwrap`.
    """
    import shapely

    if geometry.is_empty or geometry.bounds[2] <= 180:
        return geometry
    world = shapely.box(-180, -90, 180, 90)
    halves = [shapely.get_parts(world & each) for each in (geometry, _shifted(geometry, -1))]
    dimension = shapely.get_dimensions(geometry)
    # A part that only touches the antimeridian leaves a line or a point on its other side.
    return shapely.union_all([part for half in halves for part in half if shapely.get_dimensions(part) == dimension])


def bounds_lonlat(geometry: "BaseGeometry") -> tuple[float, float, float, float]:
    """Give (west, south, east, north) in degrees; west is greater than east if the shape crosses the antimeridian."""
    west, south, east, north = unwrap(geometry).bounds
    if east - west >= 360:
        return -180, south, 180, north
    return west, south, east if east <= 180 else east - 360, north


def _unwrapped(part: "BaseGeometry") -> "BaseGeometry":
    import shapely

    if not isinstance(part, shapely.Polygon):
        return part
    shell = shapely.LinearRing(_continued(part.exterior.coords))
    holes = [shapely.LinearRing(_continued(hole.coords)) for hole in part.interiors]
    return shapely.Polygon(shell, [_shifted(hole, _turns_between(hole, shell)) for hole in holes])


def _continued(ring: object) -> "NDArray[np.float64]":
    import numpy as np

    points = np.array(ring)[:, :2]
    turns = np.round(np.diff(points[:, 0]) / 360).cumsum()
    run = points.copy()
    run[1:, 0] -= 360 * turns
    if np.ptp(run[:, 0]) == 0:
        # A ring from -180 to 180 and back is the whole globe, not a line.
        return points
    if turns[-1]:
        pole = np.copysign(90, points[:, 1].mean())
        run = np.vstack([run, [[run[-1, 0], pole], [run[0, 0], pole]], run[:1]])
    return run


def _turns_between(geometry: "BaseGeometry", other: "BaseGeometry") -> int:
    """Count the full turns by which a shape must be shifted to be closest to another one."""
    (west, _, east, _), (other_west, _, other_east, _) = geometry.bounds, other.bounds
    return round((other_west + other_east - west - east) / 720)


def _shifted(geometry: "_Shape", turns: int) -> "_Shape":
    from shapely import affinity

    return affinity.translate(geometry, 360 * turns) if turns else geometry
