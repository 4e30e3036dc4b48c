"""Shares of cells in areas equal the areas of shapely's intersections, and exactextract's coverage."""

import geopandas
import numpy as np
import pytest
import shapely
from exactextract import exact_extract
from exactextract.raster import NumPyRasterSource
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

import s2cube.products.coverage
from s2cube.products.coverage import SHARE_STEPS, Coverage, areas_in_cells, coverage
from support.zonal import HEIGHT, LEFT, OUTSIDE, SHAPES, TOP, WIDTH, areas, on_grid, placed, polygonal, small_grid

GRIDS = {
    "30-m": small_grid(),
    "10-m": small_grid(10),
    "a-third-of-100-m": small_grid(100 / 3),
    "at-the-origin": small_grid(30, 0, 0),
    "far": small_grid(20, -9_000_020, 20_000_000),
    "in-degrees": GeoBox.from_bbox((12, 47, 12 + WIDTH / 4000, 47 + HEIGHT / 4000), 4326, shape=(HEIGHT, WIDTH)),
}  # fmt: skip


def dense(found: Coverage) -> np.ndarray:
    """Dims (field, y, x)."""
    shares = np.zeros((len(found), found.shape[0] * found.shape[1]))
    shares[np.repeat(np.arange(len(found)), np.diff(found.starts)), found.cells] = found.shares
    return shares.reshape(-1, *found.shape)


def intersections(shapes: np.ndarray, grid: GeoBox) -> np.ndarray:
    """Dims (field, y, x): the share of each cell, cell by cell."""
    rows, columns = np.mgrid[: grid.height, : grid.width]
    cells = np.array([on_grid(each, grid) for each in shapely.box(columns, rows, columns + 1, rows + 1).ravel()])
    shares = shapely.area(shapely.intersection(shapes[:, None], cells)) / shapely.area(cells)
    return np.where(shares < 1e-6, 0, shares).reshape(-1, *grid.shape)


def check_form(found: Coverage) -> None:
    assert found.starts[0] == 0
    assert found.starts[-1] == len(found.cells) == len(found.shares)
    assert (found.starts.dtype, found.cells.dtype, found.shares.dtype) == (np.int64, np.int64, np.float64)
    assert ((found.shares >= 1e-6) & (found.shares <= 1)).all()
    for first, end in zip(found.starts[:-1], found.starts[1:], strict=True):
        assert (np.diff(found.cells[first:end]) > 0).all()


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_shares_are_intersections(grid: GeoBox) -> None:
    shapes = placed(SHAPES | OUTSIDE, grid)
    found = coverage(shapes, grid)
    check_form(found)
    expected = intersections(shapes, grid)
    for name, ours, theirs in zip(SHAPES | OUTSIDE, dense(found), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-7, err_msg=name)
    assert (found.starts[len(SHAPES) :] == found.starts[-1]).all()  # nothing of `OUTSIDE`


@given(st.lists(areas(), max_size=4))
def test_shares_of_any_areas_are_intersections(drawn: list[shapely.Geometry]) -> None:
    grid = small_grid()
    shapes = np.array(drawn, object)
    found = coverage(shapes, grid)
    check_form(found)
    np.testing.assert_allclose(dense(found), intersections(shapes, grid), rtol=0, atol=2e-6)


def test_shares_are_those_of_exactextract() -> None:
    grid = small_grid()
    shapes = placed(SHAPES, grid)
    frame = geopandas.GeoDataFrame(geometry=shapes, crs=32633)
    source = NumPyRasterSource(np.zeros(grid.shape), *grid.boundingbox, srs_wkt=frame.crs.to_wkt())
    calls = [f"{name}(min_coverage_frac=1e-6)" for name in ("cell_id", "coverage")]
    expected = exact_extract(source, frame, calls, output="pandas")
    found = coverage(shapes, grid)
    for position, name in enumerate(SHAPES):
        entries = slice(*found.starts[position : position + 2])
        assert list(found.cells[entries]) == list(expected["cell_id"][position]), name
        np.testing.assert_allclose(found.shares[entries], expected["coverage"][position], rtol=1e-6, err_msg=name)


@given(st.lists(areas(), min_size=1, max_size=4))
def test_shares_add_up_to_the_area(drawn: list[shapely.Geometry]) -> None:
    grid = small_grid()
    inside = np.array([polygonal(each & grid.extent.geom) for each in drawn], object)
    found = coverage(inside, grid)
    sums = [found.shares[first:end].sum() for first, end in zip(found.starts[:-1], found.starts[1:], strict=True)]
    assert sums == pytest.approx(areas_in_cells(inside, grid), rel=1e-6, abs=HEIGHT * WIDTH * 1e-6)


@given(st.lists(areas(), min_size=1, max_size=4))
def test_shares_are_whole_steps(drawn: list[shapely.Geometry]) -> None:
    steps = coverage(np.array(drawn, object), small_grid()).shares * SHARE_STEPS
    np.testing.assert_array_equal(steps, np.rint(steps))


