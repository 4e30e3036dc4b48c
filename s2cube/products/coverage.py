"""Compute which cells of a grid polygons cover, and which share of each cell."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
import shapely

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from odc.geo.geobox import GeoBox

_LEAST_SHARE = 1e-6
"""Cells of which a polygon covers less do not count. Rounding errors of coordinates in metres are smaller than this."""

SHARE_STEPS = 2.0**36
"""Steps in a cell to which covers and areas are rounded. Sums of such numbers have no rounding errors, so the shares of
a field do not depend on other fields. Positions are exact up to 2¹⁷ cells."""

_PIECES_AT_ONCE = 1 << 16
"""Number of pieces of edges that are computed together: their arrays fit into the cache of a core."""


@dataclass(frozen=True, eq=False)
class Coverage:
    """The cells of a grid that polygons cover, and the share of each: the rows of a sparse matrix (field, cell).

    Parameters
    ----------
    starts
        Dims (field + 1): the entries of field i are ``starts[i]:starts[i + 1]``.
    cells
        Dims (entry): positions ``row * width + column`` on the grid. They ascend within a field.
    shares
        Dims (entry): share of the area of the cell that is in the polygon, 1e-6 to 1.
    shape
        Rows and columns of the grid.
    """

    starts: "NDArray[np.int64]"
    cells: "NDArray[np.int64]"
    shares: "NDArray[np.float64]"
    shape: tuple[int, int]

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def nbytes(self) -> int:
        """Memory of the entries, bytes."""
        return self.starts.nbytes + self.cells.nbytes + self.shares.nbytes

    def take(self, positions: "NDArray[np.intp] | NDArray[np.bool_]") -> Self:
        """Return some of the fields: their positions, or True for each of them."""
        counts = np.diff(self.starts)[positions]
        entries = np.repeat(self.starts[:-1][positions], counts) + _ranks(counts)
        return type(self)(_starts(counts), self.cells[entries], self.shares[entries], self.shape)


def coverage(shapes: "NDArray[np.object_]", geobox: "GeoBox") -> Coverage:
    """Compute the exact share of each cell of a grid that each polygon covers.

    The parts of a polygon outside the grid are ignored. Polygons may overlap each other.

    Parameters
    ----------
    shapes
        Dims (field): valid Polygons and MultiPolygons of shapely, in the CRS of the grid. Their edges are straight in
        this CRS.
    geobox
        Grid with square cells, north up.

    Notes
    -----
    Edges are cut where they cross the lines of the grid. A piece inside a cell covers a part of its height, and a part
    of its area to the right of the piece. Sums of these signed values along a row are the shares of its cells: the
    method of exact area coverage, which draws fonts without steps (R. Levien, font-rs, 2016).

    exactextract returns the same shares. It takes 13 times as long for 1,000 and for 10,000 fields of 300 to 900 m on
    cells of 30 m.

    Examples
    --------
    >>> import numpy as np, shapely
    >>> from odc.geo.geobox import GeoBox
    >>> grid = GeoBox.from_bbox((0, 0, 90, 60), "EPSG:32633", resolution=30)
    >>> field = coverage(np.array([shapely.box(15, 0, 60, 30)]), grid)
    >>> field.cells.tolist(), field.shares.tolist()
    ([3, 4], [0.5, 1.0])
    """
    parts = [_part(shapes[fields], geobox) for fields in _portions(shapes, geobox)]
    counts, cells, shares = (np.concatenate([part[column] for part in parts]) for column in range(3))
    return Coverage(_starts(counts), cells, shares, (geobox.height, geobox.width))


def areas_in_cells(shapes: "NDArray[np.object_]", geobox: "GeoBox") -> "NDArray[np.float64]":
    """Return the area of each polygon, in cells of a grid. Parts outside the grid count."""
    return np.asarray(shapely.area(shapes) / (geobox.transform.a * -geobox.transform.e))


def _portions(shapes: "NDArray[np.object_]", geobox: "GeoBox") -> Iterator[slice]:
    """Divide fields into portions of about `_PIECES_AT_ONCE` pieces. There is at least one portion."""
    # An edge crosses at most √2 lines of the grid per side of a cell.
    pieces = shapely.get_num_coordinates(shapes) + np.sqrt(2) * shapely.length(shapes) / geobox.transform.a
    portion = np.cumsum(pieces) // _PIECES_AT_ONCE
    ends = [*(np.flatnonzero(np.diff(portion)) + 1).tolist(), len(shapes)]
    return map(slice, [0, *ends], ends)


class _Edges(NamedTuple):
    """Edges, with positions in cells from the upper left corner of the grid. Each goes down: y0 < y1."""

    field: "NDArray[np.intp]"
    sign: "NDArray[np.float64]"  # 1 if the polygon is to the right, else -1
    x0: "NDArray[np.float64]"
    y0: "NDArray[np.float64]"
    x1: "NDArray[np.float64]"
    y1: "NDArray[np.float64]"


def _part(shapes: "NDArray[np.object_]", geobox: "GeoBox") -> "tuple[NDArray[np.int64], ...]":
    """Return the number of entries of each field, the cells and the shares."""
    height, width = geobox.shape
    edges = _within_rows(_edges(shapes, geobox), height)
    # First, cut edges where they leave a row.
    edge, y0, y1, x0, x1 = _cut(edges.y0, edges.y1, edges.x0, edges.x1, height)
    line = edges.field[edge] * height + np.minimum((y0 + y1) / 2, height - 0.5).astype(np.int64)
    # Then cut the pieces where they leave a column, from left to right.
    is_right = x0 <= x1
    sign = edges.sign[edge] * np.where(is_right, 1, -1)
    left, right = np.minimum(x0, x1), np.maximum(x0, x1)
    piece, x0, x1, y0, y1 = _cut(left, right, np.where(is_right, y0, y1), np.where(is_right, y1, y0), width)
    cover = sign[piece] * (_rounded(y1) - _rounded(y0))
    # Pieces to the left of the grid cover its whole rows. Those to the right are in a column that is removed later.
    middle = np.clip((x0 + x1) / 2, 0, width)
    column = middle.astype(np.int64)
    area = _rounded(cover * (1 - (middle - column)))
    return _fill(line[piece] * (width + 1) + column, cover, area, (len(shapes), height, width))


def _edges(shapes: "NDArray[np.object_]", geobox: "GeoBox") -> _Edges:
    """Return the edges of polygons, except those along rows, which cover nothing."""
    polygons, field = shapely.get_parts(shapely.orient_polygons(shapes), return_index=True)
    rings, polygon = shapely.get_rings(polygons, return_index=True)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    transform = geobox.transform
    x, y = (points[:, 0] - transform.c) / transform.a, _rounded((points[:, 1] - transform.f) / transform.e)
    first = np.flatnonzero((ring[1:] == ring[:-1]) & (y[1:] != y[:-1]))
    is_down = y[first] < y[first + 1]
    upper, lower = np.where(is_down, first, first + 1), np.where(is_down, first + 1, first)
    # Outer rings are counterclockwise and inner rings are clockwise: the polygon is to the left of each edge.
    sign = np.where(is_down, 1.0, -1.0)
    return _Edges(field[polygon[ring[first]]], sign, x[upper], y[upper], x[lower], y[lower])


def _within_rows(edges: _Edges, height: int) -> _Edges:
    """Remove what is above and below the grid."""
    y0, y1 = np.clip(edges.y0, 0, height), np.clip(edges.y1, 0, height)
    slope = (edges.x1 - edges.x0) / (edges.y1 - edges.y0)
    x0, x1 = edges.x0 + (y0 - edges.y0) * slope, edges.x1 + (y1 - edges.y1) * slope
    is_inside = y0 < y1
    x0, y0, x1, y1 = (each[is_inside] for each in (x0, y0, x1, y1))
    return _Edges(edges.field[is_inside], edges.sign[is_inside], x0, y0, x1, y1)


def _cut(
    low: "NDArray[np.float64]",
    high: "NDArray[np.float64]",
    at_low: "NDArray[np.float64]",
    at_high: "NDArray[np.float64]",
    last: int,
) -> "tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]":
    """Cut lines where their first coordinate is an integer from 0 to `last`.

    Returns
    -------
    tuple
        For each piece, from low to high: position of its line, first coordinates of its ends, second coordinates.
    """
    first = np.maximum(np.floor(low) + 1, 0)
    cuts = np.maximum(np.minimum(np.ceil(high) - 1, last) - first + 1, 0).astype(np.int64)
    line = np.repeat(np.arange(len(low)), cuts + 1)
    rank = _ranks(cuts + 1)
    end = first[line] + rank
    with np.errstate(divide="ignore", invalid="ignore"):  # a line without cuts may have no length
        at_end = at_low[line] + (end - low[line]) * ((at_high - at_low) / (high - low))[line]
    is_first, is_last = rank == 0, rank == cuts[line]
    end, at_end = np.where(is_last, high[line], end), np.where(is_last, at_high[line], at_end)
    start, at_start = (np.concatenate([each[:1], each[:-1]]) for each in (end, at_end))
    return line, np.where(is_first, low[line], start), end, np.where(is_first, at_low[line], at_start), at_end


def _rounded(numbers: "NDArray[np.float64]") -> "NDArray[np.float64]":
    return np.rint(numbers * SHARE_STEPS) / SHARE_STEPS


def _fill(
    keys: "NDArray[np.int64]",
    cover: "NDArray[np.float64]",
    area: "NDArray[np.float64]",
    dims: tuple[int, int, int],
) -> "tuple[NDArray[np.int64], ...]":
    """Sum pieces in cells, and fill the cells between them.

    Parameters
    ----------
    keys
        Positions of pieces in an array of dims (field, row, column); it has one column more than the grid.
    cover, area
        Signed share of the height of the cell, and of its area to the right of the piece.
    dims
        Number of fields, and rows and columns of the grid.
    """
    fields, height, width = dims
    order = np.argsort(keys)
    keys = keys[order]
    firsts = np.flatnonzero(np.diff(keys, prepend=-1))
    keys, cover, area = keys[firsts], _sums(cover[order], firsts), _sums(area[order], firsts)
    # The covers of each row of a field add up to 0. So one sum serves for all rows.
    after = np.cumsum(cover)
    share = after - cover + area
    line, column = np.divmod(keys, width + 1)
    is_cell = (share >= _LEAST_SHARE) & (column < width)
    gaps = np.where(after >= _LEAST_SHARE, np.diff(keys, append=keys[-1:] + 1) - 1, 0)
    counts = gaps + is_cell
    cells = np.repeat(line % height * width + column + ~is_cell, counts) + _ranks(counts)
    shares = np.repeat(after, counts)
    shares[(np.cumsum(counts) - counts)[is_cell]] = share[is_cell]
    of_fields = np.bincount(line // height, counts, fields).astype(np.int64)
    return of_fields, cells, np.minimum(shares, 1, out=shares)


def _sums(values: "NDArray[np.float64]", firsts: "NDArray[np.intp]") -> "NDArray[np.float64]":
    return np.add.reduceat(values, firsts) if len(values) else values


def _ranks(counts: "NDArray[np.int64]") -> "NDArray[np.int64]":
    """Return 0, 1, … up to each count."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


def _starts(counts: "NDArray[np.int64]") -> "NDArray[np.int64]":
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
