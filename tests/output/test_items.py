"""Items and collections are STAC 1.1, older Items are rewritten, and the table of all Items is in step."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import s2cube
from s2cube.demo.archive import PASSES, Archive
from s2cube.errors import WriteError
from s2cube.inventory._items_table import ItemRows, read_items_table
from s2cube.inventory.renewal import is_older, renew, renewed
from s2cube.inventory.verification import repair, verify
from s2cube.jobs import pipeline
from s2cube.sentinel2 import BAND_ASSETS, common_name, platforms
from s2cube.storage.folder import Folder
from s2cube.storage.image_item import read_item
from s2cube.storage.output import Output
from support.buckets import S3Store
from support.items import SCHEMAS, STAC, validate
from support.runs import CommandLine, edit, in_this_process

OLD = (STAC / "item_of_the_first_form.json").read_bytes()
DAYS = [f"farm_{each.time:%Y%m%d}" for each in PASSES]


def documents(out: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(out.glob("*/*/*.json"))]


def state(out: Path) -> dict[str, tuple[int, bytes]]:
    """When the files that a run may rewrite were written, and their content."""
    paths = [*out.glob("*.json"), *out.glob("*.parquet"), *out.glob("*/*.json"), *out.glob("*/*/*.json")]
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}


@pytest.fixture(scope="module")
def made(archive: Archive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run, with all its files."""
    out = tmp_path_factory.mktemp("made") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "_compute", in_this_process)
        done = s2cube.run(config(archive, out))
    assert len(done.written) == len(PASSES)
    return out


def config(archive: Archive, out: Path | str) -> Any:
    given = {"aoi": str(archive.aoi), "stac": str(archive.items), "out": str(out), "bands": "red,green,blue"}
    return s2cube.load_config(given | {"resolution": 60}, {})


def make_older(document: dict[str, Any]) -> None:
    """Give an Item the first form: bands as in STAC 1.0, without the members that came later."""
    for name in ("gsd", "platform", "renders", "proj:bbox", "processing:software", "s2cube:item_version"):
        document["properties"].pop(name, None)
    document["stac_extensions"] = json.loads(OLD)["stac_extensions"]
    data, qa = document["assets"]["data"], document["assets"]["qa"]
    bands = data.pop("bands")
    data["eo:bands"] = [{"name": band["name"], "common_name": band["name"]} for band in bands]
    raster = {
        "nodata": -9999,
        "data_type": "int16",
        "spatial_resolution": 60.0,
        "scale": 0.0001,
        "offset": 0,
        "unit": "1",
    }
    data["raster:bands"] = [raster] * len(bands)
    qa["raster:bands"] = [{"data_type": qa.pop("data_type"), "nodata": qa.pop("nodata")}]


@pytest.fixture
def older(made: Path, tmp_path: Path) -> Path:
    """An output of an older version: its Items have the first form, and there is no table."""
    out = tmp_path / "out"
    shutil.copytree(made, out)
    (out / "items.parquet").unlink()
    for path in out.glob("*/*/*.json"):
        edit(path, make_older)
    return out


class TestForm:
    def test_items_and_collections_are_valid(self, made: Path) -> None:
        for document in documents(made):
            validate(document, "Feature")
        validate(json.loads((made / "farm" / "collection.json").read_text()), "Collection")

    def test_members(self, made: Path) -> None:
        for document in documents(made):
            properties, data = document["properties"], document["assets"]["data"]
            assert (properties["platform"], properties["gsd"]) == ("sentinel-2a", 60)
            assert properties["processing:software"] == {"s2cube": s2cube.__version__}
            assert [band["name"] for band in data["bands"]] == ["red", "green", "blue"]
            assert [band["eo:common_name"] for band in data["bands"]] == ["red", "green", "blue"]
            west, south, east, north = properties["proj:bbox"]
            rows, columns = properties["proj:shape"]
            assert (east - west, north - south) == (60 * columns, 60 * rows)
            assert [each["nodata"] for each in document["assets"]["qa"]["classification:classes"]].count(True) == 1

    def test_collection_summarises(self, made: Path) -> None:
        collection = json.loads((made / "farm" / "collection.json").read_text())
        clouds = [each["properties"]["eo:cloud_cover"] for each in documents(made)]
        summaries = collection["summaries"]
        assert summaries["eo:cloud_cover"] == {"minimum": min(clouds), "maximum": max(clouds)}
        assert (summaries["platform"], summaries["gsd"]) == (["sentinel-2a"], [60.0])
        assert [band["name"] for band in summaries["bands"]] == ["red", "green", "blue"]
        assert set(collection["item_assets"]) >= {"data", "qa", "thumbnail"}
        assert "href" not in collection["item_assets"]["data"]

    def test_names(self) -> None:
        schema = SCHEMAS["https://stac-extensions.github.io/eo/v2.0.0/schema.json"]
        allowed = set(schema["definitions"]["eo:common_name"]["enum"])
        assert {common_name(each) for each in BAND_ASSETS} <= allowed
        assert [common_name(each) for each in ("B04", "rededge1", "NDVI")] == ["red", "rededge071", None]
        assert platforms(["S2A_14TNL_20220614_0_L2A", "S2A_MSIL2A_20220614T171901"]) == ["sentinel-2a"]
        assert platforms(["S2B_x", "S2A_x"]) == ["sentinel-2a", "sentinel-2b"]
        assert platforms(["S2A_x", "mine"]) == []


