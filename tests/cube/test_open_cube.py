"""The cube: lazy, on its grid, and right by oracles that are not our code."""

import json
import re
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import odc.stac
import pystac
import pytest
import rasterio
import rasterio.warp
import xarray as xr
from dask.callbacks import Callback
from odc.geo.geobox import GeoBox
from odc.geo.geom import Geometry, box
from pytest_httpserver import HTTPServer
from rasterio.transform import from_origin
from werkzeug import Request, Response
from werkzeug.utils import send_file

import s2cube
from s2cube.area.aoi import AOI
from s2cube.config.sections import CubeSection
from s2cube.cube.cut import clip
from s2cube.cube.facts import facts_of, slice_facts
from s2cube.demo.archive import PASSES, Archive
from s2cube.errors import AssetMissingError, AssetReadError, ConfigError, HarmonisationError, OutputError, SearchError
from s2cube.scenes.plan import make_plan
from s2cube.sentinel2 import QA
from support.scenes import CLEAR, EPSG, LEFT_M, NATIVE_M, TOP_M, open_int16, ramp, rectangle, scene, write_band
from support.warps import warped_by_tiles


@pytest.fixture(scope="module")
def cube(archive: Archive) -> xr.DataArray:
    aoi = s2cube.read_aoi(archive.aoi)
    return s2cube.open_cube(s2cube.search(aoi, stac=str(archive.items)), aoi, bands=["blue", "swir16"])


@pytest.fixture(scope="module")
def packed(archive: Archive) -> xr.DataArray:
    aoi = s2cube.read_aoi(archive.aoi)
    return open_int16(s2cube.search(aoi, stac=str(archive.items)), aoi, bands=["blue", "swir16"])


class TestCube:
    def test_is_lazy(self, cube: xr.DataArray) -> None:
        assert cube.chunks is not None
        assert cube.dims == ("time", "band", "y", "x")
        assert list(cube.band.values) == ["blue", "swir16"]
        assert cube.sizes["time"] == len(PASSES)
        assert cube.dtype == np.float32

    def test_opening_reads_no_file(self, archive_items: list[dict[str, Any]], archive: Archive) -> None:
        items = [pystac.Item.from_dict(each) for each in json.loads(json.dumps(archive_items))]
        for item in items:
            for asset in item.assets.values():
                asset.href = "/nowhere/" + asset.href
        cube = s2cube.open_cube(items, s2cube.read_aoi(archive.aoi))
        with pytest.raises(AssetReadError, match="/nowhere/"):
            cube.isel(time=0).compute()

    def test_knows_where_it_is(self, cube: xr.DataArray) -> None:
        assert cube.rio.crs.to_epsg() == 32614
        assert np.isnan(cube.rio.nodata)
        geobox = cube.odc.geobox
        assert isinstance(geobox, GeoBox)
        assert geobox.resolution.xy == (30, -30)
        np.testing.assert_array_equal(cube.x, geobox.boundingbox.left + 15 + 30 * np.arange(cube.sizes["x"]))
        np.testing.assert_array_equal(cube.y, geobox.boundingbox.top - 15 - 30 * np.arange(cube.sizes["y"]))
        assert cube.rio.transform() == geobox.affine

    def test_times_are_of_the_scenes(self, cube: xr.DataArray) -> None:
        want = [np.datetime64(each.time.replace(tzinfo=None), "ns") for each in PASSES]
        np.testing.assert_array_equal(cube.time, want)

    def test_can_be_plotted(self, cube: xr.DataArray) -> None:
        import matplotlib as mpl

        mpl.use("agg")
        image = cube.sel(band="blue").isel(time=slice(0, 2)).max("time").plot()
        assert image.get_array().count() > 40_000

    def test_attributes_are_plain_so_any_format_holds_them(self, cube: xr.DataArray) -> None:
        assert all(isinstance(value, str | int | float | np.generic) for value in cube.attrs.values())

    def test_some_slices_and_bands_can_be_written(self, cube: xr.DataArray, tmp_path: Path) -> None:
        paths = s2cube.write_cogs(cube.isel(time=[1, 3]).sel(band=["swir16"]), tmp_path / "some")
        assert [path.name for path in paths] == ["farm_20220520.tif", "farm_20220709.tif"]
        with rasterio.open(paths[0]) as cog:
            assert cog.descriptions == ("swir16",)
            np.testing.assert_array_equal(cog.read(1), cube.isel(time=1).sel(band="swir16").values)

    def test_something_else_needs_a_name(self, cube: xr.DataArray, tmp_path: Path) -> None:
        for other in (cube.drop_vars("slice"), cube * 2, cube.astype("float64"), cube.isel(x=slice(0, 50))):
            with pytest.raises(OutputError, match="was computed from a cube, or read from a file, and has no name"):
                s2cube.write_cogs(other, tmp_path / "x")
        assert not (tmp_path / "x").exists()

    def test_few_tasks_a_slice(self, tmp_path: Path) -> None:
        """Two bands: three files are read. A mask, and each band with its read, is a task; so is the result."""
        item = scene(tmp_path, blue=ramp(600, 10), nir=ramp(600, 10), scl=CLEAR)
        cube = open_int16([item], rectangle(0, -600, 600, 0), bands=["blue", "nir"])
        computed: list[object] = []
        with Callback(pretask=lambda key, *_: computed.append(key)):
            cube.drop_vars("qa").compute(scheduler="sync")
        assert len(computed) - 1 <= 6

    def test_int16_is_the_same_reflectance(self, cube: xr.DataArray, packed: xr.DataArray) -> None:
        floats, integers = cube.isel(time=2).values, packed.isel(time=2).values
        assert (floats.dtype, integers.dtype) == (np.float32, np.int16)
        np.testing.assert_array_equal(np.isnan(floats), integers == -9999)
        # Integers are rounded once, at the end.
        np.testing.assert_allclose(floats[integers != -9999], integers[integers != -9999] / 1e4, atol=0.51e-4)


