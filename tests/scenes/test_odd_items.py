"""What catalogues write that is no good STAC: it fails the slice of its scene, by item and member, and nothing else."""

import copy
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pystac
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odc.geo.geom import box
from pytest_httpserver import HTTPServer

from s2cube.area.aoi import AOI
from s2cube.config.sections import CubeSection, SearchSection
from s2cube.demo.archive import PASSES, Archive
from s2cube.errors import SceneError, SearchError, SliceError
from s2cube.scenes.assets import check_scene, drop_unused_assets
from s2cube.scenes.plan import Planner, make_plan, narrow
from s2cube.scenes.scene import crs_code
from s2cube.scenes.search import find_scenes, open_catalogue
from s2cube.stac._items import from_features
from s2cube.stac.api import Api
from support.apis import Server
from support.runs import CommandLine, Job

SPOILT = "S2A_14TNL_20210724_0_L2A"
DAY = "corner_20210724"
Change = Callable[[dict[str, Any]], Any]
Edit = Callable[[Change], Path]


@pytest.fixture
def spoilt(archive: Archive, archive_items: list[dict[str, Any]], tmp_path: Path) -> Edit:
    """Write the archive's items anew, the one of July 2021 in the west changed."""

    def edit(change: Change) -> Path:
        items = copy.deepcopy(archive_items)
        for item in items:
            for asset in item["assets"].values():
                asset["href"] = str(archive.items.parent / asset["href"])
        change(next(item for item in items if item["id"] == SPOILT))
        path = tmp_path / "spoilt.json"
        path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
        return path

    return edit


def prop(name: str, value: object) -> Change:
    return lambda item: item["properties"].update({name: value})


def member(name: str, value: object) -> Change:
    return lambda item: item.update({name: value})


def of_blue(name: str, value: object) -> Change:
    return lambda item: item["assets"]["blue"].update({name: value})


RING = [[-98.3, 41], [-98.1, 41], [-98.1, 41.2], [-98.3, 41]]