class TestRenewal:
    def test_an_old_item_becomes_valid(self) -> None:
        item = read_item(OLD, "farm", "farm_20220614")
        assert is_older(item)
        new = renewed(item)
        validate(new, "Feature")
        again = read_item(json.dumps(new).encode(), "farm", "farm_20220614")
        assert not is_older(again)
        assert (again.bands, again.files, again.checksums) == (item.bands, item.files, item.checksums)
        assert again.bands == ("blue", "green", "red", "nir", "swir16")
        before, after = json.loads(OLD), copy.deepcopy(new)
        assert all(after["properties"][name] == value for name, value in before["properties"].items())
        assert (after["geometry"], after["links"], after["id"]) == (before["geometry"], before["links"], before["id"])

    def test_a_run_rewrites_items_only(
        self, s2cube_command: CommandLine, archive: Archive, made: Path, older: Path
    ) -> None:
        words = ["--aoi", archive.aoi, "--stac", archive.items, "--out", older]
        words += ["--bands", "red,green,blue", "--resolution", "60", "--json"]
        images = {path: path.stat().st_mtime_ns for path in older.glob("*/*/*.[tp]*")}
        said = f"{len(PASSES)} Items are rewritten in the new form; the images stay as they are."
        before = state(older)
        assert said in s2cube_command("plan", *words).err
        assert state(older) == before
        done = s2cube_command("run", *words)
        assert said in done.err
        assert done.json["requests"] == 0
        assert (done.status, done.json["skipped"]) == (0, DAYS)
        assert images == {path: path.stat().st_mtime_ns for path in older.glob("*/*/*.[tp]*")}
        for new, direct in zip(documents(older), documents(made), strict=True):
            del direct["properties"]["processing:software"]
            for band in direct["assets"]["data"]["bands"]:
                band.pop("statistics", None)
            for each in direct["assets"]["qa"]["classification:classes"]:
                del each["count"]
            direct["stac_extensions"] = [each for each in direct["stac_extensions"] if "/processing/" not in each]
            assert new == direct
        assert read_items_table(Output.at(older)) == documents(older)
        once = state(older)
        done = s2cube_command("run", *words)
        assert "rewritten" not in done.err
        assert state(older) == once

    def test_a_run_that_fails_meanwhile_leaves_whole_items(
        self, archive: Archive, older: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put, count = Folder.put, 0

        def break_off(self: Folder, name: str, content: bytes | Path) -> None:
            nonlocal count
            if name.startswith("farm/farm_") and isinstance(content, bytes):
                count += 1
                if count > 3:
                    raise WriteError(name, "cannot be written", "Free disk space")
            put(self, name, content)

        with monkeypatch.context() as patch:
            patch.setattr(Folder, "put", break_off)
            with pytest.raises(WriteError):
                s2cube.run(config(archive, older))
        forms = [each["properties"].get("s2cube:item_version", 1) for each in documents(older)]
        assert (forms.count(1), forms.count(2)) == (len(PASSES) - 3, 3)
        assert len(s2cube.run(config(archive, older)).skipped) == len(PASSES)
        assert {each["properties"]["s2cube:item_version"] for each in documents(older)} == {2}
        assert read_items_table(Output.at(older)) == documents(older)

    @pytest.mark.usefixtures("keys")
    def test_in_a_bucket(self, s3: S3Store) -> None:
        output = Output.at("s3://results/renewal")
        output.destination.put("farm/farm_20220614/farm_20220614.json", OLD)
        renew(output, [("farm", "farm_20220614"), ("farm", "farm_20220101")])
        item = output.item("farm", "farm_20220614")
        assert item
        assert item.document == renewed(read_item(OLD, "farm", "farm_20220614"))
        rows = ItemRows(output)
        rows.replace("farm", [item.document])
        rows.write(["farm"])
        assert read_items_table(output) == [item.document]


class TestTable:
    @pytest.fixture
    def output(self, tmp_path: Path) -> Output:
        return Output.at(tmp_path)

    def test_has_the_items_of_a_run(self, made: Path) -> None:
        assert read_items_table(Output.at(made)) == documents(made)

    def test_keeps_unlike_items(self, output: Output) -> None:
        """The old and the new form, other bands, a cube without time and without settings, nodata as text."""
        old = json.loads(OLD)
        new = renewed(read_item(OLD, "farm", "farm_20220614"))
        derived = copy.deepcopy(new) | {"id": "b_median", "collection": "b"}
        times = {
            "datetime": None,
            "start_datetime": "2022-05-01T00:00:00Z",
            "end_datetime": "2022-05-31T00:00:00.500000Z",
        }
        derived["properties"] = {"datetime": None, "proj:shape": [1, 2]} | times | {"s2cube:offset_doubts": ["x"]}
        statistics = {"minimum": -0.5, "maximum": 0.75, "mean": 0.1, "stddev": 0.2, "valid_percent": 100}
        derived["assets"]["data"]["bands"] = [{"name": "NDVI", "nodata": "nan", "statistics": statistics}]
        derived["geometry"] = {"type": "MultiPolygon", "coordinates": [old["geometry"]["coordinates"]]}
        rows = ItemRows(output)
        rows.replace("b", [derived])
        rows.replace("farm", [old])
        rows.replace("z", [new | {"collection": "z"}])
        rows.write(["b", "farm", "z"])
        assert read_items_table(output) == [derived, old, new | {"collection": "z"}]

    def test_keeps_rows_of_other_areas(self, output: Output) -> None:
        document = json.loads(OLD)
        rows = ItemRows(output)
        for aoi_id in ("a", "b", "c"):
            rows.replace(aoi_id, [document | {"collection": aoi_id}])
        rows.write(["a", "b", "c"])
        rows = ItemRows(output)
        assert rows.has("a", ["farm_20220614"])
        assert not rows.has("a", ["farm_20220614", "farm_20220615"])
        assert not rows.has("d", ["farm_20220614"])
        rows.replace("b", [document | {"collection": "b", "id": "b_1"}])
        rows.write(["a", "b"])
        found = read_items_table(output)
        assert found
        assert [(each["collection"], each["id"]) for each in found] == [("a", "farm_20220614"), ("b", "b_1")]
        ItemRows(output).write([])
        assert read_items_table(output) is None

    @pytest.mark.parametrize("damage", ["missing", "cut", "text", "foreign", "fewer"])
    def test_is_written_again(self, archive: Archive, made: Path, tmp_path: Path, damage: str) -> None:
        import pyarrow
        import pyarrow.parquet

        out = tmp_path / "out"
        shutil.copytree(made, out)
        table = out / "items.parquet"
        match damage:
            case "missing":
                table.unlink()
            case "cut":
                table.write_bytes(table.read_bytes()[:-100])
            case "text":
                table.write_text("{}")
            case "foreign":
                pyarrow.parquet.write_table(pyarrow.table({"x": [1]}), table)
            case "fewer":
                pyarrow.parquet.write_table(pyarrow.parquet.read_table(table).slice(1), table)
        before = state(out)
        s2cube.run(config(archive, out))
        assert read_items_table(Output.at(out)) == documents(out)
        changed = [name for name, now in state(out).items() if now != before.get(name)]
        assert changed == ["items.parquet"]

    def test_verify_compares_it(self, made: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        shutil.copytree(made, out)
        output = Output.at(out)
        assert verify(output).is_whole
        (out / "items.parquet").unlink()
        assert verify(output).is_whole
        for damage in (b"x", OLD):
            (out / "items.parquet").write_bytes(damage)
            assert verify(output).of("broken") == ["items.parquet"]
        assert repair(output).of("broken") == ["items.parquet"]
        assert verify(output).is_whole
        assert read_items_table(output) == documents(out)
        rows = ItemRows(output)
        rows.replace("farm", documents(out)[1:])
        rows.write(["farm"])
        assert [flaw.why for flaw in verify(output).flaws] == [f"has no row for 1 Items, such as {DAYS[0]}"]

    def test_a_thousand_items_are_read_at_once(self, output: Output) -> None:
        from time import perf_counter

        document = json.loads(OLD)
        rows = ItemRows(output)
        rows.replace("farm", [document | {"id": f"farm_{number:04}"} for number in range(1000)])
        rows.write(["farm"])
        began = perf_counter()
        found = read_items_table(output)
        assert perf_counter() - began < 2
        assert found
        assert len(found) == 1000
