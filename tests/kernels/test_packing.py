"""What is computed from a cube and saved comes back with the values that it had in memory, whatever saves and reads."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import odc.geo.xr
import pytest
import rasterio
import rioxarray
import shapely
import xarray as xr
from odc.geo.geom import Geometry

import s2cube
from s2cube.area.aoi import AOI
from s2cube.config.literals import Dtype
from s2cube.cube.facts import describe, sources_of
from s2cube.errors import OutputError
from s2cube.sentinel2 import QA
from support.scenes import EPSG, LEFT_M, TOP_M, scene

pytestmark = [
    pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:Mean of empty slice:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:The data type:zarr.errors.UnstableSpecificationWarning"),
]

CELLS = 20
CLOUDED = np.s_[..., 4:8, 4:8]
EDGE_M = CELLS * 30 - 20
TRIANGLE = shapely.Polygon([(LEFT_M, TOP_M), (LEFT_M + EDGE_M, TOP_M), (LEFT_M, TOP_M - EDGE_M)])
"""An area of interest that leaves out half of its grid; no cell has its centre on the edge."""


def digital_numbers(band: str, second: int) -> np.ndarray:
    """Of every cell, constant inside it: red from 500 down, near infrared from 2000 up, other ones each time."""
    cells = np.arange(CELLS * CELLS).reshape(CELLS, CELLS)
    return (500 + cells // 4 if band == "red" else 2000 + 3 * cells) + 10 * second


def reflectance(band: str) -> np.ndarray:
    """What a cube must hold by the numbers above: (time, y, x), NaN under the cloud and outside the triangle."""
    values = np.stack([digital_numbers(band, second) for second in (0, 1)]) / 1e4
    values[CLOUDED] = np.nan
    middles = (np.arange(CELLS) + 0.5) * 30
    x_m, y_m = np.meshgrid(LEFT_M + middles, TOP_M - middles)
    return np.where(shapely.contains_xy(TRIANGLE, x_m, y_m), values, np.nan)


Open = Callable[..., xr.DataArray]


@pytest.fixture(scope="module")
def open_(tmp_path_factory: pytest.TempPathFactory) -> Open:
    """Open a cube of two scenes with a cloud in each."""
    folder = tmp_path_factory.mktemp("scenes")
    classes = np.full((300, 300), 4, "uint8")
    classes[6:12, 6:12] = 9
    items = []
    for second in (0, 1):
        layers = {}
        for band in ("red", "nir"):
            pixels = np.full((600, 600), 100, "uint16")
            pixels[: 3 * CELLS, : 3 * CELLS] = digital_numbers(band, second).repeat(3, 0).repeat(3, 1)
            layers[band] = pixels
        items.append(scene(folder, f"s{second}", second, scl=classes, **layers))
    aoi = AOI("field", Geometry(TRIANGLE, f"EPSG:{EPSG}"))

    return partial(s2cube.open_cube, items, aoi, bands=["red", "nir"], group_by="scene")


@pytest.fixture(scope="module")
def computed(open_: Open) -> dict[str, xr.DataArray]:
    """The cube in memory, by dtype."""
    return {dtype: open_(dtype=dtype).compute() for dtype in ("float32", "int16")}


def ndvi(cube: xr.DataArray) -> xr.DataArray:
    red, nir = cube.sel(band="red", drop=True), cube.sel(band="nir", drop=True)
    return (nir - red) / (nir + red)


def masked(cube: xr.DataArray) -> xr.DataArray:
    return cube.where(cube != -9999)


DERIVED: dict[str, Callable[[xr.DataArray], xr.DataArray]] = {
    "cube": lambda cube: cube,
    "some dates and bands": lambda cube: cube.isel(time=[1]).sel(band=["nir"]),
    "a band": lambda cube: cube.sel(band="nir"),
    "masked": masked,
    "ndvi": lambda cube: ndvi(masked(cube)),
    "ndvi of all": ndvi,
    "median": lambda cube: masked(cube).median("time"),
    "median of all": lambda cube: cube.median("time"),
    "mean": lambda cube: masked(cube).mean(),
    "scaled": lambda cube: cube * 0.0001,
    "unchanged": lambda cube: cube + 0,
    "difference": lambda cube: cube.sel(band="nir", drop=True) - cube.sel(band="red", drop=True),
    "clipped": lambda cube: cube.clip(0.01, 0.2),
    "filled": lambda cube: masked(cube).fillna(-1),
    "float32": lambda cube: cube.astype("float32"),
    "int32": lambda cube: masked(cube).fillna(-7).astype("int32"),
    "greater": lambda cube: cube > 0.1,
    "shifted": lambda cube: cube.shift(x=1),
    "field": lambda cube: masked(cube).rio.clip([TRIANGLE.buffer(-60)]),
    "reprojected": lambda cube: masked(cube).isel(time=0).rio.reproject("EPSG:32615"),
    "clouds": lambda cube: (cube.qa == QA.CLOUD).sum("time"),
    "qa": lambda cube: cube.qa,
}
"""What people compute of a cube."""


def netcdf(engine: Literal["scipy", "netcdf4"]) -> Callable[[xr.DataArray, Path], xr.DataArray]:
    def through(derived: xr.DataArray, folder: Path) -> xr.DataArray:
        if engine == "scipy":  # netCDF 3 has no unsigned integers
            derived = derived.drop_vars("qa", errors="ignore")
            derived = derived.astype("int16") if derived.dtype == "uint8" else derived
        derived.to_dataset(name="result").to_netcdf(folder / "x.nc", engine=engine)
        with xr.open_dataset(folder / "x.nc", engine=engine) as back:
            return back["result"].load()

    return through


def zarr(version: Literal[2, 3]) -> Callable[[xr.DataArray, Path], xr.DataArray]:
    def through(derived: xr.DataArray, folder: Path) -> xr.DataArray:
        # zarr warns of consolidated metadata in format 3.
        once = version == 2
        derived.to_dataset(name="result").to_zarr(folder / "x.zarr", zarr_format=version, consolidated=once)
        return xr.open_zarr(folder / "x.zarr", consolidated=once)["result"].load()

    return through


STORES = {"netCDF 3": netcdf("scipy"), "netCDF 4": netcdf("netcdf4"), "Zarr 2": zarr(2), "Zarr 3": zarr(3)}


def raster_rio(image: xr.DataArray, path: Path) -> None:
    image.rio.to_raster(path)


def raster_odc(image: xr.DataArray, path: Path) -> None:
    odc.geo.xr.write_cog(image.compute(), path)


def read_rasterio(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        pixels = file.read(masked=True)
        assert set(file.scales) == {1}
    filled: np.ndarray = pixels.astype(float).filled(np.nan)
    return filled


RASTER_READERS: dict[str, Callable[[Path], np.ndarray]] = {
    "rasterio": read_rasterio,
    "rioxarray": lambda path: rioxarray.open_rasterio(path, masked=True).values,
    "rioxarray scaled": lambda path: rioxarray.open_rasterio(path, mask_and_scale=True).values,
}


def without_nodata(derived: xr.DataArray) -> np.ndarray:
    """Give the values in memory; of an int16 cube and parts of it, NaN for nodata, as readers do."""
    is_packed = derived.encoding.get("_FillValue") == -9999
    return derived.where(derived != -9999).values if is_packed else derived.values


class TestInMemory:
    def test_the_default_is_reflectance(self, open_: Open) -> None:
        cube = open_()
        assert cube.dtype == np.float32
        for band in ("red", "nir"):
            np.testing.assert_allclose(cube.sel(band=band).values, reflectance(band), rtol=1e-6)
        assert 0 < np.isnan(reflectance("red")).sum() < reflectance("red").size

    def test_an_index_of_the_default_is_right_or_nan(self, open_: Open) -> None:
        red, nir = reflectance("red"), reflectance("nir")
        np.testing.assert_allclose(ndvi(open_()).values, (nir - red) / (nir + red), rtol=1e-5)

    def test_int16_is_packed(self, open_: Open) -> None:
        cube = open_(dtype="int16")
        assert cube.dtype == np.int16
        for band in ("red", "nir"):
            want = np.nan_to_num(np.round(reflectance(band) * 1e4), nan=-9999)
            np.testing.assert_array_equal(cube.sel(band=band).values, want)

    def test_an_index_of_int16_is_right_once_it_is_masked(self, open_: Open) -> None:
        red, nir = reflectance("red"), reflectance("nir")
        got = ndvi(masked(open_(dtype="int16")))
        np.testing.assert_allclose(got.values, (nir - red) / (nir + red), rtol=1e-5)

    @pytest.mark.parametrize(("dtype", "nodata"), [("float32", np.nan), ("int16", -9999)])
    def test_the_cube_knows_its_nodata(self, open_: Open, dtype: Dtype, nodata: float) -> None:
        cube = open_(dtype=dtype)
        np.testing.assert_equal(cube.rio.nodata, nodata)
        for part in (cube, cube.isel(time=0), cube.sel(band="red"), cube.compute(), cube.chunk(x=5)):
            np.testing.assert_equal(part.odc.nodata, nodata)
            np.testing.assert_equal(part.rio.encoded_nodata, nodata)

    @pytest.mark.parametrize("dtype", ["float32", "int16"])
    @pytest.mark.parametrize("what", ["masked", "ndvi", "median", "scaled", "unchanged", "difference", "int32"])
    def test_what_is_computed_claims_no_nodata(
        self, computed: dict[str, xr.DataArray], dtype: Dtype, what: str
    ) -> None:
        derived = DERIVED[what](computed[dtype])
        assert derived.rio.nodata is None
        assert derived.odc.nodata is None

    @pytest.mark.parametrize("dtype", ["float32", "int16"])
    def test_attributes_are_true_of_whatever_is_computed(self, open_: Open, dtype: Dtype) -> None:
        cube = open_(dtype=dtype)
        assert set(cube.attrs) == {"aoi", "aoi_wkt_lonlat", "grid", "opened_as", "provenance"}
        assert cube.attrs["opened_as"].startswith(dtype)
        assert cube.qa.attrs == {}

    def test_a_part_of_a_field_has_no_zeros_round_it(self, open_: Open) -> None:
        """Of integers whose nodata rioxarray does not know it makes 0 of what lies outside."""
        cube, part = open_(dtype="int16"), TRIANGLE.buffer(-90)
        whole = cube.rio.clip([part])
        image = cube.isel(time=0).rio.set_nodata(-9999).rio.clip([part])
        assert set(np.unique(whole.values[whole.values < 500])) == {-9999}
        np.testing.assert_array_equal(image.values, whole.isel(time=0).values)


@pytest.mark.slow
@pytest.mark.parametrize("what", DERIVED)
@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_a_store_gives_back_what_was_in_memory(
    computed: dict[str, xr.DataArray], tmp_path: Path, dtype: Dtype, store: str, what: str
) -> None:
    derived = DERIVED[what](computed[dtype])
    back = STORES[store](derived, tmp_path)
    np.testing.assert_array_equal(back.values, without_nodata(derived))
    assert back.dims == derived.dims


@pytest.mark.parametrize("what", [name for name in DERIVED if name != "mean"])
@pytest.mark.parametrize("writer", [raster_rio, raster_odc])
@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_a_raster_gives_back_what_was_in_memory(
    computed: dict[str, xr.DataArray], tmp_path: Path, dtype: Dtype, writer: Callable[..., None], what: str
) -> None:
    derived = DERIVED[what](computed[dtype])
    image = derived.isel(time=0) if "time" in derived.dims else derived
    if image.dtype == bool:
        image = image.astype("uint8")
    writer(image, tmp_path / "x.tif")
    for read in RASTER_READERS.values():
        np.testing.assert_array_equal(read(tmp_path / "x.tif").squeeze(), without_nodata(image).squeeze())


@pytest.mark.parametrize("store", ["netCDF 3", "netCDF 4", "Zarr 2", "Zarr 3"])
def test_the_numbers_of_an_int16_cube_are_stored_as_they_are(
    computed: dict[str, xr.DataArray], tmp_path: Path, store: str
) -> None:
    STORES[store](computed["int16"], tmp_path)
    (path,) = tmp_path.glob("x.*")
    options: dict[str, Any] = {"engine": "zarr", "consolidated": store == "Zarr 2"} if path.suffix == ".zarr" else {}
    with xr.open_dataset(path, mask_and_scale=False, **options) as back:
        np.testing.assert_array_equal(back["result"].values, computed["int16"].values)
        assert back["result"].dtype == np.int16
        assert back["result"].attrs["_FillValue"] == -9999
        if store != "netCDF 3":
            np.testing.assert_array_equal(back["qa"].values, computed["int16"].qa.values)


@pytest.mark.parametrize("store", ["netCDF 4", "Zarr 2", "Zarr 3"])
@pytest.mark.parametrize("what", ["cube", "some dates and bands", "ndvi", "scaled"])
@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_a_store_gives_back_what_describes_the_cube(
    computed: dict[str, xr.DataArray], tmp_path: Path, dtype: Dtype, store: str, what: str
) -> None:
    derived = DERIVED[what](computed[dtype])
    back = STORES[store](derived, tmp_path)
    assert (back.qa.dtype, back.qa.dims) == (np.uint8, ("time", "y", "x"))
    np.testing.assert_array_equal(back.qa.values, derived.qa.values)
    for name in ("slice", "scenes", "time"):
        np.testing.assert_array_equal(back[name].values, derived[name].values)
    assert back.odc.geobox == derived.odc.geobox
    assert back.rio.crs.to_epsg() == EPSG
    assert back.attrs == derived.attrs
    if what in ("cube", "some dates and bands"):
        np.testing.assert_equal(back.rio.encoded_nodata, np.nan if dtype == "float32" else -9999)


@pytest.mark.parametrize("count", [1, 3000])
def test_sources_of_many_slices_come_back_from_netcdf(
    computed: dict[str, xr.DataArray], tmp_path: Path, count: int
) -> None:
    """An attribute of a netCDF file may be larger than 64 kB."""
    first = next(iter(sources_of(computed["float32"]).values()))
    days = [replace(first, slice=f"field_{number}", scenes=(f"s{number}",) * 3) for number in range(count)]
    cube = computed["float32"].isel(x=[0], y=[0], time=[0]).drop_vars(["slice", "scenes"])
    described = describe(cube.isel(time=[0] * count), days)
    described.to_netcdf(tmp_path / "x.nc")
    with xr.open_dataarray(tmp_path / "x.nc") as back:
        assert sources_of(back) == {each.slice: each for each in days}


def test_a_table_has_short_rows(computed: dict[str, xr.DataArray]) -> None:
    table = ndvi(computed["float32"]).to_dataframe(name="ndvi").reset_index()
    assert set(table.columns) == {"time", "y", "x", "slice", "scenes", "qa", "spatial_ref", "ndvi"}
    assert table.memory_usage().sum() / len(table) < 60


@pytest.mark.parametrize("writer", [raster_rio, raster_odc])
@pytest.mark.parametrize(
    ("dtype", "what", "nodata"),
    [
        ("int16", "cube", (-9999,)), ("float32", "cube", (np.nan,)), ("int16", "difference", (None,)),
        # odc-geo tells NaN for all floats.
        ("int16", "ndvi", (None, np.nan)), ("int16", "masked", (None, np.nan)), ("float32", "ndvi", (None, np.nan)),
    ],
)  # fmt: skip
def test_a_raster_tells_no_nodata_that_is_untrue(
    computed: dict[str, xr.DataArray], tmp_path: Path, writer: Callable[..., None], dtype: Dtype, what: str,
    nodata: tuple[float | None, ...],
) -> None:  # fmt: skip
    writer(DERIVED[what](computed[dtype]).isel(time=0), tmp_path / "x.tif")
    with rasterio.open(tmp_path / "x.tif") as file:
        assert str(file.nodata) in map(str, nodata) or file.nodata in nodata


class TestWriteCogs:
    @pytest.mark.parametrize("dtype", ["float32", "int16"])
    def test_files_have_the_dtype_of_the_cube(self, open_: Open, tmp_path: Path, dtype: Dtype) -> None:
        cube = open_(dtype=dtype)
        for path, image in zip(s2cube.write_cogs(cube, tmp_path), cube, strict=True):
            with rasterio.open(path) as file:
                assert file.dtypes == (dtype, dtype)
                assert file.scales == ((1, 1) if dtype == "float32" else (0.0001, 0.0001))
                assert file.units == ("1", "1")
                np.testing.assert_equal(file.nodata, np.nan if dtype == "float32" else -9999)
                np.testing.assert_array_equal(file.read(), image.values)

    def test_the_default_is_written_as_float32(self, open_: Open, tmp_path: Path) -> None:
        path, _ = s2cube.write_cogs(open_(), tmp_path)
        with rasterio.open(path) as file:
            np.testing.assert_allclose(file.read(1), reflectance("red")[0], rtol=1e-6)

    @pytest.mark.parametrize("dtype", ["float32", "int16"])
    def test_a_cube_in_memory_or_in_other_chunks_is_written_alike(
        self, open_: Open, tmp_path: Path, dtype: Dtype
    ) -> None:
        cube = open_(dtype=dtype)
        files = []
        for number, same in enumerate([cube, cube.compute(), cube.persist(), cube.chunk(x=7), cube.copy(deep=True)]):
            s2cube.write_cogs(same, tmp_path / str(number))
            files.append([path.read_bytes() for path in sorted((tmp_path / str(number)).glob("field/*/*"))])
        assert len(files[0]) == 10
        assert all(each == files[0] for each in files)

    @pytest.mark.parametrize("dtype", ["float32", "int16"])
    @pytest.mark.parametrize(
        "what", ["masked", "scaled", "unchanged", "clipped", "filled", "float32", "int32", "greater", "field"]
    )
    def test_what_is_computed_is_no_image_of_a_run(
        self, computed: dict[str, xr.DataArray], tmp_path: Path, dtype: Dtype, what: str
    ) -> None:
        """It needs a name, and has its own values without the scale of reflectance."""
        derived = DERIVED[what](computed[dtype])
        with pytest.raises(OutputError, match=r"the cube: was computed from a cube, .* has no name"):
            s2cube.write_cogs(derived, tmp_path / "x")
        assert not (tmp_path / "x").exists()
        for path, image in zip(s2cube.write_cogs(derived, tmp_path / "x", name="own"), derived, strict=True):
            assert path.stem.endswith("_own")
            assert "s2cube:recipe" not in json.loads(path.with_suffix(".json").read_text())["properties"]
            with rasterio.open(path) as file:
                assert set(file.scales) == {1}
                np.testing.assert_array_equal(file.read(), image.values)

    @pytest.mark.parametrize("store", ["netCDF 4", "Zarr 2", "Zarr 3"])
    @pytest.mark.parametrize(("dtype", "what"), [("int16", "masked"), ("float32", "scaled"), ("int16", "cube")])
    def test_what_is_read_from_a_file_is_no_image_of_a_run(
        self, computed: dict[str, xr.DataArray], tmp_path: Path, store: str, dtype: Dtype, what: str
    ) -> None:
        """It has the encoding that any file of floats gives, so nothing says that it is reflectance."""
        back = STORES[store](DERIVED[what](computed[dtype]), tmp_path)
        back.name = None
        with pytest.raises(OutputError, match="computed from a cube, or read from a file"):
            s2cube.write_cogs(back, tmp_path / "x")
        assert len(s2cube.write_cogs(back, tmp_path / "x", name="back")) == back.sizes["time"]

    def test_another_dtype_with_the_same_encoding_is_no_image_of_a_run(
        self, computed: dict[str, xr.DataArray], tmp_path: Path
    ) -> None:
        for one, other in (("int16", "float32"), ("float32", "int16")):
            mixed = computed[one].copy(data=computed[other].values)
            with pytest.raises(OutputError, match="has no name"):
                s2cube.write_cogs(mixed, tmp_path / "x")

    @pytest.mark.parametrize("axis", ["x", "y"])
    def test_rows_and_columns_in_another_order_are_turned(
        self, computed: dict[str, xr.DataArray], tmp_path: Path, axis: str
    ) -> None:
        """rioxarray's transform of it is none: the origin is the new one, the direction is the old one."""
        cube = computed["float32"]
        turned = cube.isel({axis: slice(None, None, -1)})
        for path, image in zip(s2cube.write_cogs(turned, tmp_path / "x", name="turned"), cube, strict=True):
            with rasterio.open(path) as file:
                assert file.transform == cube.odc.geobox.affine
                np.testing.assert_array_equal(file.read(), image.values)
