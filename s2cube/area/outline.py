"""Transform, simplify and digest outlines."""

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    import numpy as np
    from numpy.typing import NDArray
    from odc.geo.crs import CRS
    from odc.geo.geom import Geometry
    from shapely.geometry.base import BaseGeometry

    Edges: TypeAlias = NDArray[np.float64]
    Meets: TypeAlias = Callable[[Edges, Edges, Edges, Edges], NDArray[np.bool_]]

_STEP_M = 300
"""Distance between added points, metres. Up to latitude 60, an edge of this length deviates by less than 4 mm from a
straight line in another CRS: L² tan(latitude) / 8 R."""

_SHORT_DEGREE_M = 100_000
"""Length of a degree of latitude, metres, rounded down."""

_MOST_STEPS = 100_000
"""Maximum number of points that are added to an outline: a zigzag line may be longer than the equator."""

_FEW_VERTICES = 100
"""Maximum number of vertices in a search: 3 kB in JSON, 6 kB in a URL. Servers accept URLs of 8 kB."""

_MOST_CELLS = 32
"""Maximum number of cells of the lattice of `enclosing` in each direction."""

_SEARCH_DECIMALS = 6
"""Number of decimals of degrees in a search: 0.1 m."""

_FEWEST_OF_RING = 3
"""Minimum number of vertices of a ring. The repeated first vertex is not counted."""

_ITEM_DECIMALS = 7
_ITEM_DEG = 1e-7
"""Precision of the vertices of a compact outline, degrees: 1 cm. RFC 7946 recommends 1e-6."""

_LONGEST_DEGREE_M = 111_700
"""Length of a degree of latitude at the poles, metres (WGS 84)."""

_FINEST_DEG = 1e-9
"""Precision of the first rounding in `ground_digest`, degrees."""

_STRAIGHT_DEG = 1e-11
"""Maximum distance of a redundant vertex from the line between its neighbours, degrees: 1 µm. Reprojection moves a
vertex by a shorter distance."""


def in_crs(geometry: "Geometry", crs: "CRS | str", step_m: float = _STEP_M) -> "Geometry":
    """Transform an outline. Add points along its edges, because a straight line in one CRS is a curve in another CRS.

    Parameters
    ----------
    step_m
        Distance between these points, metres. In degrees, it is converted as on a meridian, approximately.
    """
    import numpy as np
    from odc.geo.geom import Geometry

    if geometry.crs is None or geometry.crs == crs:
        return geometry
    return Geometry(with_points(np.array([geometry.geom], object), geometry.crs, step_m)[0], geometry.crs).to_crs(crs)


def is_bent(shapes: "NDArray[np.object_]", crs: "CRS", step_m: float = _STEP_M) -> "NDArray[np.bool_]":
    """Return for each polygon whether `in_crs` adds points to it: whether an edge is longer than the step."""
    import numpy as np
    import shapely

    step = step_m / _SHORT_DEGREE_M if crs.geographic else step_m
    points, owners = shapely.get_coordinates(shapes, return_index=True)
    # There is no edge from one ring to the next. If one is counted there, the result is only computed more slowly.
    lengths = np.hypot(*np.diff(points, axis=0).T)
    is_long = (lengths > step) & (owners[1:] == owners[:-1])
    found = np.zeros(len(shapes), bool)
    found[owners[1:][is_long]] = True
    return found


def with_points(shapes: "NDArray[np.object_]", crs: "CRS", step_m: float = _STEP_M) -> "NDArray[np.object_]":
    """Add points to polygons, see `in_crs`. `shapely.segmentize` also repairs rings: a minute for a large zigzag."""
    import numpy as np
    import shapely

    step = step_m / _SHORT_DEGREE_M if crs.geographic else step_m
    polygons, shape = shapely.get_parts(shapes, return_index=True)
    rings, polygon = shapely.get_rings(polygons, return_index=True)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    # Use the length, not the area: the square root of the area of a narrow polygon is a step of micrometres.
    steps = np.maximum(step, shapely.length(shapes) / _MOST_STEPS)[shape[polygon[ring]]]
    edges = np.diff(points, axis=0, append=points[-1:])
    counts = np.maximum(1, np.ceil(np.hypot(*edges.T) / steps)).astype(int)
    counts[np.diff(ring, append=-1) != 0] = 1  # there is no edge from one ring to the next
    first = np.repeat(np.cumsum(counts) - counts, counts)
    shares = ((np.arange(len(first)) - first) / np.repeat(counts, counts))[:, np.newaxis]
    dense = np.repeat(points, counts, axis=0) + shares * np.repeat(edges, counts, axis=0)
    found = shapely.polygons(shapely.linearrings(dense, indices=np.repeat(ring, counts)), indices=polygon)
    parts: list[NDArray[np.object_]] = np.split(found, np.flatnonzero(np.diff(shape)) + 1)
    return np.array([each[0] if len(each) == 1 else shapely.MultiPolygon(list(each)) for each in parts], object)


