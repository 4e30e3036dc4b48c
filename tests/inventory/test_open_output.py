"""An output as cubes: as `open_cube` gives them, from folders and buckets, and an error for each damaged file."""

import hashlib
import json
import logging
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import obstore
import pytest
import rasterio
import rioxarray
import xarray as xr
from distributed import Client
from obstore.store import S3Store
from odc.geo.geom import box

import s2cube
from s2cube.area.aoi import AOI
from s2cube.config.stores import Store
from s2cube.demo.archive import PASSES, Archive
from s2cube.errors import AssetReadError, ConfigError, OutputError, WriteError
from s2cube.fetch.store import Access, Part
from s2cube.inventory import _stored_cube, stored_image
from s2cube.inventory._items_table import ItemRows
from s2cube.kernels.mask import final_qa
from s2cube.kernels.packing import PACKINGS
from s2cube.raster import gdal_file
from s2cube.storage._bucket import Bucket
from s2cube.storage.folder import Folder
from s2cube.storage.layout import slice_file
from s2cube.storage.output import Output
from support.runs import FARM, edit

BROKEN = (("s3://results", Store(endpoint="http://127.0.0.1:9", anonymous=True)),)
DAYS = [f"farm_{each.time:%Y%m%d}" for each in PASSES]
BANDS = ["red", "nir"]


def open_farm(archive: Archive, **settings: Any) -> xr.DataArray:
    aoi = s2cube.read_aoi(archive.aoi)
    return s2cube.open_cube(s2cube.search(aoi, stac=str(archive.items)), aoi, resolution=60, **settings)


def open_one(out: str | Path, **settings: Any) -> xr.DataArray:
    cube = s2cube.open_output(out, **settings)
    assert isinstance(cube, xr.DataArray)
    return cube


@pytest.fixture(scope="module")
def cube(archive: Archive) -> xr.DataArray:
    return open_farm(archive, bands=BANDS, dtype="int16").compute()


