"""Statistics of bands: those of GDAL and of the closed form, whatever the chunks are."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rasterio.enums import ColorInterp
from rio_cogeo import cog_validate

import s2cube
from s2cube.demo.archive import Archive
from s2cube.kernels.packing import PACKINGS
from s2cube.output._statistics import Tally
from s2cube.sentinel2 import QA
from support.images import image, image_to_cog

NAMES = ("MINIMUM", "MAXIMUM", "MEAN", "STDDEV", "VALID_PERCENT")


def tally(values: np.ndarray, rows: int, columns: int, backwards: bool = False) -> Tally:
    """Sum values (band, y, x) in chunks."""
    result = Tally(len(values))
    corners = list(itertools.product(range(0, values.shape[1], rows), range(0, values.shape[2], columns)))
    for row, column in reversed(corners) if backwards else corners:
        chunk = values[:, row : row + rows, column : column + columns]
        result.add(chunk, ~PACKINGS[values.dtype.name].holes(chunk), 0, row, column)
    return result


@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_they_are_those_of_gdal(tmp_path: Path, dtype: str) -> None:
    image_to_cog(image(700, dtype), tmp_path / "x.tif")
    assert cog_validate(tmp_path / "x.tif", strict=True)[0]
    with rasterio.open(tmp_path / "x.tif") as cog, rasterio.MemoryFile() as bare:
        with bare.open(**cog.profile | {"driver": "GTiff"}) as copy:
            copy.write(cog.read())
        with bare.open() as copy:
            assert not copy.tags(1)
            for number in cog.indexes:
                tags = [float(cog.tags(number)[f"STATISTICS_{name}"]) for name in NAMES]
                want = copy.stats(indexes=number, approx=False)[0]
                assert tags[:4] == pytest.approx([want.min, want.max, want.mean, want.std], rel=1e-6)
                assert tags[4] == 93.75
    assert [each.name for each in tmp_path.iterdir()] == ["x.tif"]


@given(arrays("int16", (2, 7, 9)), st.integers(1, 9), st.integers(1, 9), st.booleans())
def test_integers_in_closed_form(values: np.ndarray, rows: int, columns: int, backwards: bool) -> None:
    for band, found in zip(values, tally(values, rows, columns, backwards).statistics(70), strict=True):
        valid = band[band != -9999].astype("float64")
        assert (found.minimum, found.maximum) == (valid.min(), valid.max())
        assert found.mean == pytest.approx(valid.mean(), rel=1e-12, abs=1e-9)
        assert found.stddev == pytest.approx(valid.std(), rel=1e-12, abs=1e-9)
        assert found.valid_percent == 100 * valid.size / 70


@given(
    arrays("float32", (1, 7, 9), elements=st.floats(width=32, allow_infinity=True)),
    st.integers(1, 9), st.integers(1, 9), st.booleans(),
)  # fmt: skip
def test_floats_to_the_bit(values: np.ndarray, rows: int, columns: int, backwards: bool) -> None:
    (found,) = tally(values, rows, columns, backwards).statistics(63)
    (whole,) = tally(values, 7, 9).statistics(63)
    assert repr(found) == repr(whole)
    finite = values[np.isfinite(values)].astype("float64")
    if not finite.size:
        assert (found.minimum, found.mean, found.stddev, found.valid_percent) == (None, None, None, 0)
        return
    assert found.mean == pytest.approx(math.fsum(finite) / finite.size, rel=1e-14)
    deviations = math.fsum((finite - found.mean) ** 2 / finite.size)
    assert found.stddev == pytest.approx(math.sqrt(deviations), rel=1e-6, abs=1e-6 * abs(finite).max())


def test_a_chunk_that_is_computed_twice_counts_once() -> None:
    values = np.arange(12, dtype="int16").reshape(1, 3, 4)
    twice = tally(values, 3, 4)
    twice.add(values, values >= 0, 0, 0, 0)
    assert twice.statistics(12) == tally(values, 1, 1).statistics(12)
    assert twice.statistics(12)[0].valid_percent == 100


def test_of_a_cube_by_any_chunks(archive: Archive, tmp_path: Path) -> None:
    """Of the pixels in the file; the valid percentage of GDAL is a share of the raster."""
    aoi = s2cube.read_aoi(archive.aoi)
    items = s2cube.search(aoi, stac=str(archive.items), datetime="2022-06")
    for dtype in ("int16", "float32"):
        paths = []
        for name, chunks in (("one", {}), ("many", {"x": 37, "y": 50, "band": 2})):
            cube: xr.DataArray = s2cube.open_cube(items, aoi, bands=["red", "green", "nir"], dtype=dtype)
            (path,) = s2cube.write_cogs(cube.chunk(chunks), tmp_path / dtype / name)
            paths.append(Path(path))
        assert paths[0].read_bytes() == paths[1].read_bytes()
        with rasterio.open(paths[0]) as cog:
            for number in cog.indexes:
                values = cog.read(number, masked=True)
                tags = cog.tags(number)
                assert float(tags["STATISTICS_MEAN"]) == pytest.approx(values.mean(dtype="float64"), rel=1e-9)
                assert float(tags["STATISTICS_VALID_PERCENT"]) == pytest.approx(
                    100 * values.count() / values.size, abs=0.01
                )
        with rasterio.open(str(paths[0]).replace(".tif", "_qa.tif")) as qa:
            assert (qa.read(1) == QA.OUTSIDE).any()


def test_nothing_valid_has_no_statistics(tmp_path: Path) -> None:
    source = image(8)
    source.values[:] = -9999
    image_to_cog(source, tmp_path / "x.tif")
    with rasterio.open(tmp_path / "x.tif") as cog:
        assert not [tag for tag in cog.tags(1) if tag.startswith("STATISTICS")]


@pytest.mark.parametrize("dtype", ["int16", "float32"])
@pytest.mark.parametrize(
    ("bands", "colours"),
    [
        (("red", "green", "blue", "nir", "swir16"), ("red", "green", "blue", "nir", "swir")),
        (("B02", "B03", "B04", "B05"), ("blue", "green", "red", "rededge")),
        (("coastal",), ("coastal",)),
        (("my index", "red"), ("undefined", "red")),
    ],
)
def test_colours_of_bands(tmp_path: Path, dtype: str, bands: tuple[str, ...], colours: tuple[str, ...]) -> None:
    image_to_cog(image(20, dtype, bands), tmp_path / "x.tif")
    with rasterio.open(tmp_path / "x.tif") as cog:
        assert cog.colorinterp == tuple(ColorInterp[name] for name in colours)
        np.testing.assert_array_equal(cog.read(), image(20, dtype, bands).values)
    assert cog_validate(tmp_path / "x.tif", strict=True)[0]