@pytest.mark.parametrize(
    ("change", "slice_id", "problem"),
    [
        (prop("proj:code", "EPSG:None"), DAY, 'has proj:code "EPSG:None", which is not an EPSG code'),
        (prop("proj:epsg", "UTM 14"), DAY, 'has proj:epsg "UTM 14", which is not a whole number'),
        (prop("proj:epsg", [32614]), DAY, "has proj:epsg [32614], which is not a whole number"),
        (prop("proj:epsg", 1e400), DAY, "has proj:epsg Infinity, which is not a whole number"),
        (of_blue("proj:epsg", True), DAY, "has proj:epsg true, which is not a whole number"),
        (prop("proj:epsg", 99999), DAY, "declares a CRS that does not exist"),
        (of_blue("raster:bands", [{"scale": "n/a"}]), DAY, 'has scale "n/a", which is not a number'),
        (of_blue("raster:bands", {"scale": 1}), DAY, 'has raster:bands {"scale": 1}, which is not a list'),
        (of_blue("bands", "blue"), DAY, 'has bands "blue", which is not a list of objects'),
        (of_blue("raster:offset", "NaN"), DAY, 'has raster:offset "NaN", which is not a number'),
        (of_blue("href", 5), DAY, "has asset 'blue' {\"href\": 5"),
        (of_blue("href", "http://["), DAY, "has asset 'blue' {\"href\": \"http://[\""),
        (of_blue("href", "//exa\u2100mple/b.tif"), DAY, "has asset 'blue'"),
        (of_blue("href", ""), DAY, "has asset 'blue' {\"href\": \"\""),
        (lambda item: item["assets"].update(blue={}), DAY, "has asset 'blue' {}, which cannot be understood"),
        (lambda item: item["assets"]["blue"].pop("href"), DAY, "has asset 'blue' {"),
        (member("assets", []), DAY, "has assets [], which cannot be understood"),
        (lambda item: item["assets"].update(blue=None), DAY, "has no asset 'blue'"),
        (lambda item: item["assets"].update(blue="x.tif"), DAY, "has asset 'blue' \"x.tif\", which cannot be"),
        (prop("s2:processing_baseline", {"is": 4}), DAY, 'has s2:processing_baseline {"is": 4}, which is not text'),
        (prop("grid:code", ["MGRS-14TNL"]), DAY, "has grid:code"),
        (prop("s2:datatake_id", {}), DAY, "has s2:datatake_id {}, which is not text"),
        (prop("earthsearch:boa_offset_applied", "no"), DAY, 'applied "no", which is neither true nor false'),
        (member("geometry", {"coordinates": [RING]}), DAY, "has geometry"),
        (member("geometry", {"type": "Polygon", "coordinates": [[[None, 41], *RING[1:]]]}), DAY, "has geometry"),
        (member("geometry", {"type": "Polygon", "coordinates": [[[1e400, 41], *RING[1:]]]}), DAY, "has geometry"),
        (member("geometry", {"type": "Point", "coordinates": [float("nan"), 41]}), DAY, "has geometry"),
        (member("geometry", {"type": "Polygon", "coordinates": [[[5e5, 4.5e6], [6e5, 4e6], [6e5, 5e6], [5e5, 4.5e6]]]}),
         DAY, "has geometry"),
        (member("geometry", {"type": "Polygon", "coordinates": []}), DAY, "has geometry"),
        (member("geometry", {"type": "MultiPolygon", "coordinates": []}), DAY, "has geometry"),
        (member("geometry", {"type": "GeometryCollection", "geometries": []}), DAY, "has geometry"),
        (member("geometry", "POLYGON EMPTY"), DAY, 'has geometry "POLYGON EMPTY", which cannot be understood'),
        (member("type", "Thing"), DAY, 'has type "Thing", which cannot be understood'),
        (prop("datetime", "null"), f"corner_{SPOILT}", 'has datetime "null", which cannot be understood'),
        (prop("datetime", 1627147171), f"corner_{SPOILT}", "has datetime 1627147171, which cannot be understood"),
        (prop("datetime", "0001-01-01T00:00:00+14:00"), f"corner_{SPOILT}", "has datetime"),
        (prop("datetime", None), f"corner_{SPOILT}", "has no datetime"),
        (member("properties", "none"), f"corner_{SPOILT}", 'has properties "none", which cannot be understood'),
    ],
)  # fmt: skip
def test_fails_its_slice_by_item_and_member(
    s2cube_command: CommandLine, job: Job, spoilt: Edit, change: Change, slice_id: str, problem: str
) -> None:
    done = s2cube_command(*job("--bands", "blue", "--stac", spoilt(change), command="plan"))
    assert done.status == 0, done.err
    (failure,) = done.json["failed"]
    assert failure["slice"] == slice_id
    assert failure["error"].startswith(f"{SPOILT}: ")
    assert problem in failure["error"]
    assert f"{slice_id} cannot be computed: {SPOILT}" in done.err
    assert len(done.json["todo"]) == len(PASSES) - 1


@pytest.mark.parametrize(
    ("change", "slice_id"),
    [
        (prop("proj:code", "EPSG:None"), DAY),
        (prop("datetime", "null"), f"corner_{SPOILT}"),
        (of_blue("href", "/nowhere/\ud800.tif"), DAY),
        (prop("proj:epsg", 99999), DAY),
    ],
)
def test_the_others_are_written(
    s2cube_command: CommandLine, job: Job, spoilt: Edit, change: Change, slice_id: str
) -> None:
    done = s2cube_command(*job("--bands", "blue", "--stac", spoilt(change)))
    assert done.status == 3, done.err
    (failure,) = done.json["failed"]
    assert failure["slice"] == slice_id
    assert failure["may_pass"] is False
    assert "unexpected" not in done.err
    assert "run again" not in done.err
    assert len(done.json["written"]) == len(PASSES) - 1
    (line,) = Path("out/failures.jsonl").read_text().splitlines()
    assert json.loads(line)["error"] == failure["error"]


