"""Statistics of fields equal those of exactextract."""

import numpy as np
import pytest
import shapely
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

import s2cube.products.field_statistics
from s2cube.products.coverage import areas_in_cells, coverage
from s2cube.products.field_statistics import field_statistics, weighted_share
from support.zonal import HEIGHT, LEFT, OUTSIDE, SHAPES, TOP, WIDTH, areas, exact, placed, small_grid

STATISTICS = ("mean", "std", "median", "min", "max", "count", "p0", "p3", "p10", "p25", "p50", "p90", "p100")
GRID = small_grid()
RANDOM = np.random.default_rng(7)


def reflectance() -> np.ndarray:
    return RANDOM.uniform(-0.1, 1.2, (HEIGHT, WIDTH)).astype(np.float32)


def with_gaps(values: np.ndarray, share: float = 0.3) -> np.ndarray:
    return np.where(RANDOM.random(values.shape) < share, np.float32(np.nan), values)


def random_band(seed: int, levels: int, gaps: float) -> np.ndarray:
    """Return one band of values, many equal if there are few levels, dims (1, y, x)."""
    random = np.random.default_rng(seed)
    values = random.integers(-levels, 10 * levels, (1, HEIGHT, WIDTH)) / np.float32(10 * levels)
    return np.where(random.random(values.shape) < gaps, np.nan, values).astype(np.float32)


BANDS = st.builds(random_band, st.integers(0, 2**32), st.sampled_from([1, 10, 10_000]), st.sampled_from([0, 0.3, 0.9]))

LAYERS = {
    "all-valid": reflectance(),
    "gaps": with_gaps(reflectance()),
    "few-valid": with_gaps(reflectance(), 0.95),
    "none-valid": np.full((HEIGHT, WIDTH), np.nan, np.float32),
    "many-equal": with_gaps(np.round(reflectance(), 1)),
    "two-values": with_gaps((reflectance() > 0.5).astype(np.float32) * np.float32(0.2)),
    "zeros-with-signs": np.maximum(reflectance() - 0.6, 0) * np.sign(reflectance() - 0.6),
    "large-mean": 300 + reflectance() / 100,
    "negative": -with_gaps(reflectance()),
}


def check(shapes: np.ndarray, values: np.ndarray) -> None:
    """Compare statistics of bands with those of exactextract."""
    found = field_statistics(values, coverage(shapes, GRID), STATISTICS)
    assert list(found) == list(STATISTICS)
    for band, layer in enumerate(values):
        expected = exact(shapes, GRID, layer, STATISTICS)
        # exactextract keeps shares as float32. A percentile between 0.9 and 0.0001 has the error of 0.9.
        valid = layer[~np.isnan(layer)]
        precision = 1e-9 + np.finfo("float32").eps * float(np.ptp(valid) if valid.size else 0)
        for name in STATISTICS:
            assert found[name].dtype == np.float32
            assert found[name].shape == (len(values), len(shapes))
            np.testing.assert_allclose(found[name][band], expected[name], rtol=1e-6, atol=precision, err_msg=name)


@pytest.mark.parametrize("layer", LAYERS)
def test_statistics_are_those_of_exactextract(layer: str) -> None:
    check(placed(SHAPES | OUTSIDE, GRID), LAYERS[layer][None])


def test_bands_are_independent() -> None:
    check(placed(SHAPES, GRID), np.stack([LAYERS["gaps"], LAYERS["few-valid"], LAYERS["all-valid"]]))


@settings(max_examples=50)
@given(st.lists(areas(), min_size=1, max_size=3), BANDS)
def test_statistics_of_any_areas_are_those_of_exactextract(drawn: list[shapely.Geometry], values: np.ndarray) -> None:
    shapes = np.array(drawn, object)
    assume((coverage(shapes, GRID).shares > 1e-4).all())  # a cell whose share is near 1e-6 may count here and not there
    check(shapes, values)


@settings(max_examples=50)
@given(st.lists(areas(), min_size=1, max_size=3), st.floats(-1, 2, width=32), BANDS)
def test_statistics_of_a_constant(drawn: list[shapely.Geometry], value: float, band: np.ndarray) -> None:
    valid = ~np.isnan(band)
    fields = coverage(np.array(drawn, object), GRID)
    found = field_statistics(np.where(valid, np.float32(value), np.float32(np.nan)), fields, STATISTICS)
    some = found["count"] > 0
    for name in ("mean", "median", "min", "max", "p3"):
        np.testing.assert_array_equal(found[name], np.where(some, np.float32(value), np.nan))
    np.testing.assert_allclose(found["std"][some], 0, atol=1e-12)
    assert (some == (weighted_share(valid[0], fields) > 0)).all()