@pytest.fixture(scope="module")
def pristine(cube: xr.DataArray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The farm, int16. Tests must not change it."""
    out = tmp_path_factory.mktemp("pristine") / "out"
    s2cube.write_cogs(cube, out)
    return out


@pytest.fixture
def out(pristine: Path, tmp_path: Path) -> Path:
    """A copy for one test."""
    return Path(shutil.copytree(pristine, tmp_path / "moved" / "out"))


def file(out: Path, day: int, suffix: str = ".json") -> Path:
    return out / "farm" / DAYS[day] / f"{DAYS[day]}{suffix}"


def edit_item(out: Path, day: int, change: Callable[[dict[str, Any]], object]) -> None:
    """Edit an Item of an output without a table of Items."""
    (out / "items.parquet").unlink(missing_ok=True)
    edit(file(out, day), change)


class TestAsOpenCube:
    @pytest.mark.parametrize("bands", [BANDS, ["red", "scl"]])
    @pytest.mark.parametrize("dtype", ["int16", "float32"])
    def test_gives_it(self, archive: Archive, tmp_path: Path, dtype: Any, bands: list[str]) -> None:
        cube = open_farm(archive, bands=bands, dtype=dtype)
        s2cube.write_cogs(cube, tmp_path)
        again = open_one(tmp_path, dtype=dtype)
        assert (again.name, again.dims, again.dtype) == (cube.name, cube.dims, cube.dtype)
        holes = PACKINGS[dtype].holes(cube).any("band")
        expected = cube.assign_coords(qa=cube.qa.copy(data=final_qa(holes.values, cube.qa.values)))
        xr.testing.assert_equal(again, expected)
        assert [*again.coords] == [*cube.coords]
        for name in cube.coords:
            assert again[name].dtype == cube[name].dtype, name
            assert again[name].attrs == cube[name].attrs, name
            assert again[name].encoding == cube[name].encoding, name
        np.testing.assert_equal(again.encoding, cube.encoding)
        # The outline of an Item is rounded, and simplified by less than a tenth of a cell.
        assert {**again.attrs, "aoi_wkt_lonlat": ""} == {**cube.attrs, "aoi_wkt_lonlat": ""}
        assert again.rio.nodata == cube.rio.nodata or np.isnan(cube.rio.nodata)
        assert again.odc.geobox == cube.odc.geobox

    def test_reflectance_of_int16_images(self, out: Path) -> None:
        cube = open_one(out)
        assert cube.dtype == np.float32
        for position, day in enumerate(DAYS):
            with rioxarray.open_rasterio(out / "farm" / day / f"{day}.tif", masked=True) as image:
                assert isinstance(image, xr.DataArray)
                np.testing.assert_allclose(cube[position].values, image.values * 0.0001, rtol=1e-6)
                np.testing.assert_array_equal(cube.x, image.x)
                np.testing.assert_array_equal(cube.y, image.y)
            with rasterio.open(out / "farm" / day / f"{day}_qa.tif") as qa:
                np.testing.assert_array_equal(cube.qa[position], qa.read(1))

    def test_classes_of_int16_images(self, archive: Archive, tmp_path: Path) -> None:
        s2cube.write_cogs(open_farm(archive, bands=["red", "scl"], dtype="int16").isel(time=[2]), tmp_path)
        with rasterio.open(file(tmp_path, 2, ".tif")) as image:
            np.testing.assert_array_equal(open_one(tmp_path, bands="scl")[0, 0].fillna(-9999), image.read(2))

    def test_bands_by_name(self, out: Path, cube: xr.DataArray) -> None:
        for names in (["nir"], "nir,red"):
            chosen = open_one(out, bands=names, dtype="int16")
            xr.testing.assert_equal(chosen.drop_vars("qa"), cube.sel(band=list(chosen.band.values)).drop_vars("qa"))
        assert list(chosen.band.values) == ["nir", "red"]

    def test_reads_no_file_before_it_is_computed(self, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(stored_image, "fetch", lambda href, *_: pytest.fail(f"{href} is read"))
        cube = open_one(out)
        assert len(cube.variable.__dask_graph__()) == len(cube.qa.__dask_graph__()) == len(DAYS)
        with pytest.raises(pytest.fail.Exception, match="is read"):
            cube.compute()

    @pytest.mark.parametrize("whole_bytes", [1 << 20, 0])
    def test_in_chunks(
        self, out: Path, cube: xr.DataArray, monkeypatch: pytest.MonkeyPatch, new_session: None, whole_bytes: int
    ) -> None:
        monkeypatch.setattr(_stored_cube, "_CHUNK_CELLS", 64)
        monkeypatch.setattr(stored_image, "_WHOLE_BYTES", whole_bytes)
        monkeypatch.setattr(stored_image, "_PART_BYTES", 4096)
        again = open_one(out, dtype="int16")
        assert again.chunks[1:] == ((2,), (64, 25), (64, 64, 26))
        xr.testing.assert_equal(again.drop_vars("qa"), cube.drop_vars("qa"))

    @pytest.mark.servers
    def test_on_a_cluster(self, out: Path, cube: xr.DataArray, scheduler: str) -> None:
        with Client(scheduler) as client:
            again = client.compute(open_one(out, dtype="int16")).result()
        xr.testing.assert_equal(again.drop_vars("qa"), cube.drop_vars("qa"))


class TestWrittenAgain:
    def test_it_is_the_same_to_the_byte(self, out: Path, tmp_path: Path) -> None:
        s2cube.write_cogs(open_one(out, dtype="int16"), tmp_path / "again")
        files = [path.relative_to(out) for path in out.rglob("*") if path.is_file() and ".s2cube" not in path.parts]
        assert len(files) > 4 * len(DAYS)
        for each in files:
            assert (tmp_path / "again" / each).read_bytes() == (out / each).read_bytes(), each

    def test_of_fewer_bands(self, out: Path, cube: xr.DataArray, tmp_path: Path) -> None:
        s2cube.write_cogs(open_one(out, bands="nir", dtype="int16"), tmp_path / "again")
        s2cube.write_cogs(cube.sel(band=["nir"]), tmp_path / "direct")
        for each in (tmp_path / "direct" / "farm").rglob("*.tif"):
            other = tmp_path / "again" / each.relative_to(tmp_path / "direct")
            assert each.read_bytes() == other.read_bytes()

    def test_of_another_dtype_it_is_no_image_of_a_run(self, out: Path, tmp_path: Path) -> None:
        s2cube.write_cogs(open_one(out).isel(time=[0]), tmp_path / "again")
        before, after = (json.loads(file(each, 0).read_text())["properties"] for each in (out, tmp_path / "again"))
        assert after["s2cube:settings"] == {**before["s2cube:settings"], "dtype": "float32"}
        assert after["s2cube:recipe"] != before["s2cube:recipe"]


class TestAreas:
    @pytest.fixture
    def two(self, archive: Archive, out: Path) -> Path:
        corner = AOI("corner", box(*FARM, "EPSG:32614"))
        items = s2cube.search(corner, stac=str(archive.items), datetime="2022-05")
        s2cube.write_cogs(s2cube.open_cube(items, corner, bands=["blue"]), out)
        return out

    def test_several_are_a_dict(self, two: Path) -> None:
        cubes = s2cube.open_output(two)
        assert isinstance(cubes, dict)
        assert {name: each.attrs["aoi"] for name, each in cubes.items()} == {"corner": "corner", "farm": "farm"}
        assert [each.sizes["time"] for each in cubes.values()] == [1, len(DAYS)]

    def test_one_is_named(self, two: Path) -> None:
        assert open_one(two, aoi="corner").attrs["aoi"] == "corner"
        with pytest.raises(OutputError, match=r"has no images of the area 'barn'\. It has corner, farm"):
            s2cube.open_output(two, aoi="barn")


class TestImagesThatDiffer:
    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            ({"bands": ["red"]}, "bands red as int16"),
            ({"bands": BANDS, "dtype": "float32"}, "bands red,nir as float32"),
            ({"bands": BANDS, "resolution": 120}, "bands red,nir as int16, 45 x 77 cells of 120 m"),
        ],
    )
    def test_are_named(self, archive: Archive, out: Path, settings: dict[str, Any], said: str) -> None:
        aoi = s2cube.read_aoi(archive.aoi)
        items = s2cube.search(aoi, stac=str(archive.items), datetime="2022-05")
        s2cube.write_cogs(s2cube.open_cube(items, aoi, **{"resolution": 60, "dtype": "int16"} | settings), out)
        with pytest.raises(OutputError, match="do not fit into one cube") as error:
            s2cube.open_output(out)
        assert f"farm_20220520: {said}" in str(error.value)
        assert f"{DAYS[0]}, " in str(error.value)
        assert ("choose from the bands red by bands=" in str(error.value)) == (settings["bands"] == ["red"])
        if settings["bands"] == ["red"]:
            assert open_one(out, bands="red").sizes["time"] == len(DAYS)
            with pytest.raises(OutputError, match="do not fit into one cube"):
                s2cube.open_output(out, bands="nir")

    def test_in_their_polygon(self, out: Path) -> None:
        edit_item(out, 1, lambda item: item["properties"].update({"s2cube:ground": "another"}))
        with pytest.raises(OutputError, match=f"{DAYS[1]}: bands .*, polygon another"):
            s2cube.open_output(out)

    def test_in_other_settings_are_opened_with_a_warning(self, out: Path, caplog: pytest.LogCaptureFixture) -> None:
        edit_item(out, 1, lambda item: item["properties"]["s2cube:settings"].update(dilation=50))
        assert open_one(out).sizes["time"] == len(DAYS)
        assert "made with different settings: dilation" in caplog.text

    def test_those_with_a_name_are_opened_by_it(self, out: Path, caplog: pytest.LogCaptureFixture) -> None:
        def named(name: str) -> Callable[[dict[str, Any]], None]:
            return lambda item: item["properties"].update({"s2cube:name": name})

        edit_item(out, 1, named("index"))
        assert DAYS[1] not in open_one(out)["slice"].values
        assert "left out; to open them, choose a name by name=: index" in caplog.text
        assert list(open_one(out, name="index", bands="nir", dtype="int16")["slice"].values) == [DAYS[1]]
        with pytest.raises(OutputError, match=r"has no image with the name 'ndvi'\. Choose by name= from index"):
            s2cube.open_output(out, name="ndvi")
        for day in range(len(DAYS)):
            edit_item(out, day, named("index"))
        assert open_one(out, dtype="int16").sizes["time"] == len(DAYS)
        edit_item(out, 0, named("other"))
        with pytest.raises(OutputError, match=r"only images that were computed .*Choose by name= from index, other"):
            s2cube.open_output(out)

    def test_without_any_name(self, out: Path) -> None:
        with pytest.raises(OutputError, match=r"has no image with the name 'ndvi'\. Leave out name"):
            s2cube.open_output(out, name="ndvi")


def write_table(out: Path) -> None:
    """Write all Items of the farm to the table."""
    output, rows = Output.at(out), ItemRows(Output.at(out))
    rows.replace("farm", [json.loads(output.destination.read(slice_file(*each)) or b"") for each in output.items()])
    rows.write(["farm"])


class TestTable:
    """The table of all Items: `items.parquet`."""

    def test_a_thousand_images_are_opened_from_one_file(
        self, pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        days = [date(2017, 1, 1) + timedelta(2 * count) for count in range(1000)]
        source, item = file(pristine, 0, "").with_suffix(""), json.loads(file(pristine, 0).read_text())
        for day in days:
            slice_id = f"farm_{day:%Y%m%d}"
            folder = tmp_path / "farm" / slice_id
            folder.mkdir(parents=True)
            for suffix in (".tif", "_qa.tif"):
                os.link(f"{source}{suffix}", folder / f"{slice_id}{suffix}")
            properties = {**item["properties"], "datetime": f"{day}T17:00:00Z"}
            text = json.dumps({**item, "id": slice_id, "properties": properties})
            (folder / f"{slice_id}.json").write_text(text)
        write_table(tmp_path)
        direct, files = Folder.read, list[str]()
        monkeypatch.setattr(Folder, "read", lambda folder, name: files.append(name) or direct(folder, name))
        cube = open_one(tmp_path)
        assert files == ["items.parquet"]
        assert [str(time)[:10] for time in cube.time.values] == [f"{day}" for day in days]
        assert len(cube.variable.__dask_graph__()) == 1000

    @pytest.mark.parametrize("bands", [None, ["nir"]])
    def test_gives_the_same_cube(self, out: Path, bands: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        (out / "items.parquet").unlink(missing_ok=True)
        without = open_one(out, bands=bands).compute()
        write_table(out)
        monkeypatch.setattr(Output, "item", lambda *_: pytest.fail("an Item is read"))
        xr.testing.assert_identical(open_one(out, bands=bands).compute(), without)

    def test_that_is_older_than_the_images(self, out: Path, archive: Archive) -> None:
        file(out, 4).rename(out / "later.json")
        write_table(out)
        file(out, 1).unlink()
        (out / "later.json").rename(file(out, 4))
        aoi = s2cube.read_aoi(archive.aoi)
        items = s2cube.search(aoi, stac=str(archive.items), datetime="2022-06")
        settings: dict[str, Any] = {"bands": BANDS, "resolution": 60, "dtype": "int16", "mask": "none"}
        table = (out / "items.parquet").read_bytes()
        s2cube.write_cogs(s2cube.open_cube(items, aoi, **settings), out)
        (out / "items.parquet").write_bytes(table)
        cube = open_one(out, dtype="int16")
        assert list(cube["slice"].values) == [day for day in DAYS if day != DAYS[1]]
        replaced = json.loads(cube.attrs["provenance"])["slices"]["farm_20220614"]
        assert replaced["settings"]["mask"] == []
        cube.compute()

    def test_of_the_same_sizes_but_other_pixels_is_an_error(self, out: Path) -> None:
        write_table(out)
        path = file(out, 1, ".tif")
        flip(path)
        checksum = hashlib.sha256(path.read_bytes()).hexdigest()
        edit(file(out, 1), lambda item: item["assets"]["data"].update({"file:checksum": f"1220{checksum}"}))
        with pytest.raises(AssetReadError, match=rf"{DAYS[1]}\.tif: differs from the checksum"):
            open_one(out).compute()

    @pytest.mark.parametrize(
        "change",
        [
            lambda path: path.write_bytes(b"PAR1 junk"),
            lambda path: path.write_bytes(path.read_bytes()[:-10]),
            lambda path: path.unlink(),
        ],
    )
    def test_that_cannot_be_read(self, out: Path, change: Callable[[Path], object]) -> None:
        write_table(out)
        change(out / "items.parquet")
        assert open_one(out).sizes["time"] == len(DAYS)

    def test_with_a_row_that_is_no_item(self, out: Path) -> None:
        edit(file(out, 1), lambda item: item["properties"].update({"s2cube:scenes": ["", None]}))
        write_table(out)
        edit(file(out, 1), lambda item: item["properties"].update({"s2cube:scenes": []}))
        assert open_one(out).sizes["time"] == len(DAYS)


class TestDuringARun:
    def test_a_slice_without_item_is_left_out(self, out: Path) -> None:
        file(out, 2).unlink()
        assert DAYS[2] not in open_one(out)["slice"].values

    def test_a_slice_that_is_replaced_is_read_again(self, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A listing that is older than the Items."""
        listing, listings = Folder.sizes, list[str]()

        def sizes(folder: Folder, depth: int, under: str = "") -> dict[str, int]:
            listings.append(under)
            found = listing(folder, depth, under)
            return found if under else {name: size - name.endswith(f"{DAYS[2]}.tif") for name, size in found.items()}

        monkeypatch.setattr(Folder, "sizes", sizes)
        assert open_one(out).sizes["time"] == len(DAYS)
        assert listings == ["", f"farm/{DAYS[2]}"]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


class TestDamage:
    @pytest.mark.parametrize("suffix", [".tif", "_qa.tif"])
    def test_is_found_by_size_when_it_is_opened(self, out: Path, suffix: str) -> None:
        shorten(file(out, 1, suffix))
        with pytest.raises(OutputError, match=rf"{DAYS[1]}{suffix} has \d+ bytes, not \d+\. .*verify --repair"):
            s2cube.open_output(out)

    @pytest.mark.parametrize("suffix", [".tif", "_qa.tif"])
    @pytest.mark.parametrize(
        ("damage", "said"),
        [
            (flip, "differs from the checksum"),
            (shorten, "bytes, not"),
            (Path.unlink, "No such file"),
            (lambda path: path.write_bytes(b""), "is empty"),
        ],
    )
    def test_is_never_nodata(self, out: Path, suffix: str, damage: Callable[[Path], object], said: str) -> None:
        cube = open_one(out)
        damage(file(out, 1, suffix))
        part = cube if suffix == ".tif" else cube.qa
        with pytest.raises(AssetReadError, match=rf"{DAYS[1]}{suffix}: .*{said}.*verify --repair"):
            part.drop_vars("qa").compute()
        assert part.isel(time=[0, 2]).drop_vars("qa").notnull().any()

    def test_of_a_large_file(self, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(stored_image, "_WHOLE_BYTES", 0)
        cube, path = open_one(out).drop_vars("qa"), file(out, 1, ".tif")
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))
        with pytest.raises(AssetReadError, match=rf"{DAYS[1]}\.tif: cannot be read .*verify --repair"):
            cube.compute()
        shorten(path)
        with pytest.raises(AssetReadError, match=rf"{DAYS[1]}\.tif: has \d+ bytes, not \d+ as its Item says"):
            cube.compute()

    @pytest.mark.parametrize(
        ("name", "value"),
        [("proj:shape", [89, 153]), ("proj:code", "EPSG:32615"), ("proj:transform", [60, 0, 0, 0, -60, 0])],
    )
    def test_of_an_item_that_describes_another_grid(self, out: Path, name: str, value: Any) -> None:
        for day in range(len(DAYS)):
            edit_item(out, day, lambda item: item["properties"].update({name: value}))
        cube = open_one(out)
        with pytest.raises(AssetReadError, match="has another grid, or other bands, than its Item says"):
            cube.compute()

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("proj:shape", [0, 10]),
            ("proj:shape", [1 << 40, 1 << 40]),
            ("proj:shape", "89x154"),
            ("proj:code", "EPSG:99999999"),
            ("proj:code", None),
            ("proj:transform", [60, 1, 0, 0, -60, 0]),
            ("proj:transform", [60, 0, 0]),
            ("proj:transform", [-60, 0, 0, 0, 60, 0]),
            ("s2cube:settings", None),
            ("s2cube:offset_dn", {"scene": "x"}),
            ("s2cube:dropped", [{"scene": "x"}]),
        ],
    )
    def test_of_an_item_is_named(self, out: Path, name: str, value: Any) -> None:
        edit_item(out, 1, lambda item: item["properties"].update({name: value}))
        with pytest.raises(OutputError, match=rf"{DAYS[1]}\.json: cannot be opened \({name}"):
            s2cube.open_output(out)

    def test_of_an_item_without_qa(self, out: Path) -> None:
        edit_item(out, 1, lambda item: item["assets"].pop("qa"))
        with pytest.raises(OutputError, match=rf"{DAYS[1]}\.json: has no asset 'qa'"):
            s2cube.open_output(out)