@pytest.mark.parametrize(
    "change",
    [
        prop("proj:epsg", "32614"),
        prop("proj:epsg", 32614.0),
        prop("proj:code", "epsg:32614"),
        of_blue("eo:bands", [0]),
        of_blue("eo:bands", None),
        of_blue("roles", "data"),
        of_blue("raster:bands", [None]),
        of_blue("raster:bands", [{"scale": "0.0001", "offset": "0"}]),
        of_blue("proj:transform", ["10", None, "x"]),
        of_blue("proj:shape", "none"),
        of_blue("title", 7),
        member("links", None),
        member("links", [None, {"rel": "self"}, {"rel": 5, "href": 5}, {"rel": "parent", "href": "\ud800"}]),
        member("bbox", ["a"]),
        member("stac_extensions", {}),
        member("stac_extensions", [None]),
        prop("deprecated", True),
        prop("eo:cloud_cover", "few"),
        prop("s2:processing_baseline", 3.01),
        lambda item: item["assets"].update(thumbnail={"href": None}, other=[1]),
    ],
)
def test_what_is_safe_to_understand_is_understood(archive_items: list[dict[str, Any]], change: Change) -> None:
    plain, changed = (copy.deepcopy(archive_items[0]) for _ in range(2))
    change(changed)
    aoi, config = AOI("x", box(-98.2, 41.1, -98.19, 41.11, "EPSG:4326")), CubeSection(bands=("blue",))
    slices = []
    for feature in (plain, changed):
        plan = make_plan(from_features([feature], "/archive/items.json"), aoi, config)
        assert plan.unusable == ()
        slices += plan.slices
    assert slices[0].recipe == slices[1].recipe
    assert crs_code(slices[1].scenes[0]) == "EPSG:32614"


@pytest.mark.parametrize("size", ["large", True, [5], 5.5])
def test_a_size_that_is_no_number_is_unknown(archive_items: list[dict[str, Any]], size: object) -> None:
    aoi, config = AOI("x", box(-98.2, 41.1, -98.19, 41.11, "EPSG:4326")), CubeSection(bands=("blue",))
    recipes = []
    for value in (None, size, 5):
        item = copy.deepcopy(archive_items[0])
        of_blue("file:size", value)(item)
        (found,) = make_plan(from_features([item], "/archive/items.json"), aoi, config).slices
        recipes.append(found.recipe)
    assert recipes[0] == recipes[1] != recipes[2]


@pytest.mark.parametrize(("told", "shown"), [(5, "5"), ("half \ud800 a letter", "half \\ud800 a letter")])
def test_odd_ids(s2cube_command: CommandLine, job: Job, spoilt: Edit, told: object, shown: str) -> None:
    stac = spoilt(member("id", told))
    done = s2cube_command(*job("--bands", "blue", "--stac", stac, "--datetime", "2021"))
    assert done.status == 0, done.err
    item = json.loads(Path(done.json["written"][0]).with_suffix(".json").read_text())
    assert item["properties"]["s2cube:scenes"] == [shown]
    table = s2cube_command("search", "--stac", stac, "--aoi", "corner.geojson")
    assert table.status == 0
    assert shown in table.out


@pytest.mark.parametrize("told", [None, "", [], {"a": 1}, True])
def test_without_an_id(s2cube_command: CommandLine, job: Job, spoilt: Edit, told: object) -> None:
    done = s2cube_command(*job("--bands", "blue", "--stac", spoilt(member("id", told)), command="plan"))
    assert done.status == 0, done.err
    if told is None:
        assert len(done.json["todo"]) == len(PASSES)
        return
    (failure,) = done.json["failed"]
    assert failure["slice"] == DAY
    assert "without-id-" in failure["error"]
    assert len(done.json["todo"]) == len(PASSES) - 1


def test_an_odd_item_outlives_its_saving(s2cube_command: CommandLine, job: Job, spoilt: Edit) -> None:
    stac = spoilt(lambda item: (item["properties"].update(datetime="soon"), item["assets"].update(blue=[])))
    saved = s2cube_command("search", "--stac", stac, "--aoi", "corner.geojson", "--save", "found.json")
    assert saved.status == 0, saved.err
    direct, again = (
        s2cube_command(*job("--bands", "blue", "--stac", each, command="plan")).json["failed"]
        for each in (stac, "found.json")
    )
    assert direct == again
    assert len(direct) == 1


