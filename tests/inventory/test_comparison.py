"""When an image that is there is made again: which setting changed, and that it never loses scenes unasked."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import pytest
import shapely
from pytest_httpserver import HTTPServer
from werkzeug import Response

from s2cube import load_config
from s2cube.demo.archive import PASSES, Archive
from s2cube.jobs.job import plan_job
from s2cube.storage.folder import Folder
from s2cube.storage.output import Output
from support.apis import FakeApi
from support.runs import CommandLine, Outcome

WEST, EAST = "S2A_14TNL_20220912_0_L2A", "S2A_14TPL_20220912_0_L2A"
SLICE = "two_20220912"
Run = Callable[..., Outcome]


@pytest.fixture
def api(httpserver: HTTPServer, archive_items: list[dict[str, Any]], archive_url: str) -> FakeApi:
    features = [copy.deepcopy(each) for each in archive_items if "_202208" in each["id"] or "_202209" in each["id"]]
    for asset in (asset for each in features for asset in each["assets"].values()):
        asset["href"] = f"{archive_url}/{asset['href'].removeprefix('./')}"
    return FakeApi(httpserver, features)


@pytest.fixture
def run(s2cube_command: CommandLine, api: FakeApi, scheduler: str, tmp_path: Path) -> Run:
    both = shapely.box(-98.20, 41.09, -98.16, 41.1)
    geopandas.GeoDataFrame({"id": ["two"]}, geometry=[both], crs=4326).to_file(tmp_path / "two.geojson")
    usual = {"--bands": "blue", "--resolution": 60, "--datetime": "2022-09", "--aoi": "two.geojson"}

    def ask(*given: object, command: str = "run") -> Outcome:
        words = [word for flag in usual.items() if flag[0] not in given for word in flag]
        return s2cube_command(
            command, "--json", "--stac", api.root, "--scheduler", scheduler, "--out", "out", *given, *words
        )

    return ask


def made_of(slice_id: str = SLICE) -> list[str]:
    item = json.loads(Path(f"out/two/{slice_id}/{slice_id}.json").read_text())
    return sorted(item["properties"]["s2cube:scenes"])


def lose(api: FakeApi, scene: str) -> None:
    """Let searches miss a scene that the catalogue still has."""
    find = api.find

    def without(question: dict[str, Any]) -> Any:
        return (each for each in find(question) if question.get("ids") or each["id"] != scene)

    api.find = without  # type: ignore[method-assign]


def withdraw(api: FakeApi, scene: str) -> None:
    api.features = [each for each in api.features if each["id"] != scene]


class TestFewerScenes:
    @pytest.fixture(autouse=True)
    def image(self, run: Run, api: FakeApi) -> None:
        done = run()
        assert done.status == 0, done.err
        assert made_of() == [WEST, EAST]
        api.asked.clear()

    def asked_for_ids(self, api: FakeApi) -> list[set[str]]:
        return [{*each.question["ids"]} for each in api.asked if each.question.get("ids")]

    def test_that_a_search_misses_are_not_lost(self, run: Run, api: FakeApi) -> None:
        lose(api, EAST)
        done = run()
        assert done.status == 0, done.err
        assert (done.json["written"], done.json["skipped"]) == ([], [SLICE])
        assert f"{SLICE} stays as it is: a new image would lack scenes, such as {EAST}, which the search" in done.err
        assert made_of() == [WEST, EAST]
        assert self.asked_for_ids(api) == [{WEST, EAST}]

    def test_that_the_catalogue_has_withdrawn(self, run: Run, api: FakeApi) -> None:
        withdraw(api, EAST)
        done = run()
        assert f"warning: {SLICE}: will be recomputed without {EAST}, which the catalogue has withdrawn" in done.err
        assert made_of() == [WEST]

    @pytest.mark.parametrize("status", [400, 200])
    def test_of_a_catalogue_that_cannot_say(self, run: Run, api: FakeApi, status: int) -> None:
        withdraw(api, EAST)
        nothing = json.dumps({"type": "FeatureCollection", "features": []})
        api.refuse = lambda _, question, __: Response(nothing, status=status) if question.get("ids") else None
        done = run()
        assert done.status == 0, done.err
        assert f"{SLICE} stays as it is" in done.err
        assert made_of() == [WEST, EAST]

    def test_plan_says_the_same(self, run: Run, api: FakeApi) -> None:
        lose(api, EAST)
        done = run(command="plan")
        assert (done.json["todo"], done.json["skipped"]) == ([], [SLICE])
        withdraw(api, EAST)
        assert run(command="plan").json["todo"] == [SLICE]

    def test_overwrite_makes_what_there_is(self, run: Run, api: FakeApi) -> None:
        lose(api, EAST)
        assert run("--overwrite").json["skipped"] == []
        assert made_of() == [WEST]
        assert self.asked_for_ids(api) == []

    def test_a_changed_setting_makes_what_there_is(self, run: Run, api: FakeApi) -> None:
        clouds = {each["id"]: each["properties"]["eo:cloud_cover"] for each in api.features}
        most = (clouds[WEST] + clouds[EAST]) / 2
        cloudier = max((WEST, EAST), key=lambda name: clouds[name])
        done = run("--max-cloud", most)
        assert (
            f"{SLICE} will be recomputed: max_cloud was 100, is now {most:g}; some of its scenes are gone" in done.err
        )
        assert made_of() == sorted({WEST, EAST} - {cloudier})
        assert self.asked_for_ids(api) == []

    def test_that_an_image_without_its_file_cannot_keep_are_named(self, run: Run, api: FakeApi) -> None:
        lose(api, EAST)
        Path(f"out/two/{SLICE}/{SLICE}.tif").unlink()
        done = run()
        assert f"{SLICE}: will be recomputed, without {EAST}, which the search no longer finds: " in done.err
        assert made_of() == [WEST]

    def test_a_scene_that_comes_is_taken(self, run: Run, api: FakeApi) -> None:
        withdraw(api, EAST)
        run()
        back = copy.deepcopy(api.features[-1]) | {"id": "late"}
        back["properties"]["s2:datatake_id"] = "GS2B_20220912T000000_000000_N05.09"
        api.features.append(back)
        done = run()
        assert f"{SLICE} will be recomputed: it has new scenes." in done.err
        assert made_of() == sorted([WEST, "late"])

    def test_a_new_processing_replaces_the_old_one(self, run: Run, api: FakeApi) -> None:
        """The catalogue has put it in place of the old one, or beside it."""
        newer = copy.deepcopy(next(each for each in api.features if each["id"] == EAST)) | {"id": "newer"}
        newer["properties"]["s2:processing_baseline"] = "09.01"
        newer["properties"]["s2:generation_time"] = "2031-01-01T00:00:00Z"
        newer["properties"]["earthsearch:boa_offset_applied"] = True
        api.features.append(newer)
        withdraw(api, EAST)
        done = run()
        assert done.status == 0, done.err
        assert made_of() == sorted([WEST, "newer"])

    def test_unlike_images_are_asked_for_together(self, run: Run, api: FakeApi) -> None:
        run("--datetime", "2022-08/2022-09")
        api.asked.clear()
        for each in api.features:
            each["properties"]["s2:generation_time"] = "2031-01-01T00:00:00Z"
        lose(api, EAST)
        done = run("--datetime", "2022-08/2022-09")
        assert SLICE in done.json["skipped"]
        assert len(self.asked_for_ids(api)) == 1


class TestChangedSettings:
    def test_each_is_said_once_for_all_slices(self, run: Run) -> None:
        dates = ("--datetime", "2022-08/2022-09")
        first = run(*dates)
        assert first.status == 0, first.err
        assert "recomputed" not in first.err
        again = run(*dates, "--mask", "none", "--quality", "fast", command="plan")
        number, names = len(again.json["todo"]), sorted(again.json["todo"])
        assert number == len(first.json["written"]) > 1
        says = f"{number} slices, {names[0]} to {names[-1]}, will be recomputed:"
        assert [line for line in again.err.splitlines() if "recomputed" in line] == [
            f"{says} quality was exact, is now fast; mask was scl, is now none."
        ]
        assert run(*dates, command="plan").json["todo"] == []

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (("--bands", "red,blue"), "bands was blue, is now red,blue"),
            (("--resolution", 120), "resolution was 60, is now 120"),
            (("--dilation", 60), "dilation was 0, is now 60"),
            (("--dtype", "float32"), "dtype was int16, is now float32"),
            (("--mask-classes", "3,8"), "mask_classes was 0,1,3,8,9,10, is now 3,8"),
        ],
    )
    def test_by_name(self, run: Run, words: tuple[object, ...], said: str) -> None:
        run()
        assert f"{SLICE} will be recomputed: {said}." in run(*words, command="plan").err

    def test_the_area(self, run: Run) -> None:
        run()
        moved = geopandas.GeoDataFrame({"id": ["two"]}, geometry=[shapely.box(-98.2, 41.09, -98.17, 41.1)], crs=4326)
        moved.to_file("two.geojson")
        assert f"{SLICE} will be recomputed: the area has changed." in run(command="plan").err

    def test_the_same_area_in_another_format(self, run: Run) -> None:
        run()
        frame = geopandas.read_file("two.geojson")
        frame.geometry = frame.geometry.reverse()
        frame.to_crs(32614).to_file("two.gpkg")
        done = run("--aoi", "two.gpkg", command="plan")
        assert (done.json["todo"], done.json["skipped"]) == ([], [SLICE]), done.err

    def test_what_an_item_tells_in_another_form_is_passed_over(self, run: Run) -> None:
        run()
        path = Path(f"out/two/{SLICE}/{SLICE}.json")
        item = json.loads(path.read_text())
        item["properties"] |= {
            "s2cube:settings": [1],
            "s2cube:search": "x",
            "s2cube:data_version": "1",
            "s2cube:recipe": "x",
        }
        path.write_text(json.dumps(item))
        said = f"{SLICE} will be recomputed: this version of s2cube may compute other pixels from the same scenes."
        assert said in run(command="plan").err


class TestReading:
    """An output may have a slice for each of ten thousand areas and days: only Items that may be there are read."""

    @pytest.fixture
    def read(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        names: list[str] = []
        original = Folder.read

        def note(folder: Folder, name: str) -> bytes | None:
            names.append(name)
            return original(folder, name)

        monkeypatch.setattr(Folder, "read", note)
        return names

    def test_nothing_of_an_empty_output(self, archive: Archive, read: list[str], tmp_path: Path) -> None:
        flags = {"aoi": str(archive.aoi), "stac": str(archive.items), "bands": "blue", "out": str(tmp_path / "out")}
        config = load_config(flags, {})
        assert len(plan_job(config, Output.at(config.job.out)).todo) == len(PASSES)
        assert [name for name in read if name.startswith("farm")] == []
        slice_id = "farm_20220520"
        (tmp_path / "out" / "farm" / slice_id).mkdir(parents=True)
        (tmp_path / "out" / "farm" / "farm_other").mkdir()
        assert len(plan_job(config, Output.at(config.job.out)).todo) == len(PASSES)
        assert [name for name in read if name.startswith("farm")] == [f"farm/{slice_id}/{slice_id}.json"]

    def test_of_a_bucket_what_is_listed(self) -> None:
        sizes = {"a/a_1/a_1.json": 5, "a/a_2/a_2.tif": 5, "b/b_1/b_1.json": 5}
        assert Output.at("s3://bucket/folder").present("a", ["a_1", "a_2", "a_3"], sizes) == {"a_1"}

    def test_many_items_in_their_order(self, tmp_path: Path) -> None:
        slices = [(f"a{number % 7}", f"a{number % 7}_{number}") for number in range(1200)]
        output = Output.at(tmp_path)
        there = set(slices[5::11])
        for aoi_id, slice_id in there:
            (tmp_path / aoi_id / slice_id).mkdir(parents=True)
            (tmp_path / aoi_id / slice_id / f"{slice_id}.json").write_bytes(item_of(aoi_id, slice_id))
        found = list(output.read_items(iter(slices)))
        assert [each and (each.aoi, each.slice) for each in found] == [
            each if each in there else None for each in slices
        ]


def item_of(aoi_id: str, slice_id: str) -> bytes:
    outline = {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 0]]]}
    asset = {"href": f"./{slice_id}.tif", "bands": [{"name": "blue"}]}
    facts = {"datetime": "2024-01-01T10:00:00Z", "s2cube:recipe": "x"}
    return json.dumps({
        "type": "Feature", "id": slice_id, "collection": aoi_id, "stac_version": "1.1.0", "geometry": outline,
        "bbox": [0, 0, 1, 1], "properties": facts, "links": [], "assets": {"data": asset},
    }).encode()  # fmt: skip
