"""Join and cut shapes that cross the antimeridian, in all usual notations."""

import math
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

_Shape = TypeVar("_Shape", bound="BaseGeometry")

# The tests compare this module with the library `antimeridian`, which cannot replace it: the library only cuts shapes,
# but a grid needs one piece. Its version 0.4.9 fails with many holes. It interprets a shape with a corner at 180 as the
# rest of the globe. It returns a bounding box of three parts that does not contain one of them.


def unwrap(geometry: "BaseGeometry") -> "BaseGeometry":
    """Continue longitudes beyond 180 degrees, so that a shape that crosses the antimeridian is one piece.

    An edge is the shorter connection of two vertices: if their longitudes differ by more than 180 degrees, it crosses
    the antimeridian. All parts are shifted by full turns to be near the first part. A ring around a pole is closed at
    the pole.

    Parameters
    ----------
    geometry
        Longitude first, degrees. A shape that crosses the antimeridian may be split at 180, may jump from 179 to -179,
        or may have longitudes beyond 180.

    Returns
    -------
    shapely.geometry.base.BaseGeometry
        Shape whose west edge is in [-180, 180). A shape that does not cross the antimeridian is returned unchanged.
    """
    import shapely

    west, _, east, _ = geometry.bounds
    if geometry.is_empty or (west >= -180 and east <= 180 and east - west <= 180):
        return geometry
    parts = [_unwrapped(part) for part in shapely.get_parts(geometry)]
    parts = [_shifted(part, _turns_between(part, parts[0])) for part in parts]
    geometry_type: Any = type(geometry)
    merged = geometry_type(parts) if len(parts) > 1 else parts[0]
    if shapely.is_valid(parts).all():
        joined = shapely.union_all(parts)
        # Join parts that touch at the antimeridian. Do not join parts that overlap, so that a later check finds them.
        merged = joined if math.isclose(joined.area, merged.area) else merged
    return _shifted(merged, -math.floor((merged.bounds[0] + 180) / 360))


def split(geometry: "BaseGeometry") -> "BaseGeometry":
    """Cut a shape at the antimeridian, as RFC 7946 requires: longitudes in [-180, 180].

    Parameters
    ----------
    geometry
        Result of `unwrap`.
    """
    import shapely

    if geometry.is_empty or geometry.bounds[2] <= 180:
        return geometry
    world = shapely.box(-180, -90, 180, 90)
    halves = [shapely.get_parts(world & each) for each in (geometry, _shifted(geometry, -1))]
    dimension = shapely.get_dimensions(geometry)
    # If a part only touches the antimeridian, the cut also returns a line or a point on the other side. Remove it.
    return shapely.union_all([part for half in halves for part in half if shapely.get_dimensions(part) == dimension])


def bounds_lonlat(geometry: "BaseGeometry") -> tuple[float, float, float, float]:
    """Return (west, south, east, north) in degrees. If a shape crosses the antimeridian, west is greater than east."""
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
    continued = points.copy()
    continued[1:, 0] -= 360 * turns
    if np.ptp(continued[:, 0]) == 0:
        # A ring from -180 to 180 and back covers the full globe. It is not a line.
        return points
    if turns[-1]:
        pole = np.copysign(90, points[:, 1].mean())
        continued = np.vstack([continued, [[continued[-1, 0], pole], [continued[0, 0], pole]], continued[:1]])
    return continued


def _turns_between(geometry: "BaseGeometry", other: "BaseGeometry") -> int:
    """Return the number of full turns by which a shape must be shifted to be closest to another shape."""
    (west, _, east, _), (other_west, _, other_east, _) = geometry.bounds, other.bounds
    return round((other_west + other_east - west - east) / 720)


def _shifted(geometry: "_Shape", turns: int) -> "_Shape":
    from shapely import affinity

    return affinity.translate(geometry, 360 * turns) if turns else geometry