class TestRefused:
    def test_nothing_there(self, tmp_path: Path) -> None:
        for path in (tmp_path / "absent", tmp_path):
            with pytest.raises(OutputError, match=r"has no images\. Correct the path, or run the job first"):
                s2cube.open_output(path)
            with pytest.raises(OutputError, match="has no images of the area 'farm'"):
                s2cube.open_output(path, aoi="farm")
        with pytest.raises(OutputError, match="s2cube cannot"):
            s2cube.open_output("https://example.com/out")

    @pytest.mark.parametrize("bands", ["swir16", ["red", "swir16"]])
    def test_bands_that_no_image_has(self, out: Path, bands: Any) -> None:
        with pytest.raises(OutputError, match=r"has no image with the bands .*swir16\. Choose from red, nir"):
            s2cube.open_output(out, bands=bands)

    @pytest.mark.parametrize("settings", [{"bands": ""}, {"bands": []}, {"bands": "red,red"}, {"dtype": "uint8"}])
    def test_settings(self, out: Path, settings: dict[str, Any]) -> None:
        with pytest.raises(ConfigError, match=next(iter(settings))):
            s2cube.open_output(out, **settings)

    def test_int16_of_float32_images(self, archive: Archive, tmp_path: Path) -> None:
        s2cube.write_cogs(open_farm(archive, bands=["red"]).isel(time=[0]), tmp_path)
        with pytest.raises(OutputError, match=rf"{DAYS[0]}\.tif: is float32, not int16"):
            s2cube.open_output(tmp_path, dtype="int16")


