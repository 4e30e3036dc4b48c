"""Composites: numpy on the stack of images is the oracle, to the last digit; scipy is that of the geometric median."""

import warnings
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

import s2cube
from s2cube.config.composites import DAY_METHODS, Method
from s2cube.demo.archive import Archive
from s2cube.errors import ConfigError
from s2cube.kernels.packing import PACKINGS
from s2cube.products._compose import Composite, Stack, compose
from s2cube.products._geomedian import geomedian
from s2cube.products._ordered import _network

NODATA = -9999
METHODS = ("median", "mean", "geomedian", "medoid", "best", "first")
EPOCH = date(1970, 1, 1)


def days_of(count: int, step: int = 5) -> list[date]:
    return [date(2024, 2, 20) + timedelta(days=step * number) for number in range(count)]


def random_stack(seed: int = 0, shape: tuple[int, ...] = (9, 3, 11, 13), dtype: str = "int16") -> np.ndarray:
    """Reflectance with whole days masked, and some single values of bands, too."""
    random = np.random.default_rng(seed)
    values = random.integers(-300, 9000, shape)
    is_hole = (random.random((shape[0], 1, *shape[2:])) < random.random(shape[2:])) | (random.random(shape) < 0.02)
    packed = np.where(is_hole, NODATA, values).astype("int16")
    return packed if dtype == "int16" else np.where(is_hole, np.nan, values * 1e-4).astype(dtype)


def made(values: np.ndarray, method: str, **of_stack: Any) -> Composite:
    of_method = {name: of_stack.pop(name) for name in ("is_least", "min_count") if name in of_stack}
    stack = {"is_spectral": [True] * values.shape[1], "days": days_of(len(values))} | of_stack
    return compose(Stack(values, **stack), Method(method, **of_method))  # type: ignore[arg-type]


def column(*values: Sequence[float], dtype: str = "int16") -> np.ndarray:
    """One cell: a spectrum for each day."""
    return np.array(values, dtype)[:, :, None, None]


def with_nan(values: np.ndarray) -> np.ndarray:
    return np.where(PACKINGS[values.dtype.name].holes(values), np.nan, values.astype("float64"))


