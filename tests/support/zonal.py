"""Areas of all kinds on a small grid, and exactextract's statistics of them."""

from collections.abc import Sequence

import geopandas
import numpy as np
import shapely
from exactextract import exact_extract
from exactextract.raster import NumPyRasterSource
from hypothesis import assume
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from shapely.geometry.base import BaseGeometry

HEIGHT, WIDTH = 9, 12
LEFT, TOP = 499_980.0, 5_300_040.0


def small_grid(resolution_m: float = 30, left: float = LEFT, top: float = TOP) -> GeoBox:
    right, bottom = left + WIDTH * resolution_m, top - HEIGHT * resolution_m
    return GeoBox.from_bbox((left, bottom, right, top), "EPSG:32633", shape=(HEIGHT, WIDTH), tight=True)


def on_grid(shape: BaseGeometry, grid: GeoBox) -> BaseGeometry:
    """Convert columns and rows to the CRS of a grid."""
    return shapely.transform(shape, lambda points: np.column_stack(grid.transform @ tuple(points.T)))


def star(column: float, row: float, radii: list[float], turn: float = 0.1) -> shapely.Polygon:
    angles = np.linspace(0, 2 * np.pi, len(radii), endpoint=False) + turn
    return shapely.Polygon(np.column_stack([column + radii * np.cos(angles), row + radii * np.sin(angles)]))


SHAPES = {
    "on-lattice": shapely.box(2, 3, 6, 5),
    "off-lattice": shapely.box(2.25, 3.4, 6.7, 5.1),
    "half-on-lattice": shapely.box(2, 3.5, 6, 5),
    "a-cell": shapely.box(4, 4, 5, 5),
    "smaller-than-a-cell": shapely.box(4.2, 4.3, 4.6, 4.4),
    "over-a-corner": shapely.box(3.9, 3.9, 4.1, 4.1),
    "narrow-row": shapely.box(1.5, 4.3, 9.5, 4.31),
    "narrow-column": shapely.box(5.4, 0.5, 5.41, 8.5),
    "sliver": shapely.Polygon([(1, 1), (11, 8), (11, 8.02)]),
    "diagonal-through-corners": shapely.Polygon([(1, 1), (6, 6), (1, 6)]),
    "diamond-on-corners": shapely.Polygon([(5, 1), (9, 5), (5, 9), (1, 5)]),
    "clockwise": shapely.Polygon([(2.5, 2.5), (2.5, 6.5), (7.5, 6.5), (7.5, 2.5)]),
    "hole": shapely.box(1.5, 1.5, 8.5, 7.5) - shapely.box(3.2, 3.2, 6.9, 5.5),
    "hole-on-lattice": shapely.box(1, 1, 8, 7) - shapely.box(3, 3, 6, 5),
    "hole-in-a-cell": shapely.box(3, 3, 7, 7) - shapely.box(4.2, 4.2, 4.8, 4.8),
    "hole-that-touches": shapely.Polygon(
        [(1, 1), (8, 1), (8, 7), (1, 7)], [[(1, 4), (3.3, 2.2), (4.4, 4.7)]]
    ),
    "parts": shapely.MultiPolygon([shapely.box(1.1, 1.1, 2.7, 2.7), shapely.box(2.8, 1.2, 5.4, 2.9)]),
    "parts-in-a-cell": shapely.MultiPolygon([shapely.box(4.1, 4.1, 4.3, 4.9), shapely.box(4.6, 4.1, 4.9, 4.9)]),
    "island-in-a-hole": shapely.union(
        shapely.box(1, 1, 9, 8) - shapely.box(2.5, 2.5, 7.5, 6.5), shapely.box(4.1, 4.1, 5.3, 5.3)
    ),
    "star": star(6, 4.5, [4, 1, 3.5, 0.7, 4.2, 1.1, 3.3, 1.4]),
    "thousands-of-vertices": shapely.Point(6, 4.5).buffer(3.9, quad_segs=3000),
    "over-the-left-edge": star(0.5, 4, [3, 2, 3, 2, 3]),
    "over-the-right-edge": star(11.5, 4, [3, 2, 3, 2, 3]),
    "over-the-top-edge": star(5, 0.3, [3, 2, 3, 2, 3]),
    "over-the-bottom-edge": star(5, 8.8, [3, 2, 3, 2, 3]),
    "over-two-corners": shapely.Polygon([(-3, -2), (14, 5), (14, 12), (-2, 4)]),
    "larger-than-the-grid": shapely.box(-1000, -1000, 1000, 1000) - shapely.box(4.5, 4.5, 6.5, 6.5),
    "the-grid": shapely.box(0, 0, WIDTH, HEIGHT),
}  # fmt: skip
"""Areas in columns and rows. They overlap each other."""