@pytest.mark.usefixtures("keys")
class TestBucket:
    @pytest.fixture
    def address(self, out: Path, s3: S3Store, tmp_path: Path) -> str:
        write_table(out)
        for path in out.rglob("*"):
            if path.is_file() and ".s2cube" not in path.parts:
                obstore.put(s3, f"open {tmp_path.name}/50%/{path.relative_to(out)}", path)
        return f"s3://results/open {tmp_path.name}/50%"

    def test_is_like_a_folder(self, address: str, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        xr.testing.assert_identical(open_one(address).compute(), open_one(out).compute())
        monkeypatch.setattr(stored_image, "_WHOLE_BYTES", 0)
        xr.testing.assert_identical(open_one(address).compute(), open_one(out).compute())

    def test_one_file_has_all_items(self, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
        direct, files = Bucket.read, list[str]()
        monkeypatch.setattr(Bucket, "read", lambda bucket, name: files.append(name) or direct(bucket, name))
        open_one(address)
        assert files == ["items.parquet"]

    def test_without_keys(self, address: str, monkeypatch: pytest.MonkeyPatch, new_session: None) -> None:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        with pytest.raises(WriteError, match=r"50%/: cannot be listed \(there are no keys for s3://results"):
            s2cube.open_output(address)

    def test_no_key_is_in_the_graph(self, address: str, out: Path) -> None:
        content = pickle.dumps(open_one(address))
        for secret in (b"AKTEST", b"SKTEST"):
            assert secret not in content
        xr.testing.assert_identical(pickle.loads(content).compute(), open_one(out).compute())

    def test_by_keys_of_another_name(self, address: str, monkeypatch: pytest.MonkeyPatch, new_session: None) -> None:
        endpoint = os.environ["AWS_ENDPOINT_URL"]
        for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
            monkeypatch.setenv(f"OUT_{name}", os.environ[f"AWS_{name}"])
            monkeypatch.delenv(f"AWS_{name}")
        monkeypatch.delenv("AWS_ENDPOINT_URL")
        monkeypatch.setenv("AWS_SESSION_TOKEN", "of another store")
        stores = {"s3://results": {"endpoint": endpoint, "keys": "OUT"}}
        assert open_one(address, stores=stores).isel(time=0).notnull().any()

    def test_a_request_that_fails_is_never_nodata(
        self, address: str, monkeypatch: pytest.MonkeyPatch, new_session: None
    ) -> None:
        monkeypatch.setattr(stored_image, "_WHOLE_BYTES", 0)
        monkeypatch.setattr(gdal_file, "_PAGE_BYTES", 1024)
        fetch = gdal_file.fetch

        def fail(href: str, start: int, stop: int, access: Access) -> Part:
            return fetch(href, start, stop, access if start == 0 else replace(access, stores=BROKEN))

        cube = open_one(address, retries=0).drop_vars("qa")
        monkeypatch.setattr(gdal_file, "fetch", fail)
        with pytest.raises(AssetReadError, match=r"\.tif: cannot be read \(127\.0\.0\.1:9 refuses the connection"):
            cube.compute()

    def test_damage(self, address: str, s3: S3Store) -> None:
        cube, name = open_one(address), f"{address.removeprefix('s3://results/')}/farm/{DAYS[1]}/{DAYS[1]}.tif"
        content = bytearray(obstore.get(s3, name).bytes())
        content[len(content) // 2] ^= 1
        obstore.put(s3, name, bytes(content))
        with pytest.raises(AssetReadError, match=rf"{DAYS[1]}\.tif: differs from the checksum"):
            cube.compute()
        obstore.put(s3, name, bytes(content[:-1]))
        with pytest.raises(AssetReadError, match=rf"{DAYS[1]}\.tif: has \d+ bytes, not \d+"):
            cube.compute()
        obstore.delete(s3, name)
        with pytest.raises(AssetReadError, match=rf"{DAYS[1]}\.tif: "):
            cube.compute()
        with pytest.raises(OutputError, match=rf"{DAYS[1]}\.tif is missing"):
            s2cube.open_output(address)


def test_logs_only_what_is_unusual(out: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        open_one(out)
    assert not caplog.records
