"""Make outlines of areas small enough for the map of the page."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import shapely

_PER_DEGREE = 100_000
"""Positions are whole numbers, in 1e-5 degrees: some metre."""

_MOST_RINGS = 12
_SHARE_OF_EXTENT = {True: 1 / 50, False: 1 / 250}
"""Tolerance of the simplification, as share of the extent of an area, if there are many areas or few."""

_MANY = 500


def rings_of(outlines: Sequence[Mapping[str, Any] | bytes | None]) -> list[list[list[int]] | None]:
    """Return the rings of each outline: the first position, then differences; x and y in turn, 1e-5 degrees.

    An outline that is not valid is None. Outlines on both sides of the antimeridian are moved together.

    Parameters
    ----------
    outlines
        GeoJSON or WKB, longitude and latitude.
    """
    shapes = [_shape(each) for each in outlines]
    known = [each for each in shapes if each is not None]
    is_moved = _is_narrower_moved(known)
    tolerance = _SHARE_OF_EXTENT[len(known) > _MANY]
    return [None if each is None else _rings(each, tolerance, is_moved) for each in shapes]


def _shape(outline: Mapping[str, Any] | bytes | None) -> Any:
    """Return a shape with positions on the globe; None if there is none."""
    if outline is None:
        return None
    try:
        shape = shapely.from_wkb(outline) if isinstance(outline, bytes) else shapely.geometry.shape(dict(outline))
        west, south, east, north = shape.bounds
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, shapely.errors.ShapelyError):
        return None
    return shape if -360 <= west <= east <= 540 and -91 <= south <= north <= 91 else None


def _is_narrower_moved(shapes: Sequence[Any]) -> bool:
    """Return whether the map is narrower if western longitudes are counted beyond 180 degrees."""
    if not shapes:
        return False
    edges = shapely.bounds(shapely.get_parts(shapes))[:, [0, 2]]
    moved = np.where(edges[:, :1] < 0, edges + 360, edges)
    return bool(np.ptp(moved) < np.ptp(edges) / 2)


def _rings(shape: Any, tolerance: float, is_moved: bool) -> list[list[int]]:
    west, south, east, north = shape.bounds
    extent = min(max(east - west, north - south), 10)
    # Holes run the other way round, so that areas in one path may overlap.
    simple = shapely.orient_polygons(shapely.simplify(shape, extent * tolerance))
    parts = [each for each in shapely.get_parts(simple) if each.geom_type == "Polygon" and not each.is_empty]
    largest = sorted(parts, key=lambda each: -each.area)[:_MOST_RINGS]
    rings = [ring for each in largest for ring in (each.exterior, *each.interiors)][:_MOST_RINGS]
    return [_numbers(shapely.get_coordinates(each), is_moved) for each in rings]


def _numbers(positions: Any, is_moved: bool) -> list[int]:
    if is_moved and positions[:, 0].min() < 0:
        positions = positions + np.array([360, 0])
    whole = np.rint(positions[:-1] * _PER_DEGREE).astype("int64")
    found: list[int] = np.diff(whole, axis=0, prepend=0).ravel().tolist()
    return found
