"""Composites as files: GDAL reads what was given, Items are valid STAC, and whatever reads an output takes them."""

import json
import shutil
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
from rio_cogeo import cog_validate

import s2cube
from s2cube.config.composites import Method
from s2cube.config.periods import Period
from s2cube.cube.cut import inside
from s2cube.demo.archive import Archive
from s2cube.errors import OutputError, WriteError
from s2cube.inventory._items_table import read_items_table
from s2cube.inventory.catalog import write_catalog
from s2cube.inventory.renewal import is_older
from s2cube.inventory.verification import repair, verify
from s2cube.kernels.packing import PACKINGS
from s2cube.output.composite_files import CompositeImage
from s2cube.products._compose import Composite, Stack, compose
from s2cube.storage.image_item import read_item
from s2cube.storage.output import Output
from support.composites import BANDS, LARGE, SCENES, SMALL, add, facts_of, image_of, lazy, write
from support.items import validate


class TestRasters:
    @pytest.mark.parametrize("shape", [SMALL, LARGE], ids=["small", "large"])
    @pytest.mark.parametrize("dtype", ["int16", "float32"])
    def test_gdal_reads_what_was_given(self, shape: tuple[int, int], dtype: str, tmp_path: Path) -> None:
        image, facts = image_of(shape, dtype), facts_of()
        found = write(image, facts, tmp_path / "x")
        ends = (".tif", "_count.tif", "_date.tif", ".png", ".qml", ".json")
        assert sorted(found) == sorted(facts.id + end for end in ends)
        nodata = PACKINGS[dtype].nodata
        for end, values, no_value in (
            (".tif", image.values, nodata),
            ("_count.tif", image.count[None], None),
            ("_date.tif", image.date[None], 0),
        ):
            path = tmp_path / "x" / f"{facts.id}{end}"
            assert cog_validate(path, strict=True)[0], end
            with rasterio.open(path) as file:
                np.testing.assert_array_equal(file.read(), values)
                assert set(file.dtypes) == {values.dtype.name}
                assert (file.transform, file.crs.to_epsg()) == (image.geobox.affine, 32614)
                assert (file.nodata == no_value) or (no_value != no_value and file.nodata != file.nodata)

    def test_names_units_and_statistics(self, tmp_path: Path) -> None:
        image = image_of(LARGE)
        write(image, facts_of(), tmp_path / "x")
        for key, unit in (("count", "1"), ("date", "days since 1970-01-01")):
            with rasterio.open(tmp_path / "x" / f"farm_202406_medoid_{key}.tif") as file:
                assert (file.descriptions, file.units, file.scales) == ((key,), (unit,), (1.0,))
                tags, band = file.tags(1), file.read(1, masked=True)
            assert float(tags["STATISTICS_MEAN"]) == pytest.approx(band.mean(), rel=1e-9)
            assert float(tags["STATISTICS_MINIMUM"]) == band.min()
        with rasterio.open(tmp_path / "x" / "farm_202406_medoid.tif") as file:
            assert file.descriptions == BANDS
            assert file.scales == (0.0001,) * 4

    def test_overviews_have_only_days_that_exist(self, tmp_path: Path) -> None:
        image = image_of(LARGE)
        write(image, facts_of(), tmp_path / "x")
        for key, values in (("date", image.date), ("count", image.count)):
            with rasterio.open(tmp_path / "x" / f"farm_202406_medoid_{key}.tif", overview_level=0) as file:
                assert file.shape < values.shape
                np.testing.assert_array_equal(np.unique(file.read(1)), np.unique(values))

    def test_without_days(self, tmp_path: Path) -> None:
        facts = facts_of(id="farm_202406_median", method=Method("median"))
        found = write(replace(image_of(SMALL, bands=("NDVI",)), date=None), facts, tmp_path / "x")
        assert sorted(found) == [f"{facts.id}{end}" for end in (".json", ".png", ".tif", "_count.tif")]
        assert set(json.loads(found[f"{facts.id}.json"])["assets"]) == {"data", "count", "thumbnail"}

    def test_nothing_was_observed(self, tmp_path: Path) -> None:
        image = image_of(SMALL)
        empty = replace(
            image, values=np.full_like(image.values, -9999), count=image.count * 0, date=np.zeros_like(image.date)
        )
        document = json.loads(write(empty, facts_of(), tmp_path / "x")["farm_202406_medoid.json"])
        validate(document, "Feature")
        assert document["properties"]["s2cube:clear_percent"] == 0
        assert document["assets"]["count"]["statistics"]["maximum"] == 0
        assert document["assets"]["date"]["statistics"] == {"valid_percent": 0}

    @pytest.mark.parametrize(
        ("shape", "chunks"), [(SMALL, (17, 9)), (SMALL, (40, 30)), (LARGE, (256, 300)), (LARGE, (700, 530))]
    )
    def test_chunks_change_no_byte(self, shape: tuple[int, int], chunks: tuple[int, int], tmp_path: Path) -> None:
        image, facts = image_of(shape), facts_of()
        whole = write(image, facts, tmp_path / "whole")
        assert write(lazy(image, *chunks), facts, tmp_path / "lazy") == whole
        mixed = replace(lazy(image, *chunks), count=image.count)
        assert write(mixed, facts, tmp_path / "mixed") == whole

    def test_small_and_large_ones_say_the_same(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """GDAL writes large ones; it reads the same from both."""
        image, facts = image_of(SMALL), facts_of()
        small = json.loads(write(image, facts, tmp_path / "small")[f"{facts.id}.json"])
        monkeypatch.setattr("s2cube.output._raster._SMALL_BYTES", 0)
        large = json.loads(write(lazy(image, 16, 16), facts, tmp_path / "large")[f"{facts.id}.json"])
        for document in (small, large):
            for asset in document["assets"].values():
                del asset["file:size"], asset["file:checksum"]
        assert small == large
        for end in (".tif", "_count.tif", "_date.tif", ".png"):
            with (
                rasterio.open(tmp_path / "small" / f"{facts.id}{end}") as one,
                rasterio.open(tmp_path / "large" / f"{facts.id}{end}") as other,
            ):
                np.testing.assert_array_equal(one.read(), other.read())
                assert [one.tags(n) for n in one.indexes] == [other.tags(n) for n in other.indexes]
                assert (one.nodata, one.units, one.descriptions) == (other.nodata, other.units, other.descriptions)

    def test_a_lazy_composite_is_computed_once(
        self, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls = []

        def counted(stack: Stack, method: Method) -> Composite:
            calls.append(stack.values.shape)
            return compose(stack, method)

        monkeypatch.setattr("s2cube.products.composite.compose", counted)
        aoi = s2cube.read_aoi(archive.aoi)
        cube = s2cube.open_cube(
            s2cube.search(aoi, stac=str(archive.items)), aoi, bands=["red", "nir"], resolution=60, dtype="int16",
            chunks={"y": 50, "x": 100},
        )  # fmt: skip
        made = s2cube.composite(cube, period="all", method="medoid").isel(time=0)
        calls.clear()
        area = int(inside(cube.odc.geobox, aoi.geometry_lonlat).sum())
        image = CompositeImage(
            made.data, made["count"].data, made["date"].data, ("red", "nir"), cube.odc.geobox, PACKINGS["int16"], area
        )
        found = write(image, facts_of(), tmp_path / "x")
        assert len(calls) == made.data.numblocks[1] * made.data.numblocks[2] > 1
        now = made.compute()
        for end, values in ((".tif", now.values), ("_count.tif", now["count"].values[None])):
            with rasterio.open(tmp_path / "x" / f"farm_202406_medoid{end}") as file:
                np.testing.assert_array_equal(file.read(), values)
        eager = replace(image, values=now.values, count=now["count"].values, date=now["date"].values)
        assert write(eager, facts_of(), tmp_path / "eager") == found

    def test_more_cells_than_the_area_has(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="but the area has 3 cells"):
            write(replace(image_of(SMALL), aoi_cells=3), facts_of(), tmp_path / "x")
        assert not (tmp_path / "x" / "farm_202406_medoid.json").exists()

    def test_nowhere_to_write(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(self: Path, content: bytes) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "write_bytes", full)
        with pytest.raises(WriteError, match="farm_202406_medoid: cannot be written"):
            write(image_of(SMALL), facts_of(), tmp_path / "x")

    def test_a_source_that_fails_leaves_no_item(self, tmp_path: Path) -> None:
        image = lazy(image_of(SMALL), 16, 16)

        def fail(block: np.ndarray) -> np.ndarray:
            raise OutputError("an asset", "cannot be read", "Try again")

        with pytest.raises(OutputError, match="an asset"):
            write(replace(image, date=image.date.map_blocks(fail, dtype="uint16")), facts_of(), tmp_path / "x")
        assert not list((tmp_path / "x").glob("*.json"))


class TestItem:
    @pytest.fixture
    def item(self, tmp_path: Path) -> dict[str, Any]:
        found = write(image_of(SMALL), facts_of(missing=("farm_20240621",)), tmp_path / "x")
        document: dict[str, Any] = json.loads(found["farm_202406_medoid.json"])
        return document

    def test_is_valid(self, item: dict[str, Any]) -> None:
        validate(item, "Feature")
        assert pystac.Item.from_dict(item).to_dict(transform_hrefs=False)["properties"] == item["properties"]

    def test_says_what_it_is_of(self, item: dict[str, Any]) -> None:
        properties = item["properties"]
        assert properties["datetime"] is None
        period = properties["start_datetime"], properties["end_datetime"]
        assert period == ("2024-06-01T00:00:00Z", "2024-06-30T23:59:59Z")
        said = {key.removeprefix("s2cube:"): value for key, value in properties.items() if key.startswith("s2cube:")}
        assert said.items() >= {
            "period": "202406", "period_cut": False, "method": "medoid", "min_count": 1, "scenes": list(SCENES),
            "days": ["2024-06-01", "2024-06-11", "2024-06-30"], "missing": ["farm_20240621"], "recipe": "0123abcd",
            "data_version": 3, "ground": "4567", "settings": {"mask": ["scl"], "period": "month"},
        }.items()  # fmt: skip
        assert "score" not in said
        assert properties["processing:software"] == {"s2cube": s2cube.__version__}
        assert [link["href"] for link in item["links"] if link["rel"] == "derived_from"] == ["https://host/items/ü"]
        assert properties["renders"]["natural"]["bidx"] == [1, 2, 3]
        bands = item["assets"]["data"]["bands"]
        assert [band["name"] for band in bands] == list(BANDS)
        assert "Vegetation" in bands[3]["description"]

    def test_sizes_and_checksums_are_those_of_the_files(self, item: dict[str, Any], tmp_path: Path) -> None:
        assert set(item["assets"]) == {"data", "count", "date", "thumbnail", "style"}
        found = read_item(json.dumps(item).encode(), "farm", "farm_202406_medoid")
        assert len(found.files) == 5
        for name, size in found.files.items():
            assert (tmp_path / "x" / name.rpartition("/")[2]).stat().st_size == size
        assert found.checksums.keys() == found.files.keys()
        assert (found.period, found.recipe, found.bands, found.dtype) == ("202406", "0123abcd", BANDS, "int16")
        assert (found.name, found.scenes, found.derived_from) == ("", SCENES, ("https://host/items/ü",))
        assert not is_older(found)

    @pytest.mark.parametrize("least", [1, 2, 3])
    def test_shares_of_the_area(self, least: int, tmp_path: Path) -> None:
        image = image_of(SMALL)
        facts = facts_of(method=Method("medoid", min_count=least))
        item = json.loads(write(image, facts, tmp_path / "x")["farm_202406_medoid.json"])
        inside = image.count[2:-3, 4:-5]
        assert item["properties"]["s2cube:clear_percent"] == pytest.approx(100 * (inside >= least).mean(), abs=0.005)
        found = item["assets"]["count"]["statistics"]
        want = [inside.min(), inside.max(), inside.mean(), inside.std()]
        assert [found[key] for key in ("minimum", "maximum", "mean", "stddev")] == pytest.approx(want, rel=1e-12)
        valid = item["assets"]["date"]["statistics"]["valid_percent"]
        assert valid == item["assets"]["data"]["bands"][0]["statistics"]["valid_percent"]
        assert valid == pytest.approx(100 * (inside > 0).mean())

    @pytest.mark.parametrize(
        ("method", "score"),
        [
            (Method.parse("best"), "NDVI"),
            (Method.parse("best", "-NDWI"), "-NDWI"),
            (Method.parse("first"), None),
            (Method.parse("first", "-time"), "-time"),
            (Method.parse("geomedian"), None),
        ],
    )
    def test_score(self, method: Method, score: str | None, tmp_path: Path) -> None:
        facts = facts_of(id="farm_202406_x", method=method)
        item = json.loads(write(image_of(SMALL), facts, tmp_path / "x")["farm_202406_x.json"])
        assert item["properties"].get("s2cube:score") == score
        assert item["properties"]["s2cube:method"] == method.name

    def test_a_period_that_is_cut_and_a_scene_of_the_day_before(self, tmp_path: Path) -> None:
        """Far in the east, the morning of a solar day is the evening before in UTC."""
        facts = facts_of(
            period=Period("202406", date(2024, 6, 1), date(2024, 6, 15), is_cut=True),
            interval=(datetime(2024, 5, 31, 22, 50, 1, 250000, tzinfo=UTC), datetime(2024, 6, 10, tzinfo=UTC)),
        )
        properties = json.loads(write(image_of(SMALL), facts, tmp_path / "x")[f"{facts.id}.json"])["properties"]
        period = properties["start_datetime"], properties["end_datetime"]
        assert period == ("2024-05-31T22:50:01.250000Z", "2024-06-15T23:59:59Z")
        assert properties["s2cube:period_cut"] is True

    @pytest.mark.parametrize("aoi", ["Größe", "農場", "a b'c", "x_202406_median", "-"])
    def test_odd_ids(self, aoi: str, tmp_path: Path) -> None:
        facts = facts_of(aoi=aoi, id=f"{aoi}_202406_-NDWI", method=Method.parse("best", "-NDWI"))
        folder = add(tmp_path / "out", facts)
        validate(json.loads((folder / f"{facts.id}.json").read_text()), "Feature")
        output = Output.at(tmp_path / "out")
        write_catalog(output, None)
        assert list(output.items()) == [(aoi, facts.id)]
        item = output.item(aoi, facts.id)
        assert item
        assert (item.slice, item.period) == (facts.id, "202406")
        assert verify(output).is_whole


class TestOutput:
    @pytest.fixture
    def out(self, tmp_path: Path) -> Path:
        """Composites of two periods, with their catalogue."""
        add(tmp_path / "out", facts_of())
        add(tmp_path / "out", facts_of(id="farm_2024_median"), replace(image_of(SMALL), date=None))
        write_catalog(Output.at(tmp_path / "out"), None)
        return tmp_path / "out"

    def test_the_catalogue_lists_it(self, out: Path) -> None:
        collection = json.loads((out / "farm" / "collection.json").read_text())
        validate(collection, "Collection")
        items = [link["href"] for link in collection["links"] if link["rel"] == "item"]
        assert items == [f"./{each}/{each}.json" for each in ("farm_202406_medoid", "farm_2024_median")]
        assert collection["extent"]["temporal"]["interval"] == [["2024-06-01T00:00:00Z", "2024-06-30T23:59:59Z"]]
        assert set(collection["item_assets"]) == {"data", "count", "date", "thumbnail", "style"}
        assert "statistics" not in collection["item_assets"]["count"]
        assert not (out / "farm" / "timeline.png").exists()
        rows = read_items_table(Output.at(out))
        assert rows == [json.loads(path.read_text()) for path in sorted(out.glob("*/*/*.json"))]

    def test_its_state(self, out: Path) -> None:
        output, key = Output.at(out), ("farm", "farm_202406_medoid")
        assert output.state(*key, "0123abcd", BANDS) == "current"
        assert output.state(*key, "other", BANDS) == "outdated"
        assert output.state(*key, "0123abcd", ("red",)) == "outdated"
        (out / "farm" / "farm_202406_medoid" / "farm_202406_medoid_date.tif").unlink()
        assert output.state(*key, "0123abcd", BANDS) == "missing"
        with pytest.raises(OutputError, match=r"_date\.tif is missing"):
            output.whole_item(*key, output.sizes())

    @pytest.mark.parametrize("end", [".tif", "_count.tif", "_date.tif", ".png", ".qml"])
    def test_verify_finds_damage_and_repair_removes_its_item(self, out: Path, end: str) -> None:
        output = Output.at(out)
        assert verify(output).checked == 5 + 4
        assert verify(output).is_whole
        path = out / "farm" / "farm_202406_medoid" / f"farm_202406_medoid{end}"
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        found = repair(output)
        assert found.of("broken") == [str(path.relative_to(out))]
        assert list(output.items()) == [("farm", "farm_2024_median")]
        assert verify(output).is_whole

    def test_is_published_whole(self, out: Path, tmp_path: Path) -> None:
        output, facts = Output.at(out), facts_of()
        other = replace(image_of(SMALL), values=image_of(SMALL).values + 1)
        new = write(other, replace(facts, provenance=replace(facts.provenance, recipe="new")), tmp_path / "new")
        output.publish("farm", facts.id, tmp_path / "new")
        folder = out / "farm" / facts.id
        assert {each.name: each.read_bytes() for each in folder.iterdir()} == new
        assert output.state("farm", facts.id, "new", BANDS) == "current"

    def test_is_no_image_to_open(self, out: Path) -> None:
        with pytest.raises(OutputError, match=r"has no images.*Open composites with rioxarray"):
            s2cube.open_output(out)

    def test_an_item_without_recipe_is_none_of_a_composite(self, out: Path) -> None:
        path = out / "farm" / "farm_202406_medoid" / "farm_202406_medoid.json"
        document = json.loads(path.read_text())
        del document["properties"]["s2cube:recipe"]
        path.write_text(json.dumps(document))
        assert Output.at(out).item("farm", "farm_202406_medoid") is None

    def test_in_a_folder_that_is_moved(self, out: Path, tmp_path: Path) -> None:
        shutil.move(out, tmp_path / "there")
        catalog = pystac.Catalog.from_file(str(tmp_path / "there" / "catalog.json"))
        found = {item.id: item for item in catalog.get_items(recursive=True)}
        assert set(found) == {"farm_202406_medoid", "farm_2024_median"}
        with rasterio.open(found["farm_202406_medoid"].assets["date"].get_absolute_href()) as file:
            assert file.dtypes == ("uint16",)