OUTSIDE = {
    "left": shapely.box(-5, 1, -1, 5),
    "right": shapely.box(13, 1, 15, 5),
    "above": shapely.box(1, -5, 5, -1),
    "below": shapely.box(1, 10, 5, 12),
    "touches": shapely.box(WIDTH, 1, WIDTH + 3, 5),
    "around": shapely.box(-5, -5, 20, 20) - shapely.box(-1, -1, 13, 10),
    "empty": shapely.Polygon(),
}  # fmt: skip


@st.composite
def areas(draw: st.DrawFn) -> BaseGeometry:
    """Draw a valid area on the small grid: a union of stars with holes. Its vertices may be on lines of the grid."""
    step = draw(st.sampled_from([1 / 64, 0.5, 1e-3]))
    column, row = st.integers(-3, WIDTH + 3), st.integers(-3, HEIGHT + 3)
    radii = st.lists(st.floats(0.05, 5), min_size=3, max_size=9)
    stars = draw(st.lists(st.builds(star, column, row, radii, st.floats(0, 6)), min_size=1, max_size=4))
    # Rounded vertices; the operations that follow must not round.
    rounded = shapely.set_precision(shapely.set_precision(stars, step), 0)
    half = (len(rounded) + 1) // 2
    shape = shapely.difference(shapely.union_all(rounded[:half]), shapely.union_all(rounded[half:]))
    placed = on_grid(polygonal(shape), small_grid())
    assume(placed.is_valid)  # the rounding of its coordinates may invert narrow parts
    return placed


def polygonal(shape: BaseGeometry) -> BaseGeometry:
    """Return an empty polygon in place of lines and points."""
    return shape if shape.geom_type in ("Polygon", "MultiPolygon") else shapely.Polygon()


def placed(shapes: dict[str, BaseGeometry], grid: GeoBox) -> np.ndarray:
    return np.array([on_grid(each, grid) for each in shapes.values()], object)


def exact(shapes: np.ndarray, grid: GeoBox, values: np.ndarray, statistics: Sequence[str]) -> dict[str, np.ndarray]:
    """Return exactextract's statistics, dims (field): one layer of values, NaN is nodata."""
    # exactextract cannot read an empty polygon.
    shapes = np.where(shapely.is_empty(shapes), on_grid(OUTSIDE["left"], grid), shapes)
    frame = geopandas.GeoDataFrame(geometry=shapes, crs=str(grid.crs))
    # exactextract rounds a quantile to the type of the raster.
    source = NumPyRasterSource(values.astype(np.float64), *grid.boundingbox, srs_wkt=frame.crs.to_wkt())
    found = exact_extract(source, frame, [f"{name}={_call(name)}" for name in statistics], output="pandas")
    # The names of quantiles have a suffix.
    return {name: found.iloc[:, column].to_numpy(np.float64) for column, name in enumerate(statistics)}


def _call(name: str) -> str:
    if name[0] == "p":
        return f"quantile(q={int(name[1:]) / 100},min_coverage_frac=1e-6)"
    return f"{'stdev' if name == 'std' else name}(min_coverage_frac=1e-6)"