class TestOtherLevels:
    """Top-of-atmosphere reflectance is no surface reflectance, and is not written as such."""

    @pytest.mark.parametrize(
        "change",
        [
            prop("s2:product_type", "S2MSI1C"),
            prop("product:type", "S2MSI1C"),
            prop("productType", "S2MSI1C"),
            prop("s2:product_uri", "S2A_MSIL1C_20210724T171901_N0301_R012_T14TNL_20210724T192345.SAFE"),
            prop("processing:level", "L1C"),
            prop("processing:level", "L1"),
            prop("processing:level", "Level-1C"),
        ],
    )
    def test_of_an_item(self, s2cube_command: CommandLine, job: Job, spoilt: Edit, change: Change) -> None:
        done = s2cube_command(*job("--bands", "blue", "--mask", "none", "--stac", spoilt(change), command="plan"))
        (failure,) = done.json["failed"]
        assert failure["slice"] == DAY
        assert "is not Level-2A surface reflectance" in failure["error"]

    @pytest.mark.parametrize(
        ("collection", "level_2"),
        [
            ("sentinel-2-l1c", False), ("SENTINEL-2-L1C", False), ("s2_l1c", False), ("sentinel-2-level-1c", False),
            ("sentinel-2-l2a", True), ("sentinel-2-c1-l2a", True), ("s2_l2a_c1", True), ("mine", True),
            ("sentinel-s2-l2a-cogs", True), ("l1c-and-l2a", True),
        ],
    )  # fmt: skip
    def test_of_a_collection(self, archive_items: list[dict[str, Any]], collection: str, level_2: bool) -> None:
        feature = copy.deepcopy(archive_items[0]) | {"collection": collection}
        (item,) = from_features([feature], "/archive/items.json")
        if level_2:
            check_scene(item, CubeSection(offset="none"))
            return
        with pytest.raises(SceneError, match="is not Level-2A surface reflectance: it is of collection"):
            check_scene(item, CubeSection(offset="none"))

    @pytest.mark.parametrize(
        ("summaries", "says"),
        [
            ({"processing:level": ["L1C"]}, 'it says processing:level ["L1C"]'),
            ({"s2:product_type": ["S2MSI1C"]}, "it says s2:product_type"),
            ({"product:type": ["S2MSI1C"], "processing:level": ["L2A"]}, "it says product:type"),
            ({"processing:level": ["L1C", "L2A"]}, ""),
            ({"processing:level": ["L1C", "unknown"]}, ""),
            ({"processing:level": "L1C", "product:type": [1], "s2:product_type": []}, ""),
            (None, ""),
        ],
    )
    def test_of_a_collection_of_an_api(
        self, httpserver: HTTPServer, archive_items: list[dict[str, Any]], summaries: Any, says: str
    ) -> None:
        server = Server(httpserver, [])
        server.collection["summaries"] = summaries
        config = SearchSection(stac=server.url)
        if not says:
            assert isinstance(open_catalogue(config), Api)
            return
        with pytest.raises(SearchError, match=f"offers no Level-2A .* collection '.*': {re.escape(says)}"):
            open_catalogue(config)

    @pytest.mark.parametrize("level", ["S2MSI2A", "S2MSI2Ap", "L2A", "L2", "Level-2A", "2A", "unknown", None])
    def test_level_2_is_taken(self, archive_items: list[dict[str, Any]], level: str | None) -> None:
        feature = copy.deepcopy(archive_items[0])
        feature["properties"] |= {"s2:product_type": level, "processing:level": level}
        (item,) = from_features([feature], "/archive/items.json")
        check_scene(item, CubeSection())


class TestFormats:
    ZARR = (
        "https://host/S2A_MSIL2A_20250517T085541_N0511_R064_T35QKA_20250517T112203.zarr/measurements/reflectance/r10m"
    )

    def test_zarr_is_refused_by_plan(self, s2cube_command: CommandLine, job: Job, spoilt: Edit) -> None:
        def as_eopf(item: dict[str, Any]) -> None:
            item["assets"]["blue"] |= {"href": f"{self.ZARR}/b02", "type": "application/vnd+zarr; version=2"}

        done = s2cube_command(*job("--bands", "blue", "--stac", spoilt(as_eopf), command="plan"))
        (failed,) = done.json["failed"]
        assert "asset 'blue' is application/vnd+zarr; version=2: only GeoTIFF and JPEG 2000 are read" in failed["error"]

    def test_zarr_without_a_media_type(self, s2cube_command: CommandLine, job: Job, spoilt: Edit) -> None:
        def as_eopf(item: dict[str, Any]) -> None:
            item["assets"]["blue"] = {"href": f"{self.ZARR}/b02"}

        done = s2cube_command(*job("--bands", "blue", "--stac", spoilt(as_eopf), command="plan"))
        (failed,) = done.json["failed"]
        assert "asset 'blue' is in a Zarr store" in failed["error"]

    def test_zarr_of_many_bands(self, s2cube_command: CommandLine, job: Job, spoilt: Edit) -> None:
        def as_eopf(item: dict[str, Any]) -> None:
            item["assets"] = {"SR_10m": {"href": self.ZARR, "type": "application/vnd+zarr"}, "scl": {"href": "x.tif"}}

        done = s2cube_command(*job("--bands", "blue", "--stac", spoilt(as_eopf), command="plan"))
        (failed,) = done.json["failed"]
        assert "has no asset 'blue' (nor B02, B02_10m); some are application/vnd+zarr" in failed["error"]