def bend_deg(geometry: "Geometry") -> float:
    """Return the maximum distance of edge midpoints from straight lines in EPSG:4326, degrees."""
    import numpy as np
    import shapely
    from odc.geo.crs import CRS

    if geometry.crs is None or geometry.crs.geographic:
        return 0.0
    transform = geometry.crs.transformer_to_crs(CRS("EPSG:4326"))
    largest = 0.0
    for ring in shapely.get_rings(shapely.get_parts(geometry.geom)):
        points = shapely.get_coordinates(ring)
        lonlat = np.column_stack(transform(*points.T))
        middles = np.column_stack(transform(*((points[1:] + points[:-1]) / 2).T))
        along, half = np.diff(lonlat, axis=0), middles - lonlat[:-1]
        for step in (along, half):
            step[:, 0] -= 360 * np.round(step[:, 0] / 360)
        lengths = np.hypot(*along.T)
        beside = np.abs(along[:, 0] * half[:, 1] - along[:, 1] * half[:, 0])[lengths > 0] / lengths[lengths > 0]
        largest = max(largest, *beside)
    return largest


def simplified(outline: "BaseGeometry", tolerance: float) -> "BaseGeometry":
    """Simplify each part of an outline separately. For ten thousand parts together, this would take minutes.

    If the simplified outline is not valid, for example because parts overlap, the outline is returned unchanged.
    """
    import shapely

    parts = shapely.simplify(shapely.get_parts(outline), tolerance)
    whole: BaseGeometry = parts[0] if len(parts) == 1 else shapely.MultiPolygon(list(parts))
    return whole if whole.is_valid else outline


def enclosing(outline: "BaseGeometry") -> "BaseGeometry":
    """Return an outline of at most 100 vertices that contains an outline. An outline with few vertices is unchanged.

    Parameters
    ----------
    outline
        Longitude first, degrees, in one piece: see `antimeridian.unwrap`.

    Returns
    -------
    shapely.geometry.base.BaseGeometry
        If the outline has more vertices: the union of the lattice cells that intersect it, without holes. The lattice
        covers the outline with 32 by 32 cells, or with fewer cells if the result has more than 100 vertices.
    """
    import numpy as np
    import shapely

    if shapely.get_num_coordinates(outline) <= _FEW_VERTICES:
        return outline
    shapely.prepare(outline)

    def meets(left: "Edges", bottom: "Edges", right: "Edges", top: "Edges") -> "NDArray[np.bool_]":
        met: NDArray[np.bool_] = shapely.intersects(
            outline, shapely.box(*np.meshgrid(left, bottom), *np.meshgrid(right, top))
        )
        return met

    return enclosing_cells(outline.bounds, meets)


def enclosing_cells(bounds: tuple[float, float, float, float], meets: "Meets") -> "BaseGeometry":
    """Return the union of cells of a lattice without holes: at most 100 vertices.

    Parameters
    ----------
    bounds
        Box that the lattice covers.
    meets
        Function of the left, lower, right and upper ends of columns and rows. It returns for each cell, dims (row,
        column), whether it belongs to the union.
    """
    import numpy as np
    import shapely

    west, south, east, north = bounds
    cells = _MOST_CELLS
    while cells > 1:
        (left, right), (bottom, top) = _steps(west, east, cells), _steps(south, north, cells)
        boxes = shapely.box(*np.meshgrid(left, bottom), *np.meshgrid(right, top))
        met = shapely.coverage_union_all(boxes[meets(left, bottom, right, top)])
        filled = shapely.union_all(shapely.polygons(shapely.get_exterior_ring(shapely.get_parts(met))))
        if shapely.get_num_coordinates(filled) <= _FEW_VERTICES:
            return filled
        cells //= 2
    return shapely.box(west, south, east, north)