def in_dtype(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if dtype.kind == "f":
        return values.astype(dtype)
    return np.where(np.isnan(values), NODATA, np.rint(values)).astype(dtype)


class TestByBand:
    @pytest.mark.parametrize("dtype", ["int16", "float32"])
    @pytest.mark.parametrize(("method", "oracle"), [("median", np.nanmedian), ("mean", np.nanmean)])
    @pytest.mark.parametrize("count", [1, 2, 3, 8, 9, 33])
    def test_is_that_of_numpy(self, dtype: str, method: str, oracle: Any, count: int) -> None:
        values = random_stack(count, (count, 3, 11, 13), dtype)
        found = made(values, method)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            want = oracle(with_nan(values), 0)
        want[:, found.count == 0] = np.nan
        np.testing.assert_array_equal(found.values, in_dtype(want, values.dtype))
        assert found.values.dtype == values.dtype
        assert found.date is None

    def test_count_is_the_days_that_are_valid_in_every_band(self) -> None:
        values = random_stack()
        for method in ("median", "mean", "geomedian", "medoid", "first"):
            found = made(values, method).count
            np.testing.assert_array_equal(found, (values != NODATA).all(1).sum(0))
            assert found.dtype == "uint16"

    def test_a_band_uses_all_days_on_which_it_is_valid(self) -> None:
        found = made(column([100, 1], [300, NODATA], [800, 3]), "median")
        assert (found.values.ravel().tolist(), found.count.item()) == ([300, 2], 2)

    def test_halves_are_rounded_to_even(self) -> None:
        for method in ("median", "mean"):
            assert made(column([2, 3, -2], [3, 4, -1]), method).values.ravel().tolist() == [2, 4, -2]

    def test_the_greatest_int16_is_a_value(self) -> None:
        assert made(column([32767], [NODATA], [32767]), "median").values.item() == 32767

    @given(st.integers(1, 40), st.data())
    def test_the_network_sorts(self, size: int, data: st.DataObject) -> None:
        row = data.draw(st.lists(st.integers(0, 9), min_size=size, max_size=size))
        expected = sorted(row)
        for low, high in _network(size):
            row[low], row[high] = min(row[low], row[high]), max(row[low], row[high])
        assert row == expected


class TestGeomedian:
    @staticmethod
    def oracle(spectra: np.ndarray) -> np.ndarray:
        """Minimise the sum of distances from every observation and from the mean, and take the least."""

        def total(at: np.ndarray) -> float:
            return float(np.sqrt(((spectra - at) ** 2).sum(1)).sum())

        options = {"xatol": 1e-10, "fatol": 1e-15, "maxiter": 20_000, "maxfev": 20_000}
        found = [minimize(total, spectra.mean(0), method="Nelder-Mead", options=options).x, *spectra]
        return np.asarray(min(found, key=total))

    @pytest.mark.parametrize("count", [3, 5, 7, 12, 25])
    @pytest.mark.parametrize("noise", [0.05, 0.003])
    def test_agrees_with_the_oracle(self, count: int, noise: float) -> None:
        """Also spectra that are nearly on one line, as those of a field that turns green."""
        random = np.random.default_rng(count)
        season = random.random((count, 1, 12)) * np.array([-0.1, 0.05, 0.35])[:, None] + 0.2
        spectra = season + random.normal(0, noise, (count, 3, 12))
        found = geomedian(spectra)
        for cell in range(12):
            np.testing.assert_allclose(found[:, cell], self.oracle(spectra[:, :, cell]), atol=1e-5)

    @settings(max_examples=60, deadline=None)
    @given(st.integers(3, 12), st.integers(2, 5), st.integers(0, 2**32 - 1), st.sampled_from([1, 100, 10_000]))
    def test_no_other_spectrum_is_nearer(self, count: int, bands: int, seed: int, step: int) -> None:
        """Also among whole numbers, of which many are equal, on a line, or in a square."""
        random = np.random.default_rng(seed)
        spectra = random.integers(0, 10_000 // step + 1, (count, bands, 20)) * step * 1e-4
        found = geomedian(spectra)

        def total(at: np.ndarray) -> np.ndarray:
            return np.asarray(np.sqrt(((spectra - at) ** 2).sum(1)).sum(0))

        least = total(found)
        for other in (*spectra, spectra.mean(0), np.median(spectra, 0)):
            assert (least <= total(other) + 1e-6).all()
        for size in (1e-2, 1e-3, 1e-4):
            assert (least <= total(found + size * random.normal(size=found.shape)) + 1e-7).all()

    def test_it_is_at_an_observation_if_the_others_pull_less(self) -> None:
        """The point of Fermat of a triangle with an angle of more than 120 degrees is at this corner."""
        spectra = np.array([[0.1, 0.1], [0.3, 0.11], [0.5, 0.1]])[:, :, None]
        np.testing.assert_array_equal(geomedian(spectra)[:, 0], spectra[1, :, 0])

    def test_it_leaves_a_mean_that_is_an_observation(self) -> None:
        triangle = np.array([[0.0, 0.0], [0.4, 0.0], [0.1, 0.3]])
        spectra = np.concatenate([triangle, triangle.mean(0)[None] * 4 - triangle.sum(0)])[:, :, None]
        np.testing.assert_allclose(geomedian(spectra)[:, 0], self.oracle(spectra[:, :, 0]), atol=1e-6)

    @pytest.mark.parametrize("dtype", ["int16", "float32"])
    @pytest.mark.parametrize("count", [1, 2, 3, 4, 9])
    def test_of_identical_spectra_is_that_spectrum(self, dtype: str, count: int) -> None:
        one = random_stack(1, (1, 4, 5, 6), dtype)
        np.testing.assert_array_equal(made(np.repeat(one, count, 0), "geomedian").values, composite_of_one(one))

    def test_of_two_is_the_mean(self) -> None:
        values = random_stack(2, (2, 3, 5, 6))
        both = (values != NODATA).all((0, 1))
        np.testing.assert_array_equal(made(values, "geomedian").values[:, both], made(values, "mean").values[:, both])

    def test_of_one_band_is_the_median(self) -> None:
        values = random_stack(3, (8, 1, 5, 6))
        np.testing.assert_array_equal(made(values, "geomedian").values, made(values, "median").values)

    def test_moves_with_scale_and_rotation(self) -> None:
        spectra = np.random.default_rng(4).random((9, 3, 50)) * 0.5
        turn = Rotation.from_rotvec([0.3, -1.2, 0.7]).as_matrix()
        moved = np.einsum("ij,njc->nic", turn, spectra) * 1.7 + 0.1
        want = np.einsum("ij,jc->ic", turn, geomedian(spectra)) * 1.7 + 0.1
        np.testing.assert_allclose(geomedian(moved), want, atol=1e-6)

    def test_a_cell_does_not_depend_on_other_cells(self) -> None:
        """So blocks change no byte."""
        values = random_stack(5, (7, 3, 40, 60))
        whole = made(values, "geomedian").values
        part = made(np.ascontiguousarray(values[:, :, 13:20, 7:18]), "geomedian").values
        np.testing.assert_array_equal(whole[:, 13:20, 7:18], part)

    def test_indices_are_of_its_spectrum(self) -> None:
        values = random_stack(6, (6, 3, 5, 6))
        values[:, 1] = 7
        is_spectral = [True, False, True]
        found = made(values, "geomedian", is_spectral=is_spectral, indices_of=lambda spectrum: spectrum[1:] + 1)
        alone = made(np.ascontiguousarray(values[:, ::2]), "geomedian").values
        np.testing.assert_array_equal(found.values[::2], alone)
        kept = found.count > 0
        np.testing.assert_array_equal(found.values[1][kept], alone[1][kept] + 1)
        with pytest.raises(ValueError, match="function that computes the other bands"):
            made(values, "geomedian", is_spectral=is_spectral)


def composite_of_one(image: np.ndarray) -> np.ndarray:
    packing = PACKINGS[image.dtype.name]
    return np.where(packing.holes(image).any(1, keepdims=True), packing.nodata, image)[0]


class TestChosenDays:
    @pytest.mark.parametrize("dtype", ["int16", "float32"])
    @pytest.mark.parametrize("method", DAY_METHODS)
    def test_the_spectrum_was_observed_on_the_day_that_is_named(self, method: str, dtype: str) -> None:
        values = random_stack(dtype=dtype)
        found = made(values, method, score=values[:, 0])
        assert found.date is not None
        assert found.date.dtype == "uint16"
        numbers = [(day - EPOCH).days for day in days_of(len(values))]
        assert (found.count == 0).any()
        for y, x in np.ndindex(found.count.shape):
            if found.count[y, x]:
                observed = values[numbers.index(found.date[y, x]), :, y, x]
                assert not PACKINGS[dtype].holes(observed).any()
                np.testing.assert_array_equal(found.values[:, y, x], observed)
            else:
                assert found.date[y, x] == 0
                assert PACKINGS[dtype].holes(found.values[:, y, x]).all()

    def test_best_has_the_greatest_score_and_the_earliest_of_equal_ones(self) -> None:
        values = random_stack(7)
        score = np.random.default_rng(7).integers(0, 4, (9, 11, 13)).astype("int16")
        candidates = np.where((values != NODATA).all(1), score.astype(float), -np.inf)
        want = candidates.argmax(0)
        assert (candidates == candidates.max(0)).sum(0).max() > 1
        self.check(made(values, "best", score=score), values, want)
        least = np.where((values != NODATA).all(1), -score.astype(float), -np.inf).argmax(0)
        self.check(made(values, "best", score=score, is_least=True), values, least)

    def test_first_and_latest(self) -> None:
        values = random_stack(8)
        observed = (values != NODATA).all(1)
        self.check(made(values, "first"), values, observed.argmax(0))
        self.check(made(values, "first", is_least=True), values, 8 - observed[::-1].argmax(0))

    def test_medoid_is_nearest_to_the_geomedian_and_the_earliest_of_equal_ones(self) -> None:
        values = random_stack(9)
        found = made(values, "medoid")
        assert found.date is not None
        for y, x in np.ndindex(found.count.shape):
            observed = np.flatnonzero((values[:, :, y, x] != NODATA).all(1))
            if observed.size:
                spectra = values[observed, :, y, x] * 1e-4
                distance = np.linalg.norm(spectra - geomedian(spectra[:, :, None])[:, 0], axis=1)
                day = days_of(9)[observed[np.flatnonzero(distance <= distance.min() + 1e-6)[0]]]
                assert found.date[y, x] == (day - EPOCH).days

    @pytest.mark.parametrize("method", ["medoid", "best", "first"])
    def test_of_two_equal_observations_the_earlier(self, method: str) -> None:
        values = column([NODATA, NODATA], [400, 500], [400, 500])
        found = made(values, method, score=np.zeros((3, 1, 1), "int16"))
        assert found.date is not None
        assert found.date.item() == (days_of(3)[1] - EPOCH).days
        # Two observations have the same distance from their mean.
        other = made(column([100, 900], [800, 50]), "medoid")
        assert other.values.ravel().tolist() == [100, 900]

    def test_an_observation_without_a_score_is_not_chosen(self) -> None:
        values = column([1, 1], [2, 2], [3, 3])
        score = np.array([NODATA, 5, NODATA], "int16")[:, None, None]
        assert made(values, "best", score=score).values.ravel().tolist() == [2, 2]
        assert made(values, "best", score=score, is_least=True).values.ravel().tolist() == [2, 2]
        none = made(values, "best", score=np.full((3, 1, 1), np.nan, "float32"))
        assert none.date is not None
        assert (none.values.ravel().tolist(), none.count.item(), none.date.item()) == ([NODATA] * 2, 3, 0)
        with pytest.raises(ValueError, match="needs a score"):
            made(values, "best")

    @staticmethod
    def check(found: Composite, values: np.ndarray, index: np.ndarray) -> None:
        want = np.take_along_axis(values, index[None, None], 0)[0]
        np.testing.assert_array_equal(found.values, np.where(found.count > 0, want, NODATA))
        numbers = np.array([(day - EPOCH).days for day in days_of(len(values))])
        np.testing.assert_array_equal(found.date, np.where(found.count > 0, numbers[index], 0))


class TestAllMethods:
    @pytest.mark.parametrize("method", METHODS)
    @settings(max_examples=25, deadline=None)
    @given(values=arrays.arrays("int16", (5, 2, 2, 3), elements=st.sampled_from([NODATA, 0, 1, 500, 3000])))
    def test_masked_values_never_enter(self, method: str, values: np.ndarray) -> None:
        """The bands of an observation that is masked in one band are not used, except by the median and the mean."""
        found = made(values, method, score=values[:, 1])
        observed = (values != NODATA).all(1)
        if method not in ("median", "mean"):
            hidden = np.where(observed[:, None], values, NODATA)
            np.testing.assert_array_equal(made(hidden, method, score=values[:, 1]).values, found.values)
        valid = found.values != NODATA
        np.testing.assert_array_equal(valid, np.broadcast_to(observed.any(0), valid.shape))
        assert ((found.values >= 0) | ~valid).all()

    @pytest.mark.parametrize("method", METHODS)
    def test_one_observation_is_itself(self, method: str) -> None:
        values = column([NODATA, 4], [123, 456], [7, NODATA])
        alone = column([NODATA, NODATA], [123, 456], [NODATA, NODATA])
        assert made(alone, method, score=alone[:, 0]).values.ravel().tolist() == [123, 456]
        assert made(values, method, score=values[:, 0]).count.item() == 1

    @pytest.mark.parametrize("method", METHODS)
    def test_min_count(self, method: str) -> None:
        values = random_stack(10)
        whole, found = (made(values, method, score=values[:, 0], min_count=least) for least in (1, 4))
        is_kept = whole.count >= 4
        assert 0 < is_kept.sum() < is_kept.size
        np.testing.assert_array_equal(found.values, np.where(is_kept, whole.values, NODATA))
        np.testing.assert_array_equal(found.count, whole.count)
        if found.date is not None and whole.date is not None:
            np.testing.assert_array_equal(found.date, np.where(is_kept, whole.date, 0))

    @pytest.mark.parametrize("method", ["median", "mean", "geomedian", "medoid"])
    def test_order_of_days_changes_no_value(self, method: str) -> None:
        """The days of a stack are in order. Reversed days with reversed images are the same set of observations."""
        values = random_stack(11)
        reverse = made(np.ascontiguousarray(values[::-1]), method)
        if method != "medoid":
            np.testing.assert_array_equal(reverse.values, made(values, method).values)
        with pytest.raises(ValueError, match="not in the order of time"):
            made(values, method, days=days_of(9)[::-1])

    def test_an_index_has_its_own_median_and_defines_no_observation(self) -> None:
        values = random_stack(12)
        values[::2, 1] = NODATA
        found = made(values, "median", is_spectral=[True, False, True])
        np.testing.assert_array_equal(found.count, (values[:, ::2] != NODATA).all(1).sum(0))
        medoid = made(values, "medoid", is_spectral=[True, False, True])
        alone = made(np.ascontiguousarray(values[:, ::2]), "medoid")
        np.testing.assert_array_equal(medoid.date, alone.date)
        np.testing.assert_array_equal(medoid.values[::2], alone.values)


def a_cube(dtype: str = "float32", bands: Sequence[str] = ("red", "nir"), lazy: bool = True) -> xr.DataArray:
    """Images of two winters, not in the order of time; one late in the evening of UTC, at 90 degrees east."""
    times = ["2023-12-31T04:30", "2023-12-02T04:30", "2024-01-10T04:30", "2024-02-28T19:00", "2024-03-05T04:30"]
    values = random_stack(14, (5, len(bands), 20, 30), dtype)
    coords = {
        "time": np.array(times, "datetime64[ns]"), "band": list(bands),
        "y": 5_000_000 - 30 * np.arange(20) - 15.0, "x": 735_000 + 30 * np.arange(30) + 15.0,
    }  # fmt: skip
    data = da.from_array(values, chunks=(1, 1, 13, 17)) if lazy else values
    return xr.DataArray(data, coords, ("time", "band", "y", "x")).rio.write_crs("EPSG:32645")


class TestCube:
    @pytest.mark.parametrize("dtype", ["int16", "float32"])
    @pytest.mark.parametrize("method", METHODS)
    def test_is_that_of_the_stack_of_its_images(self, dtype: str, method: Any) -> None:
        cube = a_cube(dtype, ("red", "nir", "NDVI") if method == "best" else ("red", "nir"))
        lazy = s2cube.composite(cube, period="season", method=method, min_count=2)
        assert isinstance(lazy.data, da.Array)
        found = lazy.compute()
        assert found.period.values.tolist() == ["2024DJF", "2024MAM"]
        assert found.time.values.astype("M8[D]").astype(str).tolist() == ["2023-12-01", "2024-03-01"]
        order = [1, 0, 2, 3]
        days = [date(2023, 12, 2), date(2023, 12, 31), date(2024, 1, 10), date(2024, 2, 29)]
        values = cube.values[order]
        is_spectral = [each != "NDVI" for each in cube.band.values]
        want = made(values, method, days=days, is_spectral=is_spectral, min_count=2, score=values[:, -1])
        np.testing.assert_array_equal(found.values[0], want.values)
        np.testing.assert_array_equal(found["count"].values[0], want.count)
        assert ("date" in found.coords) == (method in DAY_METHODS)
        if want.date is not None:
            np.testing.assert_array_equal(found["date"].values[0], want.date)
        assert (found.dtype, found["count"].dtype, found.name) == (cube.dtype, "uint16", method)
        np.testing.assert_equal([lazy.rio.nodata, found.encoding["_FillValue"]], [PACKINGS[dtype].nodata] * 2)
        assert found.rio.crs.to_epsg() == 32645

    def test_periods_of_its_range(self) -> None:
        cube = a_cube(lazy=False)

        def names(period: str, **stated: Any) -> list[str]:
            named: list[str] = s2cube.composite(cube, period=period, **stated).period.values.tolist()
            return named

        assert names("month") == ["202312", "202401", "202402", "202403"]
        assert names("year") == ["2023", "2024"]
        assert names("all") == ["20231202-20240305"]
        assert names("P40D") == ["20231202", "20240220"]
        assert names("P40D", datetime="2023-12/2024-03") == ["20231201", "20240110", "20240219"]
        assert names("month", datetime=("2024-02-29", None)) == ["202402", "202403"]
        whole = s2cube.composite(cube, period="month", datetime=("2024-02-29", "2024-03-31"))
        assert whole.time.values[0] == np.datetime64("2024-02-29")

    def test_order_of_images_changes_no_value(self) -> None:
        cube = a_cube("int16")
        xr.testing.assert_identical(
            s2cube.composite(cube, method="medoid").compute(),
            s2cube.composite(cube.isel(time=[3, 1, 4, 0, 2]), method="medoid").compute(),
        )

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"period": "week"}, "period: 'week' is not a period"),
            ({"method": "max"}, "method: 'max' is unknown"),
            ({"min_count": 0}, "min_count: 0 is not"),
            (
                {"method": "best", "score": "EVI"},
                "score 'EVI': the cube has no band of this name; its bands are red, nir",
            ),
            (
                {"datetime": "2020"},
                "no image of the cube is in this range; its images are from 2023-12-02 to 2024-03-05",
            ),
            ({"datetime": "yesterday"}, "datetime: 'yesterday' is not a date"),
            ({"period": "all", "datetime": "2024/.."}, "this range has no end"),
        ],
    )
    def test_wrong_settings(self, settings: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            s2cube.composite(a_cube(), **settings)

    @pytest.mark.parametrize(
        ("bands", "method", "message"),
        [
            (("red", "scl"), "median", "computes no scl: it is a class"),
            (("red", "NDVI"), "geomedian", "an index has no geometric median"),
            (("NDVI", "EVI"), "medoid", "needs bands of reflectance, and the cube has none"),
        ],
    )
    def test_bands_that_the_method_cannot_compose(self, bands: tuple[str], method: Any, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            s2cube.composite(a_cube(bands=bands), method=method)

    def test_wrong_cubes(self) -> None:
        cube = a_cube()
        for wrong, message in (
            (cube.sel(band="red"), "no cube of the dimensions time, band, y, x"),
            (cube.astype("float64"), "has the dtype float64"),
            (cube.isel(time=[]), "is empty"),
            (xr.concat([cube, cube], "time"), "has several images of 2023-12-02"),
            (xr.DataArray(cube.values, cube.drop_vars("spatial_ref").coords, cube.dims), "has no grid with a CRS"),
        ):
            with pytest.raises(ConfigError, match=message):
                s2cube.composite(wrong)


@pytest.fixture(scope="module")
def opened(archive: Archive) -> xr.DataArray:
    aoi = s2cube.read_aoi(archive.aoi)
    items = s2cube.search(aoi, stac=str(archive.items))
    return s2cube.open_cube(items, aoi, bands=["red", "nir"], resolution=60, dtype="int16")


class TestArchive:
    def test_can_be_written(self, opened: xr.DataArray, tmp_path: Path) -> None:
        months = s2cube.composite(opened, period="month", method="medoid")
        paths = [Path(path) for path in s2cube.write_cogs(months, tmp_path, name="medoid", progress=False)]
        assert [path.name for path in paths] == [
            f"farm_{month}01_medoid.tif" for month in months.period.values.tolist()
        ]
        computed = months.compute()
        for path, month in zip(paths, computed, strict=True):
            with rasterio.open(path) as file:
                assert file.nodata == NODATA
                np.testing.assert_array_equal(file.read(), month.values)
        assert "qa" not in months.coords

    def test_days_are_those_of_the_slices(self, opened: xr.DataArray) -> None:
        days = s2cube.composite(opened, period="P1D", method="first").period.values.tolist()
        assert [f"farm_{day}" for day in days] == opened["slice"].values.tolist()
