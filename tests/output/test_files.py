"""What is written: valid COGs, pictures, STAC that others open; and all of it whole or not at all."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import odc.stac
import pystac
import pytest
import rasterio
import shapely
import xarray as xr
from pystac.validation.stac_validator import JsonSchemaSTACValidator
from rio_cogeo import cog_validate

import s2cube
from s2cube.config.sections import OutputSection
from s2cube.cube.facts import Provenance, SliceFacts
from s2cube.demo.archive import PASSES, Archive
from s2cube.errors import ConfigError, OutputError, WriteError
from s2cube.inventory.verification import verify
from s2cube.output._item import Found, slice_item
from s2cube.output._raster import layout_of
from s2cube.storage.destination import destination_at
from s2cube.storage.folder import Folder
from s2cube.storage.output import Output
from support.images import BANDS, image, image_to_cog
from support.scenes import open_int16


def write_small(path: Path) -> None:
    transform = rasterio.Affine(30, 0, 600000, 0, -30, 4500000)
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=1, width=1, dtype="int16", crs=32614, transform=transform
    ) as file:
        file.write(np.ones((1, 1, 1), "int16"))


class TestCOG:
    @pytest.mark.parametrize("dtype", ["int16", "float32"])
    @pytest.mark.parametrize("side", [5, 511, 1300])
    def test_is_valid_and_says_what_it_is(self, tmp_path: Path, dtype: str, side: int) -> None:
        source = image(side, dtype)
        image_to_cog(source, tmp_path / "x.tif")
        valid, errors, warnings = cog_validate(tmp_path / "x.tif", strict=True)
        assert valid, errors + warnings
        with rasterio.open(tmp_path / "x.tif") as cog:
            np.testing.assert_array_equal(cog.read(), source.values)
            assert cog.descriptions == BANDS
            assert cog.crs.to_epsg() == 32614
            assert cog.transform == source.rio.transform()
            assert cog.scales == ((1e-4 if dtype == "int16" else 1.0),) * 3
            assert cog.units == ("1",) * 3
            assert cog.nodata == -9999 if dtype == "int16" else np.isnan(cog.nodata)
            assert cog.profile["compress"] == "deflate"
            assert cog.overviews(1) == ([2, 4] if side == 1300 else [2] if side > 512 else [])
            assert cog.tags()["TIFFTAG_DATETIME"] == "2022:07:09 17:19:31"

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("way", "kind"),
        [
            ({"compress": "zstd"}, "zstd"), ({"compress": "lzw"}, "lzw"), ({"compress": "none"}, None),
            ({"compress": "zstd", "compress_level": 19}, "zstd"), ({"compress_level": 12}, "deflate"),
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("dtype", ["int16", "float32"])
    def test_compressed_in_any_way_it_holds_the_same(
        self, tmp_path: Path, dtype: str, way: dict[str, Any], kind: str | None
    ) -> None:
        source = image(600, dtype)
        image_to_cog(source, tmp_path / "x.tif", OutputSection.of(way))
        assert cog_validate(tmp_path / "x.tif", strict=True)[0]
        with rasterio.open(tmp_path / "x.tif") as cog:
            np.testing.assert_array_equal(cog.read(), source.values)
            assert cog.profile.get("compress") == kind

    @pytest.mark.parametrize(
        "way",
        [{"compress_level": 13}, {"compress": "lzw", "compress_level": 1}, {"compress": "zstd", "compress_level": 23}],
    )
    def test_levels_that_are_none(self, way: dict[str, Any]) -> None:
        with pytest.raises(ConfigError, match="compress_level: "):
            OutputSection.of(way)

    def test_overviews_are_means_that_leave_nodata_out(self, tmp_path: Path) -> None:
        source = image(1300)
        source.values[:, 600, 600] = -9999
        source.values[:, 601, 601] += 400
        image_to_cog(source, tmp_path / "x.tif")
        with rasterio.open(tmp_path / "x.tif", overview_level=0) as overview:
            small = overview.read(1)
        quads = np.where(source.values[0] == -9999, np.nan, source.values[0]).reshape(650, 2, 650, 2)
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            want = np.nanmean(quads, axis=(1, 3))
        np.testing.assert_array_equal(small == -9999, np.isnan(want))
        assert np.nanmax(np.abs(np.where(np.isnan(want), np.nan, small) - want)) <= 1

    def test_a_writer_that_writes_nothing_is_found_out(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("rasterio.shutil.copy", lambda *_, **__: write_small(tmp_path / "x.tif"))
        with pytest.raises(OSError, match="was not written completely"):
            image_to_cog(image(600), tmp_path / "x.tif")

    def test_nowhere_to_write(self, tmp_path: Path) -> None:
        with pytest.raises(OSError, match="cannot be written"):
            image_to_cog(image(600), tmp_path / "no folder" / "x.tif")


@pytest.fixture(scope="module")
def written(archive: Archive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("written")
    aoi = s2cube.read_aoi(archive.aoi)
    items = s2cube.search(aoi, stac=str(archive.items))
    s2cube.write_cogs(open_int16(items, aoi, bands=["blue", "swir16"]), out)
    return out


class TestSTAC:
    def test_is_valid(self, written: Path) -> None:
        """By the schemas of the core; test_items.py validates the extensions."""
        catalog = pystac.Catalog.from_file(str(written / "catalog.json"))
        validator = JsonSchemaSTACValidator()
        objects = [catalog, *catalog.get_children(), *catalog.get_items(recursive=True)]
        assert len(objects) == 2 + len(PASSES)
        for each in objects:
            content = json.loads(Path(each.get_self_href()).read_text())
            assert content["stac_version"] == "1.1.0"
            validator.validate_core(content, each.STAC_OBJECT_TYPE, "1.1.0", each.get_self_href())

    def test_links_lead_everywhere(self, written: Path) -> None:
        for item in pystac.Catalog.from_file(str(written / "catalog.json")).get_items(recursive=True):
            assert item.get_root().id == "s2cube"
            assert item.get_parent().id == item.get_collection().id == item.collection_id == "farm"
            for asset in item.get_assets().values():
                assert Path(asset.get_absolute_href()).exists()

    def test_can_be_moved(self, written: Path, tmp_path: Path) -> None:
        hrefs = [
            link["href"] for path in written.rglob("*.json") for link in json.loads(path.read_text())["links"]
            if link["rel"] != "derived_from"
        ]  # fmt: skip
        assert all(href.startswith(".") for href in hrefs)

    def test_item_says_what_the_file_says(self, written: Path) -> None:
        for item in pystac.Catalog.from_file(str(written / "catalog.json")).get_items(recursive=True):
            with rasterio.open(item.assets["data"].get_absolute_href()) as cog:
                assert item.properties["proj:shape"] == list(cog.shape)
                assert item.properties["proj:transform"] == list(cog.transform)[:6]
                assert item.properties["proj:code"] == f"EPSG:{cog.crs.to_epsg()}"
                bands = item.assets["data"].extra_fields["bands"]
                assert [(each["nodata"], each["raster:scale"], each["data_type"]) for each in bands] == [
                    (cog.nodata, scale, dtype) for scale, dtype in zip(cog.scales, cog.dtypes, strict=True)
                ]
                named = [each["name"] for each in item.assets["data"].extra_fields["bands"]]
                assert named == list(cog.descriptions)

    def test_odc_stac_opens_it(self, written: Path) -> None:
        items = list(pystac.Catalog.from_file(str(written / "catalog.json")).get_items(recursive=True))
        cube = odc.stac.load(items, bands=["data.2", "data.1"]).rename({"data.2": "swir16", "data.1": "blue"})
        assert cube.sizes["time"] == len(PASSES)
        assert cube.odc.geobox.resolution.xy == (30, -30)
        assert cube.swir16.nodata == -9999
        first = min(items, key=lambda item: item.datetime)
        with rasterio.open(first.assets["data"].get_absolute_href()) as cog:
            np.testing.assert_array_equal(cube.swir16[0].values, cog.read(2))
            np.testing.assert_array_equal(cube.blue[0].values, cog.read(1))

    def test_what_it_is_made_of(self) -> None:
        provenance = Provenance(
            recipe="r", data_version=2, settings={"mask": ["scl"], "mask_classes": [8, 9, 10]},
            search={"max_cloud": 20}, ground="g", offset_dn={"a b": 0, "c": -1000}, dropped=(), derived_from=(),
        )  # fmt: skip
        outline = shapely.from_wkt("POLYGON ((0 0, 1 0, 1 1, 0 0))")
        facts_ = SliceFacts("x", outline, "x", datetime(2022, 7, 9, tzinfo=UTC), ("a b", "c"), provenance)
        item = slice_item(layout_of(image(10)), facts_, Found(np.array([90, 0, 0, 0, 10, 7]), ("c",)), {})
        properties = item["properties"]
        assert properties["s2cube:offset_dn"] == {"a b": 0, "c": -1000}
        assert properties["s2cube:offset_doubts"] == ["c"]
        assert properties["s2cube:clear_percent"] == 90
        assert properties["s2cube:scenes"] == ["a b", "c"]
        facts = {key: properties[f"s2cube:{key}"] for key in ("data_version", "ground", "search")}
        assert facts == {"data_version": 2, "ground": "g", "search": {"max_cloud": 20}}

    def test_sources_are_named_without_their_secrets(self, archive: Archive, tmp_path: Path) -> None:
        aoi = s2cube.read_aoi(archive.aoi)
        items = s2cube.search(aoi, stac=str(archive.items), datetime="2022-08")
        items[0].set_self_href("https://me:pw@host/items/S2A?sig=abc")
        (path,) = s2cube.write_cogs(s2cube.open_cube(items, aoi, bands=["blue"]), tmp_path)
        (link,) = pystac.Item.from_file(str(path.with_suffix(".json"))).get_links("derived_from")
        assert link.href == "https://host/items/S2A"

    def test_arithmetic_that_fills_holes_is_refused(self, archive: Archive, tmp_path: Path) -> None:
        aoi = s2cube.read_aoi(archive.aoi)
        cube = s2cube.open_cube(s2cube.search(aoi, stac=str(archive.items), datetime="2021"), aoi, bands=["blue"])
        with pytest.raises(OutputError, match="has values outside its area of interest"):
            s2cube.write_cogs(cube.copy(data=da.nan_to_num(cube.data)), tmp_path)

    def test_scenes_stand_in_the_item(self, written: Path) -> None:
        item = pystac.Item.from_file(str(written / "farm/farm_20220803/farm_20220803.json"))
        assert item.properties["s2cube:scenes"] == ["S2A_14TNL_20220803_0_L2A"]


class TestWhole:
    @pytest.fixture
    def cube(self, archive: Archive) -> xr.DataArray:
        aoi = s2cube.read_aoi(archive.aoi)
        return s2cube.open_cube(s2cube.search(aoi, stac=str(archive.items), datetime="2021"), aoi, bands=["blue"])

    def test_a_file_is_replaced_whole(self, tmp_path: Path) -> None:
        place = destination_at(tmp_path)
        place.put("x.json", b"old")
        with (tmp_path / "x.json").open() as reader:
            place.put("x.json", b"new")
            assert reader.read() == "old"
        assert place.read("x.json") == b"new"
        assert {path.name for path in tmp_path.iterdir()} == {"x.json", ".s2cube"}

    def test_a_slice_that_cannot_be_made_again_stays_as_it_was(
        self, cube: xr.DataArray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        paths = s2cube.write_cogs(cube, tmp_path)
        before = {path: path.read_bytes() for path in Path(paths[0]).parent.iterdir()}
        assert len(before) == 5

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("s2cube.output.files.small_picture", full)
        with pytest.raises(WriteError, match=r"farm_20210724: cannot be written \(No space left on device\)"):
            s2cube.write_cogs(cube, tmp_path)
        assert {path: path.read_bytes() for path in Path(paths[0]).parent.iterdir()} == before
        assert not list(tmp_path.rglob("parts/*"))

    @pytest.mark.parametrize("breaks_at", [".png", ".tif", "_qa.qml", ".json"])
    def test_an_item_never_stands_beside_files_that_are_not_its_own(
        self, cube: xr.DataArray, tmp_path: Path, breaks_at: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        s2cube.write_cogs(cube, tmp_path)
        put = Folder.put

        def breaking(place: Folder, name: str, content: bytes | Path) -> None:
            if name.endswith(f"24{breaks_at}"):
                raise KeyboardInterrupt
            put(place, name, content)

        monkeypatch.setattr(Folder, "put", breaking)
        other = cube.assign_attrs(provenance=cube.provenance.replace('"recipe":"', '"recipe":"other'))
        with pytest.raises(KeyboardInterrupt):
            s2cube.write_cogs(other, tmp_path)
        assert not list(tmp_path.rglob("farm_20210724.json"))

    @pytest.mark.parametrize("breaks_at", ["_qa.tif", "_qa.qml", ".png", ".tif", ".json"])
    def test_nor_beside_files_of_other_bytes(
        self, cube: xr.DataArray, tmp_path: Path, breaks_at: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The pixels are the same, and so is the recipe; the checksums are not."""
        s2cube.write_cogs(cube, tmp_path)
        put = Folder.put

        def breaking(place: Folder, name: str, content: bytes | Path) -> None:
            put(place, name, content)
            if name.endswith(f"24{breaks_at}"):
                raise KeyboardInterrupt

        monkeypatch.setattr(Folder, "put", breaking)
        with pytest.raises(KeyboardInterrupt):
            s2cube.write_cogs(cube, tmp_path, compress="zstd")
        monkeypatch.undo()
        assert bool(list(tmp_path.rglob("farm_20210724.json"))) == (breaks_at == ".json")
        assert verify(Output.at(tmp_path)).is_whole

    def test_the_same_bytes_again_leave_the_item_where_it_is(
        self, cube: xr.DataArray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        s2cube.write_cogs(cube, tmp_path)
        monkeypatch.setattr(Folder, "remove", lambda *_: pytest.fail("taken away"))
        s2cube.write_cogs(cube, tmp_path)

    @pytest.mark.parametrize("workers", [[], ["--workers", "2"]], ids=["threads", "workers"])
    def test_killed_at_any_moment_leaves_whole_slices(
        self, server_processes: None, archive: Archive, tmp_path: Path, workers: list[str]
    ) -> None:
        command = [sys.executable, "-m", "s2cube", "run", "--aoi", archive.aoi, "--stac", archive.items, "-q", *workers]
        command += ["--out", tmp_path / "out", "--bands", "blue"]
        items = tmp_path / "out" / "farm"
        for wanted in (1, 3):
            run = subprocess.Popen(list(map(str, command)), start_new_session=True)
            deadline = time.monotonic() + 60
            while len(list(items.glob("*/*.json"))) < wanted and time.monotonic() < deadline and run.poll() is None:
                time.sleep(0.005)
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()
            for item in items.glob("*/*.json"):
                json.loads(item.read_text())
                with rasterio.open(item.with_suffix(".tif")) as cog:
                    assert cog.read().max() > 0
        assert subprocess.run(list(map(str, command)), check=False).returncode == 0
        assert len(list(items.glob("*/*.json"))) == len(PASSES)
        assert not list(tmp_path.rglob("parts/*"))
        catalog = pystac.Catalog.from_file(str(tmp_path / "out" / "catalog.json"))
        assert len(list(catalog.get_items(recursive=True))) == len(PASSES)

    def test_folder_that_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(OutputError, match="cannot be written"):
            destination_at(tmp_path / "file" / "out").prepare()
