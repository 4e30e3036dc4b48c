"""What a run decides of its scenes: which are used, how they are scaled, which slices are not worth a band."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pystac
import pytest
import rasterio
import shapely
from pytest_httpserver import HTTPServer
from rio_cogeo import cog_validate
from werkzeug import Request, Response
from werkzeug.utils import send_file

from s2cube.demo import _ground as demo
from s2cube.demo.archive import PASSES, Archive
from s2cube.sentinel2 import QA, QA_CLASSES
from support.runs import CommandLine, EditItems, Job, in_this_process, of_day


def item_of(folder: Path, day: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / f"corner_{day}" / f"corner_{day}.json").read_text())
    return content


class TestOffset:
    def test_what_was_added_stands_in_the_item(self, s2cube_command: CommandLine, job: Job, tmp_path: Path) -> None:
        done = s2cube_command(*job("--bands", "blue"))
        assert done.status == 0, done.err
        for overflight in PASSES:
            properties = item_of(tmp_path / "out" / "corner", f"{overflight.time:%Y%m%d}")["properties"]
            assert set(properties["s2cube:offset_dn"].values()) == {-overflight.offset_dn}
            assert list(properties["s2cube:offset_dn"]) == properties["s2cube:scenes"]
            assert properties["s2cube:offset_doubts"] == []
        assert "contradict" not in done.err

    @pytest.mark.parametrize(("wanted", "offset"), [("none", 0), ("-1000", -1000)])
    def test_flag_beats_metadata(
        self, s2cube_command: CommandLine, job: Job, tmp_path: Path, wanted: str, offset: int
    ) -> None:
        """And the pixels, which know better, are heard: those that come out wrong are named."""
        auto = s2cube_command(*job("--bands", "blue"))
        done = s2cube_command(*job("--bands", "blue", "--offset", wanted))
        assert done.status == 0, done.err
        # Only what comes out differently is made again.
        changed = [f"corner_{each.time:%Y%m%d}" for each in PASSES if -each.offset_dn != offset]
        assert [Path(path).stem for path in done.json["written"]] == changed
        for path, overflight in zip(auto.json["written"], PASSES, strict=True):
            day = f"{overflight.time:%Y%m%d}"
            properties = item_of(tmp_path / "out" / "corner", day)["properties"]
            assert set(properties["s2cube:offset_dn"].values()) == {offset}
            wrong = -overflight.offset_dn != offset
            # In May nothing is green here yet: no dark ground tells that 1000 too much is left in.
            heard = wrong and (offset == -1000 or day != "20220520")
            assert properties["s2cube:offset_doubts"] == (properties["s2cube:scenes"] if heard else [])
            said = rf"corner_{day}: the pixels of S2A_14TNL_{day}_0_L2A contradict"
            assert bool(re.search(said, done.err)) == heard
            with rasterio.open(path) as cog:
                red = cog.read(1)
            seen = red[red != -9999]
            assert (np.median(seen) < 0) == (wrong and offset == -1000)

    def test_a_wrong_flag_is_found_out(
        self, s2cube_command: CommandLine, job: Job, edited: EditItems, archive: Archive
    ) -> None:
        """As Earth Search has some: the flag says no, but the offset is applied; and the other way round."""

        def lie(items: list[dict[str, Any]]) -> None:
            for item in items:
                if item["properties"]["s2:processing_baseline"] >= "04.00":
                    item["properties"]["earthsearch:boa_offset_applied"] ^= True

        # The whole farm: in May nothing is green, and only the river is dark.
        done = s2cube_command(*job("--aoi", archive.aoi, "--bands", "blue,red,nir", "--stac", edited(lie)))
        assert done.status == 0, done.err
        for path, overflight in zip(done.json["written"], PASSES, strict=True):
            properties = json.loads(Path(path).with_suffix(".json").read_text())["properties"]
            lied = overflight.baseline >= "04.00"
            assert properties["s2cube:offset_doubts"] == (properties["s2cube:scenes"] if lied else [])

    @pytest.mark.parametrize(
        ("change", "problem"),
        [
            ({"properties": {"s2:processing_baseline": "02.14", "earthsearch:boa_offset_applied": True}}, "has none"),
            ({"raster": {"offset": -0.7}}, "declares an offset of -0.7, which Sentinel-2 does not have"),
            ({"raster": {"scale": 0.0001, "offset": -0.1}, "collection": "sentinel-2-c1-l2a"}, "baseline 03.01 has 0"),
        ],
    )
    def test_what_is_unclear_fails_by_name(
        self, s2cube_command: CommandLine, job: Job, edited: EditItems, change: dict[str, Any], problem: str
    ) -> None:
        def confuse(items: list[dict[str, Any]]) -> None:
            for item in of_day(items, "20210724"):
                item["properties"] |= change.get("properties", {})
                for key, asset in item["assets"].items():
                    if key != "scl":
                        asset["raster:bands"][0] |= change.get("raster", {})
                if "collection" in change:
                    del item["collection"]
                    del item["properties"]["earthsearch:boa_offset_applied"]

        stac = edited(confuse)
        done = s2cube_command(*job("--bands", "blue", "--stac", stac))
        assert done.status == 3
        (failure,) = done.json["failed"]
        assert failure["slice"] == "corner_20210724"
        assert "S2A_14TNL_20210724_0_L2A" in failure["error"]
        assert problem in failure["error"]
        assert "--offset none" in failure["error"]
        assert len(done.json["written"]) == len(PASSES) - 1
        # The remedy that is named is one.
        healed = s2cube_command(*job("--bands", "blue", "--stac", stac, "--offset", "none", "--datetime", "2021"))
        assert healed.status == 0
        assert len(healed.json["written"]) == 1


class TestAnotherCatalogue:
    """One that is in no table: what it says by the eo, raster and projection extensions is enough."""

    @pytest.mark.parametrize("make", ["eo 1, raster 1", "STAC 1.1"])
    def test_is_understood_and_what_is_assumed_is_said(
        self, s2cube_command: CommandLine, job: Job, edited: EditItems, make: str
    ) -> None:
        names = {"blue": "B02", "nir": "B08", "swir16": "B11"}

        def elsewhere(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
            # Such a catalogue has no flag; of these scenes the pixels are as ESA delivers.
            as_delivered = [item for item in items if item["properties"].pop("earthsearch:boa_offset_applied") is False]
            for item in as_delivered:
                item["collection"] = "mine"
                for number, (band, name) in enumerate(names.items()):
                    asset = item["assets"][f"layer{number}"] = item["assets"].pop(band)
                    asset["proj:epsg"] = item["properties"]["proj:epsg"]
                    if make == "STAC 1.1":
                        raster = asset.pop("raster:bands")[0]
                        asset["bands"] = [{"name": name, "eo:common_name": band}]
                        asset |= {"raster:scale": raster["scale"], "raster:offset": raster["offset"]}
                    else:
                        asset["eo:bands"] = [{"name": name, "common_name": band}]
                item["properties"].pop("proj:epsg")
            return as_delivered

        wanted = ("--bands", "B02,nir,swir16")
        plain = s2cube_command(*job(*wanted, "--out", "plain"))
        done = s2cube_command(*job(*wanted, "--stac", edited(elsewhere), "--collection", "mine"))
        assert done.status == 0, done.err
        assert "collection mine is not from a catalogue that s2cube knows" in done.err
        assert "assumed" in done.err
        assert "not from a catalogue that s2cube knows" not in plain.err
        by_name = {Path(path).name: Path(path) for path in plain.json["written"]}
        assert len(done.json["written"]) == sum(not each.offset_applied for each in PASSES)
        for path in done.json["written"]:
            assert Path(path).read_bytes() == by_name[Path(path).name].read_bytes()


class TestDuplicates:
    @staticmethod
    def reprocess(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Beside each scene of a day an older processing, in which everything is dark, and the scene once more."""
        added = []
        for item in of_day(items, "20220520"):
            old = json.loads(json.dumps(item))
            old["id"] = item["id"].replace("_0_", "_9_")
            old["properties"] |= {"s2:processing_baseline": "03.01", "s2:datatake_id": "x"}
            old["properties"]["s2:datatake_id"] = item["properties"]["s2:datatake_id"].replace("N04.00", "N03.01")
            for asset in old["assets"].values():
                if "offset" in asset["raster:bands"][0]:
                    asset["raster:bands"][0]["offset"] = 0
            added += [old, json.loads(json.dumps(item))]
        return [*added, *items]

    def test_the_newest_is_used_and_the_rest_is_told(
        self, s2cube_command: CommandLine, job: Job, edited: EditItems, tmp_path: Path
    ) -> None:
        plain = s2cube_command(*job("--bands", "blue", "--out", "plain"))
        done = s2cube_command(*job("--bands", "blue", "--stac", edited(self.reprocess), "-v"))
        assert done.status == 0, done.err
        for one, other in zip(plain.json["written"], done.json["written"], strict=True):
            assert Path(one).read_bytes() == Path(other).read_bytes()
        properties = item_of(tmp_path / "out" / "corner", "20220520")["properties"]
        (used,) = properties["s2cube:scenes"]
        assert properties["s2cube:dropped"] == [
            {"scene": used, "kept": used, "reason": "listed twice"},
            {"scene": used.replace("_0_", "_9_"), "kept": used, "reason": "older processing of the same granule"},
        ]
        assert f"{used.replace('_0_', '_9_')}: not used; {used} is used instead (older processing" in done.err

    def test_another_order_gives_the_same_bytes(
        self, s2cube_command: CommandLine, job: Job, edited: EditItems, archive: Archive, tmp_path: Path
    ) -> None:
        farm = ("--aoi", archive.aoi, "--datetime", "2022-05", "--bands", "blue,swir16")
        stacs = [edited(self.reprocess)]
        stacs.append(tmp_path / "backwards.json")
        features = json.loads(stacs[0].read_text())["features"]
        stacs[1].write_text(json.dumps({"type": "FeatureCollection", "features": features[::-1]}))
        left = []
        for number, stac in enumerate(stacs):
            done = s2cube_command(*job(*farm, "--stac", stac, "--out", f"out{number}"))
            assert done.status == 0, done.err
            folder = Path(done.json["written"][0]).parent
            left.append({path.name: path.read_bytes() for path in folder.iterdir()})
        assert left[0] == left[1]
        assert len(left[0]) == 5

    def test_every_source_item_is_linked(
        self, s2cube_command: CommandLine, job: Job, edited: EditItems, archive: Archive, tmp_path: Path
    ) -> None:
        def address(items: list[dict[str, Any]]) -> None:
            for item in items:
                item["links"] = [{"rel": "self", "href": f"https://example.com/items/{item['id']}"}]

        farm = ("--aoi", archive.aoi, "--datetime", "2022-05", "--bands", "blue")
        done = s2cube_command(*job(*farm, "--stac", edited(address)))
        item = pystac.Item.from_file(str(Path(done.json["written"][0]).with_suffix(".json")))
        scenes = item.properties["s2cube:scenes"]
        assert len(scenes) == 2
        assert [link.target for link in item.get_links("derived_from")] == [
            f"https://example.com/items/{scene}" for scene in scenes
        ]