@settings(max_examples=50)
@given(st.lists(areas(), min_size=1, max_size=3), BANDS)
def test_statistics_are_ordered(drawn: list[shapely.Geometry], values: np.ndarray) -> None:
    found = field_statistics(values, coverage(np.array(drawn, object), GRID), STATISTICS)
    has_cells = found["count"][0] > 0
    found = {name: each[0, has_cells] for name, each in found.items()}
    ascending = [found[name] for name in ("min", "p0", "p3", "p10", "p25", "median", "p90", "p100", "max")]
    assert (np.diff(ascending, axis=0) >= 0).all()
    assert ((found["min"] <= found["mean"]) & (found["mean"] <= found["max"])).all()
    np.testing.assert_array_equal(found["min"], found["p0"])
    np.testing.assert_array_equal(found["max"], found["p100"])
    np.testing.assert_array_equal(found["median"], found["p50"])


def test_order_and_company_of_areas_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = placed(SHAPES | OUTSIDE, GRID)
    values = np.stack([LAYERS["gaps"], LAYERS["zeros-with-signs"], -LAYERS["gaps"]])
    order = RANDOM.permutation(len(shapes))
    expected = field_statistics(values, coverage(shapes, GRID), STATISTICS)
    permuted = field_statistics(values, coverage(shapes[order], GRID), STATISTICS)
    monkeypatch.setattr(s2cube.products.field_statistics, "_ENTRIES_AT_ONCE", 50)
    assert len(list(s2cube.products.field_statistics._groups(coverage(shapes, GRID), 50))) > 10
    grouped = field_statistics(values, coverage(shapes, GRID), STATISTICS)
    bands = [field_statistics(band[None], coverage(shapes, GRID), STATISTICS) for band in values]
    for name in STATISTICS:
        np.testing.assert_array_equal(permuted[name], expected[name][:, order])
        np.testing.assert_array_equal(grouped[name], expected[name])
        np.testing.assert_array_equal(np.concatenate([each[name] for each in bands]), expected[name])


def test_two_halves_weigh_as_the_whole() -> None:
    star = placed({"star": SHAPES["star"]}, GRID)[0]
    west = shapely.box(LEFT, TOP - 1000, LEFT + 171, TOP)
    found = field_statistics(
        LAYERS["gaps"][None], coverage(np.array([star & west, star - west, star], object), GRID), ["mean", "count"]
    )
    (count,), (mean,) = found["count"], found["mean"]
    assert count[0] + count[1] == pytest.approx(count[2], rel=1e-6)
    assert np.dot(count[:2], mean[:2]) == pytest.approx(count[2] * mean[2], rel=1e-6)


def test_percentiles_of_millions_of_cells() -> None:
    """Sums of weights times their number are beyond 64 bits."""
    side = 2200
    values = RANDOM.permutation(side**2).astype(np.float32).reshape(1, side, side)
    grid = GeoBox.from_bbox((0, 0, side, side), "EPSG:32633", resolution=1)
    found = field_statistics(values, coverage(np.array([shapely.box(0, 0, side, side)]), grid), ["p1", "median", "p99"])
    expected = np.percentile(values, [1, 50, 99])
    np.testing.assert_allclose([each.item() for each in found.values()], expected, rtol=1e-6)


def test_only_the_statistics_asked_for() -> None:
    fields = coverage(placed(SHAPES, GRID), GRID)
    assert list(field_statistics(LAYERS["gaps"][None], fields, ["p25", "std"])) == ["p25", "std"]


def test_no_fields() -> None:
    found = field_statistics(LAYERS["gaps"][None], coverage(np.array([], object), GRID), ["mean", "median", "count"])
    assert all(each.shape == (1, 0) for each in found.values())


def test_values_do_not_change() -> None:
    values = np.stack([LAYERS["gaps"], LAYERS["zeros-with-signs"]])
    before = values.tobytes()
    values.flags.writeable = False
    field_statistics(values, coverage(placed(SHAPES, GRID), GRID), STATISTICS)
    assert values.tobytes() == before


@pytest.mark.parametrize("share", [0, 0.4, 1])
def test_weighted_share_is_that_of_exactextract(share: float) -> None:
    shapes = placed(SHAPES | OUTSIDE, GRID)
    mask = RANDOM.random((HEIGHT, WIDTH)) < share
    expected = exact(shapes, GRID, mask.astype(float), ["sum"])["sum"]
    np.testing.assert_allclose(weighted_share(mask, coverage(shapes, GRID)), expected, rtol=1e-6)


def test_weighted_share_of_all_cells_is_the_area() -> None:
    inside = {name: each for name, each in SHAPES.items() if shapely.box(0, 0, WIDTH, HEIGHT).covers(each)}
    shapes = placed(inside, GRID)
    found = weighted_share(np.ones((HEIGHT, WIDTH), bool), coverage(shapes, GRID))
    np.testing.assert_allclose(found, areas_in_cells(shapes, GRID), rtol=1e-6)