def places(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """List the places of all members of an item."""
    if path:
        yield path
    if isinstance(content, dict | list):
        for key in content if isinstance(content, dict) else range(len(content)):
            yield from places(content[key], (*path, key))


@pytest.fixture(scope="module")
def real_features(real: Path) -> list[tuple[dict[str, Any], list[tuple[Any, ...]]]]:
    """Real items, each with the places of its members."""
    features = []
    for path in sorted((real / "items").rglob("*.json")):
        content = json.loads(path.read_text())
        if content.get("type") == "Feature":
            content["links"] = content["links"][:2]
            features.append((content, [path for path in places(content) if path != ("collection",)]))
    return _Quiet(features)


class _Quiet(list[Any]):
    """Hypothesis writes down what a test is given, and warns of a megabyte."""

    def __repr__(self) -> str:
        return f"{len(self)} real items"


JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.just("\ud800"), st.just("None"), st.just("n/a"),
    st.just("32614"), st.just("2024-01-01T00:00:00Z"), st.just("9999-12-31T23:59:59Z"), st.just("99.99"),
    st.just("../../x"), st.just("file:///dev/zero"), st.just("CON"), st.just("http://["), st.just("//[x"),
    st.lists(st.none() | st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)  # fmt: skip


NUMBERS = st.integers(0, 10**6)


@pytest.mark.slow
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(NUMBERS, st.lists(st.tuples(NUMBERS, JUNK), min_size=1, max_size=2))
def test_whatever_stands_in_a_real_item(
    real_features: list[tuple[dict[str, Any], list[tuple[Any, ...]]]], which: int, changes: list[tuple[int, Any]]
) -> None:
    """Every member of every kind of item, one or two at a time, in three days: the other two are planned as they were.

    The item is used as if it were well, or fails by its name; nothing else is lost, and nothing else is raised.
    """
    feature, every = real_features[which % len(real_features)]
    west, south, east, north = feature["bbox"]
    x, y = (west + east) / 2, (south + north) / 2
    aoi = AOI("x", box(x - 0.01, y - 0.01, x + 0.01, y + 0.01, "EPSG:4326"))
    days = [copy.deepcopy(feature) for _ in range(3)]
    for number, day in enumerate(days):
        day["id"] = f"day{number}"
        day["properties"]["datetime"] = f"2023-06-1{number}T10:00:00Z"
        for name in ("s2:datatake_id", "eopf:datatake_id"):
            if name in day["properties"]:
                day["properties"][name] = f"GS2A_2023061{number}T100000_000000_N05.09"
    for position, junk in changes:
        *path, last = every[position % len(every)]
        content = days[1]
        try:
            for key in path:
                content = content[key]
            content[last] = junk
        except (TypeError, KeyError, IndexError):
            continue  # the first change took the place of the second away
    config, search = CubeSection(bands=("blue", "swir16")), SearchSection(collection=feature["collection"])
    items = list(from_features(days, "https://host/items"))
    (found,) = find_scenes([aoi], search, items, lambda item: drop_unused_assets(item, config))
    plan = narrow(Planner(config).plan(found, aoi), search)
    made = {each.id for each in plan.slices}
    assert {"x_20230610", "x_20230612"} <= made | {each.id for each in plan.unusable}
    for each in plan.unusable:
        assert isinstance(each.error, SliceError)
        str(each.error).encode()
    # The two that are well are as they are without the third.
    alone = make_plan(from_features([days[0], days[2]], "https://host/items"), aoi, config)
    recipes = {each.id: each.recipe for each in plan.slices}
    for each in alone.slices:
        if len(days[1]["id"] if isinstance(days[1].get("id"), str) else "") and each.id in recipes:
            assert recipes[each.id] == each.recipe


def test_items_made_in_python_are_checked_too(archive_items: list[dict[str, Any]]) -> None:
    item = pystac.Item.from_dict(copy.deepcopy(archive_items[0]), migrate=False)
    item.properties["proj:epsg"] = "none"
    plan = make_plan([item], AOI("x", box(-98.2, 41.1, -98.19, 41.11, "EPSG:4326")), CubeSection(bands=("blue",)))
    (unusable,) = plan.unusable
    assert isinstance(unusable.error, SceneError)


class TestPlaces:
    """Files beside their items, in folders with any name that a file system takes."""

    @pytest.mark.parametrize("name", ["a#1", "b?x=1", "50%25", "50%", "back\\slash", "a b", "Ä#ö?.tif"])
    @pytest.mark.parametrize("style", ["relative", "absolute", "file:"])
    def test_any_letter_may_stand_in_a_folder(
        self, s2cube_command: CommandLine, job: Job, archive: Archive, tmp_path: Path, name: str, style: str
    ) -> None:
        folder = tmp_path / name
        folder.symlink_to(archive.items.parent)
        page = json.loads(archive.items.read_text())
        page["features"] = [each for each in page["features"] if each["id"] == SPOILT]
        start = {"relative": ".", "absolute": str(folder), "file:": f"file://{folder}"}[style]
        for asset in page["features"][0]["assets"].values():
            asset["href"] = start + asset["href"].removeprefix(".")
        place = tmp_path / name if style == "relative" else tmp_path
        (items,) = from_features(page["features"], str(place / "items.json"))
        assert items.assets["blue"].href == str(folder / SPOILT / "B02.tif")
        assert Path(items.assets["blue"].href).exists()

    def test_a_run_in_such_a_folder(
        self, s2cube_command: CommandLine, job: Job, archive: Archive, tmp_path: Path
    ) -> None:
        odd = tmp_path / "a#1?x=2%20"
        odd.symlink_to(archive.items.parent)
        done = s2cube_command(
            *job("--bands", "blue", "--datetime", "2021", "--stac", odd / "items.json", "--out", "out#1?%20")
        )
        assert done.status == 0, done.err
        (path,) = done.json["written"]
        assert Path(path).exists()
        assert Path(path).is_relative_to(tmp_path / "out#1?%20")
        again = s2cube_command(
            *job("--bands", "blue", "--datetime", "2021", "--stac", odd / "items.json", "--out", "out#1?%20")
        )
        assert again.json["skipped"] == [DAY]

    def test_an_address_is_decoded_where_only_that_is_a_file(self, archive: Archive, tmp_path: Path) -> None:
        (tmp_path / "a b").symlink_to(archive.items.parent)
        feature = json.loads(archive.items.read_text())["features"][0]
        for href in ("./a%20b/x/../S2A/B02.tif", f"file://localhost{tmp_path}/a%20b/{SPOILT}/B02.tif"):
            feature["assets"]["blue"]["href"] = href.replace("x/../S2A", SPOILT)
            (item,) = from_features([copy.deepcopy(feature)], str(tmp_path / "items.json"))
            assert item.assets["blue"].href == f"{tmp_path}/a b/{SPOILT}/B02.tif"


def test_a_job_that_cannot_be_done_starts_no_cluster(
    s2cube_command: CommandLine, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bands that no scene has: one line, exit status 3, and no advice to run it again."""

    def no_cluster(*_: object) -> None:
        raise AssertionError("a cluster was started")

    monkeypatch.setattr("s2cube.cluster.client.open_client", no_cluster)
    done = s2cube_command(*job("--bands", "coastal"))
    assert done.status == 3
    assert len(done.json["failed"]) == len(PASSES)
    (line,) = (line for line in done.err.splitlines() if line.startswith("error: "))
    assert f"{len(PASSES)} slices cannot be computed, corner_20210724 to corner_20220912" in line
    assert "has no asset 'coastal' (nor B01, B01_60m)" in line
    assert "run again" not in done.err
    assert f"{len(PASSES)} FAILED: see out/failures.jsonl." in done.err
    assert len(Path("out/failures.jsonl").read_text().splitlines()) == len(PASSES)
    # What has been mended is taken off the list.
    assert s2cube_command(*job("--bands", "coastal", "--datetime", "1999")).status == 0


def test_an_address_that_is_none_beside_the_files(archive_items: list[dict[str, Any]]) -> None:
    """It is left out, for nothing is read there: the scene's own link, another place of an asset."""
    feature = copy.deepcopy(archive_items[0])
    feature["links"] = [{"rel": "self", "href": "http://["}]
    feature["assets"]["blue"]["alternate"] = {"s3": {"href": "s3://me:secret@[/b.tif", "title": "x"}}
    (item,) = from_features([feature], "https://host/items")
    assert item.get_self_href() is None
    assert item.assets["blue"].href.startswith("https://host/")
    assert item.assets["blue"].extra_fields["alternate"] == {"s3": {"title": "x"}}