class TestCloudInTheAOI:
    """A part of the western granule, which clouds of three days lie in or reach into."""

    BOUNDS = (564000, 4549000, 566900, 4552500)

    @pytest.fixture
    def job(self, job: Job, tmp_path: Path) -> Job:
        path = tmp_path / "corner.geojson"
        frame = geopandas.GeoDataFrame({"id": ["corner"]}, geometry=[shapely.box(*self.BOUNDS)], crs="EPSG:32614")
        frame.to_file(path)
        return lambda *given: job("--aoi", path, *given)

    def clouds(self, overflight: demo.Pass) -> float:
        """Percent of cloud by the scene classification of the demo, over the cells of the AOI."""
        grid = demo.granule_geobox("14TNL", 20)
        classes = demo.scene_classes(grid, overflight).repeat(2, 0).repeat(2, 1)
        cells = classes.reshape(200, 3, 200, 3).swapaxes(1, 2).reshape(200, 200, 9)
        west, south, east, north = self.BOUNDS
        edges = grid.boundingbox
        inside = cells[
            round((edges.top - north) / 30) : round((edges.top - south) / 30),
            round((west - edges.left) / 30) : round((east - edges.left) / 30),
        ]
        return 100 * float(np.isin(inside, (8, 9, 10)).any(axis=-1).mean())

    def test_share_stands_in_the_item(self, s2cube_command: CommandLine, job: Job, tmp_path: Path) -> None:
        s2cube_command(*job("--bands", "blue"))
        shares = {}
        for overflight in PASSES:
            properties = item_of(tmp_path / "out" / "corner", f"{overflight.time:%Y%m%d}")["properties"]
            shares[overflight] = properties["eo:cloud_cover"]
            # A row of cells on the outline may lie in or out.
            assert abs(properties["eo:cloud_cover"] - self.clouds(overflight)) < 1
        assert max(shares.values()) > 10
        assert min(shares.values()) == 0

    def test_rejected_slices_cost_no_band(
        self, s2cube_command: CommandLine, job: Job, archive: Archive, httpserver: HTTPServer, tmp_path: Path
    ) -> None:
        asked: list[str] = []

        def serve(request: Request) -> Response:
            asked.append(request.path)
            return send_file(archive.items.parent / request.path.strip("/"), request.environ, conditional=True)

        httpserver.expect_request(re.compile("/.*")).respond_with_handler(serve)
        everything = s2cube_command(*job("--bands", "blue", "--out", "all"))
        items = {
            Path(path).stem: json.loads(Path(path).with_suffix(".json").read_text())
            for path in everything.json["written"]
        }
        cloudy = {name for name, item in items.items() if item["properties"]["eo:cloud_cover"] > 5}
        assert 0 < len(cloudy) < len(PASSES)
        done = s2cube_command(
            *job("--bands", "blue", "--max-aoi-cloud", 5, "--stac", httpserver.url_for("/items.json"))
        )
        assert done.status == 0, done.err
        assert {each["slice"] for each in done.json["rejected"]} == cloudy
        for each in done.json["rejected"]:
            assert re.fullmatch(r"\d+\.\d % cloud inside the AOI, more than 5", each["reason"])
        assert {Path(path).stem for path in done.json["written"]} == set(items) - cloudy
        assert f"{len(cloudy)} rejected by --max-aoi-cloud" in done.err
        days = {name[-8:] for name in cloudy}
        assert not [path for path in asked if "/B02.tif" in path and any(day in path for day in days)]
        assert all(any(f"{day}_0_L2A/SCL.tif" in path for path in asked) for day in days)
        # What is written is not otherwise than without the limit.
        for path in done.json["written"]:
            assert Path(path).read_bytes() == (tmp_path / "all" / Path(path).relative_to(tmp_path / "out")).read_bytes()

    def test_what_was_made_before_is_not_kept_in_silence(self, s2cube_command: CommandLine, job: Job) -> None:
        first = s2cube_command(*job("--bands", "blue"))
        # The same again is there already, whatever its clouds; otherwise made it would be rejected.
        same = s2cube_command(*job("--bands", "blue", "--max-aoi-cloud", 5))
        assert len(same.json["skipped"]) == len(PASSES)
        other = s2cube_command(*job("--bands", "blue", "--max-aoi-cloud", 5, "--dtype", "float32"))
        assert other.json["rejected"]
        for each in other.json["rejected"]:
            assert f"{each['slice']} is rejected, but its image from an earlier run remains" in other.err
        assert all(Path(path).exists() for path in first.json["written"])

    def test_without_a_mask(self, s2cube_command: CommandLine, job: Job) -> None:
        masked = s2cube_command(*job("--bands", "blue", "--max-aoi-cloud", 5))
        bare = s2cube_command(*job("--bands", "blue", "--max-aoi-cloud", 5, "--mask", "none", "--out", "bare"))
        assert bare.json["rejected"] == masked.json["rejected"] != []
        of_bare, of_masked = (
            json.loads(Path(done.json["written"][0]).with_suffix(".json").read_text())["properties"]
            for done in (bare, masked)
        )
        assert "eo:cloud_cover" not in of_bare
        assert of_bare["s2cube:settings"] == of_masked["s2cube:settings"] | {"mask": []}

    @pytest.mark.parametrize("mask", [("--mask-classes", "0,1"), ("--mask-classes", "1,3,8,9,10"), ("--dilation", 60)])
    @pytest.mark.parametrize("chunk", [6144, 150])
    def test_whatever_is_masked(
        self, s2cube_command: CommandLine, job: Job, monkeypatch: pytest.MonkeyPatch, mask: tuple[str, str], chunk: int
    ) -> None:
        """Cloud is judged by the scene classification, in one chunk or in many."""
        monkeypatch.setattr("s2cube.cube.chunks._STEP_PIXELS", chunk)
        monkeypatch.setattr("s2cube.jobs.pipeline._compute", in_this_process)
        plain = s2cube_command(*job("--bands", "blue", "--max-aoi-cloud", 5, "--out", "plain"))
        done = s2cube_command(*job("--bands", "blue", "--max-aoi-cloud", 5, *mask))
        assert done.status == 0, done.err
        assert {each["slice"] for each in done.json["rejected"]} >= {each["slice"] for each in plain.json["rejected"]}
        assert done.json["failed"] == []
        assert 0 < len(done.json["rejected"]) < len(PASSES)
        for path in done.json["written"]:
            properties = json.loads(Path(path).with_suffix(".json").read_text())["properties"]
            assert ("eo:cloud_cover" in properties) == (mask[1] != "0,1")

    def test_nothing_seen_is_rejected_too(self, s2cube_command: CommandLine, job: Job, edited: EditItems) -> None:
        def shift(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
            """The eastern granules only, roughly said to cover more than they do."""
            east = [item for item in items if "14TPL" in item["id"]]
            both = shapely.union_all([shapely.geometry.shape(item["geometry"]) for item in items])
            for item in east:
                item["geometry"] = shapely.geometry.mapping(both.envelope)
            return east

        stac = edited(shift)
        done = s2cube_command(*job("--bands", "blue", "--max-aoi-cloud", 100, "--stac", stac))
        assert done.status == 0, done.err
        assert {each["reason"] for each in done.json["rejected"]} == {"no source data inside the AOI"}
        plain = s2cube_command(*job("--bands", "blue", "--stac", stac))
        for path in plain.json["written"]:
            properties = json.loads(Path(path).with_suffix(".json").read_text())["properties"]
            assert properties["s2cube:clear_percent"] == 0
            assert "eo:cloud_cover" not in properties


class TestQA:
    @pytest.fixture
    def written(self, s2cube_command: CommandLine, job: Job, archive: Archive, tmp_path: Path) -> Path:
        done = s2cube_command(*job("--aoi", archive.aoi, "--bands", "blue,nir", "--datetime", "2022-06/2022-07"))
        assert done.status == 0, done.err
        return tmp_path / "out" / "farm"

    def test_says_of_every_pixel_why(self, written: Path) -> None:
        values = set()
        for folder in (written / "farm_20220614", written / "farm_20220709"):
            with (
                rasterio.open(folder / f"{folder.name}.tif") as cog,
                rasterio.open(folder / f"{folder.name}_qa.tif") as qa,
            ):
                assert (cog.transform, cog.shape, cog.crs) == (qa.transform, qa.shape, qa.crs)
                np.testing.assert_array_equal((cog.read() != -9999).all(axis=0), qa.read(1) == QA.CLEAR)
                values |= set(np.unique(qa.read(1)))
        assert values == {QA.CLEAR, QA.CLOUD, QA.SHADOW, QA.NO_DATA, QA.OUTSIDE}

    def test_is_a_cog_with_colours_and_classes(self, written: Path) -> None:
        path = written / "farm_20220614" / "farm_20220614_qa.tif"
        assert cog_validate(path, strict=True)[0]
        with rasterio.open(path) as qa:
            assert qa.dtypes == ("uint8",)
            assert qa.nodata == QA.OUTSIDE
            colours = qa.colormap(1)
            tags = qa.tags(1)
            values = qa.read(1)
        item = pystac.Item.from_file(str(path.with_name("farm_20220614.json")))
        assert any("classification" in uri for uri in item.stac_extensions)
        classes = item.assets["qa"].extra_fields["classification:classes"]
        assert {each["value"] for each in classes} == set(QA_CLASSES)
        for each in classes:
            assert re.fullmatch(r"[0-9A-Z_a-z\-]+", each["name"])
            assert colours[each["value"]][:3] == tuple(bytes.fromhex(each["color_hint"]))
            assert tags[f"CLASS_{each['value']}"] == each["name"]
        assert [each["value"] for each in classes if each["nodata"]] == [QA.OUTSIDE]
        assert {each["value"]: each["count"] for each in classes} == {
            value: np.count_nonzero(values == value) for value in QA
        }


class TestBadItems:
    """What one item lacks fails its slice, by name; nothing else is lost."""

    @pytest.mark.parametrize(
        ("change", "problem"),
        [
            (lambda item: item.update(geometry=None, bbox=None), "S2A_14TNL_20210724_0_L2A: has no geometry"),
            (
                lambda item: item["properties"].update({"proj:code": "EPSG:32615"}),
                "S2A_14TNL_20210724_0_L2A: declares two projections: EPSG:32614 and EPSG:32615",
            ),
            (
                lambda item: item["properties"].update({"proj:epsg": 32615}),
                "has the CRS EPSG:32614, but its item declares EPSG:32615",
            ),
            (lambda item: item["assets"].pop("blue"), "has no asset 'blue'"),
            (
                lambda item: item["assets"].pop("scl"),
                "has no asset 'scl' (nor SCL, SCL_20m). Ask for --mask none, without --max-aoi-cloud",
            ),
        ],
    )
    def test_fails_its_slice(
        self, s2cube_command: CommandLine, job: Job, edited: EditItems, change: Callable[[Any], Any], problem: str
    ) -> None:
        def spoil(items: list[dict[str, Any]]) -> None:
            change(of_day(items, "20210724")[0])

        done = s2cube_command(*job("--bands", "blue", "--stac", edited(spoil)))
        assert done.status == 3, done.err
        (failure,) = done.json["failed"]
        assert failure["slice"] == "corner_20210724"
        assert problem in failure["error"]
        assert len(done.json["written"]) == len(PASSES) - 1

    def test_without_scl_there_is_a_way(self, s2cube_command: CommandLine, job: Job, edited: EditItems) -> None:
        def spoil(items: list[dict[str, Any]]) -> None:
            for item in items:
                del item["assets"]["scl"]

        done = s2cube_command(*job("--bands", "blue", "--mask", "none", "--stac", edited(spoil)))
        assert done.status == 0
        assert len(done.json["written"]) == len(PASSES)
