"""Arrays that were computed from a cube as images: their names, pixels, times, sources and outlines, and errors."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
import xarray as xr
from odc.geo.geom import box

import s2cube
from s2cube.area.aoi import AOI
from s2cube.demo.archive import PASSES, Archive
from s2cube.errors import ConfigError, OutputError
from s2cube.inventory.verification import verify
from s2cube.jobs import pipeline
from s2cube.sentinel2 import QA
from s2cube.storage.output import Output
from support.items import validate
from support.runs import in_this_process

DATES = [f"{each.time:%Y%m%d}" for each in PASSES]
BANDS = ["red", "nir"]
SETTINGS: dict[str, Any] = {"bands": BANDS, "resolution": 60}


def open_farm(archive: Archive, **settings: Any) -> xr.DataArray:
    aoi = s2cube.read_aoi(archive.aoi)
    return s2cube.open_cube(s2cube.search(aoi, stac=str(archive.items)), aoi, **SETTINGS | settings)


@pytest.fixture(scope="module")
def lazy(archive: Archive) -> xr.DataArray:
    return open_farm(archive)


@pytest.fixture(scope="module")
def cube(lazy: xr.DataArray) -> xr.DataArray:
    return lazy.compute()


@pytest.fixture(scope="module")
def packed(archive: Archive) -> xr.DataArray:
    return open_farm(archive, dtype="int16").compute()


@pytest.fixture(scope="module")
def ndvi(cube: xr.DataArray) -> xr.DataArray:
    red, nir = cube.sel(band="red", drop=True), cube.sel(band="nir", drop=True)
    return (nir - red) / (nir + red)


def write(array: xr.DataArray, **stated: Any) -> list[Path]:
    """Write to the folder `out` of the test, whose Items and files must then be valid and listed."""
    paths = [Path(path) for path in s2cube.write_cogs(array, "out", progress=False, **stated)]
    for path in paths:
        assert path.is_file()
        validate(item_of(path), "Feature")
        validate(json.loads((path.parents[1] / "collection.json").read_text()), "Collection")
    assert not verify(Output.at("out")).flaws
    return paths


def item_of(path: Path) -> dict[str, Any]:
    item: dict[str, Any] = json.loads(path.with_suffix(".json").read_text())
    return item


def ids(paths: list[Path]) -> list[str]:
    return [path.stem for path in paths]


def pixels(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        values: np.ndarray = file.read()
    return values


def qa_of(path: Path) -> np.ndarray:
    return pixels(path.with_name(f"{path.stem}_qa.tif"))[0]


def scenes_of(cube: xr.DataArray, **times: Any) -> list[str]:
    return [scene for text in cube.scenes.sel(**times).values.ravel() for scene in text.split("\n")]


class TestTimes:
    def test_of_an_index(self, cube: xr.DataArray, ndvi: xr.DataArray) -> None:
        paths = write(ndvi, name="ndvi")
        assert ids(paths) == [f"farm_{date}_ndvi" for date in DATES]
        for number, path in enumerate(paths):
            with rasterio.open(path) as file:
                np.testing.assert_array_equal(file.read(1), ndvi[number])
                assert (file.descriptions, file.dtypes) == (("ndvi",), ("float32",))
                assert np.isnan(file.nodata)
                assert file.crs.to_epsg() == 32614
                assert file.transform.almost_equals(cube.rio.transform())
            item = item_of(path)
            assert item["properties"]["datetime"] == f"{PASSES[number].time:%Y-%m-%dT%H:%M:%SZ}"
            assert item["properties"]["s2cube:scenes"] == cube.scenes.values[number].split("\n")
            assert item["properties"]["s2cube:name"] == "ndvi"
            assert "s2cube:recipe" not in item["properties"]
            assert [band["name"] for band in item["assets"]["data"]["bands"]] == ["ndvi"]
            reasons = cube.qa.values[number]
            np.testing.assert_array_equal(qa_of(path) == QA.OUTSIDE, reasons == QA.OUTSIDE)
            np.testing.assert_array_equal((qa_of(path) == QA.CLEAR), np.isfinite(ndvi.values[number]))

    def test_in_chunks_without_values(self, lazy: xr.DataArray, ndvi: xr.DataArray) -> None:
        chunked = lazy.chunk(y=40, x=64)
        red, nir = chunked.sel(band="red"), chunked.sel(band="nir")
        paths = write(((nir - red) / (nir + red)).isel(time=[0, 3]), name="ndvi")
        for path, expected in zip(paths, ndvi.isel(time=[0, 3]), strict=True):
            np.testing.assert_array_equal(pixels(path)[0], expected)

    def test_one_as_a_scalar(self, ndvi: xr.DataArray) -> None:
        (path,) = write(ndvi.isel(time=2).rename("ndvi"))
        assert path.stem == f"farm_{DATES[2]}_ndvi"
        np.testing.assert_array_equal(pixels(path)[0], ndvi[2])

    def test_none_of_a_median(self, cube: xr.DataArray) -> None:
        median = cube.median("time")
        (path,) = write(median, name="median")
        assert path.stem == "farm_median"
        np.testing.assert_array_equal(pixels(path), median)
        item = item_of(path)
        properties = item["properties"]
        assert properties["datetime"] is None
        assert properties["start_datetime"] == f"{PASSES[0].time:%Y-%m-%dT%H:%M:%SZ}"
        assert properties["end_datetime"] == f"{PASSES[-1].time:%Y-%m-%dT%H:%M:%SZ}"
        assert properties["s2cube:scenes"] == scenes_of(cube)
        assert [band["name"] for band in item["assets"]["data"]["bands"]] == BANDS
        np.testing.assert_array_equal(qa_of(path) == QA.OUTSIDE, (cube.qa == QA.OUTSIDE).all("time"))

    def test_of_an_interval_that_is_stated(self, cube: xr.DataArray) -> None:
        (path,) = write(cube.sel(time="2022-06").max("time"), name="highest", datetime="2022-06")
        properties = item_of(path)["properties"]
        assert properties["start_datetime"] == properties["end_datetime"] == f"{PASSES[2].time:%Y-%m-%dT%H:%M:%SZ}"
        assert properties["s2cube:scenes"] == scenes_of(cube, time="2022-06")

    def test_of_groups(self, cube: xr.DataArray) -> None:
        months = cube.groupby("time.month").max()
        paths = write(months, name="highest")
        assert ids(paths) == [f"farm_highest_month{month:02d}" for month in (5, 6, 7, 8, 9)]
        july = item_of(paths[2])["properties"]
        assert july["s2cube:scenes"] == [*scenes_of(cube, time="2021-07"), *scenes_of(cube, time="2022-07")]
        assert (july["start_datetime"][:10], july["end_datetime"][:10]) == ("2021-07-24", "2022-07-09")
        np.testing.assert_array_equal(pixels(paths[2]), months.sel(month=7))

    def test_of_periods(self, cube: xr.DataArray) -> None:
        """xarray labels each month by its first midnight, UTC, which is an hour of the day before at this longitude."""
        months = cube.sel(time="2022").resample(time="1MS").mean()
        paths = write(months, name="mean")
        assert ids(paths) == [f"farm_2022{month:02d}01_mean" for month in (5, 6, 7, 8, 9)]
        for path in paths:
            assert item_of(path)["properties"]["s2cube:scenes"] == scenes_of(cube)

    def test_of_periods_that_begin_before_the_first_scene(self, cube: xr.DataArray) -> None:
        months = cube.resample(time="1MS").mean()
        paths = dict(zip(ids(made := write(months, name="mean")), made, strict=True))
        july = item_of(paths["farm_20220701_mean"])["properties"]
        assert july["s2cube:scenes"] == scenes_of(cube, time="2022-07")
        assert item_of(paths["farm_20211001_mean"])["properties"]["s2cube:scenes"] == []

    def test_between_slices(self, ndvi: xr.DataArray) -> None:
        """xarray gives an interpolated time the slice that is nearest."""
        (path,) = write(ndvi.interp(time=["2022-06-20T17:00"]), name="ndvi")
        assert path.stem == "farm_20220620_ndvi"
        assert item_of(path)["properties"]["s2cube:scenes"] == scenes_of(ndvi)

    @pytest.mark.filterwarnings("ignore:All-NaN slice")
    def test_of_a_quantile(self, cube: xr.DataArray) -> None:
        quantiles = cube.quantile([0.25, 0.75], "time")
        paths = write(quantiles, name="q")
        assert ids(paths) == ["farm_q_quantile0-25", "farm_q_quantile0-75"]
        np.testing.assert_array_equal(pixels(paths[1]), quantiles.sel(quantile=0.75))


class TestPartsOfTheGrid:
    def test_cells(self, cube: xr.DataArray) -> None:
        part = cube.isel(time=[1], y=slice(20, 60), x=slice(30, 90))
        (path,) = write(part, name="part")
        with rasterio.open(path) as file:
            np.testing.assert_array_equal(file.read(), part[0])
            west, south, east, north = file.bounds
        assert (west, north) == (part.x.values[0] - 30, part.y.values[0] + 30)
        assert (east, south) == (part.x.values[-1] + 30, part.y.values[-1] - 30)
        bounds = rasterio.warp.transform_bounds(32614, 4326, west, south, east, north)
        outline = shapely.geometry.shape(item_of(path)["geometry"])
        assert outline.area
        assert shapely.box(*bounds).buffer(1e-5).contains(outline)

    def test_a_clip(self, cube: xr.DataArray) -> None:
        x, y = float(cube.x[60]), float(cube.y[40])
        clipped = cube.rio.clip([shapely.Point(x, y).buffer(900)])
        (path,) = write(clipped.isel(time=[1]), name="circle")
        np.testing.assert_array_equal(pixels(path), clipped[1])

    def test_another_crs(self, cube: xr.DataArray) -> None:
        for epsg, resolution in ((4326, 0.0008), (32615, 60)):
            moved = cube.isel(time=1).rio.reproject(f"EPSG:{epsg}", resolution=resolution)
            (path,) = write(moved, name=f"in-{epsg}")
            assert path.stem == f"farm_{DATES[1]}_in-{epsg}"
            with rasterio.open(path) as file:
                assert file.crs.to_epsg() == epsg
                assert file.transform.almost_equals(moved.rio.transform())
                np.testing.assert_array_equal(file.read(), moved)
            assert item_of(path)["properties"]["proj:code"] == f"EPSG:{epsg}"

    def test_upside_down(self, cube: xr.DataArray) -> None:
        turned = cube.isel(time=[1], y=slice(None, None, -1), x=slice(None, None, -1)).transpose("x", ...)
        (path,) = write(turned, name="turned")
        with rasterio.open(path) as file:
            np.testing.assert_array_equal(file.read(), cube[1])
            assert file.transform.almost_equals(cube.rio.transform())

    def test_coarser_cells(self, cube: xr.DataArray) -> None:
        coarse = cube.isel(time=[1]).coarsen(y=2, x=2, boundary="trim").mean().drop_vars("qa")
        (path,) = write(coarse, name="coarse")
        with rasterio.open(path) as file:
            assert file.res == (120, 120)
            np.testing.assert_array_equal(file.read(), coarse[0])


class TestTypes:
    def test_a_band(self, cube: xr.DataArray) -> None:
        paths = write(cube.sel(band="red") * 2)
        assert ids(paths) == [f"farm_{date}_red" for date in DATES]
        assert [band["name"] for band in item_of(paths[0])["assets"]["data"]["bands"]] == ["red"]

    def test_median_of_integers(self, packed: xr.DataArray) -> None:
        median = packed.where(packed != -9999).median("time").fillna(-9999).astype("int16")
        (path,) = write(median, name="median")
        with rasterio.open(path) as file:
            assert (file.nodata, file.dtypes) == (-9999, ("int16", "int16"))
            np.testing.assert_array_equal(file.read(), median)
            masked = file.read_masks(1) == 0
        np.testing.assert_array_equal(masked, median[0] == -9999)
        bands = item_of(path)["assets"]["data"]["bands"]
        assert [(band["raster:scale"], band["nodata"], "unit" in band) for band in bands] == [(1, -9999, False)] * 2

    @pytest.mark.parametrize("dtype", ["bool", "uint8"])
    def test_classes(self, ndvi: xr.DataArray, dtype: Any) -> None:
        dense = (ndvi > 0.5).astype(dtype).isel(time=[1])
        (path,) = write(dense, name="dense")
        with rasterio.open(path) as file:
            assert (file.nodata, file.dtypes) == (None, ("uint8",))
            np.testing.assert_array_equal(file.read(1), dense[0].astype("uint8"))

    def test_double_precision(self, ndvi: xr.DataArray) -> None:
        exact = ndvi.astype("float64").isel(time=[1]) / 3
        (path,) = write(exact, name="third")
        assert pixels(path).dtype == np.float64
        np.testing.assert_array_equal(pixels(path)[0], exact[0])

    def test_values_outside_the_polygon(self, cube: xr.DataArray) -> None:
        filled = cube.isel(time=[1]).fillna(0)
        with pytest.raises(OutputError, match="name="):
            write(filled)
        (path,) = write(filled, name="filled")
        np.testing.assert_array_equal(pixels(path), filled[0])
        assert not np.isnan(pixels(path)).any()

    def test_texts_are_refused(self, ndvi: xr.DataArray) -> None:
        with pytest.raises(OutputError, match=r"has the dtype .*Convert it to numbers"):
            write(ndvi.isel(time=[0]).astype(str), name="texts")
        assert not list(Path("out").rglob("*.tif"))


class TestFilesReadBack:
    @pytest.mark.parametrize("suffix", [".nc", ".zarr"])
    def test_of_an_index(self, ndvi: xr.DataArray, suffix: str) -> None:
        ndvi = ndvi.rename("ndvi")
        if suffix == ".nc":
            ndvi.to_netcdf("ndvi.nc")
            again = xr.open_dataarray("ndvi.nc")
        else:
            ndvi.to_zarr("ndvi.zarr", consolidated=False)
            again = xr.open_dataarray("ndvi.zarr", engine="zarr", consolidated=False)
        with again:
            paths = write(again)
        assert ids(paths) == [f"farm_{date}_ndvi" for date in DATES]
        np.testing.assert_array_equal(pixels(paths[1])[0], ndvi[1])
        assert item_of(paths[1])["properties"]["s2cube:scenes"] == scenes_of(ndvi, time=f"{PASSES[1].time:%Y-%m-%d}")

    def test_of_a_whole_cube(self, packed: xr.DataArray) -> None:
        packed.to_netcdf("cube.nc")
        with xr.open_dataarray("cube.nc", mask_and_scale=False) as again:
            with pytest.raises(OutputError, match="was computed from a cube, or read from a file, and has no name"):
                write(again)
            paths = write(again, name="read")
        with rasterio.open(paths[1]) as file:
            assert file.nodata == -9999
            np.testing.assert_array_equal(file.read(), packed[1])


def without_attributes(array: xr.DataArray) -> xr.DataArray:
    return array.drop_attrs(deep=False)


class TestLostAttributes:
    def test_of_the_area(self, ndvi: xr.DataArray, archive: Archive) -> None:
        lost = without_attributes(ndvi)
        with pytest.raises(OutputError, match=r"has lost its area.*result\.attrs = cube\.attrs.*aoi="):
            write(lost, name="ndvi")
        paths = write(lost, name="ndvi", aoi=archive.aoi)
        assert ids(paths) == [f"farm_{date}_ndvi" for date in DATES]
        assert item_of(paths[0])["properties"]["s2cube:scenes"] == []

    def test_of_time(self, cube: xr.DataArray, archive: Archive) -> None:
        lost = without_attributes(cube.mean("time"))
        with pytest.raises(OutputError, match="has no time, and no scene .*datetime="):
            write(lost, name="mean", aoi=archive.aoi)
        with pytest.raises(OutputError, match="a beginning and an end"):
            write(lost, name="mean", aoi=archive.aoi, datetime="2022-06/..")
        (path,) = write(lost, name="mean", aoi=archive.aoi, datetime="2022-06/2022-07")
        properties = item_of(path)["properties"]
        assert properties["start_datetime"][:10] in {"2022-05-31", "2022-06-01"}
        assert properties["end_datetime"][:10] in {"2022-07-31", "2022-08-01"}

    def test_interval_without_scenes(self, cube: xr.DataArray) -> None:
        with pytest.raises(OutputError, match="no scene that it was computed from is known"):
            write(cube.mean("time"), name="mean", datetime="2020-01")

    def test_interval_that_cannot_be_read(self, cube: xr.DataArray) -> None:
        with pytest.raises(ConfigError, match="datetime"):
            write(cube.mean("time"), name="mean", datetime="June")

    @pytest.mark.parametrize(
        ("attrs", "said"),
        [
            ({"aoi_wkt_lonlat": "POLYGON"}, "area that cannot be read"),
            ({"aoi": "../farm"}, r"area that cannot be read .*not a safe file name.*aoi="),
            ({"provenance": "{}"}, r"attribute 'provenance' that open_cube did not write .*del cube\.attrs"),
        ],
    )
    def test_or_changed(self, ndvi: xr.DataArray, attrs: dict[str, Any], said: str) -> None:
        with pytest.raises(OutputError, match=said):
            write(ndvi.assign_attrs(attrs), name="ndvi")

    def test_of_another_area(self, ndvi: xr.DataArray) -> None:
        elsewhere = AOI("barn", box(0, 0, 0.1, 0.1, "EPSG:4326"))
        with pytest.raises(OutputError, match="does not overlap its area barn.*aoi="):
            write(ndvi, name="ndvi", aoi=elsewhere)


class TestRefused:
    def test_without_a_name(self, ndvi: xr.DataArray) -> None:
        with pytest.raises(OutputError, match=r"has no name\. Give the images a name: write_cogs"):
            write(ndvi)

    @pytest.mark.parametrize("name", ["a b", "../x", "a/b", "20220614", "-x", "CON"])
    def test_name(self, ndvi: xr.DataArray, name: str) -> None:
        with pytest.raises(OutputError, match="is no name of images: use letters"):
            write(ndvi, name=name)

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda array: array.drop_vars("spatial_ref").drop_attrs(), "has no CRS"),
            (lambda array: array.isel(x=[0, 1, 5, 6]), "not on a regular grid: its coordinates x are uneven"),
            (lambda array: array.isel(y=[0, 0, 0]), "not on a regular grid: its coordinates y are uneven"),
            (lambda array: array.assign_coords(x=array.x.astype(str)), "has no grid with coordinates"),
            (lambda array: array.isel(y=slice(0, 0)), "is empty: its dimension y has the size 0"),
            (lambda array: array.sel(time=slice("1990", "1999")), "is empty: its dimension time has the size 0"),
            (lambda array: array.mean("x"), "has no grid .* dimensions are time, y"),
            (lambda array: array.drop_vars(["x", "y"]), "has no grid with coordinates"),
            (lambda array: array.rio.write_crs("+proj=aea +lat_1=3 +lat_2=7"), "CRS without an EPSG code"),
        ],
    )
    def test_grid(self, ndvi: xr.DataArray, change: Callable[[xr.DataArray], xr.DataArray], said: str) -> None:
        with pytest.raises(OutputError, match=said):
            write(change(ndvi), name="ndvi")
        assert not list(Path("out").rglob("*.tif"))

    @pytest.mark.parametrize(
        "change", [lambda array: array.to_dataset(name="ndvi"), lambda array: array.values, lambda _: "ndvi.nc"]
    )
    def test_what_is_no_array(self, ndvi: xr.DataArray, change: Callable[[xr.DataArray], Any]) -> None:
        with pytest.raises(OutputError, match=r"is a (Dataset|ndarray|str)\. Pass a DataArray"):
            write(change(ndvi), name="ndvi")

    def test_bands_of_one_name(self, cube: xr.DataArray) -> None:
        for stated in ({}, {"name": "twice"}):
            with pytest.raises(OutputError, match="has 2 bands of the name red"):
                write(cube.isel(time=[1]).sel(band=["red", "red"]), **stated)

    def test_several_of_one_day(self, ndvi: xr.DataArray) -> None:
        twice = xr.concat([ndvi.isel(time=[1]), ndvi.isel(time=[1])], "time")
        with pytest.raises(OutputError, match=f"several images of the name farm_{DATES[1]}_ndvi"):
            write(twice, name="ndvi")


class TestBesideARun:
    @pytest.fixture
    def config(self, archive: Archive) -> Any:
        given = {"aoi": str(archive.aoi), "stac": str(archive.items), "out": "out", "bands": "red,nir"}
        return s2cube.load_config({**given, "resolution": 60, "dtype": "int16"}, {})

    @pytest.fixture(autouse=True)
    def without_cluster(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pipeline, "_compute", in_this_process)

    def test_a_detour_changes_no_byte(self, packed: xr.DataArray, config: Any) -> None:
        write(packed)
        shutil.move("out", "first")
        detour = packed.sel(band=["nir", "red"]).transpose("band", "x", "time", "y").sel(band=["red", "nir"])
        write(detour)
        files = [path for path in Path("first").rglob("*") if path.is_file() and ".s2cube" not in path.parts]
        assert len(files) > 4 * len(DATES)
        for path in files:
            assert ("out" / path.relative_to("first")).read_bytes() == path.read_bytes(), path
        assert not s2cube.run(config).written

    def test_a_run_leaves_them(self, packed: xr.DataArray, config: Any) -> None:
        derived = write(packed.sel(band=["nir"]) // 2, name="half")
        before = {path: path.stat().st_mtime_ns for path in derived}
        done = s2cube.run(config)
        assert len(done.written) == len(DATES)
        assert {path: path.stat().st_mtime_ns for path in derived} == before
        assert not verify(Output.at("out")).flaws
        collection = json.loads(Path("out/farm/collection.json").read_text())
        listed = {Path(link["href"]).stem for link in collection["links"] if link["rel"] == "item"}
        assert listed == {*ids(derived), *(f"farm_{date}" for date in DATES)}

    def test_they_are_opened_by_name(self, ndvi: xr.DataArray) -> None:
        write(ndvi, name="ndvi")
        again = s2cube.open_output("out", name="ndvi")
        assert isinstance(again, xr.DataArray)
        np.testing.assert_array_equal(again.sel(band="ndvi"), ndvi)