class TestResampling:
    """Linear ramps: what a cell must hold follows from where its middle is."""

    @pytest.mark.parametrize(("band", "side"), [("blue", 600), ("coastal", 100)])
    def test_area_mean_at_cell_centres(self, tmp_path: Path, band: str, side: int) -> None:
        native_m = NATIVE_M[band]
        item = scene(tmp_path, scl=CLEAR, **{band: ramp(side, native_m)})
        resolution_m = max(30, 2 * native_m)
        cube = open_int16([item], rectangle(600, -4200, 4200, -600), bands=[band], resolution=resolution_m)
        got = cube[0, 0].values.astype(float)
        want = 1000 + 0.5 * (cube.x.values[np.newaxis, :] - LEFT_M) + 0.25 * (TOP_M - cube.y.values[:, np.newaxis])
        # A cell more to any side would be off by 15 or 7.5 and more, half a cell by half of that.
        assert np.abs(got - want).max() <= 1

    def test_a_cell_depends_on_nothing_elsewhere(self, tmp_path: Path) -> None:
        """Means of exactly a half are many here: a pixel that lacks far away must not turn their rounding."""
        pixels = np.random.default_rng(8).integers(1, 3, (600, 600)).astype("uint16") * 1001
        item = scene(tmp_path, blue=pixels, scl=CLEAR)
        images = []
        for lacking in (0, 1):
            pixels[599, 599] *= 1 - lacking
            write_band(Path(item.assets["blue"].href), pixels, 10)
            cube = open_int16([item], rectangle(0, -6000, 6000, 0), bands=["blue"], resolution=100)
            images.append(cube[0, 0].values)
        np.testing.assert_array_equal(images[0].ravel()[:-1], images[1].ravel()[:-1])
        means = pixels.reshape(60, 10, 60, 10).mean(axis=(1, 3), dtype=float)
        assert (means % 1 == 0.5).sum() > 10

    def test_cells_that_cut_pixels(self, tmp_path: Path) -> None:
        """20 m pixels in 30 m cells: whole ones count whole, cut ones half."""
        pixels = np.random.default_rng(1).integers(1, 10000, (300, 300)).astype("uint16")
        cube = open_int16([scene(tmp_path, swir16=pixels, scl=CLEAR)], rectangle(0, -6000, 6000, 0), bands=["swir16"])
        tens = pixels.repeat(2, 0).repeat(2, 1).astype(float)
        want = tens.reshape(200, 3, 200, 3).mean(axis=(1, 3))
        assert np.abs(cube[0, 0].values - want).max() <= 1

    @pytest.mark.parametrize("crs", ["EPSG:32614", "EPSG:32615", "EPSG:5070"])
    def test_as_rasterio_warps(self, tmp_path: Path, crs: str) -> None:
        pixels = np.random.default_rng(2).integers(1, 9000, (600, 600)).astype("uint16")
        pixels[100:140, 200:260] = 0
        item = scene(tmp_path, blue=pixels, scl=CLEAR)
        cube = open_int16([item], rectangle(900, -3900, 3900, -900), bands=["blue"], crs=crs, mask="none")
        want = warped_by_tiles(item.assets["blue"].href, cube.odc.geobox)
        got = cube[0, 0].values
        inside = got != -9999
        assert inside.sum() > 0.5 * inside.size
        assert np.abs(got[inside].astype(int) - want[inside].astype(int)).max() <= 1

    @pytest.mark.parametrize("crs", ["EPSG:32614", "EPSG:32615", "EPSG:5070"])
    @pytest.mark.parametrize("resolution", [10, 30, 45, 100])
    def test_a_field_alone_is_the_field_in_a_larger_area(self, tmp_path: Path, crs: str, resolution: int) -> None:
        """Of white noise, and of classes of which many are masked."""
        random = np.random.default_rng(4)
        blue = random.integers(1, 9000, (600, 600)).astype("uint16")
        item = scene(tmp_path, blue=blue, scl=random.choice([4, 5, 6, 9], (300, 300)).astype("uint8"))
        settings = {"bands": ["blue", "scl"], "crs": crs, "resolution": resolution, "dilation": 0, "dtype": "float32"}
        field, region = (
            s2cube.open_cube([item], area, **settings).compute()
            for area in (rectangle(2000, -2600, 2500, -2000), rectangle(300, -5500, 5200, -400))
        )
        # The outline is turned in another CRS. These cells are inside.
        inner = field.isel({axis: slice(1 + field.sizes[axis] // 6, -1 - field.sizes[axis] // 6) for axis in "xy"})
        same = region.sel(x=inner.x, y=inner.y)
        assert inner.notnull().any()
        assert inner.values.tobytes() == same.values.tobytes()
        np.testing.assert_array_equal(inner.qa, same.qa)

    def test_as_odc_stac_loads(self, archive: Archive) -> None:
        """Where nothing is clouded, another library must read the same off the same items."""
        aoi = s2cube.read_aoi(archive.aoi)
        items = s2cube.search(aoi, stac=str(archive.items), datetime="2021")
        cube = open_int16(items, aoi, bands=["blue", "swir16"], mask="none")
        other = odc.stac.load(
            items, bands=["blue", "swir16"], geobox=cube.odc.geobox, resampling="average", groupby="solar_day",
            stac_cfg={"*": {"assets": {"*": {"nodata": 0, "data_type": "uint16"}}}},
        )  # fmt: skip
        for band in ("blue", "swir16"):
            ours, theirs = cube.sel(band=band)[0].values.astype(int), other[band][0].values.astype(int)
            judged = (ours != -9999) & (theirs != 0)
            assert judged.sum() > 30_000
            # odc-stac reads the overview next to 30 m, of 20 m, so it may differ where fields meet; not in the mean.
            assert np.median(np.abs(ours - theirs)[judged]) <= 1
            assert abs((ours - theirs)[judged].mean()) < 2

    @pytest.mark.parametrize("day", ["2021-07-24", "2022-07-09", "2022-08-03"])
    def test_as_odc_stac_loads_native_pixels(self, archive: Archive, day: str) -> None:
        """At 10 m nothing is resampled, so another library has the very same numbers, seam and swath edge included."""
        aoi = s2cube.read_aoi(archive.aoi)
        items = s2cube.search(aoi, stac=str(archive.items), datetime=day)
        cube = open_int16(items, aoi, bands=["blue", "nir"], resolution=10, mask="none", offset="none").compute()
        other = odc.stac.load(
            items, bands=["blue", "nir"], geobox=cube.odc.geobox, groupby="solar_day",
            stac_cfg={"*": {"assets": {"*": {"nodata": 0, "data_type": "uint16"}}}},
        )  # fmt: skip
        inside = cube.qa[0].values != QA.OUTSIDE
        for band in ("blue", "nir"):
            ours, theirs = cube.sel(band=band)[0].values, other[band][0].values.astype(int)
            np.testing.assert_array_equal(ours[inside], np.where(theirs == 0, -9999, theirs)[inside])
        assert inside.sum() > 100_000

    def test_nodata_never_enters_a_mean(self, tmp_path: Path) -> None:
        pixels = np.full((600, 600), 5000, "uint16")
        pixels[::3, ::3] = 0
        pixels[300:306, 300:303] = 0
        pixels[304, 301] = 5000  # one of nine is enough
        cube = open_int16([scene(tmp_path, blue=pixels)], rectangle(0, -6000, 6000, 0), bands=["blue"], mask="none")
        image = cube[0, 0].values
        assert image[100, 100] == -9999
        assert (np.delete(image.ravel(), 100 * 200 + 100) == 5000).all()

    def test_zero_is_nodata_whatever_the_file_says(self, tmp_path: Path) -> None:
        pixels = np.full((600, 600), 5000, "uint16")
        pixels[:, ::3] = 0
        item = scene(tmp_path, blue=pixels, scl=CLEAR)
        write_band(Path(item.assets["blue"].href), pixels, 10, nodata=None)
        cube = open_int16([item], rectangle(0, -6000, 6000, 0), bands=["blue"])
        assert (cube.values == 5000).all()
        assert (cube.values == 5000).all(), "nor when a second thread opens the file"

    def test_a_file_on_the_grid_as_it_is(self, tmp_path: Path) -> None:
        pixels = ramp(600, 10)
        pixels[5, 7] = 0
        item = scene(tmp_path, blue=pixels)
        write_band(Path(item.assets["blue"].href), pixels, 10, nodata=None)
        cube = open_int16([item], rectangle(0, -6000, 6000, 0), bands=["blue"], resolution=10, mask="none")
        np.testing.assert_array_equal(cube[0, 0].values, np.where(pixels == 0, -9999, pixels.astype(int)))

    def test_dark_after_harmonising_is_no_hole(self, tmp_path: Path) -> None:
        item = scene(tmp_path, blue=np.full((600, 600), 400, "uint16"), scl=CLEAR)
        item.properties["s2:processing_baseline"] = "04.00"
        cube = open_int16([item], rectangle(0, -600, 600, 0), bands=["blue"])
        assert (cube.values == -600).all()

    def test_brighter_than_int16_is_not_wrapped(self, tmp_path: Path) -> None:
        item = scene(tmp_path, blue=np.full((600, 600), 65535, "uint16"), scl=CLEAR)
        assert (open_int16([item], rectangle(0, -600, 600, 0), bands=["blue"]).values == 32767).all()


class TestClip:
    def test_holes_and_outside_are_nodata(self, tmp_path: Path) -> None:
        ring = rectangle(0, -900, 900, 0).geometry - rectangle(300, -600, 600, -300).geometry
        cube = open_int16([scene(tmp_path, blue=ramp(600, 10), scl=CLEAR)], AOI("ring", ring), bands=["blue"])
        want = np.ones((30, 30), bool)
        want[10:20, 10:20] = False
        np.testing.assert_array_equal(cube[0, 0].values != -9999, want)
        np.testing.assert_array_equal(cube.qa[0] == QA.OUTSIDE, ~want)

    def test_smaller_than_a_cell(self, tmp_path: Path) -> None:
        garden = rectangle(301, -309, 309, -301)
        cube = open_int16([scene(tmp_path, blue=ramp(600, 10), scl=CLEAR)], garden, bands=["blue"])
        assert cube.shape == (1, 1, 1, 1)
        assert cube.values.item() != -9999

    def test_geometry_in_another_crs(self) -> None:
        cells = da.from_array(np.ones((1, 4, 4), "int16"))
        half = box(LEFT_M, TOP_M - 120, LEFT_M + 60, TOP_M, f"EPSG:{EPSG}").to_crs("EPSG:4326")
        (clipped,) = clip(cells_of(4), half, (cells, -9999))
        np.testing.assert_array_equal(clipped[0], [[1, 1, -9999, -9999]] * 4)
        assert clipped.dtype == np.int16


def cells_of(side: int) -> GeoBox:
    bounds = (LEFT_M, TOP_M - 30 * side, LEFT_M + 30 * side, TOP_M)
    return GeoBox.from_bbox(bounds, f"EPSG:{EPSG}", resolution=30)


def test_a_cube_holds_the_facts_of_its_slices(archive: Archive, cube: xr.DataArray) -> None:
    """A run takes them from the plan, `write_cogs` from the cube."""
    aoi = s2cube.read_aoi(archive.aoi)
    config = CubeSection(bands=("blue", "swir16"), dtype="float32")
    plan = make_plan(s2cube.search(aoi, stac=str(archive.items)), aoi, config)
    assert [facts_of(image) for image in cube] == [slice_facts(task, config) for task in plan.tasks()]


class TestBadInput:
    def test_no_scenes(self) -> None:
        with pytest.raises(SearchError, match="no scene to open"):
            s2cube.open_cube([], rectangle(0, -600, 600, 0))

    def test_bad_settings(self, tmp_path: Path) -> None:
        item = scene(tmp_path, blue=ramp(600, 10), scl=CLEAR)
        for settings in ({"bands": ["x"]}, {"resolution": 0}, {"crs": "EPSG:1"}, {"dtype": "uint8"}):
            with pytest.raises(ConfigError):
                s2cube.open_cube([item], rectangle(0, -600, 600, 0), **{"bands": ["blue"], **settings})

    def test_scene_without_classification(self, tmp_path: Path) -> None:
        item = scene(tmp_path, blue=ramp(600, 10))
        with pytest.raises(AssetMissingError, match="Ask for --mask none"):
            s2cube.open_cube([item], rectangle(0, -600, 600, 0), bands=["blue"])

    def test_scene_without_baseline(self, tmp_path: Path) -> None:
        item = scene(tmp_path, blue=ramp(600, 10), scl=CLEAR)
        del item.properties["s2:processing_baseline"]
        with pytest.raises(HarmonisationError):
            s2cube.open_cube([item], rectangle(0, -600, 600, 0), bands=["blue"])

    @pytest.mark.parametrize("damage", ["missing", "text", "cut", "two bands", "no crs", "garbage"])
    def test_a_file_that_cannot_be_read_is_named(self, tmp_path: Path, damage: str) -> None:
        noise = np.random.default_rng(4).integers(1, 9000, (600, 600)).astype("uint16")
        item = scene(tmp_path, blue=noise, scl=CLEAR)
        path = Path(item.assets["blue"].href)
        if damage == "missing":
            path.unlink()
        elif damage == "text":
            path.write_text("<Error><Code>AccessDenied</Code></Error>")
        elif damage == "cut":
            path.write_bytes(path.read_bytes()[:100_000])
        elif damage == "two bands":
            with rasterio.open(
                path, "w", driver="GTiff", count=2, height=6, width=6, dtype="uint16", crs=EPSG,
                transform=from_origin(LEFT_M, TOP_M, 10, 10),
            ) as file:  # fmt: skip
                file.write(np.ones((2, 6, 6), "uint16"))
        elif damage == "no crs":
            write_band(path, noise, 10, crs=None)
        else:
            write_band(path, noise, 10, tiled=True, blockxsize=256, blockysize=256, compress="deflate")
            content = bytearray(path.read_bytes())
            # Whole tiles of it: GDAL does not check the sum at the end of one, so damage inside may pass unseen.
            content[len(content) // 2 :] = b"\xff" * (len(content) - len(content) // 2)
            path.write_bytes(content)
        cube = s2cube.open_cube([item], rectangle(0, -6000, 6000, 0), bands=["blue"])
        with pytest.raises(AssetReadError) as error:
            cube.compute()
        assert str(path) in str(error.value)


class TestFaultyServer:
    """An archive over HTTP that is busy at first, or lacks a file."""

    @pytest.fixture
    def item(self, tmp_path: Path, httpserver: HTTPServer) -> pystac.Item:
        made = scene(tmp_path, tmp_path.name, blue=ramp(600, 10), scl=CLEAR)
        self.asked: list[str] = []
        self.busy, self.status = 0, 503

        def serve(request: Request) -> Response:
            self.asked.append(request.path)
            if len(self.asked) <= self.busy:
                return Response("busy", status=self.status)
            path = tmp_path / request.path.strip("/")
            if not path.exists():
                return Response("no", status=404)
            return send_file(path, request.environ, conditional=True)

        httpserver.expect_request(re.compile("/.*")).respond_with_handler(serve)
        for asset in made.assets.values():
            asset.href = httpserver.url_for("/" + Path(asset.href).name)
        return made

    def test_busy_at_first(self, item: pystac.Item) -> None:
        self.busy = 2
        cube = open_int16([item], rectangle(0, -600, 600, 0), bands=["blue"])
        assert (cube.values != -9999).all()
        assert len(self.asked) > self.busy

    def test_what_failed_once_is_asked_for_again(self, item: pystac.Item) -> None:
        """In one process, as on a standing cluster: nothing must remember that the archive was away."""
        self.busy, self.status = 1000, 403
        with pytest.raises(AssetReadError, match="403"):
            open_int16([item], rectangle(0, -600, 600, 0), bands=["blue"]).compute()
        self.busy = 0
        assert (open_int16([item], rectangle(0, -600, 600, 0), bands=["blue"]).values != -9999).all()

    @pytest.mark.filterwarnings("ignore")
    def test_missing_file_is_never_nodata(self, item: pystac.Item) -> None:
        item.assets["blue"].href += ".gone"
        cube = open_int16([item], rectangle(0, -600, 600, 0), bands=["blue"])
        with pytest.raises(AssetReadError, match=r"blue.tif.gone: answers 404"):
            cube.compute()


def test_real_geometry_types(tmp_path: Path) -> None:
    """A MultiPolygon whose parts lie apart gives one grid, with nodata between."""
    parts = rectangle(0, -300, 300, 0).geometry | rectangle(900, -300, 1200, 0).geometry
    assert isinstance(parts, Geometry)
    cube = open_int16([scene(tmp_path, blue=ramp(600, 10), scl=CLEAR)], AOI("two", parts), bands=["blue"])
    np.testing.assert_array_equal((cube[0, 0].values != -9999).all(axis=0), [True] * 10 + [False] * 20 + [True] * 10)