@given(areas(), st.floats(0, WIDTH))
def test_two_halves_cover_what_the_whole_covers(area: shapely.Geometry, column: float) -> None:
    grid = small_grid()
    left = on_grid(shapely.box(-100, -100, column, 100), grid)
    parts = np.array([polygonal(area & left), polygonal(area - left), area], object)
    shares = dense(coverage(parts, grid))
    np.testing.assert_allclose(shares[0] + shares[1], shares[2], rtol=0, atol=3e-6)


@pytest.mark.parametrize(("share", "cells"), [(0.9e-6, 4), (1.1e-6, 6), (1e-12, 4)])
def test_negligible_cells_do_not_count(share: float, cells: int) -> None:
    grid = small_grid(30, 0, 0)
    shape = on_grid(shapely.box(2, 3, 4 + share, 5), grid)
    assert len(coverage(np.array([shape]), grid).cells) == cells


def test_cells_inside_are_whole() -> None:
    """Rounding errors do not make a share greater than 1."""
    grid = GRIDS["a-third-of-100-m"]
    found = coverage(placed({"star": SHAPES["star"], "whole": SHAPES["larger-than-the-grid"]}, grid), grid)
    shares = dense(found)[1]
    shares[4:7, 4:7] = 1
    assert shares == pytest.approx(1, abs=1e-12)
    assert found.shares.max() <= 1


def test_tiny_holes_make_no_share_greater_than_1() -> None:
    grid = small_grid(30, 0, 0)
    random = np.random.default_rng(0)
    holes = random.uniform(4.1, 4.9, (50, 1, 2)) + random.uniform(0, 1e-7, (50, 3, 2))
    outline = shapely.box(3, 3, 6, 6).exterior
    found = coverage(placed({each: shapely.Polygon(outline, [hole]) for each, hole in enumerate(holes)}, grid), grid)
    check_form(found)
    assert found.shares == pytest.approx(1, abs=1e-9)


def test_edges_may_be_long() -> None:
    """Edges of thousands of kilometres cross the grid."""
    grid = small_grid()
    far = shapely.Polygon([(LEFT - 4e6, TOP - 3e6), (LEFT + 5e6, TOP - 135 - 3e6), (LEFT + 150, TOP + 4e6)])
    middle = shapely.Polygon([(LEFT - 4e6, TOP - 4e6), (LEFT + 4e6, TOP + 4e6), (LEFT - 4e6, TOP + 4e6)])
    shapes = np.array([far, middle], object)
    np.testing.assert_allclose(dense(coverage(shapes, grid)), intersections(shapes, grid), rtol=0, atol=1e-6)


def test_portions_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = small_grid()
    shapes = placed(OUTSIDE | SHAPES | {f"{name}-2": each for name, each in OUTSIDE.items()}, grid)
    expected = coverage(shapes, grid)
    monkeypatch.setattr(s2cube.products.coverage, "_PIECES_AT_ONCE", 20)
    assert len(list(s2cube.products.coverage._portions(shapes, grid))) > 10
    found = coverage(shapes, grid)
    for name in ("starts", "cells", "shares"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_order_of_areas_changes_nothing() -> None:
    grid = small_grid()
    shapes = placed(SHAPES | OUTSIDE, grid)
    order = np.random.default_rng(1).permutation(len(shapes))
    found, expected = coverage(shapes[order], grid), coverage(shapes, grid).take(order)
    np.testing.assert_array_equal(found.starts, expected.starts)
    np.testing.assert_array_equal(found.cells, expected.cells)
    np.testing.assert_allclose(found.shares, expected.shares, rtol=0, atol=1e-12)


def test_some_of_them() -> None:
    grid = small_grid()
    shapes = placed(SHAPES | OUTSIDE, grid)
    whole = coverage(shapes, grid)
    for positions in (np.array([3, 0, 3, len(shapes) - 1]), np.arange(len(shapes)) % 3 == 1, np.array([], np.intp)):
        some = whole.take(positions)
        check_form(some)
        np.testing.assert_array_equal(dense(some), dense(whole)[positions])


@pytest.mark.parametrize("shapes", [{}, OUTSIDE])
def test_no_cells(shapes: dict[str, shapely.Geometry]) -> None:
    grid = small_grid()
    found = coverage(placed(shapes, grid), grid)
    check_form(found)
    assert len(found) == len(shapes)
    assert len(found.cells) == 0
    assert found.shape == grid.shape
    assert len(found.take(np.zeros(len(shapes), bool))) == 0


def test_areas_in_cells() -> None:
    shapes = placed(SHAPES, small_grid())
    assert areas_in_cells(shapes, small_grid()) == pytest.approx([each.area for each in SHAPES.values()], rel=1e-6)