def _steps(first: float, last: float, count: int) -> "tuple[NDArray[np.float64], NDArray[np.float64]]":
    """Divide an interval into parts whose ends have few decimals. Return the lower and the upper ends of the parts."""
    import numpy as np

    # The float that is nearest to a rounded decimal may be inside the interval.
    low = min(first, np.floor(first * 10**_SEARCH_DECIMALS) / 10**_SEARCH_DECIMALS)
    high = max(last, np.ceil(last * 10**_SEARCH_DECIMALS) / 10**_SEARCH_DECIMALS)
    inner = np.round(np.linspace(low, high, count + 1)[1:-1], _SEARCH_DECIMALS)
    edges = np.unique([low, *inner[(low < inner) & (inner < high)], high])
    return edges[:-1], edges[1:]


def compact(outline: "BaseGeometry", tolerance_m: float) -> tuple["BaseGeometry", float]:
    """Simplify an outline and round it to 1e-7 degrees.

    Parameters
    ----------
    outline
        Longitude first, degrees, in one piece: see `antimeridian.unwrap`.
    tolerance_m
        Maximum distance by which edges may move, metres.

    Returns
    -------
    shapely.geometry.base.BaseGeometry
        Valid outline. If simplifying removes a part that is narrower than the tolerance, the part is not simplified.
    float
        Maximum distance by which edges moved, metres; 0 if the outline is unchanged.
    """
    import shapely

    simple = simplified(outline, tolerance_m / _LONGEST_DEGREE_M)
    rounded = shapely.transform(simple, lambda points: points.round(_ITEM_DECIMALS))
    if not rounded.is_valid:
        rounded = shapely.set_precision(simple, _ITEM_DEG)
    if rounded.is_valid and not rounded.is_empty and isinstance(rounded, shapely.Polygon | shapely.MultiPolygon):
        is_same = shapely.get_num_coordinates(simple) == shapely.get_num_coordinates(outline)
        return rounded, 0.0 if is_same else tolerance_m
    return (outline if outline.is_valid else shapely.make_valid(outline)), 0.0


def ground_digest(outline: "BaseGeometry") -> str:
    """Return a digest of the area that an outline encloses. It does not depend on the notation of the outline.

    These have no effect on the digest: the order of parts, rings and vertices, their direction, heights, repeated
    vertices, and vertices on a straight line (to 1 µm). Vertices are rounded to 1e-7 degrees (1 cm). They are first
    rounded to 1e-9 degrees, so that numbers with 8 decimals that end in 5 are rounded in the same way after a
    reprojection. Reprojection moves vertices by nanometres, so about one in a million coordinates is rounded
    differently.

    Parameters
    ----------
    outline
        Longitude first, degrees. Longitudes may be shifted by full turns.

    Returns
    -------
    str
        Hexadecimal, 16 digits.
    """
    import numpy as np
    import shapely

    edges = [np.empty((0, 4), np.int64)]
    for ring in shapely.get_rings(shapely.get_parts(outline)):
        points = _corners(shapely.get_coordinates(ring)[:-1])
        grid = np.rint(np.rint(points / _FINEST_DEG) / round(_ITEM_DEG / _FINEST_DEG)).astype(np.int64)
        grid[:, 0] %= round(360 / _ITEM_DEG)
        following = np.roll(grid, -1, axis=0)
        # The direction of an edge has no effect.
        swapped = (grid[:, 0] > following[:, 0]) | ((grid[:, 0] == following[:, 0]) & (grid[:, 1] > following[:, 1]))
        pairs = np.where(swapped[:, np.newaxis], np.hstack([following, grid]), np.hstack([grid, following]))
        edges.append(pairs[(grid != following).any(axis=1)])
    every = np.concatenate(edges)
    # By the even-odd rule, the edges define the enclosed area. Their order has no effect.
    content = every[np.lexsort(every.T)].astype("<i8").tobytes()
    return hashlib.sha256(content).hexdigest()[:16]


def _corners(points: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """Remove vertices of a ring that repeat the previous vertex, or are on the line between their neighbours."""
    import numpy as np

    points = points[(points != np.roll(points, 1, axis=0)).any(axis=1)]
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    twice_area = np.abs(before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0])
    kept = points[twice_area > _STRAIGHT_DEG * np.hypot(*(before + after).T)]
    lost = abs(_area(points) - _area(kept))
    # In a dense curve, all vertices are near these lines, but they are needed for the shape of the curve.
    fits = len(kept) >= _FEWEST_OF_RING and lost <= _STRAIGHT_DEG * np.hypot(*before.T).sum()
    return kept if fits else points


def _area(points: "NDArray[np.float64]") -> float:
    import numpy as np

    if not len(points):
        return 0.0
    x, y = (points - points[0]).T
    return float(abs(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2)
