"""Indices of arrays, against spyndex, closed forms, and by hand."""

import doctest

import numpy as np
import pytest
import spyndex
from hypothesis import given
from hypothesis import strategies as st

from s2cube.kernels import indices
from s2cube.kernels.indices import BeyondInt16, beyond_int16, index_values, pack_index
from s2cube.sentinel2 import BAND_ASSETS
from s2cube.spectral_indices import known_indices

BANDS = tuple(BAND_ASSETS)
NAN = np.float32(np.nan)


def spectra(shape: tuple[int, ...], seed: int = 0, lowest: float = -0.02) -> np.ndarray:
    return np.random.default_rng(seed).uniform(lowest, 0.9, (len(BANDS), *shape)).astype("float32")


def by_spyndex(name: str, reflectance: np.ndarray) -> np.ndarray:
    symbols = {symbol: reflectance[BANDS.index(band)] for symbol, band in known_indices()[name].bands.items()}
    constants = {key: each.default for key, each in spyndex.constants.items()}
    with np.errstate(all="ignore"):
        found = np.asarray(spyndex.computeIndex(name, constants | symbols))
    assert found.dtype == "float32"
    return np.where(np.isfinite(found), found, NAN)


def test_examples() -> None:
    assert doctest.testmod(indices).failed == 0
    assert doctest.testmod(indices).attempted > 0


@pytest.mark.parametrize("name", known_indices())
def test_every_index_is_that_of_spyndex_to_the_bit(name: str) -> None:
    reflectance = spectra((7, 9))
    found = index_values(reflectance, BANDS, [name])
    assert (found.dtype, found.shape) == ("float32", (1, 7, 9))
    np.testing.assert_array_equal(found[0], by_spyndex(name, reflectance))
    assert np.isfinite(found).any()


def test_ndvi_in_closed_form() -> None:
    red, nir = (spectra((50, 40), 1, 0.01)[BANDS.index(band)] for band in ("red", "nir"))
    (found,) = index_values(np.stack([nir, red]), ["nir", "red"], ["NDVI"])
    exact = (nir.astype(float) - red) / (nir.astype(float) + red)
    np.testing.assert_allclose(found, exact, rtol=0, atol=1e-6)


def test_an_order_and_bands_that_no_formula_needs() -> None:
    reflectance = spectra((5,))
    names = ["EVI", "NDVI", "NDWI"]
    found = index_values(reflectance[::-1], BANDS[::-1], names)
    for row, name in zip(found, names, strict=True):
        np.testing.assert_array_equal(row, by_spyndex(name, reflectance))


@pytest.mark.parametrize("name", ["RWI", "OCVI", "EVI", "GDVI"])
def test_a_value_does_not_depend_on_its_place(name: str) -> None:
    """Powers are computed several at a time by the processor: a rest of them must have the same bits."""
    reflectance = spectra((2 * indices._CELLS_AT_ONCE + 13,), lowest=0.001)
    (whole,) = index_values(reflectance, BANDS, [name])
    for first, last in ((0, 1), (3, 20), (5, 6000), (indices._CELLS_AT_ONCE - 3, indices._CELLS_AT_ONCE + 4)):
        np.testing.assert_array_equal(index_values(reflectance[:, first:last], BANDS, [name])[0], whole[first:last])
    strided = index_values(reflectance[:, ::3], BANDS, [name])[0]
    np.testing.assert_array_equal(strided, whole[::3])


class TestWithoutValue:
    def test_a_band_of_the_formula_is_missing(self) -> None:
        reflectance = np.array([[0.1, NAN, 0.1, NAN], [0.3, 0.3, NAN, 0.3], [NAN, 0.2, 0.2, 0.2]], "float32")
        found = index_values(reflectance, ["red", "nir", "blue"], ["NDVI", "EVI", "BNDVI"])
        assert np.isnan(found).tolist() == [
            [False, True, True, True], [True, True, True, True], [True, False, True, False],
        ]  # fmt: skip

    def test_the_formula_divides_by_zero(self) -> None:
        found = index_values(np.array([[0, 0.2, -0.2], [0, 0.2, 0.2]], "float32"), ["red", "nir"], ["NDVI"])
        np.testing.assert_array_equal(found, [[NAN, 0, NAN]])

    def test_it_divides_by_a_quotient_that_divides_by_zero(self) -> None:
        """EBI is (red+green+blue) / ((green/blue) * …): infinity as a divisor would give 0."""
        found = index_values(np.array([[0.1], [0.1], [0.0]], "float32"), ["red", "green", "blue"], ["EBI"])
        assert np.isnan(found).all()

    def test_a_difference_is_infinite(self) -> None:
        huge = np.array([[3e38], [-3e38]], "float32")
        assert np.isnan(index_values(huge, ["nir", "red"], ["DVI"])).all()

    def test_a_root_of_a_negative_number(self) -> None:
        assert np.isnan(index_values(np.array([[-0.1], [0.1]], "float32"), ["green", "swir16"], ["RWI"])).all()

    def test_numpy_does_not_warn(self, recwarn: pytest.WarningsRecorder) -> None:
        index_values(np.zeros((12, 4), "float32"), BANDS, list(known_indices()))
        assert [str(each.message) for each in recwarn] == []


class TestPacking:
    @given(st.lists(st.floats(-4, 4, width=32) | st.just(np.nan), min_size=1, max_size=40))
    def test_int16_is_within_half_a_step(self, values: list[float]) -> None:
        given_values = np.array(values, "float32")
        packed = pack_index(given_values, "int16")
        assert packed.dtype == "int16"
        is_stored = ~(np.isnan(given_values) | (np.abs(given_values) > np.float32(3.2767)))
        np.testing.assert_array_equal(packed == -9999, ~is_stored)
        error = np.abs(packed[is_stored] / 10_000 - given_values[is_stored].astype(float))
        near_nodata = np.abs(given_values[is_stored] + 0.9999) < 0.0002
        assert (error <= np.where(near_nodata, 1.01e-4, 0.5005e-4)).all()

    def test_nodata_is_no_value(self) -> None:
        values = np.array([-0.9999, -0.99991, -0.99989, -0.99984, -1, 3.2767, -3.2767, 3.2768, -3.2768], "float32")
        packed = pack_index(values, "int16")
        assert packed[1:].tolist() == [-10000, -9998, -9998, -10000, 32767, -32767, -9999, -9999]
        assert packed[0] in (-9998, -10000)
        assert beyond_int16(values).tolist() == [False] * 7 + [True] * 2

    def test_float32_is_unchanged(self) -> None:
        values = np.array([7.5, NAN, -0.9999], "float32")
        np.testing.assert_array_equal(pack_index(values, "float32"), values)

    def test_a_chunk_counts_once(self) -> None:
        beyond = BeyondInt16()
        for name, chunk, cells in (("EVI", (0, 0), 3), ("EVI", (0, 1), 2), ("EVI", (0, 0), 3), ("NDVI", (0, 0), 0)):
            beyond.add(name, chunk, cells)
        assert beyond.cells == {"EVI": 5}
